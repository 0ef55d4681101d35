"""The closed-form Zen-score against numerical integration, hand counts and the forward pass."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

import zeroshot_nas as zs
from tests.published import CIFAR_1M, architecture_of
from tests.strategies import architectures
from zeroshot_nas.architecture.blockspec import BLOCKS
from zeroshot_nas.chains.coding import Chains, has_code
from zeroshot_nas.closed_form.zen import _decorrelation, _kernel_gap, _tap_sums, zen_closed_form
from zeroshot_nas.closed_form.zen_pool import zen_closed_form_pool
from zeroshot_nas.core.score import value_or_error
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ArchitectureError, ProxyError


def test_one_layer_by_hand():
    """3x3 convolution of a 4x4 image: rows are covered 3/4, 1, 3/4 by the three taps."""
    net = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", (3, 4, 4))
    variance = 3 * (3 / 4 + 1 + 3 / 4) ** 2
    alpha = 0.01
    decorrelation = 1 - 1 / math.sqrt(1 + alpha**2)
    expected = math.log(8 * 16) + 0.5 * math.log(decorrelation / math.pi) + 0.5 * math.log(variance)
    assert zen_closed_form(net, variant="l1") == pytest.approx(expected, rel=1e-9)
    running = expected - 0.5 * math.log(variance) + 0.5 * math.log(0.81 + 0.19 * variance)
    assert zen_closed_form(net, variant="zennas") == pytest.approx(running, rel=1e-9)


@given(st.floats(0.02, 1.0))
def test_the_kernel_gap_is_the_integral_it_stands_for(decorrelation):
    rho = 1 - decorrelation
    # given z, z' is N(rho z, 1 - rho^2); E relu(z') = s phi(m / s) + m Phi(m / s)
    spread = math.sqrt(1 - rho**2)

    def integrand(z):
        mean = rho * z
        inner = spread * stats.norm.pdf(mean / spread) + mean * stats.norm.cdf(mean / spread)
        return z * stats.norm.pdf(z) * inner

    expected = 0.5 - integrate.quad(integrand, 0, 10)[0]
    assert _kernel_gap(decorrelation) == pytest.approx(expected, abs=1e-7)


def test_decorrelation_grows_by_pi_over_pi_minus_1_and_keeps_its_digits():
    small = _decorrelation(0, 1e-6)
    assert small == pytest.approx(0.5e-12, rel=1e-9)
    assert _decorrelation(1, 1e-6) / small == pytest.approx(math.pi / (math.pi - 1), rel=1e-5)
    depths = [_decorrelation(depth, 0.01) for depth in range(0, 2000, 100)]
    assert all(0 < value <= 1 + 1e-9 for value in depths)
    assert depths == sorted(depths)


@given(st.integers(1, 40), st.sampled_from((1, 3, 5, 7)), st.integers(1, 4))
def test_tap_sums_equal_a_count(side, kernel_size, stride):
    padding = kernel_size // 2
    outputs = range((side + 2 * padding - kernel_size) // stride + 1)
    shares = [
        np.mean([0 <= position * stride + tap - padding < side for position in outputs]) for tap in range(kernel_size)
    ]
    assert _tap_sums(side, kernel_size, stride, padding) == pytest.approx((sum(shares), sum(np.square(shares))))


@given(architectures())
def test_more_copies_of_a_sub_layer_add_equally(architecture):
    """The score is a sum of block terms and a function of depth: finite for whatever our blocks say."""
    for variant in ("paper", "l1", "zennas"):
        assert math.isfinite(zen_closed_form(architecture, variant=variant))


@given(st.lists(architectures(), min_size=1, max_size=4), st.sampled_from(["paper", "l1", "zennas", "bogus"]))
def test_many_at_once_to_the_last_bit(networks, variant):
    """In arrays, which hold networks of as many channels and classes, and in a list."""
    alone = [value_or_error(partial(zen_closed_form, variant=variant), each) for each in networks]
    same = [each for each in networks if has_code(each) and each.input_size[0] == networks[0].input_size[0]]
    same = [each for each in same if each.num_classes == same[0].num_classes]
    pools = [(networks, alone)]
    if same:
        pools.append((Chains.of(same), [alone[networks.index(each)] for each in same]))
    for pool, values in pools:
        assert repr(zen_closed_form_pool(pool, variant=variant)) == repr(values)


def test_a_block_without_a_kind_is_scored_alone():
    """A block of two strides is none of those that are worked out side by side."""
    networks = [
        zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,1)"),
        zs.Architecture((BLOCKS["TinyNASK1K3K1"](out_channels=24, stride=2),)),
    ]
    assert repr(zen_closed_form_pool(Chains.of(networks))) == repr(
        [value_or_error(zen_closed_form, each) for each in networks]
    )


@pytest.mark.parametrize("variant", ["paper", "l1", "zennas"])
@pytest.mark.parametrize(
    "text",
    [
        "SuperConvK3BNRELU(3,64,1,1)",
        "SuperConvK5BNRELU(3,64,2,2)",
        "SuperConvK3BNRELU(3,64,1,1)SuperResK3K3(64,64,2,64,1)",
        "SuperConvK3BNRELU(3,128,1,1)SuperResIDWE2K7(128,128,1,128,1)",
        "SuperConvK3BNRELU(3,128,1,1)SuperResK1K5K1(128,128,2,128,2)",
    ],
)
def test_it_is_the_mean_of_the_forward_pass(text, variant):
    """Wide shallow networks: finite width and the batch's finite size leave less than 0.1."""
    net = zs.Architecture.from_string(text, (3, 12, 12))
    forward = zs.score(net, "zen", variant=variant, batch_size=16, repeats=12)
    assert zen_closed_form(net, variant=variant) == pytest.approx(forward.value, abs=0.1 + 3 * forward.standard_error)


@pytest.mark.slow
@pytest.mark.parametrize("space", ["resnet", "mobilenet"])
def test_it_ranks_as_the_forward_pass_does(space):
    """40 random networks; the benchmark does 200 and finds the forward pass no closer to itself."""
    where, rng = zs.get_space(space, input_size=(3, 16, 16)), python_rng(1)
    nets = [net for net in (where.sample(rng) for _ in range(400)) if zs.cost(net).flops < 6e6][:40]
    closed = [zen_closed_form(net) for net in nets]
    forward = [zs.score(net, "zen", repeats=2).value for net in nets]
    assert len(nets) == 40
    assert stats.spearmanr(closed, forward).statistic > 0.98


def test_the_published_network_lies_near_its_anchors():
    """CLOSED: the forward pass runs a little above in deep networks (98 convolutions here)."""
    net = architecture_of(CIFAR_1M)
    assert 0 < 191.9 - zen_closed_form(net) < 5
    assert 0 < 122.3 - zen_closed_form(net, variant="zennas") < 5


def test_scores_of_the_closed_form():
    net = architecture_of(CIFAR_1M)
    scored = zs.score(net, "zen_closed_form", variant="zennas")
    assert (scored.value, scored.standard_error, scored.repeats) == (zen_closed_form(net, variant="zennas"), 0.0, 1)
    with pytest.raises(ProxyError, match="reads an Architecture, got a Conv2d"):
        zs.score(torch.nn.Conv2d(3, 3, 1), "zen_closed_form", input_size=(3, 4, 4))
    with pytest.raises(ArchitectureError, match="variants"):
        zen_closed_form(net, variant="papier")
