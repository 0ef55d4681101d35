"""No chain that any strategy finds exceeds the upper bounds of CET and CERES, nor any term what bounds it."""

import math
import random

import numpy as np
import pytest

import zeroshot_nas as zs
from zeroshot_nas.architecture.blockspec import block_steps
from zeroshot_nas.architecture.ops import Conv
from zeroshot_nas.bounds.convolutional import ceres_bound, cet_bound, sizes_of
from zeroshot_nas.closed_form.ceres import ceres
from zeroshot_nas.closed_form.cet.score import cet, cet_terms
from zeroshot_nas.closed_form.cet.spectra import divided_window
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.costs.structure import StructureBounds
from zeroshot_nas.spaces.chain import ChainSpace

BOUNDS = {"cet": (cet_bound, cet), "ceres": (ceres_bound, ceres)}
CHAINS = ("resnet", "mobilenet", "vanilla", "inverted")
BUDGETS = (
    zs.Budget(params=1e5, flops=5e6, layers=10),
    zs.Budget(flops=1e6),
    zs.Budget(params=2e4),
    zs.Budget(activations=3e4, layers=6),
)


def exact_budget(architecture, names):
    """The least budget of some costs that a network keeps to."""
    return zs.Budget(**{name: getattr(complexity(architecture), name) for name in names})


@pytest.mark.parametrize("space", CHAINS)
@pytest.mark.parametrize("names", ["params flops layers", "params", "flops", "activations", "layers", ""])
def test_no_random_network_exceeds_the_bound_of_its_own_costs(space, names):
    rng = random.Random(f"{space}{names}")
    for _ in range(24):
        size = (rng.randint(1, 4), rng.randint(4, 40), rng.randint(4, 40))
        chains = zs.get_space(
            space, input_size=size, squeeze_excite=rng.random() < 0.2, width_step=rng.choice([1, 4, 8])
        )
        network = chains.sample(rng)
        budget = exact_budget(network, names.split())
        for bound, score in BOUNDS.values():
            assert score(network) <= bound(chains, budget)


@pytest.mark.slow
@pytest.mark.parametrize("space", CHAINS)
def test_no_term_exceeds_what_bounds_it(space):
    rng = random.Random(1)
    for _ in range(80):
        size = (rng.randint(1, 4), rng.randint(4, 40), rng.randint(4, 40))
        chains = zs.get_space(space, input_size=size, width_step=rng.choice([1, 8]))
        network = chains.sample(rng)
        terms, costs, sizes = cet_terms(network), complexity(network), sizes_of(chains, zs.Budget())
        count = sum(
            step.times for block in network.inputs() for step in block_steps(*block).steps if isinstance(step.op, Conv)
        )
        assert costs.flops >= terms.U
        assert costs.params >= terms.A
        assert count * math.log1p(costs.activations / count) >= terms.S
        assert math.sqrt(count * costs.activations) >= terms.Z
        assert max(terms.H_U, terms.H_S) <= math.log(sizes.resolutions) + 1e-12
        assert terms.resolutions <= sizes.resolutions
        assert terms.D_f >= sizes.depth * count - 1 - 1e-9


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("proxy", BOUNDS)
@pytest.mark.parametrize("space", CHAINS)
def test_no_evolved_network_nor_its_neighbours_exceed_the_bound(space, proxy, budget):
    chains = zs.get_space(space, input_size=(3, 16, 16))
    bound, score = BOUNDS[proxy]
    limit = bound(chains, budget)
    found = zs.search(chains, proxy, budget, proposals=700, islands=1, finalists=5, progress=False)
    assert found.certificate["bound"] == limit
    assert found.certificate["gap"] == pytest.approx(limit - found.best.fitness)
    assert found.best.fitness <= limit
    rng, network = random.Random(0), found.best.architecture
    for _ in range(150):
        neighbour = chains.mutate(network, rng, 2)
        if not budget.violations(complexity(neighbour)):
            assert score(neighbour) <= limit


def test_patch_ranks_are_at_most_what_is_read():
    masses = [divided_window(k, d, t)[-1] for k in (1, 2, 3, 5, 7, 11) for d in (1, 2, 3) for t in (1, 2, 4, 8, 16)]
    assert np.min(masses) >= 1 - 1e-12


def test_nothing_is_claimed_of_what_is_no_chain_of_ours():
    class Mine(ChainSpace):
        pass

    budget = zs.Budget(params=1e5)
    assert cet_bound(zs.get_space("nasbench201"), budget) is None
    assert cet_bound(Mine("mine", ("SuperResK3K3",)), budget) is None
    plain = ChainSpace("plain", ("SuperResK3K3",))
    assert cet_bound(plain, budget) is not None
    assert cet_bound(plain, budget, variant="g") is None


def test_limits_that_the_bound_does_not_read_are_named():
    budget = zs.Budget(params=5e4, structure=StructureBounds(monotone_widths=True))
    found = zs.search("resnet", "cet", budget, proposals=100, islands=1, finalists=2, progress=False)
    assert found.certificate["checked_whole"] == ["monotone_widths"]
    again = zs.SearchResult.from_json(found.to_json())
    assert again.certificate == found.certificate
