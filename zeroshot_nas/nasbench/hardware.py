"""Other people's devices: latency and energy of NAS-Bench-201's networks, looked up or predicted from a few samples."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.blocks.cells import EDGES, OPERATIONS
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import DataError, MissingExtraError, UnknownNameError
from zeroshot_nas.latency.device_table import Fingerprint
from zeroshot_nas.nasbench.base import load_figures
from zeroshot_nas.nasbench.table import DATASET_IMAGES
from zeroshot_nas.spaces.genotypes import Digits
from zeroshot_nas.spaces.nasbench201 import NASBench201

DEVICES = {
    "edgegpu": "NVIDIA Jetson TX2",
    "raspi4": "Raspberry Pi 4",
    "edgetpu": "Google Edge TPU",
    "pixel3": "Google Pixel 3",
    "eyeriss": "Eyeriss, an accelerator that was simulated",
    "fpga": "Xilinx ZC706 FPGA",
}
"""HW-NAS-Bench's devices."""

METRICS = {"latency": "ms", "energy": "mJ"}
"""What was measured, with its unit; energy of edgegpu, eyeriss and fpga only."""

_OUTPUT = 3
_FOLDS = 5
_LEAST_SAMPLES = 10


@dataclass(frozen=True)
class DeviceCosts:
    """What networks of NAS-Bench-201 cost on one device; usable as ``device_table`` of a search where it is latency.

    Get one from `device_costs` or `fit_device`.

    Attributes:
        device: Which one, a key of `DEVICES` or the user's own word.
        metric: ``"latency"`` or ``"energy"``.
        dataset: For which images.
        value: The cost of a genotype; NaN where it is not known.
        samples: How many measurements it rests on.
        largest: The largest of them.
        details: How it was fitted; empty where it was looked up.
        spec: What `device_costs` was called with; None where it was fitted.
    """

    device: str
    metric: str
    dataset: str
    value: Callable[[Digits], float]
    samples: int
    largest: float
    details: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, str] | None = field(default=None, kw_only=True, compare=False)

    def __call__(self, architecture: Architecture) -> float:
        """Milliseconds or millijoules of a network.

        Raises:
            DataError: It is no network of NAS-Bench-201, or was not measured.
        """
        genotype = self._space.genotype_of(architecture)
        if genotype is None:
            raise DataError(f"{self.device} was measured on networks of nasbench201, and this is none")
        found = self.value(genotype)
        if math.isnan(found):
            raise DataError(
                f"{self.metric} of {genotype} on {self.device} was not measured; predict it with fit_device"
            )
        return found

    def latency_ms(self, architecture: Architecture) -> float:
        """Milliseconds of a network; infinite where it did not run there.

        Raises:
            DataError: This is not latency, or it is no network of NAS-Bench-201.
        """
        if self.metric != "latency":
            raise DataError(f"these costs are {self.metric}, not latency")
        genotype = self._space.genotype_of(architecture)
        if genotype is None:
            raise DataError(f"{self.device} was measured on networks of nasbench201, and this is none")
        found = self.value(genotype)
        return math.inf if math.isnan(found) else found

    @property
    def space(self) -> str:
        return self._space.name

    @property
    def input_size(self) -> Shape:
        return DATASET_IMAGES[self.dataset][0]

    @property
    def largest_ms(self) -> float:
        return self.largest

    @property
    def fingerprint(self) -> Fingerprint:
        """A device that is not here."""
        return Fingerprint(DEVICES.get(self.device, self.device), None, "unknown", "HW-NAS-Bench", self.device)

    @cached_property
    def digest(self) -> str:
        """Equal where costs are alike; read from a few hundred networks."""
        values = [self.value(tuple(python_rng(0, index).choices(range(5), k=6))) for index in range(300)]
        return hashlib.sha256(json.dumps([self.device, self.metric, values]).encode()).hexdigest()[:16]

    @cached_property
    def _space(self) -> NASBench201:
        return NASBench201()


def device_costs(path: str | Path, device: str, metric: str = "latency", dataset: str = "cifar10") -> DeviceCosts:
    """What HW-NAS-Bench measured on a device (Li et al., ICLR 2021, arXiv:2103.10584).

    Args:
        path: ``HW-NAS-Bench-v1_0.pickle``, or its latencies and energies as CSV.
        device: A key of `DEVICES`.
        metric: ``"latency"`` in milliseconds or ``"energy"`` in millijoules.
        dataset: ``"cifar10"``, ``"cifar100"`` or ``"ImageNet16-120"``.

    Raises:
        UnknownNameError: No device or metric has that name.
        DataError: The device's energy was not measured.
        FileFormatError: The file is damaged.
    """
    for kind, name, known in (("device", device, DEVICES), ("metric", metric, METRICS)):
        if name not in known:
            raise UnknownNameError(kind, name, known)
    figures = load_figures(path, dataset=dataset)
    column = f"{device}_{metric}"
    if column not in figures.columns:
        raise DataError(f"{figures.name} holds no {column}; it holds {', '.join(figures.columns)}")
    space = NASBench201()
    genotypes = (space.parse(row, figures.code) for row in figures.rows)
    values = dict(zip(genotypes, figures.columns[column].tolist(), strict=True))
    known_values = [value for value in values.values() if not math.isnan(value)]
    return DeviceCosts(
        device,
        metric,
        figures.dataset,
        _LookUp(values),
        len(known_values),
        max(known_values, default=math.nan),
        spec={"path": str(Path(path).resolve()), "device": device, "metric": metric, "dataset": figures.dataset},
    )


def sampled(costs: DeviceCosts, count: int, seed: int = 0) -> tuple[list[Digits], list[float]]:
    """Random networks that were measured, with what they cost.

    Args:
        costs: What was measured.
        count: How many; fewer where fewer were measured.
        seed: Seed of the choice.
    """
    genotypes = [genotype for genotype in _all_genotypes() if not math.isnan(costs.value(genotype))]
    chosen = python_rng(seed).sample(genotypes, min(count, len(genotypes)))
    return chosen, [costs.value(genotype) for genotype in chosen]


def fit_device(
    genotypes: Sequence[Digits],
    values: Sequence[float],
    *,
    device: str,
    metric: str = "latency",
    dataset: str = "cifar10",
) -> DeviceCosts:
    r"""Predicts a device from a few measured networks, so that nobody need own it.

    A cost is a constant and a sum over the cell's edges; ridge regression fits what an operation adds. Devices differ
    in which edges they run: all of them, those from which the output can be reached (what a converter prunes), or
    those that also the input reaches. Which, and whether an operation costs the same on every edge, is decided by the
    error of five-fold cross-validation.

    Args:
        genotypes: The measured cells, six digits each in `zeroshot_nas.blocks.cells.OPERATIONS`.
        values: What they cost.
        device: What to call the device.
        metric: ``"latency"`` or ``"energy"``.
        dataset: For which images.

    Raises:
        DataError: There are too few samples, or they don't fit together.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> cells = [(3, a, b, 1, c, 1) for a in range(5) for b in range(5) for c in range(5)]
        >>> costs = [1.0 + 2.0 * cell.count(3) for cell in cells]  # 2 ms for each 3x3 convolution
        >>> predictor = fit_device(cells, costs, device="mine")
        >>> predictor.details["edges"], round(predictor.value((3, 3, 3, 1, 0, 1)), 1)
        ('all', 7.0)
    """
    try:
        from sklearn.linear_model import RidgeCV
        from sklearn.model_selection import KFold, cross_val_predict
    except ImportError:
        raise MissingExtraError("scikit-learn", "latency") from None
    measured = np.array(values, dtype=np.float64)
    if len(genotypes) < _LEAST_SAMPLES or measured.shape != (len(genotypes),) or not np.isfinite(measured).all():
        raise DataError(
            f"expected {_LEAST_SAMPLES} cells or more with a finite cost each, got {len(genotypes)} cells and "
            f"{measured.size} costs, {int(np.isfinite(measured).sum())} of them finite"
        )
    folds = KFold(_FOLDS, shuffle=True, random_state=0)
    best = (math.inf, "", False, np.zeros(0), 0.0)
    for edges in _VIEWS:
        for by_place in (False, True):
            features = np.array([_features(genotype, edges, by_place) for genotype in genotypes])
            ridge = RidgeCV(np.logspace(-3, 3, 13))
            error = float(np.sqrt(np.mean((cross_val_predict(ridge, features, measured, cv=folds) - measured) ** 2)))
            if error < best[0]:
                ridge.fit(features, measured)
                best = (error, edges, by_place, ridge.coef_, float(ridge.intercept_))
    error, edges, by_place, coefficients, constant = best
    details = {"edges": edges, "by_place": by_place, "error": error}
    value = _Additive(edges, by_place, tuple(coefficients.tolist()), constant)
    return DeviceCosts(device, metric, dataset, value, len(genotypes), float(measured.max()), details)


@dataclass(frozen=True)
class _LookUp:
    """Measured costs by genotype."""

    values: dict[Any, float]

    def __call__(self, genotype: Digits) -> float:
        return self.values.get(genotype, math.nan)


@dataclass(frozen=True)
class _Additive:
    """A sum over edges."""

    edges: str
    by_place: bool
    coefficients: tuple[float, ...]
    constant: float

    def __call__(self, genotype: Digits) -> float:
        features = _features(genotype, self.edges, self.by_place)
        return self.constant + sum(a * b for a, b in zip(self.coefficients, features, strict=True))


def _all_edges(genotype: Digits) -> Digits:
    return tuple(genotype)


def _needed_edges(genotype: Digits) -> Digits:
    """The edges from which the output can be reached."""
    nodes = {_OUTPUT}
    for place, (source, end) in sorted(zip(genotype, EDGES, strict=True), key=lambda each: -each[1][0]):
        if place and end in nodes:
            nodes.add(source)
    return tuple(place if end in nodes else 0 for place, (_, end) in zip(genotype, EDGES, strict=True))


def _live_edges(genotype: Digits) -> Digits:
    """The edges on a way from the input to the output."""
    nodes = {0}
    for place, (source, end) in sorted(zip(genotype, EDGES, strict=True), key=lambda each: each[1][0]):
        if place and source in nodes:
            nodes.add(end)
    needed = _needed_edges(genotype)
    return tuple(place if source in nodes else 0 for place, (source, _) in zip(needed, EDGES, strict=True))


_VIEWS: dict[str, Callable[[Digits], Digits]] = {"all": _all_edges, "needed": _needed_edges, "live": _live_edges}


def _features(genotype: Digits, edges: str, by_place: bool) -> list[float]:
    """How often each operation runs, and where asked also on which edge."""
    places = _VIEWS[edges](genotype)
    counts = [float(places.count(operation)) for operation in range(1, len(OPERATIONS))]
    if by_place:
        counts += [float(place == operation) for place in places for operation in range(1, len(OPERATIONS))]
    return counts


def _all_genotypes() -> list[Digits]:
    return list(itertools.product(range(len(OPERATIONS)), repeat=len(EDGES)))
