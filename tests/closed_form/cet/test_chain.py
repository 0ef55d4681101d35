"""Chains in a few numbers a layer: as the general propagation, whatever the blocks and resolutions."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.blocks.layers import Layers as PlainLayers
from zeroshot_nas.chains.coding import Chains, has_code
from zeroshot_nas.chains.lowering import LOWERING
from zeroshot_nas.closed_form.cet.chain import propagate_chains
from zeroshot_nas.closed_form.cet.score import cet, cet_pool, cet_terms_pool, plan_sequence, propagate, terms_of
from zeroshot_nas.closed_form.cet.terms import CetTerms, NetworkTerms
from zeroshot_nas.spaces.nasbench201 import NASBench201

SIZES = [(3, 32, 32), (1, 28, 28), (3, 224, 224), (3, 15, 15), (1, 8, 8), (3, 5, 7), (3, 96, 64)]


def general(network: zs.Architecture) -> CetTerms:
    """By the propagation of spectra."""
    return terms_of(propagate([plan_sequence(network)], network.input_size, [network.num_classes])).row(0)


def is_chain(network: zs.Architecture) -> bool:
    return has_code(network) and bool(LOWERING.covers(Chains.of([network])).all())


def by_chain(network: zs.Architecture) -> CetTerms:
    assert is_chain(network)
    return NetworkTerms(*propagate_chains(Chains.of([network]))).row(0)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["resnet", "mobilenet", "vanilla", "inverted", "nasbench_macro"]),
    st.sampled_from(SIZES),
)
def test_a_chain_is_as_the_general_propagation(seed, name, size):
    network = zs.get_space(name, input_size=size).sample(random.Random(seed))
    terms = by_chain(network)
    assert vars(terms) == pytest.approx(vars(general(network)), rel=1e-9)
    assert cet(network).details == terms.details
    assert cet_terms_pool([network]) == [terms]


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["resnet", "mobilenet", "vanilla", "inverted"]), st.integers(1, 7))
def test_company_changes_nothing(seed, name, count):
    rng = random.Random(seed)
    networks = [
        zs.get_space(name, input_size=size, squeeze_excite=gate).sample(rng)
        for size in rng.choices(SIZES, k=count)
        for gate in (False, True)
    ]
    alone = [cet(network) for network in networks]
    together = cet_pool(networks)
    assert together == alone
    assert [each.details for each in together] == [each.details for each in alone]


@pytest.mark.parametrize(
    "text",
    [
        "SuperConvK3BNRELU(3,16,1,2)SuperResK1K5K1(16,24,2,8,3)SuperConvK1BNRELU(24,32,1,1)",
        "SuperConvK7BNRELU(3,16,2,1)SuperResIDWE4K5(16,24,2,16,3)SuperResIDWE1K3(24,24,1,8,2)",
        "SuperConvK3BNRELU(3,1,1,1)SuperResIDWE1K3(1,1,2,1,2)SuperResK3K3(1,16,1,16,1)",
    ],
)
def test_blocks_in_a_row(text):
    network = zs.Architecture.from_string(text, (3, 32, 32))
    assert vars(by_chain(network)) == pytest.approx(vars(general(network)), rel=1e-9)


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
    assert not is_chain(network)
    (found,) = cet_terms_pool([network])
    assert found == general(network) if isinstance(found, CetTerms) else "no convolution" in str(found)
