"""Which tensor is rounded to what: the scales and zero points of int8, as TensorFlow Lite demands them.

The exported file and training with rounded values ask here alone, so that a network is trained with what the file
does. Weights are symmetric, of 8 bits or as few as the architecture says (`Architecture.weight_bits`), one scale a
channel (the classifier has one for all); biases have 32 bits, in units of the input's scale times the weights'; other
tensors are int8 with a zero point, one scale each. A pooled, padded or concatenated tensor has the scale of what it is
made of, a sigmoid 1/256. Gradients pass a value as if it were not rounded, and end where it is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from zeroshot_nas.micro.operators import NORMALIZE, Operator
from zeroshot_nas.quantization.program import FloatProgram, Parameters

LEAST, MOST = -128, 127
"""The values of a tensor."""

BYTE = 1 / 255
"""An image's step in what a network takes, which is in [0, 1]."""

_BYTE_POWER_OF_TWO = 1 / 256
"""The same where scales are powers of two; the normalisation's weights make up for the difference."""

_TIED = frozenset(("AVERAGE_POOL_2D", "CONCATENATION", "MAX_POOL_2D", "PAD"))
"""Operators whose output must have the scale of what they read."""

_LOGISTIC = 1 / 256
"""The scale that a sigmoid's output must have."""

_DEAD = 1e-8
"""A tensor of a smaller step holds zeros alone."""

_OF_A_DEAD_TENSOR = 1 / 256
"""Its step: any would do, but kernels refuse those that are far from those of other tensors."""

_TIE = 2.0**-14
"""Share of a step by which ties are broken: sums go up, means of windows away from the whole number 0."""

_MAX_BIAS = 2.0**30
"""A bias in units of its scale stays below, so that sums fit in 32 bits."""


@dataclass(frozen=True)
class Grid:
    """What the tensors of a program are rounded to.

    Attributes:
        operators: The program's.
        scales: Of every tensor, float32: of what goes in, then of each operator's output.
        zero_points: Of every tensor, int32.
        power_of_two: Whether every scale is a power of two.
    """

    operators: tuple[Operator, ...]
    scales: Tensor
    zero_points: Tensor
    power_of_two: bool

    def rounded(self, index: int, tensor: Tensor) -> Tensor:
        """A tensor with every value at one of its 256, the nearest; of two the even one, where kernels do so."""
        code = self.operators[index - 1].code if index else ""
        if code == "ADD":
            tensor = tensor + _TIE * self.scales[index]
        elif code == "AVERAGE_POOL_2D":
            whole = tensor.detach() / self.scales[index] + self.zero_points[index]
            tensor = tensor + _TIE * self.scales[index] * whole.sign()
        rounded: Tensor = _Rounded.apply(tensor, self.scales[index], self.zero_points[index])  # type: ignore[no-untyped-call]
        return rounded

    def images(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as the first operator gets them: bytes times the first scale."""
        whole: Tensor = _Nearest.apply(images * 255, self.scales.new_ones(()))  # type: ignore[no-untyped-call]
        return whole * self.scales[0]

    def _weight_scales(self, operator: Operator, values: Tensor, biases: Tensor) -> Tensor:
        largest = values.detach().flatten(1).abs().amax(1).double() / most_weight(operator)
        least = biases.detach().abs().double() / (_MAX_BIAS * self.scales[operator.inputs[0]].double())
        scales = torch.maximum(largest, least).clamp(min=1e-12)
        if operator.code == "FULLY_CONNECTED":
            scales = scales.amax().expand(len(scales))
        return (next_power_of_two(scales) if self.power_of_two else scales).float()

    def rounded_program(self, program: FloatProgram) -> tuple[FloatProgram, tuple[Tensor | None, ...]]:
        """The program that takes `images`, its weights and biases at multiples of their scales; and those of weights.

        Those scales are float32, one a channel.
        """
        weights: list[Parameters] = []
        scales: list[Tensor | None] = []
        for operator, exact in zip(program.operators, program.weights, strict=True):
            if exact is None:
                weights.append(None)
                scales.append(None)
                continue
            values, biases = exact
            if operator.instruction == NORMALIZE:
                values = values * (BYTE / self.scales[0].item())
            scales.append(own := self._weight_scales(operator, values, biases))
            weights.append(self._rounded(operator, values, biases, own))
        return FloatProgram(program.operators, tuple(weights)), tuple(scales)

    def _rounded(self, operator: Operator, values: Tensor, biases: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        most = most_weight(operator)
        whole = torch.fake_quantize_per_channel_affine(values, scales, zeros, 0, -most, most)
        units = scales.double() * self.scales[operator.inputs[0]].double()
        nearest: Tensor = _Nearest.apply(biases, units)  # type: ignore[no-untyped-call]
        return whole, nearest


def most_weight(operator: Operator) -> int:
    """The largest weight of an operator, in units of its scale; the least is its opposite."""
    return int(2 ** (operator.weight_bits - 1)) - 1


class _Rounded(torch.autograd.Function):
    """What ``torch.fake_quantize_per_tensor_affine`` computes, in half the time on the CPU."""

    @staticmethod
    def forward(context: Any, values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        whole = (values / scale).round_().add_(zero_point)
        context.save_for_backward((whole >= LEAST) & (whole <= MOST))
        return whole.clamp_(LEAST, MOST).sub_(zero_point).mul_(scale)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (is_inside,) = context.saved_tensors
        return gradients[0] * is_inside, None, None


class _Nearest(torch.autograd.Function):
    """The nearest multiple of a unit, exactly; the gradient is that of the value itself."""

    @staticmethod
    def forward(_: Any, values: Tensor, units: Tensor) -> Tensor:
        return ((values.double() / units).round() * units).to(values.dtype)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def grid(operators: tuple[Operator, ...], lows: Tensor, highs: Tensor, power_of_two: bool = False) -> Grid:
    """What tensors are rounded to, from their ranges.

    Args:
        operators: The program's.
        lows: The least value of every tensor; that of what goes in is known to be 0.
        highs: The largest.
        power_of_two: Whether every scale is the next power of two that covers the same range.
    """
    group = torch.tensor(tied(operators), device=lows.device)
    low = lows.double().scatter_reduce(0, group, lows.double(), "amin").clamp(max=0)[group]
    high = highs.double().scatter_reduce(0, group, highs.double(), "amax").clamp(min=0)[group]
    scales = (high - low) / (MOST - LEAST)
    scales = torch.where(scales < _DEAD, _OF_A_DEAD_TENSOR, scales)
    scales = next_power_of_two(scales) if power_of_two else scales
    zero_points = (LEAST - low / scales).round().clamp(LEAST, MOST)
    fixed = {0: _BYTE_POWER_OF_TWO if power_of_two else BYTE}
    fixed |= {index: _LOGISTIC for index, each in enumerate(operators, start=1) if each.code == "LOGISTIC"}
    for index, scale in fixed.items():
        scales[index], zero_points[index] = scale, LEAST
    return Grid(operators, scales.float(), zero_points.int(), power_of_two)


@lru_cache(maxsize=64)
def tied(operators: Sequence[Operator]) -> tuple[int, ...]:
    """Of every tensor, the first of those that share its scale."""
    leader = list(range(len(operators) + 1))

    def lead(tensor: int) -> int:
        while leader[tensor] != tensor:
            tensor = leader[tensor]
        return tensor

    for tensor, operator in enumerate(operators, start=1):
        if operator.code in _TIED:
            for source in operator.inputs:
                first, other = sorted((lead(source), lead(tensor)))
                leader[other] = first
    return tuple(map(lead, range(len(leader))))


def next_power_of_two(values: Tensor) -> Tensor:
    """The least power of two that is not below, of values above 0.

    Example:
        >>> next_power_of_two(torch.tensor([0.3, 0.5, 1.1]))
        tensor([0.5000, 0.5000, 2.0000])
    """
    mantissa, exponent = torch.frexp(values)  # the mantissa is at least 1/2 and below 1
    return torch.ldexp(torch.ones_like(values), exponent - (mantissa == 0.5).int())
