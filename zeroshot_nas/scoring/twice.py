"""Functions that can be differentiated twice, or fast, where torch's own can't."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from zeroshot_nas.core.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

Map: TypeAlias = "Callable[[Tensor], Tensor]"


def linear(x: Tensor, forward: Map, adjoint: Map) -> Tensor:
    """A linear map of a tensor, with the derivatives of every order that follow from its adjoint.

    Args:
        x: The tensor.
        forward: The map.
        adjoint: Its adjoint.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> linear(x, lambda x: 3 * x, lambda gradient: 3 * gradient).sum().backward()
        >>> x.grad
        tensor([3., 3.])
    """
    return differentiable(x, forward, lambda _: (adjoint, forward))


def hardsigmoid(x: Tensor) -> Tensor:
    """Torch's, value and gradient to the bit; its second derivative is 0 but at the kinks, and torch has none.

    Example:
        >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
        >>> (slope,) = torch.autograd.grad(hardsigmoid(x).square().sum(), x, create_graph=True)
        >>> torch.autograd.grad(slope.sum(), x)[0][1].item()
        0.0
    """

    def slopes(x: Tensor) -> tuple[Map, Map]:
        def times_slope(gradient: Tensor) -> Tensor:
            product: Tensor = torch.ops.aten.hardsigmoid_backward(gradient, x)
            return product

        return times_slope, times_slope

    return differentiable(x, torch.nn.functional.hardsigmoid, slopes)


def differentiable(x: Tensor, forward: Map, derivative: Callable[[Tensor], tuple[Map, Map]]) -> Tensor:
    """A function whose derivative is constant where it is defined.

    Args:
        x: The argument.
        forward: The function.
        derivative: Of an argument the adjoint of the linear map that the function is there, and that map.
    """
    result: Tensor = _function().apply(x, forward, derivative)  # type: ignore[no-untyped-call]
    return result


@cache
def _function() -> type[torch.autograd.Function]:
    class PiecewiseLinear(torch.autograd.Function):  # here: who derives from a class must load it
        @staticmethod
        def forward(context: Any, x: Tensor, forward: Map, derivative: Callable[[Tensor], tuple[Map, Map]]) -> Tensor:
            context.adjoint, context.map = derivative(x.detach())
            return forward(x)

        @staticmethod
        def backward(context: Any, *gradients: Tensor) -> Any:
            adjoint, forward = context.adjoint, context.map
            return PiecewiseLinear.apply(gradients[0], adjoint, lambda _: (forward, adjoint)), None, None  # type: ignore[no-untyped-call]

    return PiecewiseLinear
