"""A screen of a finite space: pools ahead of what is asked for, and nothing else differs."""

from dataclasses import replace

import pytest

import zeroshot_nas as zs
from tests.scoring.pooled import pooled_proxy
from zeroshot_nas.scoring import closed_forms
from zeroshot_nas.scoring.proxy import PROXIES
from zeroshot_nas.searching import screening

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
def test_a_small_part_of_a_space_is_screened_one_by_one(changes):
    with pooled_proxy() as (pools, singles):
        result = search(**changes)
        assert pools == [9]
        assert len(singles) == result.counts.screened + result.counts.failed


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
