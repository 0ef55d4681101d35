"""Gradient ascent: never over the budget, always upwards, and near what evolution finds."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from tests.latency.device import a_table
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ProxyError, SearcherError
from zeroshot_nas.searchers import gradient
from zeroshot_nas.searchers.base import Problem
from zeroshot_nas.spaces.chain import ChainSpace

pytestmark = pytest.mark.slow

SIZE = (3, 16, 16)
CHAINS = [name for name in zs.list_spaces() if isinstance(zs.get_space(name, input_size=SIZE), ChainSpace)]


def problem(proxy, budget, latency_ms=None):
    scored_by = zs.get_proxy(proxy)
    return Problem(budget, scored_by.key, scored_by.bound_closed_form(), scored_by.sign, latency_ms)


def proposals(space, asked, seed=0, **options):
    searcher = gradient.GradientAscent(space, python_rng(seed), space.initial(), **options)
    searcher.begin(asked)
    return searcher.ask(10_000)


@settings(deadline=None, max_examples=5)
@given(
    name=st.sampled_from(CHAINS),
    params=st.integers(20_000, 300_000),
    flops=st.integers(2_000_000, 50_000_000),
    layers=st.integers(8, 12),
    seed=st.integers(0, 99),
)
def test_no_proposal_is_over_the_budget_but_a_start_that_is(name, params, flops, layers, seed):
    space = zs.get_space(name, input_size=SIZE)
    asked = problem("cet", zs.Budget(params=params, flops=flops, layers=layers))
    first, *others = proposals(space, asked, seed, starts=2, steps=3)
    assert first == space.initial()
    assert others
    assert all(asked.fits(each) and each in space for each in others)


def test_a_limit_on_predicted_latency_is_kept():
    table = a_table("resnet", SIZE, count=20)
    space = zs.get_space("resnet", input_size=SIZE)
    asked = problem("cet", zs.Budget(latency_ms=0.4, layers=18), table.latency_ms)
    found = proposals(space, asked, starts=2)[1:]
    assert all(table.latency_ms(each) <= 0.4 for each in found)
    assert max(table.latency_ms(each) for each in found) > 0.39


@pytest.mark.parametrize("name", CHAINS)
def test_every_ascent_goes_upwards_only(name):
    space = zs.get_space(name, input_size=SIZE)
    asked = problem("cet", zs.Budget(params=4e4, layers=9))
    searcher = gradient.GradientAscent(space, python_rng(3), space.initial())
    landscape = gradient._Landscape(space, asked)
    origin = gradient.relaxed(space, space.sample(python_rng(5)))
    fitness = [landscape.fitness_of(each) for each in searcher._ascent(landscape, origin)]
    assert fitness == sorted(set(fitness))
    assert len(fitness) > 3


@pytest.mark.parametrize(
    ("name", "proxy"), [*((name, "cet") for name in CHAINS), ("resnet", "ceres"), ("resnet", "zen")]
)
def test_few_proposals_find_nearly_what_many_of_evolution_do(name, proxy):
    budget = zs.Budget(params=5e4, flops=5e6, layers=10)
    how = {"input_size": SIZE, "finalists": 1, "repeats": 1, "standard_error": None, "progress": False}
    evolved = zs.search(name, proxy, budget, proposals=2_000, **how)
    climbed = zs.search(name, proxy, budget, searcher="gradient", starts=3, **how)
    assert climbed.counts.proposed < 100
    assert climbed.counts.over_budget <= 1
    best = [max(point.fitness for point in result.trajectory) for result in (climbed, evolved)]
    assert best[0] > 0.95 * best[1]


def test_networks_without_a_score_are_passed_by():
    def moody(network):
        if network.blocks[1].out_channels % 16:
            raise ProxyError("not this one")
        return float(network.blocks[1].out_channels)

    space = zs.get_space("resnet", input_size=SIZE)
    found = proposals(space, Problem(zs.Budget(params=1e6, layers=12), "made up", moody), starts=4, steps=5)
    assert len(found) > 2
    assert not any(each.blocks[1].out_channels % 16 for each in found)


def test_slopes_are_the_closed_forms_own():
    """Of a function that is linear in the logarithm of a width the derivative is its factor."""
    space = zs.get_space("resnet", input_size=SIZE)
    asked = Problem(zs.Budget(), "made up", lambda network: 3 * math.log(network.blocks[1].out_channels))
    landscape = gradient._Landscape(space, asked)
    around = landscape.around(gradient.relaxed(space, space.initial()), temperature=1.0)
    slopes = dict(zip(around.variables, around.fitness, strict=True))
    assert slopes.pop(gradient.Variable(1, "width")) == pytest.approx(3.0)
    assert set(slopes.values()) == {0.0}


def test_a_direction_never_leads_over_a_limit():
    @settings(deadline=None)
    @given(st.lists(st.lists(st.floats(-9, 9), min_size=4, max_size=4), min_size=2, max_size=2))
    def law(rows):
        fitness, normal = rows
        direction = gradient.Surroundings((), fitness, [normal], [], []).along_limits()
        assert sum(a * b for a, b in zip(direction, normal, strict=True)) <= 1e-6
        assert sum(a * b for a, b in zip(direction, fitness, strict=True)) >= -1e-6

    law()


@pytest.mark.parametrize("name", [name for name in zs.list_spaces() if name not in CHAINS])
def test_a_space_without_widths_is_refused(name):
    with pytest.raises(SearcherError, match=f"gradient needs a chain of blocks with widths, and '{name}' is none"):
        zs.search(name, "cet", searcher="gradient", progress=False)


def test_a_proxy_without_a_closed_form_is_refused():
    with pytest.raises(SearcherError, match="naswot has none for 'resnet'; take regularized_evolution"):
        zs.search("resnet", "naswot", zs.Budget(layers=9), searcher="gradient", progress=False)


@pytest.mark.parametrize("option", ["starts", "steps"])
def test_numbers_of_steps_are_checked(option):
    with pytest.raises(ValueError, match=f"{option} must be a whole number of 1 or more"):
        zs.search("resnet", "cet", searcher="gradient", progress=False, **{option: 0})
