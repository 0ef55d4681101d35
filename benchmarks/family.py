"""Families: what a list of budgets costs beside one search, what nesting costs, and what inherited weights save.

    python benchmarks/family.py --only search nesting           # minutes; no data
    python benchmarks/family.py --only digits mnist5k           # trainings, goes on where it was stopped
    python benchmarks/family.py --only cifar10 --data cifar10-20k
    python benchmarks/family.py --summary                       # of whatever is there
    python benchmarks/family.py --quick --runs /tmp/runs.jsonl --weights /tmp/weights

Three nested members within a budget, its half and its quarter are trained from scratch, and in both ways of
`zs.train_family`: sliced from the larger one, grown from the smaller one. Inheriting members get a half and a quarter
of the epochs; so do, as a control, members from scratch. Every training is one line of a file of runs, with its CPU
time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, Figure, Part, append_run, circumstances, cpu_seconds_of, merge, print_table, read_runs

import zeroshot_nas as zs
from zeroshot_nas.families.training import begun_with, tuning_recipe
from zeroshot_nas.training.base import ImageData

SEEDS = 3

SHARES = (0.5, 0.25)
"""Of the epochs, for members that inherit, and for the control."""

MEMBERS = ("1", "1/2", "1/4")


@dataclass(frozen=True)
class Task:
    """What is trained on, by what.

    Attributes:
        load: Reads the images, given the folder of ``--data``.
        budget: Of the largest member; the others have its half and its quarter.
        recipe: From scratch. The last epoch counts, so that nothing is chosen by the images that are tested on.
        members: Nested, within the budget, its half and quarter; found in ``vanilla`` of basic blocks, 30,000 proposals
            each.
    """

    load: Callable[[Path | None], ImageData]
    budget: zs.Budget
    recipe: zs.Recipe
    members: tuple[str, str, str]


def cifar10(folder: Path | None) -> ImageData:
    """The first 5,000 training images, and 5,000 to test on."""
    if folder is None:
        sys.exit("cifar10 needs --data, a folder of training images in CIFAR-10's official layout")
    found = zs.load_data(f"cifar10:{folder}")
    parts = ("train_images", "train_labels", "test_images", "test_labels")
    return replace(found, **{part: getattr(found, part)[:5_000] for part in parts})


PLAIN = zs.Recipe(validation_fraction=0.0, precision="float32", batch_size=128, learning_rate_per_256=0.4)

TASKS = {
    "digits": Task(
        lambda _: zs.load_data("digits"),
        zs.Budget(params=40e3, flops=0.6e6),
        replace(PLAIN, epochs=20),
        (
            "SuperConvK5BNRELU(1,9,1,1)SuperResK3K3(9,10,1,8,2)SuperResK3K3(10,10,1,8,1)"
            "SuperResK3K3(10,13,1,8,1)SuperResK3K3(13,13,2,33,1)SuperResK3K3(13,8,1,17,1)",
            "SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,7,1,5,1)SuperResK3K3(7,9,1,6,1)"
            "SuperResK3K3(9,13,1,5,1)SuperResK3K3(13,13,2,23,1)SuperResK3K3(13,8,1,9,1)",
            "SuperConvK3BNRELU(1,6,1,1)SuperResK3K3(6,5,1,4,1)SuperResK3K3(5,6,1,4,1)"
            "SuperResK3K3(6,11,1,3,1)SuperResK3K3(11,8,2,16,1)SuperResK3K3(8,3,1,8,1)",
        ),
    ),
    "mnist5k": Task(
        lambda _: zs.load_data("mnist5k"),
        zs.Budget(params=40e3, flops=1.2e6),
        replace(PLAIN, epochs=8),
        (
            "SuperConvK5BNRELU(1,8,2,1)SuperResK3K3(8,8,1,8,2)SuperResK3K3(8,16,2,16,1)"
            "SuperResK3K3(16,25,2,20,1)SuperResK3K3(25,19,1,20,1)SuperResK3K3(19,24,1,22,1)SuperResK3K3(24,20,1,16,1)",
            "SuperConvK5BNRELU(1,6,2,1)SuperResK3K3(6,6,1,5,2)SuperResK3K3(6,13,2,14,1)"
            "SuperResK3K3(13,16,2,11,1)SuperResK3K3(16,19,1,11,1)SuperResK3K3(19,20,1,12,1)SuperResK3K3(20,8,1,11,1)",
            "SuperConvK5BNRELU(1,6,2,1)SuperResK3K3(6,6,1,4,1)SuperResK3K3(6,7,2,9,1)"
            "SuperResK3K3(7,13,2,11,1)SuperResK3K3(13,14,1,9,1)SuperResK3K3(14,10,1,10,1)SuperResK3K3(10,4,1,8,1)",
        ),
    ),
    "cifar10": Task(
        cifar10,
        zs.Budget(params=60e3, flops=2.4e6),
        replace(PLAIN, epochs=12, shift=2, flip=True),
        (
            "SuperConvK5BNRELU(3,12,2,1)SuperResK3K3(12,13,1,7,1)SuperResK3K3(13,16,2,13,2)"
            "SuperResK3K3(16,16,1,16,1)SuperResK3K3(16,30,1,16,1)SuperResK3K3(30,33,2,40,1)SuperResK3K3(33,19,1,12,1)",
            "SuperConvK3BNRELU(3,8,2,1)SuperResK3K3(8,10,1,6,1)SuperResK3K3(10,16,2,9,1)"
            "SuperResK3K3(16,16,1,11,1)SuperResK3K3(16,21,1,9,1)SuperResK3K3(21,19,2,40,1)SuperResK3K3(19,13,1,12,1)",
            "SuperConvK3BNRELU(3,6,2,1)SuperResK3K3(6,6,1,4,1)SuperResK3K3(6,11,2,6,1)"
            "SuperResK3K3(11,11,1,7,1)SuperResK3K3(11,15,1,8,1)SuperResK3K3(15,13,2,28,1)SuperResK3K3(13,5,1,12,1)",
        ),
    ),
}

WAYS = ("scratch", "slice", "grow", "slice and distill")


@dataclass(frozen=True)
class Training:
    """One training of one member.

    Attributes:
        data: Name of the task.
        seed: Its seed.
        way: Where its first weights are from.
        share: Of the epochs.
        member: Its place, the largest first.
    """

    data: str
    seed: int
    way: str
    share: float
    member: int

    @property
    def parent(self) -> Training | None:
        """The training that it inherits from."""
        if self.way == "scratch":
            return None
        place = self.member + (1 if self.way == "grow" else -1)
        begins = place == (len(MEMBERS) - 1 if self.way == "grow" else 0)
        return replace(self, way="scratch", share=1.0, member=place) if begins else replace(self, member=place)

    @property
    def key(self) -> str:
        return json.dumps(vars(self))


def trainings(data: str, seed: int) -> Iterator[Training]:
    """All of a seed: from scratch first, since the others begin there."""
    for share in (1.0, *SHARES):
        for member in range(len(MEMBERS)):
            yield Training(data, seed, "scratch", share, member)
    for share in SHARES:
        for way in WAYS[1:]:
            members = range(1, len(MEMBERS)) if way != "grow" else range(len(MEMBERS) - 2, -1, -1)
            for member in members:
                yield Training(data, seed, way, share, member)


class Work:
    """Trainings on their way: a file of runs, and the weights that others begin with."""

    def __init__(self, runs: Path, weights: Path, folder: Path | None, quick: bool) -> None:
        self.runs, self.weights, self.folder, self.quick = runs, weights, folder, quick
        self.done = {line["key"]: line for line in read_runs(runs)}

    @cache  # noqa: B019  # one object a process
    def images(self, data: str) -> ImageData:
        found = TASKS[data].load(self.folder)
        if not self.quick:
            return found
        parts = ("train_images", "train_labels", "test_images", "test_labels")
        return replace(found, **{part: getattr(found, part)[:200] for part in parts})

    def network(self, training: Training) -> zs.Network:
        """A trained member; trained where that was not done here."""
        way = training.way.replace(" ", "_")
        folder = self.weights / f"{training.data}-{training.seed}-{way}-{training.share:g}-{training.member}"
        if training.key in self.done and (folder / "best.safetensors").exists():
            return zs.load(folder)
        shutil.rmtree(folder, ignore_errors=True)
        task = TASKS[training.data]
        images = self.images(training.data)
        architecture = zs.Architecture.from_string(task.members[training.member], images.image_shape)
        recipe = replace(task.recipe, epochs=2) if self.quick else task.recipe
        model: Any = architecture
        teacher = None
        if training.parent is not None:
            model = begun_with(self.network(training.parent), architecture, seed=training.seed)
        recipe = tuning_recipe(recipe, training.share)
        if training.way == "slice and distill":
            teacher = self.network(Training(training.data, training.seed, "scratch", 1.0, 0))
            recipe = replace(recipe, distill_features=0.0)
        start = time.process_time()
        result = zs.train(
            model, images, recipe, teacher=teacher, seed=training.seed, threads=1, out=folder, progress=False
        )
        line = {
            "key": training.key,
            **vars(training),
            "architecture": architecture.to_string(),
            "test_accuracy": result.test_accuracy,
            "epochs": recipe.epochs,
            "cpu_seconds": round(time.process_time() - start, 2),
            **{name: circumstances()[name] for name in ("commit", "versions", "machine")},
        }
        if training.key not in self.done:
            append_run(self.runs, line)
            self.done[training.key] = line
        what = f"{training.data} {training.seed} {training.way} {training.share:g} {MEMBERS[training.member]}"
        said = f"{what}: {result.test_accuracy:.2%}, {line['cpu_seconds']} s"
        print(f"{time.strftime('%H:%M:%S')} {said}", file=sys.stderr, flush=True)
        return zs.load(folder)


def summarize(data: str, done: Mapping[str, Mapping[str, Any]]) -> Part:
    """Accuracy and cost of each way and share, member by member, over the seeds of which all trainings are there."""
    seeds = [seed for seed in range(SEEDS) if all(each.key in done for each in trainings(data, seed))]
    rows: dict[str, Any] = {}
    best: dict[str, float] = {}
    for way in WAYS if seeds else ():
        inheriting = [0, 1] if way == "grow" else [1, 2]
        for share in (1.0, *SHARES) if way == "scratch" else SHARES:
            members = range(len(MEMBERS)) if way == "scratch" else inheriting
            lines = [[done[Training(data, seed, way, share, member).key] for seed in seeds] for member in members]
            rows[f"{way}, {share:g} of the epochs"] = {
                MEMBERS[member]: {
                    "test_accuracy_percent": [100 * line["test_accuracy"] for line in each],
                    "cpu_seconds": [line["cpu_seconds"] for line in each],
                    "epochs": each[0]["epochs"],
                }
                for member, each in zip(members, lines, strict=True)
            }
        best[way] = cost_of(data, way, inheriting, seeds, done) if way != "scratch" else 1.0
    figures = [
        Figure(f"{data}: CPU time of members that inherit over from scratch, {way}", [best[way]], "", at_most=0.5)
        for way in WAYS[1:]
        if way in best
    ]
    return Part(
        figures,
        {"seeds": len(seeds), "members": TASKS[data].members, "recipe": TASKS[data].recipe.to_dict(), "rows": rows},
    )


def cost_of(
    data: str, way: str, members: Sequence[int], seeds: Sequence[int], done: Mapping[str, Mapping[str, Any]]
) -> float:
    """CPU time of the inheriting members over that from scratch, each with the fewest epochs whose mean accuracy is
    that of all epochs from scratch or more; all epochs from scratch on top where no share reaches it.
    """
    spent = full = 0.0
    for member in members:
        scratch = [done[Training(data, seed, "scratch", 1.0, member).key] for seed in seeds]
        wanted = statistics.fmean(line["test_accuracy"] for line in scratch)
        cost = statistics.fmean(line["cpu_seconds"] for line in scratch)
        full += cost
        reached = [
            statistics.fmean(line["cpu_seconds"] for line in lines)
            for lines in ([done[Training(data, seed, way, share, member).key] for seed in seeds] for share in SHARES)
            if statistics.fmean(line["test_accuracy"] for line in lines) >= wanted
        ]
        spent += min(reached, default=cost)
    return spent / full


def search(quick: bool) -> Part:
    """Ten budgets in one run, beside searches of as many proposals for the smallest, a middle and the largest one."""
    proposals, count = (2_000, 3) if quick else (100_000, 10)
    limits = [50e3 * 1.7**place for place in range(count)]
    budgets = [zs.Budget(params=limit, flops=80 * limit, layers=20) for limit in limits]
    beside = (0, count // 2, count - 1)
    how: dict[str, Any] = {"proposals": proposals, "seed": 0, "progress": False}
    figures, details = [], {}
    for space in ("resnet", "vanilla"):
        alone: list[Any] = []
        seconds = [
            cpu_seconds_of(lambda place=place: alone.append(zs.search(space, "ceres", budgets[place], **how)))  # noqa: B023
            for place in beside
        ]
        found: list[Any] = []
        spent = cpu_seconds_of(lambda: found.append(zs.family(space, "ceres", budgets, **how)))  # noqa: B023
        scores = [each.score for each in reversed(found[0].members)]
        losses = [100 * (1 - scores[place] / each.best.fitness) for place, each in zip(beside, alone, strict=True)]
        details[space] = {
            "family": {"cpu_seconds": spent, "scores": scores},
            "searches": {"cpu_seconds": seconds, "scores": [each.best.fitness for each in alone]},
        }
        ratio = spent / statistics.median(seconds)
        figures += [
            Figure(f"{space}: time of {count} budgets over that of one search", [ratio], "", at_most=2.0),
            Figure(f"{space}: score of a member below that of a search of its own", losses, "%", at_most=1.0),
        ]
    return Part(figures, {"proposals": proposals, "budgets": [each.limits() for each in budgets], **details})


def nesting(quick: bool) -> Part:
    """What nesting costs in score, of three budgets a half apart and of four a quarter apart."""
    proposals = 1_000 if quick else 10_000
    figures, details = [], {}
    for space in ("resnet", "mobilenet", "vanilla"):
        for what, limits in (("halves", (400e3, 200e3, 100e3)), ("quarters", (2560e3, 640e3, 160e3, 40e3))):
            costs = []
            for seed in range(1 if quick else SEEDS):
                found = zs.family(
                    space,
                    "ceres",
                    [zs.Budget(params=limit, flops=80 * limit) for limit in limits],
                    nested=True,
                    proposals=proposals,
                    seed=seed,
                    progress=False,
                )
                costs += [100 * cost for cost in found.nesting_costs().values()][1:]
                details[f"{space}, {what}, seed {seed}"] = found.nesting_costs()
            figures.append(Figure(f"{space}, {what}: what nesting costs in score", costs, "%", at_most=2.0))
    return Part(figures, {"proposals": proposals, **details})


def main() -> None:
    parts = ("search", "nesting", *TASKS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few images and proposals: shows that it runs")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), metavar="PART", help=", ".join(parts))
    parser.add_argument("--data", type=Path, help="folder of training images in CIFAR-10's official layout")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of the trainings, at most")
    parser.add_argument("--runs", type=Path, default=RESULTS / "family.jsonl", help="file of runs")
    parser.add_argument("--weights", type=Path, default=Path("runs/family-benchmark"), help="folder for weights")
    parser.add_argument("--out", type=Path, help="JSON file, default benchmarks/results/family.json")
    parser.add_argument("--summary", action="store_true", help="run nothing, summarize the file of runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    out = arguments.out or (None if arguments.quick else RESULTS / "family.json")
    work = Work(arguments.runs, arguments.weights, arguments.data, arguments.quick)
    figures: list[Figure] = []
    for part in arguments.only:
        if part in TASKS:
            if arguments.quick and part == "cifar10" and arguments.data is None:
                continue
            for seed in () if arguments.summary else range(1 if arguments.quick else arguments.seeds):
                for training in trainings(part, seed):
                    if training.key not in work.done:
                        work.network(training)
            outcome = summarize(part, work.done)
        elif arguments.summary:
            continue
        else:
            outcome = {"search": search, "nesting": nesting}[part](arguments.quick)
        figures += outcome.figures
        if out is not None:
            merge(out, part, outcome, {"quick": arguments.quick})
    print_table(figures)


if __name__ == "__main__":
    main()
