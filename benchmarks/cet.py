"""CET: how the measured version agrees with the closed form, and what it costs.

measured      300 cells of NAS-Bench-201 (N = 1, C = 16, seed 0), each measured once at batch 8 and read in closed form:
              Spearman's correlation of P, E, D and the score; cells that have neither are left out and counted
measured_cost the measured version on a residual network of 0.5 million parameters at batch 8, against one forward plus
              one backward pass of the same module on the same images, taking turns
"""

from __future__ import annotations

import statistics
from concurrent.futures import ProcessPoolExecutor

import torch
from common import Figure, Part, main, seconds_of
from scipy.stats import spearmanr
from torch import nn

from zeroshot_nas import Architecture, Batch, build, cost
from zeroshot_nas.meanfield.cet import CetPieces, cet_pool
from zeroshot_nas.proxies.cet import measure_cet
from zeroshot_nas.proxies.scoring import score
from zeroshot_nas.seeding import python_rng, torch_generator
from zeroshot_nas.spaces.nasbench201 import NASBench201

BATCH = 8
PIECES = ("U", "H_U", "S", "H_S", "P", "PF", "W", "W_L2", "E", "E_m", "D_f", "D_b", "D")
HALF_A_MILLION = (
    "SuperConvK3BNRELU(3,24,1,1)SuperResK3K3(24,32,1,32,2)SuperResK3K3(32,64,2,64,2)SuperResK3K3(64,112,2,88,2)"
)


def of_module(architecture: Architecture) -> dict[str, float] | None:
    """The measured pieces of a cell, built and hidden in a module that is not ours; None where it has none."""
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
        {**vars(each), "D": each.D, "score": float(each.value())} if isinstance(each, CetPieces) else None
        for each in cet_pool(cells)
    ]
    both = [(a, b) for a, b in zip(modules, graphs, strict=True) if a is not None and b is not None]
    figures = [
        Figure(
            f"{name}: Spearman of measured and closed form, {len(both)} cells",
            [float(spearmanr([a[name] for a, _ in both], [b[name] for _, b in both]).statistic)],
            at_least=0.9 if name in ("P", "E", "D", "score") else None,
        )
        for name in (*PIECES, "score")
    ]
    ratios = {name: statistics.median(a[name] / b[name] for a, b in both if b[name] > 0) for name in (*PIECES, "score")}
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


PARTS = {"measured": measured, "measured_cost": measured_cost}

if __name__ == "__main__":
    main("cet", PARTS, __doc__ or "")
