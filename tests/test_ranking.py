"""The Pareto front against its definition."""

from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas.ranking import pareto_front

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
