"""What a correlation of proxies with accuracies is: figures by proxy, the scores, and both as files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.core.checks import parsed
from zeroshot_nas.core.frames import data_frame
from zeroshot_nas.core.html import html_table
from zeroshot_nas.core.state import RunState
from zeroshot_nas.errors import FileFormatError
from zeroshot_nas.nasbench.equal_budget import BudgetSweep, EqualBudget

if TYPE_CHECKING:
    import pandas

REPORT_FILE = "report.json"
SCORES_FILE = "scores.csv"

_FORMAT = "zeroshot_nas.correlation"
_VERSION = 1


@dataclass(frozen=True)
class ProxyCorrelation:
    """How well one proxy orders the sample; None stands where a figure is undefined, as for a constant score.

    The figures are those of `zeroshot_nas.nasbench.agreement`. Scores of proxies whose lower values are better are
    negated first, so a positive correlation is always a good one, and a failed score is worse than all others.

    Attributes:
        proxy: The proxy with its options, as in ``"zen:variant=zennas"``.
        baseline: Whether it was not asked for and stands here to be compared with.
        direction: Whether ``"higher"`` or ``"lower"`` scores are better.
        cost: What it costs; see `zeroshot_nas.scoring.proxy.CostClass`.
        init: Initialisation of the weights; None where none are drawn, or the parts of an aggregate differ.
        batch_size: Gaussian images a repeat; None likewise.
        kendall: Kendall's tau-b with accuracy.
        kendall_interval: Its bootstrap interval over architectures.
        spearman: Spearman's rho with accuracy.
        spearman_at_top: The same among the tenth of best accuracy.
        ndcg: Normalised discounted cumulative gain over the whole sample.
        top1_accuracy: Accuracy of the architecture of best score, in percent.
        top10_accuracy: Mean accuracy of the ten architectures of best score, in percent.
        regret: Percentage points that the architecture of best score is below the best of the sample.
        kendall_given_flops: Kendall's partial tau given FLOPs.
        kendall_given_params: Kendall's partial tau given parameters.
        milliseconds: Wall time a network, all repeats, when the proxy is computed alone: the median over up to `TIMED`
            networks. An aggregate's parts are computed together. Of a proxy that needs no weights it is the share of a
            pool, without the walk over an architecture's operations, which parameters and FLOPs share.
        failed: Architectures without a score.
        failures: Reasons, with how often each came; an aggregate has those of its parts, also where others stood in.
        equal_budget: Its figures among networks of one size, by the kind of cost: ``"flops"``, ``"params"``, and the
            table's columns of latencies. Reports of earlier versions have none.
    """

    proxy: str
    baseline: bool
    direction: str
    cost: str
    init: str | None
    batch_size: int | None
    kendall: float | None
    kendall_interval: tuple[float, float] | None
    spearman: float | None
    spearman_at_top: float | None
    ndcg: float | None
    top1_accuracy: float | None
    top10_accuracy: float | None
    regret: float | None
    kendall_given_flops: float | None
    kendall_given_params: float | None
    milliseconds: float | None
    failed: int
    failures: Mapping[str, int]
    equal_budget: Mapping[str, EqualBudget] = field(default_factory=dict)


@dataclass(frozen=True)
class Correlation:
    """How well proxies order the architectures of a benchmark.

    Attributes:
        space: Name of the search space.
        space_options: The space's own options, as ``{"num_cells": 5, "channels": 16}``.
        dataset: What the networks were trained on.
        table: Name of the table of accuracies.
        source: Which file the accuracies are from, and which accuracies of it.
        population: Architectures in the table.
        sample: Architectures that were to be scored.
        architectures: Architectures that the figures are of: all of the sample, or fewer in state ``"interrupted"``.
        networks: Different networks among these; isomorphic ones are scored once.
        seed: Seed of the sample, of all scores and of the bootstrap.
        repeats: Draws of weights and images a score is the mean of.
        batch_size: Images a repeat; None is each proxy's own, see `ProxyCorrelation`.
        device: Where scores were computed; None is the CPU.
        input_size: Shape of one image.
        num_classes: Outputs of the classifier.
        best_accuracy: The best accuracy among these architectures, in percent.
        ceiling: Tau between the accuracies of the first two training runs, which no proxy can be expected to exceed by
            much; None where the table has no separate runs.
        ceiling_architectures: How many of the architectures have two runs.
        level: The level of the bootstrap intervals.
        resamples: Their resamples.
        proxies: One entry a proxy: those asked for, in that order, then the other baselines.
        left_out: Proxies that ``"all"`` left out, with the reason.
        state: ``"done"``, or ``"interrupted"`` where it was stopped by the keyboard.
        sweeps: The bins and budgets of `ProxyCorrelation.equal_budget`, by the kind of cost.
        rows: The architectures as the table writes them; not part of `to_json`.
        accuracy: Their accuracies in percent; not part of `to_json`.
        scores: Their scores by proxy, NaN where one failed, with the proxy's own sign; not part of `to_json`.
        strings: The architectures as the space writes them, which is the benchmark's own string; not part of `to_json`.
        reasons: Why scores of each failed, by proxy, empty where none did; not part of `to_json`.
    """

    space: str
    space_options: Mapping[str, Any]
    dataset: str
    table: str
    source: str
    population: int
    sample: int
    architectures: int
    networks: int
    seed: int
    repeats: int
    batch_size: int | None
    device: str | None
    input_size: Shape
    num_classes: int
    best_accuracy: float
    ceiling: float | None
    ceiling_architectures: int
    level: float
    resamples: int
    proxies: tuple[ProxyCorrelation, ...]
    left_out: Mapping[str, str]
    state: RunState = "done"
    sweeps: Mapping[str, BudgetSweep] = field(default_factory=dict)
    rows: tuple[str, ...] = field(default=(), compare=False, repr=False)
    accuracy: tuple[float, ...] = field(default=(), compare=False, repr=False)
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict, compare=False, repr=False)
    strings: tuple[str, ...] = field(default=(), compare=False, repr=False)
    reasons: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __repr__(self) -> str:
        """One line about the sample, then a row a proxy, the best first."""
        head = f"Correlation({self.table}, {self.dataset}: {self.architectures:,} of {self.population:,} architectures"
        entries = self._ranked()
        width = max((len(entry.proxy) for entry in entries), default=0)
        rows = [
            f"  {each.proxy:{width}}  tau {_shown(each.kendall)}  rho {_shown(each.spearman)}  failed {each.failed:,}"
            for each in entries
        ]
        return "\n".join([f"{head}, {self.state})", *rows])

    def _repr_html_(self) -> str:
        """A table of the proxies, the best first, for notebooks."""
        counts = f"{self.architectures:,} of {self.population:,} architectures, seed {self.seed}"
        rows = [
            (
                *(each.proxy, _shown(each.kendall), _between(each.kendall_interval), _shown(each.spearman)),
                *(_shown(each.spearman_at_top), _shown(each.regret), _shown(each.milliseconds), f"{each.failed:,}"),
            )
            for each in self._ranked()
        ]
        interval = f"{self.level:.0%} interval"
        head = ("proxy", "tau", interval, "rho", "rho at top", "regret, points", "ms a network", "failed")
        return html_table(f"Correlation with {self.table}, {self.dataset}: {counts}, {self.state}", rows, head)

    def to_pandas(self, what: Literal["proxies", "scores"] = "proxies") -> pandas.DataFrame:
        """The figures, a row a proxy; or the scores, a row an architecture with its accuracy.

        Args:
            what: Which of the two. Figures at equal budget have columns of their own, ``flops: kendall``.

        Raises:
            ValueError: It is neither.
            MissingExtraError: The extra ``pandas`` is not installed.
        """
        if what == "scores":
            strings = self.strings or self.rows
            columns = {"string": strings, "architecture": self.rows, "accuracy": self.accuracy, **self.scores}
            names = list(columns)
            rows = zip(*columns.values(), strict=True)
            return data_frame((dict(zip(names, row, strict=True)) for row in rows), names)
        if what != "proxies":
            raise ValueError(f"what must be 'proxies' or 'scores', got {what!r:.40}")
        return data_frame(map(_figures_row, self.proxies))

    def _ranked(self) -> list[ProxyCorrelation]:
        return sorted(self.proxies, key=lambda entry: math.inf if entry.kendall is None else -entry.kendall)

    def __getitem__(self, proxy: str) -> ProxyCorrelation:
        """The entry of a proxy."""
        for entry in self.proxies:
            if entry.proxy == proxy:
                return entry
        raise KeyError(f"{proxy!r} is not among {', '.join(entry.proxy for entry in self.proxies)}")

    def to_json(self, indent: int | None = None) -> str:
        """All but the scores themselves as JSON text; `from_json` reads it back."""
        names = [each.name for each in fields(self) if each.compare]
        data = {
            "format": _FORMAT,
            "version": _VERSION,
            **{name: getattr(self, name) for name in names},
            "proxies": [asdict(entry) for entry in self.proxies],
            "sweeps": {kind: asdict(sweep) for kind, sweep in self.sweeps.items()},
        }
        return json.dumps(data, indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Correlation:
        """Reads `to_json`'s text.

        Raises:
            FileFormatError: The text is not a correlation.
        """
        data = parsed(text, _FORMAT, _VERSION, "a correlation")
        del data["format"], data["version"]
        try:
            channels, height, width = data["input_size"]
            return cls(
                **{
                    **data,
                    "proxies": tuple(_entry(entry) for entry in data["proxies"]),
                    "sweeps": {kind: _sweep(sweep) for kind, sweep in data.get("sweeps", {}).items()},
                    "input_size": (channels, height, width),
                }
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(f"not a valid correlation: {type(error).__name__}: {error}") from error

    def scores_csv(self) -> str:
        """The scores as comma-separated text, one line an architecture.

        ``string`` is the benchmark's own string, by which the file joins with ``runs export``; ``architecture`` is as
        the table writes it; ``accuracy``; one column a proxy, empty where one failed; ``state``, ``"ok"`` or
        ``"failed"``, and ``reason``.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["string", "architecture", "accuracy", *self.scores, "state", "reason"])
        strings, reasons = self.strings or self.rows, self.reasons or [""] * len(self.rows)
        columns = (strings, self.rows, self.accuracy, reasons, *self.scores.values())
        for string, row, accuracy, reason, *values in zip(*columns, strict=True):
            cells = ["" if math.isnan(value) else value for value in values]
            writer.writerow([string, row, accuracy, *cells, "failed" if reason or "" in cells else "ok", reason])
        return text.getvalue()

    @classmethod
    def read(cls, folder: str | Path) -> Correlation:
        """Reads a run's folder, scores included: for plots of one's own.

        Raises:
            FileNotFoundError: The folder holds no report.
            FileFormatError: A file is damaged.
        """
        folder = Path(folder)
        found = cls.from_json((folder / REPORT_FILE).read_text(encoding="utf-8"))
        try:
            with (folder / SCORES_FILE).open(encoding="utf-8", newline="") as file:
                header, *lines = csv.reader(file, strict=True)
            columns = dict(zip(header, zip(*lines, strict=True), strict=True))
            rows = columns.pop("architecture")
            strings, reasons = columns.pop("string", ()), columns.pop("reason", ())
            columns.pop("state", None)
            numbers = {
                name: tuple(float(cell) if cell else math.nan for cell in cells) for name, cells in columns.items()
            }
            accuracy = numbers.pop("accuracy")
        except (csv.Error, ValueError, KeyError) as error:
            raise FileFormatError(f"{folder / SCORES_FILE} is damaged: {type(error).__name__}: {error}") from error
        known = {each.name: getattr(found, each.name) for each in fields(found) if each.compare}
        return cls(**known, rows=rows, accuracy=accuracy, scores=numbers, strings=strings, reasons=reasons)


def _shown(figure: float | None) -> str:
    return "  -  " if figure is None else f"{figure:5.3f}"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _figures_row(entry: ProxyCorrelation) -> dict[str, Any]:
    """The figures of a proxy, flat."""
    row = {name: value for name, value in asdict(entry).items() if name not in ("equal_budget", "kendall_interval")}
    low, high = entry.kendall_interval or (None, None)
    row |= {"kendall_low": low, "kendall_high": high, "failures": "; ".join(entry.failures)}
    for kind, figures in entry.equal_budget.items():
        row |= {f"{kind}: {name}": value for name, value in asdict(figures).items() if not isinstance(value, tuple)}
    return row


def _entry(data: Mapping[str, Any]) -> ProxyCorrelation:
    figures = {kind: _figures(each) for kind, each in data.get("equal_budget", {}).items()}
    return ProxyCorrelation(**{**data, "kendall_interval": _limits(data["kendall_interval"]), "equal_budget": figures})


def _sweep(data: Mapping[str, Any]) -> BudgetSweep:
    return BudgetSweep(**{**data, "budgets": tuple(data["budgets"]), "random": _figures(data["random"])})


def _figures(data: Mapping[str, Any]) -> EqualBudget:
    figures: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in data.items()}
    return EqualBudget(**figures)


def _limits(interval: Sequence[float] | None) -> tuple[float, float] | None:
    if interval is None:
        return None
    low, high = interval
    return low, high
