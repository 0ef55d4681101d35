"""Is a found network better than a hand-made one? Accuracies at equal params and FLOPs, with one recipe for all.

    python benchmarks/found_vs_hand.py                              # goes on where it was stopped
    python benchmarks/found_vs_hand.py --only zen,digits random     # rows, data sets, or one row on one data set
    python benchmarks/found_vs_hand.py --quick --runs /tmp/runs.jsonl --out /tmp/found_vs_hand.json

Every search and every training is one line of a file of runs, written as it comes, and is not done again: the script
can be killed and run in pieces. The summary is of whatever the file holds.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from common import RESULTS, Figure, Part, append_run, merge, print_table, read_runs
from scipy.stats import ttest_ind

import zeroshot_nas as zs
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import UnknownNameError
from zeroshot_nas.latency.base import measure
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY
from zeroshot_nas.spaces.base import default_space
from zeroshot_nas.spaces.chain import stride_steps
from zeroshot_nas.training.recipe import RECIPES


@dataclass(frozen=True)
class Setting:
    """What all rows share; ``--quick`` makes it small.

    Attributes:
        sizes: Shape of one image, by data set.
        budget: Upper limits on every network.
        recipe: Training, without a validation part: the last epoch counts.
        search_seeds: Searches of a searched row.
        training_seeds: Trainings of every searched and hand-made network.
        random_networks: Networks of the random row.
        random_seeds: Trainings of each.
        proposals: Networks that a search proposes; None leaves the default.
    """

    sizes: Mapping[str, Shape]
    budget: zs.Budget
    recipe: zs.Recipe
    search_seeds: int = 5
    training_seeds: int = 5
    random_networks: int = 10
    random_seeds: int = 1
    proposals: int | None = None


FULL = Setting(
    sizes={"digits": (1, 16, 16), "mnist5k": (1, 28, 28)},
    budget=zs.Budget(params=100e3, flops=5e6, layers=10),
    recipe=replace(RECIPES["quick"], validation_fraction=0.0),
)
QUICK = replace(
    FULL,
    sizes={"digits": (1, 8, 8)},
    budget=zs.Budget(params=20e3, flops=5e5, layers=10),
    recipe=replace(FULL.recipe, epochs=1, batch_size=128),
    search_seeds=2,
    training_seeds=2,
    random_networks=2,
    proposals=60,
)


def searched(
    proxy: str, structure: zs.StructureBounds | None = None, space: str | None = "resnet", **options: Any
) -> Callable[[Shape, Setting, int], Architecture]:
    """The winner of a search by a proxy, with bounds on its shape or none; None is the default space."""

    def find(size: Shape, setting: Setting, seed: int) -> Architecture:
        budget, where = (
            replace(setting.budget, structure=structure),
            zs.get_space(space or default_space(size), input_size=size, **options),
        )
        return zs.search(where, proxy, budget, proposals=setting.proposals, seed=seed, progress=False).best.architecture

    return find


WALK = 500
"""Steps of a random walk before its networks count as random."""


def random_network(**options: Any) -> Callable[[Shape, Setting, int], Architecture]:
    """The end of a random walk within the budget, the first with 80 % of its params or FLOPs or more.

    A walk, since the space's own draws within so small a budget are hardly more than the network it starts from.
    """

    def walk(size: Shape, setting: Setting, seed: int) -> Architecture:
        space, rng = zs.get_space("resnet", input_size=size, **options), python_rng(seed, 1)
        network, steps = space.initial(), 0
        while steps < WALK or used(network, setting.budget) < 0.8:
            mutant = space.mutate(network, rng)
            smaller = used(mutant, setting.budget) < used(network, setting.budget)
            if smaller or not setting.budget.violations(zs.cost(mutant)):
                network = mutant
            steps += 1
        return network

    return walk


def used(network: Architecture, budget: zs.Budget) -> float:
    """The share of params or of FLOPs that a network uses, the larger."""
    costs, limits = zs.cost(network), budget.limits()
    return max(costs.params / limits["params"], costs.flops / limits["flops"])


def largest(make: Callable[[Shape, float], Architecture]) -> Callable[[Shape, Setting, int], Architecture]:
    """The widest network of a hand-made family that fits params and FLOPs; hand-made depth is what it is."""

    def fit(size: Shape, setting: Setting, _seed: int) -> Architecture:
        limits = replace(setting.budget, layers=None)
        candidates = (make(size, step / 100) for step in range(300, 0, -1))
        return next(network for network in candidates if not limits.violations(zs.cost(network)))

    return fit


def width(channels: float) -> int:
    """A whole number of channels, 4 or more."""
    return max(4, round(channels))


def reference(name: str) -> Callable[[Shape, Setting, int], Architecture]:
    """A ResNet for small images, the widest that fits params and FLOPs; its last stages halve, as the image allows."""

    def fit(size: Shape, setting: Setting, _seed: int) -> Architecture:
        strides = "".join(str(1 + (stage >= 3 - stride_steps(size))) for stage in range(3))
        return zs.reference(name, replace(setting.budget, layers=None), size, strides=strides)

    return fit


def mobilenet_v2(depth: float) -> Callable[[Shape, float], Architecture]:
    """MobileNetV2 (Sandler et al., arXiv:1801.04381) with fewer halvings, as the images are small.

    Of its stages 2 and 4, which halve, the last ``stride_steps`` do. Every stage expands by 6, also the first.
    """
    stages = ((16, 1), (24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1))

    def make(size: Shape, multiplier: float) -> Architecture:
        halved = (1, 3)[-stride_steps(size) :]
        blocks = [block("SuperConvK3BNRELU", width(32 * multiplier), 1)]
        for stage, (channels, repeats) in enumerate(stages):
            out = width(channels * multiplier)
            times = max(1, round(repeats * depth))
            blocks.append(block("MobileNetV2E6K3", out, 1 + (stage in halved), sub_layers=times))
        blocks.append(block("SuperConvK1BNRELU", width(1280 * multiplier), 1))
        return Architecture(tuple(blocks), size, 10)

    return make


def block(name: str, out_channels: int, stride: int, **values: int) -> BlockSpec:
    return BLOCKS[name](out_channels=out_channels, stride=stride, **values)


@dataclass(frozen=True)
class Row:
    """A kind of network: how to come to its architectures, and of what kind it is.

    Attributes:
        make: ``(input size, setting, seed) -> architecture``.
        kind: ``"searched"``, ``"hand-made"`` (one architecture) or ``"random"``.
        proxy: The proxy of a search; a row whose proxy is not registered is skipped.
    """

    make: Callable[[Shape, Setting, int], Architecture]
    kind: str
    proxy: str | None = None

    def seeds(self, setting: Setting) -> range:
        """The seeds of its architectures."""
        counts = {"searched": setting.search_seeds, "hand-made": 1, "random": setting.random_networks}
        return range(counts[self.kind])

    def trainings(self, setting: Setting) -> range:
        """The training seeds of each architecture."""
        return range(setting.random_seeds if self.kind == "random" else setting.training_seeds)


ROWS: dict[str, Row] = {
    "zen": Row(searched("zen"), "searched", "zen"),
    "default": Row(searched(DEFAULT_SEARCH_PROXY, space=None), "searched", "ceres"),
    "inverted_k3": Row(searched(DEFAULT_SEARCH_PROXY, space="inverted", kernels=(3, 5, 7)), "searched", "ceres"),
    "vanilla": Row(searched(DEFAULT_SEARCH_PROXY, space="vanilla"), "searched", "ceres"),
    "ceres": Row(searched("ceres", space="vanilla"), "searched", "ceres"),
    "ceres_resnet": Row(searched("ceres"), "searched", "ceres"),
    "cet": Row(searched("cet"), "searched", "cet"),
    "cet_monotone": Row(searched("cet", zs.StructureBounds(monotone_widths=True)), "searched", "cet"),
    "cet_basic": Row(searched("cet", zs.StructureBounds(monotone_widths=True), blocks="basic"), "searched", "cet"),
    "az_nas": Row(searched("az_nas"), "searched", "az_nas"),
    "resnet8": Row(reference("resnet8"), "hand-made"),
    "resnet20": Row(reference("resnet20"), "hand-made"),
    "mobilenet_v2": Row(largest(mobilenet_v2(1)), "hand-made"),
    "mobilenet_v2_half_depth": Row(largest(mobilenet_v2(0.5)), "hand-made"),
    "random": Row(random_network(), "random"),
    "random_basic": Row(random_network(blocks="basic"), "random"),
}


@dataclass(frozen=True)
class Task:
    """A search, or with a training seed the training of what it found.

    Attributes:
        setting: Digest of what all rows share, so that runs of other settings are not mixed up.
    """

    row: str
    dataset: str
    seed: int
    setting: str
    training_seed: int | None = None

    def run(self, setting: Setting, architecture: Architecture | None) -> dict[str, Any]:
        """One line of the file of runs."""
        start = time.perf_counter()
        if architecture is None:
            found = ROWS[self.row].make(setting.sizes[self.dataset], setting, self.seed)
            outcome: dict[str, Any] = {"architecture": found.to_dict()}
        else:
            assert self.training_seed is not None
            trained = zs.train(architecture, self.dataset, setting.recipe, seed=self.training_seed, progress=False)
            outcome = {
                "test_accuracy": trained.test_accuracy,
                "train_loss": trained.history[-1].train_loss,
                "architecture_key": architecture.key,
            }
        return {**asdict(self), **outcome, "seconds": round(time.perf_counter() - start, 2)}


class Runs:
    """The file of runs: one JSON object a line."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.done: dict[Task, dict[str, Any]] = {}
        names = [each.name for each in fields(Task)]
        for line in read_runs(file):
            self.done[Task(**{name: line[name] for name in names})] = line

    def add(self, task: Task, line: dict[str, Any]) -> None:
        append_run(self.file, line)
        self.done[task] = line

    def architecture(self, task: Task) -> Architecture | None:
        """What a search found, if it is done."""
        line = self.done.get(replace(task, training_seed=None))
        return None if line is None else Architecture.from_dict(line["architecture"])


def digest(setting: Setting) -> str:
    """A name for what all rows share; of the recipe, what is not its default."""
    default = zs.Recipe().to_dict()
    recipe = {name: value for name, value in setting.recipe.to_dict().items() if value != default.get(name)}
    text = repr((setting.budget.limits(), setting.sizes, sorted(recipe.items()), setting.proposals))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def available(rows: Iterable[str]) -> list[str]:
    """The rows whose proxy is registered; the others are named and skipped."""
    kept = []
    for name in rows:
        try:
            if ROWS[name].proxy is not None:
                zs.get_proxy(ROWS[name].proxy)
        except UnknownNameError as error:
            print(f"row {name!r} is skipped: {error}", file=sys.stderr)
        else:
            kept.append(name)
    return kept


def searches(pairs: Sequence[tuple[str, str]], setting: Setting) -> Iterator[Task]:
    for row, dataset in pairs:
        for seed in ROWS[row].seeds(setting):
            yield Task(row, dataset, seed, digest(setting))


def work(tasks: Sequence[Task], setting: Setting, runs: Runs, workers: int) -> None:
    """Runs what is missing in worker processes of one thread each; keeps each result as it comes."""
    missing = [task for task in tasks if task not in runs.done]
    random.Random(0).shuffle(missing)  # so that a part of the table says something about all of it:
    missing.sort(key=lambda task: task.training_seed or 0)  # every network once before any a second time
    if not missing:
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {}
        for task in missing:
            architecture = None if task.training_seed is None else runs.architecture(task)
            futures[pool.submit(task.run, setting, architecture)] = task
        for count, future in enumerate(as_completed(futures), start=1):
            line = future.result()
            runs.add(futures[future], line)
            outcome = f"{line['test_accuracy']:.2%}" if "test_accuracy" in line else "found"
            task = futures[future]
            print(f"{count}/{len(missing)} {task}: {outcome}, {line['seconds']:.0f} s", file=sys.stderr, flush=True)


def accuracies(row: str, dataset: str, setting: Setting, runs: Runs) -> list[tuple[Architecture, list[float]]]:
    """Every architecture of a row with its test accuracies, in percent, as far as they are there."""
    found = []
    for task in searches([(row, dataset)], setting):
        architecture = runs.architecture(task)
        trainings = [replace(task, training_seed=seed) for seed in ROWS[row].trainings(setting)]
        values = [100 * runs.done[each]["test_accuracy"] for each in trainings if each in runs.done]
        if architecture is not None and values:
            found.append((architecture, values))
    return found


def sample(networks: Sequence[tuple[Architecture, list[float]]]) -> list[float]:
    """What a test compares: the means of several architectures, or the trainings of one."""
    if len(networks) == 1:
        return networks[0][1]
    return [statistics.mean(values) for _, values in networks]


def deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def describe(networks: Sequence[tuple[Architecture, list[float]]]) -> dict[str, Any]:
    """One row of the table; latencies are measured here, all in one run (ONNX Runtime, one image, one thread)."""
    within = [statistics.variance(values) for _, values in networks if len(values) > 1]
    return {
        "mean": statistics.mean(sample(networks)),
        "deviation_between_searches": deviation(sample(networks)) if len(networks) > 1 else None,
        "deviation_between_trainings": statistics.mean(within) ** 0.5 if within else None,
        "trainings": sum(len(values) for _, values in networks),
        "networks": [
            {
                "architecture": [repr(each) for each in network.blocks],
                "widths": [each.out_channels for each in network.blocks],
                "depths": [each.sub_layers for each in network.blocks],
                **zs.cost(network).to_dict(),
                "latency_ms": measure(network, seconds=0.3).latency_ms,
                "test_accuracies": values,
            }
            for network, values in networks
        ],
    }


def compare(one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """The difference of the means with Welch's test, which supposes no equal variances."""
    difference = statistics.mean(one) - statistics.mean(other)
    if min(len(one), len(other)) < 2 or not (statistics.pvariance(one) or statistics.pvariance(other)):
        return {"difference": difference, "interval_95": None, "p_value": None}
    outcome = ttest_ind(one, other, equal_var=False)
    interval = outcome.confidence_interval(0.95)
    return {"difference": difference, "interval_95": [interval.low, interval.high], "p_value": float(outcome.pvalue)}


def summarize(dataset: str, setting: Setting, runs: Runs) -> Part:
    """Every row that the file of runs holds, and every searched one against every other."""
    found = {row: accuracies(row, dataset, setting, runs) for row in ROWS}
    found = {row: networks for row, networks in found.items() if networks}
    samples = {row: sample(networks) for row, networks in found.items()}
    figures = [Figure(f"{dataset}, {row}: test accuracy", values, "%") for row, values in samples.items()]
    hand_made = [row for row in found if ROWS[row].kind == "hand-made"]
    best = max(hand_made, key=lambda row: statistics.mean(samples[row]), default=None)
    for row in found:
        if ROWS[row].kind == "searched" and best is not None:
            noise = max(deviation(samples[row]) or 0, deviation(samples[best]) or 0)
            gain = statistics.mean(samples[row]) - statistics.mean(samples[best])
            what = f"{dataset}: {row} over {best}, the better hand-made; at worst the deviation below"
            figures.append(Figure(what, [gain], "points", at_least=-noise))
        if ROWS[row].kind == "searched" and "random" in samples:
            gain = statistics.mean(samples[row]) - statistics.mean(samples["random"])
            figures.append(Figure(f"{dataset}: {row} over random", [gain], "points", at_least=0))
    comparisons = {
        f"{row} - {other}": compare(samples[row], samples[other])
        for row in found
        for other in found
        if ROWS[row].kind == "searched" and other != row
    }
    return Part(
        figures,
        {
            "budget": setting.budget.limits(),
            "input_size": setting.sizes[dataset],
            "recipe": setting.recipe.to_dict(),
            "rows": {row: describe(networks) for row, networks in found.items()},
            "comparisons (Welch's test)": comparisons,
        },
    )


def print_rows(dataset: str, part: Part) -> None:
    """The table of one data set."""
    print(f"\n{dataset}\n")
    print("| row | accuracy % | between searches | between trainings | params | FLOPs | layers | latency ms |")
    print("|---|---|---|---|---|---|---|---|")
    for row, about in part.details["rows"].items():
        spread = [
            "" if about[name] is None else f"{about[name]:.2f}"
            for name in ("deviation_between_searches", "deviation_between_trainings")
        ]
        costs = [
            f"{statistics.mean(each[name] for each in about['networks']):,.0f}"
            for name in ("params", "flops", "layers")
        ]
        costs.append(f"{statistics.mean(each['latency_ms'] for each in about['networks']):.3f}")
        print(f"| {row} | {about['mean']:.2f} | {' | '.join(spread)} | {' | '.join(costs)} |")
    for pair, outcome in part.details["comparisons (Welch's test)"].items():
        p_value = "" if outcome["p_value"] is None else f", p = {outcome['p_value']:.3f}"
        print(f"{pair}: {outcome['difference']:+.2f} points{p_value}")


def chosen(only: Sequence[str], setting: Setting) -> list[tuple[str, str]]:
    """Pairs of row and data set that ``--only`` names."""
    every = [(row, dataset) for dataset in setting.sizes for row in ROWS]
    names = {*ROWS, *setting.sizes}
    wanted = [tuple(each.split(",")) for each in only]
    if unknown := {name for each in wanted for name in each} - names:
        sys.exit(f"--only takes {', '.join(sorted(names))}, or a row and a data set joined by a comma; got {unknown}")
    return [pair for pair in every if not wanted or any(set(each) <= set(pair) for each in wanted)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not what is better")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW,DATASET", help="what to run; default: all")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of one thread each")
    parser.add_argument("--runs", type=Path, default=RESULTS / "found_vs_hand.jsonl", help="file of runs")
    parser.add_argument("--out", type=Path, help="summary, default benchmarks/results/found_vs_hand.json")
    parser.add_argument("--summary", action="store_true", help="run nothing, summarize the file of runs")
    arguments = parser.parse_args()
    setting = QUICK if arguments.quick else FULL
    out = arguments.out or (None if arguments.quick else RESULTS / "found_vs_hand.json")
    pairs = chosen(arguments.only, setting)
    runs = Runs(arguments.runs)
    start = time.perf_counter()
    if not arguments.summary:
        rows = available(dict.fromkeys(row for row, _ in pairs))
        tasks = list(searches([pair for pair in pairs if pair[0] in rows], setting))
        work(tasks, setting, runs, arguments.workers)
        trainings = [replace(task, training_seed=seed) for task in tasks for seed in ROWS[task.row].trainings(setting)]
        work(trainings, setting, runs, arguments.workers)
    figures: list[Figure] = []
    for dataset in setting.sizes:
        part = summarize(dataset, setting, runs)
        if part.figures:
            print_rows(dataset, part)
            figures += part.figures
            if out is not None:
                merge(out, dataset, part, {"quick": arguments.quick, "seconds": round(time.perf_counter() - start)})
    print()
    print_table(figures)


if __name__ == "__main__":
    main()
