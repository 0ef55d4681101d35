"""Convolution and batch norm, differentiated twice: torch's values and gradients, the right second derivatives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import grad, gradgradcheck

import zeroshot_nas as zs
from zeroshot_nas import Batch
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.scoring.double_backward import batch_norm, convolution

CONVOLUTIONS = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch_generator(seed), dtype=torch.float64).requires_grad_()


def assert_alike(ours, torchs, arguments):
    """The same value, the same first derivatives, and derivatives of those that differences confirm."""
    results = [function(*arguments) for function in (ours, torchs)]
    assert torch.equal(*results)
    upstream = draw(*results[0].shape, seed=9)
    firsts = [grad(result, arguments, upstream, create_graph=True) for result in results]
    assert all(map(torch.equal, *firsts))
    directions = [draw(*each.shape, seed=index) for index, each in enumerate(arguments)]
    seconds = [grad(first, arguments, directions, allow_unused=True, materialize_grads=True) for first in firsts]
    assert all(torch.allclose(*each, rtol=1e-9, atol=1e-9) for each in zip(*seconds, strict=True))
    assert gradgradcheck(ours, arguments)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2), st.sampled_from([1, 2]), st.booleans()
)
def test_a_convolution_is_torchs(axes, stride, padding, dilation, groups, bias):
    arguments = [draw(2, 2, *[4] * axes), draw(4, 2 // groups, *[2] * axes, seed=1)]
    arguments += [draw(4, seed=2)] if bias else []

    def of(function):
        def run(x, weight, *bias):
            return function(x, weight, bias[0] if bias else None, stride, (padding,) * axes, dilation, groups)

        return run

    assert_alike(of(convolution), of(CONVOLUTIONS[axes]), arguments)


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4), (2, 3, 4, 2), (2, 3, 2, 2, 2)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "C order"])
def test_a_batch_norm_is_torchs(shape, affine, last):
    x = draw(*shape)
    if last:
        x = x.detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_()
    weights = [draw(3, seed=1), draw(3, seed=2)] if affine else []

    def of(function):
        return lambda x, *weights: function(x, None, None, *(weights or (None, None)), True)

    assert_alike(of(batch_norm), of(nn.functional.batch_norm), [x, *weights])


def test_a_batch_norm_of_weight_zero():
    weight = torch.zeros(3, dtype=torch.float64).requires_grad_()
    assert gradgradcheck(lambda *each: batch_norm(each[0], None, None, *each[1:], True), (draw(4, 3), weight, draw(3)))


def test_what_torch_does_better_is_left_to_torch():
    x, weight = draw(2, 3, 6, 6), draw(4, 3, 3, 3)
    assert torch.equal(convolution(x, weight, padding="same"), torch.conv2d(x, weight, padding="same"))
    assert torch.equal(convolution(x[0], weight), torch.conv2d(x[0], weight))
    mean, var = torch.zeros(3, dtype=x.dtype), torch.ones(3, dtype=x.dtype)
    assert torch.equal(batch_norm(x, mean, var), nn.functional.batch_norm(x, mean, var))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        batch_norm(x[:1, :, 0, 0], None, None, training=True)


def test_grasp_has_the_value_of_torchs_own_second_derivative():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding="same")
            self.inner = nn.Conv2d(4, 4, 3, stride=2, groups=2, bias=False)
            self.norm, self.plain = nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            x = self.plain(self.conv(x)).relu()
            return self.head(torch.nn.functional.silu(self.norm(self.inner(input=x))).mean((2, 3)))

    torch.manual_seed(0)
    network, x, labels = Network().double(), draw(5, 3, 7, 7).detach(), torch.tensor([0, 1, 2, 0, 1])
    weights = [network.conv.weight, network.inner.weight, network.head.weight]
    first = grad(nn.functional.cross_entropy(network(x), labels), weights, create_graph=True)
    second = grad(first, weights, [each.detach() for each in first])
    expected = -sum((weight * each).sum().item() for weight, each in zip(weights, second, strict=True))
    batch = Batch(x, labels)
    assert zs.score(network, "grasp", batch=batch, init="keep").value == pytest.approx(expected, rel=1e-9)
    together = zs.score(network, ["snip", "jacob_cov", "grasp"], batch=batch, init="keep")
    assert together["grasp"].value == zs.score(network, "grasp", batch=batch, init="keep").value
