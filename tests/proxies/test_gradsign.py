"""GradSign: whole numbers by hand, each image alone."""

import copy

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


def draw(images=4, shape=(3, 7, 7), classes=5, seed=0):
    inputs = torch.randn(images, *shape, generator=torch_generator(seed, 0)).double()
    return Batch(inputs, torch.randint(classes, (images,), generator=torch_generator(seed, 1)))


def value(module, batch):
    result = zs.score(module, "gradsign", batch=batch, init="keep")
    assert result.ok, result.reason
    assert result.value == int(result.value)
    return int(result.value)


class Small(nn.Module):
    """Convolutions, batch norm, a residual link, functional activations."""

    def __init__(self, seed=0, norm=True):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8) if norm else nn.Identity()
        self.inner = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            for index, tensor in enumerate(self.parameters()):
                tensor.normal_(generator=torch_generator(seed, 2, index)).mul_(0.5)
        self.double()

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.inner(x))
        return self.head(x.mean((2, 3)))


def one_by_one(module, batch):
    """Leaf gradients of one image after the other."""
    module = copy.deepcopy(module).train()
    weights = [part.weight for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    total = [torch.zeros_like(weight) for weight in weights]
    for image, target in zip(batch.inputs, batch.targets, strict=True):
        module.zero_grad()
        F.cross_entropy(module(image[None]), target[None]).backward()
        for sum_of_signs, weight in zip(total, weights, strict=True):
            sum_of_signs += weight.grad.sign()
    return sum(int(each.abs().sum()) for each in total)


@settings(max_examples=10)
@given(st.integers(0, 1000), st.integers(1, 5), st.booleans())
def test_against_a_plain_implementation(seed, images, norm):
    module, batch = Small(seed, norm), draw(images, seed=seed)
    assert value(module, batch) == one_by_one(module, batch)


@given(st.integers(0, 1000), st.integers(1, 9))
@settings(max_examples=20)
def test_a_softmax_regression_by_hand(seed, images):
    """The sign of a gradient is that of the input times that of the error; in numpy, some inputs zero."""
    rng = np.random.default_rng(seed)
    x, w, y = rng.normal(size=(images, 6)), rng.normal(size=(3, 6)), rng.integers(3, size=images)
    x[:, 2] = 0
    p = np.exp(x @ w.T) / np.exp(x @ w.T).sum(1, keepdims=True)
    signs = np.sign(p - np.eye(3)[y])[:, :, None] * np.sign(x)[:, None, :]
    module = nn.Linear(6, 3).double()
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(w))
        module.bias.zero_()
    assert value(module, Batch(torch.from_numpy(x), torch.from_numpy(y))) == np.abs(signs.sum(0)).sum()


def test_bounds():
    """No more than weights times images; the same image again and again agrees on all that have a gradient."""
    module, batch = Small(), draw(6)
    weights = sum(part.weight.numel() for part in (module.stem, module.inner, module.head))
    assert 0 < value(module, batch) < 6 * weights
    one = Batch(batch.inputs[:1], batch.targets[:1])
    again = Batch(one.inputs.repeat(5, 1, 1, 1), one.targets.repeat(5))
    assert value(module, again) == 5 * value(module, one) <= 5 * weights


def test_the_order_of_images_does_not_matter():
    module, batch = Small(), draw(6)
    order = torch.randperm(6, generator=torch_generator(5))
    assert value(module, Batch(batch.inputs[order], batch.targets[order])) == value(module, batch)


def test_the_scale_of_the_loss_does_not_matter():
    """A head times ten has other gradients, a filter before batch norm has the same signs."""
    module, batch = Small(), draw(4)
    before = value(module, batch)
    module.norm.eps = 1e-30
    exact = value(module, batch)
    with torch.no_grad():
        module.stem.weight.mul_(4)
        module.stem.bias.mul_(4)
    assert value(module, batch) == exact
    assert abs(before - exact) < 0.1 * before


def test_an_image_does_not_see_the_others():
    """The scores of a batch and of its halves: each is within the sum of both, by the triangle inequality."""
    module, batch = Small(), draw(8)
    halves = [Batch(batch.inputs[half], batch.targets[half]) for half in (slice(0, 4), slice(4, 8))]
    assert value(module, batch) <= sum(value(module, half) for half in halves)


class Standardised(nn.Conv2d):
    """A convolution whose weight is made from its parameter at every call."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias)


def test_weights_that_are_made_at_every_call():
    """The gradient is that of the weight that the convolution reads."""
    module = nn.Sequential(Standardised(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(100, 5)).double()
    fixed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(100, 5)).double()
    fixed.load_state_dict(module.state_dict())
    with torch.no_grad():
        fixed[0].weight.sub_(module[0].weight.mean((1, 2, 3), keepdim=True))
    batch = draw(4)
    assert value(module, batch) == value(fixed, batch)


def test_a_dead_network_is_worth_nothing():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(100, 5)).double()
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].bias.fill_(-1)
    assert value(module, draw()) == 0


def test_a_layer_that_some_images_skip():
    """Where it has no gradient, it has no sign."""

    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.sometimes = nn.Linear(6, 5).double(), nn.Linear(6, 5).double()

        def forward(self, x):
            other = self.sometimes(x)
            return self.always(x) + (other if x.flatten()[0] > 0 else 0)

    module, batch = Sometimes(), draw(4, (6,))
    with torch.no_grad():
        module.sometimes.weight.zero_()
        module.sometimes.bias.zero_()
    batch.inputs[:, 0] = torch.tensor([1.0, -1.0, -1.0, 1.0])
    used = Batch(batch.inputs[[0, 3]], batch.targets[[0, 3]])
    assert value(module, batch) == value(module.always, batch) + value(module.always, used)


def test_batch_norm_of_one_value():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5)).double()
    result = zs.score(module, "gradsign", batch=draw(4, (3, 3, 3)), init="keep")
    assert result.reason == "a batch norm sees one value per channel of an image (a gate, a small map)"


def test_numbers_that_are_not_finite():
    module = Small()
    with torch.no_grad():
        module.head.weight.fill_(1e300)
        module.inner.weight.fill_(1e300)
    assert zs.score(module, "gradsign", batch=draw(), init="keep").reason == "a gradient is not finite"


def test_what_it_needs():
    module, images = Small().float(), torch.zeros(2, 3, 7, 7)
    labels = torch.zeros(2).long()
    with pytest.raises(ProxyError, match=r"gradsign needs labels: Batch\(inputs, targets\)"):
        zs.score(module, "gradsign", batch=Batch(images))
    with pytest.raises(ProxyError, match="expected logits"):
        zs.score(module.stem, "gradsign", batch=Batch(images, labels))
    with pytest.raises(ProxyError, match="expected 1 labels from 0 to 4"):
        zs.score(module, "gradsign", batch=Batch(images, labels + 5))
    with pytest.raises(ProxyError, match="the module has none"):
        zs.score(nn.Sequential(nn.Flatten(), nn.PReLU(147)), "gradsign", batch=Batch(images, labels))
    with pytest.raises(ProxyError, match="gradsign could not run"):
        zs.score(module, "gradsign", batch=Batch(images, labels[:1]))


def test_gradients_of_a_network_are_left_alone():
    module = Small().train()
    zs.get_proxy("gradsign")(module, draw())
    assert all(parameter.grad is None for parameter in module.parameters())
