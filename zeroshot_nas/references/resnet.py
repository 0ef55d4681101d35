"""ResNets for small images: three stages of residual blocks, 16, 32 and 64 wide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.references.base import Scaled, register_reference, whole_width
from zeroshot_nas.references.stages import WIDTHS, stage_strides, stem_stride_of


def _resnet(depth: int) -> Callable[..., Sequence[BlockSpec]]:
    """The family of networks of a depth."""

    def resnet(
        scaled: Scaled,
        input_size: Shape,
        /,
        *,
        strides: str = "122",
        block: Literal["basic", "bottleneck"] = "basic",
        kernel: Literal[3, 5, 7] = 3,
        last: bool = False,
        stem_stride: Literal[1, 2] | None = None,
    ) -> Sequence[BlockSpec]:
        """ResNet for small images (He et al., arXiv:1512.03385); ``resnet8`` is that of MLPerf Tiny.

        The first shortcut of each stage is a 1x1 convolution and batch norm, as in all of our residual blocks, also
        where the first stage's could be the identity.

        Args:
            scaled: Published widths to those of this network.
            input_size: Shape of one image.
            strides: Of the three stages.
            block: ``"bottleneck"`` has half the width inside, and two units in the place of a basic block's one.
            kernel: Side of the spatial convolutions in the stages.
            last: Whether a 1x1 convolution, twice as wide, stands behind the stages.
            stem_stride: Of the first convolution; None is 2 for images of 64 pixels and more, else 1.
        """
        name = f"SuperResK{kernel}K{kernel}" if block == "basic" else f"SuperResK1K{kernel}K1"
        blocks = [
            BLOCKS["SuperConvK3BNRELU"](out_channels=scaled(WIDTHS[0]), stride=stem_stride_of(stem_stride, input_size))
        ]
        for width, stride in zip(map(scaled, WIDTHS), stage_strides(strides), strict=True):
            inner = width if block == "basic" else whole_width(width / 2)
            blocks.append(
                BLOCKS[name](out_channels=width, stride=stride, bottleneck_channels=inner, sub_layers=(depth - 2) // 6)
            )
        if last:
            blocks.append(BLOCKS["SuperConvK1BNRELU"](out_channels=2 * blocks[-1].out_channels))
        return blocks

    return resnet


register_reference("resnet8", source="MLPerf Tiny, arXiv:2106.07597")(_resnet(8))
register_reference("resnet14", source="arXiv:1512.03385, two blocks a stage")(_resnet(14))
register_reference("resnet20", source="arXiv:1512.03385")(_resnet(20))
register_reference("resnet32", source="arXiv:1512.03385", tried=False)(_resnet(32))
register_reference("resnet56", source="arXiv:1512.03385", tried=False)(_resnet(56))


@register_reference("resnet18", source="arXiv:1512.03385, its usual form for small images", tried=False)
def resnet18(scaled: Scaled, input_size: Shape, /, *, stem_stride: Literal[1, 2] | None = None) -> Sequence[BlockSpec]:
    """ResNet-18: four stages of two basic blocks, 64 to 512 wide, behind a 3x3 convolution without pooling.

    Args:
        scaled: Published widths to those of this network.
        input_size: Shape of one image.
        stem_stride: Of the first convolution; None is 2 for images of 64 pixels and more, else 1.
    """
    blocks = [BLOCKS["SuperConvK3BNRELU"](out_channels=scaled(64), stride=stem_stride_of(stem_stride, input_size))]
    for width, stride in zip(map(scaled, (64, 128, 256, 512)), (1, 2, 2, 2), strict=True):
        blocks.append(
            BLOCKS["SuperResK3K3"](out_channels=width, stride=stride, bottleneck_channels=width, sub_layers=2)
        )
    return blocks
