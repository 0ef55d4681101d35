"""CERES against what was trained: its form, the forms beside it, and the baselines, within equal budgets.

    python benchmarks/ceres.py --tables nasbench/            # some eight minutes the first time, then half a minute
    python benchmarks/ceres.py --tables nasbench/ --only vcn macro

``--tables`` is a folder with the files that `TABLES` names (``benchmarks/results/ceres.json`` says where they are
from); the networks of VCN-Bench are read from ``benchmarks/results/vcn_bench.jsonl``. The numbers of every convolution
are worked out once and kept in ``--cache``. Each form that is tried is a line of
``benchmarks/results/ceres_tried.jsonl``: name and Kendall's taus. ``T`` is over all networks, ``F`` and ``P`` within
bins of FLOPs and params, ``=`` among networks of exactly the same params; ``vcn`` by the short protocol.

`DEVELOPMENT` are the networks of VCN-Bench that forms were chosen on: ``vcn``. The others, ``vcn A``, ``vcn B`` and
``vcn C``, were trained after the form was frozen, and judge it.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, circumstances, read_runs, rounded
from numpy.typing import NDArray

import zeroshot_nas as zs
from zeroshot_nas.closed_form.cet.score import conv_columns, plan_sequence, propagate
from zeroshot_nas.closed_form.cet.terms import ConvColumns
from zeroshot_nas.errors import UndefinedScoreError
from zeroshot_nas.nasbench.equal_budget import kendall_within

Floats = NDArray[np.float64]
Form = Callable[["Networks"], Floats]

TASKS = ("class_object", "class_scene", "jigsaw", "normal", "room_layout", "segmentsemantic")


class Networks:
    """Networks of one table with what was trained, and the convolutions of all of them in columns.

    Args:
        numbers: Arrays as `numbers_of` makes them.
        images: Training images.
        steps: Training steps.
    """

    def __init__(self, numbers: Mapping[str, Floats], images: int, steps: int) -> None:
        self.columns = ConvColumns(*numbers["columns"])
        self.net = numbers["net"].astype(np.intp)
        self.depths, self.costs, self.accuracy = numbers["depths"].T, numbers["costs"], numbers["accuracy"]
        self.classes, self.size = numbers["classes"], len(numbers["costs"])
        self.images, self.steps = images, steps
        self.params, self.flops, self.layers = numbers["costs"].T

    def total(self, values: Floats) -> Floats:
        """The sum over each network's convolutions."""
        return np.bincount(self.net, values, self.size)

    def by_resolution(self, values: Floats) -> Floats:
        """The same by resolution, ``(networks, resolutions)``."""
        sides, place = np.unique(self.columns.positions, return_inverse=True)
        shape = (self.size, len(sides))
        return np.bincount(self.net * len(sides) + place, values, math.prod(shape)).reshape(shape)


# The forms


def logs(networks: Networks, power: float = 0.5, head: bool = True) -> Floats:
    """Mean over resolutions of log (sum of uses^power)^(1/power), with the classifier as one of them or without."""
    totals = networks.by_resolution((networks.columns.directions * networks.columns.positions) ** power)
    there = totals > 0
    total = np.where(there, np.log(np.where(there, totals, 1)), 0).sum(1) / power
    count = there.sum(1)
    return (total + 2 * np.log(networks.classes)) / (count + 1) if head else total / count


def layers(networks: Networks) -> Floats:
    columns = networks.columns
    return np.log(0.5 + networks.total(np.sqrt(columns.positions * columns.throughput * columns.efficiency)))


def capacity(networks: Networks) -> Floats:
    needed = networks.images * np.log2(networks.classes) / 2
    return -np.log1p(needed / networks.total(networks.columns.directions))


def beyond(networks: Networks, power: float = 0.25) -> Floats:
    """Minus the depths beyond what the steps train, which grows by a power of them."""
    limit = 20 * (networks.steps / 64_000) ** power
    return -np.maximum(0, networks.depths - limit).sum(0) / limit


def narrowness(networks: Networks, width: str = "in_channels") -> Floats:
    """Mean of 1 over the width of a network's convolutions; without those that read the image, or of all."""
    columns = networks.columns
    inner = np.ones_like(columns.is_stem) if width == "out_channels" else (columns.is_stem == 0).astype(float)
    return networks.total(inner / getattr(columns, width)) / np.maximum(networks.total(inner), 1)


def slender(networks: Networks, power: float = 0.5, start: float = 64_000, width: str = "in_channels") -> Floats:
    """Minus the logarithm of 1 + depth over width, against the steps there are to make up for it."""
    ratio = np.maximum(networks.depths.sum(0) / 2, 0) * narrowness(networks, width)
    return -np.log1p((start / networks.steps) ** power * ratio)


def ceres(networks: Networks, *, uses: float = 0.5, head: bool = True, k: float = 2, d: float = 2, h: float = 1,
          m: float = 2, limit: float = 0.25, **law: Any) -> Floats:  # fmt: skip
    """CERES, and with other arguments the forms around it."""
    charged = d * slender(networks, **law) + h * beyond(networks, limit)
    return logs(networks, uses, head) + m * layers(networks) + k * capacity(networks) + charged


def cet(networks: Networks) -> Floats:
    columns = networks.columns
    value = -np.maximum(0, networks.depths - 20).sum(0) / 20
    for parts, least in ((columns.uses, 1.0), (columns.transmission, 0.5)):
        shares = networks.by_resolution(parts)
        shares /= shares.sum(1, keepdims=True)
        value += np.log(least + networks.total(parts)) - (shares * np.log(np.maximum(shares, 1e-300))).sum(1)
    return value


FORMS: dict[str, Form] = {
    "ceres": ceres,
    "cet": cet,
    "params": lambda networks: networks.params,
    "flops": lambda networks: networks.flops,
    "layers": lambda networks: networks.layers,
    "ceres, classifier not a resolution": lambda networks: ceres(networks, head=False),
    "ceres, uses added up, not amplitudes": lambda networks: ceres(networks, uses=1),
    "ceres, capacity once": lambda networks: ceres(networks, k=1),
    "ceres, capacity three times": lambda networks: ceres(networks, k=3),
    "ceres, no capacity": lambda networks: ceres(networks, k=0),
    "ceres, no layers": lambda networks: ceres(networks, m=0),
    "ceres, layers once": lambda networks: ceres(networks, m=1),
    "ceres, layers three times": lambda networks: ceres(networks, m=3),
    "ceres, depth over width not charged": lambda networks: ceres(networks, d=0),
    "ceres, depth over width once": lambda networks: ceres(networks, d=1),
    "ceres, depth over width three times": lambda networks: ceres(networks, d=3),
    "ceres, depth beyond a limit not charged": lambda networks: ceres(networks, h=0),
    "ceres, depth beyond a limit twice": lambda networks: ceres(networks, h=2),
    "ceres, the limit by the square root of steps": lambda networks: ceres(networks, limit=0.5),
    "ceres, by the fourth root of steps": lambda networks: ceres(networks, power=0.25),
    "ceres, by steps": lambda networks: ceres(networks, power=1),
    "ceres, against 16,000 steps": lambda networks: ceres(networks, start=16_000),
    "ceres, against 256,000 steps": lambda networks: ceres(networks, start=256_000),
    "ceres, whatever the steps": lambda networks: ceres(networks, power=0),
    "ceres, of output channels": lambda networks: ceres(networks, width="out_channels"),
}


# The tables


def rows_of(file: Path) -> list[dict[str, str]]:
    with gzip.open(file, "rt", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def sampled(rows: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    return random.Random(0).sample(rows, min(count, len(rows)))


def of_space(name: str, texts: Iterable[str], notation: str | None = None, **options: object) -> list[zs.Architecture]:
    space = zs.get_space(name, **options)
    return [space.from_string(text) if notation is None else space.from_string(text, notation) for text in texts]


Table = tuple[list[zs.Architecture], list[list[float]]]


def nasbench201(folder: Path) -> Table:
    rows = sampled(rows_of(folder / "nb201_results.csv.gz"), 2_500)
    accuracy = [[float(row[f"{name}_test_200"]) for name in ("c10", "c100", "in16")] for row in rows]
    return of_space("nasbench201", (row["arch"] for row in rows)), accuracy


def macro(folder: Path) -> Table:
    rows = sampled(rows_of(folder / "nbmacro_results.csv.gz"), 1_500)
    return of_space("nasbench_macro", (row["arch"] for row in rows)), [[float(row["mean_acc"])] for row in rows]


def sizes(folder: Path) -> Table:
    rows = sampled(rows_of(folder / "nats_sss_cifar10.csv.gz"), 800)
    texts = (":".join(row[f"c{index}"] for index in range(5)) for row in rows)
    return of_space("nats_sss", texts), [[float(row["c10_test_90"])] for row in rows]


def nasbench101(folder: Path) -> Table:
    rows = rows_of(folder / "nb101_proxies.csv.gz")
    texts = ("(" + ",".join(row["arch"].split()) + ")" for row in rows)
    return of_space("nasbench101", texts, "naslib"), [[float(row["val_accuracy"])] for row in rows]


def nasbench301(folder: Path) -> Table:
    rows = rows_of(folder / "nb301_proxies.csv.gz")
    accuracy = [[float(row["val_accuracy"])] for row in rows]
    return of_space("nasbench301", (row["arch"] for row in rows), "naslib"), accuracy


def transnas(folder: Path, kind: str) -> Table:
    results: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows_of(folder / f"tnb101_{kind}_proxies.csv.gz"):
        results[row["arch"]][row["task"]] = float(row["val_accuracy"])
    texts = ("(" + ",".join(code) + ")" for code in results)
    networks = of_space(f"transnas_{kind}", texts, "naslib", input_size=(3, 256, 256), num_classes=75)
    return networks, [[row.get(task, math.nan) for task in TASKS] for row in results.values()]


def vcn(_: Path, budget: str = "A", held_out: bool = False) -> Table:
    """Networks of a budget that were trained by the short protocol: those of `DEVELOPMENT`, or the others."""
    runs: dict[str, list[float]] = defaultdict(list)
    for line in read_runs(RESULTS / "vcn_bench.jsonl"):
        if line["protocol"] == "short" and line["budget"] == budget and (line["name"] not in DEVELOPMENT) == held_out:
            runs[line["architecture"]].append(100 * line["test_accuracy"])
    networks = [zs.Architecture.from_string(text, (3, 32, 32), 10) for text in runs]
    return networks, [[statistics.mean(values)] for values in runs.values()]


def development(names: Sequence[str]) -> frozenset[str]:
    """Half of budget A's networks: those that were looked at before there was a split, and others by a seed."""
    seen = [name for name in names if name in SEEN]
    rest = [name for name in names if name not in SEEN]
    return frozenset(seen + random.Random(0).sample(rest, len(names) // 2 - len(seen)))


SEEN = {
    *(f"A-resnet{depth}-{strides}-basic-k3" for depth in (8, 14, 20) for strides in (122, 222)),
    *(f"A-resnet{depth}-{strides}-basic-k3-last" for depth in (8, 14, 20) for strides in (122, 222)),
    *(f"A-resnet{depth}-{strides}-bottleneck-k3" for depth in (8, 14) for strides in (122, 222)),
    *(f"A-random-free-0{number}" for number in range(5)),
    *("A-random-resnet-00", "A-random-resnet-03", "A-random-fine-01", "A-random-basic-02"),
    *("A-random-mobilenet-00", "A-random-mobilenet-01", "A-cet-resnet-0", "A-cet-resnet-1"),
}
"""Networks that were trained, and whose accuracy was known, when the split was made."""

with (Path(__file__).with_name("vcn_plan.csv")).open(encoding="utf-8", newline="") as _stream:
    DEVELOPMENT = development([row["name"] for row in csv.DictReader(_stream) if row["budget"] == "A"]) | {
        *("A-cet-basic-1", "A-cet-fine-0", "A-random-basic-08", "A-random-fine-04", "A-random-fine-07"),
        *(f"A-random-free-{number:02}" for number in (5, 8, 9, 10, 11, 12)),
        *("A-random-mobilenet-02", "A-random-mobilenet-04"),
    }
    """That half, and what of the other was trained when today's form was chosen, on 30 November, with all of these."""

TABLES: dict[str, tuple[Callable[[Path], Table], int, int]] = {
    "nb201": (nasbench201, 50_000, 39_000),
    "macro": (macro, 50_000, 9_800),
    "sizes": (sizes, 50_000, 17_600),
    "nb101": (nasbench101, 40_000, 17_000),
    "nb301": (nasbench301, 50_000, 52_000),
    "micro": (lambda folder: transnas(folder, "micro"), 120_000, 15_600),
    "trans": (lambda folder: transnas(folder, "macro"), 120_000, 15_600),
    "vcn": (vcn, 20_000, 3_750),
    "vcn A": (lambda folder: vcn(folder, held_out=True), 20_000, 3_750),
    "vcn B": (lambda folder: vcn(folder, "B", held_out=True), 20_000, 3_750),
    "vcn C": (lambda folder: vcn(folder, "C", held_out=True), 20_000, 3_750),
}
"""By name: networks with accuracies, training images, and training steps as the papers have them, roughly."""


def numbers_of(networks: Sequence[zs.Architecture], accuracy: Sequence[Sequence[float]]) -> dict[str, Floats]:
    """What forms read of networks that are alive."""
    columns, net, depths, costs, alive = [], [], [], [], []
    for place, network in enumerate(networks):
        try:
            passes = propagate([plan_sequence(network)], network.input_size, [network.num_classes])
        except UndefinedScoreError:
            continue
        _, own = conv_columns(passes)
        columns.append(np.array(own))
        net += [len(alive)] * columns[-1].shape[1]
        depths.append([passes.depth_forward[0], passes.depth_backward[0]])
        known = zs.cost(network)
        costs.append([known.params, known.flops, known.layers])
        alive.append(place)
    return {
        "columns": np.concatenate(columns, axis=1),
        "net": np.array(net, float),
        "depths": np.array(depths),
        "costs": np.array(costs, float),
        "accuracy": np.array(accuracy, float)[alive],
        "classes": np.array([networks[place].num_classes for place in alive], float),
    }


FEW = 10
"""Networks below which nothing can be said of a table."""


def read(name: str, folder: Path, cache: Path) -> Networks | None:
    """A table's networks; None of one that has too few yet."""
    make, images, steps = TABLES[name]
    file = cache / f"{name}.npz"
    if name.startswith("vcn") or not file.exists():
        print(f"{name}: works out the convolutions", file=sys.stderr)
        cache.mkdir(parents=True, exist_ok=True)
        networks, accuracy = make(folder)
        if len(networks) < FEW:
            return None
        np.savez_compressed(file, **numbers_of(networks, accuracy))
    with np.load(file) as numbers:
        return Networks(dict(numbers), images, steps)


# The figures


def within(score: Floats, accuracy: Floats, groups: Floats | None = None) -> float:
    """Kendall's tau-b over the pairs of one group; over all pairs where there are no groups."""
    known = np.isfinite(accuracy)
    groups = np.zeros(len(score)) if groups is None else groups
    return kendall_within(np.round(score[known], 9), accuracy[known], np.unique(groups[known], return_inverse=True)[1])


def bins(values: Floats, count: int) -> Floats:
    """Equal parts by rank."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") * count // len(values)


def taus(name: str, networks: Networks, form: Form) -> dict[str, float]:
    score, columns = form(networks), networks.accuracy.T
    if name == "nb201":
        sets = dict(zip(("c10", "c100", "in16"), columns, strict=True))
        return {f"{name} {key} T": within(score, each) for key, each in sets.items()} | {
            f"{name} {key} =": within(score, each, networks.params) for key, each in sets.items()
        }
    by_flops = bins(networks.flops, 20 if name == "macro" else 8)
    if name in ("micro", "trans"):
        return {f"{name} {task} F": within(score, each, by_flops) for task, each in zip(TASKS, columns, strict=True)}
    found = {f"{name} T": within(score, columns[0])}
    if name in ("macro", "nb101", "nb301"):
        found[f"{name} F"] = within(score, columns[0], by_flops)
    if name == "sizes":
        found[f"{name} P"] = within(score, columns[0], bins(networks.params, 6))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, required=True, metavar="FOLDER", help="benchmark tables as CSV")
    parser.add_argument("--cache", type=Path, default=Path(".cache/ceres"), help="default .cache/ceres")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--quick", action="store_true", help="VCN-Bench alone, which needs no tables; writes nothing")
    parser.add_argument("--out", type=Path, help="default benchmarks/results/ceres.json")
    given = parser.parse_args()
    found = {name: read(name, given.tables, given.cache) for name in (["vcn"] if given.quick else given.only)}
    tables = {name: networks for name, networks in found.items() if networks is not None}
    results = {
        title: {key: value for name, each in tables.items() for key, value in taus(name, each, form).items()}
        for title, form in FORMS.items()
    }
    names = list(results["ceres"])
    print("| tau | " + " | ".join(names) + " |\n|---" * (1) + "|---:" * len(names) + "|")
    for title, values in results.items():
        print(f"| {title} | " + " | ".join(f"{values[name]:.3f}" for name in names) + " |")
    if given.quick:
        return
    about = {"networks": {name: each.size for name, each in tables.items()}, **circumstances()}
    out = given.out or RESULTS / "ceres.json"
    out.write_text(json.dumps({"tau": rounded(results), **about}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
