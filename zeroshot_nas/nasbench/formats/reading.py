"""What readers of benchmark files share: compressed streams, and entries and numbers that may be anything."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from zeroshot_nas.errors import FileFormatError, did_you_mean

DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, zlib.error)
"""What reading a damaged compressed file raises."""

MAX_RUNS = 1000
"""Longest list of runs, or of epochs, that is taken; a pickle can refer to one long list again and again."""

MAX_ROWS = 1_000_000
"""Architectures in a file; NAS-Bench-101, the largest benchmark, has 423,624."""

MAX_RATIO = 100
"""How much a compressed file may inflate: results of trainings are numbers that differ, and come to some tenfold."""

_SMALL = 16 << 20
"""Bytes that any file may inflate to."""

_HEAD = 4096

_Kind = TypeVar("_Kind")


def open_stream(path: Path) -> BinaryIO:
    """Opens a file for reading, through bz2 or gzip where its first bytes say so."""
    with path.open("rb") as file:
        magic = file.read(3)
    if magic == b"BZh":
        return cast(BinaryIO, io.BufferedReader(_Inflated(cast(BinaryIO, bz2.open(path, "rb")), path)))
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, io.BufferedReader(_Inflated(cast(BinaryIO, gzip.open(path, "rb")), path)))
    return path.open("rb")


def check_ratio(inflated: int, path: Path) -> None:
    """Refuses a small file that would fill the memory.

    Raises:
        FileFormatError: It comes to more than `MAX_RATIO` times its size.
    """
    if inflated > max(_SMALL, MAX_RATIO * path.stat().st_size):
        raise FileFormatError(
            f"{path}: inflates to more than {MAX_RATIO} times its size; no benchmark does, and it could fill the memory"
        )


class _Inflated(io.RawIOBase):
    """A compressed stream that is read no further than `check_ratio` lets it."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path, self._read = stream, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        self._read += len(content)
        check_ratio(self._read, self._path)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


def peek(path: Path) -> bytes:
    """The first 4,096 bytes of a file after decompression; what there is where it is damaged."""
    with open_stream(path) as stream:
        try:
            return stream.read(_HEAD)
        except DAMAGE:
            return b""


def as_number(value: object) -> float | None:
    """A finite number as a float; None for anything else, such as text, NaN or a truth value.

    Example:
        >>> as_number(3), as_number("3"), as_number(float("nan"))
        (3.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int of more than 308 digits
        return None
    return number if math.isfinite(number) else None


def field_of(data: object, key: object, kind: type[_Kind], where: str) -> _Kind:
    """An entry of a mapping, of the type it must have.

    Args:
        data: What should be a dict.
        key: The entry's key.
        kind: The type that it must have.
        where: File and place, for the message.

    Raises:
        FileFormatError: ``data`` is no dict, has no such entry, or it is of another type.
    """
    if not isinstance(data, dict):
        raise FileFormatError(f"{where}: expected a dict with {key!r}, got {_described(data)}")
    if key not in data:
        near = [name for name in itertools.islice(data, 200) if isinstance(name, str) and len(name) < 80]
        hint = did_you_mean(key, near) if isinstance(key, str) else ""
        raise FileFormatError(f"{where}: expected an entry {key!r}, found none.{hint}")
    value = data[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise FileFormatError(f"{where}: expected {key!r} to be of type {kind.__name__}, got {_described(value)}")
    return value


def choose_dataset(dataset: str | None, held: Iterable[str], where: str) -> str:
    """The data set that is meant: the given one, or the only one, or CIFAR-10.

    Raises:
        FileFormatError: The file does not hold it, or holds several and none was named.
    """
    names = list(held)
    listed = ", ".join(name[:80] for name in names[:20]) or "none"
    if dataset is None:
        if "cifar10" in names or len(names) == 1:
            return "cifar10" if "cifar10" in names else names[0]
        raise FileFormatError(f"{where}: holds several data sets; say which with dataset=, one of: {listed}")
    if dataset not in names:
        raise FileFormatError(f"{where}: no data set {dataset!r}.{did_you_mean(dataset, names)} Held: {listed}")
    return dataset


def _described(value: object) -> str:
    return f"{type(value).__name__} {value[:40]!r}" if isinstance(value, str) else type(value).__name__
