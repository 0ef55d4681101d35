"""The figures that pictures of a search show: what it saw by cost and score, and what led."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from zeroshot_nas.core.ranking import pareto_front
from zeroshot_nas.costs.base import COSTS
from zeroshot_nas.costs.reward import as_reward
from zeroshot_nas.searchers.base import Candidate, SearchResult

_SCALES = {
    "flops": (1e6, "FLOPs (million multiply-adds)"),
    "params": (1e3, "parameters (thousands)"),
    "latency_ms": (1, "latency (ms, predicted)"),
    "activations": (1e3, "activations (thousands)"),
}
_AXIS = ("latency_ms", "flops", "params")
"""The costs that the first picture may be drawn by; the first with a limit is."""


class Point(NamedTuple):
    """A network in a picture.

    Attributes:
        place: Networks that had been proposed by then; without a screen, that had been scored.
        cost: Its cost, in units of the axis.
        score: Its score, or reward.
        costs: All its costs that are known.
        name: As its space writes it; empty where only its figures were kept.
    """

    place: int
    cost: float
    score: float
    costs: Mapping[str, float]
    name: str = ""


@dataclass(frozen=True)
class SearchPoints:
    """A search by one cost.

    Attributes:
        cost: Which one.
        label: Its axis.
        score: What the other axis is.
        sign: 1 where higher scores are better, -1 where lower are.
        seen: What the search saw, in order: of a screen the networks of its trajectory, else all that were scored.
        finalists: What the proxy itself scored of a screen; none without one.
        winner: The best.
        front: Cost and score of those that no other beats in both, by cost.
        limit: The budget's, in units of the axis.
        best: The best score so far, for each of ``seen``.
    """

    cost: str
    label: str
    score: str
    sign: int
    seen: tuple[Point, ...]
    finalists: tuple[Point, ...]
    winner: Point
    front: tuple[tuple[float, float], ...]
    limit: float | None
    best: tuple[float, ...]


def search_points(result: SearchResult, cost: str | None = None) -> SearchPoints:
    """What pictures of a search show.

    Where a closed form screened, scores are that closed form's, of the networks in `SearchResult.trajectory`; else the
    proxy's, of every network. Of a reward they are rewards.

    Args:
        result: The search.
        cost: Name of a cost; default: the first of the objectives, or else that of the first limit among latency, FLOPs
            and parameters.
    """
    cost = cost or first_cost(result)
    scale, label = axis_of(cost)
    sign = _sign(result)
    scored = [each for each in result.history if math.isfinite(each.fitness) and _value(each, cost) is not None]
    points = [_point(result, each, place, cost, scale) for place, each in enumerate(scored, start=1)]
    seen = [
        Point(each.proposals, each.costs[cost] / scale, sign * each.fitness, each.costs)
        for each in result.trajectory
        if cost in each.costs
    ]
    finalists, seen = (points, seen) if result.trajectory else ([], points)
    every = [*seen, *finalists]
    leading = pareto_front([(each.cost, -sign * each.score) for each in every])
    limit = (result.settings.get("budget") or {}).get(cost)
    return SearchPoints(
        cost=cost,
        label=label,
        score=_name(result),
        sign=sign,
        seen=tuple(seen),
        finalists=tuple(finalists),
        winner=_point(result, result.best, 0, cost, scale),
        front=tuple(sorted((every[place].cost, every[place].score) for place in leading)),
        limit=None if limit is None else limit / scale,
        best=tuple(accumulate((each.score for each in seen), max if sign > 0 else min)),
    )


def axis_of(cost: str) -> tuple[float, str]:
    """The unit that a cost is drawn in, and the words at its axis."""
    return _SCALES.get(cost, (1, COSTS[cost].label if cost in COSTS else cost))


def first_cost(result: SearchResult) -> str:
    """The cost that a search is drawn by unless another is asked for."""
    limits = result.settings.get("budget") or {}
    for objective in result.objectives if "objectives" in result.settings else ():
        if objective.kind == "cost":
            return objective.name
    return next((name for name in _AXIS if name in limits), "flops")


def _value(candidate: Candidate, cost: str) -> float | None:
    value: Any = getattr(candidate.costs, cost)
    return None if value is None else float(value)


def _point(result: SearchResult, candidate: Candidate, place: int, cost: str, scale: float) -> Point:
    value = _value(candidate, cost)
    known = {name: each for name, each in candidate.costs.to_dict().items() if each is not None}
    shown = math.nan if value is None else value / scale
    return Point(place, shown, _shown(result, candidate), known, candidate.string)


def _sign(result: SearchResult) -> int:
    """1 where higher scores are better, -1 where lower are, as the winner's fitness says; of rewards higher are."""
    if "reward" in result.settings:
        return 1
    score = next(iter(result.best.scores.values()), None)
    return -1 if score is not None and score.value * result.best.fitness < 0 else 1


def _screen_key(result: SearchResult) -> str:
    return f"{result.settings.get('proxy')} in closed form"


def _name(result: SearchResult) -> str:
    name = _screen_key(result) if _screen_key(result) in result.best.scores else str(result.settings.get("proxy"))
    reward = as_reward(result.settings.get("reward"))
    return name if reward is None else f"{name}, rewarded by {reward}"


def _shown(result: SearchResult, candidate: Candidate) -> float:
    """A candidate's score, or reward, on the scale of the screen, where there was one."""
    closed = [score.value for key, score in candidate.scores.items() if key.endswith(" in closed form")]
    if not closed:
        return _sign(result) * candidate.fitness
    reward = as_reward(result.settings.get("reward"))
    return closed[0] if reward is None else reward.of_costs(closed[0], candidate.costs)
