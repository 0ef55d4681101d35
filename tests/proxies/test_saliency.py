"""SNIP, plain, gradient norms, Fisher, GraSP and the weights' norm: by hand, and what they must keep to."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas import Batch
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import ProxyError

GRADIENT = ["snip", "plain", "grad_norm", "grad_norm:variant=global", "fisher", "fisher:variant=zerocost", "grasp"]


def value(module, proxy, batch, **options):
    """The score of a module as it is."""
    result = zs.score(module, proxy, batch=batch, init="keep", **options)
    assert result.ok, result.reason
    return result.value


def draw(images=4, shape=(3, 7, 7), classes=5, seed=0):
    """Images and labels in double precision."""
    inputs = torch.randn(images, *shape, generator=torch_generator(seed, 0)).double()
    return Batch(inputs, torch.randint(classes, (images,), generator=torch_generator(seed, 1)))


class Small(nn.Module):
    """Convolutions with and without bias, grouped, strided; batch norm; a residual link; functional activations."""

    def __init__(self, seed=0):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, eps=1e-30)
        self.inner = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.down = nn.Conv2d(8, 6, 3, stride=2)
        self.head = nn.Linear(6, 5)
        with torch.no_grad():
            for index, tensor in enumerate(self.parameters()):
                tensor.normal_(generator=torch_generator(seed, 2, index)).mul_(0.5)
        self.double()

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.silu(x + self.inner(x))
        return self.head(F.relu(self.down(x)).mean((2, 3)))


def layers(module):
    return [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]


def plain_values(module, batch):
    """All of them as the reference codes go about it: hooks, leaf gradients, two full passes for GraSP."""
    module = copy.deepcopy(module).train()
    weights = [layer.weight for layer in layers(module)]
    seen = {}

    def keep(layer, _, output):
        output.retain_grad()
        seen[layer] = output

    handles = [layer.register_forward_hook(keep) for layer in layers(module)]
    F.cross_entropy(module(batch.inputs), batch.targets).backward()
    for handle in handles:
        handle.remove()
    pairs = [(weight.detach(), weight.grad) for weight in weights]
    channels = {}
    for layer, output in seen.items():
        effect = (output * output.grad).detach().flatten(2).sum(2) if output.dim() > 2 else (output * output.grad)
        channels[layer] = 0.5 * effect.detach().square().mean(0)
    values = {
        "snip": sum((w * g).abs().sum().item() for w, g in pairs),
        "plain": sum((w * g).sum().item() for w, g in pairs),
        "grad_norm": sum(g.norm().item() for _, g in pairs),
        "grad_norm:variant=global": math.sqrt(sum(p.grad.square().sum().item() for p in module.parameters())),
        "fisher": sum(each.sum().item() for each in channels.values()),
        "fisher:variant=zerocost": sum(
            each[:, None].expand(layer.weight.flatten(1).shape).sum().item() for layer, each in channels.items()
        ),
    }
    constant = [weight.grad.clone() for weight in weights]
    again = torch.autograd.grad(F.cross_entropy(module(batch.inputs), batch.targets), weights, create_graph=True)
    z = sum((c * g).sum() for c, g in zip(constant, again, strict=True))
    products = torch.autograd.grad(z, weights)
    values["grasp"] = sum(-(w * h).sum().item() for w, h in zip(weights, products, strict=True))
    return values


@pytest.mark.slow
@settings(max_examples=8)
@given(st.integers(0, 1000), st.integers(2, 6))
def test_against_a_plain_implementation(seed, images):
    """To 1e-9, alone and in one call; GraSP's second pass leaves the first one whole, whichever comes first."""
    module, batch = Small(seed), draw(images, seed=seed)
    expected = plain_values(module, batch)
    assert set(expected) == set(GRADIENT)
    for order in (GRADIENT, GRADIENT[::-1]):
        scores = zs.score(module, order, batch=batch, init="keep")
        for key, score in scores.items():
            assert score.value == pytest.approx(expected[key], rel=1e-9, abs=1e-12), key
    for key in GRADIENT:
        assert value(module, key, batch) == pytest.approx(expected[key], rel=1e-9, abs=1e-12), key


def test_a_softmax_regression_by_hand():
    """Gradient and Hessian of a linear layer under cross-entropy, in numpy."""
    rng = np.random.default_rng(0)
    x, w, y = rng.normal(size=(5, 6)), rng.normal(size=(3, 6)), np.array([0, 1, 2, 2, 1])
    logits = x @ w.T
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = p - np.eye(3)[y]
    g = error.T @ x / 5
    moved = x @ g.T  # of the logits, along g
    product = (p * moved - p * (p * moved).sum(1, keepdims=True)).T @ x / 5
    expected = {
        "snip": np.abs(w * g).sum(),
        "plain": (w * g).sum(),
        "grad_norm": np.sqrt((g**2).sum()),
        "grad_norm:variant=global": np.sqrt((g**2).sum()),
        "fisher": ((logits * error / 5) ** 2).sum() / 10,
        "fisher:variant=zerocost": 6 * ((logits * error / 5) ** 2).sum() / 10,
        "grasp": -(w * product).sum(),
    }
    module = nn.Linear(6, 3, bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(w))
    for key, wanted in expected.items():
        assert value(module, key, Batch(torch.from_numpy(x), torch.from_numpy(y))) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("key", GRADIENT)
def test_the_order_of_images_does_not_matter(key):
    module, batch = Small(), draw(6)
    order = torch.randperm(6, generator=torch_generator(5))
    permuted = Batch(batch.inputs[order], batch.targets[order])
    assert value(module, key, permuted) == pytest.approx(value(module, key, batch), rel=1e-9)


@pytest.mark.parametrize("key", GRADIENT)
def test_a_batch_twice(key):
    """The mean loss has the same gradient; Fisher's is of the mean over twice as many, squared: a quarter."""
    module, batch = Small(), draw(4)
    twice = Batch(batch.inputs.repeat(2, 1, 1, 1), batch.targets.repeat(2))
    factor = 0.25 if key.startswith("fisher") else 1
    assert value(module, key, twice) == pytest.approx(factor * value(module, key, batch), rel=1e-9)


@given(st.floats(0.1, 10))
@settings(max_examples=5)
def test_a_filter_before_batch_norm_times_s(scale):
    """Weight times gradient is what it was, the gradient is divided by s."""
    module, batch = Small(), draw()
    scaled = copy.deepcopy(module)
    with torch.no_grad():
        scaled.stem.weight.mul_(scale)
    assert value(scaled, "snip", batch) == pytest.approx(value(module, "snip", batch), rel=1e-9)
    assert value(scaled, "fisher", batch) == pytest.approx(value(module, "fisher", batch), rel=1e-9)
    gradient = plain_stem_gradient(module, batch).norm().item()
    change = value(scaled, "grad_norm", batch) - value(module, "grad_norm", batch)
    assert change == pytest.approx(gradient / scale - gradient, rel=1e-8, abs=1e-12)


def plain_stem_gradient(module, batch):
    module = copy.deepcopy(module).train()
    return torch.autograd.grad(F.cross_entropy(module(batch.inputs), batch.targets), module.stem.weight)[0]


def test_a_filter_before_batch_norm_is_orthogonal_to_its_gradient():
    """So `plain` does not see it: with it the only layer to be summed, nothing is left."""
    module, batch = Small(), draw()
    gradient = plain_stem_gradient(module, batch)
    assert abs((module.stem.weight * gradient).sum().item()) < 1e-12 * (module.stem.weight * gradient).abs().sum()


def test_single_precision():
    """To about 1e-5 of double precision, in the layout that scoring chooses."""
    module, batch = Small(), draw(8)
    single = Batch(batch.inputs.float(), batch.targets)
    for key in GRADIENT:
        wanted = value(module, key, batch)
        assert value(copy.deepcopy(module).float(), key, single) == pytest.approx(wanted, rel=1e-4), key


def test_a_layer_that_runs_twice():
    """Its weight and gradient count once, its channels at every call."""
    layer = nn.Linear(3, 3, bias=False).double()
    module = nn.Sequential(layer, nn.ReLU(), layer)
    batch = draw(4, (3,), 3)
    x = batch.inputs.clone()
    first = layer(x)
    logits = layer(F.relu(first))
    loss = F.cross_entropy(logits, batch.targets)
    gradient, of_first, of_logits = torch.autograd.grad(loss, [layer.weight, first, logits])
    assert value(module, "snip", batch) == pytest.approx((layer.weight * gradient).abs().sum().item(), rel=1e-12)
    effects = (first * of_first).square().sum() + (logits * of_logits).square().sum()
    assert value(module, "fisher", batch) == pytest.approx(effects.item() / 8, rel=1e-12)
    assert value(module, "l2_norm", batch) == pytest.approx(layer.weight.norm().item(), rel=1e-12)


def test_fisher_of_a_linear_layer_on_a_sequence():
    """Channels come last there; positions between are summed."""

    class Pooled(nn.Linear):
        def forward(self, x):
            self.seen = super().forward(x)
            return self.seen.mean(1)

    module = Pooled(6, 3).double()
    batch = draw(4, (5, 6), 3)
    gradient = torch.autograd.grad(F.cross_entropy(module(batch.inputs), batch.targets), module.seen)[0]
    expected = (module.seen * gradient).sum(1).square().sum().item() / 8
    module.seen = None
    assert value(module, "fisher", batch) == pytest.approx(expected, rel=1e-12)


def test_a_dead_network_is_worth_nothing():
    """Zero is the sum, and no failure."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(100, 5))
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.zero_()
        module[0].bias.fill_(-1)
    batch = draw()
    batch = Batch(batch.inputs.float(), batch.targets)
    for key in ("snip", "plain", "grad_norm", "fisher", "grasp", "l2_norm"):
        assert value(module, key, batch) == 0


def test_a_layer_that_leads_nowhere_adds_nothing():
    class Dead(Small):
        def __init__(self):
            super().__init__()
            self.unused = nn.Conv2d(3, 4, 1).double()

        def forward(self, x):
            self.unused(x)
            return super().forward(x)

    module, batch = Dead(), draw()
    for key in GRADIENT:
        assert value(module, key, batch) == pytest.approx(value(Small(), key, batch), rel=1e-9), key


# The weights' norm


def test_l2_norm_by_hand():
    """No images are read, and none need fit; 1-D to 3-D convolutions and linear layers, nothing else."""
    module = nn.Sequential(
        nn.Conv1d(2, 3, 2),
        nn.Conv2d(1, 2, 3),
        nn.Conv3d(1, 1, 2),
        nn.Linear(4, 2),
        nn.BatchNorm2d(3),
        nn.Embedding(2, 2),
    )
    expected = sum(part.weight.detach().double().norm().item() for part in list(module)[:4])
    assert value(module, "l2_norm", Batch(torch.zeros(1, 3, 1, 1))) == pytest.approx(expected, rel=1e-6)
    assert not zs.get_proxy("l2_norm").info.needs_gradients


# What can't be scored


@pytest.mark.parametrize("key", [*GRADIENT, "l2_norm"])
def test_a_module_without_layers(key):
    """Logits, and a parameter that no layer has."""

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.scale * x

    batch = Batch(torch.randn(4, 5, generator=torch_generator(0)), torch.arange(4))
    if key == "grad_norm:variant=global":
        assert value(Scale(), key, batch) > 0
    else:
        with pytest.raises(ProxyError, match="sums over convolutions and linear layers, and the module has none"):
            zs.score(Scale(), key, batch=batch)


@pytest.mark.parametrize("key", GRADIENT)
def test_no_labels_or_no_logits(key):
    module = Small().float()
    images = torch.zeros(2, 3, 7, 7)
    with pytest.raises(ProxyError, match="the loss needs labels"):
        zs.score(module, key, batch=Batch(images))
    with pytest.raises(ProxyError, match="expected logits"):
        zs.score(module.stem, key, batch=Batch(images, torch.zeros(2).long()))
    with pytest.raises(ProxyError, match="expected 2 labels from 0 to 4"):
        zs.score(module, key, batch=Batch(images, torch.full((2,), 5)))


def test_unknown_variants():
    with pytest.raises(ProxyError, match="fisher's variant must be 'paper' or 'zerocost', got 'taylor'"):
        zs.score(Small(), "fisher:variant=taylor", batch=draw())
    with pytest.raises(ProxyError, match="grad_norm's variant must be 'layers' or 'global', got 'l1'"):
        zs.score(Small(), "grad_norm:variant=l1", batch=draw())


@pytest.mark.parametrize("key", [*GRADIENT, "l2_norm"])
def test_numbers_that_are_not_finite(key):
    module, batch = Small(), draw()
    with torch.no_grad():
        module.head.weight.fill_(1e300)
        module.down.weight.fill_(1e300)
    result = zs.score(module, key, batch=batch, init="keep")
    if key == "l2_norm":
        assert "not finite" in result.reason
    else:
        assert "not finite (" in result.reason


def test_gradients_of_a_network_are_left_alone():
    module, batch = Small().train(), draw()
    for key in GRADIENT:
        zs.get_proxy(key)(module, batch)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(layer._forward_hooks for layer in module.modules())


@pytest.mark.parametrize("name", ["snip", "fisher", "grad_norm", "plain", "grasp", "gradsign", "zico", "l_swag"])
def test_the_loss_of_one_class_says_nothing(name):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 1))
    architecture = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", (3, 8, 8), num_classes=1)
    for result in (zs.score(module, name, input_size=(3, 8, 8)), zs.score(architecture, name)):
        assert (result.state, result.value) == ("failed", pytest.approx(math.nan, nan_ok=True))
        assert "the loss of one class is constant" in result.reason
