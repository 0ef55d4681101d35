"""A correlation of proxies with accuracy as a page of Markdown and as plots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from scipy.stats import rankdata

from zeroshot_nas.core.files import write_text
from zeroshot_nas.core.text import printable
from zeroshot_nas.errors import DataError, MissingExtraError
from zeroshot_nas.nasbench.agreement import Floats, kendall
from zeroshot_nas.nasbench.budget_report import equal_budget_lines, plot_equal_budget
from zeroshot_nas.plots.base import figure_class, save_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from zeroshot_nas.nasbench.correlation import Correlation, ProxyCorrelation

MARKDOWN_FILE = "report.md"
PLOTS = ("equal_budget", "scatter", "tau_against_cost")
"""Names of the plots' files; each is there as ``.png`` and as ``.svg``. The first needs figures at equal budget."""

MOST_VARIABLES = 10
"""Rows of the scatter matrix at most, accuracy among them: what stays readable on a page."""

MOST_POINTS = 1_000
"""Points of one panel at most; of more architectures every so many-th is drawn."""

MOST_REASONS = 3
"""Reasons of failures that the page lists for one proxy."""

_PROXY, _BASELINE, _LINE = "#1f5fa8", "#c05a1c", "#8a8a8a"
_MARKERS = "osD^vPX"  # with ten colours seventy different points
_DOTS = (":", "--", "-.")

_COLUMNS = (
    "proxy",
    "tau",
    "{level} interval",
    "rho",
    "rho, best tenth",
    "nDCG",
    "top 1 (%)",
    "top 10 (%)",
    "regret (points)",
    "tau given FLOPs",
    "tau given params",
    "ms a network",
    "failed",
)

_NOTES = """\
tau is Kendall's tau-b between score and accuracy, with a percentile bootstrap interval over architectures; rho is
Spearman's, the second one among the tenth of best accuracy alone. nDCG weighs the best places most (gain 2^r - 1, with
r from 0 for the worst accuracy rank to 20 for the best). Top 1 and top 10 are the true accuracy of the architectures of
best score (ties shared), regret is what top 1 lacks to the best of the sample. Tau given FLOPs, or params, is Kendall's
partial tau: what agreement is left beyond that baseline. Times are of a proxy computed alone, all repeats. Scores whose
lower values are better are negated; a failed score is worse than all others. "-" is undefined: the score is constant,
or is the baseline itself. Baselines are in italics."""


def to_markdown(correlation: Correlation, plots: bool = False, remark: str = "") -> str:
    """A correlation as a page of Markdown: figures at equal budget, then over all architectures, the best proxy first.

    Args:
        correlation: What `zeroshot_nas.nasbench.correlate.correlate` found.
        plots: Whether to show the plots, which then stand beside the page.
        remark: A last line, such as why there are no plots.
    """
    found = correlation
    interrupted = f" ({found.sample:,} were asked for; the run was interrupted)" if found.state == "interrupted" else ""
    options = ", ".join(f"{name} {value}" for name, value in found.space_options.items())
    shape = "x".join(map(str, found.input_size))
    lines = [
        f"# Proxies against accuracy: {found.table}" + (f", {found.dataset}" if found.dataset else ""),
        "",
        f"- Architectures: {found.architectures:,} of {found.population:,}{interrupted}; {found.networks:,} different "
        f"networks. Seed {found.seed}",
        f"- Space: `{found.space}`" + (f" ({options})" if options else "") + f"; images {shape}, "
        f"{found.num_classes} classes",
        f"- Accuracy: {found.source or 'source not stated'}. Best of these architectures: {found.best_accuracy:.2f} %",
        f"- Scores: {_counted(found.repeats, 'repeat')}, {_batches(found)}, on {found.device or 'cpu'}",
        f"- Ceiling: tau {_shown(found.ceiling)} between two training runs of {found.ceiling_architectures:,} "
        "architectures"
        if found.ceiling is not None
        else "- Ceiling: not known, the table has no separate training runs",
        "",
        *([*equal_budget_lines(found), "", "## Over all architectures", ""] if found.sweeps else []),
        _row(column.format(level=f"{found.level:.0%}".replace("%", " %")) for column in _COLUMNS),
        _row(["---", *["---:"] * (len(_COLUMNS) - 1)]),
        *(_row(_cells(entry)) for entry in by_tau(found.proxies)),
        "",
        _NOTES,
    ]
    for title, items in (("Failed scores", failures(found)), ("Left out", list(found.left_out.items()))):
        if items:
            lines += ["", f"## {title}", "", *(f"- `{name}`: {text}" for name, text in items)]
    if plots:
        lines += ["", *(f"![{name.replace('_', ' ')}]({name}.png)" for name in _plots_of(found))]
    lines += ["", remark] if remark else []
    return "\n".join(line if line == _NOTES else _harmless(line) for line in lines) + "\n"


def _harmless(line: str) -> str:
    """A line of Markdown with names from files in it, which may hold line breaks, a terminal's escapes, or HTML."""
    return printable(line).replace("<", "&lt;")


def write_report(correlation: Correlation, folder: Path | str) -> None:
    """Writes the page, and where matplotlib is installed the plots; the page says in one line where it is not.

    Args:
        correlation: What was found, with its scores.
        folder: Where to; it must be there. Older files of the same names are replaced.
    """
    folder = Path(folder)
    plots, remark = True, ""
    try:
        for name, plot in _plots_of(correlation).items():
            save_plot(plot(correlation), folder / name)
    except MissingExtraError as error:
        plots, remark = False, f"No plots: {error}"
    write_text(folder / MARKDOWN_FILE, to_markdown(correlation, plots, remark))


def plot_scatter(correlation: Correlation) -> Figure:
    """Accuracy and scores against each other, all as ranks: dots below the diagonal, Kendall's tau above it.

    Ranks, because a proxy's order is all that counts, and because raw scores span many orders of magnitude. Of many
    proxies those of largest absolute tau are shown; those that are constant, or failed throughout, are not.

    Args:
        correlation: What was found, with its scores: as `correlate` returns it, or as `Correlation.read` does.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: The scores are missing.
    """
    make = figure_class()
    if not correlation.scores:
        raise DataError("the correlation holds no scores to plot; read it with Correlation.read(folder)")
    known = [entry for entry in correlation.proxies if entry.kendall is not None]
    shown = by_tau(sorted(known, key=lambda entry: -abs(entry.kendall or 0))[: MOST_VARIABLES - 1])
    values = [np.array(correlation.accuracy)] + [_better_is_higher(correlation, entry) for entry in shown]
    names = ["accuracy"] + [entry.proxy for entry in shown]
    ranks = [100 * (rankdata(column) - 1) / (len(column) - 1) for column in values]
    points = np.linspace(0, len(ranks[0]) - 1, min(MOST_POINTS, len(ranks[0]))).round().astype(int)
    size = len(names)
    figure = make(figsize=(0.9 + 1.05 * size, 1.1 + 1.05 * size))
    figure.subplots_adjust(left=0.75 / (0.9 + 1.05 * size), right=0.99, bottom=0.65 / (1.1 + 1.05 * size), top=0.9)
    figure.subplots_adjust(top=1 - 0.4 / (1.1 + 1.05 * size), wspace=0.08, hspace=0.08)
    grid = figure.subplots(size, size, squeeze=False)
    for row, column in np.ndindex(size, size):
        axes = cast("Axes", grid[row, column])
        axes.set(xlim=(-5, 105), ylim=(-5, 105), xticks=[0, 50, 100], yticks=[0, 50, 100])
        axes.tick_params(labelsize=7, length=2, labelleft=column == 0 and row > 0, labelbottom=row == size - 1)
        if row == column:
            text = names[row].replace(":", "\n").replace("_", "\n" if len(names[row]) > 10 else "_")
            axes.text(50, 50, text, ha="center", va="center", fontsize=8, fontweight="bold")
        elif row > column:
            marks = 1 + 16 / math.sqrt(len(points))
            axes.plot(
                ranks[column][points], ranks[row][points], ".", ms=marks, color=_PROXY, alpha=0.6, rasterized=True
            )
        else:
            tau = kendall(ranks[column], ranks[row])
            axes.set_facecolor((0.12, 0.37, 0.66, 0.55 * abs(tau)) if tau > 0 else (0.75, 0.35, 0.11, 0.55 * abs(tau)))
            axes.text(50, 50, f"{tau:.2f}", ha="center", va="center", fontsize=9)
        if row <= column:
            axes.tick_params(length=0)
    figure.supxlabel("rank (%), 100 is best", fontsize=9, y=0.008)
    figure.supylabel("rank (%), 100 is best", fontsize=9, x=0.008)
    of = "" if len(shown) == len(correlation.proxies) else f"{len(shown)} of {len(correlation.proxies)} proxies, "
    figure.suptitle(
        f"{of}{correlation.architectures:,} architectures: dots below, Kendall's tau above the diagonal",
        fontsize=9,
        y=1 - 0.12 / (1.1 + 1.05 * size),
        va="top",
    )
    return figure


def plot_tau_against_cost(correlation: Correlation) -> Figure:
    """Kendall's tau of each proxy, with its interval, against the time that it takes; the legend has the best first.

    What is read off the architecture, as parameters are, takes no time to speak of and is a dotted line; so is the
    ceiling that two training runs set.

    Args:
        correlation: What was found.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    make = figure_class()
    shown = by_tau(each for each in correlation.proxies if each.kendall is not None and each.milliseconds is not None)
    points = [entry for entry in shown if entry.cost != "graph"]
    lines = [(entry.kendall or 0.0, entry.proxy, _color(entry)) for entry in shown if entry not in points]
    if correlation.ceiling is not None:
        lines.append((correlation.ceiling, "two trainings", _LINE))
    names = [name for _, name, _ in lines] + [entry.proxy for entry in points]
    width, height = 6.6 + 0.075 * max(map(len, names), default=0), max(4.2, 1.0 + 0.17 * len(names))
    figure = make(figsize=(width, height))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.7 / width, right=5.7 / width, bottom=0.5 / height, top=1 - 0.3 / height)
    _time_axis(axes, [entry.milliseconds or math.nan for entry in points])
    axes.axhline(0, color=_LINE, linewidth=0.6)
    drawn = []
    for index, (tau, name, color) in enumerate(sorted(lines, reverse=True)):
        drawn.append((tau, name, axes.axhline(tau, color=color, linewidth=1.1, linestyle=_DOTS[index % len(_DOTS)])))
    for index, entry in enumerate(points):
        time, tau, color = entry.milliseconds or math.nan, entry.kendall or 0.0, f"C{index % 10}"
        axes.vlines(time, *(entry.kendall_interval or (tau, tau)), color=color, linewidth=0.8, alpha=0.4)
        marker = _MARKERS[index % len(_MARKERS)]
        drawn += [(tau, entry.proxy, mark) for mark in axes.plot(time, tau, marker, color=color, markersize=5.5)]
    drawn.sort(key=lambda each: -each[0])
    for tau, name, mark in drawn:
        mark.set_label(f"{tau:.2f}  {name}")
    axes.legend(
        handles=[mark for _, _, mark in drawn],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.01),
        fontsize=8,
        frameon=False,
        labelspacing=0.35,
    )
    axes.set_xlabel(f"time a network (ms, {_counted(correlation.repeats, 'repeat')})", fontsize=9)
    axes.set_ylabel(f"Kendall's tau with accuracy ({100 * correlation.level:g} % interval)", fontsize=9)
    axes.tick_params(labelsize=8)
    title = f"{printable(correlation.table)}, {correlation.architectures:,} architectures"
    axes.set_title(title, fontsize=9, loc="left", parse_math=False)
    return figure


def _plots_of(correlation: Correlation) -> dict[str, Callable[[Correlation], Figure]]:
    """The plots that can be drawn, by name."""
    functions = (plot_equal_budget, plot_scatter, plot_tau_against_cost)
    plots: dict[str, Callable[[Correlation], Figure]] = dict(zip(PLOTS, functions, strict=True))
    return {name: plot for name, plot in plots.items() if correlation.sweeps or plot is not plot_equal_budget}


def _time_axis(axes: Axes, milliseconds: Sequence[float]) -> None:
    """A logarithmic axis around these times, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_xlim(0.6 * min(milliseconds, default=1.0), 1.7 * max(milliseconds, default=1000.0))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _better_is_higher(correlation: Correlation, entry: ProxyCorrelation) -> Floats:
    """A proxy's scores with the sign that makes higher better; failures are below all."""
    scores = np.array(correlation.scores[entry.proxy]) * (1 if entry.direction == "higher" else -1)
    scores[np.isnan(scores)] = -np.inf
    return scores


def by_tau(entries: Iterable[ProxyCorrelation]) -> list[ProxyCorrelation]:
    """The best proxy first; those whose tau is undefined last."""
    return sorted(entries, key=lambda entry: -math.inf if entry.kendall is None else entry.kendall, reverse=True)


def is_count(entry: ProxyCorrelation) -> bool:
    """Whether it is a baseline, asked for or not."""
    return entry.baseline or entry.proxy in ("params", "flops", "layers")


def _color(entry: ProxyCorrelation) -> str:
    return _BASELINE if is_count(entry) else _PROXY


def _cells(entry: ProxyCorrelation) -> list[str]:
    name = f"`{entry.proxy}`"
    return [
        f"*{name}*" if is_count(entry) else name,
        _shown(entry.kendall, "+.3f"),
        "-" if entry.kendall_interval is None else "{:+.3f} to {:+.3f}".format(*entry.kendall_interval),
        _shown(entry.spearman, "+.3f"),
        _shown(entry.spearman_at_top, "+.3f"),
        _shown(entry.ndcg),
        _shown(entry.top1_accuracy, ".2f"),
        _shown(entry.top10_accuracy, ".2f"),
        _shown(entry.regret, ".2f"),
        _shown(entry.kendall_given_flops, "+.3f"),
        _shown(entry.kendall_given_params, "+.3f"),
        _shown(entry.milliseconds, ".3g"),
        f"{entry.failed:,}",
    ]


def failures(correlation: Correlation) -> list[tuple[str, str]]:
    """For each proxy that failed its most frequent reasons, on one line each."""
    items = []
    for entry in correlation.proxies:
        for reason, count in list(entry.failures.items())[:MOST_REASONS]:
            items.append((entry.proxy, f"{_counted(count, 'time')}: {' '.join(reason.split())}"))
        rest = sum(list(entry.failures.values())[MOST_REASONS:])
        if rest:
            items.append((entry.proxy, f"{_counted(rest, 'time')}: other reasons"))
    return items


def _batches(correlation: Correlation) -> str:
    if correlation.batch_size is not None:
        return f"batches of {correlation.batch_size}"
    sizes = sorted({entry.batch_size for entry in correlation.proxies if entry.batch_size is not None})
    return f"batches of {' / '.join(map(str, sizes))}, each proxy's own" if sizes else "no batches"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _shown(value: float | None, spec: str = ".3f") -> str:
    return "-" if value is None else format(value, spec)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
