"""MobileNetV2's block, and a shortcut in its place: what NAS-Bench-Macro chooses from."""

from __future__ import annotations

from dataclasses import dataclass

from zeroshot_nas.architecture.blockspec import BlockSpec, register_block
from zeroshot_nas.architecture.ops import Op, Residual
from zeroshot_nas.blocks.base import RELU, conv_bn


@register_block("MobileNetV2E{expansion}K{kernel_size}", plainnet_fields=None, expansion=(1, 3, 6), kernel_size=(3, 5))
@dataclass(frozen=True)
class MobileNetV2(BlockSpec):
    """1x1 to ``expansion`` times the input's channels, depthwise k x k with the stride, 1x1 down (arXiv:1801.04381).

    Batch norm follows each convolution, ReLU all but the last. Without expansion there is no first convolution. The
    link is there where stride and channels stay.

    Example:
        >>> block = MobileNetV2(out_channels=8, expansion=6, kernel_size=5)
        >>> block.type_name, type(block.lower(8)[0]).__name__, len(block.lower(4))
        ('MobileNetV2E6K5', 'Residual', 8)
    """

    expansion: int = 3
    kernel_size: int = 3

    def first(self, in_channels: int) -> tuple[Op, ...]:
        inner = in_channels * self.expansion
        widened = (*conv_bn(in_channels, inner, 1), RELU) if self.expansion > 1 else ()
        body = (
            *widened,
            *(*conv_bn(inner, inner, self.kernel_size, self.stride, groups=inner), RELU),
            *conv_bn(inner, self.out_channels, 1),
        )
        return (Residual(body),) if self.stride == 1 and in_channels == self.out_channels else body


@register_block("Shortcut", plainnet_fields=None)
@dataclass(frozen=True)
class Shortcut(BlockSpec):
    """The identity, or a 1x1 convolution and batch norm where stride or channels change.

    Example:
        >>> Shortcut(out_channels=8).lower(in_channels=8)
        ()
    """

    depth_field = None

    def first(self, in_channels: int) -> tuple[Op, ...]:
        if self.stride == 1 and in_channels == self.out_channels:
            return ()
        return conv_bn(in_channels, self.out_channels, 1, self.stride)
