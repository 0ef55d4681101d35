"""Ranking at equal budget: what proxies are worth where size is the same, on the benchmarks of the field.

    python benchmarks/equal_budget.py --tables path/to/tables            # some five minutes of one core
    python benchmarks/equal_budget.py --tables path/to/tables --quick    # 60 networks of each: shows that it runs

Of each benchmark at most 2,000 networks, drawn with seed 0, are scored by closed forms: CET and its variant p,
Zen-score (where a network has one), parameters, FLOPs and layers. Where the table has scores that other people
computed, these stand beside ours, in italics; a score of theirs that failed is worse than all. For each the figures are
those of `zeroshot_nas.nasbench.equal_budget`. TransNAS-Bench-101's networks are scored once, with the images and the
head of ``class_scene``, for all tasks; what a task's network costs is then the table's, since heads differ.

Needs tables on disk: ``nb201_results``, ``nb201_proxies``, ``nb201_zen_all``, ``nb201_hardware``, ``nbmacro_results``,
``nats_sss_cifar10``, ``nb101_proxies``, ``nb301_proxies``, ``tnb101_micro_proxies`` and ``tnb101_macro_proxies``, each
``.csv.gz``. The folder is given by ``--tables`` or by the environment variable ``NASBENCH_TABLES``. Results go to
``benchmarks/results/equal_budget.json``, from which ``docs/make_pages.py`` writes ``docs/equal_budget.md``.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import Figure, Part, main

import zeroshot_nas as zs
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.nasbench.agreement import kendall
from zeroshot_nas.nasbench.equal_budget import EqualBudget, equal_budgets
from zeroshot_nas.nasbench.table import DATASET_IMAGES

CELLS, SEED, RESAMPLES, LEVEL = 2_000, 0, 400, 0.95
QUICK_CELLS, QUICK_RESAMPLES = 60, 40

OURS = ("ceres", "cet", "cet:variant=p", "zen_closed_form", "params", "flops", "layers")
THEIRS = (*("synflow", "snip", "grasp", "fisher", "grad_norm", "l2_norm", "plain", "jacov", "nwot", "zen", "epe_nas"),)
"""Columns of scores in NAS-Bench-Suite-Zero's tables, higher being better; not every table has each."""

FAILED = -1e8
"""What NASLib writes where a score could not be computed."""

TASKS = ("class_object", "class_scene", "room_layout", "jigsaw", "segmentsemantic", "normal", "autoencoder")
"""TransNAS-Bench-101's; the mean is over all but the last, whose order is another one."""

DATASETS = {"cifar10": "c10", "cifar100": "c100", "ImageNet16-120": "in16"}
SHOWN_KINDS = {"flops": "FLOPs", "params": "params"}

Row = dict[str, str]
Scores = dict[str, list[float]]


def rows_of(name: str) -> list[Row]:
    """A table's rows."""
    folder = os.environ.get("NASBENCH_TABLES")
    if not folder:
        sys.exit("say where the benchmarks' tables are: --tables FOLDER, or NASBENCH_TABLES in the environment")
    with gzip.open(Path(folder) / f"{name}.csv.gz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sampled(rows: list[Row], quick: bool) -> list[Row]:
    """At most so many rows, in the table's order."""
    count = min(QUICK_CELLS if quick else CELLS, len(rows))
    return [rows[place] for place in sorted(python_rng(SEED).sample(range(len(rows)), count))]


def our_scores(space: zs.SearchSpace, texts: list[str], notation: str) -> Scores:
    """Closed forms of the networks; a proxy that none of them has is left out."""
    networks = [space.from_string(text, notation) for text in texts]
    found: Scores = {proxy: [] for proxy in OURS}
    for scores in zs.score_pool(networks, list(OURS), seed=SEED, repeats=1):
        for proxy in OURS:
            found[proxy].append(scores[proxy].value)
    return {proxy: values for proxy, values in found.items() if not np.isnan(values).all()}


def their_scores(rows: list[Row]) -> Scores:
    """The columns of scores that a table has, and in which some score is not a failure."""
    found = {f"{name}*": [float(row[name] or "nan") for row in rows] for name in THEIRS if name in rows[0]}
    found = {name: [math.nan if value == FAILED else value for value in values] for name, values in found.items()}
    return {name: values for name, values in found.items() if not np.isnan(values).all()}


def figures_of(scores: Scores, accuracy: list[float], costs: Mapping[str, list[float]], quick: bool) -> dict[str, Any]:
    """All figures of one set of accuracies."""
    resamples = QUICK_RESAMPLES if quick else RESAMPLES
    sweeps, equal = equal_budgets(scores, accuracy, costs, level=LEVEL, resamples=resamples, seed=SEED)
    overall = {name: kendall(values, accuracy) for name, values in scores.items()}
    return {
        "networks": len(accuracy),
        "sweeps": {kind: {**asdict(sweep), "random": _kept(sweep.random)} for kind, sweep in sweeps.items()},
        "scores": {
            name: {
                "kendall": None if math.isnan(overall[name]) else overall[name],
                **{kind: _kept(each) for kind, each in kinds.items()},
            }
            for name, kinds in equal.items()
        },
    }


def _kept(figures: EqualBudget) -> dict[str, Any]:
    """What the results hold: budget by budget the regret of the first choice alone, so that the file stays small."""
    return {name: value for name, value in asdict(figures).items() if name != "regrets_of_five"}


def part_of(name: str, details: dict[str, Any]) -> Part:
    """The table in print, and in the results with all that is behind it."""
    lines = table(details)
    print(f"\n{name}\n", *lines, sep="\n")
    figures = [
        Figure(f"{name}, {proxy}: tau at equal {SHOWN_KINDS[kind]}", [each[kind]["kendall"]])
        for proxy, each in details["scores"].items()
        for kind in SHOWN_KINDS
        if proxy in OURS and each[kind]["kendall"] is not None
    ]
    return Part(figures, {**details, "table": lines})


def table(details: Mapping[str, Any]) -> list[str]:
    """One row a score, the best at equal FLOPs first; a last row for a random choice."""
    kinds = list(details["sweeps"])
    taus = [f"tau, equal {_word(kind)}" for kind in kinds]
    regrets = [f"regret, {_word(kind)}: first, best of 5" for kind in kinds]
    lines = [_line(["score", "tau, all", *taus, *regrets]), _line(["---", *["---:"] * (1 + 2 * len(kinds))])]
    order = sorted(
        details["scores"].items(), key=lambda item: -math.inf if (tau := item[1]["flops"]["kendall"]) is None else tau
    )
    for name, each in reversed(order):
        cells = [
            _tau(each["kendall"]),
            *(_tau(each[kind]["kendall"], each[kind]["kendall_interval"]) for kind in kinds),
        ]
        lines.append(_line([_name(name), *cells, *(_regrets(each[kind]) for kind in kinds)]))
    random = [_regrets(details["sweeps"][kind]["random"]) for kind in kinds]
    return [*lines, _line(["a random choice", "0", *["0"] * len(kinds), *random])]


def mean_table(tasks: Mapping[str, Any]) -> list[str]:
    """The means over tasks; regret as a part of a random choice's, since the tasks' figures have units of their own."""
    kinds = list(SHOWN_KINDS)
    heads = [f"tau, equal {SHOWN_KINDS[kind]}" for kind in kinds]
    heads += [f"regret over a random choice's, {SHOWN_KINDS[kind]}: first, best of 5" for kind in kinds]
    rows = []
    for name in next(iter(tasks.values()))["scores"]:
        means: list[float | None] = [_mean([task["scores"][name]["kendall"] for task in tasks.values()])]
        means += [_mean([task["scores"][name][kind]["kendall"] for task in tasks.values()]) for kind in kinds]
        parts = [
            _mean(
                [task["scores"][name][kind][which] / task["sweeps"][kind]["random"][which] for task in tasks.values()]
            )
            for kind in kinds
            for which in ("regret", "regret_of_five")
        ]
        pairs = [f"{one:.2f}, {five:.2f}" for one, five in zip(parts[::2], parts[1::2], strict=True)]
        rows.append((means[1], [_name(name), *map(_tau, means), *pairs]))
    rows.sort(key=lambda row: -math.inf if row[0] is None else row[0], reverse=True)
    lines = [_line(["score", "tau, all", *heads]), _line(["---", *["---:"] * (1 + len(heads))])]
    return [*lines, *(_line(cells) for _, cells in rows)]


def _mean(values: list[Any]) -> float | None:
    return None if None in values else float(np.mean(values))


def _word(kind: str) -> str:
    return SHOWN_KINDS.get(kind, kind.replace("_", " "))


def _name(name: str) -> str:
    return f"*{name.rstrip('*')}*" if name.endswith("*") else f"`{name}`"


def _tau(tau: float | None, interval: tuple[float, float] | None = None) -> str:
    if tau is None:
        return "-"
    return f"{tau:.3f}" + (" ({:.2f} to {:.2f})".format(*interval) if interval else "")


def _regrets(figures: Mapping[str, Any]) -> str:
    one, interval, five = (figures[key] for key in ("regret", "regret_interval", "regret_of_five"))
    digits = 2 if max(one, five) >= 0.1 else 4
    between = f" ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})" if interval else ""
    return f"{one:.{digits}f}{between}, {five:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def nasbench201(dataset: str) -> Callable[[bool], Part]:
    """Cells with no dead operation, test accuracy after 200 epochs, latency on a GPU and on a Raspberry Pi 4."""

    def measure(quick: bool) -> Part:
        prefix = DATASETS[dataset]
        held = "cifar10" if dataset == "cifar100" else dataset
        theirs = {row["index"]: row for row in rows_of("nb201_proxies") if row["dataset"] == held}
        zen = {row["index"]: row[f"{prefix}_zen"] for row in rows_of("nb201_zen_all")}
        pi = {row["index"]: float(row[f"{prefix}_raspi4_latency"]) for row in rows_of("nb201_hardware")}
        rows = sampled([row for row in rows_of("nb201_results") if row["index"] in theirs], quick)
        shape, classes = DATASET_IMAGES[dataset]
        space = zs.get_space("nasbench201", input_size=shape, num_classes=classes)
        ours = our_scores(space, [row["op_code"] for row in rows], "op_code")
        reference = [{**theirs[row["index"]], "zen": zen[row["index"]]} for row in rows]
        if dataset == "cifar100":  # zen alone has scores on it
            reference = [{"zen": row["zen"]} for row in reference]
        costs = {
            "flops": ours["flops"],
            "params": ours["params"],
            "gpu_latency": [float(row[f"{prefix}_gpu_latency_s"]) for row in rows],
            "raspi4_latency": [value if (value := pi[row["index"]]) > 0 else math.nan for row in rows],
        }
        accuracy = [float(row[f"{prefix}_test_200"]) for row in rows]
        return part_of(f"NAS-Bench-201, {dataset}", figures_of(ours | their_scores(reference), accuracy, costs, quick))

    return measure


def listed(
    title: str, file: str, space: str, notation: str, accuracy: str, text: Callable[[Row], str]
) -> Callable[[bool], Part]:
    """A table whose rows are networks of CIFAR-10."""

    def measure(quick: bool) -> Part:
        rows = sampled(rows_of(file), quick)
        ours = our_scores(zs.get_space(space), [text(row) for row in rows], notation)
        costs = {kind: ours[kind] for kind in SHOWN_KINDS}
        scores = ours | their_scores(rows)
        return part_of(title, figures_of(scores, [float(row[accuracy]) for row in rows], costs, quick))

    return measure


def transnas(title: str, file: str, space: str) -> Callable[[bool], Part]:
    """Networks scored once for all tasks; costs, accuracies and others' scores are each task's own."""

    def measure(quick: bool) -> Part:
        shape, classes = DATASET_IMAGES["class_scene"]
        rows = rows_of(file)
        codes = [row["arch"] for row in sampled([row for row in rows if row["task"] == TASKS[-1]], quick)]
        texts = [str(tuple(map(int, code))) for code in codes]
        ours = our_scores(zs.get_space(space, input_size=shape, num_classes=classes), texts, "naslib")
        places = {code: place for place, code in enumerate(codes)}
        tasks = {}
        for task in TASKS:
            own = [row for row in rows if row["task"] == task and row["arch"] in places]
            costs = {kind: [float(row[kind]) for row in own] for kind in SHOWN_KINDS}
            some = {name: [values[places[row["arch"]]] for row in own] for name, values in ours.items()}
            scores = some | costs | their_scores(own)
            tasks[task] = figures_of(scores, [float(row["val_accuracy"]) for row in own], costs, quick)
        six = {task: tasks[task] for task in TASKS[:-1]}
        common = set.intersection(*(set(each["scores"]) for each in six.values()))
        for each in six.values():
            each["scores"] = {name: figures for name, figures in each["scores"].items() if name in common}
        lines = mean_table(six)
        print(f"\n{title}, mean of six tasks\n", *lines, sep="\n")
        last = part_of(f"{title}, {TASKS[-1]}", tasks[TASKS[-1]])
        figures = [
            Figure(f"{title}, {task}, {name}: tau at equal FLOPs", [each["scores"][name]["flops"]["kendall"]])
            for task, each in tasks.items()
            for name in ("cet", "cet:variant=p")
        ]
        details = {"tasks": tasks, "table": lines, "networks": len(codes), "last_table": last.details["table"]}
        return Part(figures, details)

    return measure


PARTS = {
    "nasbench201_cifar10": nasbench201("cifar10"),
    "nasbench201_cifar100": nasbench201("cifar100"),
    "nasbench201_imagenet16": nasbench201("ImageNet16-120"),
    "macro": listed(
        "NAS-Bench-Macro", "nbmacro_results", "nasbench_macro", "arch", "mean_acc", lambda row: row["arch"]
    ),
    "nats_sss": listed(
        *("NATS-Bench, sizes", "nats_sss_cifar10", "nats_sss", "widths", "c10_test_90"),
        lambda row: ":".join(row[f"c{place}"] for place in range(5)),
    ),
    "nasbench101": listed(
        *("NAS-Bench-101", "nb101_proxies", "nasbench101", "naslib", "val_accuracy"),
        lambda row: f"({', '.join(row['arch'].split())})",
    ),
    "nasbench301": listed(
        "NAS-Bench-301", "nb301_proxies", "nasbench301", "naslib", "val_accuracy", lambda row: row["arch"]
    ),
    "transnas_micro": transnas("TransNAS-Bench-101 micro", "tnb101_micro_proxies", "transnas_micro"),
    "transnas_macro": transnas("TransNAS-Bench-101 macro", "tnb101_macro_proxies", "transnas_macro"),
}


if __name__ == "__main__":
    assert __doc__ is not None
    if "--tables" in sys.argv:
        place = sys.argv.index("--tables")
        os.environ["NASBENCH_TABLES"] = sys.argv[place + 1]
        del sys.argv[place : place + 2]
    main("equal_budget", PARTS, __doc__)
