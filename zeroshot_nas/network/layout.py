"""Where channels may come last in memory, which is faster: not where torch then writes past its buffers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zeroshot_nas.core.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

NARROW, NARROW_WITH_THREADS = 8, 16
"""Input channels a group below which torch 2.13 writes past a buffer, on one thread and on several."""


def has_unsafe_gradient(kernel_size: Sequence[int], stride: Sequence[int], channels_of_group: int) -> bool:
    """Whether the weight's gradient of a channels-last convolution may corrupt the heap (torch 2.13, CPUs with AVX2).

    So it is for a 1x1 kernel with a stride that reads fewer than 8 channels, with several threads fewer than 16. With
    several it was seen for larger kernels from one channel, too, which training goes round.
    """
    narrow = NARROW if torch.get_num_threads() == 1 else NARROW_WITH_THREADS
    return math.prod(kernel_size) == 1 and max(stride) > 1 and channels_of_group < narrow


def is_unsafe_in_channels_last(network: nn.Module) -> bool:
    """Whether a module has a convolution of which `has_unsafe_gradient` is true."""
    return any(
        isinstance(part, nn.Conv2d)
        and has_unsafe_gradient(part.kernel_size, part.stride, part.in_channels // part.groups)
        for part in network.modules()
    )


def in_layout(tensor: Tensor, memory_format: torch.memory_format) -> Tensor:
    """A tensor of four axes in a layout, strides included; the very one where it is so.

    ``Tensor.contiguous`` keeps strides where an axis of length 1 lets them be read either way, by which a convolution
    still takes channels to come last.
    """
    if memory_format == torch.preserve_format or tensor.dim() != 4:
        return tensor
    if memory_format == torch.contiguous_format:
        fits = tensor.stride() == torch.empty(tensor.shape, device="meta").stride()
        return tensor if fits else tensor.clone(memory_format=memory_format)
    return tensor.contiguous(memory_format=memory_format)
