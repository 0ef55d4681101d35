"""Prices of costs that make a relaxation's bound small: Kelley's cutting planes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zeroshot_nas.bounds.relaxation import Chain, Domain, Potentials, Relaxation
from zeroshot_nas.bounds.tables import Array

_STEEPEST = 5.0
"""Bound on the price of a count, which is a slope of the score's end."""


def priced(relaxation: Relaxation, domain: Domain, start: Array, steps: int) -> Iterator[tuple[Potentials, Chain]]:
    """Potentials for prices that are tried one after the other, each with a chain that reaches its bound.

    The bound is convex in the prices, and a chain that reaches it gives a plane below it. The next prices lie between
    the best so far and those where the planes are least.
    """
    from scipy.optimize import linprog

    limits = relaxation.limits.costs
    scale = np.concatenate([[1.0], limits])  # prices times limits are of the score's size
    planes: list[Array] = []
    values: list[float] = []
    point, best, best_bound = start * scale, start * scale, np.inf
    widest = 4 * max(1.0, float(np.abs(point).sum()))
    counts = relaxation.ends.shape[1] > 1
    ranges = [(-_STEEPEST, _STEEPEST) if counts else (0.0, 0.0), *[(0.0, widest)] * len(limits), (None, None)]
    for _ in range(steps):
        found = relaxation.potentials(point / scale, domain)
        chain = relaxation.best_chain(found, domain)
        yield found, chain
        if found.bound < best_bound:
            best, best_bound = point, found.bound
        slope = relaxation.slopes(found, chain) / scale
        planes.append(np.append(slope, -1.0))
        values.append(float(slope @ point) - found.bound)
        lowest = linprog(np.append(np.zeros(len(point)), 1.0), np.array(planes), np.array(values), bounds=ranges)
        if not lowest.success or best_bound - lowest.fun < 1e-6 * max(1.0, abs(best_bound)):
            return
        point = 0.5 * best + 0.5 * lowest.x[:-1]
