"""Zen-NAS's space of inverted residual networks (its ``search_space_IDW_fixfc``)."""

from __future__ import annotations

from collections.abc import Sequence

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.spaces.base import register_space
from zeroshot_nas.spaces.chain import ChainSpace


@register_space("mobilenet")
def mobilenet(
    *,
    input_size: Shape,
    num_classes: int,
    squeeze_excite: bool = False,
    max_width: int = 2048,
    last_width: int | None = None,
    width_step: int = 8,
    resolutions: Sequence[int] | None = None,
) -> ChainSpace:
    """Chains of inverted residual blocks with depthwise k x k convolutions, k in 3, 5, 7, expansion in 1, 2, 4, 6.

    Source: Lin et al., arXiv:2102.01063. Departures from the authors' code: the twelve types are drawn evenly (their
    list repeats some by accident), widths are bounded, multiples of ``width_step`` (theirs of 8; what a block expands
    to still is), and the last convolution's width is free unless ``last_width`` fixes it (theirs is 2048, which is most
    of a small network). ``resolutions`` as for `zeroshot_nas.spaces.chain.ChainSpace`.

    Example:
        >>> len(mobilenet(input_size=(3, 224, 224), num_classes=1000).body_types)
        12
    """
    types = tuple(f"SuperResIDWE{expansion}K{k}" for k in (3, 5, 7) for expansion in (1, 2, 4, 6))
    widths = max_width, last_width, width_step
    return ChainSpace("mobilenet", types, input_size, num_classes, squeeze_excite, *widths, resolutions)
