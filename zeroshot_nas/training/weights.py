"""Weights as safetensors, with a digest: the format has no checksum, and a flipped bit would be another weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zeroshot_nas.core.text import read_json
from zeroshot_nas.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"

_ABOUT, _DIGEST = "zeroshot_nas", "sha256"
"""Names in the file's metadata: what the weights are of, and the digest of all else in the file."""


def weights_bytes(tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> bytes:
    """A safetensors file; the same for the same weights, since the header is in one order.

    Args:
        tensors: The weights, contiguous and in memory of their own.
        about: What they are of, JSON-ready; None says nothing of it.

    Raises:
        DataError: A weight is of a kind that the format does not have.

    Example:
        >>> import torch
        >>> read_weights(weights_bytes({"a": torch.ones(2)}, {"classes": 3}))
        ({'a': tensor([1., 1.])}, {'classes': 3})
    """
    from safetensors.torch import save

    try:
        header, data = _parts(save(dict(tensors)))
    except KeyError as error:
        raise DataError(f"weights of {error} can't be kept: safetensors has no such kind; convert the module") from None
    metadata = {"format": "pt", **({} if about is None else {_ABOUT: json.dumps(about, allow_nan=False)})}
    header["__metadata__"] = {**metadata, _DIGEST: _digest({**header, "__metadata__": metadata}, data)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors begin where the format wants them
    return len(text).to_bytes(8, "little") + text + data


def read_weights(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors of a safetensors file and what they are of, which is None in a file of another origin.

    Raises:
        ValueError: It is none, is cut short, or is not as it was written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
        header, data = _parts(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"no safetensors file, or cut short: {error}") from error
    return tensors, _about(header, data)


def read_about(content: bytes) -> dict[str, Any] | None:
    """What the weights of a safetensors file are of, without reading them; None in a file of another origin.

    Raises:
        ValueError: It is none, is cut short, or is not as it was written.

    Example:
        >>> import torch
        >>> read_about(weights_bytes({"a": torch.ones(2)}, {"classes": 3}))
        {'classes': 3}
    """
    try:
        header, data = _parts(content)
    except (ValueError, TypeError) as error:
        raise ValueError(f"no safetensors file, or cut short: {error}") from error
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise ValueError("no safetensors file: its header, or the metadata in it, is no JSON object")
    return _about(header, data)


def _about(header: Mapping[str, Any], data: bytes) -> dict[str, Any] | None:
    """What a header says of its weights, which are as they were written."""
    metadata = dict(header.get("__metadata__") or {})
    digest = metadata.pop(_DIGEST, None)
    if (digest is not None or _ABOUT in metadata) and digest != _digest({**header, "__metadata__": metadata}, data):
        raise ValueError("not as it was written: the digest in it is another")
    return read_json(metadata[_ABOUT]) if _ABOUT in metadata else None


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the tensors' bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = read_json(content[8:end])
    return header, content[end:]


def _digest(header: Mapping[str, Any], data: bytes) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode() + data).hexdigest()
