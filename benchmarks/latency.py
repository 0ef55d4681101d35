"""Latency budgets: how well a device table predicts, whether budgets hold, and what they gain over FLOPs.

Run it on an idle machine. Tables that are there are used again: delete them to measure anew.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter

from common import Figure, Part, main, run_process
from scipy.stats import spearmanr

import zeroshot_nas as zs
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.costs.latency import DeviceTable
from zeroshot_nas.latency.base import measure
from zeroshot_nas.latency.calibrate import calibrate, is_here, table_file
from zeroshot_nas.latency.visits import visited_networks
from zeroshot_nas.searchers.base import SearchResult
from zeroshot_nas.searchers.deadline import LatencyWarning
from zeroshot_nas.searchers.proposer import Proposer
from zeroshot_nas.searchers.regularized_evolution import RegularizedEvolution
from zeroshot_nas.seeding import python_rng

BACKEND = "onnxruntime"
SPACES = ("resnet", "mobilenet")
INPUT_SIZE = (3, 32, 32)
MAX_FLOPS = 3e8
LAYERS = 18


@dataclass(frozen=True)
class Sizes:
    networks: int
    unseen: int
    seconds: float
    proposals: int
    searches: int
    seeds: int
    steps: int


FULL = Sizes(networks=160, unseen=60, seconds=0.6, proposals=20_000, searches=20, seeds=3, steps=6)
QUICK = Sizes(networks=8, unseen=4, seconds=0.02, proposals=500, searches=2, seeds=1, steps=1)


def sizes(quick: bool) -> Sizes:
    return QUICK if quick else FULL


@lru_cache
def table(space: str, quick: bool) -> DeviceTable:
    """This machine's table, measured if it is not there."""
    where = zs.get_space(space, input_size=INPUT_SIZE)
    file = table_file(BACKEND, space, INPUT_SIZE)
    if quick:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "table.json"
            return calibrate(where, BACKEND, networks=8, max_flops=5e6, out=file, progress=False)
    if file.exists() and is_here(known := DeviceTable.load(file).fingerprint) and known.threads == 1:
        return DeviceTable.load(file)
    return calibrate(where, BACKEND, networks=FULL.networks, max_flops=MAX_FLOPS, force=True)


def search(space: str, quick: bool, seed: int, **options: object) -> SearchResult:
    budget = zs.Budget(layers=LAYERS, **options)  # type: ignore[arg-type]
    device_table = table(space, quick) if "latency_ms" in options else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatencyWarning)  # --quick's table is of few networks
        return zs.search(
            space,
            "zen_closed_form",
            budget,
            input_size=INPUT_SIZE,
            proposals=sizes(quick).proposals,
            finalists=60,
            seed=seed,
            device_table=device_table,
            progress=False,
        )


def prediction(quick: bool) -> Part:
    """Predicted against measured, on networks that the fit never saw."""
    size, figures, details = sizes(quick), [], {}
    for space in SPACES:
        device = table(space, quick)
        where = zs.get_space(space, input_size=INPUT_SIZE)
        limit = 5e6 if quick else MAX_FLOPS
        seen = set(visited_networks(where, size.networks, limit, seed=0))
        others = visited_networks(where, 2 * size.unseen, limit, seed=1_000)
        unseen = [each for each in others if each not in seen][: size.unseen]
        measured = [measure(each, BACKEND, seconds=size.seconds) for each in unseen]
        predicted = [device.latency_ms(each) for each in unseen]
        flops = [complexity(each).flops for each in unseen]
        truth = [each.latency_ms for each in measured]
        errors = [abs(p / t - 1) for p, t in zip(predicted, truth, strict=True)]
        middle = sorted(errors)[len(errors) // 2]
        figures += [
            Figure(
                f"{space}: Spearman, predicted and measured, unseen networks", [_rho(predicted, truth)], at_least=0.95
            ),
            Figure(f"{space}: the same, FLOPs and measured", [_rho(flops, truth)]),
            Figure(f"{space}: median absolute error of the prediction", [100 * middle], "%", at_most=12),
        ]
        details[space] = {
            "predicted_ms": predicted,
            "measured_ms": truth,
            "flops": flops,
            "spreads": [each.spread for each in measured],
            "calibration": dict(device.details),
            "kernels": len(device.kernels),
        }
    return Part(figures, details)


def budgets(quick: bool) -> Part:
    """Whether the winner of a search keeps its budget in a process of its own, 5 % allowed for the machine."""
    size, rows = sizes(quick), []
    for index in range(size.searches):
        space = SPACES[index % 2]
        limit_ms = 0.4 * 10 ** (index / max(1, size.searches - 1))  # 0.4 to 4 ms
        result = search(space, quick, seed=index, latency_ms=limit_ms)
        assert result.latency is not None
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "best.json"
            file.write_text(result.best.architecture.to_json(), encoding="utf-8")
            command = [sys.executable, "-m", "zeroshot_nas", "latency", "measure", str(file), "--json"]
            printed = run_process([*command, "--backend", BACKEND, "--seconds", str(2 * size.seconds)]).printed
        again = json.loads(printed)[0]
        rows.append(
            {
                "space": space,
                "limit_ms": limit_ms,
                "predicted_ms": result.latency["predicted_ms"],
                "measured_ms": result.latency["measured_ms"],
                "again_ms": again["latency_ms"],
                "spread_again": again["spread"],
                "rounds": len(result.latency["prediction_limits_ms"]),
                "finalists_measured": len(result.latency["measurements"]),
                "zen": result.best.fitness,
            }
        )
        print(rows[-1], file=sys.stderr)
    kept = sum(row["again_ms"] <= 1.05 * row["limit_ms"] for row in rows)
    target = 1 if quick else 18
    figures = [
        Figure(f"searches of {size.searches} whose winner keeps its budget in a new process", [kept], at_least=target),
        Figure("measured again over budget", [row["again_ms"] / row["limit_ms"] for row in rows]),
        Figure("rounds of a search", [row["rounds"] for row in rows]),
    ]
    return Part(figures, {"searches": rows})


def zen(quick: bool) -> Part:
    """Zen-score under a latency budget, over that under a FLOPs budget whose winner takes as long."""
    size, gains, rows = sizes(quick), [], []
    for space in SPACES:
        for seed in range(size.seeds):
            fast = search(space, quick, seed, latency_ms=1.0)
            assert fast.latency is not None
            target = fast.latency["measured_ms"]
            low, high = 1e6, MAX_FLOPS
            best, tried = None, []
            for _ in range(size.steps):  # the largest FLOPs budget whose winner is no slower
                flops = (low * high) ** 0.5
                winner = search(space, quick, seed, flops=flops).best
                took = measure(winner.architecture, BACKEND, seconds=size.seconds).latency_ms
                tried.append([flops, took, winner.fitness])
                if took <= 1.02 * target:
                    low, best = flops, max(best or -1e9, winner.fitness)
                else:
                    high = flops
            rows.append({"space": space, "seed": seed, "measured_ms": target, "zen": fast.best.fitness, "flops": tried})
            if best is not None:
                gains.append(fast.best.fitness - best)
    figure = Figure("Zen-score under a latency budget less that under FLOPs, same latency", gains or [0.0], at_least=0)
    return Part([figure], {"pairs": rows})


def cost(quick: bool) -> Part:
    """What one prediction adds to a proposal of a search."""
    figures = []
    for space in SPACES:
        device = table(space, quick)
        runs = []
        for seed in range(1 if quick else 3):
            where = zs.get_space(space, input_size=INPUT_SIZE)
            budget = zs.Budget(flops=1e8, layers=LAYERS)
            searcher = RegularizedEvolution(where, python_rng(seed), where.initial())
            networks = []
            proposer = Proposer(searcher, budget)
            for candidates in proposer.batches(5 * sizes(quick).proposals, 1):
                networks += [each.architecture for each in candidates]
                proposer.tell([each.with_fitness(-abs(each.costs.flops - 5e7)) for each in candidates])
            fresh = DeviceTable.from_dict(device.to_dict())
            start = perf_counter()
            for network in networks:
                fresh.latency_ms(network)
            runs.append((perf_counter() - start) / len(networks) * 1e6)
        figures.append(Figure(f"{space}: one prediction in a search, empty memo at first", runs, "us", at_most=30))
    return Part(figures)


def _rho(a: list[float], b: list[float]) -> float:
    return float(spearmanr(a, b).statistic)


if __name__ == "__main__":
    parts = {"prediction": prediction, "cost": cost, "budgets": budgets, "zen": zen}
    main("latency", parts, __doc__ or "")
