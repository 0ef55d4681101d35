"""Plain convolutions: Zen-NAS's ``SuperConvK{1,3,5,7}BNRELU``."""

from __future__ import annotations

from dataclasses import dataclass

from zeroshot_nas.architecture.blockspec import BlockSpec, register_block
from zeroshot_nas.architecture.ops import Op
from zeroshot_nas.blocks.base import RELU, conv_bn


@register_block(
    "SuperConvK{kernel_size}BNRELU",
    plainnet_fields=("out_channels", "stride", "sub_layers"),
    kernel_size=(1, 3, 5, 7),
)
@dataclass(frozen=True)
class SuperConv(BlockSpec):
    """``sub_layers`` times convolution, batch norm, ReLU; the first carries the stride.

    Example:
        >>> SuperConv(out_channels=8, sub_layers=3).lower(in_channels=3)[-1].times
        2
    """

    kernel_size: int = 3

    def first(self, in_channels: int) -> tuple[Op, ...]:
        return *conv_bn(in_channels, self.out_channels, self.kernel_size, self.stride), RELU
