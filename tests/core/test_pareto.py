"""Fronts, crowding and hypervolume against their definitions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas.core.pareto import (
    Archive,
    crowding_distances,
    hypervolume,
    largest_hypervolume,
    least_crowded,
    nondominated_ranks,
)
from zeroshot_nas.core.ranking import pareto_front

SIDE = 5


def grids(least=0, most=12):
    """Points with one to four whole coordinates."""
    return st.integers(1, 4).flatmap(
        lambda axes: st.lists(st.tuples(*[st.integers(0, SIDE)] * axes), min_size=least, max_size=most)
    )


def dominates(a, b):
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def cells(points, axes, corner):
    """Unit cells of a grid that some point dominates and that lie below the corner, counted one by one."""
    return sum(
        any(all(x <= cell for x, cell in zip(point, place, strict=True)) for point in points)
        for place in itertools.product(range(corner), repeat=axes)
    )


@given(grids(least=1))
def test_ranks_peel_fronts_off(points):
    ranks = nondominated_ranks(points).tolist()
    for rank in range(max(ranks) + 1):
        left = [point for point, each in zip(points, ranks, strict=True) if each >= rank]
        expected = [not any(dominates(other, point) for other in left) for point in left]
        assert [each == rank for each in ranks if each >= rank] == expected


@given(grids(least=1), st.integers(1, SIDE + 1))
def test_hypervolume_is_a_count_of_cells(points, corner):
    axes = len(points[0])
    assert hypervolume(points, [corner] * axes) == cells(points, axes, corner)


@given(grids(least=1), st.randoms())
def test_hypervolume_knows_no_order_and_needs_the_front_alone(points, random):
    corner = [SIDE + 1] * len(points[0])
    shuffled = random.sample(points, len(points))
    front = [points[place] for place in pareto_front(points)]
    assert hypervolume(shuffled, corner) == hypervolume(points, corner) == hypervolume(front, corner)


@given(grids(least=1), st.data())
def test_hypervolume_never_falls_when_a_point_is_added(points, data):
    added = data.draw(st.tuples(*[st.integers(0, SIDE)] * len(points[0])))
    corner = [SIDE + 1] * len(points[0])
    before, after = hypervolume(points, corner), hypervolume([*points, added], corner)
    if any(dominates(point, added) or point == added for point in points):
        assert after == before
    else:
        assert after > before


def test_hypervolume_of_many_real_points_by_simulation():
    rng = np.random.default_rng(0)
    points = 1 - np.abs(rng.normal(size=(40, 4)))
    drawn = rng.uniform(-4, 1, size=(40_000, 4))
    share = (points[:, None, :] <= drawn[None, :, :]).all(2).any(0).mean()
    assert hypervolume(points, [1.0] * 4) == pytest.approx(share * 5**4, rel=0.15)


def test_what_is_no_better_than_the_reference_adds_nothing():
    assert hypervolume([], (1, 2)) == 0
    assert hypervolume([(1, 1), (2, 0)], (1, 5)) == 0
    assert hypervolume([(1, 1), (0, 4)], (1, 5)) == 1
    assert hypervolume([(0,), (3,)], (4,)) == 4


@given(grids(least=1, most=8), st.integers(1, 8))
def test_the_greedy_choice_keeps_its_promise(points, count):
    corner = [SIDE + 1] * len(points[0])
    chosen = largest_hypervolume(points, count, corner)
    assert len(set(chosen)) == len(chosen) == min(count, len(points))
    volumes = [hypervolume([points[place] for place in chosen[:size]], corner) for size in range(len(chosen) + 1)]
    for size, place in enumerate(chosen):
        before = [points[earlier] for earlier in chosen[:size]]
        gains = [hypervolume([*before, point], corner) - volumes[size] for point in points]
        assert gains[place] == max(gain for other, gain in enumerate(gains) if other not in chosen[:size])
    best = max(hypervolume(some, corner) for some in itertools.combinations(points, len(chosen)))
    assert volumes[-1] >= (1 - 1 / math.e) * best


@given(grids(least=1, most=30))
def test_the_ends_of_each_axis_are_infinitely_far(points):
    distances = crowding_distances(points)
    for values in zip(*points, strict=True):
        if max(values) > min(values):
            for end in (min(values), max(values)):
                assert max(distances[place] for place, value in enumerate(values) if value == end) == math.inf
    assert min(distances) >= 0


@given(grids(least=1, most=25), st.integers(1, 25))
def test_the_most_crowded_leaves_until_so_many_are_left(points, count):
    left = list(range(len(points)))
    extents = [max(values) - min(values) for values in zip(*points, strict=True)]
    chosen = least_crowded(points, count)
    while len(left) > count:
        distances = crowding_distances([points[place] for place in left])
        assert (
            all(map(math.isinf, distances))
            or [
                max(points[place][axis] for place in left) - min(points[place][axis] for place in left)
                for axis in range(len(extents))
            ]
            == extents
        )
        del left[len(left) - 1 - int(np.argmin(distances[::-1]))]
    assert chosen == left


@given(grids(most=30))
def test_an_archive_holds_the_front_of_all_that_came(points):
    archive = Archive()
    added = [archive.add(point, place) for place, point in enumerate(points)]
    assert sorted(archive.items) == pareto_front(points)
    assert [tuple(row) for row in archive.points] == [tuple(map(float, points[place])) for place in archive.items]
    for place, entered in enumerate(added):
        assert entered == (place in pareto_front(points[: place + 1]))


def test_a_full_archive_keeps_its_ends_and_no_more_than_its_capacity():
    archive = Archive(10)
    for x in np.random.default_rng(1).permutation(500):
        archive.add((int(x), 500 - int(x)), int(x))
        assert len(archive.items) < 20
    archive.thin()
    assert len(archive.items) == 10
    assert {0, 499} <= set(archive.items)
    kept = sorted(archive.items)
    assert max(after - before for before, after in itertools.pairwise(kept)) < 150, "spread along the front"
