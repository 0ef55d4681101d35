"""A network like ShuffleNetV2, of blocks that we have."""

from __future__ import annotations

from collections.abc import Sequence

from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.references.base import Scaled, register_reference
from zeroshot_nas.spaces.chain import stride_steps

STAGES = ((116, 4), (232, 8), (464, 4))
"""Width and units of each stage of ShuffleNetV2 1x."""


@register_reference("shufflenet_v2_like", source="stages of arXiv:1807.11164", tried=False)
def shufflenet_v2_like(scaled: Scaled, input_size: Shape, /) -> Sequence[BlockSpec]:
    """The stages, widths and 1x1-depthwise-1x1 units of ShuffleNetV2 1x (Ma et al.).

    No operation of ours splits or permutes channels: where a published unit passes half of its channels by, ours adds
    its input to its output, with a quarter of the width inside, so that it costs little more. The map is halved as
    often as leaves 4 to 7 positions; at 224 pixels a strided convolution stands for the pooling.

    Args:
        scaled: Published widths to those of this network.
        input_size: Shape of one image.
    """
    steps = stride_steps(input_size)
    stems = max(1, steps - len(STAGES))
    stem = BLOCKS["SuperConvK3BNRELU"](out_channels=scaled(24), stride=1 + (steps > len(STAGES)))
    blocks = [stem] * stems
    for place, (width, units) in enumerate(STAGES):
        channels = scaled(width)
        blocks.append(
            BLOCKS["SuperResIDWE1K3"](
                out_channels=channels,
                stride=1 + (steps >= len(STAGES) - place),
                bottleneck_channels=scaled(width / 4),
                sub_layers=units // 2,
            )
        )
    return [*blocks, BLOCKS["SuperConvK1BNRELU"](out_channels=scaled(1024))]
