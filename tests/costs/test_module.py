"""Costs of any module: counted, warned about where they can't be, and the module left as found."""

import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import nn

import tests.counting  # noqa: F401  loads fvcore without its warning
from tests.strategies import architectures
from zeroshot_nas import build, cost
from zeroshot_nas.errors import ArchitectureError, UncountedOperatorWarning


class Spectral(nn.Module):
    """A layer whose multiply-adds no counter knows."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)

    def forward(self, x):
        return torch.fft.fft2(self.conv(x)).abs()


class Raises(nn.Module):
    """A module that refuses its input in its own way."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


def snapshot(module):
    """All that counting could change about a module, and the global random state."""
    return {
        "state": {name: tensor.clone() for name, tensor in module.state_dict().items()},
        "modes": [part.training for part in module.modules()],
        "grads": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        "requires": [p.requires_grad for p in module.parameters()],
        "hooks": [(list(part._forward_hooks), list(part._forward_pre_hooks)) for part in module.modules()],
        "forward": ["forward" in vars(part) for part in module.modules()],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
    }


def changed(before, after):
    """Names of what differs between two snapshots."""
    return [name for name in before if not same(before[name], after[name])]


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def test_a_convolution_and_a_linear_layer_by_hand():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10)
    )
    costs = cost(module, input_size=(3, 8, 8))
    assert costs.params == 3 * 8 * 9 + 8 + 16 + 128 * 10 + 10
    assert costs.flops == 3 * 8 * 9 * 16 + 128 * 10  # no batch norm, no bias
    assert costs.activations == 8 * 16 + 10
    assert costs.layers is None


@settings(max_examples=10)
@given(architectures(max_blocks=2))
def test_our_network_as_a_module_costs_what_its_architecture_does(architecture):
    as_module, as_data = cost(build(architecture), input_size=architecture.input_size), cost(architecture)
    assert (as_module.params, as_module.flops, as_module.activations) == (
        as_data.params,
        as_data.flops,
        as_data.activations,
    )


@pytest.mark.parametrize(
    "layer",
    [
        *(nn.ReLU(), nn.Sigmoid(), nn.ReLU6(), nn.Hardswish(), nn.SELU()),
        *(nn.AvgPool2d(2), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(2)),
        *(nn.GroupNorm(2, 4), nn.Dropout(), nn.PixelShuffle(2), nn.ChannelShuffle(2), nn.ZeroPad2d(1)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_is_no_linear_map_is_free_and_silent(layer):
    bare = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        costs = cost(nn.Sequential(*bare, layer), input_size=(3, 8, 8))
    assert costs.flops == cost(bare, input_size=(3, 8, 8)).flops == 4 * 3 * 9 * 64
    assert costs.activations == 4 * 64


def test_an_operator_that_can_not_be_counted_is_named():
    with pytest.warns(UncountedOperatorWarning, match="fft2") as caught:
        costs = cost(Spectral(), input_size=(3, 8, 8))
    assert costs.flops == 4 * 3 * 9 * 64
    assert "abs" not in str(caught[0].message), "free operators are not named"
    assert caught[0].filename == __file__, "the warning points at the caller"


def test_one_dimensional_modules():
    costs = cost(nn.Conv1d(2, 4, 3, padding=1, bias=False), input_size=(2, 10))
    assert (costs.params, costs.flops) == (24, 240)


def test_a_module_without_parameters_costs_nothing():
    costs = cost(nn.ReLU(), input_size=(3, 8, 8))
    assert (costs.params, costs.flops, costs.activations) == (0, 0, 0)


def test_shared_weights_count_once_as_parameters_and_twice_as_flops():
    layer = nn.Conv2d(3, 3, 1, bias=False)
    costs = cost(nn.Sequential(layer, nn.ReLU(), layer), input_size=(3, 4, 4))
    assert (costs.params, costs.flops) == (9, 2 * 9 * 16)


def test_double_precision_modules():
    assert cost(nn.Conv2d(3, 3, 1).double(), input_size=(3, 4, 4)).flops == 9 * 16


@pytest.mark.filterwarnings("ignore::zeroshot_nas.errors.UncountedOperatorWarning")
@pytest.mark.parametrize("size", [(3, 8, 8), (5, 8, 8)], ids=["fits", "does not fit"])
def test_the_module_is_left_as_found(size):
    """Weights, buffers, each part's mode, gradients, hooks and the random state, after success and after failure."""
    module = nn.Sequential(Spectral(), nn.BatchNorm2d(4), nn.Dropout(), nn.BatchNorm2d(4).eval(), nn.Conv2d(4, 2, 1))
    module[1].register_forward_hook(lambda *_: None)
    module[4].weight.grad = torch.ones_like(module[4].weight)
    module[4].bias.requires_grad_(False)
    before = snapshot(module)
    try:
        cost(module, input_size=size)
    except ArchitectureError:
        assert size[0] == 5
    assert changed(before, snapshot(module)) == []


def test_the_random_state_is_left_as_found():
    """Functional dropout draws although the module is in eval mode."""

    class Drops(nn.Module):
        def forward(self, x):
            return F.dropout(x)

    module = Drops()
    before = snapshot(module)
    cost(module, input_size=(3, 8, 8))
    assert changed(before, snapshot(module)) == []


def test_the_counter_loads_without_a_warning():
    """A user whose tests make errors of warnings can still import it."""
    program = "import torch, warnings; warnings.simplefilter('error'); import zeroshot_nas.costs.module"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_a_module_needs_an_input_size():
    with pytest.raises(ArchitectureError, match=r"cost of a Conv2d needs input_size=\(C, H, W\)"):
        cost(nn.Conv2d(3, 8, 3))


@pytest.mark.parametrize("size", [(5, 8, 8), (3, 1, 1), (3, 8)])
def test_a_wrong_input_size_is_named(size):
    with pytest.raises(ArchitectureError, match=r"Sequential could not be traced .*Check input_size"):
        cost(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 2)), input_size=size)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no"),
        ValueError(),
        AssertionError(),
        AssertionError("size 7, expected 8"),
        IndexError(),
        KeyError("x"),
    ],
    ids=repr,
)
def test_whatever_the_module_raises_is_passed_on_as_ours(error):
    """The module can't be traced on that input: an ArchitectureError, with the cause attached."""
    with pytest.raises(ArchitectureError, match="Raises could not be traced") as caught:
        cost(Raises(error), input_size=(3, 8, 8))
    assert caught.value.__cause__ is not None
