"""Rank agreement of FLOPs, params and our prediction with true latency: on this machine, and on six other devices.

The six are HW-NAS-Bench's (arXiv:2103.10584); ``HW_NAS_BENCH`` names its pickle, or its figures as CSV. Without it only
this machine is measured. The plot goes to ``docs/latency.png``.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from common import ROOT, Figure, Part, main
from latency import BACKEND, FULL, INPUT_SIZE, MAX_FLOPS, QUICK, table
from matplotlib.figure import Figure as Plot
from scipy.stats import spearmanr

import zeroshot_nas as zs
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.latency.base import measure
from zeroshot_nas.latency.calibration_networks import calibration_networks
from zeroshot_nas.nasbench.hardware import DEVICES, device_costs, fit_device, sampled

PLOT = ROOT / "docs" / "latency.png"
SAMPLES = (50, 200, 1_000)
WORST = {200: 0.95}


def here(quick: bool) -> Part:
    """This machine: unseen networks of both spaces together, as a search that chooses among them sees them."""
    size, limit = (QUICK, 5e6) if quick else (FULL, MAX_FLOPS)
    figures, rows = [], {}
    for space in ("resnet", "mobilenet"):
        networks = calibration_networks(zs.get_space(space, input_size=INPUT_SIZE), size.unseen, limit, seed=2_000)
        costs = [complexity(each) for each in networks]
        rows[space] = {
            "measured_ms": [measure(each, BACKEND, seconds=size.seconds).latency_ms for each in networks],
            "FLOPs": [each.flops for each in costs],
            "params": [each.params for each in costs],
            "prediction": [table(space, quick).latency_ms(each) for each in networks],
        }
    rows["both"] = {name: [*rows["resnet"][name], *rows["mobilenet"][name]] for name in rows["resnet"]}
    for where, columns in rows.items():
        figures += [
            Figure(f"here, {where}: Spearman of {name} and latency", [_rho(columns[name], columns["measured_ms"])])
            for name in ("FLOPs", "params", "prediction")
        ]
    if not quick:
        _plot(rows["resnet"], rows["mobilenet"])
    return Part(figures, rows)


def devices(quick: bool) -> Part:
    """Six devices, NAS-Bench-201: predictions from few measured samples, on all cells that were not among them."""
    file = os.environ.get("HW_NAS_BENCH")
    if file is None:
        return Part([], {"left out": "HW_NAS_BENCH names no file"})
    space = zs.get_space("nasbench201")
    figures, details = [], {}
    seeds = range(1 if quick else 3)
    for device in DEVICES:
        for metric in ("latency", "energy") if device in ("edgegpu", "eyeriss", "fpga") else ("latency",):
            costs = device_costs(file, device, metric)
            cells, truth = sampled(costs, 2_000 if quick else costs.samples, seed=1)
            if metric == "latency":
                networks = [complexity(space.network(cell)) for cell in cells[:2_000]]
                for name in ("flops", "params"):
                    rho = _rho([getattr(each, name) for each in networks], truth[:2_000])
                    figures.append(Figure(f"{device}: Spearman of {name} and latency", [rho]))
            for samples in SAMPLES:
                runs = []
                for seed in seeds:
                    chosen, values = sampled(costs, samples, seed=100 + seed)
                    found = fit_device(chosen, values, device=device, metric=metric)
                    seen = set(chosen)
                    unseen = [index for index, cell in enumerate(cells) if cell not in seen]
                    runs.append(
                        _rho([found.value(cells[index]) for index in unseen], [truth[index] for index in unseen])
                    )
                    details[f"{device} {metric} from {samples}, seed {seed}"] = found.details
                target = WORST.get(samples) if metric == "latency" else None
                what = f"{device}: Spearman of the prediction from {samples} samples and {metric}"
                figures.append(Figure(what, runs, at_least=target))
    return Part(figures, details)


def _plot(*spaces: dict[str, list[float]]) -> None:
    """Latency against each, both axes logarithmic."""
    figure = Plot(figsize=(10, 3.4), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, (name, unit) in zip(
        axes, (("FLOPs", "multiply-adds"), ("params", ""), ("prediction", "ms")), strict=True
    ):
        for label, marker, rows in zip(("resnet", "mobilenet"), ("o", "^"), spaces, strict=True):
            axis.scatter(rows[name], rows["measured_ms"], s=18, marker=marker, alpha=0.7, label=label)
        everything = [rows[name] for rows in spaces], [rows["measured_ms"] for rows in spaces]
        rho = _rho(*(np.concatenate(each).tolist() for each in everything))
        axis.set(
            xscale="log", yscale="log", xlabel=f"{name} ({unit})" if unit else name, title=f"rank agreement {rho:.3f}"
        )
        axis.grid(alpha=0.3)
        if name == "prediction":
            axis.axline((0.1, 0.1), (10, 10), color="0.5", linewidth=1, zorder=0, label="as predicted")
    axes[0].set_ylabel("measured latency (ms)")
    axes[0].legend(frameon=False)
    axes[2].legend(axes[2].lines, ["as predicted"], frameon=False)
    figure.savefig(PLOT, dpi=110)


def _rho(a: list[float], b: list[float]) -> float:
    return float(spearmanr(a, b).statistic)


if __name__ == "__main__":
    main(Path(__file__).stem, {"here": here, "devices": devices}, __doc__ or "")
