"""Residual blocks of full convolutions: Zen-NAS's ``SuperResK{k}K{k}`` and ``SuperResK1K{k}K1``."""

from __future__ import annotations

from dataclasses import dataclass

from zeroshot_nas.architecture.blockspec import register_block
from zeroshot_nas.blocks.base import RESIDUAL_FIELDS, ResidualBlock, Unit


@register_block("SuperResK{kernel_size}K{kernel_size}", plainnet_fields=RESIDUAL_FIELDS, kernel_size=(3, 5, 7))
@dataclass(frozen=True)
class SuperResKXKX(ResidualBlock):
    """Two k x k convolutions a sub-layer, the first to ``bottleneck_channels``; the stride is in the first."""

    kernel_size: int = 3

    def units(self) -> tuple[Unit, ...]:
        k = self.kernel_size
        return (Unit((self.bottleneck_channels, self.out_channels), (k, k), spatial=0),)


@register_block("SuperResK1K{kernel_size}K1", plainnet_fields=RESIDUAL_FIELDS, kernel_size=(3, 5, 7))
@dataclass(frozen=True)
class SuperResK1KXK1(ResidualBlock):
    """Two bottlenecks a sub-layer: 1x1 down, k x k (with the stride), 1x1 up."""

    kernel_size: int = 3

    def units(self) -> tuple[Unit, ...]:
        inner = self.bottleneck_channels
        return (Unit((inner, inner, self.out_channels), (1, self.kernel_size, 1), spatial=1),) * 2
