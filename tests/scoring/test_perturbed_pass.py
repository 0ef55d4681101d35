"""The fast forward pass against the general path, on the same weights and images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from tests.strategies import architectures
from zeroshot_nas.network.module import Conv2d
from zeroshot_nas.proxies.zen import zen_of_architecture
from zeroshot_nas.scoring.perturbed_pass import count_weights, gaussian_weights

VARIANTS = ("paper", "l1", "zennas")
HARDLY_MOVES = -12.0
"""Score below which the map's change is of the size of rounding."""


def arrays(architecture, dtype):
    generator = torch.Generator().manual_seed(3)
    inputs, noise = (torch.randn(2, *architecture.input_size, generator=generator, dtype=dtype) for _ in range(2))
    return zs.Batch(inputs, perturbation=noise)


def network_with(architecture, weights):
    """The built network with the convolutions of its main chain set to the next of ``weights``."""
    network, position = zs.build(architecture, init="gaussian").to(weights.dtype), 0
    for name, part in network.named_modules():
        if isinstance(part, Conv2d) and "shortcut" not in name:
            out_channels, in_channels, side, _ = part.weight.shape
            flat = weights[position : position + part.weight.numel()]
            part.weight.data = flat.view(out_channels, side, side, in_channels).permute(0, 3, 1, 2).contiguous()
            position += part.weight.numel()
    assert position == len(weights) == count_weights(architecture)
    return network


@pytest.mark.slow
@settings(max_examples=25)
@given(architectures(), st.sampled_from(VARIANTS))
def test_it_equals_the_general_path_in_double_precision(architecture, variant):
    weights = gaussian_weights(0, 0, count_weights(architecture)).double()
    batch = arrays(architecture, torch.float64)
    general = zs.score(network_with(architecture, weights), "zen", batch=batch, init="keep", variant=variant)
    if not general.ok:
        return  # a batch norm of one position and two equal images: undefined on either path
    if general.value < HARDLY_MOVES:
        return  # rounding decides
    fast = zen_of_architecture(architecture, batch, weights, variant=variant)
    assert fast == pytest.approx(general.value, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_equals_the_general_path_in_single_precision(variant):
    """A shallow network: in deep ones any rounding grows as the perturbation does."""
    architecture = zs.Architecture.from_string(
        "SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,24,2,16,1)SuperResIDWE2K5(24,32,1,16,1)", (3, 16, 16)
    )
    weights, batch = gaussian_weights(0, 0, count_weights(architecture)), arrays(architecture, torch.float32)
    general = zs.score(network_with(architecture, weights), "zen", batch=batch, init="keep", variant=variant)
    assert zen_of_architecture(architecture, batch, weights, variant=variant) == pytest.approx(general.value, rel=1e-5)


def test_streams_of_weights():
    short, long = gaussian_weights(0, 1, 1000), gaussian_weights(0, 1, 200_000)
    assert torch.equal(short, long[:1000])
    assert torch.equal(gaussian_weights(0, 1, 5_000_000)[:200_000], long)  # too long to keep, the same numbers
    assert not torch.equal(gaussian_weights(0, 2, 1000), short)
    assert not torch.equal(gaussian_weights(1, 1, 1000), short)
    # mean and deviation of 200,000 numbers, 5 standard errors
    assert abs(long.mean().item()) < 5 / 200_000**0.5
    assert abs(long.std().item() - 1) < 5 / 400_000**0.5
    assert len(long.unique()) > 190_000


def test_repeats_continue_to_the_standard_error_that_was_asked():
    net = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,2)", (3, 16, 16))
    loose, tight = zs.score(net, "zen", standard_error=0.2, repeats=2), zs.score(net, "zen", standard_error=0.02)
    assert loose.standard_error <= 0.2
    assert tight.standard_error <= 0.02
    assert 2 <= loose.repeats < tight.repeats <= 64
    assert zs.score(net, "zen", repeats=tight.repeats).value == tight.value
    assert zs.score(net, "zen", standard_error=1e-9, max_repeats=7).repeats == 7
