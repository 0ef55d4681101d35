"""CET: how the measured version agrees with the closed form, and what it costs.

measured      300 cells of NAS-Bench-201 (N = 1, C = 16, seed 0), each measured once at batch 8 and read in closed form:
              Spearman's correlation of P, E, D and the score; cells that have neither are left out and counted
measured_cost the measured version on a residual network of 0.5 million parameters at batch 8, against one forward plus
              one backward pass of the same module on the same images, taking turns
nasbench201   tau of every variant on all 15,625 cells (N = 5, C = 16) with three data sets' accuracies, on the cells
              without dead operations, the regret of the first choice, and milliseconds a cell
macro         the same on NAS-Bench-Macro's 6,561 networks
mutation      microseconds for one more mutation of a chain, after some thousands: the closed form of CET as it is, by
              the general propagation of spectra, and beside it that of Zen-score
searches      20 searches by CET under each of three budgets in two spaces, with a limit of 40 layers that is there to
              be run into; how deep the winners are and how wide, beside those of Zen-score's closed form

``nasbench201`` and ``macro`` need tables of the benchmarks: the environment variable ``NASBENCH_TABLES`` names their
folder.
``results/cet_tried.jsonl`` lists every form of the score that was tried, with its figures on the part of the tables
that development saw.
"""

from __future__ import annotations

import csv
import gzip
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from common import Figure, Part, main, seconds_of
from scipy.stats import kendalltau, spearmanr
from torch import nn

from zeroshot_nas import Architecture, Batch, Budget, build, cost, get_space, search
from zeroshot_nas.closed_form.cet.explain import cet_explain
from zeroshot_nas.closed_form.cet.score import cet_pool, cet_terms_pool, plan_sequence, propagate, terms_of
from zeroshot_nas.closed_form.cet.terms import VARIANTS, CetTerms
from zeroshot_nas.closed_form.zen import zen_closed_form
from zeroshot_nas.core.garbage import paused_garbage_collection
from zeroshot_nas.core.seeding import python_rng, torch_generator
from zeroshot_nas.errors import UndefinedScoreError
from zeroshot_nas.scoring.engine import score
from zeroshot_nas.scoring.measured_cet import measure_cet
from zeroshot_nas.spaces.base import SearchSpace
from zeroshot_nas.spaces.nasbench201 import NASBench201
from zeroshot_nas.spaces.nasbench_macro import NASBenchMacro

BATCH = 8
TERMS = ("U", "H_U", "S", "H_S", "P", "PF", "W", "W_L2", "E", "E_m", "D_f", "D_b", "D")
HALF_A_MILLION = (
    "SuperConvK3BNRELU(3,24,1,1)SuperResK3K3(24,32,1,32,2)SuperResK3K3(32,64,2,64,2)SuperResK3K3(64,112,2,88,2)"
)


def of_module(architecture: Architecture) -> dict[str, float] | None:
    """The measured terms of a cell, built and hidden in a module that is not ours; None where it has none."""
    torch.set_num_threads(1)
    module = nn.Sequential(build(architecture))
    found = score(module, "cet", input_size=architecture.input_size, batch_size=BATCH, repeats=1, seed=0)
    return {**found.details, "score": found.value} if found.ok else None


def measured(quick: bool) -> Part:
    space, rng = NASBench201(num_cells=1), python_rng(0)
    cells = [space.sample(rng) for _ in range(12 if quick else 300)]
    with ProcessPoolExecutor(2) as pool:
        modules = list(pool.map(of_module, cells, chunksize=4))
    graphs = [
        {**vars(each), "D": each.D, "score": float(each.value())} if isinstance(each, CetTerms) else None
        for each in cet_terms_pool(cells)
    ]
    both = [(a, b) for a, b in zip(modules, graphs, strict=True) if a is not None and b is not None]
    figures = [
        Figure(
            f"{name}: Spearman of measured and closed form, {len(both)} cells",
            [float(spearmanr([a[name] for a, _ in both], [b[name] for _, b in both]).statistic)],
            at_least=0.9 if name in ("P", "E", "D", "score") else None,
        )
        for name in (*TERMS, "score")
    ]
    ratios = {name: statistics.median(a[name] / b[name] for a, b in both if b[name] > 0) for name in (*TERMS, "score")}
    only = [sum(a is not None and b is None for a, b in zip(modules, graphs, strict=True))]
    only.append(sum(a is None and b is not None for a, b in zip(modules, graphs, strict=True)))
    details = {
        "cells": len(cells),
        "measured alone": only[0],
        "closed form alone": only[1],
        "median of measured / closed form": ratios,
    }
    return Part(figures, details)


def measured_cost(quick: bool) -> Part:
    architecture = Architecture.from_string(HALF_A_MILLION)
    module = build(architecture, seed=0).train().to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, 32, 32, generator=torch_generator(0)).contiguous(memory_format=torch.channels_last)
    weights = list(module.parameters())

    def forward_and_backward() -> None:
        torch.autograd.grad(module(images).sum(), weights)

    def measure() -> None:
        measure_cet(module, Batch(images))

    forward_and_backward()
    measure()
    pairs = [(seconds_of(forward_and_backward), seconds_of(measure)) for _ in range(3 if quick else 41)]
    plain, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    groups = [pairs[start::5] for start in range(5)] if len(pairs) >= 5 else [pairs]
    ratios = [
        statistics.median(mine for _, mine in group) / statistics.median(other for other, _ in group)
        for group in groups
    ]
    figures = [
        Figure("measured CET over one forward plus one backward pass", ratios, at_most=3.0),
        Figure("one forward plus one backward pass", [1e3 * plain], "ms"),
        Figure("measured CET", [1e3 * ours], "ms"),
    ]
    return Part(figures, {"params": cost(architecture).params, "flops": cost(architecture).flops, "batch": BATCH})


COLUMNS = {"CIFAR-10": "c10_test_200", "CIFAR-100": "c100_test_200", "ImageNet16-120": "in16_test_200"}
ALL, ALIVE = (0.832, 0.813, 0.786), (0.80, 0.79, 0.75)
"""Targets of tau, by data set: all cells, and those without dead operations."""


def rows_of(name: str, quick: bool) -> list[dict[str, str]]:
    """A table's rows."""
    folder = os.environ.get("NASBENCH_TABLES")
    if not folder:
        sys.exit("say where the benchmark's tables are: NASBENCH_TABLES in the environment")
    with gzip.open(f"{folder}/{name}", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return rows[:200] if quick else rows


def values_of(terms: list[CetTerms | UndefinedScoreError], variant: str) -> np.ndarray:
    """Scores by a variant; what has none is ranked last."""
    return np.array([float(each.value(variant)) if isinstance(each, CetTerms) else -np.inf for each in terms])


def tau(scores: np.ndarray, accuracies: np.ndarray) -> float:
    return float(kendalltau(np.where(np.isinf(scores), -1e9, scores), accuracies).statistic)


def nasbench201(quick: bool) -> Part:
    rows = rows_of("nb201_results.csv.gz", quick)
    with_scores = {row["index"] for row in rows_of("nb201_proxies.csv.gz", False)}
    alive = np.array([row["index"] in with_scores for row in rows])
    space = NASBench201()
    cells = [space.from_string(row["arch"]) for row in rows]
    start, worked = time.perf_counter(), time.process_time()
    terms = cet_terms_pool(cells)
    milliseconds = 1e3 * (time.perf_counter() - start) / len(cells)
    processor = 1e3 * (time.process_time() - worked) / len(cells)  # what others do on the machine counts less
    figures = [
        Figure(f"milliseconds a cell, {len(cells):,} in one run, one core", [milliseconds], "ms", at_most=1.0),
        Figure("the same in processor time", [processor], "ms"),
    ]
    for variant in VARIANTS:
        scores, regrets = values_of(terms, variant), []
        for place, (dataset, column) in enumerate(COLUMNS.items()):
            accuracies = np.array([float(row[column]) for row in rows])
            regrets.append(float(accuracies.max() - accuracies[scores.argmax()]))
            first = variant == VARIANTS[0]
            for what, chosen, targets in (("all", alive | True, ALL), ("without dead operations", alive, ALIVE)):
                figures.append(
                    Figure(
                        f"{variant}: tau, {dataset}, {what} ({chosen.sum():,} cells)",
                        [tau(scores[chosen], accuracies[chosen])],
                        at_least=targets[place] if first else None,
                    )
                )
        figures.append(
            Figure(f"{variant}: mean regret of the first choice", [statistics.mean(regrets)], "points", at_most=0.35)
        )
    return Part(figures, {"failed": sum(not isinstance(each, CetTerms) for each in terms)})


def macro(quick: bool) -> Part:
    rows = rows_of("nbmacro_results.csv.gz", quick)
    space = NASBenchMacro()
    terms = cet_terms_pool(space.from_string(row["arch"]) for row in rows)
    accuracies = np.array([float(row["mean_acc"]) for row in rows])
    return Part(
        [
            Figure(
                f"{variant}: tau, {len(rows):,} networks",
                [tau(values_of(terms, variant), accuracies)],
                at_least=0.585 if variant == VARIANTS[0] else None,
            )
            for variant in VARIANTS
        ]
    )


def walk(space: SearchSpace, budget: Budget, steps: int, seed: int) -> list[Architecture]:
    """Mutations within a budget of a network that changes now and then, as a search makes them."""
    rng = python_rng(seed)
    parent, mutants = space.initial(), list[Architecture]()
    while len(mutants) < steps:
        mutant = space.mutate(parent, rng)
        if not budget.violations(cost(mutant)):
            mutants.append(mutant)
            parent = rng.choice((parent, parent, mutant))
    return mutants


def by_spectra(architecture: Architecture) -> None:
    """The terms of a chain by the general propagation."""
    list(terms_of(propagate([plan_sequence(architecture)], architecture.input_size, [architecture.num_classes])))


WALKS = {
    "resnet, 0.1 M params": ("resnet", (3, 32, 32), Budget(params=100e3, flops=10e6, layers=10)),
    "mobilenet, 0.1 M params": ("mobilenet", (3, 32, 32), Budget(params=100e3, flops=10e6, layers=10)),
    "resnet, 1 M params": ("resnet", (3, 32, 32), Budget(params=1e6, flops=60e6, layers=18)),
    "mobilenet, 1 M params": ("mobilenet", (3, 32, 32), Budget(params=1e6, flops=60e6, layers=18)),
}


def mutation(quick: bool) -> Part:
    figures, details = [], {}
    steps = 200 if quick else 1_000
    for name, (space, size, budget) in WALKS.items():
        found: dict[str, list[float]] = {"cet": [], "zen": [], "spectra": []}
        for seed in range(1 if quick else 5):
            mutants = walk(get_space(space, input_size=size), budget, 2 * steps, seed)
            early, late, few = mutants[:steps], mutants[steps:], mutants[steps : steps + 50]
            ways: dict[str, tuple[Callable[[list[Architecture]], object], list[Architecture]]] = {
                "cet": (generations, late),
                "zen": (lambda networks: [zen_closed_form(each) for each in networks], late),
                "spectra": (lambda networks: [by_spectra(each) for each in networks], few),
            }
            for way, (function, asked) in ways.items():
                if way != "spectra":
                    function(early)
                with paused_garbage_collection():  # as in a search
                    seconds = seconds_of(lambda function=function, asked=asked: function(asked))
                found[way].append(1e6 * seconds / len(asked))
        figures += [
            Figure(f"{name}: CET of one more mutation, a generation at a time", found["cet"], "us", at_most=100),
            Figure(f"{name}: by spectra, one by one, over that", ratios(found["spectra"], found["cet"])),
            Figure(f"{name}: that over Zen-score's closed form, one by one", ratios(found["cet"], found["zen"])),
        ]
        convolutions = [len(cet_explain(each)) for each in mutants[-100:]]
        details[name] = {"budget": budget.limits(), "median convolutions": statistics.median(convolutions)}
    return Part(figures, details)


def generations(networks: list[Architecture]) -> None:
    """CET of networks, as many at a time as evolution proposes."""
    for first in range(0, len(networks), 64):
        cet_pool(networks[first : first + 64])


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True)]


BUDGETS = (
    Budget(params=100e3, flops=10e6, layers=40),
    Budget(params=300e3, flops=30e6, layers=40),
    Budget(params=1e6, flops=60e6, layers=40),
)


def searches(quick: bool) -> Part:
    proposals = 500 if quick else 20_000
    figures, details = [], {}
    for proxy, seeds in (("cet", range(1 if quick else 20)), ("zen_closed_form", range(1 if quick else 3))):
        at_limit, searched = 0, 0
        for space in ("resnet", "mobilenet"):
            for budget in BUDGETS:
                winners = [
                    search(space, proxy, budget, proposals=proposals, finalists=1, seed=seed, progress=False).best
                    for seed in seeds
                ]
                layers = [cost(each.architecture).layers for each in winners]
                at_limit += sum(each > 36 for each in layers)
                searched += len(winners)
                what = f"{proxy}, {space}, {budget.params:,.0f} params"
                figures.append(Figure(f"{what}: layers of the winner", layers))
                details[what] = [each.architecture.to_string() for each in winners]
                print(what, layers, file=sys.stderr, flush=True)
        limit = 2 if proxy == "cet" else None
        figures.append(Figure(f"{proxy}: winners of {searched} with 37 to 40 layers", [at_limit], at_most=limit))
    return Part(figures, details)


PARTS = {
    "measured": measured,
    "measured_cost": measured_cost,
    "nasbench201": nasbench201,
    "macro": macro,
    "mutation": mutation,
    "searches": searches,
}

if __name__ == "__main__":
    main("cet", PARTS, __doc__ or "")
