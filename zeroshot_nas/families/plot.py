"""A family as a picture: score or accuracy over latency, or over FLOPs where latency is of several devices or none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.families.family import Family
from zeroshot_nas.plots.base import figure_class, save_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT = "family"
"""Name of the files, each as ``.png`` and as ``.svg``."""

_OWN, _FREE = "#c0392b", "#1f5fa8"


def plot_family(family: Family) -> Figure:
    """Each member's score over what it costs; of a nested family the scores without nesting, too.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = figure_class()(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    devices = {each.device for each in family.members}
    latencies = [each.latency_ms for each in family.members if each.latency_ms is not None]
    timed = len(devices) == 1 and len(latencies) == len(family.members)
    xs = latencies if timed else [each.candidate.costs.flops / 1e6 for each in family.members]
    axes.plot(xs, [each.score for each in family.members], "o-", color=_OWN, label="family")
    free = [(x, each.free_score) for x, each in zip(xs, family.members, strict=True) if each.free_score is not None]
    if free:
        axes.plot(*zip(*free, strict=True), "x", color=_FREE, label="without nesting")
        axes.legend(frameon=False)
    for x, each in zip(xs, family.members, strict=True):
        axes.annotate(each.name, (x, each.score), xytext=(6, -12), textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.15)
    device = next(iter(devices)) if timed else ""
    axes.set(
        xlabel=f"latency (ms) on {device}" if timed else "FLOPs (million multiply-adds)",
        ylabel=family.proxy,
        title="nested family" if family.nested else "family",
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def write_family_plot(family: Family, folder: Path) -> None:
    """Draws a family into a folder.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    save_plot(plot_family(family), folder / PLOT)
