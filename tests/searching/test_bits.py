"""Bits that are searched with the network: every strategy, output and executor, and what is refused."""

import json
from dataclasses import replace

import pytest

import zeroshot_nas as zs
from zeroshot_nas.errors import BudgetError, InfeasibleBudgetError, ProxyError, SearcherError, SettingsChangedError
from zeroshot_nas.searchers.base import SearchResult

BUDGET = zs.Budget(weights="6kB", flops=400e3)
WIDE = zs.Budget(weights="60kB", flops=4e6)
"""Where strategies that do not learn find something, too."""

HOW = {"input_size": (1, 8, 8), "proposals": 300, "progress": False}


def check(result, budget=BUDGET, bits=(4, 8)):
    """Every network of the history keeps to the budget with the bits that it has, which are the allocation's."""
    limit = budget.limits()["weights"]
    for candidate in (result.best, *result.history):
        architecture = candidate.architecture
        assert set(architecture.weight_bits) <= set(bits)
        assert zs.allocate_bits(architecture, limit, bits) == architecture
        assert zs.cost(architecture)["weights"] == candidate.costs["weights"] <= limit
        assert not budget.violations(zs.cost(architecture), architecture)


@pytest.mark.slow
@pytest.mark.parametrize("searcher", [each for each in zs.list_searchers() if each != "exact"])
def test_every_strategy_searches_them(searcher):
    proposals = 8 if searcher in ("gradient", "reinforce") else 300  # which cost many networks for each proposal
    result = zs.search("resnet", "ceres", WIDE, bits=(4, 8), searcher=searcher, **{**HOW, "proposals": proposals})
    check(result, WIDE)
    assert result.best.fitness == zs.score(result.best.architecture, result.settings["proxy"]).value


def test_exact_searches_what_is_a_sum_over_blocks_alone():
    with pytest.raises(SearcherError, match="cet is no sum over blocks"):
        zs.search("resnet", "cet", BUDGET, bits=(4, 8), searcher="exact", **HOW)


@pytest.mark.parametrize("space", ["mobilenet", "nasbench201", "resnet", "transnas_macro"])
def test_other_spaces(space):
    """Chains and cells; that every space's networks have bits is tested with the allocation."""
    made = zs.get_space(space)
    limit = 2 * min(zs.cost(made.smallest(name))["weights"] for name in ("params", "flops"))
    budget = zs.Budget(weights=limit, layers=20 if made.size() == float("inf") else None)
    result = zs.search(made, "cet", budget, bits=(4, 8), proposals=30, finalists=5, progress=False)
    check(result, budget)


@pytest.mark.parametrize("proxy", ["ceres", "cet", "entropy_qe"])
def test_more_choice_is_no_worse_than_eight_bits(proxy):
    """By the score itself, of the same network."""
    found = zs.search(budget=zs.Budget(weights="6kB", flops=400e3, layers=12), proxy=proxy, **HOW).best
    chosen = zs.allocate_bits(found.architecture, "6kB", (4, 8))
    assert set(chosen.weight_bits) == {8}
    assert zs.score(chosen, proxy).value == pytest.approx(found.fitness, abs=0.01)
    check(zs.search(budget=replace(BUDGET, layers=12), proxy=proxy, bits=(2, 4, 8), **HOW), bits=(2, 4, 8))


def test_a_run_keeps_and_resumes_them(tmp_path):
    first = zs.search(budget=BUDGET, bits=(4, 8), out=tmp_path / "a", **HOW)
    assert SearchResult.from_json((tmp_path / "a" / "result.json").read_text()).best.architecture.weight_bits
    best = json.loads((tmp_path / "a" / "best.json").read_text())
    assert tuple(best["architecture"]["weight_bits"]) == first.best.architecture.weight_bits
    assert zs.resume(tmp_path / "a", progress=False).best == first.best
    with pytest.raises(SettingsChangedError, match="bits"):
        zs.search(budget=BUDGET, bits=(2, 8), out=tmp_path / "a", resume=True, **HOW)
    assert "bits" in str(first._repr_html_())


@pytest.mark.slow
def test_workers_find_the_same():
    alone = zs.search(budget=BUDGET, bits=(4, 8), islands=2, **HOW)
    with zs.get_executor("process", workers=2) as executor:
        spread = zs.search(budget=BUDGET, bits=(4, 8), islands=2, executor=executor, **HOW)
    assert [each.architecture for each in spread.history] == [each.architecture for each in alone.history]
    assert [each.fitness for each in spread.history] == [each.fitness for each in alone.history]


def test_a_front_of_flash():
    check(zs.search(budget=BUDGET, bits=(4, 8), objectives=("ceres", "weights"), **HOW))


def test_a_reward_reads_the_bytes_that_bits_leave():
    check(zs.search(budget=BUDGET, bits=(4, 8), reward="weights:form=sum:exponent=-0.5", **HOW))


def test_they_reach_where_eight_bits_do_not():
    """A limit that no network of 8 bits keeps to, and one that no network does."""
    smallest = min(zs.cost(zs.get_space("nasbench201").smallest(name))["weights"] for name in ("params", "flops"))
    budget = zs.Budget(weights=smallest - 500)
    with pytest.raises(InfeasibleBudgetError):
        zs.search("nasbench201", "cet", budget, proposals=50, progress=False)
    check(zs.search("nasbench201", "cet", budget, bits=(4, 8), proposals=50, progress=False), budget)
    with pytest.raises(InfeasibleBudgetError, match="no network of the space 'nasbench201' fits"):
        zs.search("nasbench201", "cet", zs.Budget(weights=100), bits=(2, 4), proposals=50, progress=False)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"budget": zs.Budget(flops=1e6)}, BudgetError, r"bits follow from a limit .* --max-weights 64kB"),
        ({"bits": (3,)}, BudgetError, r"bits are some of 2, 4 and 8"),
        ({"proxy": "zen"}, ProxyError, "zen does not know what bits cost; those that do: ceres, cet, entropy_qe"),
        ({"trials": 2, "data": "digits"}, ValueError, "trials train in floating point"),
    ],
)
def test_what_can_not_be_is_said(options, error, message):
    with pytest.raises(error, match=message):
        zs.search(**{"budget": BUDGET, "bits": (4, 8), **HOW, **options})
