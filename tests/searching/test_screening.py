"""A screen of a finite space: pools ahead of what is asked for, and nothing else differs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zeroshot_nas as zs
from tests.scoring.pooled import pooled_proxy
from zeroshot_nas.scoring import closed_forms
from zeroshot_nas.scoring.proxy import PROXIES
from zeroshot_nas.searchers.base import Problem
from zeroshot_nas.searchers.pool import Pool
from zeroshot_nas.searching import screening
from zeroshot_nas.searching.signature import signature

pytestmark = pytest.mark.slow

SPACE = zs.get_space("nasbench_macro", input_size=(3, 8, 8))
SIZE = 6_561


def search(**options):
    options = {"proposals": 2 * SIZE, "finalists": 9, "searcher": "random", **options}
    return zs.search(SPACE, "pooled", progress=False, **options)


def outcome(result):
    history = [(each.architecture, each.costs, each.fitness) for each in result.history]
    return history, result.counts, result.failures


@pytest.mark.parametrize("searcher", ["random", "regularized_evolution"])
def test_most_of_a_space_is_screened_by_pools_with_the_same_result(searcher):
    with pooled_proxy() as (pools, singles):
        result = search(searcher=searcher)
        asked_alone, screened_by = len(singles), pools[:-1]
        PROXIES._entries["pooled"] = replace(PROXIES["pooled"], closed_form_pool=None)
        assert outcome(search(searcher=searcher)) == outcome(result)
    assert asked_alone == 0
    assert pools[-1] == 9, "the finalists"
    assert sum(screened_by) <= SIZE
    assert set(screened_by[:-1]) == {closed_forms.POOL}
    assert result.counts.screened > SIZE / 2
    assert result.counts.failed > 0


def test_what_the_budget_forbids_is_not_computed():
    budget = zs.Budget(params=sorted(zs.cost(net).params for net in SPACE.architectures())[SIZE // 10])
    fits = sum(not budget.violations(zs.cost(net)) for net in SPACE.architectures())
    with pooled_proxy() as (pools, _):
        result = search(budget=budget)
    assert not any(budget.violations(each.costs) for each in result.history)
    assert sum(pools[:-1]) <= fits


@pytest.mark.parametrize("changes", [{"proposals": SIZE - 1}, {"proposals": SIZE + 1, "islands": 2}])
def test_of_a_small_part_of_a_space_nothing_is_computed_ahead(changes):
    with pooled_proxy() as (pools, singles):
        result = search(**changes)
        assert not singles
        assert sum(pools) == result.counts.screened + result.counts.failed + 9, "and the finalists"


def test_what_is_asked_for_is_computed_once():
    nets = list(SPACE.architectures())[:40]
    calls = []

    def pool(architectures):
        calls.append(list(architectures))
        return [float(zs.cost(net).params) for net in architectures]

    ahead = screening._Ahead(pool, iter(nets[:30]))
    assert [ahead(net) for net in reversed(nets)] == [float(zs.cost(net).params) for net in reversed(nets)]
    computed = [net for call in calls for net in call]
    assert sorted(net.key for net in computed) == sorted(net.key for net in nets)


TEXTS = st.builds(
    "SuperConvK3BNRELU(3,8,1,1){}(8,{},{},8,{})".format,
    st.sampled_from(["SuperResK3K3", "SuperResK5K5", "SuperResIDWE2K3"]),
    st.sampled_from([8, 16, 24]),
    st.sampled_from([1, 2]),
    st.integers(1, 4),
)
NETWORKS = st.dictionaries(TEXTS.map(zs.Architecture.from_string), st.integers(0, 9).map(float), max_size=40)


@given(fitness_of=NETWORKS, count=st.integers(1, 9), kinds=st.integers(0, 9), islands=st.integers(1, 3))
def test_the_fittest_are_kept_and_the_best_of_each_of_the_fittest_kinds(fitness_of, count, kinds, islands):
    networks = [(fitness, network) for network, fitness in fitness_of.items()]
    problem = Problem(zs.Budget(), "any", None, 1)

    def pool(some):
        return Pool([network for _, network in some], problem, [fitness for fitness, _ in some])

    kept = screening._Fittest(count, kinds)
    kept.add(pool(networks))
    order = sorted(networks, key=lambda each: -each[0])  # of equals the first
    first_of = {signature(network): (fitness, network) for fitness, network in reversed(order)}
    best_of = sorted(first_of.values(), key=order.index)
    assert list(kept.ranked()) == [each for each in order if each in order[:count] or each in best_of[:kinds]]
    # islands that hold parts of them, merged, keep the same
    parts = [screening._Fittest(count, kinds) for _ in range(islands)]
    for place, (fitness, network) in enumerate(networks):
        parts[place * islands // len(networks)].add(pool([(fitness, network)]))
    each = [screening.Island(part.ranked(), {}, {}, {}) for part in parts]
    assert screening.merge(each, count, problem, kinds) == kept.ranked()
