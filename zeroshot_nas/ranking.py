"""Orders of candidates: the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other point dominates, in the order given; smaller is better on every axis.

    A point dominates another where it is nowhere larger and somewhere smaller. Of equal points the first is kept.

    Args:
        points: ``n`` points with the same number of coordinates.

    Example:
        >>> pareto_front([(1, 5), (2, 2), (3, 3), (5, 1), (2, 2)])
        [0, 1, 3]
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (tuple(points[i]), i)):
        # whatever dominates a point sorts before it, so only points already kept need a look
        if not any(all(a <= b for a, b in zip(points[kept], points[index], strict=True)) for kept in front):
            front.append(index)
    return sorted(front)
