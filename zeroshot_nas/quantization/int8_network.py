"""A trained network in whole numbers: the operators of a microcontroller's interpreter, int8 weights and scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zeroshot_nas.errors import ExportError
from zeroshot_nas.micro.operators import Operator
from zeroshot_nas.quantization.program import FloatProgram, float_program
from zeroshot_nas.quantization.rules import grid

if TYPE_CHECKING:
    from zeroshot_nas.training.checkpoint import TrainedNetwork

Array = np.ndarray[Any, Any]


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


def quantize(
    network: TrainedNetwork, images: Tensor, batch_size: int = 64, *, power_of_two: bool = False
) -> Int8Network:
    """A trained network in whole numbers, its scales from the ranges that tensors have on some images.

    What is rounded to what is said in `zeroshot_nas.quantization.rules`; a range is from the least to the largest
    value seen.

    Args:
        network: The network.
        images: Images in [0, 1] to calibrate with.
        batch_size: Images at once.
        power_of_two: Whether every scale is a power of two.

    Raises:
        ExportError: A tensor's values are not finite.
    """
    return with_ranges(network, *ranges(network, images, batch_size), power_of_two)


@torch.no_grad()
def ranges(network: TrainedNetwork, images: Tensor, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    """The least and the largest value of every tensor of a network's operators, on some images.

    Raises:
        ExportError: A value is not finite.
    """
    program = float_program(network)
    ends = torch.stack([_ends(program, batch) for batch in torch.split(images, batch_size)])
    lows, highs = ends[:, :, 0].amin(0), ends[:, :, 1].amax(0)
    if not (lows.isfinite().all() and highs.isfinite().all()):
        raise ExportError("the network has outputs that are not finite: its training diverged; train it anew")
    return lows, highs


def _ends(program: FloatProgram, images: Tensor) -> Tensor:
    return torch.stack([torch.stack(tensor.aminmax()) for tensor in program.run(images)])


@torch.no_grad()
def with_ranges(network: TrainedNetwork, lows: Tensor, highs: Tensor, power_of_two: bool = False) -> Int8Network:
    """A network in whole numbers, each tensor's scale from its range."""
    program = float_program(network)
    rules = grid(program.operators, lows, highs, power_of_two)
    rounded, weight_scales = rules.rounded_program(program)
    quantized = [
        None if weights is None or scales is None else _whole(operator, *weights, scales, rules.scales)
        for operator, weights, scales in zip(program.operators, rounded.weights, weight_scales, strict=True)
    ]
    scales = zip(rules.scales.tolist(), rules.zero_points.tolist(), strict=True)
    return Int8Network(program.operators, network.architecture.input_size, tuple(scales), tuple(quantized))


def _whole(operator: Operator, values: Tensor, biases: Tensor, scales: Tensor, of_tensors: Tensor) -> Weights:
    """An operator's rounded weights as the whole numbers that they are."""
    units = scales.double()
    whole = (values.double() / units.reshape(-1, 1, 1, 1)).round().to(torch.int8).numpy()
    whole_biases = (biases.double() / (units * of_tensors[operator.inputs[0]].double())).round().int().numpy()
    if operator.code == "DEPTHWISE_CONV_2D":
        return Weights(whole.transpose(1, 2, 3, 0).copy(), scales.numpy(), 3, whole_biases)
    if operator.code == "CONV_2D":
        return Weights(whole.transpose(0, 2, 3, 1).copy(), scales.numpy(), 0, whole_biases)
    return Weights(whole.transpose(0, 2, 3, 1).reshape(len(whole), -1).copy(), scales[:1].numpy(), 0, whole_biases)
