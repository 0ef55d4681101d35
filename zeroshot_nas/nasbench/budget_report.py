"""A correlation's figures at equal budget: tables that fit a screen of 100 columns, and a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from zeroshot_nas.core.text import printable
from zeroshot_nas.errors import DataError
from zeroshot_nas.nasbench.equal_budget import CHOICES, BudgetSweep, EqualBudget
from zeroshot_nas.plots.base import figure_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from zeroshot_nas.nasbench.correlation import Correlation

RANDOM = "random"
"""What a random choice is called among the proxies."""

MOST_CURVES = 8
"""Proxies whose regret is drawn: those of best tau, beside the baselines."""

_NAMES = {"flops": "FLOPs", "params": "params"}
_BASELINES = ("params", "flops", "layers")
_PROXY, _BASELINE, _LINE = "#1f5fa8", "#c05a1c", "#8a8a8a"
_DASHES = {"params": "--", "flops": ":", "layers": "-."}

_NOTES = """\
A search compares networks that fill one budget, so these figures come first. tau is Kendall's tau-b of the pairs within
bins of equal cost, counts summed over the bins: bins are groups of exactly equal cost where many networks share one,
else quantiles of the cost. Regret is what the network of best score within a budget (ties shared) lacks to the best one
within it, in points of accuracy, the mean over budgets at quantiles of the cost; best of 5 is the same where the five
networks of best score are trained and the best is kept. In brackets {level} bootstrap intervals over networks."""


def equal_budget_lines(correlation: Correlation) -> list[str]:
    """The part of the page in Markdown; nothing for reports of earlier versions, which have no such figures."""
    if not correlation.sweeps:
        return []
    level = f"{100 * correlation.level:g} %"
    lines = ["## At equal budget", "", *_NOTES.format(level=level).splitlines()]
    for kind, sweep in correlation.sweeps.items():
        rows = [["proxy", "tau", "regret", f"regret, best of {CHOICES}"]]
        rows += [_cells(name, each, sweep) for name, each in by_tau_at(correlation, kind)]
        lines += ["", f"### Equal {name_of(kind)}", "", described(sweep), "", *_table(rows)]
    return lines


def name_of(kind: str) -> str:
    """A kind of cost in words."""
    return printable(_NAMES.get(kind, kind))


def plot_equal_budget(correlation: Correlation) -> Figure:
    """Tau within bins of equal cost for every proxy, and the regret of its first choice against the budget.

    One row of two panels for each kind of cost. Regret is drawn for the baselines, a random choice, and the proxies of
    best tau.

    Args:
        correlation: What was found.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: The correlation has no figures at equal budget.
    """
    make = figure_class()
    if not correlation.sweeps:
        raise DataError("the correlation holds no figures at equal budget; resume or repeat the run to have them")
    kinds, names = list(correlation.sweeps), [entry.proxy for entry in correlation.proxies]
    panel = max(2.6, 0.55 + 0.2 * (len(names) + 1))
    left = 0.35 + 0.075 * max(map(len, (*names, RANDOM)))
    width, height = left + 9.4, 0.4 + len(kinds) * (panel + 0.75)
    figure = make(figsize=(width, height))
    grid = figure.subplots(len(kinds), 2, squeeze=False)
    figure.subplots_adjust(left=left / width, right=1 - 2.0 / width, wspace=0.75 / 3.3)
    figure.subplots_adjust(bottom=0.5 / height, top=1 - 0.65 / height, hspace=0.85 / panel)
    for (left_axes, right_axes), kind in zip(grid, kinds, strict=True):
        _draw_taus(left_axes, correlation, kind)
        _draw_regrets(right_axes, correlation, kind)
    title = f"{printable(correlation.table)}, {correlation.architectures:,} architectures, at equal budget"
    figure.suptitle(title, fontsize=9, x=0.1 / width, y=1 - 0.1 / height, ha="left", va="top", parse_math=False)
    return figure


def _draw_taus(axes: Axes, correlation: Correlation, kind: str) -> None:
    shown = [(name, each) for name, each in by_tau_at(correlation, kind) if each.kendall is not None][::-1]
    for place, (name, each) in enumerate(shown):
        tau = each.kendall or 0.0
        color = _LINE if name == RANDOM else _BASELINE if name in _BASELINES else _PROXY
        axes.hlines(place, *(each.kendall_interval or (tau, tau)), color=color, linewidth=1.4)
        axes.plot(tau, place, "o", color=color, markersize=4)
    axes.axvline(0, color=_LINE, linewidth=0.6)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=8, parse_math=False)
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(f"Kendall's tau within bins ({100 * correlation.level:g} % interval)", fontsize=8)
    axes.set_title(f"Equal {name_of(kind)}: {_bins(correlation.sweeps[kind])}", fontsize=8, loc="left")


def _draw_regrets(axes: Axes, correlation: Correlation, kind: str) -> None:
    sweep = correlation.sweeps[kind]
    several = [(name, each) for name, each in by_tau_at(correlation, kind) if each.regrets]
    proxies = [name for name, _ in several if name not in (*_BASELINES, RANDOM)][:MOST_CURVES]
    for name, each in several:
        if name in proxies:
            style, color = "-", f"C{proxies.index(name)}"
        elif name in (*_BASELINES, RANDOM):
            style, color = _DASHES.get(name, "-"), _LINE if name == RANDOM else _BASELINE
        else:
            continue
        mark = {"marker": ".", "markersize": 4, "linewidth": 1.1}
        axes.plot(sweep.budgets, each.regrets, style, color=color, label=f"{each.regret:.3g}  {name}", **mark)  # type: ignore[arg-type]
    if min(sweep.budgets) > 0 and max(sweep.budgets) > 20 * min(sweep.budgets):
        axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=8)
    axes.xaxis.get_offset_text().set_fontsize(7)
    axes.set_xlabel(f"budget of {name_of(kind)}", fontsize=8)
    axes.set_ylabel("regret of the first choice", fontsize=8)
    axes.set_title("mean regret in the legend", fontsize=8, loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=7, frameon=False, labelspacing=0.3)


def by_tau_at(correlation: Correlation, kind: str) -> list[tuple[str, EqualBudget]]:
    """Every proxy and a random order, the best tau first, then the smallest regret."""
    figures = [(entry.proxy, entry.equal_budget.get(kind, EqualBudget())) for entry in correlation.proxies]

    def key(item: tuple[str, EqualBudget]) -> tuple[float, float]:
        each = item[1]
        return (math.inf if each.kendall is None else -each.kendall, math.inf if each.regret is None else each.regret)

    return sorted([*figures, (RANDOM, correlation.sweeps[kind].random)], key=key)


def _cells(name: str, each: EqualBudget, sweep: BudgetSweep) -> list[str]:
    digits = 2 if (sweep.random.regret or 0) >= 0.5 else 4  # not every task's figure is a percentage
    regrets = (each.regret, each.regret_interval), (each.regret_of_five, each.regret_of_five_interval)
    shown = [_shown(*figure, lambda value: f"{value:.{digits}f}") for figure in regrets]
    code = f"`{name}`"
    name = f"*{code}*" if name in (*_BASELINES, RANDOM) else code
    return [name, _shown(each.kendall, each.kendall_interval, lambda value: f"{value:+.3f}"), *shown]


def _shown(figure: float | None, interval: tuple[float, float] | None, as_text: Callable[[float], str]) -> str:
    if figure is None:
        return "-"
    return as_text(figure) + ("" if interval is None else " ({} to {})".format(*map(as_text, interval)))


def described(sweep: BudgetSweep) -> str:
    """The bins and budgets of a sweep, in words."""
    low, high = sweep.budgets[0], sweep.budgets[-1]
    count = len(sweep.budgets)
    budgets = f"{count} budgets from {_quantity(low)} to {_quantity(high)}" if count > 1 else f"{_quantity(low)}"
    return f"{_bins(sweep)}, {sweep.pairs:,} pairs of {sweep.networks:,} networks; {budgets}."


def _bins(sweep: BudgetSweep) -> str:
    kind = "group of exactly equal cost" if sweep.exact else "quantile bin"
    plural = kind.replace("group", "groups") if sweep.exact else f"{kind}s"
    return f"{sweep.bins} {kind if sweep.bins == 1 else plural}"


def _quantity(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of Markdown, padded so that they are a table on the screen too."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [f"| {line} |" for line in [lines[0], " | ".join("-" * width for width in widths), *lines[1:]]]
