"""CIFAR-10 and CIFAR-100 from their official files on disk, python or binary version (Krizhevsky, 2009)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import DataError, FileFormatError
from zeroshot_nas.training import plain_pickle
from zeroshot_nas.training.base import ImageData, register_data

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor
else:
    np = LazyModule("numpy")
    torch = LazyModule("torch")

_PIXELS = 3 * 32 * 32
_MAX_BYTES = 400_000_000  # CIFAR-100's training file, the largest, has 155 million
_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@register_data("cifar10")
def cifar10(path: Path) -> ImageData:
    """CIFAR-10: 50,000 and 10,000 images of 3x32x32, from ``cifar-10-batches-py`` or ``cifar-10-batches-bin``.

    Raises:
        DataError: The folder lacks a file.
        FileFormatError: A file is damaged.
    """
    train = [f"data_batch_{number}" for number in range(1, 6)]
    if (path / f"{train[0]}.bin").exists():
        parts = [_binary([path / f"{name}.bin" for name in names], 1) for names in (train, ["test_batch"])]
        return _data(parts, _text_names(path / "batches.meta.txt", _NAMES), f"cifar10:{path.resolve()}")
    parts = [_pickled([path / name for name in names], b"labels") for names in (train, ["test_batch"])]
    return _data(parts, _pickled_names(path / "batches.meta", b"label_names"), f"cifar10:{path.resolve()}")


@register_data("cifar100")
def cifar100(path: Path) -> ImageData:
    """CIFAR-100 with its 100 fine classes, from ``cifar-100-python`` or ``cifar-100-binary``.

    Raises:
        DataError: The folder lacks a file.
        FileFormatError: A file is damaged.
    """
    if (path / "train.bin").exists():
        parts = [_binary([path / name], 2) for name in ("train.bin", "test.bin")]
        numbers = tuple(map(str, range(100)))
        return _data(parts, _text_names(path / "fine_label_names.txt", numbers), f"cifar100:{path.resolve()}")
    parts = [_pickled([path / name], b"fine_labels") for name in ("train", "test")]
    return _data(parts, _pickled_names(path / "meta", b"fine_label_names"), f"cifar100:{path.resolve()}")


def _data(parts: Sequence[tuple[Tensor, Tensor]], names: Sequence[str], name: str) -> ImageData:
    return ImageData(*parts[0], *parts[1], tuple(names), name)


def _binary(files: Sequence[Path], label_bytes: int) -> tuple[Tensor, Tensor]:
    """Records of the binary version: labels, of which the last is the finest, then the pixels channel by channel."""
    records = []
    for file in files:
        content = np.frombuffer(_bytes(file), dtype=np.uint8)
        if not len(content) or len(content) % (label_bytes + _PIXELS):
            raise FileFormatError(
                f"{file} is damaged: expected records of {label_bytes + _PIXELS} bytes, got {len(content):,} in all"
            )
        records.append(content.reshape(-1, label_bytes + _PIXELS))
    rows = torch.from_numpy(np.concatenate(records))
    return rows[:, label_bytes:].reshape(-1, 3, 32, 32).contiguous(), rows[:, label_bytes - 1].long()


def _pickled(files: Sequence[Path], label_key: bytes) -> tuple[Tensor, Tensor]:
    images, labels = [], []
    for file in files:
        content = _unpickle(file)
        pixels, classes = content.get(b"data"), content.get(label_key)
        if (
            not isinstance(pixels, np.ndarray)
            or not isinstance(classes, list)
            or not all(type(label) is int and 0 <= label < 1000 for label in classes)
            or pixels.shape != (len(classes), _PIXELS)
        ):
            key = label_key.decode()
            raise FileFormatError(f"{file} is no CIFAR file: expected 'data', rows of {_PIXELS:,} bytes, and {key!r}")
        images.append(torch.from_numpy(pixels.copy()).view(-1, 3, 32, 32))
        labels.append(torch.tensor(classes, dtype=torch.int64))
    return torch.cat(images), torch.cat(labels)


def _text_names(file: Path, otherwise: Sequence[str]) -> Sequence[str]:
    if not file.exists():
        return otherwise
    return [line.strip() for line in _text(file, file.read_bytes()).splitlines() if line.strip()]


def _pickled_names(file: Path, key: bytes) -> list[str]:
    names = _unpickle(file).get(key)
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise FileFormatError(f"{file} is no CIFAR file: expected the list {key.decode()!r}")
    return [_text(file, name) for name in names]


def _text(file: Path, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{file} is damaged: its class names are no text ({error.reason})") from error


def _unpickle(file: Path) -> dict[bytes, Any]:
    content = _bytes(file)
    try:
        value = plain_pickle.load(content)
    except ValueError as error:
        raise FileFormatError(f"{file} is damaged, or no CIFAR file: {error}") from error
    if not isinstance(value, dict):
        raise FileFormatError(f"{file} is no CIFAR file: expected a dictionary, got {type(value).__name__}")
    return value


def _bytes(file: Path) -> bytes:
    if not file.is_file():
        raise DataError(f"{file} is missing; expected the official files of the python or binary version")
    if file.stat().st_size > _MAX_BYTES:
        raise FileFormatError(f"{file} has {file.stat().st_size:,} bytes; expected at most {_MAX_BYTES:,}")
    return file.read_bytes()
