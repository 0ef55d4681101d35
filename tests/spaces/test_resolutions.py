"""Resolution as a choice: moves, codes, costs and scores of networks whose images differ in size."""

import math
import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.chains.coding import Chains
from zeroshot_nas.closed_form.ceres import ceres, ceres_pool
from zeroshot_nas.closed_form.cet.score import cet, cet_pool
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.chains import costs_of_chains
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.searchers.pool import digests
from zeroshot_nas.searching.signature import signature
from zeroshot_nas.spaces.base import options_of

NAMES = ("resnet", "mobilenet", "vanilla", "inverted")
SIDES = (16, 20, 24, 32)
FREE = {name: zs.get_space(name, resolutions=SIDES) for name in NAMES}
FIXED = {name: zs.get_space(name) for name in NAMES}
BOTH = {name: zs.get_space(name, resolutions=(24, 32)) for name in NAMES}
SEEDS, NAMED = st.integers(0, 2**32), st.sampled_from(NAMES)


def sampled(name, seed, count=5):
    return list(FREE[name].sample_all(python_rng(seed), count))


def mutated(name, seed, networks, mutations):
    rng = python_rng(seed, 1)
    return FREE[name].mutate_all(networks, [rng.getrandbits(64) for _ in networks], mutations)


@settings(max_examples=8)
@given(seed=SEEDS, name=NAMED)
def test_moves_stay_in_the_space(seed, name):
    space = FREE[name]
    networks = sampled(name, seed)
    mutants = list(mutated(name, seed, networks, [1 + place % 3 for place in range(len(networks))]))
    rng = python_rng(seed, 2)
    children = [space.crossover(a, b, rng) for a, b in zip(networks, mutants, strict=True)]
    for network in (*networks, *mutants, *children, space.initial(), space.smallest("flops")):
        assert network in space
        assert space.from_string(space.to_string(network)) == network
        assert zs.Architecture.from_json(network.to_json()) == network
    assert [child.input_size for child in children] == [network.input_size for network in networks]


@settings(max_examples=8)
@given(seed=SEEDS, name=NAMED)
def test_many_moves_are_those_of_each_alone(seed, name):
    space, networks = FREE[name], sampled(name, seed)
    rng = python_rng(seed, 3)
    seeds = [rng.getrandbits(64) for _ in networks]
    mutations = [1 + place % 4 for place in range(len(networks))]
    together = list(space.mutate_all(networks, seeds, mutations))
    alone = [space.mutate_all([net], [own], [n])[0] for net, own, n in zip(networks, seeds, mutations, strict=True)]
    assert together == alone
    halves = space.mutate_all(networks[:3], seeds[:3], mutations[:3]).joined(
        space.mutate_all(networks[3:], seeds[3:], mutations[3:])
    )
    assert list(halves) == together


@settings(max_examples=8)
@given(seed=SEEDS, name=NAMED)
def test_arrays_count_and_score_as_each_network_alone(seed, name):
    networks = sampled(name, seed)
    chains = Chains.of(networks)
    assert list(chains) == networks
    columns = costs_of_chains(chains)
    for cost in ("params", "flops", "activations", "layers"):
        assert columns[cost].tolist() == [complexity(each)[cost] for each in networks]
    for pool, one in ((ceres_pool, ceres), (cet_pool, cet)):
        alone = [one(each) for each in networks]
        assert pool(chains) == alone
        assert pool(networks) == alone


@settings(max_examples=8)
@given(seed=SEEDS, name=NAMED)
def test_codes_are_taken_joined_and_sent(seed, name):
    networks = sampled(name, seed)
    chains = Chains.of(networks)
    assert list(chains.take([4, 1])) == [networks[4], networks[1]]
    assert list(chains[2:4]) == networks[2:4]
    for cut in range(1, len(networks)):  # either part may be of one size
        assert list(Chains.of(networks[:cut]).joined(Chains.of(networks[cut:]))) == networks
    assert list(pickle.loads(pickle.dumps(chains))) == networks
    assert digests(chains) == [digests([each])[0] for each in networks]


@settings(max_examples=8)
@given(seed=SEEDS, name=NAMED)
def test_networks_that_differ_in_resolution_alone_are_two(seed, name):
    (network,) = sampled(name, seed, 1)
    others = [replace(network, input_size=size) for size in FREE[name].input_sizes]
    assert len({digests([each])[0] for each in others}) == len({each.key for each in others}) == len(SIDES)
    assert len({FREE[name].canonical(each) for each in others}) == len(SIDES)
    assert len({signature(each).resolutions for each in others}) == len(SIDES)
    flops = [zs.cost(each).flops for each in others]
    assert flops == sorted(flops)
    assert len({zs.cost(each).params for each in others}) == 1


@settings(max_examples=8)
@given(seed=SEEDS, name=NAMED, mutations=st.integers(1, 3))
def test_without_the_option_or_with_one_resolution_all_is_as_it_was(seed, name, mutations):
    spaces = FIXED[name], zs.get_space(name, resolutions=[32])
    found = []
    for space in spaces:
        rng = python_rng(seed)
        networks = list(space.sample_all(rng, 4))
        found.append([*networks, *space.mutate_all(networks, range(4), [mutations] * 4), space.initial()])
    assert found[0] == found[1]
    assert {each.input_size for each in found[0]} == {(3, 32, 32)}


COUNT = 400


def test_resolutions_are_drawn_evenly_and_change_now_and_then():
    space = FREE["vanilla"]
    networks = space.sample_all(python_rng(0), COUNT)
    drawn = Counter(networks.sides[:, 0].tolist())
    assert set(drawn) == set(SIDES)
    assert all(abs(count - COUNT / 4) < 5 * math.sqrt(COUNT / 4) for count in drawn.values())
    for mutations in (1, 2):
        moved = space.mutate_all(networks, range(COUNT), [mutations] * COUNT).made
        changed = np.flatnonzero(moved.sides[:, 0] != networks.sides[:, 0])
        share = 1 - (7 / 8) ** mutations
        assert abs(len(changed) - COUNT * share) < 5 * math.sqrt(COUNT * share)
        new = Counter(moved.sides[changed, 0].tolist())
        assert all(abs(new[side] - len(changed) / 4) < 5 * math.sqrt(len(changed) / 4) for side in SIDES)


def test_a_change_of_resolution_leaves_the_blocks_or_about_the_flops():
    space = FREE["resnet"]
    network = space.scaled(4, 1, "SuperResK3K3")
    same, ratios = 0, []
    for seed in range(300):
        (mutant,) = space.mutate_all([network], [seed], [1])
        if mutant.input_size == network.input_size:
            continue
        if mutant.blocks == network.blocks:
            same += 1
        else:
            ratios.append(zs.cost(mutant).flops / zs.cost(network).flops)
    assert same > 5
    assert len(ratios) > 5
    assert all(0.8 < ratio < 1.25 for ratio in ratios)


def test_a_fixed_last_width_stays():
    space = zs.get_space("mobilenet", last_width=256, resolutions=(16, 32))
    rng = python_rng(0)
    networks = list(space.sample_all(rng, 40))
    assert all(each in space for each in (*networks, *space.mutate_all(networks, range(40), [2] * 40)))


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_ends_of_the_space(name):
    space, fixed = FREE[name], FIXED[name]
    assert space.initial() == fixed.initial()
    assert space.size() == math.inf
    assert space.size(6) == 4 * fixed.size(6)
    assert space.smallest("flops").input_size == (3, 16, 16)
    assert zs.cost(space.smallest("flops")).flops < zs.cost(fixed.smallest("flops")).flops
    assert BOTH[name].initial().input_size == (3, 32, 32)
    assert zs.get_space(name, resolutions=(20, 28)).initial().input_size == (3, 28, 28)
    elsewhere = replace(space.initial(), input_size=(3, 30, 30))
    assert elsewhere not in space
    with pytest.raises(ArchitectureError, match=r"it takes \(3, 30, 30\).*\(3, 16, 16\) or \(3, 20, 20\)"):
        space.to_string(elsewhere)
    assert "resolutions" not in options_of(fixed)  # as runs of earlier releases have it
    assert options_of(space)["resolutions"] == [16, 20, 24, 32]


def test_strides_are_those_of_the_input_size():
    for name in ("resnet", "mobilenet"):
        rng = python_rng(1)
        for network in FREE[name].sample_all(rng, 20):
            assert math.prod(block.stride for block in network.blocks) == 8
    space = zs.get_space("vanilla", resolutions=SIDES)
    assert space.max_halvings == FIXED["vanilla"].max_halvings


def test_images_that_are_no_squares_keep_their_proportions():
    space = zs.get_space("resnet", input_size=(1, 16, 40), resolutions=(8, 16))
    assert space.input_sizes == ((1, 8, 20), (1, 16, 40))
    text = space.to_string(replace(space.initial(), input_size=(1, 8, 20)))
    assert text.endswith("@8x20")
    assert space.from_string(text).input_size == (1, 8, 20)


@pytest.mark.parametrize("text", ["@24", " @ 24 ", "@24x24"])
def test_a_resolution_behind_a_text_is_read(text):
    network = FREE["resnet"].initial()
    read = zs.Architecture.from_string(network.to_string() + text, (3, 32, 32))
    assert read == replace(network, input_size=(3, 24, 24))
    assert FREE["resnet"].from_string(network.to_string() + text) == read
    assert FREE["resnet"].from_string(network.to_string()) == network  # without one: the initial one


@pytest.mark.parametrize("text", ["@", "@24x", "@x24", "@-24", "@0", "@24@28", "@2.5", "@9999999"])
def test_a_resolution_that_is_none_is_refused(text):
    with pytest.raises(ArchitectureError):
        zs.Architecture.from_string(FREE["resnet"].initial().to_string() + text, (3, 32, 32))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("resolutions", "said"),
    [
        ((), "one or more sides in pixels"),
        (24, "one or more sides in pixels"),
        ("24", "one or more sides in pixels"),
        ((24, 24), "must differ, got 24, 24"),
        ((24, 28.5), "got 28.5"),
        ((24, True), "got True"),
        ((24, "28"), "got '28'"),
        ((24, -3), "got -3"),
        ((24, 10**12), "got 1000000000000"),
    ],
)
def test_resolutions_that_can_not_be_are_refused(name, resolutions, said):
    with pytest.raises(ArchitectureError, match=said):
        zs.get_space(name, resolutions=resolutions)


@pytest.mark.parametrize(("name", "least"), [("resnet", 8), ("mobilenet", 8), ("vanilla", 16)])
def test_a_resolution_below_what_the_strides_divide_by_is_refused(name, least):
    assert zs.get_space(name, resolutions=(least, 32)).input_sizes[0] == (3, least, least)
    with pytest.raises(ArchitectureError, match=f"whole numbers of {least} or more"):
        zs.get_space(name, resolutions=(least - 1, 32))


@pytest.mark.parametrize("name", [name for name in zs.list_spaces() if name not in NAMES])
def test_other_spaces_say_that_they_have_no_such_option(name):
    with pytest.raises(ArchitectureError, match=r"has no option 'resolutions'\. Options: ") as error:
        zs.get_space(name, resolutions=(24, 32))
    assert "\n" not in str(error.value)
