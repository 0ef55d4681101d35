"""The exact search against brute force, and against what other strategies find."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bounds.brute import chains
from zeroshot_nas.bounds.optimum import Optimum, Task
from zeroshot_nas.bounds.tables import ChainTables
from zeroshot_nas.closed_form.block_sum import BlockSum
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.costs.structure import StructureBounds
from zeroshot_nas.scoring.proxy import PROXIES, get_proxy
from zeroshot_nas.spaces.base import get_space
from zeroshot_nas.spaces.chain import ChainSpace

SUMS = [name for name in PROXIES if PROXIES[name].block_sum]
SMALL = {
    "resnet": (("SuperResK3K3", "SuperResK1K5K1"), 16, 5, (3, 8, 8)),
    "mobilenet": (("SuperResIDWE2K3", "SuperResIDWE1K7"), 16, 5, (3, 8, 8)),
    "gates": (("SuperResK1K3K1",), 24, 4, (3, 9, 8)),
    "wide": (("SuperResK3K3", "SuperResIDWE4K5"), 64, 3, (3, 5, 5)),
    "uneven": (("SuperResIDWE6K3", "SuperResK5K5"), 9, 4, (1, 6, 7)),
}
ALL = {}


def small(name):
    """A space, and all its networks with their costs and closed forms, made once."""
    types, max_width, layers, size = SMALL[name]
    step = 3 if name == "uneven" else 8
    space = ChainSpace(name, types, size, squeeze_excite=name == "gates", max_width=max_width, width_step=step)
    if name not in ALL:
        networks = list(chains(space, layers))
        assert len(networks) == len(set(networks)) == space.size(layers)
        ALL[name] = networks, [complexity(network) for network in networks], {}
    return space, layers, *ALL[name]


def scores(name, proxy):
    _, _, networks, _, known = small(name)
    if proxy not in known:
        closed_form = get_proxy(proxy).closed_form
        known[proxy] = [closed_form(network) for network in networks]
    return known[proxy]


def run(space, score, budget, nodes=10**6, closed_form=None):
    """The optimum, and the best network that came of it; the bound is checked at every step."""
    optimum, best = Optimum(Task(space, score, budget, nodes)), None
    for network in optimum.improvements():
        if not budget.violations(complexity(network), network):
            value = closed_form(network) if closed_form else score.total(network)
            best = network if value > optimum.best else best
            optimum.accept(value)
        assert optimum.bound >= optimum.best
    return optimum, best


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "proxy"),
    [
        *((name, "zen_closed_form") for name in SMALL),
        *(("resnet", "entropy_maedet"), ("gates", "entropy_maedet"), ("wide", "params"), ("uneven", "params")),
        *(("mobilenet", "nn_degree"), ("resnet", "layers")),
    ],
)
@settings(max_examples=4)
@given(data=st.data())
def test_the_optimum_is_that_of_brute_force(name, proxy, data):
    space, layers, networks, costs, _ = small(name)
    values = scores(name, proxy)
    quantile = st.floats(0.02, 1)
    by = {cost: sorted(getattr(each, cost) for each in costs) for cost in ("params", "flops", "activations")}
    limited = data.draw(st.sets(st.sampled_from(list(by)), max_size=3))
    limits = {cost: by[cost][int(data.draw(quantile) * (len(networks) - 1))] for cost in sorted(limited)}
    structure = StructureBounds(
        data.draw(st.sampled_from([None, None, 0.5])), data.draw(st.booleans()), data.draw(st.sampled_from([None, 1.5]))
    )
    budget = Budget(layers=data.draw(st.integers(layers - 1, layers)), structure=structure, **limits)
    fitting = [
        value for value, cost, net in zip(values, costs, networks, strict=True) if not budget.violations(cost, net)
    ]
    optimum, best = run(space, get_proxy(proxy).bound_block_sum(), budget, closed_form=get_proxy(proxy).closed_form)
    assert optimum.finished
    if not fitting:
        assert best is None
        return
    assert best in space
    assert math.isclose(optimum.best, max(fitting), rel_tol=1e-9)
    assert math.isclose(optimum.bound, max(fitting), rel_tol=1e-9)


@pytest.mark.parametrize("nodes", [1, 50])
@pytest.mark.parametrize("name", ["resnet", "wide"])
def test_a_bound_is_true_wherever_the_search_stops(name, nodes):
    space, layers, _, costs, _ = small(name)
    values = scores(name, "zen_closed_form")
    budget = Budget(params=sorted(each.params for each in costs)[len(costs) // 3], layers=layers)
    truth = max(value for value, cost in zip(values, costs, strict=True) if not budget.violations(cost))
    optimum = Optimum(Task(space, get_proxy("zen_closed_form").bound_block_sum(), budget, nodes))
    for network in optimum.improvements():
        assert optimum.bound >= truth * (1 - 1e-9)
        if not budget.violations(complexity(network)):
            optimum.accept(get_proxy("zen_closed_form").closed_form(network))
    assert optimum.bound >= truth * (1 - 1e-9)
    assert not optimum.finished or math.isclose(optimum.best, truth, rel_tol=1e-9)


@pytest.mark.parametrize("proxy", SUMS)
@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_tables_hold_what_networks_have(name, proxy):
    # terms of three widths: every block is evaluated
    widths = {"max_width": 24 if proxy in ("nn_degree", "nn_mass") else 72, "squeeze_excite": proxy == "zen"}
    space = get_space(name, input_size=(3, 16, 16), **widths)
    # every kernel size, and every expansion
    space = replace(space, body_types=space.body_types[:: 3 if name == "mobilenet" else 2])
    score = get_proxy(proxy).bound_block_sum()
    tables = ChainTables(space, score, ["params", "flops", "activations"])
    rng = random.Random(0)
    for _ in range(40):
        numbers = [rng.randrange(len(tables.widths)) for _ in range(2 + 2 * tables.stages)]
        stem, last, *inside = numbers
        moves = [
            (spot, rng.randrange(len(space.body_types)), rng.randint(1, 5), inside[2 * at], inside[2 * at + 1])
            for at, spot in enumerate(tables.first)
        ]
        total, before = tables.stem[:, stem].copy(), stem
        for spot, kind, times, b, o in moves:
            place = [[before], [b], [o]]
            total += tables.forms[spot][kind][times - 1].rows(*map(_index, place), tables.widths)[:, 0]
            before = o
        total += tables.last[:, before, last]
        network = tables.network(stem, [tables.block(*move) for move in moves], last)
        assert network in space
        expected = get_proxy(proxy).closed_form(network)
        assert math.isclose(total[0] + tables.end(last, round(total[1])), expected, rel_tol=1e-9)
        costs = complexity(network)
        assert total[2:].tolist() == pytest.approx([costs.params, costs.flops, costs.activations], rel=1e-9)


def _index(numbers):
    import numpy as np

    return np.array(numbers, np.intp)


def test_a_score_of_ones_own_that_has_no_form_is_enumerated_block_by_block():
    score = BlockSum(
        lambda placed: math.sqrt(placed.in_channels + 3 * placed.block.out_channels) / placed.block.sub_layers
    )
    space, layers, networks, costs, _ = small("wide")
    budget = Budget(params=30_000, layers=layers)
    optimum, best = run(space, score, budget)
    fitting = [each for each, cost in zip(networks, costs, strict=True) if not budget.violations(cost)]
    assert optimum.finished
    assert math.isclose(score.total(best), max(map(score.total, fitting)), rel_tol=1e-9)
