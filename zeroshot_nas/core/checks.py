"""Checks that many functions make of their arguments and files, in the same words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from zeroshot_nas.errors import FileFormatError


def check_counts(least: int = 1, error: type[Exception] = ValueError, /, **counts: object) -> None:
    """Refuses what is no whole number of so many or more, by its name.

    Args:
        least: The smallest number that is taken.
        error: What is raised.
        counts: The numbers by the names that the caller knows them by.

    Example:
        >>> check_counts(repeats=2, batch_size=16)
        >>> check_counts(repeats=True)
        Traceback (most recent call last):
        ValueError: repeats must be a whole number of 1 or more, got True
    """
    for name, value in counts.items():
        if type(value) is not int or value < least:
            raise error(f"{name} must be a whole number of {least} or more, got {value!r}")


def check_format(
    data: Any, expected: str, version: int, what: str, *, file: str = "", error: type[Exception] = FileFormatError
) -> None:
    """Refuses what is no JSON object of a format and version of ours.

    Args:
        data: What JSON text holds.
        expected: The name that must stand under ``format``.
        version: The number that must stand under ``version``.
        what: What such an object is, for the message: ``"a table"``.
        file: Where it stands, for the message.
        error: What is raised.

    Example:
        >>> check_format({"format": "demo", "version": 2}, "demo", 1, "a demo")
        Traceback (most recent call last):
        zeroshot_nas.errors.FileFormatError: a demo of version 2; this release reads version 1
    """
    where = f"{file}: " if file else ""
    if not isinstance(data, dict) or data.get("format") != expected:
        raise error(f"{where}not {what}: expected a JSON object with format {expected!r}")
    if data.get("version") != version:
        raise error(f"{where}{what} of version {data.get('version')!r:.40}; this release reads version {version}")


def parsed(text: str, expected: str, version: int, what: str) -> dict[str, Any]:
    """The JSON object of a format and version of ours that a text is; see `check_format`.

    Raises:
        FileFormatError: It is none.

    Example:
        >>> parsed('{"format": "demo", "version": 1, "n": 3}', "demo", 1, "a demo")["n"]
        3
    """
    try:
        data: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"not JSON: {error}") from None
    check_format(data, expected, version, what)
    return data


def as_shape(input_size: Sequence[int], error: type[Exception]) -> tuple[int, int, int]:
    """Channels, height and width of one image.

    Example:
        >>> as_shape([3, 32, 32], ValueError)
        (3, 32, 32)
    """
    if not isinstance(input_size, Sequence) or len(input_size) != 3:
        given = tuple(input_size) if isinstance(input_size, Sequence) else input_size
        raise error(f"expected input_size (C, H, W), got {given!r:.80}")
    return input_size[0], input_size[1], input_size[2]
