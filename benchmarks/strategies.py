"""All strategies on one page: best score as a share of what is provably possible, evaluations, seconds, memory.

    python benchmarks/strategies.py                                        # goes on where it was stopped
    python benchmarks/strategies.py --tables FOLDER                        # and what they find where the truth is known
    python benchmarks/strategies.py --summary --plot docs/strategies.png
    python benchmarks/strategies.py --quick --runs /tmp/strategies.jsonl

Every run is a process of its own (`one_strategy.py`) and one line of the file of runs. All strategies get the same
number of proposals; some end earlier. An evaluation is one closed form of a network that was not evaluated before, the
differences that ``gradient`` takes among them. ``FOLDER`` is that of ``nasbench201.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from common import RESULTS, Figure, Part, append_run, merge, print_table, read_runs, run_process
from nasbench201 import COLUMNS, accuracies

import zeroshot_nas as zs
from zeroshot_nas.plots.base import figure_class

SCRIPT = Path(__file__).with_name("one_strategy.py")

STRATEGIES = ("grid", "random", "evolution", "regularized_evolution", "reinforce", "gradient", "exact")

SUM = "zen"
"""A score that is a sum over blocks, for which `exact` proves the optimum."""

PROXIES = ("cet", SUM)

SPACES = ("resnet", "mobilenet")

BUDGETS: Mapping[str, Mapping[str, float]] = {
    "100k params": {"params": 1e5, "flops": 1e7, "layers": 12},
    "1M params": {"params": 1e6, "layers": 18},
    "160M FLOPs": {"params": 1e6, "flops": 1.6e8, "layers": 18},
}

PROPOSALS = 20_000

CELLS = (50, 200, 1_000)
"""Proposals in NAS-Bench-201, of 15,625 cells."""


@dataclass(frozen=True)
class Task:
    """One run."""

    space: str
    proxy: str
    budget: Mapping[str, float]
    searcher: str
    seed: int
    proposals: int
    options: Mapping[str, Any] = field(default_factory=dict)
    space_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return json.dumps(
            {name: value for name, value in asdict(self).items() if value or name != "space_options"}, sort_keys=True
        )


QUICK = {"max_width": 32}
"""Options of the space that ``--quick`` searches."""


def quick_tasks(proposals: int) -> Iterator[Task]:
    """One seed in a small space, under the smallest budget."""
    for task in tasks(1, proposals, CELLS[:1]):
        if task.space == "nasbench201":
            yield task
        elif task.space != SPACES[0] or task.budget != next(iter(BUDGETS.values())):
            continue
        elif task.proxy == SUM or task.searcher in ("regularized_evolution", "gradient"):
            yield replace(task, space_options=QUICK, options={"starts": 2} if task.searcher == "gradient" else {})


def tasks(seeds: int, proposals: int, cells: Sequence[int]) -> Iterator[Task]:
    """Every run, all strategies of a seed before the next seed."""
    for seed in range(seeds):
        for space, proxy, budget in settings():
            for searcher in STRATEGIES:
                if (searcher == "exact" and proxy != SUM) or (searcher in ("exact", "grid") and seed):
                    continue  # no sum over blocks; another seed changes nothing
                yield Task(space, proxy, BUDGETS[budget], searcher, seed, proposals)
        for count in cells:
            for searcher in STRATEGIES:
                if searcher not in ("gradient", "exact") and (searcher != "grid" or not seed):  # cells are no chains
                    yield Task("nasbench201", "cet", {}, searcher, seed, count)


def settings() -> Iterator[tuple[str, str, str]]:
    """Spaces, proxies and names of budgets."""
    for space in SPACES:
        for proxy in PROXIES:
            for budget in BUDGETS:
                yield space, proxy, budget


class Runs:
    """The file of runs."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.done = {run["key"]: run for run in read_runs(file)}

    def work(self, wanted: Sequence[Task]) -> None:
        missing = [task for task in wanted if task.key not in self.done]
        for number, task in enumerate(missing, start=1):
            process = run_process([sys.executable, str(SCRIPT), json.dumps(asdict(task))])
            run = {"key": task.key, **asdict(task), **json.loads(process.printed), "peak_mb": 1e3 * process.peak_gb}
            append_run(self.file, run)
            self.done[task.key] = run
            said = f"{task.space} {task.proxy} {task.searcher} {task.seed}: {run['best']:.4f}, {run['cpu_seconds']} s"
            print(f"{number}/{len(missing)} {said}", file=sys.stderr, flush=True)

    def of(self, space: str, proxy: str, budget: Mapping[str, float], searcher: str) -> list[dict[str, Any]]:
        """All seeds of a strategy, as far as they are there."""
        wanted = {"space": space, "proxy": proxy, "budget": dict(budget), "searcher": searcher}
        return [run for run in self.done.values() if all(run[name] == value for name, value in wanted.items())]


def bound(space: str, proxy: str, budget: str, runs: Runs) -> tuple[float, str]:
    """What no network can exceed, and what says so."""
    for run in runs.of(space, proxy, BUDGETS[budget], "exact"):
        if run["certificate"]["bound"] is not None:
            return run["certificate"]["bound"], "exact" if run["certificate"]["finished"] else "exact, unfinished"
    found = zs.get_proxy(proxy).upper_bound(zs.get_space(space), zs.Budget(**BUDGETS[budget]))
    if found is not None:
        return found, "relaxation"
    every = [run["best"] for searcher in STRATEGIES for run in runs.of(space, proxy, BUDGETS[budget], searcher)]
    return max(every), "the best of all runs"


def chains(runs: Runs) -> Part:
    """Best scores as shares of the bound, and what they took."""
    figures, rows = [], []
    for space, proxy, budget in settings():
        found = {searcher: runs.of(space, proxy, BUDGETS[budget], searcher) for searcher in STRATEGIES}
        found = {searcher: each for searcher, each in found.items() if each}
        if not found:
            continue
        limit, said_by = bound(space, proxy, budget, runs)
        evolved = (
            statistics.median(run["best"] for run in found.get("regularized_evolution", []))
            if found.get("regularized_evolution")
            else None
        )
        for searcher, each in found.items():
            best = [run["best"] for run in each]
            what = f"{space}, {proxy}, {budget}: {searcher}"
            figures.append(Figure(f"{what}, best score", [100 * value / limit for value in best], f"% of {said_by}"))
            if evolved and searcher in ("gradient", "reinforce"):
                figures.append(
                    Figure(
                        f"{what}, best score",
                        [100 * value / evolved for value in best],
                        "% of regularized evolution's median",
                        at_least=99.5,
                    )
                )
            rows.append(
                {
                    "space": space,
                    "proxy": proxy,
                    "budget": budget,
                    "strategy": searcher,
                    "bound": limit,
                    "bound_by": said_by,
                    "runs": len(each),
                    **{name: statistics.median(run[name] for run in each) for name in MEDIANS},
                }
            )
    return Part(figures, {"medians": rows, "budgets": BUDGETS, "proposals": PROPOSALS})


MEDIANS = ("best", "proposed", "over_budget", "evaluations", "cpu_seconds", "peak_mb")


def cells(runs: Runs, dataset: str) -> Part:
    """Accuracy of the cell that a strategy finds by `cet`, against the best and one in the middle."""
    table = accuracies(dataset)
    figures = [
        Figure("nasbench201: the best cell", [max(table.accuracy)], "%"),
        Figure("nasbench201: a cell in the middle", [statistics.median(table.accuracy)], "%"),
    ]
    for count in CELLS:
        for searcher in STRATEGIES:
            each = [run for run in runs.of("nasbench201", "cet", {}, searcher) if run["proposals"] == count]
            if each:
                found = [table.accuracy_of(run["architecture"]) for run in each]
                figures.append(Figure(f"nasbench201: {searcher}, {count:,} proposals", found, "%"))
    return Part(figures, {"dataset": dataset, "table": table.name})


def plot(runs: Runs, file: Path) -> None:
    """Best score over evaluations: median and quartiles of all seeds, and the bound."""
    figure = figure_class()(figsize=(11, 6), layout="constrained")
    panels = figure.subplots(len(SPACES), len(BUDGETS), squeeze=False)
    for row, space in zip(panels, SPACES, strict=True):
        for axes, budget in zip(row, BUDGETS, strict=True):
            if not any(runs.of(space, "cet", BUDGETS[budget], searcher) for searcher in STRATEGIES):
                continue
            limit, said_by = bound(space, "cet", budget, runs)
            for searcher in STRATEGIES:
                each = runs.of(space, "cet", BUDGETS[budget], searcher)
                if each:
                    at, low, middle, high = curve([run["way"] for run in each], [run["evaluations"] for run in each])
                    (line,) = axes.plot(at, middle, label=searcher, linewidth=1.2)
                    axes.fill_between(at, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
            axes.axhline(limit, color="black", linewidth=0.8, linestyle="--", label=f"bound ({said_by})")
            axes.set(xscale="log", title=f"{space}, {budget}", xlabel="evaluations", ylabel="best cet")
            axes.set_ylim(bottom=0.8 * limit)
    panels[0][0].legend(fontsize="x-small", loc="lower right")
    figure.savefig(file, dpi=120)


def curve(ways: Sequence[Sequence[Sequence[float]]], ends: Sequence[int]) -> tuple[list[float], ...]:
    """Evaluations on a logarithmic grid, and the quartiles of the best scores that were found by then."""
    at = [10 ** (step / 20) for step in range(20 * 5) if 10 ** (step / 20) <= max(ends)]
    columns = []
    for evaluations in at:
        best = [max((point[1] for point in way if point[0] <= evaluations), default=way[0][1]) for way in ways]
        columns.append(statistics.quantiles(best, n=4) if len(best) > 1 else best * 3)
    low, middle, high = (list(each) for each in zip(*columns, strict=True))
    return at, low, middle, high


def print_rows(part: Part) -> None:
    print("| space | proxy | budget | strategy | % of bound | bound by | evaluations | CPU s | MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in part.details["medians"]:
        share = 100 * row["best"] / row["bound"]
        numbers = f"{row['evaluations']:,.0f} | {row['cpu_seconds']:.1f} | {row['peak_mb']:.0f}"
        names = " | ".join(row[name] for name in ("space", "proxy", "budget", "strategy"))
        print(f"| {names} | {share:.2f} | {row['bound_by']} | {numbers} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few proposals: shows that it runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=RESULTS / "strategies.jsonl", help="file of runs")
    parser.add_argument("--out", type=Path, help="summary, default benchmarks/results/strategies.json")
    parser.add_argument("--summary", action="store_true", help="run nothing, summarize the file of runs")
    parser.add_argument("--tables", help="folder of NAS-Bench-201's accuracies")
    parser.add_argument("--dataset", default="cifar10", choices=COLUMNS, help="their data set")
    parser.add_argument("--plot", type=Path, help="where to draw best scores over evaluations")
    arguments = parser.parse_args()
    out = arguments.out or (None if arguments.quick else RESULTS / "strategies.json")
    runs = Runs(arguments.runs)
    if not arguments.summary:
        seeds, proposals = arguments.seeds, 200 if arguments.quick else PROPOSALS
        runs.work(list(quick_tasks(proposals) if arguments.quick else tasks(seeds, proposals, CELLS)))
    parts = {"chains": chains(runs)}
    print_rows(parts["chains"])
    if arguments.tables:
        os.environ["NASBENCH_TABLES"] = arguments.tables
        parts["nasbench201"] = cells(runs, arguments.dataset)
    for name, part in parts.items():
        print()
        print_table(list(part.figures))
        if out is not None:
            merge(out, name, part, {"quick": arguments.quick})
    if arguments.plot:
        plot(runs, arguments.plot)


if __name__ == "__main__":
    main()
