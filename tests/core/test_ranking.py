"""The Pareto front against its definition."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas.core.ranking import pareto_front, rank_aggregate

points = st.lists(st.tuples(*[st.integers(0, 5)] * 3), max_size=30)


def dominates(a, b):
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


@given(points)
def test_front_is_what_nothing_dominates_first_of_equals(coordinates):
    expected = [
        index
        for index, point in enumerate(coordinates)
        if not any(dominates(other, point) for other in coordinates) and point not in coordinates[:index]
    ]
    assert pareto_front(coordinates) == expected


POOLS = st.integers(1, 4).flatmap(
    lambda rows: st.integers(1, 8).flatmap(
        lambda members: st.lists(
            st.lists(st.integers(-3, 3), min_size=members, max_size=members), min_size=rows, max_size=rows
        )
    )
)


@given(scores=POOLS, method=st.sampled_from(["mean_rank", "log_rank", "vote"]))
def test_aggregates_read_ranks_alone_and_respect_agreement(scores, method):
    joined = rank_aggregate(scores, method)
    stretched = [[math.exp(value) for value in row] for row in scores]
    assert rank_aggregate(stretched, method) == joined
    for a, b in itertools.permutations(range(len(joined)), 2):
        if all(row[a] >= row[b] for row in scores):
            assert joined[a] >= joined[b] - 1e-12


def test_aggregates_by_hand():
    scores = [[1, 2, 3], [3, 3, 1]]
    assert rank_aggregate(scores, "mean_rank") == pytest.approx([3.5 / 6, 4.5 / 6, 4 / 6])
    assert rank_aggregate(scores, "log_rank") == pytest.approx(
        [math.log(1 / 3 * 2.5 / 3), math.log(2 / 3 * 2.5 / 3), math.log(1 / 3)]
    )
    assert rank_aggregate(scores, "vote") == pytest.approx([0.25, 0.75, 0.5])
    assert rank_aggregate([[math.nan, 0.0]], "mean_rank") == [0.5, 1.0]
    assert rank_aggregate([[]]) == []


def test_bad_aggregates():
    with pytest.raises(ValueError, match=r"one length, got lengths \[1, 2\]"):
        rank_aggregate([[1], [1, 2]])
    with pytest.raises(ValueError, match="expected scores of one length"):
        rank_aggregate([])
    with pytest.raises(ValueError, match="method must be one of mean_rank, log_rank, vote, got 'mean'"):
        rank_aggregate([[1]], "mean")
