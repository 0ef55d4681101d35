"""The NTK's condition number against a loop over images; its laws; where it is undefined."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas import Batch
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.proxies.ntk import ntk_cond
from zeroshot_nas.scoring.proxy import PROXIES

SIZE = (3, 6, 6)


class Mixed(nn.Module):
    """A depthwise convolution, one with stride and bias, one that runs twice, one that never runs."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.inner_norm = nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 8, 1)
        self.never = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)
        self.scale = scale

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.inner_norm(self.depthwise(x)))
        x = self.twice(x + torch.tanh(self.twice(x)))
        return self.head(x.mean((2, 3))) * self.scale


def mixed(scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Mixed:
    torch.manual_seed(0)
    module = Mixed(scale)
    for norm in (module.norm, module.inner_norm):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.2, 0.2)
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 1.5)
    return module.to(dtype)


def images(count: int = 5, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, *SIZE, generator=torch.Generator().manual_seed(1), dtype=dtype)


def plain(module: nn.Module, x: torch.Tensor) -> float:
    """One backward pass an image, all gradients in one matrix, in the module's own mode."""
    logits, rows = module(x), []
    for logit in logits:
        module.zero_grad()
        logit.sum().backward(retain_graph=True)
        named = module.named_parameters()
        rows.append(
            np.concatenate([p.grad.flatten().numpy() for n, p in named if "weight" in n and p.grad is not None])
        )
    return float(np.linalg.cond(np.stack(rows)) ** 2)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_it_is_the_loop_over_images(mode):
    module, x = mixed(), images()
    result = zs.score(module, "ntk_cond", batch=Batch(x), init="keep", batch_norm=mode)
    assert result.value == pytest.approx(plain(mixed().train(mode == "train"), x), rel=1e-9)
    single = zs.score(mixed(dtype=torch.float32), "ntk_cond", batch=Batch(x.float()), init="keep", batch_norm=mode)
    assert single.value == pytest.approx(result.value, rel=1e-3)


def test_a_linear_network_by_hand():
    """Each row is an image, once for every class: the condition of the images' own products."""
    x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    net = nn.Linear(2, 3)
    assert ntk_cond(net, Batch(x)) == pytest.approx(4)
    assert ntk_cond(net, Batch(torch.randn(2, 2) + 9 * x)) > 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_linear_networks(seed, count):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 12)))
    expected = pytest.approx(np.linalg.cond(x.numpy()) ** 2, rel=1e-8)
    for mode in ("train", "eval"):
        assert ntk_cond(nn.Linear(12, 4).double(), Batch(x), batch_norm=mode) == expected


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_laws(mode):
    """Order of images and scale of logits don't matter; one is the least."""
    x = images()
    value = ntk_cond(mixed().train(), Batch(x), batch_norm=mode)
    assert value > 1
    assert ntk_cond(mixed().train(), Batch(x[[3, 0, 4, 2, 1]]), batch_norm=mode) == pytest.approx(value, rel=1e-9)
    assert ntk_cond(mixed(scale=7).train(), Batch(x), batch_norm=mode) == pytest.approx(value, rel=1e-9)
    assert ntk_cond(mixed().train(), Batch(x[:3]), batch_norm=mode) != pytest.approx(value)


def test_images_meet_in_batch_statistics_only():
    """Of two kernels without batch norm both modes are the same; with it they are not."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()
    train, evaluated = (ntk_cond(net, Batch(images()), batch_norm=mode) for mode in ("train", "eval"))
    assert train == pytest.approx(evaluated, rel=1e-9)
    train, evaluated = (ntk_cond(mixed().train(), Batch(images()), batch_norm=mode) for mode in ("train", "eval"))
    assert train != pytest.approx(evaluated, rel=0.01)


def test_biases_are_out_and_scales_of_norms_are_in():
    module, x = mixed().train(), images()
    whole = ntk_cond(module, Batch(x))
    for parameter in (module.norm.bias, module.stem.bias, module.head.bias):
        parameter.requires_grad_(False)
    assert ntk_cond(module, Batch(x)) == whole
    module.norm.weight.requires_grad_(False)
    assert ntk_cond(module, Batch(x)) != whole


def test_modes_are_restored():
    module = mixed().train()
    module.inner_norm.eval()
    ntk_cond(module, Batch(images()), batch_norm="eval")
    assert (module.norm.training, module.inner_norm.training) == (True, False)
    with pytest.raises(RuntimeError):
        ntk_cond(module, Batch(images()[:, :2]), batch_norm="eval")
    assert module.norm.training


def test_memory_layout_does_not_matter():
    x, layout = images(), {"memory_format": torch.channels_last}
    expected = pytest.approx(ntk_cond(mixed().train(), Batch(x)), rel=1e-9)
    assert ntk_cond(mixed().train().to(**layout), Batch(x.contiguous(**layout))) == expected


def test_lower_is_better():
    assert PROXIES["ntk_cond"].direction == "lower"


# Failures


def test_one_image_is_undefined():
    with pytest.raises(UndefinedScoreError, match="two or more"):
        ntk_cond(mixed(), Batch(images(1)))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_images_are_undefined(mode, dtype):
    x = images(dtype=dtype)
    x[3] = x[0]
    with pytest.raises(UndefinedScoreError, match="not above rounding"):
        ntk_cond(mixed(dtype=dtype).train(), Batch(x), batch_norm=mode)


def test_a_dead_network_is_undefined():
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    nn.init.constant_(module[0].bias, -100)
    with pytest.raises(UndefinedScoreError, match="dead"):
        ntk_cond(module, Batch(torch.randn(3, 4)))


def test_an_overflow_is_undefined():
    with pytest.raises(UndefinedScoreError, match="not finite"):
        ntk_cond(nn.Linear(4, 3), Batch(torch.tensor([[1e30, 0, 0, 0], [0, 1e30, 0, 0]])))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_modules_that_have_none(mode):
    for module in (nn.Sequential(nn.ReLU(), nn.Flatten()), nn.Linear(4, 2).requires_grad_(False)):
        with pytest.raises(ProxyError, match="called weight"):
            ntk_cond(module, Batch(torch.randn(3, 4)), batch_norm=mode)
    with pytest.raises(ProxyError, match="expected logits"):
        ntk_cond(nn.Conv2d(3, 2, 3), Batch(images(dtype=torch.float32)), batch_norm=mode)


def test_an_unknown_mode():
    with pytest.raises(ProxyError, match="ntk_cond's batch_norm must be 'train' or 'eval', got 'running'"):
        zs.score(mixed(), "ntk_cond", batch=Batch(images()), batch_norm="running")
