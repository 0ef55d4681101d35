"""Bits that fit a limit on flash: what an allocation keeps to, and how near it is to the best of all."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from tests.strategies import architectures
from zeroshot_nas.closed_form.rounding import layers_of, rounding_loss
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.weight_bits import BitAllocation, allocate_bits, fewest_bytes
from zeroshot_nas.errors import ArchitectureError, BudgetError
from zeroshot_nas.micro.memory import memory
from zeroshot_nas.micro.operators import network_operators

NET = zs.Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)", (3, 16, 16))
CHOICES = st.sampled_from([(8,), (4, 8), (2, 4, 8), (2, 8), (4,)])


@settings(max_examples=40, deadline=None)
@given(architectures(), CHOICES, st.floats(0, 1))
def test_it_keeps_to_the_limit_or_has_the_fewest_bits(architecture, bits, share):
    least, most = fewest_bytes(architecture, bits), fewest_bytes(architecture, (8,))
    limit = max(1, 0.9 * least + share * (1.1 * most - 0.9 * least))
    found = allocate_bits(architecture, limit, bits)
    assert set(found.weight_bits) <= set(bits)
    bytes_of = zs.cost(found)["weights"]
    assert bytes_of == memory(found).weights
    if limit < least:
        assert bytes_of == least
        assert set(found.weight_bits) == {min(bits)}
    else:
        assert least <= bytes_of <= limit
    if limit >= most and 8 in bits:
        assert set(found.weight_bits) == {8}
    assert BitAllocation(limit, bits)(architecture) == found
    assert allocate_bits(found, limit, bits) == found, "bits that it has say nothing"


@settings(max_examples=30, deadline=None)
@given(architectures(), CHOICES, st.floats(0, 1))
def test_no_layer_could_have_more_bits_still(architecture, bits, share):
    least, most = fewest_bytes(architecture, bits), fewest_bytes(architecture, (8,))
    limit = least + share * (most - least) + 1
    found = allocate_bits(architecture, limit, bits)
    for place, now in enumerate(found.weight_bits):
        for more in bits:
            if more > now:
                other = (*found.weight_bits[:place], more, *found.weight_bits[place + 1 :])
                assert zs.cost(replace(found, weight_bits=other))["weights"] > limit


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([(4, 8), (2, 4, 8)]), st.integers(3_000, 9_000))
def test_no_allocation_is_better_by_more_than_a_step(bits, limit):
    def noise(weight_bits):
        return math.expm1(rounding_loss(replace(NET, weight_bits=weight_bits)))

    every = itertools.product(bits, repeat=NET.weighted_layers)
    fitting = [each for each in every if zs.cost(replace(NET, weight_bits=each))["weights"] <= limit]
    if not fitting:
        return
    best = min(map(noise, fitting))
    largest_step = max(
        layer.noise(few) - layer.noise(more) for layer in layers_of(NET) for few, more in itertools.pairwise(bits)
    )
    assert best <= noise(allocate_bits(NET, limit, bits).weight_bits) <= best + largest_step


@pytest.mark.parametrize("space", zs.list_spaces())
def test_eight_bits_cost_what_none_do(space):
    architecture = zs.get_space(space).sample(python_rng(2))
    eight = replace(architecture, weight_bits=(8,) * architecture.weighted_layers)
    assert memory(eight) == memory(architecture)
    assert zs.cost(eight).to_dict() == zs.cost(architecture).to_dict()
    four = allocate_bits(architecture, 1, (4,))
    assert zs.cost(four)["weights"] == fewest_bytes(architecture, (4,)) == memory(four).weights
    assert zs.cost(four)["peak_memory"] >= zs.cost(architecture)["peak_memory"], "weights are unpacked"
    assert {each.weight_bits for each in network_operators(four) if each.weights > each.channels} <= {4, 8}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("8kB", (3, 4)), r"bits are some of 2, 4 and 8, such as \(4, 8\); got \(3, 4\)"),
        (("8kB", ()), "bits are some of 2, 4 and 8"),
        (("8kB", "48"), "bits are some of 2, 4 and 8"),
        (("8kB", 4), "bits are some of 2, 4 and 8"),
        (("8KB", (4, 8)), "must be a number of bytes with kB"),
        ((0, (4, 8)), "must be a number above 0"),
    ],
)
def test_what_is_no_limit_or_no_bits_is_said(arguments, message):
    with pytest.raises(BudgetError, match=message):
        allocate_bits(NET, *arguments)


@pytest.mark.parametrize("bits", [(4,) * 4, (4,) * 6, (4, 4, 4, 4, 5), "44444", 4, (4.0,) * 5, (True,) * 5])
def test_bits_that_do_not_suit_a_network_are_refused(bits):
    with pytest.raises(ArchitectureError, match="weight_bits are 2, 4 or 8 for each of the network's 5 convolutions"):
        replace(NET, weight_bits=bits)
