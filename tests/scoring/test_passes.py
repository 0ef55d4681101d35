"""Recorded passes: what is seen, what is shared, what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.interception import intercepted
from zeroshot_nas.scoring.passes import Passes, SharedPasses
from zeroshot_nas.scoring.proxy import READS

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
    run = Passes(network, X, Y, True, READS)
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
    run = Passes(network, X, Y, False, READS)
    normed = run.forward.outputs(["norm"])["norm"]
    assert (normed < 0).any(), "an in-place ReLU behind it must not have changed it"
    assert torch.equal(normed > 0, run.forward.relus[0])


def test_gradients_are_autograds():
    network = Mixed().double()
    x = X.double()
    run = Passes(network, x, Y, True, READS)
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

    run = Passes(Unused(), torch.randn(4, 5), Y, True, READS)
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
    assert list(Passes(network, X, None, False, READS).forward.features) == ["0.2", "2"]


def test_passes_are_shared_only_where_asked():
    network, batch = Mixed(), zs.Batch(X, Y)
    assert batch.passes(network) is not batch.passes(network)
    shared = batch._replace(shared=SharedPasses(True, READS))
    first = shared.passes(network)
    assert shared.passes(network) is shared._replace(seed=7).passes(network) is first
    assert first.targets is Y
    assert shared._replace(targets=Y.clone()).passes(network) is not first
    assert shared._replace(inputs=X.clone()).passes(network) is not first
    assert shared.passes(network.eval()) is not first


def test_a_batch_of_ones_own_differentiates_where_gradients_are_enabled():
    network, batch = Mixed(), zs.Batch(X, Y)
    assert any(gradient.any() for gradient in batch.passes(network).weight_gradients)
    with torch.no_grad():
        passes = batch.passes(network)
    with pytest.raises(ProxyError, match="needs_gradients=True"):
        _ = passes.weight_gradients


READ = {
    "relus": lambda passes: passes.forward.relus,
    "layers": lambda passes: (passes.forward.layers, passes.output_gradients),
    "modules": lambda passes: passes.forward.modules,
    "features": lambda passes: passes.forward.features,
    "outputs": lambda passes: passes.forward.outputs(["conv"]),
    "weight_gradients": lambda passes: passes.weight_gradients,
    "parameter_gradients": lambda passes: passes.parameter_gradients,
}


@pytest.mark.parametrize("kind", sorted(READS))
def test_what_is_not_among_the_reads_is_refused_by_its_name(kind):
    network = Mixed()
    assert READ[kind](Passes(network, X, Y, True, frozenset({kind})))
    with pytest.raises(ProxyError, match=rf"this proxy reads {kind}; name it in register_proxy\(reads="):
        READ[kind](Passes(network, X, Y, True, READS - {kind}))


def test_outputs_by_name_need_a_pass_of_their_own_where_they_are_not_among_the_reads():
    network = Mixed()
    few, all_of_them = Passes(network, X, Y, False, frozenset({"features"})), Passes(network, X, Y, False, READS)
    assert torch.equal(few.outputs(["norm"])["norm"], all_of_them.outputs(["norm"])["norm"])
    assert all_of_them.outputs(["norm"])["norm"] is all_of_them.forward.outputs(["norm"])["norm"]


@pytest.mark.parametrize("reads", [frozenset(), frozenset({"relus"}), READS], ids=["nothing", "relus", "everything"])
def test_what_runs_does_not_depend_on_what_is_read(reads):
    """The same functions on the same values, in place or not, so that a score alone is the score in company."""
    network = Mixed().eval()  # in training mode its norm counts batches in place
    assert torch.equal(Passes(network, X, Y, True, reads).logits, Passes(network, X, Y, True, READS).logits)
    calls = []

    def noted(func, args, kwargs):
        calls.append(func)
        return func(*args, **kwargs)

    with intercepted(noted):
        _ = Passes(network, X, Y, True, reads).forward
    assert torch.Tensor.add in calls
    assert torch.Tensor.add_ not in calls
    assert calls.count(torch.relu) == 2


def test_what_can_not_be_read_is_said():
    network = Mixed()
    with pytest.raises(ProxyError, match="needs labels"):
        _ = Passes(network, X, None, True, READS).loss
    with pytest.raises(ProxyError, match=r"expected 4 labels from 0 to 2, got .* from 0 to 3"):
        _ = Passes(network, X, torch.tensor([0, 1, 2, 3]), True, READS).loss
    with pytest.raises(ProxyError, match="needs_gradients=True"):
        _ = Passes(network, X, Y, False, READS).weight_gradients
    with pytest.raises(ProxyError, match=r"expected logits \(N, num_classes\) from Conv2d, got shape \(4, 2, 6, 6\)"):
        _ = Passes(nn.Conv2d(3, 2, 3), X, Y, False, READS).logits
    with pytest.raises(ProxyError, match=r"no module 'nrom' returned a tensor. Did you mean 'norm'"):
        Passes(network, X, Y, False, READS).forward.outputs(["nrom"])

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            x = self.conv(x)
            x.detach()[:, 0].zero_()
            return x

    with pytest.raises(ProxyError, match="changes part of a feature map in place"):
        _ = Passes(InPlace(), X, None, False, READS).forward.layers


@pytest.mark.slow
def test_a_proxy_scores_alike_alone_and_with_others():
    network = Mixed()
    names = [name for name in zs.list_proxies() if not zs.get_proxy(name).info.parts]
    together = zs.score(network, names, input_size=(3, 8, 8), repeats=2, batch_size=8)
    for name in names:
        if together[name].ok:
            alone = zs.score(network, name, input_size=(3, 8, 8), repeats=2, batch_size=8)
            assert alone.value == together[name].value, name
    assert sum(score.ok for score in together.values()) > 2


class WithoutGradients(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        blocks = [part for inputs in (3, 8, 8) for part in (nn.Conv2d(inputs, 8, 3), nn.BatchNorm2d(8), nn.ReLU())]
        self.body = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(32, 4))

    def forward(self, x):
        with torch.no_grad():
            return self.body(x)


DIFFERENTIATE = [
    name for name in zs.list_proxies() if (info := zs.get_proxy(name).info).needs_gradients and not info.parts
]


@pytest.mark.parametrize("name", DIFFERENTIATE)
def test_a_forward_under_no_grad_is_named(name):
    score = zs.score(WithoutGradients(), [name], input_size=(3, 8, 8), repeats=1)[name]
    assert not score.ok
    assert "no_grad" in str(score)
    assert "input_size" not in str(score)
