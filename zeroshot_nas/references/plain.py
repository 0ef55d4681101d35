"""Chains of plain convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.references.base import Scaled, register_reference

LAYERS = ((3, 96, 1), (3, 96, 1), (3, 96, 2), (3, 192, 1), (3, 192, 1), (3, 192, 2), (3, 192, 1), (1, 192, 1))
"""Kernel, width and stride of each convolution."""


@register_reference("all_cnn", source="arXiv:1412.6806, All-CNN-C with batch norm", tried=False)
def all_cnn(scaled: Scaled, _input_size: Shape, /) -> Sequence[BlockSpec]:
    """All-CNN-C (Springenberg et al.): eight convolutions without a shortcut, two of them strided in place of pooling.

    Here each is followed by batch norm, and the classifier is a linear layer behind the pooling, which is the same as
    the published 1x1 convolution before it.
    """
    return [BLOCKS[f"SuperConvK{kernel}BNRELU"](out_channels=scaled(width), stride=s) for kernel, width, s in LAYERS]
