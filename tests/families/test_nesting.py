"""Nesting: what contains what, and a space of nothing but networks that one contains."""

import pickle
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.families.nesting import NestedSpace, contains, why_not
from zeroshot_nas.network.slicing import slices
from zeroshot_nas.spaces.chain import ChainSpace

CHAINS = [name for name in zs.list_spaces() if isinstance(zs.get_space(name), ChainSpace)]
OTHERS = [name for name in zs.list_spaces() if name not in CHAINS]


def nested(name, seed, **options):
    space = zs.get_space(name, input_size=(3, 16, 16), **options)
    return NestedSpace(space, space.sample(random.Random(seed)))


@pytest.mark.parametrize("name", CHAINS)
@settings(max_examples=8)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 40), excited=st.booleans())
def test_all_moves_stay_in_the_space_and_every_network_inherits_in_both_ways(name, seed, steps, excited):
    space, rng = nested(name, seed, squeeze_excite=excited), random.Random(seed)
    a, b = space.sample(rng), space.mutate(space.outer, rng, steps)
    for network in (space.outer, space.initial(), a, b, space.crossover(a, b, rng)):
        assert network in space
        assert why_not(space.outer, network) is None
        slices(space.outer, network)  # refuses what is no slice
        assert contains(network, space.smallest("flops"))
        for cost in ("params", "flops", "layers", "activations"):
            value = getattr(complexity(network), cost)
            assert getattr(complexity(space.smallest(cost)), cost) <= value
    assert contains(a, a)


def test_a_larger_network_grows_from_any_that_it_contains():
    space = nested("vanilla", 3)
    for seed in range(3):
        small = space.sample(random.Random(seed))
        grown = zs.inherit(zs.build(small).eval(), space.outer)
        assert grown.architecture == space.outer


@settings(max_examples=6)
@given(seed=st.integers(0, 10_000))
def test_containing_is_transitive(seed):
    space, rng = nested("vanilla", seed), random.Random(seed)
    middle = space.sample(rng)
    inner = NestedSpace(space.space, middle).sample(rng)
    assert contains(space.outer, inner)
    assert not contains(inner, space.outer) or inner == space.outer


@pytest.mark.parametrize(
    ("large", "small", "fault"),
    [
        ("SuperConvK3BNRELU(3,8,1,1)", "SuperConvK3BNRELU(3,16,1,1)", "block 0: 16 channels do not fit into 8"),
        ("SuperConvK3BNRELU(3,8,1,1)", "SuperConvK3BNRELU(3,8,2,1)", "block 0: strides differ"),
        ("SuperConvK3BNRELU(3,8,1,1)", "SuperConvK3BNRELU(3,8,1,2)", "block 0: its operations are of other kinds"),
        ("SuperConvK3BNRELU(3,8,1,2)", "SuperConvK3BNRELU(3,8,1,3)", "block 0: 3 sub-layers do not fit into 2"),
        ("SuperConvK3BNRELU(3,8,1,1)" * 2, "SuperConvK3BNRELU(3,8,1,1)", "one has 2 blocks, the other 1"),
        ("SuperResK3K3(3,8,1,8,1)", "SuperConvK3BNRELU(3,8,1,1)", "block 0: its operations are of other kinds"),
        # both widths alike, and the second residual has no projection
        ("SuperResIDWE1K3(3,16,1,16,1)", "SuperResIDWE1K3(3,16,1,8,1)", "block 0: a residual link is a projection"),
    ],
)
def test_what_does_not_fit_is_named(large, small, fault):
    large, small = (
        zs.Architecture.from_string(text.replace(")SuperConvK3BNRELU(3", ")SuperConvK3BNRELU(8"))
        for text in (large, small)
    )
    assert why_not(large, small).startswith(fault)


def test_networks_for_other_images_do_not_nest():
    net = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)")
    assert "input sizes" in why_not(net, replace(net, num_classes=3))


def test_a_search_stays_in_the_space_and_a_pickled_space_is_the_same():
    space = nested("resnet", 1)
    space = pickle.loads(pickle.dumps(space))
    budget = zs.Budget(params=0.5 * complexity(space.outer).params)
    found = zs.search(space, "ceres", budget, proposals=300, islands=2, progress=False)
    assert all(each.architecture in space for each in found.history)
    assert found.best.string == found.best.architecture.to_string()
    assert space.size() >= len(found.history)
    assert space.size(max_layers=space.smallest("layers").layers) >= 1


@pytest.mark.parametrize("name", OTHERS)
def test_networks_that_are_no_chains_do_not_nest(name):
    space = zs.get_space(name)
    with pytest.raises(ArchitectureError, match="only chains of blocks nest"):
        NestedSpace(space, space.initial())


def test_a_network_outside_the_space_bounds_none():
    with pytest.raises(ArchitectureError, match="is not in the space"):
        NestedSpace(zs.get_space("resnet"), zs.get_space("vanilla").initial())
