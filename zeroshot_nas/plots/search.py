"""A search in pictures: what it saw by cost and score, and the best score over its proposals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroshot_nas.core.ranking import pareto_front
from zeroshot_nas.costs.reward import as_reward
from zeroshot_nas.errors import ReportError
from zeroshot_nas.plots.base import KINDS, figure_class, save_plot
from zeroshot_nas.searchers.base import Candidate, SearchResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCALES = {
    "flops": (1e6, "FLOPs (million multiply-adds)"),
    "params": (1e3, "parameters (thousands)"),
    "latency_ms": (1, "latency (ms, predicted)"),
    "activations": (1e3, "activations (thousands)"),
}
_AXIS = ("latency_ms", "flops", "params")
"""The costs that the first picture may be drawn by; the first with a limit is."""


class _Points(NamedTuple):
    """Networks in the order in which a search saw them, as the pictures need them."""

    proposals: list[int]
    costs: list[float]
    scores: list[float]


def plot_search(result: SearchResult) -> Figure:
    """Two pictures of a search.

    On the left the networks that it saw by cost and score, with the budget's limit, their front and the winner; the
    cost is the first of the objectives, or else that of the first limit among latency, FLOPs and parameters. On the
    right the best score over the proposals. Where a closed form screened, both show that closed form, of the networks
    in `SearchResult.trajectory`; else the proxy, of every network. Of a reward both show the reward.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = figure_class()(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    cost = _cost(result)
    scale, label = _SCALES.get(cost, (1, cost))
    seen, sign = _seen(result, cost), _sign(result)
    finalists = [each for each in result.history if math.isfinite(each.fitness)]
    at = [_value(each.costs, cost) / scale for each in finalists]
    scores = [_shown(result, each) for each in finalists]

    left.scatter([value / scale for value in seen.costs], seen.scores, s=6, color="0.75", linewidths=0, label="seen")
    if result.trajectory:
        left.scatter(at, scores, s=9, color="#1f5fa8", linewidths=0, label="finalists")
    every_x, every_y = [*(value / scale for value in seen.costs), *at], [*seen.scores, *scores]
    best_at = pareto_front([(x, -sign * y) for x, y in zip(every_x, every_y, strict=True)])
    front = sorted((every_x[place], every_y[place]) for place in best_at)
    left.step(*zip(*front, strict=True), where="post", color="#3d8b56", lw=1.4, label="front")
    left.plot(
        _value(result.best.costs, cost) / scale,
        _shown(result, result.best),
        "*",
        ms=12,
        color="#c0392b",
        label="winner",
    )
    if (limit := _limit(result, cost)) is not None:
        left.axvline(limit / scale, color="0.3", ls="--", lw=1, label="budget")
    left.set(xlabel=label, ylabel=_name(result), title="networks that the search saw")

    best = list(accumulate(seen.scores, max if sign > 0 else min))
    right.plot(seen.proposals, seen.scores, ".", ms=2.5, color="0.75", label="seen")
    right.step(seen.proposals, best, where="post", color="#c0392b", lw=1.2, label="best so far")
    seconds = f", {result.seconds['total']:.0f} s" if "total" in result.seconds else ""
    title = f"{result.counts.proposed:,} proposals{seconds}"
    right.set(xlabel="proposals" if result.trajectory else "networks scored", ylabel=_name(result), title=title)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="best", fontsize=8)
    return figure


def write_search_plot(folder: Path | str, out: Path | str | None = None) -> Path:
    """Draws a run's result; gives the file.

    Args:
        folder: The run's folder.
        out: A ``.png`` or ``.svg`` file; default: ``search.png`` in the folder.

    Raises:
        ReportError: The folder holds no finished search, or the file's name ends otherwise.
        MissingExtraError: matplotlib is not installed.
    """
    file = Path(folder) / "search.png" if out is None else Path(out)
    kind = file.suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise ReportError(f"a plot's file ends in {' or '.join(f'.{each}' for each in KINDS)}, got {file.name!r}")
    source = Path(folder) / "result.json"
    if not source.is_file():
        raise ReportError(f"{folder} holds no finished search; go on with it: zeroshot-nas resume {folder}")
    save_plot(plot_search(SearchResult.from_json(source.read_text(encoding="utf-8"))), file.with_suffix(""), [kind])
    return file


def _cost(result: SearchResult) -> str:
    limits = result.settings.get("budget") or {}
    for objective in result.objectives if "objectives" in result.settings else ():
        if objective.kind == "cost":
            return objective.name
    return next((name for name in _AXIS if name in limits), "flops")


def _limit(result: SearchResult, cost: str) -> float | None:
    limits: Mapping[str, Any] = result.settings.get("budget") or {}
    return limits.get(cost)


def _value(costs: Any, cost: str) -> float:
    return float(getattr(costs, cost))


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


def _seen(result: SearchResult, cost: str) -> _Points:
    sign = _sign(result)
    if result.trajectory:
        points = [point for point in result.trajectory if cost in point.costs]
        return _Points(
            [point.proposals for point in points],
            [point.costs[cost] for point in points],
            [sign * point.fitness for point in points],
        )
    alive = [each for each in result.history if math.isfinite(each.fitness)]
    return _Points(
        list(range(1, len(alive) + 1)),
        [_value(each.costs, cost) for each in alive],
        [sign * each.fitness for each in alive],
    )
