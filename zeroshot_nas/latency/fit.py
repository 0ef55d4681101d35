"""From measured networks to a device table."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.kernels import Kernel, kernels
from zeroshot_nas.errors import LatencyError, MissingExtraError
from zeroshot_nas.latency.device_table import DeviceTable, Fingerprint, KernelModel, Observed, Overhead, features
from zeroshot_nas.spaces.base import SearchSpace

_LEAST_MS = 1e-4
"""What a profiler with a resolution of a microsecond calls nothing counts as this in logarithms."""

_RIDGE = 1.0
LEAST_NETWORKS = 8
"""Fewer networks make no table."""

_LEFT_OUT = 5
"""Every fifth network is left out of a trial fit, which tells the table's error."""


@dataclass(frozen=True)
class Timed:
    """A network that was measured.

    Attributes:
        architecture: The network.
        latency_ms: The whole of it.
        spread: Of the whole.
        kernels_ms: Each kernel in place, in order; 0 for one that another took in.
    """

    architecture: Architecture
    latency_ms: float
    spread: float
    kernels_ms: tuple[float, ...]


def fit_table(
    networks: Sequence[Timed], fingerprint: Fingerprint, space: SearchSpace, details: Mapping[str, Any]
) -> DeviceTable:
    """A table from measured networks.

    For each kind of kernel, ridge regression on the standardised features, their squares and products fits the
    logarithm of its milliseconds. Then factor, per-kernel and per-network overhead are fitted by least squares to the
    networks' relative errors. The details tell ``median_error``, that of a fit without every fifth network on these,
    and of each of these ``left_out_ms``, measured and predicted.

    Args:
        networks: What was measured.
        fingerprint: On what.
        space: Whose networks they are.
        details: What else the table should keep.

    Raises:
        LatencyError: There are too few networks.
        MissingExtraError: scikit-learn is not installed.
    """
    if len(networks) < LEAST_NETWORKS:
        raise LatencyError(f"a device table needs at least {LEAST_NETWORKS} networks, got {len(networks)}")
    left_out = networks[::_LEFT_OUT]
    trial = _fit([each for index, each in enumerate(networks) if index % _LEFT_OUT], fingerprint, space, {})
    checked = [[each.latency_ms, trial.latency_ms(each.architecture)] for each in left_out]  # lists, as JSON has them
    error = statistics.median(abs(predicted / measured - 1) for measured, predicted in checked)
    return _fit(networks, fingerprint, space, {**details, "median_error": error, "left_out_ms": checked})


def _fit(
    networks: Sequence[Timed], fingerprint: Fingerprint, space: SearchSpace, details: Mapping[str, Any]
) -> DeviceTable:
    samples: defaultdict[Kernel, list[float]] = defaultdict(list)
    for network in networks:
        for kernel, latency_ms in zip(kernels(network.architecture), network.kernels_ms, strict=True):
            samples[kernel].append(latency_ms)
    observed = {kernel: Observed(statistics.median(values), len(values)) for kernel, values in samples.items()}
    by_kind: defaultdict[str, list[Kernel]] = defaultdict(list)
    for kernel in observed:
        by_kind[kernel.kind].append(kernel)
    models = {kind: _fit_kind(members, observed) for kind, members in sorted(by_kind.items())}
    largest = max(network.latency_ms for network in networks)
    draft = DeviceTable(fingerprint, space.name, space.input_size, observed, models)
    overhead = _fit_overhead(draft, networks)
    most = max(sum(draft.kernel_ms(each) > 0 for each in kernels(network.architecture)) for network in networks)
    return replace(draft, overhead=overhead, largest_ms=largest, most_kernels=float(most), details=dict(details))


def _fit_kind(members: Sequence[Kernel], observed: Mapping[Kernel, Observed]) -> KernelModel | None:
    """The regressor of one kind; None where none of its kernels ever took time."""
    try:
        from sklearn.linear_model import Ridge
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise MissingExtraError("scikit-learn", "latency") from None
    values = np.array([observed[kernel].latency_ms for kernel in members])
    if not values.any():
        return None
    logarithms = np.log(np.maximum(values, _LEAST_MS))
    scaler = StandardScaler()
    z = scaler.fit_transform([features(kernel) for kernel in members])
    rows, columns = np.triu_indices(z.shape[1])
    ridge = Ridge(_RIDGE)
    weights = np.sqrt([observed[kernel].observations for kernel in members])
    ridge.fit(np.hstack([z, z[:, rows] * z[:, columns]]), logarithms, sample_weight=weights)
    quadratic = np.zeros((z.shape[1],) * 2)
    quadratic[rows, columns] = ridge.coef_[z.shape[1] :]
    return KernelModel(
        mean=tuple(scaler.mean_.tolist()),
        scale=tuple(scaler.scale_.tolist()),
        intercept=float(ridge.intercept_),
        linear=tuple(ridge.coef_[: z.shape[1]].tolist()),
        quadratic=tuple(map(tuple, quadratic.tolist())),
        low=float(logarithms.min()),
        high=float(logarithms.max()),
    )


def _fit_overhead(draft: DeviceTable, networks: Sequence[Timed]) -> Overhead:
    rows = []
    for network in networks:
        predicted = [draft.kernel_ms(kernel) for kernel in kernels(network.architecture)]
        rows.append([sum(predicted), sum(each > 0 for each in predicted), 1.0])
    measured = np.array([network.latency_ms for network in networks])
    shares = np.array(rows) / measured[:, None]
    solution, *_ = np.linalg.lstsq(shares, np.ones(len(measured)), rcond=None)
    if solution[0] <= 0:  # networks so small that their kernels are less than the noise: these are taken as measured
        rest, *_ = np.linalg.lstsq(shares[:, 1:], 1 - shares[:, 0], rcond=None)
        solution = np.array([1.0, *rest])
    return Overhead(*map(float, solution))
