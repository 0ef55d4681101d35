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


@pytest.mark.slow
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
        *(nn.GELU(), nn.Mish(inplace=True), nn.RReLU(), nn.Softshrink(), nn.Tanhshrink(), nn.LogSoftmax(1)),
        *(nn.AlphaDropout(), nn.RMSNorm(8), nn.LocalResponseNorm(2), nn.ReflectionPad2d(1), nn.Unfold(2)),
        *(nn.AdaptiveAvgPool3d((4, 2, 2)), nn.LPPool2d(2, 2), nn.UpsamplingBilinear2d(scale_factor=2)),
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


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.adaptive_avg_pool1d(x.flatten(2), 1),
        *(torch.clone, lambda x: x.flatten(1).reshape_as(x), lambda x: x.mean((2, 3), keepdim=True).expand_as(x)),
        *(lambda x: x.view_as(x).sin_(), lambda x: torch.lerp(x, x, 0.5), lambda x: x.argmax(1), lambda x: x.var(1)),
        *(lambda x: x.new_ones(x.shape) * x, lambda x: torch.empty_like(x).copy_(x), lambda x: torch.eye(8) + x),
        *(lambda x: x.fill_(0.5), lambda x: F.dropout(x, 0.5, True, inplace=True), lambda x: x.cumprod(1)),
        *(lambda x: x.median(1)[0], lambda x: torch.hstack([x, x]), lambda x: F.cosine_similarity(x, x + 1)),
        *(lambda x: torch.outer(x.flatten(), x.flatten()), lambda x: torch.block_diag(x[0, 0], x[0, 1])),
        *(lambda x: x.topk(2, 1)[0], lambda x: x.tril(), lambda x: x.unfold(2, 2, 2), lambda x: torch.rand_like(x) + x),
    ],
)
def test_what_moves_chooses_or_sums_values_is_free_and_silent(function):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cost(Applied(nn.Conv2d(3, 4, 3, padding=1), function), input_size=(3, 8, 8)).flops == 4 * 3 * 9 * 64


class Applied(nn.Module):
    """What a function makes of a module's result, or of the module and its input."""

    def __init__(self, module, function, whole=False):
        super().__init__()
        self.module, self.function, self.whole = module, function, whole

    def forward(self, x):
        return self.function(self.module, x) if self.whole else self.function(self.module(x))


def attention(**options):
    return Applied(nn.MultiheadAttention(16, 4, batch_first=True), lambda m, x: m(x, x, x, **options)[0], whole=True)


def torch_layer(**options):
    return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **options)


LAYER = 24_576 + 2 * 16 * 16 * 32
"""Four projections and two products of 16 tokens of 16 channels, then two linear layers."""


@pytest.mark.parametrize(
    ("module", "flops"),
    [
        (attention(), 24_576),
        (attention(need_weights=False), 24_576),
        (attention(attn_mask=torch.ones(16, 16).triu(1).bool()), 24_576),
        (torch_layer(), LAYER),
        (torch_layer(norm_first=True, activation="gelu"), LAYER),
        (nn.TransformerEncoder(torch_layer(), 3, enable_nested_tensor=False), 3 * LAYER),
        (Applied(nn.Identity(), lambda x: F.scaled_dot_product_attention(x, x, x)), 2 * 16**3),
        (Applied(nn.Identity(), lambda x: F.scaled_dot_product_attention(x[:, :5], x[:, :7], x[:, :7])), 2 * 35 * 16),
    ],
)
def test_attention_counts_projections_and_both_products(module, flops):
    enabled = torch.backends.mha.get_fastpath_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cost(module, input_size=(16, 16)).flops == flops
    assert torch.backends.mha.get_fastpath_enabled() == enabled


GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_a_recurrent_layer_counts_every_weight_at_every_step(kind, batch_first, layers, directions):
    """Nine steps of one sequence, or one step of nine."""
    module = kind(5, 7, layers, batch_first=batch_first, bidirectional=directions == 2)
    inputs = [5, *[7 * directions] * (layers - 1)]
    expected = 9 * directions * GATES[kind.__name__] * sum(7 * width + 7 * 7 for width in inputs)
    assert cost(module, input_size=(9, 5)).flops == expected


def test_a_projection_of_the_state_counts():
    module = nn.LSTM(5, 8, num_layers=2, proj_size=3, bidirectional=True, bias=False)
    assert cost(module, input_size=(9, 5)).flops == 9 * 2 * sum(32 * width + 32 * 3 + 8 * 3 for width in (5, 6))


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_recurrent_cell_is_one_step(kind):
    gates = GATES[kind.__name__.removesuffix("Cell")]
    assert cost(kind(5, 7), input_size=(5,)).flops == gates * (5 * 7 + 7 * 7)


def test_a_packed_sequence_counts_the_steps_that_it_has():
    def packed(module, x):
        sequence = nn.utils.rnn.pack_padded_sequence(x.expand(3, -1, -1), torch.tensor([9, 4, 2]), batch_first=True)
        return module(sequence)[1][0]

    module = Applied(nn.LSTM(5, 7, batch_first=True), packed, whole=True)
    assert cost(module, input_size=(9, 5)).flops == 15 * 4 * (5 * 7 + 7 * 7)


def test_products_of_other_kinds():
    x = (6, 5)
    assert cost(Applied(nn.Bilinear(5, 5, 4), lambda m, x: m(x, x), whole=True), input_size=x).flops == 6 * 100
    assert cost(Applied(nn.Identity(), lambda x: torch.baddbmm(x, x, x.mT @ x)), input_size=x).flops == 2 * 150
    assert cost(Applied(nn.Identity(), lambda x: torch.mv(x[0], x[0, 0])), input_size=x).flops == 30

    assert cost(Applied(nn.Identity(), lambda x: torch.inner(x[0], x[0, :4])), input_size=x).flops == 6 * 4 * 5
    assert cost(Applied(nn.Identity(), lambda x: torch.tensordot(x, x, ([1, 2], [1, 2]))), input_size=x).flops == 30
    assert cost(Applied(nn.Identity(), lambda x: torch.tensordot(x[0], x[0], ([0], [0]))), input_size=x).flops == 150
    assert cost(Applied(nn.Identity(), lambda x: torch.linalg.vecdot(x, x)), input_size=x).flops == 30
    time_first = Applied(nn.Conv1d(5, 7, 3), lambda m, x: torch.conv_tbc(x, m.weight.permute(2, 1, 0), m.bias, 1), True)
    assert cost(time_first, input_size=x).flops == 6 * 3 * 5 * 7, "one step of six sequences"


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_padding_by_name_costs_what_it_does_by_number(axes, padding):
    kind, size = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1], (4, *(8, 7, 6)[:axes])
    number = 2 if padding == "same" else 0
    by_name, by_number = (kind(4, 6, 3, padding=each, dilation=2, groups=2) for each in (padding, number))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        costs = cost(by_name, input_size=size)
    assert costs == cost(by_number, input_size=size)
    assert costs.flops > 0


def test_weights_that_are_normalised_at_every_call_cost_what_plain_ones_do():
    def net(wrap):
        return nn.Sequential(wrap(nn.Conv2d(3, 4, 3)), nn.ReLU(), wrap(nn.Conv2d(4, 4, 1)))

    plain = cost(net(nn.Identity().forward), input_size=(3, 8, 8)).flops
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cost(net(nn.utils.parametrizations.weight_norm), input_size=(3, 8, 8)).flops == plain


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


@pytest.mark.slow
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
