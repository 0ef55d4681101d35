"""Inverted residual blocks with depthwise convolutions: Zen-NAS's ``SuperResIDWE{1,2,4,6}K{3,5,7}``."""

from __future__ import annotations

from dataclasses import dataclass

from zeroshot_nas.architecture.blockspec import register_block
from zeroshot_nas.blocks.base import RESIDUAL_FIELDS, ResidualBlock, Unit, round_width


@register_block(
    "SuperResIDWE{expansion}K{kernel_size}",
    plainnet_fields=RESIDUAL_FIELDS,
    expansion=(1, 2, 4, 6),
    kernel_size=(3, 5, 7),
)
@dataclass(frozen=True)
class SuperResIDW(ResidualBlock):
    """Two inverted residuals a sub-layer: 1x1 to the expanded width, depthwise k x k (with the stride), 1x1 down.

    The first ends at ``bottleneck_channels``, the second at ``out_channels``; each expands its own output width by
    ``expansion``, rounded to a multiple of 8.
    """

    expansion: int = 1
    kernel_size: int = 3

    def units(self) -> tuple[Unit, ...]:
        return self._unit(self.bottleneck_channels), self._unit(self.out_channels)

    def _unit(self, width: int) -> Unit:
        expanded = round_width(width * self.expansion)
        return Unit((expanded, expanded, width), (1, self.kernel_size, 1), spatial=1, depthwise=True)
