"""What each convolution adds to a network's CET, as a table and as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.closed_form.cet.explain import LayerShare, State
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.plots.base import KINDS, figure_class, save_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS: dict[State, str] = {"ok": "#1f5fa8", "redundant": "#c05a1c", "stem": "#5a9a6a"}

_COLUMNS = (
    *("block", "type", "sub", "conv", "out", "weights", "inputs", "novelty", "W", "uses", "share"),
    *("out rank", "grad rank", "log term", "state"),
)

_TEXTS = frozenset({"type", "conv", "state"})


def explanation_table(rows: Sequence[LayerShare]) -> str:
    """The rows as an aligned table, sums last; a dash stands where a convolution does not count.

    ``inputs`` are a convolution's independent inputs, ``W`` its effective weights, ``uses`` what it adds to U
    (``share`` of it), ``log term`` what it adds to S.
    """
    cells = [_COLUMNS, *map(_cells, rows), _sums(rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
    lines = []
    for row in cells:
        padded = (
            cell.ljust(width) if name in _TEXTS else cell.rjust(width)
            for cell, width, name in zip(row, widths, _COLUMNS, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def plot_explanation(rows: Sequence[LayerShare], title: str) -> Figure:
    """Bars, a convolution each, the first on top: effective weights in front of all weights, effective uses, log term.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = figure_class()(figsize=(12, 1.6 + 0.24 * len(rows)), layout="constrained")
    weights, uses, terms = figure.subplots(1, 3, sharey=True, width_ratios=(3, 2, 2))
    places = range(len(rows))
    weights.barh(places, [row.weights for row in rows], color="#e4e4e4", label="all weights")
    for state, color in _COLORS.items():
        chosen = [place for place in places if rows[place].state == state]
        if chosen:
            weights.barh(chosen, [rows[place].effective_weights for place in chosen], 0.5, color=color, label=state)
            uses.barh(chosen, [rows[place].effective_uses / 1e6 for place in chosen], 0.5, color=color)
            terms.barh(chosen, [rows[place].log_term for place in chosen], 0.5, color=color)
    weights.set_yticks(places, [_label(row) for row in rows], fontsize=7)
    for tick, row in zip(weights.get_yticklabels(), rows, strict=True):
        tick.set_color("black" if row.state == "ok" else _COLORS.get(row.state, "#8a8a8a"))
    weights.set_ylim(len(rows) - 0.4, -0.6)
    weights.set_xlabel("effective weights W, in front of all weights")
    uses.set_xlabel("effective uses U (millions)")
    terms.set_xlabel("log term of S")
    for axes in (weights, uses, terms):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(left=0)
    figure.suptitle(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def write_explanation(rows: Sequence[LayerShare], title: str, file: Path | str) -> None:
    """Writes the bars as a ``.png`` or ``.svg`` file.

    Raises:
        ProxyError: The file's name ends otherwise.
        MissingExtraError: matplotlib is not installed.
    """
    file = Path(file)
    kind = file.suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise ProxyError(f"a plot's file ends in {' or '.join(f'.{each}' for each in KINDS)}, got {file.name!r}")
    save_plot(plot_explanation(rows, title), file.with_suffix(""), [kind])


def _label(row: LayerShare) -> str:
    state = "" if row.state == "ok" else f" ({row.state})"
    return f"{row.block}.{row.sub_layer}  {row.convolution}{state}"


def _cells(row: LayerShare) -> tuple[str, ...]:
    height, width = row.resolution
    side = f"{height}" if height == width else f"{height}x{width}"
    counts = row.patch_rank is not None
    return (
        *(str(row.block), row.block_type, str(row.sub_layer), row.convolution, side, f"{row.weights:,}"),
        *(_shown(row.patch_rank, ".1f"), _shown(row.novelty, ".2f")),
        f"{row.effective_weights:,.0f}" if counts and row.state != "stem" else "-",
        *((f"{row.effective_uses:,.0f}", f"{row.share:.1%}") if counts else ("-", "-")),
        *(_shown(row.output_rank, ".1f"), _shown(row.gradient_rank, ".1f")),
        f"{row.log_term:.2f}" if counts else "-",
        row.state,
    )


def _sums(rows: Sequence[LayerShare]) -> tuple[str, ...]:
    effective, terms = sum(row.effective_weights for row in rows), sum(row.log_term for row in rows)
    weights = sum(row.weights for row in rows)
    uses = sum(row.effective_uses for row in rows)
    sums = f"{effective:,.0f}", f"{uses:,.0f}", "100.0%"
    return "", "sum", "", "", "", f"{weights:,}", "", "", *sums, "", "", f"{terms:.2f}", ""


def _shown(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
