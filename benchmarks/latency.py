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
from time import process_time_ns
from typing import Any

from common import Figure, Part, main, run_process
from scipy.stats import spearmanr, wilcoxon

import zeroshot_nas as zs
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.closed_form.zen import zen_closed_form
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import LatencyWarning
from zeroshot_nas.latency.base import measure
from zeroshot_nas.latency.calibrate import calibrate, is_here, table_file
from zeroshot_nas.latency.calibration_networks import calibration_networks
from zeroshot_nas.latency.device_table import DeviceTable
from zeroshot_nas.searchers.base import Problem, SearchResult
from zeroshot_nas.searchers.regularized_evolution import RegularizedEvolution
from zeroshot_nas.searching.proposer import Proposer

BACKEND = "onnxruntime"
SPACES = ("resnet", "mobilenet")
INPUT_SIZE = (3, 32, 32)
MAX_FLOPS = 3e8
QUICK_MAX_FLOPS = 5e6
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
    repeats: int


FULL = Sizes(networks=160, unseen=60, seconds=0.6, proposals=20_000, searches=20, seeds=10, steps=6, repeats=3)
QUICK = Sizes(networks=8, unseen=4, seconds=0.005, proposals=500, searches=2, seeds=1, steps=1, repeats=2)


def sizes(quick: bool) -> Sizes:
    return QUICK if quick else FULL


@lru_cache
def table(space: str, quick: bool, backend: str = BACKEND, input_size: Shape = INPUT_SIZE) -> DeviceTable:
    """This machine's table, measured if it is not there."""
    where = zs.get_space(space, input_size=input_size)
    file = table_file(backend, space, input_size)
    if quick:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "table.json"
            limit = QUICK_MAX_FLOPS * input_size[1] * input_size[2] / (INPUT_SIZE[1] * INPUT_SIZE[2])
            return calibrate(where, backend, networks=8, max_flops=limit, out=file, progress=False)
    if file.exists() and is_here(known := DeviceTable.load(file).fingerprint) and known.threads == 1:
        return DeviceTable.load(file)
    return calibrate(where, backend, networks=FULL.networks, max_flops=MAX_FLOPS, force=True)


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
    return _predictions(quick, {space: (space, BACKEND, INPUT_SIZE) for space in SPACES}, sizes(quick).unseen)


def settings(quick: bool) -> Part:
    """The same for larger images, and for another engine."""
    larger = (3, 96, 96)
    asked = {
        f"mobilenet at 3x96x96, {BACKEND}": ("mobilenet", BACKEND, larger),
        "mobilenet at 3x32x32, torch": ("mobilenet", "torch", INPUT_SIZE),
    }
    return _predictions(quick, asked, sizes(quick).unseen // 2)


def _predictions(quick: bool, asked: dict[str, tuple[str, str, Shape]], count: int) -> Part:
    """Spearman and median error of so many networks, for each name's space, backend and images."""
    size, figures, details = sizes(quick), [], {}
    for name, (space, backend, input_size) in asked.items():
        device = table(space, quick, backend, input_size)
        where = zs.get_space(space, input_size=input_size)
        limit = device.details["max_flops"]
        seen = set(calibration_networks(where, size.networks, limit, seed=0))
        others = calibration_networks(where, 2 * count, limit, seed=1_000)
        unseen = [each for each in others if each not in seen][:count]
        measured = [measure(each, backend, seconds=size.seconds) for each in unseen]
        predicted = [device.latency_ms(each) for each in unseen]
        flops = [complexity(each).flops for each in unseen]
        truth = [each.latency_ms for each in measured]
        errors = [abs(p / t - 1) for p, t in zip(predicted, truth, strict=True)]
        middle = sorted(errors)[len(errors) // 2]
        figures += [
            Figure(
                f"{name}: Spearman, predicted and measured, unseen networks", [_rho(predicted, truth)], at_least=0.95
            ),
            Figure(f"{name}: the same, FLOPs and measured", [_rho(flops, truth)]),
            Figure(f"{name}: median absolute error of the prediction", [100 * middle], "%", at_most=12),
        ]
        details[name] = {
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
    rows = [zen_pair(space, seed, quick) for space in SPACES for seed in range(sizes(quick).seeds)]
    gains = [row["gain"] for row in rows if row["gain"] is not None]
    test = "p of their being alike (Wilcoxon's signed-rank test, two-sided)"
    figures = [
        Figure("Zen-score under a latency budget less that under FLOPs, same latency", gains or [0.0], at_least=0),
        Figure(f"such pairs of {len(gains)} where latency's is above", [sum(gain > 0 for gain in gains)]),
        Figure(test, [float(wilcoxon(gains).pvalue) if len(gains) > 1 else 1.0]),
    ]
    for space in SPACES:
        alone = [row["gain"] for row in rows if row["space"] == space and row["gain"] is not None]
        figures.append(Figure(f"{space}: the same difference", alone or [0.0]))
    return Part(figures, {"pairs": rows})


def zen_pair(space: str, seed: int, quick: bool) -> dict[str, Any]:
    """One winner under 1 ms, and the best within the largest FLOPs budget whose winner is no slower than that one."""
    size = sizes(quick)
    fast = search(space, quick, seed, latency_ms=1.0)
    assert fast.latency is not None
    target = fast.latency["measured_ms"]
    low, high = 1e6, MAX_FLOPS
    best, tried = None, []
    for _ in range(size.steps):
        flops = (low * high) ** 0.5
        winner = search(space, quick, seed, flops=flops).best
        took = measure(winner.architecture, BACKEND, seconds=size.seconds).latency_ms
        tried.append([flops, took, winner.fitness])
        if took <= 1.02 * target:
            low, best = flops, max(best or -1e9, winner.fitness)
        else:
            high = flops
    zen_score = fast.best.fitness
    gain = None if best is None else zen_score - best
    return {"space": space, "seed": seed, "measured_ms": target, "zen": zen_score, "gain": gain, "flops": tried}


def cost(quick: bool) -> Part:
    """What one prediction adds to a proposal, timed within a search whose memos are empty at first.

    Each search is run several times; of every thousand predictions the fastest run's processor time counts, since what
    else runs on the machine only ever adds. Then the same networks are predicted again.
    """
    figures = []
    for space in SPACES:
        device, cold, warm = table(space, quick), [], []
        for seed in range(1 if quick else 3):
            runs = [_predicting(space, 5 * sizes(quick).proposals, seed, device) for _ in range(sizes(quick).repeats)]
            cold.append(_undisturbed([run[0] for run in runs]))
            warm.append(_undisturbed([run[1] for run in runs]))
        figures.append(Figure(f"{space}: one prediction in a search of 100,000 proposals", cold, "us", at_most=30))
        figures.append(Figure(f"{space}: the same, every block seen before", warm, "us"))
    return Part(figures)


def _predicting(space: str, proposals: int, seed: int, table: DeviceTable) -> tuple[list[float], list[float]]:
    """Microseconds of each prediction of a search by Zen-score in closed form; of the same ones again, behind it."""
    where = zs.get_space(space, input_size=INPUT_SIZE)
    device = DeviceTable.from_dict(table.to_dict())
    networks: list[Architecture] = []
    spent: list[float] = []

    def predict(architecture: Architecture) -> float:
        start = process_time_ns()
        latency_ms = device.latency_ms(architecture)
        spent.append((process_time_ns() - start) / 1e3)
        networks.append(architecture)
        return latency_ms

    searcher = RegularizedEvolution(where, python_rng(seed), where.initial())
    proposer = Proposer(searcher, Problem(zs.Budget(layers=LAYERS, latency_ms=3.0), "zen", latency_ms=predict))
    for candidates in proposer.batches(proposals, 64):
        proposer.tell([each.with_fitness(zen_closed_form(each.architecture)) for each in candidates])
    first, spent = spent, []
    for network in networks.copy():
        predict(network)
    return first, spent


def _undisturbed(runs: list[list[float]]) -> float:
    """Mean over predictions: of every thousand in a row, that of the run which took least."""
    starts = range(0, len(runs[0]), 1_000)
    return sum(min(sum(run[start : start + 1_000]) for run in runs) for start in starts) / len(runs[0])


def _rho(a: list[float], b: list[float]) -> float:
    return float(spearmanr(a, b).statistic)


if __name__ == "__main__":
    parts = {"prediction": prediction, "settings": settings, "cost": cost, "budgets": budgets, "zen": zen}
    main("latency", parts, __doc__ or "")
