"""Fronts of candidates: members, subsets, reference points, hypervolume."""

import copy
import itertools
import math
import pickle
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas import get_space
from zeroshot_nas.core.pareto import hypervolume
from zeroshot_nas.costs.complexity import Costs
from zeroshot_nas.errors import HypervolumeWarning, UnknownNameError
from zeroshot_nas.searchers.base import Candidate, Counts, SearchResult
from zeroshot_nas.searchers.front import DEFAULT_OBJECTIVES, Front, Objective

NET = get_space("resnet", input_size=(1, 8, 8)).initial()
SCORE, FLOPS = Objective("zen", "score", "higher"), Objective("flops")


def candidate(fitness, params=1, flops=1):
    return Candidate(NET, Costs(params, flops, 1, 1), {}, float(fitness))


def front(*rows, objectives=(SCORE, FLOPS)):
    return Front([candidate(fitness, flops=flops) for fitness, flops in rows], objectives)


ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(ROWS)
def test_no_member_is_dominated_and_every_other_is(rows):
    everybody = [candidate(*row) for row in rows]
    members = Front(everybody)
    assert members.objectives == DEFAULT_OBJECTIVES
    for a, b in itertools.permutations(members, 2):
        assert a.fitness > b.fitness or a.costs.params < b.costs.params or a.costs.flops < b.costs.flops
    for other in everybody:
        assert any(
            member.fitness >= other.fitness
            and member.costs.params <= other.costs.params
            and member.costs.flops <= other.costs.flops
            for member in members
        )


@given(ROWS, st.integers(1, 12))
def test_a_subset_is_of_the_front_and_has_much_of_its_volume(rows, count):
    members = Front([candidate(*row) for row in rows])
    few = members(count)
    assert len(few) == min(count, len(members))
    assert [each for each in members if each in few] == list(few), "in the same order"
    reference = members.reference()
    assert few.hypervolume(reference) >= (1 - 1 / math.e) * len(few) / len(members) * members.hypervolume(reference)


@given(ROWS)
def test_the_default_reference_counts_every_member(rows):
    members = Front([candidate(*row) for row in rows])
    assert members.hypervolume() > 0
    assert members.hypervolume().reference == members.reference()
    for left_out in members:
        others = Front([each for each in members if each is not left_out])
        if others:
            assert others.hypervolume(members.reference()) < members.hypervolume()


def test_by_hand():
    members = front((5, 30), (3, 10), (2, 20), (1, 5))
    assert [each.fitness for each in members] == [5, 3, 1]
    assert members == tuple(members), "a tuple as any other"
    assert members.reference() == {"zen": 0.6, "flops": 32.5}
    assert members.hypervolume({"zen": 0, "flops": 40}) == 1 * 35 + 2 * 30 + 2 * 10 == members.hypervolume((0, 40))
    assert repr(members.hypervolume((0, 40))) == "Hypervolume(115, from zen 0, flops 40)"
    assert [each.fitness for each in members(1, (0, 40))] == [3]
    assert members.values()[0] == {"zen": 5, "flops": 30}


def test_lower_is_better_of_a_score_too():
    members = Front([candidate(-30, flops=1), candidate(-10, flops=2)], (Objective("ntk", "score", "lower"), FLOPS))
    assert members.values() == [{"ntk": 30, "flops": 1}, {"ntk": 10, "flops": 2}]
    assert members.hypervolume({"ntk": 40, "flops": 3}) == 10 * 2 + 20 * 1
    assert members.reference() == {"ntk": 32, "flops": 2.1}


def test_a_front_of_one_network_has_a_volume_and_is_its_own_subset():
    members = front((0, 7), (0, 9))
    assert members.reference() == {"zen": -0.1, "flops": pytest.approx(7.7)}
    assert members.hypervolume() == pytest.approx(0.07)
    assert members(5) == members


def test_a_reference_that_nothing_dominates_gives_0_and_says_so():
    members = front((5, 30), (3, 10))
    with pytest.warns(HypervolumeWarning, match=r"is 0, from zen 5, flops 40, .* zen 3 to 5, flops 10 to 30; give"):
        assert members.hypervolume((5, 40)) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert members.hypervolume((4, 40)) == 10


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ({"zen": 1, "flosp": 2}, UnknownNameError, "Did you mean 'flops'"),
        ({"zen": 1}, ValueError, "it lacks flops"),
        ((1, 2, 3), ValueError, "one number each of zen, flops; got 3 numbers"),
        ((1, math.nan), ValueError, "finite numbers; its flops is nan"),
        ((1, "2"), ValueError, "finite numbers; its flops is '2'"),
        ((True, 2), ValueError, "finite numbers; its zen is True"),
    ],
)
def test_bad_reference_points(reference, error, message):
    for ask in (front((1, 1)).hypervolume, lambda point: front((1, 1))(1, point)):
        with pytest.raises(error, match=message):
            ask(reference)


@pytest.mark.parametrize("count", [0, -1, 1.0, True, None])
def test_a_subset_has_a_number(count):
    with pytest.raises(ValueError, match="a whole number of networks, 1 or more"):
        front((1, 1))(count)


def test_a_result_without_scores_has_no_front():
    nothing = SearchResult(candidate(-math.inf), (candidate(-math.inf),), Counts(), {}, {}, {})
    assert nothing.front == ()
    with pytest.raises(ValueError, match="no network has a score"):
        nothing.hypervolume()


def test_fronts_and_volumes_travel():
    members = front((5, 30), (3, 10))
    for again in (pickle.loads(pickle.dumps(members)), copy.deepcopy(members)):
        assert again == members
        assert again.objectives == members.objectives
    volume = pickle.loads(pickle.dumps(members.hypervolume()))
    assert volume == members.hypervolume() == hypervolume(members.points, (-2.8, 32))
    assert volume.reference == members.reference()
