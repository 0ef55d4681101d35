"""Batch norm in bfloat16 of few channels that come last in memory, at the speed of one of many.

torch's kernels go through the channels of a pixel by vectors of 16 or 32, and one by one where there are fewer. A map
of 8 channels lies in memory as one of 256 channels with a 32th of the pixels does, so its statistics and its affine
maps are computed as that one's, and the statistics of the 32 channels that are one are then put together. In float32
what that saves goes into memory that has to be asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

NARROW = 16
"""Channels from which torch's own batch norm is as fast, in a whole step (measured with AVX-512)."""

FEW = 12_000
"""Pixels of all images together, below which putting statistics together takes as long as it saves."""

LOW = (torch.bfloat16,)
"""Precisions in which it saves time."""

FOLD = 32
"""Pixels that are read as one."""

_statistics = torch.ops.aten.batch_norm_update_stats
_batch_norm, _batch_norm_backward = torch.ops.aten.native_batch_norm, torch.ops.aten.native_batch_norm_backward


def fold_batch_norms(network: nn.Module) -> None:
    """Lets the narrow batch norms of a network of ours train faster in bfloat16; they compute what they did."""
    for part in network.modules():
        if type(part) is nn.BatchNorm2d and part.num_features < NARROW:
            part.__class__ = NarrowBatchNorm2d


class NarrowBatchNorm2d(nn.BatchNorm2d):
    """A batch norm that trains faster on large maps of few channels in bfloat16, where these come last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and _is_worth_it(x)):
            return super().forward(x)
        assert self.num_batches_tracked is not None, "a batch norm of ours tracks its statistics"
        self.num_batches_tracked.add_(1)
        averages = self.running_mean, self.running_var
        how = x, self.weight, self.bias, averages, self.momentum, self.eps
        out: Tensor = _Folded.apply(*how)  # type: ignore[no-untyped-call]
        return out


def _is_worth_it(x: Tensor) -> bool:
    count, channels, height, width = x.shape
    pixels = count * height * width
    return (
        x.dtype in LOW
        and x.device.type == "cpu"
        and pixels >= FEW
        and pixels % FOLD == 0
        and channels > 1
        and x.is_contiguous(memory_format=torch.channels_last)
    )


class _Folded(torch.autograd.Function):
    """Batch norm in training, ``y = w (x - mean) / sqrt(variance + eps) + b``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, b: Tensor, averages: tuple[Tensor, Tensor], momentum: float, eps: float
    ) -> Tensor:
        channels = x.shape[1]
        count = x.numel() // channels
        folded = _folded(x)
        unused = w.new_zeros(2, FOLD * channels)  # without them the statistics were of the images' precision
        means, variances = (each.view(FOLD, channels) for each in _statistics(folded, *unused, 0.0))
        mean = means.mean(0)
        variance = (variances + (means - mean).square_()).mean(0)
        for average, value in zip(averages, (mean, variance * (count / (count - 1))), strict=True):
            average.lerp_(value, momentum)
        ctx.save_for_backward(x, w, mean, (variance + eps).rsqrt())
        return _unfolded(_batch_norm(folded, *_repeated(w, b, mean, variance), False, 0.0, eps)[0], x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, w, mean, scale = ctx.saved_tensors
        channels = x.shape[1]
        count = x.numel() // channels
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        folded, of_output = _folded(x), _folded(gradient)
        factors, means, scales = _repeated(w, mean, scale)
        wanted = means, scales, True, 0.0, [False, True, True]
        sums = _batch_norm_backward(of_output, folded, factors, None, None, *wanted)[1:]
        of_w, of_b = (each.view(FOLD, channels).sum(0) for each in sums)
        # dx = w scale (dy - mean(dy) - x^ mean(dy x^)) with x^ = scale (x - mean): affine in dy and in x
        per_dy = w * scale
        per_x = per_dy * scale * of_w / -count
        none, one = torch.zeros_like(w), torch.ones_like(w)
        rest = per_dy * of_b / -count - per_x * mean
        per_dy, per_x, none, one, rest = _repeated(per_dy, per_x, none, one, rest)
        of_x = _affine(of_output, per_dy, none, none, one)
        of_x += _affine(folded, per_x, rest, none, one)
        return _unfolded(of_x, x), of_w, of_b, None, None, None


def _folded(x: Tensor) -> Tensor:
    """A view of a map whose channels come last, with `FOLD` pixels as the channels of one."""
    return x.permute(0, 2, 3, 1).reshape(-1, 1, 1, FOLD * x.shape[1]).permute(0, 3, 1, 2)


def _unfolded(folded: Tensor, like: Tensor) -> Tensor:
    count, channels, height, width = like.shape
    return folded.permute(0, 2, 3, 1).reshape(count, height, width, channels).permute(0, 3, 1, 2)


def _repeated(*values: Tensor) -> Tensor:
    """Values of the channels as those of the folded map's, a row each."""
    return torch.stack(values).repeat(1, FOLD)


def _affine(folded: Tensor, factor: Tensor, summand: Tensor, none: Tensor, one: Tensor) -> Tensor:
    """``factor x + summand``, by the batch norm that is not trained: one pass, in single precision, whatever x is."""
    out: Tensor = _batch_norm(folded, factor, summand, none, one, False, 0.0, 0.0)[0]
    return out
