"""A number that knows what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self


class Detailed(float):
    """A float with named parts, which a score shows beside its value.

    Args:
        value: The number.
        details: Its parts, by name.

    Example:
        >>> total = Detailed(3.0, {"left": 1.0, "right": 2.0})
        >>> total + 1, total.details["right"]
        (4.0, 2.0)
    """

    details: Mapping[str, float]

    def __new__(cls, value: float, details: Mapping[str, float]) -> Self:
        number = super().__new__(cls, value)
        number.details = dict(details)
        return number

    def __reduce__(self) -> tuple[type[Detailed], tuple[float, Mapping[str, float]]]:
        return type(self), (float(self), self.details)
