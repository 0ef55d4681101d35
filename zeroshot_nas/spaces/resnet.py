"""Zen-NAS's space of residual networks (its ``search_space_XXBL``)."""

from __future__ import annotations

from zeroshot_nas.ops import Shape
from zeroshot_nas.spaces.base import ChainSpace, register_space


@register_space("resnet")
def resnet(
    *,
    input_size: Shape,
    num_classes: int,
    squeeze_excite: bool = False,
    max_width: int = 2048,
    width_step: int = 8,
) -> ChainSpace:
    """Chains of plain (k x k, k x k) and bottleneck (1x1, k x k, 1x1) residual blocks, k in 3, 5, 7.

    Source: Lin et al., arXiv:2102.01063. Departures from the authors' code: the six types are drawn evenly (their list
    repeats the early ones by accident), and ``width_step`` can make widths finer or coarser than their multiples of 8.

    Example:
        >>> resnet(input_size=(3, 32, 32), num_classes=10).initial().to_string()[:50]
        'SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,1,8,1)'
    """
    types = [f"SuperResK{k}K{k}" for k in (3, 5, 7)] + [f"SuperResK1K{k}K1" for k in (3, 5, 7)]
    return ChainSpace("resnet", tuple(types), input_size, num_classes, squeeze_excite, max_width, width_step=width_step)
