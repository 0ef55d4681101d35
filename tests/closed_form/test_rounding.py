"""What rounding weights costs: laws, Gaussian weights that are drawn, and the noise of random networks."""

import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from tests.strategies import architectures
from zeroshot_nas.closed_form.ceres import ceres, ceres_pool
from zeroshot_nas.closed_form.cet.score import cet, cet_pool
from zeroshot_nas.closed_form.entropy import entropy_maedet, entropy_qe
from zeroshot_nas.closed_form.rounding import layers_of, relative_noise, rounding_loss
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.quantization.int8_network import ranges
from zeroshot_nas.quantization.program import float_program
from zeroshot_nas.quantization.rules import grid
from zeroshot_nas.training.checkpoint import TrainedNetwork

NET = zs.Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,2)", (3, 16, 16))


def with_bits(architecture, bits):
    return replace(architecture, weight_bits=(bits,) * architecture.weighted_layers)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("fan_in", [2, 9, 144, 1000])
def test_the_error_of_gaussian_weights_is_that_of_drawn_ones(fan_in, bits):
    weights = torch.randn(400_000 // fan_in, fan_in, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    step = weights.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    drawn = float((weights - (weights / step).round() * step).square().mean())
    assert relative_noise(fan_in, bits) == pytest.approx(drawn, rel=0.05)


def test_a_weight_alone_is_met_exactly():
    assert relative_noise(1, 4) == 0


@settings(max_examples=30, deadline=None)
@given(architectures())
def test_fewer_bits_lose_more(architecture):
    losses = [rounding_loss(with_bits(architecture, bits)) for bits in (8, 4, 2)]
    assert 0 <= losses[0] <= losses[1] <= losses[2]
    assert rounding_loss(architecture) == 0
    *_, classifier = layers_of(architecture)
    assert classifier.share == pytest.approx(1), "all that the logits are comes through it"
    assert all(layer.share >= 0 for layer in layers_of(architecture))


@pytest.mark.parametrize("space", zs.list_spaces())
def test_every_space_has_a_layer_for_each_number_of_bits(space):
    architecture = zs.get_space(space).sample(python_rng(1))
    layers = layers_of(architecture)
    assert len(layers) == architecture.weighted_layers
    assert 0 < rounding_loss(with_bits(architecture, 4)) < rounding_loss(with_bits(architecture, 2))
    assert sum(map(len, with_bits(architecture, 4).bits_by_block())) == len(layers)


def test_shares_of_a_plain_chain_are_1_and_branches_share():
    chain = zs.Architecture.from_string("SuperConvK3BNRELU(3,16,1,2)SuperConvK1BNRELU(16,32,2,1)")
    assert [layer.share for layer in layers_of(chain)] == [1, 1, 1, 1]
    branches = zs.Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)")
    assert [layer.share for layer in layers_of(branches)] == [1, 0.5, 0.5, 0.5, 1]


def test_the_noise_of_random_networks_is_what_is_predicted():
    """Relative power of the logits' error, median of ten draws; the mean field leaves batch norms' statistics out."""
    architecture = with_bits(
        zs.Architecture.from_string("SuperConvK3BNRELU(3,32,1,1)SuperResK3K3(32,32,1,32,2)", (3, 12, 12)), 4
    )
    predicted = sum(layer.noise(4) for layer in layers_of(architecture))
    measured = [_noise(architecture, seed) for seed in range(10)]
    assert predicted / 2 < statistics.median(measured) < 2 * predicted


@torch.no_grad()
def _noise(architecture, seed):
    images = torch.randn(64, *architecture.input_size, generator=torch.Generator().manual_seed(seed))
    network = zs.build(architecture, seed=seed)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    network(images)
    names = list(map(str, range(architecture.num_classes)))
    trained = TrainedNetwork(architecture, [0.0] * 3, [1.0] * 3, names).eval()
    trained.load_state_dict(network.state_dict())
    program = float_program(trained)
    rounded, _ = grid(program.operators, *ranges(trained, images)).rounded_program(program)
    *_, exact = program.run(images)
    *_, noisy = rounded.run(images)
    return float((noisy - exact).square().mean() / exact.square().mean())


@pytest.mark.parametrize(("form", "pool"), [(ceres, ceres_pool), (cet, cet_pool)])
def test_scores_lose_what_rounding_takes(form, pool):
    rounded = with_bits(NET, 4)
    assert form(rounded) == form(NET) - rounding_loss(rounded)
    assert form(rounded).details == {**form(NET).details, "rounding": rounding_loss(rounded)}
    assert pool([NET, rounded]) == [form(NET), form(rounded)], "alone and side by side"


def test_qe_score_is_maedets_but_for_the_grid():
    """Of a fine grid that cuts nothing off, and deviations of 1, the two are one."""
    exact = entropy_qe(with_bits(NET, 8), weight_std=30.0, activation_std=30.0)
    shift = entropy_qe(with_bits(NET, 8), weight_std=15.0, activation_std=30.0)
    convs, stages = 5, (0, 0, 1, 1, 6)  # of the main chain, all but the stem in the last stage
    of_grid = sum(stages[-2:]) * 1 + stages[-1] * (convs - 1)
    assert exact - shift == pytest.approx(of_grid * 0.6931, rel=1e-3)
    assert entropy_maedet(NET) == pytest.approx(exact - of_grid * 3.4012, rel=1e-3)
    assert entropy_qe(with_bits(NET, 2)) < entropy_qe(with_bits(NET, 4)) < entropy_qe(NET)
    with pytest.raises(ProxyError, match="weight_std must be a number above 0, got 0"):
        entropy_qe(NET, weight_std=0)


@settings(max_examples=20, deadline=None)
@given(architectures(), st.sampled_from([2, 4, 8]))
def test_bits_survive_json(architecture, bits):
    rounded = with_bits(architecture, bits)
    assert zs.Architecture.from_json(rounded.to_json()) == rounded != architecture
    assert rounded.key != architecture.key
    assert eval(repr(with_bits(NET, bits)), vars(zs) | _blocks()) == with_bits(NET, bits)


def _blocks():
    from zeroshot_nas.blocks.conv import SuperConv
    from zeroshot_nas.blocks.residual import SuperResKXKX

    return {"SuperConv": SuperConv, "SuperResKXKX": SuperResKXKX}
