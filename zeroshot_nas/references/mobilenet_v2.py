"""MobileNetV2, and its blocks in the three stages of a ResNet for small images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.references.base import Scaled, register_reference
from zeroshot_nas.references.stages import WIDTHS, stage_strides, stem_stride_of
from zeroshot_nas.spaces.chain import stride_steps

STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
"""Expansion, width and blocks of each stage."""

HALVINGS = (0, 2, 3, 4, 6)
"""What halves at 224 pixels: the stem, which is 0, and stages."""


@register_reference("mobilenet_v2", source="arXiv:1801.04381")
def mobilenet_v2(scaled: Scaled, input_size: Shape, /, *, depth: float = 1.0) -> Sequence[BlockSpec]:
    """MobileNetV2 (Sandler et al.); on images smaller than 128 pixels only the last of its five strides are there.

    So many that 4 to 7 positions are left on the shorter side, as at 224: three at 32 pixels, the usual form there.

    Args:
        scaled: Published widths to those of this network.
        input_size: Shape of one image.
        depth: Multiplies the blocks of each stage.
    """
    if not 0 < depth <= 10:
        raise ArchitectureError(f"depth of 'mobilenet_v2' must be above 0 and at most 10, got {depth!r}")
    steps = min(stride_steps(input_size), len(HALVINGS))
    halved = HALVINGS[len(HALVINGS) - steps :]
    blocks = [BLOCKS["SuperConvK3BNRELU"](out_channels=scaled(32), stride=1 + (0 in halved))]
    for stage, (expansion, width, repeats) in enumerate(STAGES, start=1):
        blocks.append(
            BLOCKS[f"MobileNetV2E{expansion}K3"](
                out_channels=scaled(width), stride=1 + (stage in halved), sub_layers=max(1, round(repeats * depth))
            )
        )
    return [*blocks, BLOCKS["SuperConvK1BNRELU"](out_channels=scaled(1280))]


@register_reference("mobilenet_3stage", source="blocks of arXiv:1801.04381, stages of arXiv:1512.03385")
def mobilenet_3stage(
    scaled: Scaled,
    input_size: Shape,
    /,
    *,
    strides: str = "122",
    expansion: Literal[1, 2, 4, 6] = 4,
    repeats: str = "111",
    kernel: Literal[3, 5, 7] = 3,
    stem_stride: Literal[1, 2] | None = None,
) -> Sequence[BlockSpec]:
    """Inverted residuals in three stages of widths 16-32-64, and a last 1x1 convolution four times as wide.

    Args:
        scaled: Published widths to those of this network.
        input_size: Shape of one image.
        strides: Of the three stages.
        expansion: Width inside over the width of the stage.
        repeats: Pairs of inverted residuals in each stage, three digits.
        kernel: Side of the depthwise convolutions.
        stem_stride: Of the first convolution; None is 2 for images of 64 pixels and more, else 1.
    """
    if not re.fullmatch("[1-9]{3}", repeats):
        raise ArchitectureError(f"repeats must be three digits 1 to 9, one a stage, such as 122; got {repeats!r}")
    blocks = [
        BLOCKS["SuperConvK3BNRELU"](out_channels=scaled(WIDTHS[0]), stride=stem_stride_of(stem_stride, input_size))
    ]
    for width, stride, times in zip(map(scaled, WIDTHS), stage_strides(strides), map(int, repeats), strict=True):
        blocks.append(
            BLOCKS[f"SuperResIDWE{expansion}K{kernel}"](
                out_channels=width, stride=stride, bottleneck_channels=width, sub_layers=times
            )
        )
    return [*blocks, BLOCKS["SuperConvK1BNRELU"](out_channels=4 * blocks[-1].out_channels)]
