"""Is a found network better than a hand-made one, on CIFAR-10 and at VCN-Bench's budgets? The README's table.

    python benchmarks/found_vs_hand_cifar10.py --data cifar10-20k                 # goes on where it was stopped
    python benchmarks/found_vs_hand_cifar10.py --data cifar10-20k --only A ceres  # budgets, rows, or one of each
    python benchmarks/found_vs_hand_cifar10.py --data cifar10 --protocol long --seeds 1 --only A default
    python benchmarks/found_vs_hand_cifar10.py --summary                          # of whatever is there
    python benchmarks/found_vs_hand_cifar10.py --data cifar10-20k --quick --runs /tmp/runs.jsonl

Networks are trained as those of ``vcn_bench.py`` are, by its short protocol or its long one (50,000 images and 40
epochs, eight times the work), and what that file of runs holds is not
trained again. Every search and every training is one line of a file of runs, written as it ends. The images tested on
chose nothing here: a search looks at no image, and trials at a tenth of the training images, held out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import RESULTS, Figure, Part, append_run, circumstances, merge, print_table, read_runs
from found_vs_hand import compare, describe, deviation, print_rows, sample
from vcn_bench import BUDGETS, CLASSES, INPUT, MAX_LAYERS, PROTOCOLS, Images, architecture, filled, train

import zeroshot_nas as zs
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY
from zeroshot_nas.spaces.base import default_space
from zeroshot_nas.training.base import ImageData

SEARCHES, TRAININGS = 5, 3

LENGTH = "images=20000:steps=3750"
"""Of the short protocol, for a score that asks for it."""

HELD_OUT = 0.1
"""Fraction of the training images that trials decide by; nothing else holds any out."""


class TrialData(NamedTuple):
    """What trials train on; test images are not among what they decide by."""

    images: ImageData
    recipe: zs.Recipe


@dataclass(frozen=True)
class Row:
    """A kind of network.

    Attributes:
        make: ``(budget, seed, proposals, data) -> architecture``.
        kind: ``"searched"``, ``"hand-made"`` (one architecture) or ``"random"``.
        needs_data: Whether it looks at training images.
    """

    make: Callable[[zs.Budget, int, int | None, TrialData | None], zs.Architecture]
    kind: str
    needs_data: bool = False

    @property
    def seeds(self) -> range:
        return range(1 if self.kind == "hand-made" else SEARCHES)


def searched(proxy: str, space: str = "resnet", trials: int = 0, **options: Any) -> Row:
    """Winners of default searches, 20 layers deep at most, or of their trials."""

    def find(budget: zs.Budget, seed: int, proposals: int | None, data: TrialData | None) -> zs.Architecture:
        where = zs.get_space(space, input_size=INPUT, num_classes=CLASSES, **options)
        limits = replace(budget, layers=MAX_LAYERS)
        count = 1_500 if proxy == "az_nas" and proposals is None else proposals  # it runs every network
        how: dict[str, Any] = {"proposals": count, "seed": seed, "progress": False}
        if trials and data is not None:
            how |= {"trials": trials, "data": data.images, "recipe": data.recipe}
        return zs.search(where, proxy, limits, **how).best.architecture

    return Row(find, "searched", needs_data=trials > 0)


def random_walk(steps: int = 500) -> Row:
    """Ends of random walks within the budget, the first networks after so many steps that fill it to 80 %."""

    def walk(budget: zs.Budget, seed: int, _proposals: int | None, _data: TrialData | None) -> zs.Architecture:
        space, rng = zs.get_space("resnet", input_size=INPUT, num_classes=CLASSES), python_rng(seed, 1)
        limits, network, done = replace(budget, layers=MAX_LAYERS), space.initial(), 0
        while done < steps or filled(zs.cost(network), budget) < 0.8:
            mutant = space.mutate(network, rng)
            smaller = filled(zs.cost(mutant), budget) < filled(zs.cost(network), budget)
            if smaller or not limits.violations(zs.cost(mutant)):
                network = mutant
            done += 1
        return network

    return Row(walk, "random")


def by_hand(name: str, **options: Any) -> Row:
    """The widest network of a family that fits."""
    return Row(lambda budget, *_: zs.reference(name, budget, INPUT, CLASSES, **options), "hand-made")


RESNETS = {
    f"resnet{depth}-{strides}{'-last' if last else ''}": by_hand(f"resnet{depth}", strides=strides, last=last)
    for depth in (8, 14, 20)
    for strides in ("222", "122")
    for last in (False, True)
}

ROWS: dict[str, Row] = {
    "default": searched(DEFAULT_SEARCH_PROXY, default_space(INPUT)),
    "default, with trials": searched(DEFAULT_SEARCH_PROXY, default_space(INPUT), trials=8),
    "inverted, kernels of 3 too": searched(DEFAULT_SEARCH_PROXY, "inverted", kernels=(3, 5, 7)),
    "vanilla": searched(DEFAULT_SEARCH_PROXY, "vanilla"),
    "vanilla, with trials": searched(DEFAULT_SEARCH_PROXY, "vanilla", trials=8),
    "ceres": searched("ceres"),
    "ceres, vanilla, with trials": searched("ceres", "vanilla", trials=8),
    "ceres, vanilla, length of training given": searched(f"ceres:{LENGTH}", "vanilla"),
    "ceres, vanilla": searched("ceres", "vanilla"),
    "cet": searched("cet"),
    "zen": searched("zen"),
    "az_nas": searched("az_nas"),
    "params": searched("params"),
    "random": random_walk(),
    **RESNETS,
    "mobilenet-222": by_hand("mobilenet_3stage", strides="222", expansion=4, repeats="111"),
}


@dataclass(frozen=True)
class Task:
    """A search, or with a training seed the training of what it found."""

    row: str
    budget: str
    seed: int
    protocol: str
    training_seed: int | None = None


def tasks(pairs: Sequence[tuple[str, str]], protocol: str, searches: int = SEARCHES) -> Iterator[Task]:
    """The searches, row by row."""
    for row, budget in pairs:
        for seed in ROWS[row].seeds[:searches]:
            yield Task(row, budget, seed, protocol)


class Runs:
    """The file of runs, and VCN-Bench's.

    Attributes:
        found: PlainNet strings by row, budget, seed and protocol.
        trained: Fractions of the test images that are classified right, by PlainNet string, training seed and protocol.
    """

    def __init__(self, file: Path, others: Sequence[Path]) -> None:
        self.file = file
        self.found: dict[Task, str] = {}
        self.trained: dict[tuple[str, int, str], float] = {}
        for line in chain.from_iterable(map(read_runs, (*others, file))):
            self._note(line)

    def add(self, line: dict[str, Any]) -> None:
        append_run(self.file, line)
        self._note(line)

    def accuracy(self, task: Task) -> float | None:
        """Of a training, as far as it is there."""
        text = self.found.get(replace(task, training_seed=None))
        if text is None or task.training_seed is None:
            return None
        return self.trained.get((text, task.training_seed, task.protocol))

    def _note(self, line: Mapping[str, Any]) -> None:
        if "test_accuracy" in line:
            key = line["architecture"], line.get("training_seed", line["seed"]), line["protocol"]
            self.trained[key] = line["test_accuracy"]
        else:
            task = Task(line["row"], line["budget"], line["seed"], line["protocol"])
            self.found[task] = line["architecture"]


def work(wanted: Sequence[Task], runs: Runs, data: Path | None, trainings: int, proposals: int | None) -> None:
    """Does what is missing: the searches, then every network once, before any a second time."""
    about = {name: circumstances()[name] for name in ("commit", "versions", "machine")}

    @cache
    def read(protocol: str) -> ImageData:
        if data is None:
            sys.exit("training needs a folder of images, see --help")
        found, count = zs.load_data(f"cifar10:{data}"), PROTOCOLS[protocol].images
        parts = ("train_images", "train_labels") + (("test_images", "test_labels") if protocol == "quick" else ())
        return replace(found, **{part: getattr(found, part)[:count] for part in parts})

    @cache
    def images(protocol: str) -> Images:
        return Images.of(read(protocol), PROTOCOLS[protocol])

    for task in wanted:
        if task not in runs.found:
            row, recipe = ROWS[task.row], PROTOCOLS[task.protocol].recipe
            if task.protocol == "quick":
                recipe = replace(recipe, epochs=8)  # of one epoch there are no trials
            shown = TrialData(read(task.protocol), replace(recipe, validation_fraction=HELD_OUT))
            start = time.perf_counter()
            text = row.make(BUDGETS[task.budget], task.seed, proposals, shown if row.needs_data else None).to_string()
            where = {"row": task.row, "budget": task.budget, "seed": task.seed, "protocol": task.protocol}
            runs.add({**where, "architecture": text, "seconds": round(time.perf_counter() - start, 1), **about})
            print(f"{task.row} {task.budget} {task.seed}: {text}", file=sys.stderr, flush=True)

    for training_seed in range(trainings):
        for task in wanted:
            text = runs.found[task]
            if (text, training_seed, task.protocol) in runs.trained:
                continue
            line = {"row": task.row, "budget": task.budget, "seed": task.seed, "training_seed": training_seed}
            outcome = train(architecture(text), images(task.protocol), PROTOCOLS[task.protocol].recipe, training_seed)
            runs.add({**line, "protocol": task.protocol, "architecture": text, **outcome, **about})
            said = f"{task.row} {task.budget} {task.seed} {training_seed}: {outcome['test_accuracy']:.2%}"
            print(f"{time.strftime('%H:%M:%S')} {said}, {outcome['cpu_seconds']} s", file=sys.stderr, flush=True)


def accuracies(row: str, budget: str, protocol: str, runs: Runs) -> list[tuple[zs.Architecture, list[float]]]:
    """Every network of a row with its test accuracies, in percent, as far as they are there; one found twice is one."""
    found: dict[str, list[float]] = {}
    for task in tasks([(row, budget)], protocol):
        each = [runs.accuracy(replace(task, training_seed=seed)) for seed in sorted({key[1] for key in runs.trained})]
        if values := [100 * value for value in each if value is not None]:
            found[runs.found[task]] = values
    return [(architecture(text), values) for text, values in found.items()]


def summarize(budget: str, protocol: str, runs: Runs) -> Part:
    """Every row that is there, and every searched one against every other."""
    found = {row: accuracies(row, budget, protocol, runs) for row in ROWS}
    found = {row: networks for row, networks in found.items() if networks}
    samples = {row: sample(networks) for row, networks in found.items()}
    figures = [Figure(f"{budget}, {row}: test accuracy", values, "%") for row, values in samples.items()]
    hand_made = [row for row in found if ROWS[row].kind == "hand-made"]
    best = max(hand_made, key=lambda row: statistics.mean(samples[row]), default=None)
    searched_rows = [row for row in found if ROWS[row].kind == "searched"]
    for row in searched_rows:
        if best is not None:
            noise = max(deviation(samples[row]) or 0, deviation(samples[best]) or 0)
            gain = statistics.mean(samples[row]) - statistics.mean(samples[best])
            what = f"{budget}: {row} over {best}, the best hand-made; at worst the deviation below"
            figures.append(Figure(what, [gain], "points", at_least=-noise))
    pairs = {f"{row} - {other}": (row, other) for row in searched_rows for other in found if other != row}
    return Part(
        figures,
        {
            "budget": BUDGETS[budget].limits(),
            "protocol": {"images": PROTOCOLS[protocol].images, "recipe": PROTOCOLS[protocol].recipe.to_dict()},
            "rows": {row: describe(networks) for row, networks in found.items()},
            "comparisons (Welch's test)": {
                name: compare(samples[row], samples[other]) for name, (row, other) in pairs.items()
            },
        },
    )


def chosen(only: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of row and budget that ``--only`` names."""
    if unknown := set(only) - {*ROWS, "A", "B"}:
        sys.exit(f"--only takes A, B and rows ({'; '.join(ROWS)}); got {unknown}")
    budgets = [each for each in ("A", "B") if each in only] or ["A", "B"]
    rows = [each for each in ROWS if each in only] or list(ROWS)
    return [(row, budget) for budget in budgets for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few images and proposals: shows that it runs")
    parser.add_argument("--data", type=Path, help="folder of training images in CIFAR-10's official layout")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="budgets and rows; default: all")
    parser.add_argument("--protocol", choices=["short", "long"], default="short", help="of training; default: short")
    parser.add_argument("--seeds", type=int, default=SEARCHES, help="searches a row, at most")
    parser.add_argument("--trainings", type=int, default=TRAININGS, help="of each network, at most")
    parser.add_argument("--runs", type=Path, default=RESULTS / "found_vs_hand_cifar10.jsonl", help="file of runs")
    parser.add_argument("--out", type=Path, help="summary, default benchmarks/results/found_vs_hand_cifar10.json")
    parser.add_argument("--summary", action="store_true", help="run nothing, summarize the files of runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    protocol = "quick" if arguments.quick else arguments.protocol
    out = arguments.out or (None if arguments.quick else RESULTS / "found_vs_hand_cifar10.json")
    pairs = chosen(arguments.only)
    runs = Runs(arguments.runs, [] if arguments.quick else [RESULTS / "vcn_bench.jsonl"])
    if not arguments.summary:
        searches, proposals = (1, 200) if arguments.quick else (arguments.seeds, None)
        wanted = list(tasks(pairs, protocol, searches))
        work(wanted, runs, arguments.data, arguments.trainings, proposals)
    figures: list[Figure] = []
    for budget in dict.fromkeys(budget for _, budget in pairs):
        part = summarize(budget, protocol, runs)
        print_rows(budget, part)
        figures += part.figures
        if out is not None:
            merge(out, budget if protocol != "long" else f"{budget}, long", part, {"quick": arguments.quick})
    print()
    print_table(figures)


if __name__ == "__main__":
    main()
