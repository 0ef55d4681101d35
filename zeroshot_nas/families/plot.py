"""A family as a picture: score or accuracy over latency, or over FLOPs where latency is of several devices or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshot_nas.families.family import Family
from zeroshot_nas.families.trained import TrainedFamily
from zeroshot_nas.plots.base import figure_class, save_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT, TRAINING_PLOT = "family", "trained"
"""Names of the files, each as ``.png`` and as ``.svg``."""

_OWN, _FREE = "#c0392b", "#1f5fa8"


def plot_family(family: Family) -> Figure:
    """Each member's score over what it costs; of a nested family the scores without nesting, too.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, axes = _axes()
    costs = [each.candidate.costs.flops for each in family.members]
    xs, label = axis_of_costs([(each.latency_ms, each.device) for each in family.members], costs)
    axes.plot(xs, [each.score for each in family.members], "o-", color=_OWN, label="family")
    free = [(x, each.free_score) for x, each in zip(xs, family.members, strict=True) if each.free_score is not None]
    if free:
        axes.plot(*zip(*free, strict=True), "x", color=_FREE, label="without nesting")
        axes.legend(frameon=False)
    for x, each in zip(xs, family.members, strict=True):
        axes.annotate(each.name, (x, each.score), xytext=(6, -12), textcoords="offset points", fontsize=9)
    axes.set(xlabel=label, ylabel=family.proxy, title="nested family" if family.nested else "family")
    return figure


def plot_training(trained: TrainedFamily) -> Figure:
    """Each member's test accuracy with its 95 % interval over what it costs.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, axes = _axes()
    members = trained.members
    xs, label = axis_of_costs([(each.latency_ms, each.device) for each in members], [each.flops for each in members])
    for x, each in zip(xs, members, strict=True):
        mean, low, high = (100 * value for value in each.accuracy)
        axes.errorbar(x, mean, [[mean - low], [high - mean]], fmt="o", color=_OWN, capsize=3)
        axes.annotate(each.name, (x, mean), xytext=(7, 4), textcoords="offset points", fontsize=9)
    axes.set(xlabel=label, ylabel="test accuracy (%)", title=f"family on {trained.data}, way: {trained.way}")
    return figure


def _axes() -> tuple[Figure, Any]:
    figure = figure_class()(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def axis_of_costs(latencies: Sequence[tuple[float | None, str]], flops: Sequence[float]) -> tuple[list[float], str]:
    """Where members stand on the axis of costs, and what that is."""
    known = [latency for latency, _ in latencies if latency is not None]
    devices = {device for _, device in latencies}
    if len(devices) == 1 and len(known) == len(latencies):
        return known, f"latency (ms), {devices.pop()}"
    return [each / 1e6 for each in flops], "FLOPs (million multiply-adds)"


def write_family_plot(family: Family, folder: Path) -> None:
    """Draws a family into a folder.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    save_plot(plot_family(family), folder / PLOT)


def write_training_plot(trained: TrainedFamily, folder: Path) -> None:
    """Draws a trained family into a folder.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    save_plot(plot_training(trained), folder / TRAINING_PLOT)
