"""A trained network as the operators of a microcontroller's interpreter, batch norms folded, in floating point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.kernels import ZERO, Instruction, instructions
from zeroshot_nas.architecture.ops import BatchNorm, Conv, Linear
from zeroshot_nas.micro.operators import NORMALIZE, Operator, network_operators
from zeroshot_nas.micro.order import best_order

if TYPE_CHECKING:
    from zeroshot_nas.training.checkpoint import TrainedNetwork

Parameters: TypeAlias = tuple[Tensor, Tensor] | None
"""Weights ``(out, in, height, width)`` and biases of an operator; None where it has none."""


@dataclass(frozen=True)
class FloatProgram:
    """The operators of a network with its weights.

    Attributes:
        operators: In the order that needs least memory.
        weights: Of every operator.
    """

    operators: tuple[Operator, ...]
    weights: tuple[Parameters, ...]

    def run(
        self, images: Tensor, rounded: Callable[[int, Tensor], Tensor] = lambda _, tensor: tensor
    ) -> Iterator[Tensor]:
        """Every tensor: the images, then the output of each operator; the last are the logits.

        Args:
            images: What goes in.
            rounded: ``(index, tensor)`` to what the operators that read it get in its place.
        """
        tensors = [rounded(0, images)]
        yield tensors[0]
        for index, (operator, weights) in enumerate(zip(self.operators, self.weights, strict=True), start=1):
            tensor = rounded(index, _compute(operator, [tensors[source] for source in operator.inputs], weights))
            tensors.append(tensor)
            yield tensor


@lru_cache(maxsize=64)
def ordered_operators(architecture: Architecture) -> tuple[Operator, ...]:
    """The operators of an architecture in the order that needs least memory."""
    return best_order(network_operators(architecture), architecture.input_size).operators


def float_program(network: TrainedNetwork) -> FloatProgram:
    """A trained network as operators, its batch norms folded into the convolutions before them.

    Gradients flow back to the network's own weights. Batch norms are as in eval mode, whatever the network's mode.
    """
    architecture = network.architecture
    program = instructions(architecture.lower(), architecture.input_size)
    folded = list(_folded(network, program))
    std = network.std.flatten()
    normalisation = ((1 / std).reshape(-1, 1, 1, 1), -network.mean.flatten() / std)
    weights: list[Parameters] = []
    found = ordered_operators(architecture)
    for operator in found:
        if not operator.channels:
            weights.append(None)
            continue
        values, biases = normalisation if operator.instruction == NORMALIZE else folded[operator.instruction]
        grown = 0 if operator.code == "FULLY_CONNECTED" else operator.kernel_size - values.shape[-1]
        weights.append((F.pad(values, (0, grown, 0, grown)) if grown else values, biases))
    return FloatProgram(found, tuple(weights))


def _folded(network: TrainedNetwork, program: Sequence[Instruction]) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights and biases of every kernel, batch norms folded; those without have one of no values."""
    layers: Iterator[Any] = (part for part in network.modules() if isinstance(part, _WITH_WEIGHTS))
    new = network.mean.new_zeros
    for instruction in program:
        values, biases = new(instruction.output_shape[0], 1, 1, 1), new(())
        if instruction.kernel.kind != ZERO:
            values = values + 1
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
                biases = new(len(values)) if layer.bias is None else layer.bias
        yield values, biases.expand(len(values))
    assert next(layers, None) is None, "every layer belongs to a kernel"


def _as_window(weight: Tensor, instruction: Instruction) -> Tensor:
    """The weights of a linear layer, as a convolution over all of its input has them."""
    kernel = instruction.kernel
    return weight.reshape(len(weight), kernel.in_channels, kernel.height, kernel.width)


_WITH_WEIGHTS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)


def _compute(operator: Operator, inputs: list[Tensor], weights: Parameters) -> Tensor:
    result = _COMPUTE[operator.code](operator, inputs, weights)
    return result.relu() if operator.relu else result


def _convolve(operator: Operator, inputs: list[Tensor], weights: Parameters) -> Tensor:
    assert weights is not None
    (x,), (values, biases) = inputs, weights
    if operator.kernel_size == operator.stride == 1 and values.shape == (x.shape[1], 1, 1, 1):
        return torch.addcmul(biases.reshape(-1, 1, 1), x, values.reshape(-1, 1, 1))
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


def _linear(_: Operator, inputs: list[Tensor], weights: Parameters) -> Tensor:
    assert weights is not None
    values, biases = weights
    return F.linear(inputs[0].flatten(1), values.flatten(1), biases)[..., None, None]


_COMPUTE: dict[str, Callable[[Operator, list[Tensor], Parameters], Tensor]] = {
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
