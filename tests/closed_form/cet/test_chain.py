"""Chains in a few numbers a layer: as the general propagation, whatever the blocks and resolutions."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.blocks.layers import Layers as PlainLayers
from zeroshot_nas.closed_form.cet.chain import forward_block, propagate_chain
from zeroshot_nas.closed_form.cet.score import cet, cet_terms_pool, plan_sequence, propagate, terms_of
from zeroshot_nas.closed_form.cet.terms import CetTerms
from zeroshot_nas.spaces.nasbench201 import NASBench201

SIZES = [(3, 32, 32), (1, 28, 28), (3, 224, 224), (3, 15, 15), (1, 8, 8), (3, 5, 7), (3, 96, 64)]


def general(network: zs.Architecture) -> CetTerms:
    """By the propagation of spectra."""
    (found,) = terms_of(propagate([plan_sequence(network)], network.input_size, [network.num_classes]))
    assert isinstance(found, CetTerms)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["resnet", "mobilenet", "nasbench_macro"]), st.sampled_from(SIZES))
def test_a_chain_is_as_the_general_propagation(seed, name, size):
    network = zs.get_space(name, input_size=size).sample(random.Random(seed))
    chain = propagate_chain(network)
    assert chain is not None
    terms = chain.terms()
    assert vars(terms) == pytest.approx(vars(general(network)), rel=1e-9)
    assert chain.score() == pytest.approx(terms.value("u"), rel=1e-12)
    assert cet(network).details == terms.details
    assert cet_terms_pool([network]) == [terms]


@pytest.mark.parametrize(
    "text",
    [
        "SuperConvK3BNRELU(3,16,1,2)SuperResK1K5K1(16,24,2,8,3)SuperConvK1BNRELU(24,32,1,1)",
        "SuperConvK7BNRELU(3,16,2,1)SuperResIDWE4K5(16,24,2,16,3)SuperResIDWE1K3(24,24,1,8,2)",
    ],
)
def test_blocks_in_a_row(text):
    network = zs.Architecture.from_string(text, (3, 32, 32))
    chain = propagate_chain(network)
    assert chain is not None
    assert vars(chain.terms()) == pytest.approx(vars(general(network)), rel=1e-9)


def test_a_mutation_works_out_the_block_that_it_changes_alone():
    space = zs.get_space("resnet", input_size=(3, 32, 32))
    network = space.sample(random.Random(0))
    wider = replace(network.blocks[2], bottleneck_channels=network.blocks[2].bottleneck_channels + 8)
    cet(network)
    before = forward_block.cache_info().misses
    changed = replace(network, blocks=(*network.blocks[:2], wider, *network.blocks[3:]))
    cet(changed)
    assert forward_block.cache_info().misses - before == 1
    cet(changed)
    assert forward_block.cache_info().misses - before == 1


@pytest.mark.parametrize(
    "network",
    [
        NASBench201().from_string("333333", notation="op_code"),  # cells
        zs.Architecture((PlainLayers(out_channels=8, layers="conv3-relu"),), (3, 8, 8)),  # no batch norm
        zs.Architecture((PlainLayers(out_channels=3, layers="relu-bn"),), (3, 8, 8)),  # one without convolution
        zs.Architecture.from_string("SuperConvK3BNRELU(3,8,4,1)", (3, 16, 16)),  # a stride of 4
    ],
)
def test_what_is_no_chain_is_left_to_the_general_propagation(network):
    assert propagate_chain(network) is None
    (found,) = cet_terms_pool([network])
    assert found == general(network) if isinstance(found, CetTerms) else "no convolution" in str(found)
