"""Weights of 4 and 8 bits under a limit on flash, searched with the network, against 8 bits of a smaller network.

    python benchmarks/mixed_precision.py --data cifar-10-batches-py     # goes on where it was stopped
    python benchmarks/mixed_precision.py --only mnist5k
    python benchmarks/mixed_precision.py --summary                      # of whatever is there
    python benchmarks/mixed_precision.py --quick --runs /tmp/runs.jsonl

Every search has the same limits on bytes of weights and on FLOPs. What it finds is trained in floating point, then by
the recipe ``qat`` with the bits that it has; accuracies are those of test images that no choice saw. Beside them stands
what rounding the weights alone, before ``qat``, adds to the logits, against what was predicted
(`zeroshot_nas.closed_form.rounding`). ``mlperf_tiny`` is its image classification: ResNet-8, and a search within the
parameters, FLOPs, RAM and flash that ResNet-8 takes. Every search and training is one line of a file of runs, written
as it ends.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from common import (
    Figure,
    Part,
    append_run,
    circumstances,
    problems_parser,
    read_runs,
    summarize_problems,
)

import zeroshot_nas as zs
from zeroshot_nas.closed_form.rounding import rounding_loss
from zeroshot_nas.quantization.int8_network import ranges
from zeroshot_nas.quantization.program import float_program
from zeroshot_nas.quantization.rules import grid
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY
from zeroshot_nas.training.base import as_float
from zeroshot_nas.training.checkpoint import TrainedNetwork, load

SEARCHES, TRAININGS = 3, 1
COSTS = ("params", "flops", "peak_memory", "weights")
CALIBRATION = 256

ARMS: dict[str, tuple[int, ...] | None] = {"reference": None, "8": None, "4 and 8": (4, 8), "4": (4,)}
"""Bits that a search may choose from; None searches as if there were no bits. The reference is drawn by hand."""

RESNET8 = zs.Architecture.from_string(
    "SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,16,1,16,1)SuperResK3K3(16,32,2,32,1)SuperResK3K3(32,64,2,64,1)"
)
"""Of MLPerf Tiny (arXiv:2106.07597)."""


@dataclass(frozen=True)
class Problem:
    """Images, limits and a recipe.

    Attributes:
        data: Name of the data set.
        input_size: Shape of an image.
        budget: Of all searches.
        images: Training images; None takes all.
        recipe: Of the float training.
        reference: A network that is drawn by hand.
        arms: Which of `ARMS` there are.
        searches: How many of each.
    """

    data: str
    input_size: tuple[int, int, int]
    budget: zs.Budget
    images: int | None
    recipe: zs.Recipe
    reference: zs.Architecture | None = None
    arms: tuple[str, ...] = ("8", "4 and 8", "4")
    searches: int = SEARCHES


def all_of(architecture: zs.Architecture) -> zs.Budget:
    """What a network takes."""
    costs = zs.cost(architecture)
    limits = {name: costs[name] for name in ("params", "flops", "peak_memory", "weights")}
    return zs.Budget(**limits)


def recipe(epochs: int, **options: Any) -> zs.Recipe:
    """Without a part held out: nothing is chosen by one."""
    return zs.get_recipe("standard", epochs=epochs, validation_fraction=0.0, **options)


PROBLEMS = {
    "cifar10": Problem(
        "cifar10", (3, 32, 32), zs.Budget(weights="32kB", flops=4e6), 10_000, recipe(8, flip=True, shift=2)
    ),
    "mlperf_tiny": Problem(
        *("cifar10", (3, 32, 32), all_of(RESNET8), 10_000, recipe(8, flip=True, shift=2)),
        reference=RESNET8,
        arms=("reference", "8"),
        searches=1,
    ),
    "mnist5k": Problem("mnist5k", (1, 28, 28), zs.Budget(weights="8kB", flops=500e3), None, recipe(8)),
}


@dataclass(frozen=True)
class Task:
    """A search."""

    problem: str
    arm: str
    seed: int


def tasks(problems: Sequence[str]) -> Iterator[Task]:
    """The searches, all of a seed before any of the next."""
    for name in problems:
        for seed in range(PROBLEMS[name].searches):
            for arm in PROBLEMS[name].arms:
                yield Task(name, arm, seed)


class Runs:
    """The file of runs.

    Attributes:
        found: What each search found.
        trained: What training came to, by search and training seed.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: dict[Task, dict[str, Any]] = {}
        self.trained: dict[tuple[Task, int], dict[str, Any]] = {}
        for line in read_runs(file):
            self._note(line)

    def add(self, line: dict[str, Any]) -> None:
        append_run(self.file, line)
        self._note(line)

    def of(self, task: Task) -> list[dict[str, Any]]:
        """Trainings of what a search found, as far as they are there."""
        return [self.trained[task, seed] for seed in range(TRAININGS) if (task, seed) in self.trained]

    def _note(self, line: Mapping[str, Any]) -> None:
        task = Task(line["problem"], line["arm"], line["seed"])
        if "training_seed" in line:
            self.trained[task, line["training_seed"]] = dict(line)
        else:
            self.found[task] = dict(line)


def work(wanted: Sequence[Task], runs: Runs, data: str | None, quick: bool) -> None:
    """Does what is missing."""
    about = {name: circumstances()[name] for name in ("commit", "versions", "machine")}

    @cache
    def images(name: str) -> zs.ImageData:
        problem = PROBLEMS[name]
        if problem.data == "cifar10" and data is None:
            sys.exit("cifar10 needs --data, a folder in its official layout")
        found = zs.load_data(f"cifar10:{data}" if problem.data == "cifar10" else problem.data)
        first = 500 if quick else problem.images
        return replace(found, train_images=found.train_images[:first], train_labels=found.train_labels[:first])

    for task in wanted:
        problem = PROBLEMS[task.problem]
        if task not in runs.found:
            start = time.process_time()
            how: dict[str, Any] = {"seed": task.seed, "progress": False, "proposals": 300 if quick else None}
            size = {"input_size": problem.input_size}
            if task.arm == "reference":
                assert problem.reference is not None, "the problem has that arm"
                best = problem.reference
            else:
                found = zs.search("vanilla", budget=problem.budget, bits=ARMS[task.arm], **size, **how)
                best = found.best.architecture
            costs = zs.cost(best)
            line = {
                **vars(task),
                "architecture": best.to_dict(),
                "string": best.to_string(),
                "score": zs.score(best, DEFAULT_SEARCH_PROXY).value,
                **{name: costs[name] for name in COSTS},
                "cpu_seconds": round(time.process_time() - start, 1),
            }
            runs.add({**line, **about})
            print(line, file=sys.stderr, flush=True)
    for seed in range(TRAININGS):
        for task in wanted:
            if (task, seed) not in runs.trained:
                architecture = zs.Architecture.from_dict(runs.found[task]["architecture"])
                line = train(architecture, PROBLEMS[task.problem], images(task.problem), seed, quick)
                runs.add({**vars(task), "training_seed": seed, **line, **about})
                said = f"{task}: float {line['float_accuracy']:.2%}, rounded {line['rounded_accuracy']:.2%}"
                print(f"{time.strftime('%H:%M:%S')} {said}, {line['cpu_seconds']} s", file=sys.stderr, flush=True)


def train(
    architecture: zs.Architecture, problem: Problem, images: zs.ImageData, seed: int, quick: bool
) -> dict[str, Any]:
    """Accuracies in floating point and rounded, and the noise of rounding beside what is predicted."""
    start = time.process_time()
    plan = replace(problem.recipe, epochs=1, warmup_epochs=0) if quick else problem.recipe
    with tempfile.TemporaryDirectory() as folder:
        first = zs.train(architecture, images, plan, seed=seed, threads=1, progress=False, out=f"{folder}/float")
        network = load(f"{folder}/float")
        rounded = zs.quantize_aware(f"{folder}/float", images, seed=seed, threads=1, progress=False)
    return {
        "float_accuracy": first.test_accuracy,
        "rounded_accuracy": rounded.test_accuracy,
        "noise": noise(network, images),
        "predicted_noise": math.expm1(rounding_loss(architecture)),
        "cpu_seconds": round(time.process_time() - start, 1),
    }


@torch.no_grad()
def noise(network: TrainedNetwork, images: zs.ImageData) -> float:
    """Relative power that rounding the weights alone adds to the logits of test images, less what all have in common.

    A constant for all images is no noise: training takes it out by biases.
    """
    calibration, tested = as_float(images.train_images[:CALIBRATION]), as_float(images.test_images)
    program = float_program(network)
    rounded, _ = grid(program.operators, *ranges(network, calibration)).rounded_program(program)
    *_, exact = program.run(tested)
    *_, noisy = rounded.run(tested)
    added, exact = (noisy - exact).flatten(1), exact.flatten(1)
    return float((added - added.mean(0)).square().mean() / (exact - exact.mean(0)).square().mean())


def summarize(name: str, runs: Runs) -> Part | None:
    """A problem's searches side by side."""
    kept = ("string", "score", *COSTS, "cpu_seconds")
    rows: dict[str, Any] = {}
    figures: list[Figure] = []
    for arm in PROBLEMS[name].arms:
        own = [task for task in tasks([name]) if task.arm == arm and task in runs.found]
        trained = [line for task in own for line in runs.of(task)]
        if not trained:
            continue
        measured = ("float_accuracy", "rounded_accuracy", "noise", "predicted_noise")
        rows[arm] = [
            {
                **{key: runs.found[task].get(key) for key in kept},
                "weight_bits": runs.found[task]["architecture"].get("weight_bits"),
                "trainings": [{key: line[key] for key in measured} for line in runs.of(task)],
            }
            for task in own
        ]
        title = f"{name}, {arm} bits"
        figures.append(Figure(f"{title}: parameters", [runs.found[task]["params"] for task in own]))
        for kind in ("float", "rounded"):
            accuracies = [100 * line[f"{kind}_accuracy"] for line in trained]
            figures.append(Figure(f"{title}: test accuracy, {kind}", accuracies, "%"))
        if ARMS[arm] is not None:
            ratios = [line["noise"] / line["predicted_noise"] for line in trained]
            figures.append(Figure(f"{title}: noise of the logits over what was predicted", ratios))
    if not rows:
        return None
    problem = PROBLEMS[name]
    means = {
        arm: statistics.mean(100 * each["rounded_accuracy"] for row in found for each in row["trainings"])
        for arm, found in rows.items()
        if any(row["trainings"] for row in found)
    }
    about = {"budget": problem.budget.limits(), "images": problem.images, "recipe": problem.recipe.to_dict()}
    return Part(figures, {**about, "mean rounded accuracy": means, "searches": rows})


def main() -> None:
    parser = problems_parser(__doc__, "mixed_precision", PROBLEMS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = Runs(arguments.runs)
    if not arguments.summary:
        wanted = [task for task in tasks(arguments.only) if not arguments.quick or task.seed == 0]
        work(wanted, runs, arguments.data, arguments.quick)
    summarize_problems(arguments, "mixed_precision", lambda problem: summarize(problem, runs))


if __name__ == "__main__":
    main()
