"""On-off patterns of ReLUs and their like: which units are on for which images, and how many patterns differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor
else:
    np = LazyModule("numpy")
    torch = LazyModule("torch")

_PART = 24
"""Bits that float32 adds up exactly."""

_WORD = 62
"""Bits kept in one int64."""

_CACHED = 1 << 12
"""Words of an image that are compared at a time, so that those of all images stay in the cache."""

_TABLE = 1 << 22
"""Up to this many possible patterns, those seen are marked in a table; beyond, they are sorted."""

_LIKE_RELU = frozenset(
    """
    celu elu gelu hardswish hardtanh leaky_relu mish prelu relu relu6 rrelu selu silu softplus softsign tanh threshold
    """.split()  # noqa: SIM905  read as a list of words
)
"""Activations whose units count, by torch's names: they bend or turn at zero. Gates (sigmoids, GLU) don't."""


def units_on(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Which units of an activation are on: those whose input is above zero, or above a threshold's own level.

    Args:
        func: Any torch function.
        args: What it is called with, before it runs.
        kwargs: Its keyword arguments.

    Returns:
        Booleans of the input's shape; None where the function is no such activation.

    Example:
        >>> units_on(torch.nn.functional.hardswish, [torch.tensor([-1.0, 0.0, 2.0])], {}).tolist()
        [False, False, True]
        >>> units_on(torch.sigmoid, [torch.zeros(2)], {}) is None
        True
    """
    name = getattr(func, "__name__", "").strip("_")
    if name not in _LIKE_RELU:
        return None
    x = args[0] if args else kwargs["input"]
    level = (args[1] if len(args) > 1 else kwargs["threshold"]) if name == "threshold" else 0
    on: Tensor = x.detach() > level
    return on


def relu_units(relus: Sequence[Tensor], images: int, *, spatial: bool = False) -> list[Tensor]:
    """Every activation's units as a matrix ``(N, units)``, without a copy where memory allows.

    Units stand in the order in which they lie in memory, the same for all images.

    Args:
        relus: Of each of the network's activations which units are on, ``(N, ...)``, or of a ReLU its result.
        images: N.
        spatial: Leave out those without spatial axes.

    Raises:
        ProxyError: There is none, or one whose first axis is not the images.

    Example:
        >>> [tuple(units.shape) for units in relu_units([torch.ones(2, 3, 4, 4), torch.ones(2, 5)], 2)]
        [(2, 48), (2, 5)]
    """
    wanted = [relu for relu in relus if relu.dim() > 2 or not spatial]
    if not wanted:
        where = " on a feature map" if spatial else ""
        raise ProxyError(
            f"this proxy reads ReLUs and their like, and the module calls none{where} "
            f"({', '.join(sorted(_LIKE_RELU))} count, gates don't)"
        )
    for relu in wanted:
        if relu.dim() < 2 or len(relu) != images:
            raise ProxyError(
                f"expected activations of {images} images on the first axis, got shape {tuple(relu.shape)}"
            )
    return [_flat(relu) for relu in wanted]


def packed_units(relus: Sequence[Tensor]) -> npt.NDArray[np.uint64]:
    """All units of each image as bits, 64 a word: ``(N, words)``; zeros fill the last.

    Args:
        relus: Of each activation which units are on ``(N, units)``: booleans, or a ReLU's result.

    Example:
        >>> packed_units([torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 0.0]])]).shape
        (2, 1)
    """
    rows = [np.packbits(units.bool().cpu().numpy(), axis=1) for units in relus]
    size = sum(row.shape[1] for row in rows)
    packed = np.zeros((len(rows[0]), -(-size // 8)), np.uint64)
    np.concatenate(rows, axis=1, out=packed.view(np.uint8)[:, :size])
    return packed


def differing_units(packed: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """How many units are on in one image of a pair alone, for every pair ``(N, N)``; exact.

    Args:
        packed: From `packed_units`.

    Example:
        >>> differing_units(packed_units([torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 0.0]])])).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    counts = np.zeros((len(packed), len(packed)))
    for part in np.split(packed, range(_CACHED, packed.shape[1], _CACHED), axis=1):
        for image, words in enumerate(part[:-1]):
            counts[image, image + 1 :] += _bit_counts(part[image + 1 :] ^ words)
    return counts + counts.T


def unit_codes(units: Tensor) -> Tensor:
    """Every unit's pattern over the images, as bits: int64 ``(words, units)``, 62 images a word.

    Args:
        units: Which units are on ``(N, units)``: booleans, or a ReLU's result.

    Example:
        >>> unit_codes(torch.tensor([[1.0, 0.0, 3.0], [0.0, 0.0, 2.0]])).tolist()  # two images, three units
        [[1, 0, 3]]
    """
    codes = _codes(units)
    return torch.stack([_pack(word) for word in torch.split(codes, _WORD)])


def count_patterns(codes: Tensor) -> int:
    """How many units' patterns differ.

    Args:
        codes: From `unit_codes`; of several activations, ``torch.cat([...], dim=1)``.

    Example:
        >>> count_patterns(torch.tensor([[1, 0, 3, 0]]))
        3
    """
    merged = codes[0]
    for word in codes[1:]:  # words become ranks, so that two fit in one again
        _, first = torch.unique(merged, return_inverse=True)
        _, second = torch.unique(word, return_inverse=True)
        merged = first * (second.max() + 1) + second
    largest = int(merged.max())
    if largest < _TABLE:
        seen = torch.zeros(largest + 1, dtype=torch.bool, device=merged.device)
        seen[merged] = True
        return int(seen.sum())
    return len(torch.unique(merged))


def count_images(relus: Sequence[Tensor]) -> int:
    """How many images differ in the pattern of their units.

    Args:
        relus: Which units are on ``(N, units)``: booleans, or a ReLU's result.

    Example:
        >>> count_images([torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])])
        2
    """
    return len({row.tobytes() for row in packed_units(relus)})


def _bit_counts(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Ones in each row of words."""
    ones = np.bitwise_count(words) if hasattr(np, "bitwise_count") else np.unpackbits(words.view(np.uint8), axis=1)
    return np.asarray(ones.sum(1, dtype=np.int64))  # NumPy 1 counts no bits


def _flat(relu: Tensor) -> Tensor:
    if relu.dim() == 4 and relu.is_contiguous(memory_format=torch.channels_last):
        return relu.permute(0, 2, 3, 1).flatten(1)
    return relu.flatten(1)


def _codes(units: Tensor) -> Tensor:
    """1 where a unit is on, else 0, in a type whose products are exact."""
    return units.float() if units.dtype == torch.bool else (units > 0).float()


def _pack(codes: Tensor) -> Tensor:
    """Up to 62 rows of zeros and ones as the bits of one row."""
    word = torch.zeros(codes.shape[1], dtype=torch.int64, device=codes.device)
    for start in range(0, len(codes), _PART):
        part = codes[start : start + _PART]
        bits = torch.exp2(torch.arange(len(part), dtype=part.dtype, device=part.device))
        word += (bits @ part).long() << start
    return word
