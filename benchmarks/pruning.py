"""Is it better to prune a larger network to a budget, or to search at that budget? At equal epochs, on CIFAR-10.

    python benchmarks/pruning.py --data cifar10-20k                     # goes on where it was stopped
    python benchmarks/pruning.py --data cifar10-20k --only vanilla      # parts: resnet, vanilla, importance
    python benchmarks/pruning.py --summary                              # of whatever is there
    python benchmarks/pruning.py --data cifar10-20k --quick --runs /tmp/runs.jsonl --work /tmp/work

Searches are for params and FLOPs, by the default score. Rows of a space, all with the same number of epochs in all but
where they say otherwise:

- ``searched``: found at the budget, trained from the beginning;
- ``pruned from 2x``, ``from 4x``: found at twice or four times the budget, trained for half of the epochs, pruned to
  the budget, and tuned for the other half;
- ``... from scratch``: the architecture that pruning left, trained from the beginning (arXiv:1810.05270);
- ``searched, CPU of 2x``, ``of 4x``: ``searched`` with as many more epochs as the larger network's cost in CPU time;
- ``pruned at random from 4x``: what the choice of channels is worth.

The last epoch counts; test images are looked at once a training. ``importance`` compares ways to choose channels on
small data. Every training is a line of a file of runs; those under way are in ``--work``. Torch runs on one thread.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import RESULTS, Figure, Part, append_run, circumstances, merge, print_table, read_runs
from found_vs_hand import compare

import zeroshot_nas as zs
from zeroshot_nas.callbacks.base import Event
from zeroshot_nas.pruning.channels import IMPORTANCES
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY
from zeroshot_nas.training.checkpoint import read_result

INPUT, CLASSES, MAX_LAYERS = (3, 32, 32), 10, 20
BUDGET = zs.Budget(params=50e3, flops=2e6)
SPACES = ("resnet", "vanilla")
TIMES = (2, 4)


class Setting(NamedTuple):
    """How much is trained.

    Attributes:
        images: Training images.
        epochs: Of every row, in all.
        seeds: Of searches and trainings, how many.
        proposals: Of a search; None for the default.
        small: Epochs of the larger network of ``importance``, and of its tuning.
        small_seeds: How many of these.
    """

    images: int = 10_000
    epochs: int = 8
    seeds: int = 3
    proposals: int | None = None
    small: tuple[int, int] = (8, 2)
    small_seeds: int = 3


QUICK = Setting(256, 2, 1, 200, (1, 1), 1)
RECIPE = zs.get_recipe("quick", batch_size=64, flip=True, shift=4, validation_fraction=0.0)
SMALL = zs.get_recipe("quick")
SMALL_BUDGETS = {"digits": zs.Budget(params=60e3, flops=1e6), "mnist5k": zs.Budget(params=60e3, flops=3e6)}
"""Of the larger networks of ``importance``."""


class Runs:
    """The file of runs, a line for each training that ended, and the folder of those under way."""

    def __init__(self, file: Path, folder: Path) -> None:
        self.file, self.folder = file, folder
        self.lines = {line["key"]: line for line in read_runs(file)}

    def once(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The line of a key, made if it is not there."""
        if key not in self.lines:
            line = {"key": key, **make()}
            line |= {name: circumstances()[name] for name in ("commit", "versions", "machine")}
            append_run(self.file, line)
            self.lines[key] = line
            print(f"{time.strftime('%H:%M:%S')} {key}: {line.get('accuracy', '')}", file=sys.stderr, flush=True)
        return self.lines[key]

    def train(self, key: str, train: Callable[..., zs.TrainResult]) -> dict[str, Any]:
        """What came of a training in a folder of its own, which goes on if it was stopped."""
        place = self.folder / key.replace(" ", "_").replace(",", "")
        clock = place / "cpu.txt"

        def made() -> dict[str, Any]:
            began = [time.process_time()]

            def note(event: Event) -> None:
                if event.kind == "epoch" and not event.known:
                    spent, began[0] = time.process_time() - began[0], time.process_time()
                    with clock.open("a", encoding="utf-8") as stream:
                        stream.write(f"{spent}\n")

            result = train(out=place, resume=True, threads=1, progress=False, callbacks=[note])
            network = result.network.architecture
            costs = zs.cost(network)
            return {
                "accuracy": result.test_accuracy,
                "architecture": network.to_string(),
                "params": costs.params,
                "flops": costs.flops,
                "epochs": result.epochs,
                "cpu_seconds": round(sum(map(float, clock.read_text(encoding="utf-8").split())), 2),
            }

        return self.once(key, made)

    def weights(self, key: str) -> Path:
        """The folder of a training."""
        return self.folder / key.replace(" ", "_").replace(",", "")


def larger(budget: zs.Budget, times: float) -> zs.Budget:
    return zs.Budget(**{name: times * limit for name, limit in budget.limits().items()}, layers=MAX_LAYERS)


def found(
    runs: Runs, key: str, space: str, size: tuple[int, int, int], budget: zs.Budget, seed: int, proposals: int | None
) -> zs.Architecture:
    """The winner of a default search."""

    def make() -> dict[str, Any]:
        where = zs.get_space(space, input_size=size, num_classes=CLASSES)
        start = time.process_time()
        outcome = zs.search(where, DEFAULT_SEARCH_PROXY, budget, proposals=proposals, seed=seed, progress=False)
        best = outcome.best.architecture
        return {"architecture": best.to_string(), "cpu_seconds": round(time.process_time() - start, 2)}

    return zs.Architecture.from_string(runs.once(key, make)["architecture"], size, CLASSES)


def work(space: str, seed: int, phase: int, data: zs.ImageData, runs: Runs, setting: Setting) -> None:
    """A third of the rows of a space with one seed, which read what the thirds before it left."""
    half = setting.epochs // 2

    def recipe(epochs: int) -> zs.Recipe:
        return replace(RECIPE, epochs=epochs)

    def named(row: str) -> str:
        return f"{space}, {row}, {seed}"

    def search(times: int) -> zs.Architecture:
        key = named(f"search at {times}x")
        return found(runs, key, space, INPUT, larger(BUDGET, times), seed, setting.proposals)

    def trained(row: str, network: zs.Architecture, epochs: int) -> dict[str, Any]:
        return runs.train(named(row), partial(zs.train, network, data, recipe(epochs), seed=seed))

    def pruned(row: str, times: int, **options: Any) -> dict[str, Any]:
        source = runs.weights(named(f"{times}x itself"))
        if named(row) not in runs.lines and read_result(source).get("state") != "done":
            sys.exit(f"{source} is gone, whose weights are pruned; take its line off {runs.file} to train it again")
        return runs.train(named(row), partial(zs.prune, source, BUDGET, data, recipe(half), seed=seed, **options))

    def on_from(times: int) -> None:
        """What is compared with the network that was pruned from a larger one."""
        tuned = runs.lines[named(f"pruned from {times}x")]
        left = zs.Architecture.from_string(tuned["architecture"], INPUT, CLASSES)
        trained(f"pruned from {times}x, from scratch", left, setting.epochs)
        seconds = runs.lines[named(f"{times}x itself")]["cpu_seconds"] + tuned["cpu_seconds"]
        epochs = max(1, round(setting.epochs * seconds / runs.lines[named("searched")]["cpu_seconds"]))
        trained(f"searched, CPU of {times}x", search(1), epochs)

    if phase == 0:
        trained("searched", search(1), setting.epochs)
        for times in reversed(TIMES):
            trained(f"{times}x itself", search(times), half)
            pruned(f"pruned from {times}x", times)
    elif phase == 1:
        on_from(4)
    else:
        on_from(2)
        pruned("pruned at random from 4x", 4, importance="random")


def choose(name: str, seed: int, runs: Runs, setting: Setting) -> None:
    """Every way to choose channels, on one small data set with one seed."""
    data = zs.load_data(name)
    first, second = setting.small
    for space in SPACES:
        key = f"{name}, {space}, search, {seed}"
        budget = replace(SMALL_BUDGETS[name], layers=MAX_LAYERS)
        network = found(runs, key, space, data.image_shape, budget, seed, setting.proposals or 3_000)
        whole = f"{name}, {space}, whole, {seed}"
        recipe = replace(SMALL, epochs=first)
        runs.train(whole, partial(zs.train, network, data, recipe, seed=seed))
        costs = zs.cost(network)
        for times in TIMES:
            limits = zs.Budget(params=costs.params / times, flops=costs.flops / times)
            for importance in IMPORTANCES:
                for speed in (1.0, 0.25):
                    tuning = replace(SMALL, epochs=second, warmup_epochs=0.5)
                    tuning = replace(tuning, learning_rate_per_256=speed * SMALL.learning_rate_per_256)
                    runs.train(
                        f"{name}, {space}, 1/{times} by {importance} at {speed:g}, {seed}",
                        partial(zs.prune, runs.weights(whole), limits, data, tuning, importance=importance, seed=seed),
                    )


ROWS = (
    *("searched", "pruned from 2x", "pruned from 4x", "pruned from 2x, from scratch", "pruned from 4x, from scratch"),
    *("searched, CPU of 2x", "searched, CPU of 4x", "pruned at random from 4x", "2x itself", "4x itself"),
)


def summarize(space: str, runs: Runs) -> Part:
    """Every row of a space, and every pair of rows."""
    lines = {
        row: [runs.lines[key] for seed in range(99) if (key := f"{space}, {row}, {seed}") in runs.lines] for row in ROWS
    }
    lines = {row: each for row, each in lines.items() if each}
    accuracies = {row: [100 * line["accuracy"] for line in each] for row, each in lines.items()}
    figures = [Figure(f"{space}, {row}: test accuracy", values, "%") for row, values in accuracies.items()]
    both = [row for row in accuracies if len(accuracies[row]) > 1]
    pairs = {
        f"{row} - {other}": compare(accuracies[row], accuracies[other])
        for place, row in enumerate(both)
        for other in both[:place]
    }
    about = {
        row: {
            "mean": statistics.mean(accuracies[row]),
            **{
                name: [line[name] for line in each]
                for name in ("params", "flops", "epochs", "cpu_seconds", "architecture")
            },
        }
        for row, each in lines.items()
    }
    return Part(
        figures,
        {"budget": BUDGET.limits(), "recipe": RECIPE.to_dict(), "rows": about, "comparisons (Welch's test)": pairs},
    )


def summarize_importance(runs: Runs) -> Part:
    """Means over data sets, spaces and seeds of what tuned networks reach, less the network before."""
    figures, rows = [], {}
    for name in SMALL_BUDGETS:
        whole = {
            key: line["accuracy"]
            for key, line in runs.lines.items()
            if key.startswith(f"{name}, ") and ", whole, " in key
        }
        for times in TIMES:
            for importance in IMPORTANCES:
                for speed in (1.0, 0.25):
                    what = f"1/{times} by {importance} at {speed:g}"
                    lost = [
                        100 * (whole[key.replace(what, "whole")] - line["accuracy"])
                        for key, line in runs.lines.items()
                        if key.startswith(f"{name}, ") and f", {what}, " in key
                    ]
                    if lost:
                        label = f"{name}: whole less {what} of the learning rate"
                        figures.append(Figure(f"{label}, mean of {len(lost)}", [statistics.mean(lost)], "points"))
                        rows[label] = lost
    return Part(figures, {"recipe": SMALL.to_dict(), "points lost": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few images and proposals: shows that it runs")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10 in its official layout")
    parser.add_argument("--only", nargs="+", choices=(*SPACES, "importance"), default=[*SPACES, "importance"])
    parser.add_argument("--seeds", nargs="+", type=int, help="of the searches and trainings; default: all")
    parser.add_argument("--small", nargs="+", choices=SMALL_BUDGETS, default=list(SMALL_BUDGETS))
    parser.add_argument("--runs", type=Path, default=RESULTS / "pruning.jsonl", help="file of runs")
    parser.add_argument("--work", type=Path, default=Path("runs/pruning"), help="folder of trainings, runs/pruning")
    parser.add_argument("--out", type=Path, help="summary, default benchmarks/results/pruning.json")
    parser.add_argument("--summary", action="store_true", help="run nothing, summarize the file of runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    setting = QUICK if arguments.quick else Setting()
    out = arguments.out or (None if arguments.quick else RESULTS / "pruning.json")
    runs = Runs(arguments.runs, arguments.work)

    @cache
    def images() -> zs.ImageData:
        if arguments.data is None:
            sys.exit("training needs a folder of images, see --help")
        data, count = zs.load_data(f"cifar10:{arguments.data}"), setting.images
        return replace(data, train_images=data.train_images[:count], train_labels=data.train_labels[:count])

    if not arguments.summary:
        for phase, seed, space in itertools.product(range(3), arguments.seeds or range(setting.seeds), SPACES):
            if space in arguments.only:
                work(space, seed, phase, images(), runs, setting)
        seeds = arguments.seeds or range(setting.small_seeds)
        for seed in seeds if "importance" in arguments.only else ():
            for name in arguments.small:
                choose(name, seed, runs, setting)
    figures: list[Figure] = []
    for part in arguments.only:
        outcome = summarize_importance(runs) if part == "importance" else summarize(part, runs)
        figures += outcome.figures
        if out is not None:
            merge(out, part, outcome, {"quick": arguments.quick, "setting": setting._asdict()})
    print_table(figures)


if __name__ == "__main__":
    main()
