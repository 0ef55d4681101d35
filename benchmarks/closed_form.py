"""Zen-score in closed form against the forward pass: how well it ranks, and how fast it and the search on it are.

    python benchmarks/closed_form.py                     # every part; about a quarter of an hour on two cores
    python benchmarks/closed_form.py --only forward_pass winner
    python benchmarks/closed_form.py --quick             # small sizes: shows that it runs

Parts: ``agreement`` on random networks, ``top_tenth`` among the best of an evolved population, ``forward_pass`` and
``search_480k`` against the plain loop of the field (`plain_zen`, `plain_loop`), ``winner`` against the published ZenNet
of the same size, ``whole_process`` of the command line. All but the last run torch on one thread. Each part measures
its baseline beside what it compares; results go to ``benchmarks/results/closed_form.json``, a table to the screen.
"""

from __future__ import annotations

import cProfile
import json
import math
import pstats
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import ROOT, Figure, Part, main, run_process, seconds_of
from scipy.stats import kendalltau, spearmanr
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas.closed_form.zen import zen_closed_form
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.network.module import without_residual_links

SMALL = zs.Budget(params=1e6, layers=18)
"""Params and layers of Zen-NAS's smallest searches on CIFAR."""

JUDGE = 1_000
"""Seed of scores that judge a search: disjoint from the seeds that searches score with."""


def agreement(quick: bool) -> Part:
    """Rank correlation with the forward pass on random networks, beside that of the forward pass with itself."""
    count, runs = (20, 1) if quick else (200, 3)
    figures, details = [], {}
    for space in ("resnet", "mobilenet"):
        for variant in ("paper", "zennas"):
            pairs = [_agreement_of(space, variant, count, seed, quick) for seed in range(runs)]
            what = f"Spearman on {count} random networks, {space}, {variant}"
            figures += [
                Figure(f"{what}: closed form / forward pass", [pair[0] for pair in pairs], at_least=0.995),
                Figure(f"{what}: forward pass / itself", [pair[1] for pair in pairs]),
            ]
            details[f"{space}, {variant}: forward pass minus closed form, mean"] = [pair[2] for pair in pairs]
    return Part(figures, details)


def _agreement_of(space: str, variant: str, count: int, seed: int, quick: bool) -> tuple[float, float, float]:
    networks, repeats = _random_networks(space, count, seed, 10e6 if quick else 40e6), 2 if quick else 4
    closed = [zen_closed_form(network, variant=variant) for network in networks]
    first, second = (_forward(networks, repeats, judge, variant) for judge in (seed, JUDGE + seed))
    bias = statistics.fmean(first) - statistics.fmean(closed)
    return _spearman(closed, first), _spearman(second, first), bias


def _random_networks(name: str, count: int, seed: int, max_flops: float) -> list[zs.Architecture]:
    space, rng = zs.get_space(name), python_rng(seed)
    networks: list[zs.Architecture] = []
    while len(networks) < count:
        network = space.sample(rng)
        if zs.cost(network).flops <= max_flops:
            networks.append(network)
    return networks


def top_tenth(quick: bool) -> Part:
    """Kendall's tau among the best tenth of an evolved population, where networks differ least.

    The population is the best networks that a search saw. FLOPs are limited so that
    forward passes of all members take a minute.
    """
    members, repeats, runs = (60, 2, 1) if quick else (300, 8, 3)
    figures, details = [], {}
    for proposals in (500, 1_000) if quick else (5_000, 20_000):
        seeds = [_taus(proposals, members, repeats, seed) for seed in range(runs)]
        what = f"Kendall, best {members} of {proposals:,} proposals"
        for name, target in (("best tenth", 0.80), ("all", None)):
            closed, itself = zip(*(each[name] for each in seeds), strict=True)
            figures += [
                Figure(f"{what}, {name}: closed form / forward pass", closed, at_least=target),
                Figure(f"{what}, {name}: forward pass / itself", itself),
            ]
        details[what] = [each["spread"] for each in seeds]
    return Part(figures, details)


def _taus(proposals: int, members: int, repeats: int, seed: int) -> dict[str, Any]:
    budget = zs.Budget(params=1e6, layers=18, flops=60e6)
    found = zs.search(
        "resnet", "zen_closed_form", budget, proposals=proposals, finalists=members, seed=seed, progress=False
    )
    networks = [candidate.architecture for candidate in found.history]
    closed = [zen_closed_form(network) for network in networks]
    halves = [_forward(networks, repeats // 2, judge) for judge in (JUDGE, JUDGE + 1)]
    forward = [(a + b) / 2 for a, b in zip(*halves, strict=True)]
    best = sorted(range(len(networks)), key=forward.__getitem__, reverse=True)[: len(networks) // 10]
    leaders = [networks[index] for index in best]  # judged anew: those that luck brought here count for what they are
    among_best, again = (_forward(leaders, 8 * repeats, judge) for judge in (JUDGE + 2, JUDGE + 3))
    return {
        "best tenth": (_kendall([closed[index] for index in best], among_best), _kendall(again, among_best)),
        "all": (_kendall(closed, forward), _kendall(*halves)),
        "spread": {
            "forward pass, best": max(forward),
            "forward pass, least of the best tenth": min(among_best),
            "forward pass, least": min(forward),
            "standard error of one member": _half_difference(among_best, again),
        },
    }


def _half_difference(first: Sequence[float], second: Sequence[float]) -> float:
    """Standard error of either of two measurements of the same networks, up to what all networks share."""
    return statistics.stdev([a - b for a, b in zip(first, second, strict=True)]) / math.sqrt(2)


def search_480k(quick: bool) -> Part:
    """A search on the closed form in a process of its own, against the plain loop on networks of the same kind."""
    proposals, runs, scored = (4_000, 1, 3) if quick else (480_000, 3, 30)
    searches = [_search_in_a_process(proposals, seed) for seed in range(runs)]
    ours = [1e6 * each["seconds"] / proposals for each in searches]
    ours_scored = [1e6 * each["seconds"] / each["counts"]["screened"] for each in searches]
    parents = _evolved(proposals // 4)
    loops = [plain_loop(parents, SMALL, scored, random.Random(seed)) for seed in range(runs)]
    per_proposal = [1e6 * seconds / proposed for seconds, proposed in loops]
    per_scored = [1e6 * seconds / scored for seconds, _ in loops]
    name = f"{proposals:,} proposals on the closed form"
    return Part(
        [
            Figure(name, [each["seconds"] for each in searches], "s", at_most=15),
            Figure(f"{name}: a proposal", ours, "µs"),
            Figure("plain loop: a proposal", per_proposal, "µs"),
            Figure("plain loop / ours, a proposal", _ratios(per_proposal, ours), "x", at_least=3_000),
            Figure("plain loop / ours, a proposal that is scored", _ratios(per_scored, ours_scored), "x"),
            Figure(f"{name}: peak memory", [each["peak_gb"] for each in searches], "GB"),
        ],
        {
            "searches": searches,
            "share of proposals that the plain loop scored": [scored / proposed for _, proposed in loops],
            "cProfile, 12 by own time": _profile(2_000 if quick else 50_000),
        },
    )


_SEARCH = """
import json, sys, time, torch, zeroshot_nas as zs
torch.set_num_threads(1)
start = time.perf_counter()
found = zs.search("resnet", "zen_closed_form", zs.Budget(params=1e6, layers=18), proposals=int(sys.argv[1]),
                  seed=int(sys.argv[2]), progress=False)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "split": found.seconds, "counts": vars(found.counts),
                  "best": found.best.architecture.to_string(), "score": found.best.fitness}))
"""


def _search_in_a_process(proposals: int, seed: int) -> dict[str, Any]:
    """A search that finds no memo filled by another."""
    process = run_process([sys.executable, "-c", _SEARCH, str(proposals), str(seed)])
    return {**json.loads(process.printed), "peak_gb": process.peak_gb, "process_seconds": process.seconds}


def _evolved(proposals: int, budget: zs.Budget = SMALL, seed: int = JUDGE) -> list[zs.Architecture]:
    """The population of a search on the closed form, the best first."""
    found = zs.search("resnet", "zen_closed_form", budget, proposals=proposals, seed=seed, progress=False)
    return [candidate.architecture for candidate in found.history]


def plain_loop(
    parents: Sequence[zs.Architecture], budget: zs.Budget, scored: int, rng: random.Random
) -> tuple[float, int]:
    """The field's loop: mutate, count, build the module, two forward passes. Seconds, and how many it proposed."""
    space, start, proposed, done = zs.get_space("resnet"), time.perf_counter(), 0, 0
    while done < scored:
        network = space.mutate(rng.choice(parents), rng, 2)
        proposed += 1
        if not budget.violations(zs.cost(network), network):
            plain_zen(zs.build(network, init="keep"))
            done += 1
    return time.perf_counter() - start, proposed


@torch.no_grad()
def plain_zen(network: zs.Network, batch_size: int = 16, alpha: float = 0.01) -> float:
    """One repeat of Zen-score as the field's code computes it: a module, new weights, two passes.

    A batch norm of momentum 1 keeps the batch's variance, so that to read it costs nothing further.
    """
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight)
    network.train()
    images = torch.randn(batch_size, *network.architecture.input_size)
    with without_residual_links(network):
        features = network.forward_features(images)
        variances = [norm.running_var.mean().item() for norm in norms]  # 1 where a shortcut is off
        moved = network.forward_features(images + alpha * torch.randn_like(images))
    distance = (features - moved).flatten(1).norm(dim=1).mean().item()
    return math.log(distance) + sum(0.5 * math.log(variance) for variance in variances)


def _profile(proposals: int) -> list[dict[str, Any]]:
    """Where a search on the closed form spends its own time."""
    profile = cProfile.Profile()
    profile.runcall(_evolved, proposals)
    stats = pstats.Stats(profile)
    rows = sorted(stats.stats.items(), key=lambda row: row[1][2], reverse=True)[:12]
    return [
        {"function": f"{Path(file).name}:{line} {name}", "calls": calls, "share": own / stats.total_tt}
        for (file, line, name), (_, calls, own, _, _) in rows
    ]


def forward_pass(quick: bool) -> Part:
    """One repeat of the fast forward pass against the plain one, at equal standard error."""
    draws, runs, candidates = (4, 1, 1) if quick else (32, 5, 5)
    budget = zs.Budget(params=1e6, layers=18, flops=160e6)
    evolved = [_evolved(300 if quick else 3_000, budget, seed)[0] for seed in range(candidates)]
    networks = {"published ZenNet-1M": published(), **{f"evolved, seed {i}": each for i, each in enumerate(evolved)}}
    rows = {name: _forward_pass_of(network, draws, runs) for name, network in networks.items()}
    fast, plain, shared, floor = (_medians(rows, key) for key in ("fast_ms", "plain_ms", "shared_ms", "floor_ms"))
    fast_variance, plain_variance = (
        statistics.fmean(row[key] ** 2 for row in rows.values()) for key in ("fast_deviation", "plain_deviation")
    )
    worth = plain_variance / fast_variance
    over = f"median over {len(networks)} networks"
    return Part(
        [
            Figure(f"forward pass, one repeat at batch 2, {over}", fast, "ms"),
            Figure("the same, weights drawn before (4 repeats, as in a search)", shared, "ms"),
            Figure("the same: its convolutions alone", floor, "ms"),
            Figure(f"plain forward pass, one repeat at batch 16, {over}", plain, "ms"),
            Figure("standard deviation of a repeat, ours at batch 2", [math.sqrt(fast_variance)]),
            Figure("standard deviation of a repeat, plain at batch 16", [math.sqrt(plain_variance)]),
            Figure("plain / ours, time at equal standard error", _scaled(_ratios(plain, fast), worth), "x", at_least=8),
            Figure("the same, weights drawn before", _scaled(_ratios(plain, shared), worth), "x"),
        ],
        {"networks": rows, "profile of ours on the ZenNet, shares": _operations(published())},
    )


def _forward_pass_of(network: zs.Architecture, draws: int, runs: int) -> dict[str, Any]:
    """Times (a list of runs each, ours and the plain one in turn) and deviations on one network."""
    module = zs.build(network, init="gaussian")
    convolutions = _bare_convolutions(module, images=4)
    zs.score(network, "zen", repeats=4, batch_size=2)  # draws the weights that `shared_ms` finds
    times: dict[str, list[float]] = {"fast_ms": [], "shared_ms": [], "floor_ms": [], "plain_ms": []}
    for _ in range(runs):
        for key, repeats, work in (
            ("shared_ms", 16, lambda: [zs.score(network, "zen", repeats=4, batch_size=2) for _ in range(4)]),
            ("fast_ms", 16, lambda: zs.score(network, "zen", repeats=16, batch_size=2)),
            ("floor_ms", 8, lambda: [convolutions() for _ in range(8)]),
            ("plain_ms", 2, lambda: [plain_zen(module) for _ in range(2)]),
        ):
            zs.score(network, "zen", repeats=4, batch_size=2)
            times[key].append(1e3 * seconds_of(work) / repeats)
    sample = zs.score(network, "zen", repeats=draws, batch_size=2, seed=JUDGE)
    torch.manual_seed(0)
    plain = [plain_zen(module) for _ in range(draws)]
    return {
        **times,
        "fast_deviation": (sample.standard_error or math.nan) * math.sqrt(draws),
        "plain_deviation": statistics.stdev(plain),
        "fast_mean": sample.value,
        "plain_mean": statistics.fmean(plain),
        "mega_flops": zs.cost(network).flops / 1e6,
    }


def _bare_convolutions(module: zs.Network, images: int) -> Callable[[], None]:
    """Runs the convolutions of the main chain alone, on inputs of their shapes with channels last."""
    calls: list[tuple[nn.Conv2d, torch.Tensor]] = []

    def keep(conv: nn.Module, arguments: tuple[torch.Tensor], _: torch.Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        calls.append((conv, torch.randn_like(arguments[0]).contiguous(memory_format=torch.channels_last)))

    handles = [part.register_forward_hook(keep) for part in module.modules() if isinstance(part, nn.Conv2d)]
    with torch.no_grad(), without_residual_links(module):
        module.forward_features(torch.randn(images, *module.architecture.input_size))
    for handle in handles:
        handle.remove()
    kernels = [torch.randn(conv.weight.shape).contiguous(memory_format=torch.channels_last) for conv, _ in calls]

    @torch.no_grad()
    def run() -> None:
        for (conv, inputs), kernel in zip(calls, kernels, strict=True):
            torch.conv2d(inputs, kernel, None, conv.stride, conv.padding, 1, conv.groups)

    return run


def _operations(network: zs.Architecture) -> dict[str, float]:
    """Shares of the fast pass's time in convolutions, batch norms, drawing weights, and the rest."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        zs.score(network, "zen", repeats=16, batch_size=2)
    kinds = {"convolution": "conv", "batch norm": "batch_norm", "drawing weights": "normal_"}
    shares = dict.fromkeys([*kinds, "other operations"], 0.0)
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    for event in events:
        kind = next((kind for kind, word in kinds.items() if word in event.key), "other operations")
        shares[kind] += event.self_cpu_time_total / total
    return shares


def winner(quick: bool) -> Part:
    """The winner of a default search by the forward pass, under the published ZenNet's own costs, against it."""
    proposals, runs = (5_000, 1) if quick else (480_000, 3)
    variant, theirs = "zen:variant=zennas", published()
    budget = zs.Budget(params=zs.cost(theirs).params, flops=zs.cost(theirs).flops, layers=theirs.layers)
    margins, searches = [], []
    for seed in range(runs):
        found = zs.search("resnet", variant, budget, proposals=proposals, seed=seed, progress=False)
        scores = [
            zs.score(each, variant, batch_size=16, repeats=8, seed=JUDGE + seed)
            for each in (found.best.architecture, theirs)
        ]
        margins.append(scores[0].value - scores[1].value)
        searches.append(
            {
                "winner": found.best.architecture.to_string(),
                "costs": found.best.costs.to_dict(),
                "score": vars(scores[0]),
                "published": vars(scores[1]),
                "seconds": found.seconds,
            }
        )
    what = f"winner of {proposals:,} proposals minus ZenNet-1M, same params, FLOPs, layers (zennas, batch 16)"
    return Part([Figure(what, margins, at_least=6)], {"budget": budget.limits(), "searches": searches})


def whole_process(quick: bool) -> Part:
    """The command line with its default settings, from start to written files."""
    runs = 1 if quick else 3
    with tempfile.TemporaryDirectory() as folder:
        limits = ["--max-params", "1M", "--max-flops", "160M", "--max-layers", "18", "--quiet"]
        command = [sys.executable, "-m", "zeroshot_nas", "search", *limits, *(["--proposals", "500"] if quick else [])]
        processes = [run_process([*command, "--out", str(Path(folder) / str(run))]) for run in range(runs)]
        results = [json.loads((Path(folder) / str(run) / "result.json").read_text()) for run in range(runs)]
    return Part(
        [
            Figure("zeroshot-nas search, whole process", [process.seconds for process in processes], "s", at_most=40),
            Figure("the same: peak memory", [process.peak_gb for process in processes], "GB", at_most=1.5),
        ],
        {
            "options": limits,
            "settings": results[0].get("settings"),
            "searches": [{key: result.get(key) for key in ("seconds", "counts")} for result in results],
        },
    )


def published() -> zs.Architecture:
    """Zen-NAS's published network of 1M parameters for CIFAR-10."""
    networks = json.loads((ROOT / "tests" / "data" / "zennets.json").read_text(encoding="utf-8"))["networks"]
    (entry,) = (each for each in networks if each["name"] == "zennet_cifar_model_size1M_res32")
    return zs.Architecture.from_string(entry["plainnet"], (3, 32, 32), entry["num_classes"])


def _forward(
    networks: Sequence[zs.Architecture], repeats: int, seed: int, variant: str = "paper", batch_size: int = 2
) -> list[float]:
    """Forward-pass scores, each the mean of several repeats."""
    proxy = f"zen:variant={variant}"
    return [zs.score(each, proxy, repeats=repeats, batch_size=batch_size, seed=seed).value for each in networks]


def _spearman(a: Sequence[float], b: Sequence[float]) -> float:
    return float(spearmanr(a, b).statistic)


def _kendall(a: Sequence[float], b: Sequence[float]) -> float:
    return float(kendalltau(a, b).statistic)


def _medians(rows: dict[str, dict[str, Any]], key: str) -> list[float]:
    """For each run the median over networks."""
    return [statistics.median(values) for values in zip(*(row[key] for row in rows.values()), strict=True)]


def _ratios(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(slow, fast, strict=True)]


def _scaled(values: Sequence[float], factor: float) -> list[float]:
    return [value * factor for value in values]


if __name__ == "__main__":
    assert __doc__ is not None
    main(
        "closed_form",
        {
            "agreement": agreement,
            "top_tenth": top_tenth,
            "search_480k": search_480k,
            "forward_pass": forward_pass,
            "winner": winner,
            "whole_process": whole_process,
        },
        __doc__,
    )
