"""Plain convolutions: Zen-NAS's ``SuperConvK{1,3,5,7}BNRELU``."""

from __future__ import annotations

from dataclasses import dataclass

from zeroshot_nas.architecture import BlockSpec, register_block
from zeroshot_nas.blocks.base import conv_bn
from zeroshot_nas.ops import Activation, Op, Resolution


@register_block(
    "SuperConvK{kernel_size}BNRELU",
    plainnet_fields=("out_channels", "stride", "sub_layers"),
    kernel_size=(1, 3, 5, 7),
)
@dataclass(frozen=True)
class SuperConv(BlockSpec):
    """``sub_layers`` times convolution, batch norm, ReLU; the first carries the stride.

    Example:
        >>> len(SuperConv(out_channels=8, sub_layers=2).lower(3, (32, 32)))
        6
    """

    kernel_size: int = 3

    def lower(self, in_channels: int, resolution: Resolution) -> tuple[Op, ...]:
        ops: tuple[Op, ...] = ()
        for index in range(self.sub_layers):
            channels, stride = (in_channels, self.stride) if index == 0 else (self.out_channels, 1)
            ops += (*conv_bn(channels, self.out_channels, self.kernel_size, stride), Activation())
        return ops
