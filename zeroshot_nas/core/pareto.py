"""Several objectives at once: fronts, crowding, hypervolume. Points are rows; smaller is better on every axis."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from zeroshot_nas.core.lazy import LazyModule

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

Points: TypeAlias = Any
"""Rows of numbers, of equal lengths: lists, tuples, or an array of two dimensions."""

_Item = TypeVar("_Item")


def nondominated_ranks(points: Points) -> np.ndarray:
    """Of each point the number of its front, from 0 (Deb et al., IEEE TEC 6(2), 2002, NSGA-II's fast sort).

    Front 0 holds the points that no other dominates, front 1 those that only points of front 0 do, and so on. A point
    dominates another where it is nowhere larger and somewhere smaller, so equal points share a front.

    Example:
        >>> nondominated_ranks([(1, 5), (2, 2), (3, 3), (5, 1), (4, 4)]).tolist()
        [0, 0, 1, 0, 2]
    """
    rows = _rows(points)
    no_larger = _no_larger(rows)
    dominates = no_larger & ~no_larger.T
    ranks = np.full(len(rows), -1)
    dominators = dominates.sum(0)
    rank = 0
    while (front := np.flatnonzero((dominators == 0) & (ranks < 0))).size:
        ranks[front] = rank
        dominators = dominators - dominates[front].sum(0)
        rank += 1
    return ranks


def crowding_distances(points: Points) -> np.ndarray:
    """How far the neighbours of each point of a front are: the sum over axes of their distance over the axis' range.

    The least and the largest on an axis are infinitely far (Deb et al. 2002).

    Example:
        >>> crowding_distances([(0, 4), (1, 2), (2, 1), (4, 0)]).tolist()
        [inf, 1.25, 1.25, inf]
    """
    rows = _rows(points)
    distances = np.zeros(len(rows))
    for values in rows.T:
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        extent = ordered[-1] - ordered[0] if len(ordered) else 0.0
        if extent > 0:
            distances[order[1:-1]] += (ordered[2:] - ordered[:-2]) / extent
            distances[order[[0, -1]]] = np.inf
    return distances


def least_crowded(points: Points, count: int) -> list[int]:
    """Places of ``count`` points that are spread along a front, in the order given.

    The most crowded leaves until so many are left, and distances are taken anew each time: taken once, they would empty
    whole stretches of a front.

    Example:
        >>> least_crowded([(0, 9), (1, 8), (2, 7), (5, 3), (9, 0)], 3)
        [0, 3, 4]
    """
    rows = _rows(points)
    distances = crowding_distances(rows).tolist()
    axes = [_Axis(values) for values in rows.T if np.ptp(values) > 0]
    left = set(range(len(rows)))
    heap = [(distance, -place) for place, distance in enumerate(distances)]  # of equals the last leaves
    heapq.heapify(heap)
    while len(left) > count:
        distance, negative = heapq.heappop(heap)
        if -negative not in left or distance != distances[-negative]:
            continue  # it has left, or is less crowded by now
        left.remove(-negative)
        for place in {neighbour for axis in axes for neighbour in axis.leave(-negative)}:
            distances[place] = sum(axis.distance(place) for axis in axes)
            heapq.heappush(heap, (distances[place], -place))
    return sorted(left)


class _Axis:
    """Values in their order, out of which some leave."""

    def __init__(self, values: np.ndarray) -> None:
        order = np.argsort(values, kind="stable").tolist()
        self.values: list[float] = values.tolist()
        self.extent: float = self.values[order[-1]] - self.values[order[0]]
        self.before: dict[int, int | None] = dict(zip(order, [None, *order[:-1]], strict=True))
        self.after: dict[int, int | None] = dict(zip(order, [*order[1:], None], strict=True))

    def leave(self, place: int) -> list[int]:
        """Takes a value out; its neighbours."""
        before, after = self.before[place], self.after[place]
        if before is not None:
            self.after[before] = after
        if after is not None:
            self.before[after] = before
        return [neighbour for neighbour in (before, after) if neighbour is not None]

    def distance(self, place: int) -> float:
        """From neighbour to neighbour, over the extent of all."""
        before, after = self.before[place], self.after[place]
        if before is None or after is None:
            return math.inf
        gap: float = self.values[after] - self.values[before]
        return gap / self.extent


def hypervolume(points: Points, reference: Sequence[float]) -> float:
    """Volume of what some point dominates and that dominates the reference point (Zitzler and Thiele, 1998).

    Exact. Points that are not better than the reference on every axis add nothing. Time grows with the number of axes:
    200 points take some milliseconds on three, and some seconds on five.

    Args:
        points: ``n`` points with the same number of coordinates.
        reference: A point that is worse than they are.

    Example:
        >>> hypervolume([(1, 3), (2, 2), (4, 1)], (4, 4))
        5.0
    """
    corner = np.asarray(reference, dtype=float)
    rows = _rows(points, len(corner))
    return _volume(rows[(rows < corner).all(1)], corner)


def largest_hypervolume(points: Points, count: int, reference: Sequence[float]) -> list[int]:
    """Places of ``count`` points of large hypervolume together, the one that adds most first.

    Greedy: each adds the most to those before it, which gives at least 63 % (1 - 1/e) of the best that so many points
    can have (Nemhauser et al., 1978). Points that add nothing come last, in the order given.

    Example:
        >>> largest_hypervolume([(0, 9), (1, 8), (5, 3), (9, 0)], 2, (10, 10))
        [2, 1]
    """
    corner = np.asarray(reference, dtype=float)
    rows = _rows(points, len(corner))
    gains = np.clip(corner - rows, 0, None).prod(1)
    # what a point adds never grows with those chosen, so that a stale gain is an upper bound
    heap = [(-float(gain), place, 0) for place, gain in enumerate(gains)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < count:
        gain, place, seen = heapq.heappop(heap)
        if seen < len(chosen) and gain < 0:
            gain = _covered(rows[chosen], rows[place], corner) - float(gains[place])
            heapq.heappush(heap, (min(gain, 0.0), place, len(chosen)))
        else:
            chosen.append(place)
    return chosen


class Archive(Generic[_Item]):
    """The points that none seen so far dominates, with what they stand for; of equal points the first.

    Args:
        capacity: Members kept. Up to twice as many are held, then `least_crowded` keeps the capacity; None keeps all.

    Example:
        >>> archive: Archive[str] = Archive()
        >>> [archive.add(point, name) for point, name in (((2, 2), "a"), ((3, 3), "b"), ((1, 3), "c"), ((1, 1), "d"))]
        [True, False, True, True]
        >>> archive.items
        ['d']
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.items: list[_Item] = []
        self._columns = np.empty((0, 64))  # one row an axis, with room for more points than there are

    @property
    def points(self) -> np.ndarray:
        """The members' points, in the order of the items."""
        return self._columns[:, : len(self.items)].T

    def add(self, point: Sequence[float], item: _Item) -> bool:
        """Enters a point that no member dominates or equals, in place of those that it dominates."""
        if not self.items:
            self._columns = np.empty((len(point), 64))
        count = len(self.items)
        better, worse = np.ones(count, dtype=bool), np.ones(count, dtype=bool)
        for members, value in zip(self._columns[:, :count], point, strict=True):
            better &= members <= value
            worse &= members >= value
        if better.any():
            return False
        if worse.any():
            self._keep(np.flatnonzero(~worse))
            count = len(self.items)
        if count == self._columns.shape[1]:
            self._columns = np.concatenate([self._columns, np.empty_like(self._columns)], axis=1)
        self._columns[:, count] = point
        self.items.append(item)
        if self.capacity is not None and len(self.items) >= 2 * self.capacity:
            self.thin()
        return True

    def thin(self) -> None:
        """Keeps the capacity."""
        if self.capacity is not None and len(self.items) > self.capacity:
            self._keep(least_crowded(self.points, self.capacity))

    def _keep(self, places: Sequence[int] | np.ndarray) -> None:
        self._columns[:, : len(places)] = self._columns[:, places]
        self.items = [self.items[place] for place in places]


def _rows(points: Points, axes: int = 0) -> np.ndarray:
    rows = np.asarray(points, dtype=float)
    return rows if rows.ndim == 2 else rows.reshape(len(rows), axes)


def _no_larger(rows: np.ndarray) -> np.ndarray:
    """Whether the point of a row is nowhere larger than that of a column."""
    result = np.ones((len(rows), len(rows)), dtype=bool)
    for values in rows.T:  # axis by axis, so that no array has three dimensions
        result &= values[:, None] <= values[None, :]
    return result


def _volume(rows: np.ndarray, corner: np.ndarray) -> float:
    """The hypervolume of points that are better than the corner.

    Slices along the last axis; from slice to slice the area grows by what one point dominates and none before it does
    (While et al., IEEE TEC 16(1), 2012).
    """
    if len(rows) < 2:
        return float((corner - rows).prod(1).sum())
    if len(corner) < 3:
        return _area(rows, corner)
    rows = rows[np.argsort(rows[:, -1], kind="stable")]
    flat, edge = rows[:, :-1], corner[:-1]
    inclusive = (edge - flat).prod(1)
    thickness = np.diff(rows[:, -1], append=corner[-1])
    area = volume = 0.0
    for place, own in enumerate(flat):
        area += float(inclusive[place]) - _covered(flat[:place], own, edge)
        volume += area * float(thickness[place])
    return volume


def _covered(others: np.ndarray, own: np.ndarray, corner: np.ndarray) -> float:
    """The part of a point's own volume that others dominate too."""
    shared = np.maximum(others, own)
    shared = shared[(shared < corner).all(1)]
    if len(corner) > 2 and len(shared) > 1:
        shared = np.unique(shared, axis=0)
        shared = shared[_no_larger(shared).sum(0) == 1]  # of distinct points each is no larger than itself alone
    return _volume(shared, corner)


def _area(rows: np.ndarray, corner: np.ndarray) -> float:
    """The hypervolume on one or two axes."""
    if len(corner) == 1:
        return float(corner[0] - rows.min())
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    lowest = np.minimum.accumulate(rows[:, 1])
    widths = np.diff(rows[:, 0], append=corner[0])
    return float(math.fsum(widths * (corner[1] - lowest)))
