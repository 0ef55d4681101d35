"""A score: a number that knows what it is made of, and how it was got. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from zeroshot_nas.core.frames import data_frame
from zeroshot_nas.core.html import html_table, number
from zeroshot_nas.errors import ZeroShotNASError

if TYPE_CHECKING:
    import pandas

_Network = TypeVar("_Network")


class ScoreValue(float):
    """A float with named parts, which a score shows beside its value.

    Args:
        value: The number.
        details: Its parts by name, or what works them out when somebody asks.

    Example:
        >>> total = ScoreValue(3.0, {"left": 1.0, "right": 2.0})
        >>> total + 1, total.details["right"]
        (4.0, 2.0)
        >>> ScoreValue(3.0, lambda: {"whole": 3.0}).details
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

    def __reduce__(self) -> tuple[type[ScoreValue], tuple[float, Mapping[str, float]]]:
        return type(self), (float(self), self.details)


@dataclass(frozen=True)
class Score:
    """What came of scoring one network with one proxy.

    Attributes:
        proxy: The proxy with its options: ``"zen"``, ``"zen:variant=zennas"``.
        value: Mean over the repeats; NaN where ``state`` is ``"failed"``.
        standard_error: Standard error of that mean; None after one repeat.
        repeats: How many independent draws of weights and inputs went in.
        seconds: Wall time.
        state: ``"ok"`` or ``"failed"``.
        reason: Why it failed; empty where it did not.
        details: What the value is made of, by name, where the proxy says so (`ScoreValue`); means
            over the repeats, as the value.
    """

    proxy: str
    value: float
    standard_error: float | None
    repeats: int
    seconds: float
    state: Literal["ok", "failed"] = "ok"
    reason: str = ""
    details: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def ok(self) -> bool:
        return self.state == "ok"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: a failed score's value is None."""
        value = None if math.isnan(self.value) else self.value
        return {**vars(self), "value": value, "details": dict(self.details)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Score:
        """Reads what `to_dict` gives."""
        return cls(**{**data, "value": math.nan if data["value"] is None else data["value"]})

    def _repr_html_(self) -> str:
        """A table of the value and what it is made of, for notebooks."""
        if not self.ok:
            return html_table(f"{self.proxy}: failed", [("reason", self.reason)])
        error = f" ± {self.standard_error:.2g}" if self.standard_error else ""
        rows = [("value", f"{self.value:.6g}{error}"), ("repeats", self.repeats), ("seconds", f"{self.seconds:.2g}")]
        return html_table(self.proxy, [*rows, *((name, number(part)) for name, part in self.details.items())])

    def to_pandas(self) -> pandas.DataFrame:
        """One row: proxy, value, its error, repeats, seconds, state, reason, and a column for each detail.

        Raises:
            MissingExtraError: The extra ``pandas`` is not installed.
        """
        own = {name: value for name, value in vars(self).items() if name != "details"}
        return data_frame([{**own, **self.details}])

    def __str__(self) -> str:
        if not self.ok:
            return f"{self.proxy}: failed ({self.reason})"
        error = "" if self.standard_error is None else f" ± {self.standard_error:.2g}"
        return f"{self.proxy}: {self.value:.6g}{error} ({self.repeats} repeats, {self.seconds:.2g} s)"


def value_or_error(function: Callable[[_Network], float], network: _Network) -> float | ZeroShotNASError:
    """A function's value; the error that it raises, where it says why there is none."""
    try:
        return function(network)
    except ZeroShotNASError as error:
        return error.with_traceback(None)
