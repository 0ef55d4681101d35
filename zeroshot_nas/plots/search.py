"""A search in pictures: what it saw by cost and score, and the best score over its proposals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.core.files import read_as
from zeroshot_nas.errors import ReportError
from zeroshot_nas.plots.base import KINDS, figure_class, save_plot
from zeroshot_nas.plots.search_points import SearchPoints, search_points
from zeroshot_nas.searchers.base import SearchResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    shown = search_points(result)
    _scatter(left, shown)
    right.plot([each.place for each in shown.seen], [each.score for each in shown.seen], ".", ms=2.5, color="0.75")
    right.lines[-1].set_label("seen")
    right.step([each.place for each in shown.seen], shown.best, where="post", color="#c0392b", lw=1.2)
    right.lines[-1].set_label("best so far")
    seconds = f", {result.seconds['total']:.0f} s" if "total" in result.seconds else ""
    title = f"{result.counts.proposed:,} proposals{seconds}"
    right.set(xlabel="proposals" if result.trajectory else "networks scored", ylabel=shown.score, title=title)
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
        raise ReportError(
            f"{folder} holds no finished search; go on with one that is not at its end (zeroshot-nas resume {folder}), "
            f"of another run see its page (zeroshot-nas report {folder})"
        )
    save_plot(plot_search(read_as(source, SearchResult.from_json)), file.with_suffix(""), [kind])
    return file


def _scatter(axes: Axes, shown: SearchPoints) -> None:
    """Networks by cost and score, with their front, the winner and the budget's limit."""
    for points, label, size, color in ((shown.seen, "seen", 6, "0.75"), (shown.finalists, "finalists", 9, "#1f5fa8")):
        if points or label == "seen":
            xs, ys = [each.cost for each in points], [each.score for each in points]
            axes.scatter(xs, ys, s=size, color=color, linewidths=0, label=label)
    axes.step(*zip(*shown.front, strict=True), where="post", color="#3d8b56", lw=1.4, label="front")
    axes.plot(shown.winner.cost, shown.winner.score, "*", ms=12, color="#c0392b", label="winner")
    if shown.limit is not None:
        axes.axvline(shown.limit, color="0.3", ls="--", lw=1, label="budget")
    axes.set(xlabel=shown.label, ylabel=shown.score, title="networks that the search saw")
