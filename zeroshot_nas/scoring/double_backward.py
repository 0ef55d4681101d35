"""Convolution and batch norm whose second derivative costs what the first does.

Torch's own second derivative of a convolution runs another with kernels as large as feature maps, and that of a batch
norm reads its feature map some thirty times; together they are half the time. Values and first derivatives are torch's,
to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function

aten = torch.ops.aten

Maybe: TypeAlias = "Tensor | None"


class _Convolution(NamedTuple):
    """Settings of a convolution, one for each spatial axis."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def __call__(self, x: Tensor, weight: Tensor, bias: Maybe = None) -> Tensor:
        y: Tensor = aten.convolution(x, weight, bias, *self[:3], False, [0] * len(self.stride), self.groups)
        return y

    def backward(self, to_y: Tensor, x: Tensor, weight: Tensor, bias: bool, mask: Sequence[bool]) -> list[Maybe]:
        """Gradients for ``x``, ``weight`` and the bias, of those that are asked for."""
        sizes = [len(weight)] if bias else None
        rest = *self[:3], False, [0] * len(self.stride), self.groups
        return list(aten.convolution_backward(to_y, x, weight, sizes, *rest, list(mask)))


def convolution(
    input: Tensor,  # noqa: A002  torch's name
    weight: Tensor,
    bias: Maybe = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Torch's convolution, of as many spatial axes as the weight has."""
    if isinstance(padding, str) or input.dim() != weight.dim():
        plain = (torch.conv1d, torch.conv2d, torch.conv3d)[weight.dim() - 3]
        return plain(input, weight, bias, stride, padding, dilation, groups)
    axes = weight.dim() - 2

    def of_axes(value: Any) -> list[int]:
        return [value] * axes if isinstance(value, int) else list(value) * (axes // len(value))

    run = _Convolution(of_axes(stride), of_axes(padding), of_axes(dilation), groups)
    y: Tensor = _Forward.apply(input, weight, bias, run)  # type: ignore[no-untyped-call]
    return y


class _Forward(Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Maybe, run: _Convolution) -> Tensor:
        context.save_for_backward(x, weight)
        context.run = run
        return run(x, weight, bias)

    @staticmethod
    def backward(context: Any, *to_y: Tensor) -> Any:
        mask = context.needs_input_grad[:3]
        return *_Backward.apply(*to_y, *context.saved_tensors, context.run, mask), None  # type: ignore[no-untyped-call]


class _Backward(Function):
    @staticmethod
    def forward(context: Any, to_y: Tensor, x: Tensor, weight: Tensor, run: _Convolution, mask: Sequence[bool]) -> Any:
        context.save_for_backward(to_y, x, weight)
        context.set_materialize_grads(False)
        context.run = run
        return tuple(run.backward(to_y, x, weight, mask[2], mask))

    @staticmethod
    def backward(context: Any, *given: Maybe) -> Any:
        for_x, for_weight, for_bias = given
        to_y, x, weight = context.saved_tensors
        run, of = context.run, context.needs_input_grad
        of_y = of_x = of_weight = None
        if for_x is not None:
            of_y = run(for_x, weight)
            of_weight = run.backward(to_y, for_x, weight, False, (False, of[2], False))[1]
        if for_weight is not None:
            of_y = _sum(of_y, run(x, for_weight))
            of_x = run.backward(to_y, x, for_weight, False, (of[1], False, False))[0]
        if for_bias is not None:
            of_y = _sum(of_y, _by_channel(for_bias, to_y))
        return of_y, of_x, of_weight, None, None


def batch_norm(
    input: Tensor,  # noqa: A002  torch's name
    running_mean: Maybe,
    running_var: Maybe,
    weight: Maybe = None,
    bias: Maybe = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Torch's batch norm."""
    is_mixed = any(each is not None and each.dtype != input.dtype for each in (weight, bias))
    if not training or is_mixed or input.numel() == input.shape[1]:
        return torch.nn.functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    y: Tensor = _Norm.apply(input, weight, bias, running_mean, running_var, momentum, eps)  # type: ignore[no-untyped-call]
    return y


class _Norm(Function):
    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Maybe, bias: Maybe, mean: Maybe, var: Maybe, momentum: float, eps: float
    ) -> Tensor:
        y, *statistics = aten.native_batch_norm(x, weight, bias, mean, var, True, momentum, eps)
        context.save_for_backward(x, weight, *statistics)
        result: Tensor = y
        return result

    @staticmethod
    def backward(context: Any, *to_y: Tensor) -> Any:
        return *_NormBackward.apply(*to_y, *context.saved_tensors), None, None, None, None  # type: ignore[no-untyped-call]


class _NormBackward(Function):
    """The gradient for x is weight s P(to_y): s the inverse deviation; P takes off the mean and what is along x."""

    @staticmethod
    def forward(context: Any, to_y: Tensor, x: Tensor, weight: Maybe, mean: Tensor, s: Tensor) -> Any:
        to_x, to_weight, to_bias = _norm_backward(to_y, x, weight, mean, s)
        context.save_for_backward(to_y, x, weight, mean, s, to_x, to_weight, to_bias)
        context.set_materialize_grads(False)
        return to_x, None if weight is None else to_weight, None if weight is None else to_bias

    @staticmethod
    def backward(context: Any, *given: Maybe) -> Any:
        for_x, for_weight, for_bias = given
        to_y, x, weight, mean, s, to_x, along, total = context.saved_tensors
        of_y = of_x = of_weight = None
        if for_x is not None:
            count = x.numel() // x.shape[1]
            of_y, along_x, total_x = _norm_backward(for_x, x, weight, mean, s)
            both = _norm_backward(to_y, for_x, None, torch.zeros_like(s), torch.ones_like(s), [False, True, False])[1]
            projected = both - (total * total_x + along * along_x) / count
            of_weight = s * projected
            slope = of_weight if weight is None else weight * of_weight
            of_x = _affine(x, slope * s * s / -count, mean)
            of_x += _affine(to_x, along_x * s / -count)
            of_x += _affine(of_y, along * s / -count)
        if for_weight is not None:
            of_y = _sum(of_y, _affine(x, for_weight * s, mean))
            of_x = _sum(of_x, _norm_backward(to_y, x, for_weight, mean, s)[0])
        if for_bias is not None:
            of_y = _sum(of_y, _by_channel(for_bias, to_y))
        return of_y, of_x, None if weight is None else of_weight, None, None


def _norm_backward(
    to_y: Tensor, x: Tensor, weight: Maybe, mean: Tensor, s: Tensor, mask: Sequence[bool] = (True, True, True)
) -> Any:
    """Gradients for the input, the weight and the bias."""
    return aten.native_batch_norm_backward(to_y, x, weight, None, None, mean, s, True, 0.0, list(mask))


def _affine(x: Tensor, slope: Tensor, mean: Maybe = None) -> Tensor:
    """Each channel less its mean times its slope: a batch norm in eval mode, which is the fastest way in any layout."""
    ones = torch.ones_like(slope)
    centre = torch.zeros_like(slope) if mean is None else mean
    y: Tensor = aten.native_batch_norm(x, slope, None, centre, ones, False, 0.0, 0.0)[0]
    return y


def _by_channel(values: Tensor, like: Tensor) -> Tensor:
    """Each channel's value in all places of a tensor's shape."""
    return values.view(-1, *[1] * (like.dim() - 2)).expand_as(like)


def _sum(first: Maybe, second: Tensor) -> Tensor:
    return second if first is None else first + second
