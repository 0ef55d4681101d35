"""ZiCo: by hand in numpy, over two and more batches, and where it is undefined."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas import Batch
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import ProxyError

VARIANTS = ["paper", "authors"]


def draw(batches=2, images=4, shape=(6,), classes=3, seed=0):
    """Batches in double precision, the further ones inside the first."""
    generator = torch_generator(seed)
    drawn = [
        Batch(
            torch.randn(images, *shape, generator=generator).double(),
            torch.randint(classes, (images,), generator=generator),
        )
        for _ in range(batches)
    ]
    return drawn[0]._replace(further=tuple(drawn[1:]))


def network(seed=0):
    """Two linear layers; biases do not count."""
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for index, tensor in enumerate(module.parameters()):
            tensor.normal_(generator=torch_generator(seed, index)).mul_(0.5)
    return module


def value(module, batch, **options):
    result = zs.score(module, "zico", batch=batch, init="keep", **options)
    assert result.ok, result.reason
    return result.value


def gradients(module, batch):
    """Of both weights, by hand, for every batch: lists of (batches, out, in)."""
    w1, b1, w2, b2 = (tensor.detach().numpy() for tensor in module.parameters())
    found = []
    for each in (batch, *batch.further):
        x, y = each.inputs.numpy(), each.targets.numpy()
        hidden = np.tanh(x @ w1.T + b1)
        logits = hidden @ w2.T + b2
        error = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[y]
        error /= len(x)
        found.append((((error @ w2) * (1 - hidden**2)).T @ x, error.T @ hidden))
    return [np.stack(layer) for layer in zip(*found, strict=True)]


def by_hand(stacks, variant):
    total = 0.0
    for stack in stacks:
        deviation = (np.abs(stack) if variant == "paper" else stack).std(0)
        live = deviation != 0
        if live.any():
            total += math.log((np.abs(stack).mean(0)[live] / deviation[live]).sum())
    return total


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 5), st.sampled_from(VARIANTS))
def test_two_layers_by_hand(seed, batches, variant):
    module, batch = network(seed), draw(batches, seed=seed)
    expected = by_hand(gradients(module, batch), variant)
    assert value(module, batch, variant=variant) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batches", [2, 4])
def test_the_order_of_batches_does_not_matter(batches, variant):
    module, batch = network(), draw(batches)
    last, first = batch.further[-1], batch._replace(further=())
    turned = last._replace(further=(*batch.further[:-1], first))
    assert value(module, turned, variant=variant) == pytest.approx(value(module, batch, variant=variant), rel=1e-9)


@given(st.floats(1e-3, 1e3))
@settings(max_examples=10)
def test_the_size_of_gradients_does_not_matter(scale):
    """A layer's gradients times s have the same mean over deviation; here that of weights that see s x."""
    module = nn.Linear(6, 3, bias=False).double()
    with torch.no_grad():
        module.weight.zero_()  # so that the error is the same for every scale
    batch = draw()
    scaled = Batch(
        batch.inputs * scale, batch.targets, further=(Batch(batch.further[0].inputs * scale, batch.further[0].targets),)
    )
    for variant in VARIANTS:
        wanted = value(module, batch, variant=variant)
        assert value(module, scaled, variant=variant) == pytest.approx(wanted, rel=1e-9)


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_two_batches_bound_the_score(seed):
    """Each weight adds 1 or more, and sizes deviate no more than the signed gradients do."""
    module, batch = network(seed), draw(seed=seed)
    floor = sum(math.log(layer.weight.numel()) for layer in (module[0], module[2]))
    assert value(module, batch) >= value(module, batch, variant="authors") >= floor


def test_small_gradients_do_not_underflow():
    """In single precision, gradients of 1e-25, whose squares are zero."""
    module = nn.Linear(6, 3, bias=False)
    with torch.no_grad():
        module.weight.zero_()
    batch = draw()
    small = [Batch((each.inputs * 1e-25).float(), each.targets) for each in (batch, *batch.further)]
    single = small[0]._replace(further=(small[1],))
    assert value(module, single) == pytest.approx(value(module.double(), batch), rel=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_dead_layer_adds_nothing(variant):
    """And so least of all: a live one adds the logarithm of its weights, or more."""

    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.live, self.dead = nn.Linear(6, 3).double(), nn.Linear(6, 3).double()

        def forward(self, x):
            return self.live(x) + 0 * self.dead(x)

    module, batch = Dead(), draw()
    expected = value(module.live, batch, variant=variant)
    assert value(module, batch, variant=variant) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_differs(variant):
    """Equal batches, or a network without gradients."""
    batch = draw()
    twice = batch._replace(further=(Batch(batch.inputs, batch.targets),))
    module = network()
    result = zs.score(module, "zico", batch=twice, init="keep", variant=variant)
    assert result.reason == "no gradient differs between the batches: they are equal, or the network is dead"
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].bias.zero_()
        module[2].weight.zero_()  # features are zero, and so is what comes back
    assert not zs.score(module, "zico", batch=batch, init="keep", variant=variant).ok


def test_numbers_that_are_not_finite():
    batch = draw()
    wild = batch._replace(further=(Batch(batch.inputs * 1e308 * 100, batch.targets),))
    assert "not finite" in zs.score(network(), "zico", batch=wild, init="keep").reason


def test_what_it_needs():
    module, batch = network(), draw()
    with pytest.raises(ProxyError, match=r"zico compares batches: Batch\(inputs, targets, further="):
        zs.score(module, "zico", batch=batch._replace(further=()))
    with pytest.raises(ProxyError, match="the loss needs labels"):
        zs.score(module, "zico", batch=batch._replace(further=(Batch(batch.inputs.clone()),)))
    with pytest.raises(ProxyError, match="zico's variant must be 'paper' or 'authors', got 'std'"):
        zs.score(module, "zico", batch=batch, variant="std")
    with pytest.raises(ProxyError, match="sums over convolutions and linear layers"):
        zs.score(nn.PReLU(6).double(), "zico", batch=batch)


def test_other_layers_for_another_batch():
    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(6, 3).double(), nn.Linear(6, 3).double()

        def forward(self, x):
            return self.one(x) if x.flatten()[0] > 0 else self.other(x)

    batch = draw()
    turned = Batch(-batch.inputs, batch.targets)
    with pytest.raises(ProxyError, match="the same ones in the same order in every batch"):
        zs.score(Either(), "zico", batch=batch._replace(further=(turned,)))


def test_weights_that_are_made_at_every_call():
    """The gradient is that of the weight that the layer reads."""

    class Doubled(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, 2 * self.weight, self.bias)

    module, batch = Doubled(6, 3).double(), draw()
    fixed = nn.Linear(6, 3).double()
    fixed.load_state_dict(module.state_dict())
    with torch.no_grad():
        fixed.weight.mul_(2)
    assert value(module, batch) == pytest.approx(value(fixed, batch), rel=1e-9)


def test_scoring_draws_a_second_batch():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    alone = zs.score(module, "zico", input_size=(3, 8, 8), repeats=2)
    together = zs.score(module, ["snip", "zico", "zico:variant=authors"], input_size=(3, 8, 8), repeats=2)
    assert alone.ok
    assert together["zico"].value == alone.value
    assert together["zico:variant=authors"].value != alone.value
