"""The rules of int8: grids, straight-through gradients, powers of two, and one truth for training and file."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from tests.export.test_export import trained_network
from tests.strategies import architectures
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ArchitectureError, ExportError
from zeroshot_nas.micro.operators import network_operators
from zeroshot_nas.quantization.int8_network import quantize, ranges, with_ranges
from zeroshot_nas.quantization.program import float_program
from zeroshot_nas.quantization.rules import grid, next_power_of_two, tied
from zeroshot_nas.training.checkpoint import QuantizedNetwork, TrainedNetwork, pack, quantized, unpack

NET = Architecture.from_string("SuperConvK3BNRELU(1,4,1,1)SuperResK3K3(4,6,2,4,1)", (1, 6, 6), 3)
POWERS = pytest.mark.parametrize("power_of_two", [False, True])
ends = st.floats(-1e3, 1e3, allow_subnormal=False)


def bytes_for(architecture, count=8, seed=1):
    """Images as files have them."""
    shape = (count, *architecture.input_size)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)) / 255


def rounded_network(architecture, power_of_two, count=8):
    network, images = trained_network(architecture), bytes_for(architecture, count)
    return quantized(network, *ranges(network, images), power_of_two).eval(), images


def one_grid(low, high, power_of_two=False):
    """A grid whose second tensor has a range."""
    operators = tuple(network_operators(NET))
    lows, highs = torch.zeros(len(operators) + 1), torch.ones(len(operators) + 1)
    lows[1], highs[1] = low, high
    return grid(operators, lows, highs, power_of_two)


def tensors_of_file(whole, images):
    """Every tensor of a file, as real values ``(N, C, H, W)``."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from zeroshot_nas.export.tflite_writer import tflite_bytes

    runtime = Interpreter(
        model_content=tflite_bytes(whole, "", {}),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    (place,) = (each["index"] for each in runtime.get_input_details())
    values = ((images * 255).round() - 128).permute(0, 2, 3, 1).numpy().astype(np.int8)
    runtime.resize_tensor_input(place, values.shape)
    runtime.allocate_tensors()
    runtime.set_tensor(place, values)
    runtime.invoke()
    names = ["images", *(f"{each.code.lower()}{index}" for index, each in enumerate(whole.operators[:-1])), "logits"]
    places = {each["name"]: each["index"] for each in runtime.get_tensor_details()}
    found = []
    for name, (scale, zero_point) in zip(names, whole.scales, strict=True):
        tensor = torch.from_numpy(
            (runtime.get_tensor(places[name]).astype(np.float32) - zero_point) * np.float32(scale)
        )
        found.append(tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor[..., None, None])
    return found


def is_power_of_two(values):
    return (np.frexp(np.asarray(values, np.float64))[0] == 0.5).all()


@given(ends, ends, st.lists(st.floats(-2e3, 2e3, width=32), min_size=1, max_size=40), st.booleans())
def test_gradients_are_one_inside_the_range_and_zero_outside(one, other, values, power_of_two):
    rules = one_grid(min(one, other), max(one, other), power_of_two)
    scale, zero_point = rules.scales[1].double(), rules.zero_points[1]
    x = torch.tensor(values, requires_grad=True)
    rounded = rules.rounded(1, x)
    rounded.sum().backward()
    place = x.detach().double() / scale + zero_point
    inside, outside = (place > -128.4) & (place < 127.4), (place < -128.6) | (place > 127.6)
    assert (x.grad[inside] == 1).all()
    assert (x.grad[outside] == 0).all()
    whole = rounded.detach().double() / scale + zero_point
    torch.testing.assert_close(whole, whole.round(), rtol=0, atol=1e-3)
    assert whole.min() > -128.5
    assert whole.max() < 127.5
    error = (rounded.detach().double() - x.detach().double()).abs()[inside]
    assert (error <= scale * 0.501).all()
    assert torch.equal(rules.rounded(1, rounded), rounded.detach()), "what is rounded stays"
    theirs = torch.fake_quantize_per_tensor_affine(x, rules.scales[1], rules.zero_points[1], -128, 127)
    at_a_tie = ((x.double() / scale) % 1 - 0.5).abs() < 1e-3
    torch.testing.assert_close(rounded[~at_a_tie], theirs[~at_a_tie])


@given(ends, ends)
def test_a_range_is_covered_and_zero_is_a_value_of_its_own(one, other):
    low, high = min(one, other, 0), max(one, other, 0)
    exact, power = one_grid(low, high), one_grid(low, high, power_of_two=True)
    for rules in (exact, power):
        scale, zero_point = rules.scales[1].item(), int(rules.zero_points[1])
        assert -128 <= zero_point <= 127
        assert rules.rounded(1, torch.zeros(1)).item() == 0
        assert scale * (-128 - zero_point) <= low + scale * 0.51
        assert scale * (127 - zero_point) >= high - scale * 0.51
    assert exact.scales[1] <= power.scales[1] * (1 + 1e-6)
    assert power.scales[1] < 2 * exact.scales[1] * (1 + 1e-6)


@given(st.floats(1e-30, 1e30))
def test_the_next_power_of_two_is_the_least_that_is_not_below(value):
    power = next_power_of_two(torch.tensor([value], dtype=torch.float64)).item()
    assert power / 2 < value <= power
    assert is_power_of_two(power)


@pytest.mark.slow
@settings(max_examples=15)
@given(architectures(), st.booleans())
def test_the_file_holds_the_weights_and_scales_that_training_computes_with(architecture, power_of_two):
    network, images = rounded_network(architecture, power_of_two, 4)
    whole = with_ranges(network, *network.ranges, power_of_two)
    rules = grid(whole.operators, *network.ranges, power_of_two)
    assert [each for each, _ in whole.scales] == rules.scales.tolist()
    program, _ = rules.rounded_program(float_program(network))
    for operator, weights, trained in zip(whole.operators, whole.weights, program.weights, strict=True):
        if weights is None:
            continue
        scale = torch.from_numpy(weights.scales)
        values = weights.values.astype(np.float32)
        assert np.abs(weights.values.astype(int)).max() <= 127
        if operator.code == "DEPTHWISE_CONV_2D":
            own = torch.from_numpy(values * weights.scales).permute(3, 0, 1, 2)
        else:
            per_channel = scale.reshape(-1, *[1] * (values.ndim - 1))
            own = torch.from_numpy(values) * per_channel
            own = own.permute(0, 3, 1, 2) if values.ndim == 4 else own[:, :, None, None]
            expected = trained[0].permute(0, 2, 3, 1).reshape(len(own), -1)
            own = own.permute(0, 2, 3, 1).reshape(len(own), -1)
        expected = trained[0] if operator.code == "DEPTHWISE_CONV_2D" else expected
        torch.testing.assert_close(own.reshape(expected.shape), expected.detach(), rtol=1e-6, atol=0)
        if power_of_two:
            assert is_power_of_two(weights.scales)
    if power_of_two:
        assert is_power_of_two([each for each, _ in whole.scales])
    assert network(images).shape == (4, architecture.num_classes)


def test_tensors_that_must_share_a_scale_do():
    cell = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|skip_connect~2|"
    architecture = zs.get_space("nasbench201", input_size=(3, 8, 8)).from_string(cell)
    network, _ = rounded_network(architecture, False, 2)
    operators = float_program(network).operators
    rules = grid(operators, *network.ranges)
    joined = [each.code for each in operators if each.code in ("AVERAGE_POOL_2D", "PAD")]
    assert len(joined) > 10
    for index, operator in enumerate(operators, start=1):
        if operator.code in ("AVERAGE_POOL_2D", "PAD"):
            (source,) = operator.inputs
            assert tied(operators)[index] == tied(operators)[source]
            assert rules.scales[index] == rules.scales[source]
            assert rules.zero_points[index] == rules.zero_points[source]


@POWERS
def test_gradients_reach_every_weight(power_of_two):
    network, images = rounded_network(NET, power_of_two)
    network.train()
    torch.nn.functional.cross_entropy(network(images), torch.arange(8) % 3).backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in network.parameters())
    assert sum((each.grad != 0).any().item() for each in network.parameters()) >= len(list(network.parameters())) - 1


@POWERS
def test_rounding_is_near_the_network_and_changes_nothing_in_eval_mode(power_of_two):
    network, images = rounded_network(NET, power_of_two)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        rounded, exact = network(images), network.plain()(images)
    assert (rounded - exact).square().mean().sqrt() < (0.2 if power_of_two else 0.1) * exact.std()
    assert not torch.equal(rounded, exact)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_ranges_follow_batches_in_training_until_they_are_fixed():
    network, images = rounded_network(NET, False)
    statistics = network.blocks[0][1].running_mean.clone()
    network.train()
    network(images * 0)
    moved = network.ranges.clone()
    assert moved[1, 0] == pytest.approx(0.95, abs=0.01), "a twentieth of the way"
    network.follows = False
    network(images)
    assert torch.equal(network.ranges, moved)
    assert torch.equal(network.blocks[0][1].running_mean, statistics), "batch norms keep their statistics"


@POWERS
def test_a_network_is_packed_with_its_ranges(power_of_two):
    network, images = rounded_network(NET, power_of_two)
    again = unpack(pack(network, 1, None))
    assert isinstance(again, QuantizedNetwork)
    assert again.power_of_two is power_of_two
    assert torch.equal(again(images), network(images))
    assert type(unpack(pack(network.plain(), 1, None))) is TrainedNetwork


def test_a_classifier_belongs_to_its_ranges():
    with pytest.raises(ArchitectureError, match="an int8 network keeps its classifier"):
        rounded_network(NET, False)[0].reset_classifier(5)


def test_what_is_not_finite_has_no_range():
    network = trained_network(NET)
    with torch.no_grad():
        network.blocks[0][0].weight[0] = math.inf
    with pytest.raises(ExportError, match="its training diverged"):
        quantize(network, bytes_for(NET))


@pytest.mark.slow
@settings(max_examples=15)
@given(architectures())
def test_a_file_of_powers_of_two_computes_exactly_what_training_does(architecture):
    """Every product and sum is exact then, and ties are broken as the runtime's kernels do."""
    interpreter = pytest.importorskip("zeroshot_nas.export.formats.tflite_file").Interpreter
    pytest.importorskip("ai_edge_litert")
    from zeroshot_nas.export.tflite_writer import tflite_bytes

    network, images = rounded_network(architecture, True)
    whole = with_ranges(network, *network.ranges, power_of_two=True)
    with torch.no_grad():
        assert torch.equal(interpreter(tflite_bytes(whole, "", {})).logits(images), network(images))


@pytest.mark.slow
@settings(max_examples=15)
@given(architectures(), st.booleans())
def test_every_operator_of_a_file_computes_what_training_does_within_a_step(architecture, power_of_two):
    """From the same inputs, in kernels that round twice: a network may carry such a step far."""
    pytest.importorskip("ai_edge_litert")
    network, images = rounded_network(architecture, power_of_two, 2)
    whole = with_ranges(network, *network.ranges, power_of_two)
    rules = grid(whole.operators, *network.ranges, power_of_two)
    theirs, steps = tensors_of_file(whole, images), []

    def compare(index, tensor):
        steps.append(((rules.rounded(index, tensor) - theirs[index]) / rules.scales[index]).flatten())
        return theirs[index]

    with torch.no_grad():
        list(rules.rounded_program(float_program(network))[0].run(rules.images(images), compare))
    steps = torch.cat(steps).abs()
    assert steps.max() < 1.01
    assert (steps > 0.5).float().mean() < 0.1


@pytest.mark.parametrize(
    "space", ["inverted", "mobilenet", "nasbench101", "nasbench201", "nats_sss", "resnet", "vanilla"]
)
def test_networks_of_spaces_compute_what_their_files_do(space):
    """Of all that fit a test; cells have sums and pools that ties are common in."""
    pytest.importorskip("ai_edge_litert")
    from zeroshot_nas.export.formats.tflite_file import Interpreter
    from zeroshot_nas.export.tflite_writer import tflite_bytes

    found = zs.get_space(space).sample(python_rng(3))
    architecture = Architecture(found.blocks, (3, 16, 16), 5)
    network, images = rounded_network(architecture, True, 2)
    whole = with_ranges(network, *network.ranges, power_of_two=True)
    with torch.no_grad():
        steps = (Interpreter(tflite_bytes(whole, "", {})).logits(images) - network(images)) / whole.scales[-1][0]
    assert steps.abs().max() <= 1


@pytest.mark.parametrize("gamma", [1e-5, 0.0])
def test_a_tensor_of_zeros_or_almost_is_no_reason_to_refuse(gamma):
    """Kernels refuse steps that are too far from those of what they read."""
    pytest.importorskip("ai_edge_litert")
    from zeroshot_nas.export.formats.tflite_file import Interpreter
    from zeroshot_nas.export.tflite_writer import tflite_bytes

    network, images = trained_network(NET), bytes_for(NET)
    norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        norms[1].bias.fill_(-100)  # whose ReLU lets nothing through
        norms[2].weight.fill_(gamma)
        norms[2].bias.fill_(gamma)
        own = network(images)
    for power_of_two in (False, True):
        whole = quantize(network, images, power_of_two=power_of_two)
        logits = Interpreter(tflite_bytes(whole, "", {})).logits(images)
        assert (logits - own).abs().max() < 0.2 * own.abs().max()
