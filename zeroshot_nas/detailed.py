"""A number that knows what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self


class Detailed(float):
    """A float with named parts, which a score shows beside its value.

    Args:
        value: The number.
        details: Its parts by name, or what works them out when somebody asks.

    Example:
        >>> total = Detailed(3.0, {"left": 1.0, "right": 2.0})
        >>> total + 1, total.details["right"]
        (4.0, 2.0)
        >>> Detailed(3.0, lambda: {"whole": 3.0}).details
        {'whole': 3.0}
    """

    _details: Mapping[str, float] | Callable[[], Mapping[str, float]]

    def __new__(cls, value: float, details: Mapping[str, float] | Callable[[], Mapping[str, float]]) -> Self:
        number = super().__new__(cls, value)
        number._details = details
        return number

    @property
    def details(self) -> Mapping[str, float]:
        """The parts by name."""
        if callable(self._details):
            self._details = dict(self._details())
        return self._details

    def __reduce__(self) -> tuple[type[Detailed], tuple[float, Mapping[str, float]]]:
        return type(self), (float(self), self.details)
