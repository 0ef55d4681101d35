"""Recorded passes: what is seen, what is shared, what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.passes import Passes, passes, shared_passes

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 1])


class Mixed(nn.Module):
    """Modules, functional calls, an in-place sum and an in-place ReLU module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.kernel = nn.Parameter(torch.ones(6, 6, 1, 1) / 6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = self.act(self.norm(self.conv(x)))
        y = F.conv2d(x, self.kernel)
        y += x
        y.mul_(2)
        F.relu(y, inplace=True)
        return self.fc(y.mean((2, 3)))


def test_everything_that_runs_is_seen_functional_or_not():
    network = Mixed()
    run = Passes(network, X, Y, differentiable=True)
    assert [tuple(each.shape) for each in run.forward.relus] == [(4, 6, 8, 8)] * 2
    assert [
        layer.weight is weight
        for layer, weight in zip(
            run.forward.layers, [network.conv.weight, network.kernel, network.fc.weight], strict=True
        )
    ] == [True] * 3
    assert [type(module).__name__ for module, _ in run.forward.modules] == ["Conv2d", "BatchNorm2d", "ReLU", "Linear"]
    assert torch.equal(run.logits, network(X))


def test_what_is_recorded_is_what_was_there():
    network = Mixed()
    run = Passes(network, X, Y, differentiable=False)
    normed = run.forward.outputs(["norm"])["norm"]
    assert (normed < 0).any(), "an in-place ReLU behind it must not have changed it"
    assert torch.equal(normed > 0, run.forward.relus[0])


def test_gradients_are_autograds():
    network = Mixed().double()
    x = X.double()
    run = Passes(network, x, Y, differentiable=True)
    F.cross_entropy(network(x), Y).backward()
    expected = [network.conv.weight.grad, network.kernel.grad, network.fc.weight.grad]
    for found, wanted in zip(run.weight_gradients, expected, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-12)
    for found, parameter in zip(run.parameter_gradients, network.parameters(), strict=True):
        assert torch.allclose(found, parameter.grad, rtol=1e-12)
    inputs = x.clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(network(inputs).sum(), inputs)
    assert torch.allclose(run.input_gradients, jacobian, rtol=1e-12)
    logits_gradient = run.output_gradients[-1]
    assert torch.allclose(logits_gradient, (run.logits.softmax(1) - F.one_hot(Y, 3)) / 4, rtol=1e-12)


def test_a_part_that_does_not_reach_the_loss_has_gradient_zero():
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, x):
            self.unused(x)
            return self.used(x)

    run = Passes(Unused(), torch.randn(4, 5), Y, differentiable=True)
    assert [bool(each.any()) for each in run.weight_gradients] == [False, True]  # in order of execution


def test_blocks_are_members_of_sequentials_with_what_follows_elementwise():
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Conv2d(4, 5, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 2),
    )
    assert list(Passes(network, X, None, False).forward.features) == ["0.2", "2"]


def test_passes_are_shared_only_where_asked():
    network = Mixed()
    assert passes(network, X) is not passes(network, X)
    with shared_passes(differentiable=True):
        first = passes(network, X)
        assert passes(network, X, Y) is first
        assert first.targets is Y
        assert passes(network, X.clone()) is not first
        assert passes(network.eval(), X) is not first


def test_what_can_not_be_read_is_said():
    network = Mixed()
    with pytest.raises(ProxyError, match="needs labels"):
        _ = Passes(network, X, None, True).loss
    with pytest.raises(ProxyError, match=r"expected 4 labels from 0 to 2, got .* from 0 to 3"):
        _ = Passes(network, X, torch.tensor([0, 1, 2, 3]), True).loss
    with pytest.raises(ProxyError, match="needs_gradients=True"):
        _ = Passes(network, X, Y, False).weight_gradients
    with pytest.raises(ProxyError, match=r"expected logits \(N, num_classes\) from Conv2d, got shape \(4, 2, 6, 6\)"):
        _ = Passes(nn.Conv2d(3, 2, 3), X, Y, False).logits
    with pytest.raises(ProxyError, match=r"no module 'nrom' returned a tensor. Did you mean 'norm'"):
        Passes(network, X, Y, False).forward.outputs(["nrom"])

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            x = self.conv(x)
            x[:, 0] = 0
            return x

    with pytest.raises(ProxyError, match="changes part of a feature map in place"):
        _ = Passes(InPlace(), X, None, False).forward.layers


def test_a_proxy_scores_alike_alone_and_with_others():
    network = Mixed()
    names = [name for name in zs.list_proxies() if not zs.get_proxy(name).info.parts]
    together = zs.score(network, names, input_size=(3, 8, 8), repeats=2, batch_size=8)
    for name in names:
        if together[name].ok:
            alone = zs.score(network, name, input_size=(3, 8, 8), repeats=2, batch_size=8)
            assert alone.value == together[name].value, name
    assert sum(score.ok for score in together.values()) > 2
