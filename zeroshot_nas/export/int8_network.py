"""A trained network in whole numbers: the operators of a microcontroller's interpreter, int8 weights and scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zeroshot_nas.architecture.kernels import ZERO, Instruction, instructions
from zeroshot_nas.architecture.ops import BatchNorm, Conv, Linear
from zeroshot_nas.errors import ExportError
from zeroshot_nas.micro.operators import NORMALIZE, Operator, network_operators
from zeroshot_nas.micro.order import best_order

if TYPE_CHECKING:
    from zeroshot_nas.training.checkpoint import TrainedNetwork

Array = np.ndarray[Any, Any]

_TIED = frozenset(("AVERAGE_POOL_2D", "CONCATENATION", "MAX_POOL_2D", "PAD"))
"""Operators whose output must have the scale of what they read."""

_MAX_BIAS = 2.0**30
"""A bias in units of its scale stays below, so that sums fit in 32 bits."""


@dataclass(frozen=True)
class Weights:
    """What an operator multiplies and adds, in the layout of TensorFlow Lite.

    Attributes:
        values: int8 weights.
        scales: Of the weights, one a channel or one for all.
        axis: Of the channels.
        biases: int32, in units of the input's scale times the weights'.
    """

    values: Array
    scales: Array
    axis: int
    biases: Array


@dataclass(frozen=True)
class Int8Network:
    """A network as it runs on a microcontroller.

    Attributes:
        operators: In the order that needs least memory.
        input_shape: Shape ``(C, H, W)`` of an image.
        scales: Scale and zero point of every tensor: of what goes in, then of each operator's output.
        weights: Of every operator; None where it has none.
    """

    operators: tuple[Operator, ...]
    input_shape: tuple[int, int, int]
    scales: tuple[tuple[float, int], ...]
    weights: tuple[Weights | None, ...]


@dataclass(frozen=True)
class FloatProgram:
    """The operators of a trained network with its weights as they are, batch norms folded.

    Attributes:
        operators: In the order that needs least memory.
        weights: Weights ``(out, in, height, width)`` and biases of every operator; None where it has none.
    """

    operators: tuple[Operator, ...]
    weights: tuple[tuple[Tensor, Tensor] | None, ...]

    @torch.no_grad()
    def run(self, images: Tensor) -> Iterator[Tensor]:
        """Every tensor: the images, then the output of each operator; the last are the logits."""
        tensors = [images]
        yield images
        for operator, weights in zip(self.operators, self.weights, strict=True):
            tensor = _compute(operator, [tensors[source] for source in operator.inputs], weights)
            tensors.append(tensor)
            yield tensor


def float_program(network: TrainedNetwork) -> FloatProgram:
    """A trained network as operators, its batch norms folded into the convolutions before them."""
    architecture = network.architecture
    program = instructions(architecture.lower(), architecture.input_size)
    found = best_order(network_operators(architecture), architecture.input_size).operators
    folded = list(_folded(network, program))
    std = network.std.flatten()
    normalisation = ((1 / std).reshape(-1, 1, 1, 1), -network.mean.flatten() / std)
    weights: list[tuple[Tensor, Tensor] | None] = []
    for operator in found:
        if not operator.channels:
            weights.append(None)
            continue
        values, biases = normalisation if operator.instruction == NORMALIZE else folded[operator.instruction]
        grown = 0 if operator.code == "FULLY_CONNECTED" else operator.kernel_size - values.shape[-1]
        weights.append((F.pad(values, (0, grown, 0, grown)), biases))
    return FloatProgram(found, tuple(weights))


def quantize(network: TrainedNetwork, images: Tensor, batch_size: int = 64) -> Int8Network:
    """A trained network in whole numbers, its scales from the ranges that tensors have on some images.

    Weights are symmetric, one scale a channel (the classifier has one for all); other tensors are int8 with a zero
    point, from the least to the largest value seen.

    Args:
        network: The network.
        images: Images in [0, 1] to calibrate with.
        batch_size: Images at once.

    Raises:
        ExportError: A tensor's values are not finite.
    """
    program = float_program(network)
    lows, highs = _ranges(program, images, batch_size)
    return with_ranges(program, network.architecture.input_size, lows, highs)


def with_ranges(
    program: FloatProgram, input_shape: tuple[int, int, int], lows: Sequence[float], highs: Sequence[float]
) -> Int8Network:
    """A program in whole numbers, each tensor's scale from its range."""
    lows, highs = _tied(program.operators, lows, highs)
    scales = [(1 / 255, -128), *map(_scale, lows[1:], highs[1:])]
    for tensor, operator in enumerate(program.operators, start=1):
        if operator.code == "LOGISTIC":
            scales[tensor] = (1 / 256, -128)
    quantized = [
        None if weights is None else _quantized(operator, *weights, input_scale=scales[operator.inputs[0]][0])
        for operator, weights in zip(program.operators, program.weights, strict=True)
    ]
    return Int8Network(program.operators, input_shape, tuple(scales), tuple(quantized))


def _folded(network: TrainedNetwork, program: Sequence[Instruction]) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights and biases of every kernel, batch norms folded; those without have one of no values."""
    layers: Iterator[Any] = (part for part in network.modules() if isinstance(part, _WITH_WEIGHTS))
    with torch.no_grad():
        for instruction in program:
            values, biases = torch.ones(instruction.output_shape[0], 1, 1, 1), torch.zeros(())
            if instruction.kernel.kind == ZERO:
                values = torch.zeros_like(values)
            for op in instruction.ops:
                if not isinstance(op, Conv | BatchNorm | Linear):
                    continue
                layer = next(layers)
                if isinstance(op, BatchNorm):
                    factor = layer.weight / (layer.running_var + layer.eps).sqrt()
                    values = values * factor.reshape(-1, 1, 1, 1)
                    biases = (biases - layer.running_mean) * factor + layer.bias
                else:
                    values = layer.weight if isinstance(op, Conv) else _as_window(layer.weight, instruction)
                    biases = torch.zeros(len(values)) if layer.bias is None else layer.bias
            yield values.detach(), biases.detach().expand(len(values))
    assert next(layers, None) is None, "every layer belongs to a kernel"


def _as_window(weight: Tensor, instruction: Instruction) -> Tensor:
    """The weights of a linear layer, as a convolution over all of its input has them."""
    kernel = instruction.kernel
    return weight.reshape(len(weight), kernel.in_channels, kernel.height, kernel.width)


_WITH_WEIGHTS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)


def _compute(operator: Operator, inputs: list[Tensor], weights: tuple[Tensor, Tensor] | None) -> Tensor:
    result = _COMPUTE[operator.code](operator, inputs, weights)
    return result.relu() if operator.relu else result


def _convolve(operator: Operator, inputs: list[Tensor], weights: tuple[Tensor, Tensor] | None) -> Tensor:
    assert weights is not None
    (x,), (values, biases) = inputs, weights
    x = F.pad(x, _same(operator, x)) if operator.same else x
    groups = x.shape[1] // values.shape[1]
    return F.conv2d(x, values, biases, operator.stride, dilation=operator.dilation, groups=groups)


def _average(operator: Operator, inputs: list[Tensor], _: object) -> Tensor:
    """Means over the positions of a window that are in the image."""
    (x,) = inputs
    pads = _same(operator, x) if operator.same else (0, 0, 0, 0)
    ones = torch.ones_like(x[:1, :1])
    count, total = (F.avg_pool2d(F.pad(each, pads), operator.kernel_size, operator.stride) for each in (ones, x))
    return total / count


def _maximum(operator: Operator, inputs: list[Tensor], _: object) -> Tensor:
    (x,) = inputs
    x = F.pad(x, _same(operator, x), value=-torch.inf) if operator.same else x
    return F.max_pool2d(x, operator.kernel_size, operator.stride)


def _same(operator: Operator, x: Tensor) -> tuple[int, int, int, int]:
    """Columns left and right, rows above and below, that TensorFlow's ``SAME`` adds."""
    reach, stride = operator.dilation * (operator.kernel_size - 1) + 1, operator.stride
    height, width = (max((-(-side // stride) - 1) * stride + reach - side, 0) for side in x.shape[2:])
    return width // 2, width - width // 2, height // 2, height - height // 2


def _linear(_: Operator, inputs: list[Tensor], weights: tuple[Tensor, Tensor] | None) -> Tensor:
    assert weights is not None
    values, biases = weights
    return F.linear(inputs[0].flatten(1), values.flatten(1), biases)[..., None, None]


_COMPUTE: dict[str, Callable[[Operator, list[Tensor], tuple[Tensor, Tensor] | None], Tensor]] = {
    "ADD": lambda _, inputs, __: inputs[0] + inputs[1],
    "AVERAGE_POOL_2D": _average,
    "CONCATENATION": lambda _, inputs, __: torch.cat(inputs, 1),
    "CONV_2D": _convolve,
    "DEPTHWISE_CONV_2D": _convolve,
    "FULLY_CONNECTED": _linear,
    "LOGISTIC": lambda _, inputs, __: inputs[0].sigmoid(),
    "MAX_POOL_2D": _maximum,
    "MEAN": lambda _, inputs, __: inputs[0].mean((2, 3), keepdim=True),
    "MUL": lambda _, inputs, __: inputs[0] * inputs[1],
    "PAD": lambda operator, inputs, _: F.pad(inputs[0], (*operator.pads[2:], *operator.pads[:2])),
    "RELU": lambda _, inputs, __: inputs[0].relu(),
}


def _ranges(program: FloatProgram, images: Tensor, batch_size: int) -> tuple[list[float], list[float]]:
    """The least and the largest value of every tensor."""
    lows = highs = None
    for batch in torch.split(images, batch_size):
        ends = torch.stack([torch.stack(tensor.aminmax()) for tensor in program.run(batch)])
        lows = ends[:, 0] if lows is None else torch.minimum(lows, ends[:, 0])
        highs = ends[:, 1] if highs is None else torch.maximum(highs, ends[:, 1])
    assert lows is not None, "there are images"
    assert highs is not None
    if not (lows.isfinite().all() and highs.isfinite().all()):
        raise ExportError("the network has outputs that are not finite: its training diverged; train it anew")
    return lows.tolist(), highs.tolist()


def _tied(
    operators: Sequence[Operator], lows: Sequence[float], highs: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Ranges, each the hull of those of the tensors that must share a scale."""
    leader = list(range(len(operators) + 1))

    def lead(tensor: int) -> int:
        while leader[tensor] != tensor:
            tensor = leader[tensor]
        return tensor

    for tensor, operator in enumerate(operators, start=1):
        if operator.code in _TIED:
            for source in operator.inputs:
                leader[lead(source)] = lead(tensor)
    groups: dict[int, list[int]] = {}
    for tensor in range(len(leader)):
        groups.setdefault(lead(tensor), []).append(tensor)
    low, high = list(lows), list(highs)
    for members in groups.values():
        least, largest = min(lows[each] for each in members), max(highs[each] for each in members)
        for member in members:
            low[member], high[member] = least, largest
    return low, high


def _scale(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of a range, widened to hold 0, which is a value of its own."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, 1e-8)
    return float(np.float32(scale)), int(np.clip(round(-128 - low / scale), -128, 127))


def _quantized(operator: Operator, values: Tensor, biases: Tensor, input_scale: float) -> Weights:
    """An operator's weights in whole numbers."""
    code, per_channel = operator.code, operator.code != "FULLY_CONNECTED"
    channels = values.flatten(1).double().numpy()
    added = biases.double().numpy()
    largest = np.abs(channels).max(axis=1)
    scales = np.maximum(largest / 127, np.abs(added) / (_MAX_BIAS * input_scale))
    scales = np.maximum(scales if per_channel else np.full_like(scales, scales.max()), 1e-12).astype(np.float32)
    whole = np.clip(np.rint(channels / scales[:, None].astype(np.float64)), -127, 127).astype(np.int8)
    whole = whole.reshape(values.shape)
    whole_biases = np.rint(added / (scales.astype(np.float64) * input_scale)).astype(np.int32)
    if code == "DEPTHWISE_CONV_2D":
        return Weights(whole.transpose(1, 2, 3, 0).copy(), scales, 3, whole_biases)
    if code == "CONV_2D":
        return Weights(whole.transpose(0, 2, 3, 1).copy(), scales, 0, whole_biases)
    return Weights(whole.transpose(0, 2, 3, 1).reshape(len(whole), -1).copy(), scales[:1], 0, whole_biases)
