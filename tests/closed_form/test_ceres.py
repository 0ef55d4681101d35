"""CERES: its laws, chains against cells' engine, a pool against one by one, and networks trained at one budget."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

import zeroshot_nas as zs
from tests.strategies import architectures
from zeroshot_nas.closed_form.ceres import ceres, ceres_pool, score_of
from zeroshot_nas.closed_form.cet.score import plan_sequence, propagate, terms_of
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.measured_cet import measure_cet
from zeroshot_nas.scoring.proxy import Batch

SIZES = [(3, 32, 32), (1, 28, 28), (3, 224, 224), (3, 5, 7), (3, 96, 64)]

START = "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,8,1,8,1)"
WIDE = START + "SuperResK3K3(8,16,2,16,2)SuperResK3K3(16,32,2,32,2)"
NARROW = START + "SuperResK3K3(8,16,2,8,3)SuperResK3K3(16,32,2,16,4)SuperResK3K3(32,40,2,40,1)"
ONCE = START + "SuperResK3K3(8,16,2,8,1)SuperResK3K3(16,32,2,16,1)SuperResK3K3(32,40,2,40,1)"
BOTTLENECK, LAST = "SuperResK1K3K1(40,64,1,16,1)", "SuperConvK1BNRELU(64,24,1,1)"


def stages(repeats: int, stride: int, *widths: int) -> str:
    text, before = f"SuperConvK3BNRELU(3,{widths[0]},1,1)", widths[0]
    for width in widths:
        text += f"SuperResK3K3({before},{width},{stride},{width},{repeats})"
        before, stride = width, 2
    return text


TRAINED = [
    (67.2, stages(1, 2, 18, 34, 68) + "SuperConvK1BNRELU(68,137,1,1)"),
    (67.0, WIDE + "SuperResK3K3(32,40,2,40,1)"),
    (66.9, stages(2, 1, 7, 15, 30)),
    (66.0, WIDE),
    (64.1, stages(3, 2, 10, 19, 38)),
    (63.7, WIDE + "SuperResK3K3(32,40,2,40,1)" + BOTTLENECK + LAST),
    (62.6, NARROW + BOTTLENECK),
    (61.9, NARROW + BOTTLENECK + LAST),
    (61.3, ONCE + BOTTLENECK + LAST),
]
"""Accuracy in percent after 10 epochs of 10,000 images of CIFAR-10, batch 64, at most 100k params and 6.3M FLOPs; one
training each. Among them are winners of CET and what they become with wide bodies and without their last layers."""


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["resnet", "vanilla", "nasbench_macro"]), st.sampled_from(SIZES))
def test_a_chains_score_is_that_of_the_general_propagation(seed, name, size):
    network = zs.get_space(name, input_size=size).sample(random.Random(seed))
    passes = propagate([plan_sequence(network)], network.input_size, [network.num_classes])
    expected = score_of(terms_of(passes).row(0), network.num_classes, 10_000, 1_000)
    value = ceres(network, images=10_000, steps=1_000)
    assert value == pytest.approx(expected, rel=1e-9)
    assert value.details == pytest.approx(expected.details, rel=1e-9)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(architectures(), max_size=5))
def test_a_pool_is_as_one_by_one(networks):
    for network, value in zip(networks, ceres_pool(networks), strict=True):
        if isinstance(value, UndefinedScoreError):
            with pytest.raises(UndefinedScoreError):
                ceres(network)
        else:
            assert value == ceres(network)
            assert value.details == ceres(network).details


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(1, 10**6))
def test_few_images_ask_for_few_weights_and_many_steps_train_deep_networks(seed, few, more):
    network = zs.get_space("resnet", input_size=(3, 32, 32)).sample(random.Random(seed))
    assert ceres(network, images=few) > ceres(network, images=few + more)
    assert ceres(network, steps=few) < ceres(network, steps=few + more)


def widened(factor: int) -> zs.Architecture:
    a, b = 8 * factor, 16 * factor
    text = f"SuperConvK3BNRELU(3,{a},1,1)SuperResK3K3({a},{a},1,{a},2)SuperResK3K3({a},{b},2,{b},2)"
    return zs.Architecture.from_string(text, (3, 32, 32))


def test_a_wider_network_is_better():
    scores = [ceres(widened(factor)) for factor in (1, 2, 3, 4)]
    assert scores == sorted(scores)


def test_depth_counts_where_there_are_steps_to_train_it():
    def score(repeats, steps):
        text = f"SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,16,1,16,{repeats})"
        return ceres(zs.Architecture.from_string(text, (3, 32, 32)), steps=steps)

    gains = {steps: score(12, steps) - score(2, steps) for steps in (50, 500, 8_000, 128_000)}
    assert list(gains.values()) == sorted(gains.values())
    assert gains[50] < gains[128_000]


def test_of_networks_of_one_budget_few_steps_train_shallow_wide_ones_best():
    networks = [zs.reference(f"resnet{depth}", zs.Budget(flops=4e6), (3, 32, 32), 10) for depth in (8, 14, 20)]
    best = [max(networks, key=lambda each: ceres(each, steps=steps)) for steps in (100, 3_750, 64_000, 10**6)]
    assert [networks.index(network) for network in best] == [0, 1, 2, 2]


def test_it_orders_networks_that_were_trained_at_one_budget():
    networks = [zs.Architecture.from_string(text, (3, 32, 32)) for _, text in TRAINED]
    accuracy = [value for value, _ in TRAINED]
    scores = [ceres(network, images=10_000, steps=1_560) for network in networks]
    cet = [zs.score(network, "cet").value for network in networks]
    assert kendalltau(scores, accuracy).statistic > 0.3 > kendalltau(cet, accuracy).statistic


@pytest.mark.slow
def test_measured_on_modules_it_ranks_as_in_closed_form():
    space, rng = zs.get_space("nasbench201", num_cells=1, channels=8, input_size=(3, 16, 16)), random.Random(0)
    closed, measured = [], []
    batch = Batch(zs_images(), seed=0)
    while len(closed) < 16:
        network = space.sample(rng)
        try:
            value = ceres(network)
        except UndefinedScoreError:
            continue
        terms = measure_cet(zs.build(network, seed=0), batch).pieces
        closed.append((value.details["A"], value.details["R"], value.details["Z"], value.details["narrowness"]))
        measured.append((terms.A, terms.R, terms.Z, terms.narrowness))
    for one, other in zip(zip(*closed, strict=True), zip(*measured, strict=True), strict=True):
        assert spearmanr(one, other).statistic > 0.8


def zs_images():
    import torch

    return torch.randn(8, 3, 16, 16, generator=torch_generator(0))


@pytest.mark.parametrize("options", [{"images": 0}, {"steps": 0}, {"images": -5}])
def test_numbers_that_are_none_are_refused(options):
    with pytest.raises(ProxyError, match="whole number of 1 or more"):
        zs.score(widened(1), zs.get_proxy("ceres", **options))


def test_a_dead_network_has_no_score():
    dead = zs.get_space("nasbench201").from_string("000000", notation="op_code")
    assert zs.score(dead, "ceres").state == "failed"
