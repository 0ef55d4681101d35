"""Zen-score by hand, and on modules that are not ours; golden values are in test_golden."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zeroshot_nas as zs
from tests import golden_nets
from tests.golden_nets import Golden
from tests.strategies import architectures
from zeroshot_nas import Architecture, Batch, build
from zeroshot_nas.core.seeding import python_rng, torch_generator
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.network.module import Residual
from zeroshot_nas.scoring.batch_norm import BatchNormVariances
from zeroshot_nas.scoring.feature_map import feature_map


@pytest.mark.filterwarnings("ignore:no FLOPs are counted for")
@pytest.mark.parametrize("name", golden_nets.networks())
def test_the_golden_networks_are_built_right(name):
    """Their parameters and multiply-adds as the data count them."""
    golden = Golden(name)
    costs = zs.cost(golden.build(dtype=torch.float32), input_size=golden.spec["input_shape"])
    assert costs.params == golden.spec["params"]
    assert costs.flops == golden.spec["macs"]


@pytest.mark.skipif(golden_nets.FOLDER != golden_nets.FULL, reason="the whole data set is not beside the checkout")
def test_the_golden_network_without_batch_norm():
    golden = Golden("vgg_nobn_bias")
    batch = Batch(golden.tensor("zen_x"), perturbation=golden.tensor("zen_eps"))
    with pytest.raises(ProxyError, match="needs batch norm"):
        zs.score(golden.build(), "zen", batch=batch, init="keep")


def test_a_module_without_batch_norm_is_refused():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    with pytest.raises(ProxyError, match="zen needs batch norm, and Sequential has none"):
        zs.score(module, "zen", input_size=(3, 8, 8))


# By hand


def noise(*shape: int) -> Batch:
    """Inputs and perturbation in float64, a fixed draw."""
    inputs, perturbation = (torch.randn(shape, generator=torch_generator(0, axis)).double() for axis in (0, 1))
    return Batch(inputs, perturbation=perturbation)


@pytest.mark.parametrize(
    ("conv", "norm", "shape"),
    [
        (nn.Conv1d(2, 5, 3, padding=1), nn.BatchNorm1d(5), (4, 2, 9)),
        (nn.Conv2d(1, 5, 3, padding=1), nn.BatchNorm2d(5), (4, 1, 8, 8)),
        (nn.Conv3d(2, 5, 3, padding=1), nn.BatchNorm3d(5), (4, 2, 4, 4, 4)),
    ],
    ids=["1-D", "one channel", "3-D"],
)
@pytest.mark.parametrize("variant", ["paper", "l1", "zennas"])
def test_one_layer_by_hand(conv, norm, shape, variant):
    """Convolution, batch norm, ReLU, in numpy from the convolution's output on; to 1e-9."""
    batch, alpha = noise(*shape), 0.05
    module = nn.Sequential(conv, norm, nn.ReLU()).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5, generator=torch_generator(0, 2))
        before = [conv(x).numpy() for x in (batch.inputs, batch.inputs + alpha * batch.perturbation)]
    axes = (0, *range(2, before[0].ndim))
    column = (1, -1, *[1] * (len(shape) - 2))
    scale = norm.weight.detach().numpy().reshape(column)
    first, second = (
        np.maximum(scale * (h - h.mean(axes, keepdims=True)) / np.sqrt(h.var(axes, keepdims=True) + norm.eps), 0)
        for h in before
    )
    difference = (first - second).reshape(shape[0], -1)
    distance = np.sqrt((difference**2).sum(1)) if variant == "paper" else np.abs(difference).sum(1)
    variance = before[0].var(axes).mean()
    if variant == "zennas":
        variance = 0.81 + 0.09 * before[0].var(axes, ddof=1).mean() + 0.1 * before[1].var(axes, ddof=1).mean()
    expected = math.log(distance.mean()) + 0.5 * math.log(variance)
    result = zs.score(module, "zen", batch=batch, init="keep", variant=variant, alpha=alpha)
    assert result.value == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_convolution_scaled_by_s_adds_log_s():
    """Batch norm hides the scale, the variance term brings it back; eps is set aside by large weights."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()).double()
    batch = noise(4, 3, 8, 8)
    with torch.no_grad():
        module[0].weight.normal_(0, 100, generator=torch_generator(0))
        before = zs.score(module, "zen", batch=batch, init="keep").value
        module[0].weight.mul_(8)
        after = zs.score(module, "zen", batch=batch, init="keep").value
    assert after - before == pytest.approx(math.log(8), abs=1e-6)


def test_l1_is_at_least_the_norm():
    """Per image, and so in the mean: the L1 norm is never below the Frobenius norm."""
    module, batch = build(SMALL, init="gaussian").double(), noise(4, 3, 9, 8)
    paper, l1 = (
        zs.score(module, "zen", batch=batch, init="keep", variant=variant).value for variant in ("paper", "l1")
    )
    assert l1 > paper


SMALL = Architecture.from_string(
    "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,12,2,8,2)SuperResIDWE2K3(12,16,2,8,1)", (3, 9, 8), squeeze_excite=True
)


class Linked(nn.Module):
    """One of our units as somebody else would write it."""

    def __init__(self, unit: Residual) -> None:
        super().__init__()
        self.body, self.shortcut = unit.body, unit.shortcut

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


@pytest.mark.parametrize("variant", ["paper", "l1", "zennas"])
def test_our_networks_are_scored_without_residual_links(variant):
    """As a plain chain of the same layers scores; to 1e-9 in double precision."""
    network, batch = build(SMALL, init="gaussian").double(), noise(4, 3, 9, 8)
    chain = nn.Sequential(*(getattr(part, "body", part) for block in network.blocks for part in block))
    expected = zs.score(chain, "zen", batch=batch, init="keep", variant=variant).value
    assert zs.score(network, "zen", batch=batch, init="keep", variant=variant).value == pytest.approx(
        expected, rel=1e-9
    )
    links = (Linked(part) if isinstance(part, Residual) else part for block in network.blocks for part in block)
    linked = nn.Sequential(*links)  # a foreign module keeps its own
    assert zs.score(linked, "zen", batch=batch, init="keep", variant=variant).value != pytest.approx(expected, rel=1e-3)


class Branched(nn.Module):
    """A live branch beside some that read a constant: zeros, or a norm of zeros and what is behind it."""

    def __init__(self, kept: bool, bias: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.live = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.dead = nn.Sequential(nn.Conv2d(8, 8, 1, bias=bias), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8))
        self.kept = kept

    def forward(self, x):
        x = self.stem(x)
        y = self.live(x)
        return y + self.dead(torch.zeros_like(x)) if self.kept else y


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_branch_that_no_image_reaches_adds_nothing(bias, dtype):
    drawn = noise(4, 3, 8, 8)
    batch = Batch(drawn.inputs.to(dtype), perturbation=drawn.perturbation.to(dtype))
    for variant in ("paper", "l1"):
        values = [
            zs.score(Branched(kept, bias).to(dtype), "zen", batch=batch, init="keep", variant=variant).value
            for kept in (True, False)
        ]
        assert values[0] == pytest.approx(values[1], rel=1e-9 if dtype == torch.float64 else 1e-5)


def test_a_dead_network_is_still_called_so():
    dead = Branched(True).double()
    nn.init.zeros_(dead.stem[0].weight)
    result = zs.score(dead, "zen", batch=noise(4, 3, 8, 8), init="keep")
    assert (result.state, result.reason) == ("failed", "the feature map's change is zero: the network is dead")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nasbench201", {"channels": 4, "num_cells": 2}),
        ("nasbench101", {"channels": 16, "num_cells": 1}),
        ("nasbench301", {"channels": 4, "num_cells": 4}),
        ("transnas_micro", {"channels": 8}),
    ],
)
def test_cells_with_dead_branches_have_a_score(name, options):
    """Where an image reaches the output at all."""
    space = zs.get_space(name, input_size=(3, 16, 16), num_classes=10, **options)
    for cell in [space.sample(python_rng(5, index)) for index in range(12)]:
        scores = zs.score(cell, ["zen", "naswot"], repeats=1, batch_size=8)
        assert scores["zen"].ok or not zs.score(cell, "cet").ok, scores["zen"].reason


def test_options():
    module, batch = build(SMALL, init="gaussian"), Batch(torch.zeros(2, 3, 9, 8))
    with pytest.raises(
        ProxyError, match=r"zen's variant must be 'paper', 'l1' or 'zennas', got 'papre'\. Did you mean 'paper'\?"
    ):
        zs.score(module, "zen", variant="papre")
    with pytest.raises(ProxyError, match=r"zen needs Batch\(inputs, perturbation="):
        zs.score(module, "zen", batch=batch)


def test_a_batch_norm_that_runs_twice_counts_twice():
    norm = nn.BatchNorm2d(4)
    shared = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.ReLU(), norm).double()
    with BatchNormVariances(shared, unbiased=False) as seen, torch.no_grad():
        shared(noise(4, 3, 4, 4).inputs)
    assert len(seen.means) == 2


def test_variances_are_the_inputs_of_each_norm_in_order():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)).double()
    x = noise(4, 3, 5, 5).inputs * 3
    for unbiased in (False, True):
        with BatchNormVariances(module, unbiased=unbiased) as seen, torch.no_grad():
            between = module[0](x)
            module[1](between)
        expected = [h.numpy().var((0, 2, 3), ddof=int(unbiased)).mean() for h in (x, between)]
        assert seen.means == pytest.approx(expected, rel=1e-12)
    module(x)
    assert len(seen.means) == 2, "the hooks are gone"


# The feature map of a module that is not ours


class Block(nn.Module):
    """torchvision's BasicBlock, with functional ReLUs."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


POOLS = {
    "mean": lambda x: x.mean((2, 3)),
    "mean twice": lambda x: x.mean(3).mean(2),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    "window": lambda x: F.avg_pool2d(x, x.shape[2:]).flatten(1),
    "dropout": lambda x: F.dropout(x.mean((2, 3)), 0.5, training=False),
    "flatten": lambda x: x.flatten(2).mean(2),
}


class ResNet(nn.Module):
    """torchvision's ResNet in small."""

    def __init__(self, pool: str = "mean") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layers = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2))
        self.fc = nn.Linear(16, 10)
        self.pool = pool

    def forward_features(self, x):
        return self.layers(F.relu(self.bn1(self.conv1(x))))

    def forward(self, x):
        return self.fc(POOLS[self.pool](self.forward_features(x)))


@pytest.mark.parametrize("pool", POOLS)
def test_the_feature_map_is_found(pool):
    module = ResNet(pool).eval()
    x = torch.randn(2, 3, 8, 8, generator=torch_generator(0))
    with torch.no_grad():
        features = feature_map(module, x)
        assert torch.equal(features, module.forward_features(x))
    assert features.shape == (2, 16, 4, 4)


@settings(max_examples=15)
@given(architectures(max_blocks=2), st.booleans())
def test_the_feature_map_of_our_networks_is_the_one_that_is_traced(architecture, squeeze_excite):
    """The trace finds what ``forward_features`` gives, where it has more than one position."""
    network = build(architecture).eval()
    x = torch.randn(2, *architecture.input_size, generator=torch_generator(0))
    with torch.no_grad():
        expected = network.forward_features(x)
        assert torch.equal(feature_map(network, x), expected)
        if math.prod(expected.shape[2:]) > 1:
            assert torch.equal(feature_map(nn.Sequential(network.blocks, network.head), x), expected)


def test_without_spatial_axes_it_is_the_output():
    module = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
    x = torch.randn(4, 6, generator=torch_generator(0))
    module.eval()
    assert torch.equal(feature_map(module, x), module(x))
    module.train()
    assert zs.score(module, "zen", input_size=(6,), batch_size=8).ok


def test_a_module_that_returns_no_tensor():
    class Tuple(nn.Module):
        def forward(self, x):
            return x.mean(), x.sum()

    with pytest.raises(ProxyError, match=r"returns tuple .*expected a tensor"):
        feature_map(Tuple(), torch.zeros(2, 3))
    with pytest.raises(ProxyError, match="returns tuple"):
        feature_map(Tuple(), torch.zeros(2, 3, 4, 4))


def test_a_module_that_returns_a_tuple_but_computes_features():
    class Auxiliary(ResNet):
        def forward(self, x):
            return super().forward(x), x.mean()

    x = torch.randn(2, 3, 8, 8, generator=torch_generator(0))
    module = Auxiliary().eval()
    assert torch.equal(feature_map(module, x), module.forward_features(x))
