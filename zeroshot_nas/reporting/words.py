"""Numbers as pages write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def short(value: float) -> str:
    """A number in three digits with k, M or G.

    Example:
        >>> short(1234567), short(999), short(0.01234), short(0)
        ('1.23M', '999', '0.0123', '0')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def count(value: float) -> str:
    """A whole number with commas."""
    return f"{value:,.0f}"


def counted(value: int, what: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "seed"), counted(1000, "epoch")
        ('1 seed', '1,000 epochs')
    """
    return f"{value:,} {what}{'s' * (value != 1)}"


def percent(part: float) -> str:
    """A part in percent, with as many digits as are read."""
    return f"{part:.0%}" if part >= 0.1 or part == 0 else f"{part:.1%}"


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(0.5), duration(75), duration(4000)
        ('0.5 s', '1 min 15 s', '1 h 7 min')
    """
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def setting(value: Any) -> str:
    """A setting on one line."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    if isinstance(value, int | float):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {setting(each)}" for name, each in value.items() if each is not None) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(setting, value)) or "none"
    return str(value)


def settings_rows(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings as names and values; what is not set is left out."""
    return [(name.replace("_", " "), setting(value)) for name, value in settings.items() if value is not None]
