"""Text of strangers, such as what a file holds: shown so that it can do no harm, and read as JSON without surprises."""

from __future__ import annotations

import json
from typing import Any

_LONGEST = 60


def printable(text: str) -> str:
    r"""Text on one line whose every character prints; a terminal's escapes, line breaks and marks of direction do not.

    Example:
        >>> print(printable("caf\u00e9 \x1b[31m\n"))
        café \x1b[31m\n
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def quoted(value: object) -> str:
    """A value of a file in a few words: a few bytes of it can ask for gigabytes when they are written out.

    Example:
        >>> quoted("a" * 1_000), quoted(2.5), quoted([[1], [2]])
        ("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'...", '2.5', 'a list')
    """
    if isinstance(value, str | bytes):
        return f"{value[:_LONGEST]!r}{'...' * (len(value) > _LONGEST)}"
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() < 200):
        return repr(value)
    return f"a {type(value).__name__}"


def read_json(text: str | bytes) -> Any:
    """What JSON text holds; a byte order mark before it is skipped.

    Raises:
        ValueError: The text is no JSON, is nested too deeply, or an object in it has one key twice.

    Example:
        >>> read_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ValueError: the key 'a' occurs twice in an object
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=without_repeats)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys must differ.

    Raises:
        ValueError: A key occurs twice.
    """
    entries = dict(pairs)
    if len(entries) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {quoted(key)} occurs twice in an object")
            seen.add(key)
    return entries
