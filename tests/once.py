"""A function without a second derivative, for tests of what differentiates twice."""

import torch


class Once(torch.autograd.Function):
    """Twice its input."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * gradient
