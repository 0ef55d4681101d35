"""Is a found network better than a hand-made one, on few photographs of 64 to 128 pixels? At equal params and FLOPs.

    python benchmarks/found_vs_hand_photos.py --data photos/                        # goes on where it was stopped
    python benchmarks/found_vs_hand_photos.py --data photos/ --only signdigits --rows default resnet8-222
    python benchmarks/found_vs_hand_photos.py --summary                             # of whatever is there
    python benchmarks/found_vs_hand_photos.py --data photos/ --quick --runs /tmp/runs.jsonl

``photos/`` holds a folder for each problem, with a folder of images for each class: ``signdigits``, hands that sign
digits (ardamavi/Sign-Language-Digits-Dataset, resized to 64 x 64), and ``trashnet``, rubbish (garythung/trashnet,
128 high and 96 wide). A fifth of each class is held out for the test, the same for all, and chooses nothing. Pupils of
``signdigits`` are not marked, so that one pupil's hands are on both sides.

The hand-made networks are those that trials set beside a search's, each as wide as the budget allows. One recipe for
all. Every search and every training is one line of a file of runs, written as it ends.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from common import Figure, Part, append_run, circumstances, problems_parser, read_runs, summarize_problems
from found_vs_hand import compare, describe, print_rows, sample

import zeroshot_nas as zs
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY
from zeroshot_nas.searching.hand_made import hand_made

SEARCHES, TRAININGS = 5, 3
SEARCHED = "default"
"""The row of default searches; every other is a hand-made network's name."""


@dataclass(frozen=True)
class Problem:
    """Photographs and a budget.

    Attributes:
        size: Shape ``(C, H, W)`` that images are read in.
        classes: How many.
        budget: What a network may cost; searched ones have 20 layers at most besides.
        recipe: Without a part held out: the last epoch counts.
    """

    size: tuple[int, int, int]
    classes: int
    budget: zs.Budget
    recipe: zs.Recipe

    def by_hand(self) -> dict[str, zs.Architecture]:
        """The hand-made networks by name."""
        return dict(hand_made(self.budget, self.size, self.classes, zs.cost))

    def search(self, seed: int, proposals: int | None) -> zs.Architecture:
        """The winner of a default search."""
        how: dict[str, Any] = {"input_size": self.size, "num_classes": self.classes, "proposals": proposals}
        budget = replace(self.budget, layers=20)
        found = zs.search(proxy=DEFAULT_SEARCH_PROXY, budget=budget, seed=seed, progress=False, **how)
        return found.best.architecture


RECIPE = zs.get_recipe("photos", epochs=40, batch_size=64, validation_fraction=0.0)
PROBLEMS = {
    "signdigits": Problem((3, 64, 64), 10, zs.Budget(params=2_500, flops=500e3), replace(RECIPE, flip=False)),
    "trashnet": Problem((3, 128, 96), 6, zs.Budget(params=100e3, flops=8e6), RECIPE),
}
"""A mirrored hand is another hand, a mirrored bottle is a bottle. The first budget is so small since ResNet-8s of 5,000
and 10,000 parameters have 99 % of the test images right, and two winners within 100,000 all of them."""


@dataclass(frozen=True)
class Task:
    """A search, or the making of a hand-made network; with a training seed the training of what came of it."""

    problem: str
    row: str
    seed: int
    training_seed: int | None = None


class Runs:
    """The file of runs.

    Attributes:
        made: Architectures.
        trained: Fractions of the test images that are classified right.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.made: dict[Task, zs.Architecture] = {}
        self.trained: dict[Task, float] = {}
        for line in read_runs(file):
            self._note(line)

    def add(self, line: dict[str, Any]) -> None:
        append_run(self.file, line)
        self._note(line)

    def rows(self, problem: str) -> dict[str, list[tuple[zs.Architecture, list[float]]]]:
        """Every network that was trained with its test accuracies, in percent, by row."""
        found: dict[str, list[tuple[zs.Architecture, list[float]]]] = {}
        for made, network in self.made.items():
            of = [task for task in self.trained if replace(task, training_seed=None) == made]
            if made.problem == problem and of:
                found.setdefault(made.row, []).append((network, [100 * self.trained[task] for task in of]))
        return found

    def _note(self, line: Mapping[str, Any]) -> None:
        task = Task(line["problem"], line["row"], line["seed"], line.get("training_seed"))
        if "test_accuracy" in line:
            self.trained[task] = line["test_accuracy"]
        else:
            self.made[task] = zs.Architecture.from_dict(line["architecture"])


def tasks(problems: Sequence[str], rows: Sequence[str], searches: int) -> list[Task]:
    """The searches and the hand-made networks."""
    wanted = []
    for name in problems:
        known = [SEARCHED, *PROBLEMS[name].by_hand()]
        if unknown := set(rows) - set(known):
            sys.exit(f"--rows takes {', '.join(known)}; got {', '.join(sorted(unknown))}")
        for row in (each for each in known if not rows or each in rows):
            wanted += [Task(name, row, seed) for seed in range(searches if row == SEARCHED else 1)]
    return wanted


def work(wanted: Sequence[Task], runs: Runs, data: str, trainings: int, quick: bool) -> None:
    """Does what is missing: the searches, then every network once, before any a second time."""
    about = {name: circumstances()[name] for name in ("commit", "versions", "machine")}

    @cache
    def images(name: str) -> zs.ImageData:
        found = zs.load_data(f"folder:{Path(data, name)}", PROBLEMS[name].size)
        keep = slice(None, None, max(1, len(found.train_labels) // 40) if quick else 1)
        return replace(found, train_images=found.train_images[keep], train_labels=found.train_labels[keep])

    for task in wanted:
        if task not in runs.made:
            problem, start = PROBLEMS[task.problem], time.process_time()
            searched = task.row == SEARCHED
            network = problem.search(task.seed, 200 if quick else None) if searched else problem.by_hand()[task.row]
            line = {"problem": task.problem, "row": task.row, "seed": task.seed, "architecture": network.to_dict()}
            runs.add({**line, "cpu_seconds": round(time.process_time() - start, 1), **about})
    for seed in range(trainings):
        for task in (replace(each, training_seed=seed) for each in wanted):
            if task in runs.trained:
                continue
            problem, start = PROBLEMS[task.problem], time.process_time()
            network = runs.made[replace(task, training_seed=None)]
            recipe = replace(problem.recipe, epochs=1, warmup_epochs=0) if quick else problem.recipe
            trained = zs.train(network, images(task.problem), recipe, seed=seed, threads=1, progress=False)
            seconds = round(time.process_time() - start, 1)
            runs.add({**vars(task), "test_accuracy": trained.test_accuracy, "cpu_seconds": seconds, **about})
            said = f"{task.problem} {task.row} {task.seed} {seed}: {trained.test_accuracy:.2%}, {seconds} s"
            print(f"{time.strftime('%H:%M:%S')} {said}", file=sys.stderr, flush=True)


def summarize(name: str, runs: Runs) -> Part | None:
    """Every row of a problem, the searched one against every other."""
    found, problem = runs.rows(name), PROBLEMS[name]
    if not found:
        return None
    samples = {row: sample(networks) for row, networks in found.items()}
    figures = [Figure(f"{name}, {row}: test accuracy", values, "%") for row, values in samples.items()]
    others = [row for row in found if row != SEARCHED]
    if SEARCHED in found and others:
        best = max(others, key=lambda row: statistics.mean(samples[row]))
        gain = statistics.mean(samples[SEARCHED]) - statistics.mean(samples[best])
        figures.append(Figure(f"{name}: {SEARCHED} over {best}, the best hand-made", [gain], "points"))
    part = Part(
        figures,
        {
            "budget": problem.budget.limits(),
            "input_size": list(problem.size),
            "recipe": problem.recipe.to_dict(),
            "rows": {row: describe(networks) for row, networks in found.items()},
            "comparisons (Welch's test)": {
                f"{SEARCHED} - {row}": compare(samples[SEARCHED], samples[row]) for row in others if SEARCHED in found
            },
        },
    )
    print_rows(name, part)
    return part


def main() -> None:
    parser = problems_parser(__doc__, "found_vs_hand_photos", PROBLEMS, "folder with a folder for each problem")
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help=f"{SEARCHED} and hand-made networks")
    parser.add_argument("--seeds", type=int, default=SEARCHES, help="searches, at most")
    parser.add_argument("--trainings", type=int, default=TRAININGS, help="of each network, at most")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = Runs(arguments.runs)
    if not arguments.summary:
        if arguments.data is None:
            sys.exit("training needs a folder of images, see --help")
        searches, trainings = (1, 1) if arguments.quick else (arguments.seeds, arguments.trainings)
        wanted = tasks(arguments.only, arguments.rows, searches)
        work(wanted, runs, arguments.data, trainings, arguments.quick)
    summarize_problems(arguments, "found_vs_hand_photos", lambda problem: summarize(problem, runs))


if __name__ == "__main__":
    main()
