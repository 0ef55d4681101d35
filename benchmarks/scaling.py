"""What compound scaling is worth: a network of 1M FLOPs made two and four times as large, by several factors.

    python benchmarks/scaling.py --data cifar10-20k           # goes on where it was stopped; about 40 minutes
    python benchmarks/scaling.py --summary                    # of whatever is there
    python benchmarks/scaling.py --data cifar10-20k --quick --runs /tmp/runs.jsonl

The network is the winner of a default search. Beside the scaled ones stand the winner of a search at the larger budget
itself, as many FLOPs, and as many params as any of the scaled ones has, and a ResNet-8 as wide as that. All are trained
by one recipe on 10,000 images of CIFAR-10, resized where a network takes another resolution. Every training is one line
of a file of runs, written as it ends. The images tested on chose nothing here.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, Figure, Part, append_run, circumstances, merge, print_table, read_runs
from found_vs_hand import compare
from vcn_bench import CLASSES, INPUT, MAX_LAYERS, PROTOCOLS, Images, Protocol, train

import zeroshot_nas as zs
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY
from zeroshot_nas.training.base import fit_to

BUDGET = zs.Budget(params=50e3, flops=1e6, layers=MAX_LAYERS)
PHIS = (1, 2)
FACTORS = ("found", "efficientnet", "width", "depth")
SEARCHED, BASE, DRAWN = "search at that budget", "unscaled", "ResNet-8 drawn at that budget"
SEEDS = 3

LENGTHS = {
    "short": Protocol(10_000, replace(PROTOCOLS["short"].recipe, epochs=8)),
    "quick": Protocol(256, replace(PROTOCOLS["short"].recipe, epochs=1)),
}


@dataclass(frozen=True)
class Row:
    """A network that is trained.

    Attributes:
        name: How it was made.
        phi: Doublings of FLOPs.
        architecture: The network.
        factors: Of depth, width and resolution, where it was scaled.
    """

    name: str
    phi: int
    architecture: zs.Architecture
    factors: tuple[float, ...] | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.name, self.phi


def rows(quick: bool) -> list[Row]:
    """The network, those that it is scaled to, and those that a search finds; a function of the code alone."""
    space = zs.get_space("vanilla", input_size=INPUT, num_classes=CLASSES)
    proposals = 500 if quick else None

    def winner(budget: zs.Budget) -> zs.Architecture:
        found = zs.search(space, budget=budget, proposals=proposals, seed=0, progress=False)
        return found.best.architecture

    base = winner(BUDGET)

    def drawn(phi: int, budget: zs.Budget) -> Row:
        return Row(DRAWN, phi, zs.reference("resnet8", budget, INPUT, CLASSES, strides="222"))

    made = [Row(BASE, 0, base), drawn(0, BUDGET)]
    for phi in PHIS[:1] if quick else PHIS:
        scaled = {name: zs.scale(base, phi, name) for name in FACTORS[: 2 if quick else None]}
        made += [Row(name, phi, each.architecture, tuple(each.factors)) for name, each in scaled.items()]
        params = max(each.costs.params for each in scaled.values())
        budget = replace(BUDGET, params=params, flops=2**phi * zs.cost(base).flops)
        made += [Row(SEARCHED, phi, winner(budget)), drawn(phi, budget)]
    return made


class Runs:
    """The file of runs; a network that two rows share is trained once."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.accuracies: dict[tuple[str, int, str], float] = {}
        for line in read_runs(file):
            self._note(line)

    def add(self, line: dict[str, Any]) -> None:
        append_run(self.file, line)
        self._note(line)

    def of(self, row: Row, protocol: str) -> list[float]:
        """Test accuracies in percent, as far as they are there."""
        found = (self.accuracies.get((row.architecture.to_json(), seed, protocol)) for seed in range(SEEDS))
        return [100 * value for value in found if value is not None]

    def _note(self, line: dict[str, Any]) -> None:
        self.accuracies[line["architecture"], line["seed"], line["protocol"]] = line["test_accuracy"]


def work(made: Iterable[Row], runs: Runs, data: Path, protocol: str, seeds: int) -> None:
    """Trains what is missing: every network once before any a second time, those that are asked about first."""
    about = {name: circumstances()[name] for name in ("commit", "versions", "machine")}
    length = LENGTHS[protocol]
    found = zs.load_data(f"cifar10:{data}")
    parts = ("train_images", "train_labels") + (("test_images", "test_labels") if protocol == "quick" else ())
    few = replace(found, **{part: getattr(found, part)[: length.images] for part in parts})

    @cache
    def images(input_size: tuple[int, ...]) -> Images:
        return Images.of(fit_to(few, input_size), length)

    order = sorted(made, key=lambda row: FACTORS.index(row.name) if row.name in FACTORS else -1)
    for seed in range(seeds):
        for row in order:
            text = row.architecture.to_json()
            if (text, seed, protocol) in runs.accuracies:
                continue
            outcome = train(row.architecture, images(tuple(row.architecture.input_size)), length.recipe, seed)
            what = {"row": row.name, "phi": row.phi, "seed": seed, "protocol": protocol, "architecture": text}
            runs.add({**what, **outcome, **about})
            said = f"{row.name} {row.phi} {seed}: {outcome['test_accuracy']:.2%}, {outcome['cpu_seconds']} s"
            print(time.strftime("%H:%M:%S"), said, file=sys.stderr, flush=True)


def summarize(made: Iterable[Row], runs: Runs, protocol: str) -> Part:
    """Accuracies row by row, and every scaled one beside the search's."""
    trained = {row.key: (row, values) for row in made if (values := runs.of(row, protocol))}
    figures, details = [], {}
    for (name, phi), (row, values) in trained.items():
        where = f"{2**phi}x, {name}"
        costs = zs.cost(row.architecture)
        figures.append(Figure(f"{where}: test accuracy", values, "%"))
        details[where] = {
            "score": zs.get_proxy(DEFAULT_SEARCH_PROXY).closed_form(row.architecture),
            "mean": statistics.mean(values),
            "factors": row.factors,
            "input_size": row.architecture.input_size,
            **{cost: getattr(costs, cost) for cost in ("flops", "params", "layers")},
            "blocks": row.architecture.to_string(),
        }
    pairs = {
        f"{2**phi}x: {SEARCHED} - {name}": compare(trained[SEARCHED, phi][1], values)
        for (name, phi), (_, values) in trained.items()
        if name != SEARCHED and (SEARCHED, phi) in trained
    }
    recipe = LENGTHS[protocol].recipe.to_dict()
    return Part(
        figures,
        {
            "budget of the unscaled": BUDGET.limits(),
            "protocol": {"images": LENGTHS[protocol].images, "recipe": recipe},
            "rows": details,
            "comparisons (Welch's test)": pairs,
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images and proposals: shows that it runs")
    parser.add_argument("--data", type=Path, help="folder of training images in CIFAR-10's official layout")
    parser.add_argument("--trainings", type=int, default=SEEDS, help="of each network, at most")
    parser.add_argument("--runs", type=Path, default=RESULTS / "scaling.jsonl", help="file of runs")
    parser.add_argument("--out", type=Path, help="summary, default benchmarks/results/scaling.json")
    parser.add_argument("--summary", action="store_true", help="train nothing, summarize the file of runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    protocol, runs = "quick" if arguments.quick else "short", Runs(arguments.runs)
    made = rows(arguments.quick)
    if not arguments.summary:
        if arguments.data is None:
            parser.error("training needs --data")
        work(made, runs, arguments.data, protocol, 1 if arguments.quick else arguments.trainings)
    part = summarize(made, runs, protocol)
    out = arguments.out or (None if arguments.quick else RESULTS / "scaling.json")
    if out is not None:
        merge(out, "CIFAR-10", part, {"quick": arguments.quick})
    print_table(part.figures)


if __name__ == "__main__":
    main()
