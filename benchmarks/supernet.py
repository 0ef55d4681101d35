"""Is a trained supernet a better estimator than a score that trains nothing, and what does it cost?

    python benchmarks/supernet.py --data cifar10-20k --supernet runs/supernet   # goes on where it was stopped
    python benchmarks/supernet.py --supernet runs/supernet                      # the table of whatever is trained
    python benchmarks/supernet.py --data cifar10-20k --quick --supernet /tmp/supernet --runs /tmp/runs.jsonl

One supernet of basic residual blocks, whose largest network holds as many of VCN-Bench's trained networks of budget A
as one supernet can: six of the 65 that were trained then, since these differ in kinds of block and in strides. Its
networks are drawn evenly from those within the budget. It orders two populations, of which it saw no accuracy and no
test image:

    band      its own networks of 1.8 to 2.2 million FLOPs, drawn evenly, trained from scratch by a short protocol
    vcn       VCN-Bench's networks that it holds, trained by the benchmark's protocol

Every training from scratch is one line of the file of runs, written as it ends; the supernet goes on by its folder.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, Figure, Part, append_run, circumstances, merge, print_table, read_runs
from vcn_bench import BUDGETS, PROTOCOLS, Images, Protocol, architecture, train

import zeroshot_nas as zs
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.network.slicing import slices
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY
from zeroshot_nas.training.elastic import Elastic

LARGEST = architecture(
    "SuperConvK5BNRELU(3,20,1,1)SuperResK5K5(20,20,2,20,3)SuperResK5K5(20,40,2,40,3)SuperResK5K5(40,72,2,72,3)"
)
ELASTIC = {"width_step": 1, "least_width": 0.25, "budget": BUDGETS["A"]}
BAND = 1.8e6, 2.2e6
NETWORKS = 24

RECIPE = replace(PROTOCOLS["short"].recipe, epochs=5, validation_fraction=0.1)
SCRATCH = {
    "short": Protocol(10_000, replace(PROTOCOLS["short"].recipe, epochs=4)),
    "quick": PROTOCOLS["quick"],
}

PROXIES = (DEFAULT_SEARCH_PROXY, "ceres", "cet", "zen")
VCN_RUNS = RESULTS / "vcn_bench.jsonl"


def band(count: int) -> Iterator[str]:
    """Networks of the supernet, drawn evenly from those within the band."""
    elastic, rng = Elastic(LARGEST, **ELASTIC), python_rng(0, 1)
    while count:
        drawn = elastic.sample(rng)
        if BAND[0] <= zs.cost(drawn).flops <= BAND[1]:
            count -= 1
            yield drawn.to_string()


def held(text: str) -> bool:
    """Whether the supernet has a network."""
    try:
        slices(LARGEST, architecture(text))
    except ArchitectureError:
        return False
    return True


def vcn() -> dict[str, float]:
    """VCN-Bench's networks that the supernet holds, with the mean of their test accuracies in percent."""
    found: dict[str, list[float]] = {}
    for line in read_runs(VCN_RUNS):
        if (line["budget"], line["protocol"]) == ("A", "short") and held(line["architecture"]):
            found.setdefault(line["architecture"], []).append(100 * line["test_accuracy"])
    return {text: sum(values) / len(values) for text, values in found.items()}


class Runs:
    """The file of runs: trainings from scratch, and the CPU time of every epoch of the supernet."""

    def __init__(self, file: Path, protocol: str) -> None:
        self.file, self.protocol = file, protocol
        self.lines = [line for line in read_runs(file) if line["protocol"] == protocol]

    def add(self, what: str, **values: Any) -> None:
        about = {name: circumstances()[name] for name in ("commit", "versions", "machine")}
        line = {"what": what, "protocol": self.protocol, **values, **about}
        self.lines.append(line)
        append_run(self.file, line)

    def scratch(self) -> dict[str, dict[str, Any]]:
        return {line["architecture"]: line for line in self.lines if line["what"] == "scratch"}

    def supernet_seconds(self) -> float:
        """CPU seconds of the supernet's epochs, those of a run that was killed once."""
        epochs = {line["epoch"]: line["cpu_seconds"] for line in self.lines if line["what"] == "supernet epoch"}
        return sum(epochs.values())


def train_supernet(data: zs.ImageData, folder: Path, runs: Runs, recipe: zs.Recipe) -> None:
    """The supernet, or what is left of it to train."""
    start = time.process_time()

    def note(event: zs.Event) -> None:
        nonlocal start
        if event.kind == "epoch" and not event.known:
            now = time.process_time()
            runs.add("supernet epoch", epoch=event.step, cpu_seconds=round(now - start, 1), **event.values)
            start = now

    few = replace(data, test_images=data.test_images[:64], test_labels=data.test_labels[:64])  # are not looked at
    zs.train_supernet(LARGEST, few, recipe, out=folder, resume=True, progress=False, callbacks=[note], **ELASTIC)


def train_networks(data: zs.ImageData, runs: Runs, protocol: Protocol, count: int) -> None:
    """The networks of the band, each from scratch."""
    parts = {part: getattr(data, part)[: protocol.images] for part in ("train_images", "train_labels")}
    images = Images.of(replace(data, **parts), protocol)
    for text in band(count):
        if text not in runs.scratch():
            outcome = train(architecture(text), images, protocol.recipe, 0)
            runs.add("scratch", architecture=text, **outcome)
            said = f"{outcome['test_accuracy']:.2%}, {outcome['cpu_seconds']} s"
            print(f"{time.strftime('%H:%M:%S')} {text}: {said}", file=sys.stderr, flush=True)


def compared(name: str, accuracies: dict[str, float], folder: Path, runs: Runs) -> Part:
    """How each score orders a population."""
    table = zs.BenchmarkTable(
        name=name, space="vanilla", dataset="cifar10", rows=list(accuracies), accuracy=list(accuracies.values())
    )
    key = f"supernet:run={folder}"
    found = zs.correlate([key, *PROXIES], table, progress=False)
    figures, details = [], {}
    for entry in found.proxies:
        called = "supernet" if entry.proxy == key else entry.proxy
        details[called] = {
            "kendall": entry.kendall,
            "kendall_interval": entry.kendall_interval,
            "regret": entry.regret,
            "seconds a network": entry.milliseconds / 1_000,
            "failed": entry.failed,
            "scores": dict(zip(found.rows, found.scores[entry.proxy], strict=True)),
        }
        if entry.kendall is not None:  # it has no tau where all scores are equal
            figures.append(Figure(f"{name}, {called}: Kendall's tau", [entry.kendall]))
        if entry.regret is not None:
            figures.append(Figure(f"{name}, {called}: regret", [entry.regret], "points"))
    seconds = runs.supernet_seconds()
    figures.append(Figure(f"{name}: CPU time of the supernet's training", [seconds], "s"))
    return Part(figures, {"networks": accuracies, "scores": details, "supernet": {"cpu_seconds": seconds}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10 with 20,000 training images; trains what is left")
    parser.add_argument("--supernet", type=Path, required=True, help="folder of the supernet's run")
    parser.add_argument("--only", choices=("supernet", "scratch"), help="train only that, and print no table")
    parser.add_argument("--runs", type=Path, default=RESULTS / "supernet.jsonl", help="the file of runs")
    parser.add_argument("--out", type=Path, help="JSON file, default benchmarks/results/supernet.json")
    parser.add_argument("--quick", action="store_true", help="one epoch of few images: shows that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name = "quick" if arguments.quick else "short"
    runs, count, recipe = Runs(arguments.runs, name), NETWORKS, RECIPE
    if arguments.quick:
        count, recipe = 3, replace(recipe, epochs=1)
    if arguments.data is not None:
        data = zs.load_data(f"cifar10:{arguments.data}")
        if arguments.quick:
            parts = ("train_images", "train_labels", "test_images", "test_labels")
            data = replace(data, **{part: getattr(data, part)[:256] for part in parts})
        if arguments.only != "scratch":
            train_supernet(data, arguments.supernet, runs, recipe)
        if arguments.only != "supernet":
            train_networks(data, runs, SCRATCH[name], count)
    if arguments.only:
        return
    accuracies = {text: 100 * line["test_accuracy"] for text, line in runs.scratch().items()}
    out = arguments.out or (None if arguments.quick else RESULTS / "supernet.json")
    figures: list[Figure] = []
    for population, found in (("band", accuracies), ("vcn", vcn())):
        part = compared(population, found, arguments.supernet, runs)
        figures += part.figures
        if out is not None:
            merge(out, population, part, {"quick": arguments.quick})
    print_table(figures)


if __name__ == "__main__":
    main()
