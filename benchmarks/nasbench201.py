"""Proxies on NAS-Bench-201: our rank correlations beside published ones, and our scores beside others' scores.

    python benchmarks/nasbench201.py --tables path/to/tables
    python benchmarks/nasbench201.py --tables path/to/tables --quick --only counts

Needs tables of the benchmark on disk: ``nb201_results.csv.gz`` (trained accuracies) and, for the part "reference",
``nb201_proxies.csv.gz`` (scores that NAS-Bench-Suite-Zero's authors computed). The folder is given by ``--tables`` or
by the environment variable ``NASBENCH_TABLES``.
"""

from __future__ import annotations

import csv
import gzip
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, Figure, Part, main
from scipy.stats import kendalltau, spearmanr
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas.nasbench.base import load_table
from zeroshot_nas.nasbench.correlate import correlate
from zeroshot_nas.nasbench.correlation import Correlation

PROXIES = [
    *("zen", "naswot", "synflow", "snip", "grad_norm", "fisher", "jacob_cov", "zico"),
    *("az_nas", "params", "flops", "layers"),
]

DEAR = ["gradsign", "grasp", "te_nas", "vkdnw:variant=authors"]
"""Proxies that take 0.5 to 10 core seconds a cell; their scores are kept in ``runs/``, so that a run can be stopped.

Their sample is a part of that of the others. VKDNW is that of its authors' code: without its mixture the score is
undefined on cells whose classes are all but certain at random weights. Its paper gives no figure for it alone.
"""

DEAR_CELLS = 300
"""A larger number goes on from the scores of a smaller one: a smaller sample is a part of every larger one."""

COLUMNS = {"cifar10": "c10_test_200", "cifar100": "c100_test_200", "ImageNet16-120": "in16_test_200"}

PUBLISHED: dict[str, dict[str, tuple[float, float, float]]] = {
    "AZ-NAS paper (arXiv:2403.19232)": {
        "params": (0.578, 0.552, 0.520),
        "flops": (0.578, 0.551, 0.517),
        "grad_norm": (0.357, 0.350, 0.304),
        "grasp": (0.318, 0.315, 0.282),
        "snip": (0.454, 0.451, 0.400),
        "synflow": (0.571, 0.565, 0.555),
        "naswot": (0.557, 0.579, 0.573),
        "te_nas": (0.536, 0.535, 0.492),
        "zen": (0.296, 0.283, 0.303),
        "gradsign": (0.618, 0.594, 0.575),
        "zico": (0.589, 0.590, 0.584),
        "az_nas": (0.741, 0.723, 0.710),
    },
    "VKDNW paper (arXiv:2502.04975)": {
        "flops": (0.623, 0.586, 0.545),
        "grad_norm": (0.328, 0.341, 0.310),
        "grasp": (0.352, 0.349, 0.359),
        "snip": (0.431, 0.440, 0.389),
        "synflow": (0.561, 0.553, 0.531),
        "jacob_cov": (0.616, 0.639, 0.602),
        "naswot": (0.571, 0.607, 0.605),
        "zen": (0.102, 0.079, 0.091),
        "zico": (0.607, 0.614, 0.587),
        "te_nas": (0.536, 0.537, 0.523),
        "vkdnw_single": (0.618, 0.634, 0.622),
        "az_nas": (0.712, 0.696, 0.673),
        "layers": (0.626, 0.646, 0.623),
    },
    "ZiCo paper (arXiv:2301.11300)": {
        "grad_norm": (0.46, 0.47, 0.43),
        "snip": (0.46, 0.46, 0.43),
        "grasp": (0.37, 0.36, 0.40),
        "fisher": (0.40, 0.41, 0.37),
        "synflow": (0.54, 0.57, 0.56),
        "zen": (0.29, 0.28, 0.29),
        "flops": (0.54, 0.51, 0.49),
        "params": (0.57, 0.55, 0.52),
        "zico": (0.61, 0.61, 0.60),
    },
}
"""Kendall's tau on CIFAR-10, CIFAR-100 and ImageNet16-120, as the papers print it."""


def tables() -> Path:
    """The folder of the benchmark's tables."""
    folder = os.environ.get("NASBENCH_TABLES")
    if not folder:
        sys.exit("say where the benchmark's tables are: --tables FOLDER, or NASBENCH_TABLES in the environment")
    return Path(folder)


def accuracies(dataset: str) -> Any:
    """Test accuracies after 200 epochs."""
    return load_table(
        tables() / "nb201_results.csv.gz",
        format="csv",
        arch_column="arch",
        accuracy_column=COLUMNS[dataset],
        space="nasbench201",
        dataset=dataset,
    )


def published(dataset: str, cells: int, proxies: list[str], kept: str | None = None) -> Callable[[bool], Part]:
    """Cells of seed 0, N = 5, C = 16, batch 32, two processes; ``kept`` names a folder of scores to go on from."""

    def measure(quick: bool) -> Part:
        start = time.perf_counter()
        found: Correlation = correlate(
            proxies,
            accuracies(dataset),
            sample=20 if quick else cells,
            seed=0,
            batch_size=32,
            executor="process",
            workers=2,
            progress=False,
            space_options={"num_cells": 1, "channels": 4} if quick else {},
            out=None if quick or kept is None else ROOT / "runs" / f"{kept}_{cells}",
            cache=None if quick or kept is None else ROOT / "runs" / "nasbench201_scores.db",
            resume=kept is not None and not quick,
        )
        seconds = time.perf_counter() - start
        what = f"{dataset}: {found.sample:,} cells x {len(proxies)} proxies"
        # what was resumed says nothing about time: details have the milliseconds of each score
        figures = [] if kept is not None else [Figure(what, [seconds], "s", at_most=900)]
        place = list(COLUMNS).index(dataset)
        for each in found.proxies:
            name = each.proxy.partition(":")[0]
            others = {source: taus[name][place] for source, taus in PUBLISHED.items() if name in taus}
            said = "; ".join(f"{tau:.3f} {source.split()[0]}" for source, tau in others.items()) or "no figure"
            if each.kendall is not None:
                figures.append(Figure(f"{dataset}, {each.proxy}: tau (published: {said})", [each.kendall]))
            if name == "vkdnw":
                figures.append(vkdnw_single(found, each.proxy, dataset))
        details = {
            "settings": {
                "seed": found.seed,
                "sample": found.sample,
                "batch": found.batch_size,
                "space": found.space_options,
            },
            "proxies": [
                {
                    name: getattr(each, name)
                    for name in (
                        *("proxy", "kendall", "kendall_interval", "spearman", "ndcg", "regret"),
                        *("kendall_given_flops", "failed", "milliseconds"),
                    )
                }
                for each in found.proxies
            ],
        }
        return Part(figures, details)

    return measure


def vkdnw_single(found: Correlation, proxy: str, dataset: str) -> Figure:
    """VKDNW as its paper ranks networks of several sizes: with the number of trainable layers added.

    Cells differ in their convolutions alone, each of which is there once a cell of three stages.
    """
    cells = 3 * found.space_options["num_cells"]
    scores = np.array(found.scores[proxy]) + [cells * row.count("nor_conv") for row in found.rows]
    scored = np.isfinite(scores)
    tau = kendalltau(scores[scored], np.array(found.accuracy)[scored]).statistic
    paper = "VKDNW paper (arXiv:2502.04975)"
    published = PUBLISHED[paper]["vkdnw_single"][list(COLUMNS).index(dataset)]
    return Figure(f"{dataset}, {proxy} with the number of layers added: tau (published: {published} VKDNW)", [tau])


def counts(quick: bool) -> Part:
    """What is read off the architecture, on all 15,625 cells."""
    start = time.perf_counter()
    found = correlate(
        ["params", "flops", "layers"],
        accuracies("cifar10"),
        sample=500 if quick else None,
        progress=False,
    )
    seconds = time.perf_counter() - start
    figures = [
        Figure(f"params, FLOPs and layers of {found.sample:,} cells, with the report", [seconds], "s", at_most=60)
    ]
    figures += [Figure(f"{each.proxy}: tau", [each.kendall]) for each in found.proxies if each.kendall is not None]
    return Part(figures)


REFERENCE = {
    "synflow": ("synflow", 0.97),
    "l2_norm": ("l2_norm", 0.97),
    "naswot": ("nwot", 0.9),
    "snip": ("snip", 0.9),
    "grad_norm": ("grad_norm", 0.9),
    "fisher": ("fisher", None),
    "jacob_cov": ("jacov", None),
    "zen": ("zen", None),
    "grasp": ("grasp", None),
    "plain": ("plain", None),
    "epe_nas": ("epe_nas", None),
}
"""Our proxy, the column of the same in NAS-Bench-Suite-Zero, and the agreement in rank that is to be reached.

That of l2_norm is out of reach: see the part ``l2_norm``.
"""


def reference_cells(count: int) -> tuple[list[str], list[dict[str, str]]]:
    """Cells with no dead operation, and their rows of NAS-Bench-Suite-Zero's scores on CIFAR-10."""
    with gzip.open(tables() / "nb201_results.csv.gz", "rt", encoding="utf-8") as file:
        texts = {row["index"]: row["arch"] for row in csv.DictReader(file)}
    with gzip.open(tables() / "nb201_proxies.csv.gz", "rt", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "cifar10"]
    rows = [row for row in rows if all(float(row[column]) > -1e8 for column, _ in REFERENCE.values())]
    chosen = [rows[index] for index in np.random.default_rng(0).permutation(len(rows))[:count]]
    return [texts[row["index"]] for row in chosen], chosen


def reference(quick: bool) -> Part:
    """Spearman between our scores and NAS-Bench-Suite-Zero's on CIFAR-10, cells with no dead operation."""
    from zeroshot_nas.execution import get_executor
    from zeroshot_nas.runs.evaluate import Job, evaluate
    from zeroshot_nas.scoring.proxy import get_proxy

    count = 20 if quick else 300
    texts, chosen = reference_cells(count)
    space = zs.get_space("nasbench201")
    nets = [space.from_string(text) for text in texts]
    exact = [
        (zs.cost(net).params == round(1e6 * float(row["params"])), float(row["flops"]))
        for net, row in zip(nets, chosen, strict=True)
    ]
    proxies = tuple(get_proxy(name) for name in REFERENCE)
    jobs = [Job(net, proxies, 0, {"repeats": 1, "batch_size": 32}) for net in nets]
    with get_executor("process", workers=2) as executor:
        scores = list(evaluate(jobs, executor))
    figures = [
        Figure("share of cells whose params are the same", [float(np.mean([same for same, _ in exact]))], at_least=1)
    ]
    for name, (column, target) in REFERENCE.items():
        ours = [each[name].value for each in scores]
        theirs = [float(row[column]) for row in chosen]
        agree = float(spearmanr(ours, theirs, nan_policy="omit").statistic)
        figures.append(Figure(f"{name}: Spearman with the reference's scores, {count} cells", [agree], at_least=target))
    return Part(figures)


def l2_norm(quick: bool) -> Part:
    """How far l2_norm's agreement with the reference can go: at its weights' draw, cells of equally many layers tie."""
    count = 20 if quick else 300
    texts, rows = reference_cells(count)
    theirs = np.array([float(row["l2_norm"]) for row in rows])
    space = zs.get_space("nasbench201")
    convolutions = np.array([text.count("conv") for text in texts])
    within = [theirs[convolutions == number].std() for number in set(convolutions)]
    figures = [
        Figure(
            "reference's l2_norm: Spearman with the number of convolutions in the cell",
            [float(spearmanr(convolutions, theirs).statistic)],
        ),
        Figure(
            "reference's l2_norm: largest standard deviation among cells of one number, over the step to the next",
            [float(max(within) / np.polyfit(convolutions, theirs, 1)[0])],
        ),
    ]
    for init in ("kaiming", "gaussian", "PyTorch's"):
        ours = np.array([_l2_norm(space.from_string(text), init, seed) for seed, text in enumerate(texts)])
        figures += [
            Figure(f"l2_norm, init {init}: Spearman with the reference", [float(spearmanr(ours, theirs).statistic)]),
            Figure(f"l2_norm, init {init}: Pearson with the reference", [float(np.corrcoef(ours, theirs)[0, 1])]),
        ]
    figures.append(
        Figure("l2_norm, init PyTorch's: mean of ours over the reference's", [float((ours / theirs).mean())])
    )
    return Part(figures)


def _l2_norm(architecture: zs.Architecture, init: str, seed: int) -> float:
    """At an initialisation of ours, or as ``nn.Conv2d`` and ``nn.Linear`` draw their weights by themselves."""
    if init != "PyTorch's":
        return zs.score(architecture, "l2_norm", init=init, repeats=1, batch_size=2).value
    network = zs.build(architecture, init="keep")
    torch.manual_seed(seed)
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.modules.conv._ConvNd.reset_parameters(part)
        elif isinstance(part, nn.Linear):
            nn.Linear.reset_parameters(part)
    shape = architecture.input_size
    return zs.score(network, "l2_norm", init="keep", input_size=shape, repeats=1, batch_size=2).value


if __name__ == "__main__":
    if "--tables" in sys.argv:
        place = sys.argv.index("--tables")
        os.environ["NASBENCH_TABLES"] = sys.argv[place + 1]
        del sys.argv[place : place + 2]
    main(
        "nasbench201",
        {
            "counts": counts,
            "reference": reference,
            "l2_norm": l2_norm,
            "cifar10": published("cifar10", 1_000, PROXIES),
            "cifar100": published("cifar100", 1_000, PROXIES),
            "imagenet16": published("ImageNet16-120", 1_000, PROXIES),
            "cifar10_dear": published("cifar10", DEAR_CELLS, DEAR, "nasbench201_cifar10"),
            "cifar100_dear": published("cifar100", DEAR_CELLS, DEAR, "nasbench201_cifar100"),
            "imagenet16_dear": published("ImageNet16-120", DEAR_CELLS, DEAR, "nasbench201_imagenet16"),
        },
        __doc__,
    )
