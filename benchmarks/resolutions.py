"""What is it worth to search the input's resolution with the network?

    python benchmarks/resolutions.py --data cifar10-20k                # goes on where it was stopped
    python benchmarks/resolutions.py --only mnist5k digits             # these need no data
    python benchmarks/resolutions.py --summary                         # of whatever is there
    python benchmarks/resolutions.py --quick --only digits --runs /tmp/runs.jsonl

Each problem has one budget, and three kinds of search by the default score: at the images' own resolution, with the
resolution free, and at each of the resolutions alone, which tells whether the score ranks them as training does. Every
search and every training is one line of a file of runs, written as it ends. No search looks at an image, and the test
images choose nothing.
"""

from __future__ import annotations

import statistics
import sys
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
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY

PROXY = DEFAULT_SEARCH_PROXY
SEARCHES = 3
TRAININGS = 2

OWN, FREE = "own", "free"
"""Kinds of search beside those at one resolution, which are called by it."""


@dataclass(frozen=True)
class Problem:
    """Data, a space and a budget.

    Attributes:
        data: Name of the data set; cifar10's path is asked for.
        space: Name of the space.
        input_size: Of the images as they are.
        resolutions: What may be chosen from.
        budget: What a network may cost.
        images: Training images, the first so many; None for all.
        recipe: How networks are trained.
    """

    data: str
    space: str
    input_size: tuple[int, int, int]
    resolutions: tuple[int, ...]
    budget: zs.Budget
    images: int | None
    recipe: zs.Recipe

    @property
    def own(self) -> int:
        """The images' own resolution."""
        return self.input_size[1]

    def make_space(self, arm: str) -> zs.SearchSpace:
        """Where a kind of search looks."""
        options: dict[str, Any] = {}
        if arm != OWN:
            options["resolutions"] = self.resolutions if arm == FREE else (int(arm),)
        return zs.get_space(self.space, input_size=self.input_size, **options)

    @property
    def arms(self) -> list[str]:
        """The kinds of search."""
        return [OWN, FREE, *(str(each) for each in self.resolutions if each != self.own)]


def recipe(epochs: int, **options: Any) -> zs.Recipe:
    """Without a part held out: nothing is chosen by one."""
    return zs.get_recipe("standard", epochs=epochs, validation_fraction=0.0, **options)


PROBLEMS = {
    "cifar10": Problem(
        *("cifar10", "vanilla", (3, 32, 32), (20, 24, 28, 32)),
        *(zs.Budget(params=50e3, flops=2e6), 10_000, recipe(8, flip=True, shift=2)),
    ),
    "mnist5k": Problem(
        *("mnist5k", "vanilla", (1, 28, 28), (14, 20, 24, 28)),
        *(zs.Budget(params=10e3, flops=200e3), None, recipe(16)),
    ),
    "digits": Problem(
        *("digits", "vanilla", (1, 8, 8), (6, 8, 10, 12)),
        *(zs.Budget(params=5e3, flops=50e3), None, recipe(60)),
    ),
}


@dataclass(frozen=True)
class Task:
    """A search."""

    problem: str
    arm: str
    seed: int


def tasks(problems: Sequence[str]) -> Iterator[Task]:
    """The searches, those that are repeated first."""
    for name in problems:
        for arm in PROBLEMS[name].arms:
            for seed in range(SEARCHES if arm in (OWN, FREE) else 1):
                yield Task(name, arm, seed)


class Runs:
    """The file of runs.

    Attributes:
        found: What each search found.
        trained: Fractions of the test images that are classified right, by problem, architecture and training seed.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: dict[Task, dict[str, Any]] = {}
        self.trained: dict[tuple[str, str, int], float] = {}
        for line in read_runs(file):
            self._note(line)

    def add(self, line: dict[str, Any]) -> None:
        append_run(self.file, line)
        self._note(line)

    def accuracies(self, task: Task) -> list[float]:
        """Test accuracies of what a search found, in percent, as far as they are there."""
        text = self.found[task]["architecture"]
        values = [self.trained.get((task.problem, text, seed)) for seed in range(TRAININGS)]
        return [100 * value for value in values if value is not None]

    def _note(self, line: Mapping[str, Any]) -> None:
        if "test_accuracy" in line:
            self.trained[line["problem"], line["architecture"], line["training_seed"]] = line["test_accuracy"]
        else:
            self.found[Task(line["problem"], line["arm"], line["seed"])] = dict(line)


def work(wanted: Sequence[Task], runs: Runs, data: str | None, trainings: int, quick: bool) -> None:
    """Does what is missing: the searches, then every network once, before any a second time."""
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
        if task not in runs.found:
            problem = PROBLEMS[task.problem]
            space = problem.make_space(task.arm)
            start = time.process_time()
            how: dict[str, Any] = {"seed": task.seed, "progress": False, "proposals": 300 if quick else None}
            best = zs.search(space, PROXY, problem.budget, **how).best
            line = {
                **vars(task),
                "architecture": best.string,
                "resolution": best.architecture.input_size[1],
                "score": best.fitness,
                "params": best.costs.params,
                "flops": best.costs.flops,
                "cpu_seconds": round(time.process_time() - start, 1),
            }
            runs.add({**line, **about})
            print(line, file=sys.stderr, flush=True)
    for seed in range(trainings):
        for task in wanted:
            problem, text = PROBLEMS[task.problem], runs.found[task]["architecture"]
            if (task.problem, text, seed) in runs.trained:
                continue
            start = time.process_time()
            network = problem.make_space(task.arm).from_string(text)
            plan = replace(problem.recipe, epochs=1, warmup_epochs=0) if quick else problem.recipe
            trained = zs.train(network, images(task.problem), plan, seed=seed, threads=1, progress=False)
            line = {
                "problem": task.problem,
                "architecture": text,
                "training_seed": seed,
                "test_accuracy": trained.test_accuracy,
                "cpu_seconds": round(time.process_time() - start, 1),
            }
            runs.add({**line, **about})
            said = f"{task.problem} {task.arm} {task.seed} {seed}: {trained.test_accuracy:.2%}"
            print(f"{time.strftime('%H:%M:%S')} {said}, {line['cpu_seconds']} s", file=sys.stderr, flush=True)


def summarize(name: str, runs: Runs) -> Part | None:
    """A problem's searches side by side."""
    problem, kept = PROBLEMS[name], ("architecture", "resolution", "score", "params", "flops", "cpu_seconds")
    rows: dict[str, Any] = {}
    figures: list[Figure] = []
    for arm in problem.arms:
        own = [task for task in tasks([name]) if task.arm == arm and task in runs.found]
        if not own:
            continue
        values = [value for task in own for value in runs.accuracies(task)]
        rows[arm] = {
            "searches": [
                {**{key: runs.found[task][key] for key in kept}, "test_accuracy": runs.accuracies(task)} for task in own
            ],
            "deviation": statistics.stdev(values) if len(values) > 1 else None,
        }
        title = {OWN: f"at {problem.own}", FREE: "resolution free"}.get(arm, f"at {arm}")
        figures.append(Figure(f"{name}, {title}: CERES", [runs.found[task]["score"] for task in own]))
        figures.append(Figure(f"{name}, {title}: resolution", [runs.found[task]["resolution"] for task in own], "px"))
        if values:
            figures.append(Figure(f"{name}, {title}: test accuracy", values, "%"))
    if not rows:
        return None
    about = {
        "budget": problem.budget.limits(),
        "resolutions": list(problem.resolutions),
        "images": problem.images,
        "recipe": problem.recipe.to_dict(),
    }
    return Part(figures, {**about, "searches": rows})


def main() -> None:
    parser = problems_parser(__doc__, "resolutions", PROBLEMS)
    parser.add_argument("--trainings", type=int, default=TRAININGS, help="of each network, at most")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = Runs(arguments.runs)
    if not arguments.summary:
        wanted = [task for task in tasks(arguments.only) if not arguments.quick or task.seed == 0]
        work(wanted, runs, arguments.data, 1 if arguments.quick else arguments.trainings, arguments.quick)
    summarize_problems(arguments, "resolutions", lambda problem: summarize(problem, runs))


if __name__ == "__main__":
    main()
