"""A comparison as a picture: accuracy over latency, or over FLOPs where no latency was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.comparing.comparison import Comparison
from zeroshot_nas.plots.base import figure_class, save_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT = "comparison"
"""Name of the files, each as ``.png`` and as ``.svg``."""

_GIVEN, _BY_HAND = "#c0392b", "#1f5fa8"


def plot_comparison(comparison: Comparison) -> Figure:
    """Mean test accuracy with its 95 % interval, and each training as a dot, over what the network costs.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = figure_class()(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    latencies = [each.costs.latency_ms for each in comparison.networks if each.costs.latency_ms is not None]
    timed = len(latencies) == len(comparison.networks)
    flops = [each.costs.flops / 1e6 for each in comparison.networks]
    for x, network in zip(latencies if timed else flops, comparison.networks, strict=True):
        accuracy = network.accuracy
        if accuracy is None:
            continue
        colour = _BY_HAND if network.by_hand else _GIVEN
        dots = [100 * each for each in network.accuracies]
        axes.plot([x] * len(dots), dots, ".", ms=4, color=colour, alpha=0.5)
        mean, low, high = (100 * each for each in accuracy)
        axes.errorbar(x, mean, [[mean - low], [high - mean]], fmt="o", color=colour, capsize=3)
        axes.annotate(network.name, (x, mean), xytext=(7, 4), textcoords="offset points", color=colour, fontsize=9)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.set(
        xlabel="latency (ms, measured)" if timed else "FLOPs (million multiply-adds)",
        ylabel="test accuracy (%)",
        title=f"{comparison.recipe.epochs} epochs on {comparison.data}, {len(comparison.seeds)} seeds each",
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def write_comparison_plot(comparison: Comparison, folder: Path) -> None:
    """Draws a comparison into a folder.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    save_plot(plot_comparison(comparison), folder / PLOT)
