"""Fronts under several objectives: what an objective is, the networks that lead, and their hypervolume."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from zeroshot_nas.core.pareto import hypervolume, largest_hypervolume
from zeroshot_nas.core.ranking import pareto_front
from zeroshot_nas.errors import HypervolumeWarning, UnknownNameError

if TYPE_CHECKING:
    from zeroshot_nas.searchers.base import Candidate

MARGIN = 0.1
"""How far beyond the worst values of a front its default reference point lies, as a part of their range."""


class Objective(NamedTuple):
    """What a search makes large or small.

    Attributes:
        name: A proxy's key, or a cost's name.
        kind: ``"score"`` for what candidates' fitness says, ``"cost"`` for a cost.
        direction: Whether ``"higher"`` or ``"lower"`` values are better; lower ones of every cost.
    """

    name: str
    kind: Literal["score", "cost"] = "cost"
    direction: Literal["higher", "lower"] = "lower"

    @property
    def sign(self) -> int:
        """1 where lower is better, -1 where higher is."""
        return 1 if self.direction == "lower" else -1

    def minimised(self, candidate: Candidate) -> float:
        """What a search makes small: the value, negated where higher is better."""
        if self.kind == "score":
            return -candidate.fitness
        value = candidate.costs[self.name]
        assert value is not None, f"{self.name} is known of every candidate"
        return value

    def value(self, candidate: Candidate) -> float:
        """The score or the cost itself."""
        return self.sign * self.minimised(candidate)


DEFAULT_OBJECTIVES = (Objective("fitness", "score", "higher"), Objective("params"), Objective("flops"))
"""Of a search that was asked for none."""


def point_of(candidate: Candidate, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """A candidate's place among others: smaller is better on every axis."""
    return tuple([objective.minimised(candidate) for objective in objectives])


class Hypervolume(float):
    """A hypervolume, with the reference point that it is measured from.

    Args:
        volume: The number.
        reference: The point, by objective, in the objectives' own values.

    Example:
        >>> Hypervolume(5.0, {"cet": 70.0, "flops": 1e8})
        Hypervolume(5, from cet 70, flops 1e+08)
    """

    reference: Mapping[str, float]

    def __new__(cls, volume: float, reference: Mapping[str, float]) -> Hypervolume:
        number = super().__new__(cls, volume)
        number.reference = dict(reference)
        return number

    def __getnewargs__(self) -> tuple[float, Mapping[str, float]]:  # type: ignore[override]
        return float(self), self.reference

    def __repr__(self) -> str:
        return f"Hypervolume({self})"

    def __str__(self) -> str:
        return f"{float(self):.6g}, from {', '.join(f'{name} {value:.6g}' for name, value in self.reference.items())}"


class Front(tuple["Candidate", ...]):
    """The candidates that no other beats or equals in every objective: a tuple, in the order of the history.

    Called with a number it gives a smaller front; see `__call__`.

    Args:
        candidates: Scored candidates, of which the front is taken.
        objectives: What they are compared by.

    Attributes:
        objectives: Of these.
    """

    objectives: tuple[Objective, ...]

    def __new__(cls, candidates: Iterable[Candidate], objectives: Sequence[Objective] = DEFAULT_OBJECTIVES) -> Front:
        scored = list(candidates)
        leading = pareto_front([point_of(candidate, objectives) for candidate in scored])
        front = super().__new__(cls, [scored[place] for place in leading])
        front.objectives = tuple(objectives)
        return front

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.objectives

    def __call__(self, count: int, reference: Mapping[str, float] | Sequence[float] | None = None) -> Front:
        """At most so many networks of the front, chosen so that together they have much of its hypervolume.

        The choice is greedy (`zeroshot_nas.core.pareto.largest_hypervolume`): at least 63 % of what the best so many
        have. A front of no more networks is given whole.

        Args:
            count: How many.
            reference: As in `hypervolume`.

        Raises:
            ValueError: ``count`` is no whole number of 1 or more, or the reference does not fit the objectives.
        """
        if type(count) is not int or count < 1:
            raise ValueError(f"a front has a whole number of networks, 1 or more, got {count!r}")
        corner = self._corner(self.reference() if reference is None else reference)
        chosen = sorted(largest_hypervolume(self.points, count, corner)) if count < len(self) else range(len(self))
        return Front([self[place] for place in chosen], self.objectives)

    @property
    def points(self) -> list[tuple[float, ...]]:
        """The networks' places; smaller is better on every axis."""
        return [point_of(candidate, self.objectives) for candidate in self]

    def values(self) -> list[dict[str, float]]:
        """What each network has of every objective."""
        return [{each.name: each.value(candidate) for each in self.objectives} for candidate in self]

    def reference(self) -> dict[str, float]:
        """The reference point that is taken where none is given.

        On each objective it is worse than the front's worst value by a tenth (`MARGIN`) of the front's range there;
        where all values are equal, as in a front of one network, by a tenth of the value (of 1 where it is 0). So each
        network counts, those at the ends too. Volumes of two fronts compare only where both are from one reference:
        give one to compare by.

        Raises:
            ValueError: The front is empty.
        """
        if not self:
            raise ValueError("no network has a score, so that there is no front to take a reference point from")
        corner = {}
        for objective, values in zip(self.objectives, zip(*self.points, strict=True), strict=True):
            worst, best = max(values), min(values)
            extent = worst - best or abs(worst) or 1.0
            corner[objective.name] = objective.sign * (worst + MARGIN * extent)
        return corner

    def hypervolume(self, reference: Mapping[str, float] | Sequence[float] | None = None) -> Hypervolume:
        """The volume between the front and a reference point, in the product of the objectives' units.

        Args:
            reference: The point, by objective or in the order of the objectives; default: `reference`.

        Returns:
            The volume, a float whose ``reference`` is that point.

        Raises:
            ValueError: The point has other objectives, or is not of finite numbers.

        Warns:
            HypervolumeWarning: No network of the front is better than the point in every objective: the volume is 0.
        """
        point = self.reference() if reference is None else reference
        corner = self._corner(point)
        stated = {each.name: each.sign * value for each, value in zip(self.objectives, corner, strict=True)}
        volume = Hypervolume(hypervolume(self.points, corner), stated)
        if not volume:
            ends = {name: [row[name] for row in self.values()] for name in stated}
            spans = ", ".join(f"{name} {min(values):.6g} to {max(values):.6g}" for name, values in ends.items())
            warnings.warn(
                f"the hypervolume is {volume}, which no network of the front dominates: the front has {spans}; give a "
                "reference that is worse in every objective",
                HypervolumeWarning,
                stacklevel=2,
            )
        return volume

    def _corner(self, reference: Mapping[str, float] | Sequence[float]) -> tuple[float, ...]:
        """A reference point on the axes of `points`."""
        names = [objective.name for objective in self.objectives]
        if isinstance(reference, Mapping):
            for name in reference:
                if name not in names:
                    raise UnknownNameError("objective of this front", str(name), names)
            if missing := [name for name in names if name not in reference]:
                raise ValueError(f"a reference point has every objective; it lacks {', '.join(missing)}")
            values = [reference[name] for name in names]
        else:
            values = list(reference)
        if len(values) != len(names):
            raise ValueError(f"a reference point has one number each of {', '.join(names)}; got {len(values)} numbers")
        for name, value in zip(names, values, strict=True):
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise ValueError(f"a reference point is of finite numbers; its {name} is {value!r}")
        return tuple(each.sign * float(value) for each, value in zip(self.objectives, values, strict=True))
