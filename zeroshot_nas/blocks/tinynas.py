"""TinyNAS's residual blocks, of which DeepMAD's and MAE-DET's networks consist."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from zeroshot_nas.architecture.blockspec import BlockSpec, register_block
from zeroshot_nas.architecture.ops import Activation, Gate, GlobalPool, Op, Pool, Residual
from zeroshot_nas.blocks.base import RELU, conv_bn

SILU = Gate((Activation("sigmoid"),))
"""x times its sigmoid."""


@dataclass(frozen=True)
class TinyNASBlock(BlockSpec):
    """One residual unit a sub-layer, an activation behind the sum (alibaba/lightweight-neural-architecture-search).

    The first carries the stride, in its spatial convolution; its link is pooled (means) where there is one, and goes
    through a 1x1 convolution and batch norm where the channels change.

    Attributes:
        bottleneck_channels: Width inside the units.
        kernel_size: Of the spatial convolution, or of both.
        even_sides: Whether the block meets even sides, so that the link is pooled in windows of the stride as in the
            authors' code; else in 3x3 windows, which fit odd sides too.
    """

    bottleneck_channels: int = 8
    kernel_size: int = 3
    even_sides: bool = False

    @abstractmethod
    def body(self, in_channels: int, stride: int) -> tuple[Op, ...]:
        """The unit without its link."""

    def unit(self, in_channels: int, stride: int, projects: bool) -> tuple[Op, ...]:
        pool = (Pool("average", stride if self.even_sides else 3, stride),) if stride > 1 else ()
        projection = conv_bn(in_channels, self.out_channels, 1) if projects else ()
        return Residual(self.body(in_channels, stride), (*pool, *projection)), RELU

    def first(self, in_channels: int) -> tuple[Op, ...]:
        return self.unit(in_channels, self.stride, projects=in_channels != self.out_channels)

    def following(self) -> tuple[Op, ...]:
        return self.unit(self.out_channels, 1, projects=False)


@register_block("TinyNASK1K{kernel_size}K1", plainnet_fields=None, kernel_size=(1, 3, 5, 7))
@dataclass(frozen=True)
class TinyNASK1KXK1(TinyNASBlock):
    """``SuperResK1KXK1`` of TinyNAS: 1x1 down, k x k, 1x1 up; the first link always has its convolution.

    Example:
        >>> block = TinyNASK1KXK1(out_channels=8, stride=2, bottleneck_channels=4)
        >>> block.type_name, block.lower(8)[0].output_shape((8, 5, 5))
        ('TinyNASK1K3K1', (8, 3, 3))
    """

    def body(self, in_channels: int, stride: int) -> tuple[Op, ...]:
        inner = self.bottleneck_channels
        spatial = conv_bn(inner, inner, self.kernel_size, stride)
        return *conv_bn(in_channels, inner, 1), RELU, *spatial, RELU, *conv_bn(inner, self.out_channels, 1)

    def first(self, in_channels: int) -> tuple[Op, ...]:
        return self.unit(in_channels, self.stride, projects=True)


@register_block("TinyNASK{kernel_size}K{kernel_size}", plainnet_fields=None, kernel_size=(3, 5, 7))
@dataclass(frozen=True)
class TinyNASKXKX(TinyNASBlock):
    """``SuperResKXKX`` of TinyNAS: two k x k convolutions; the stride is in the second."""

    def body(self, in_channels: int, stride: int) -> tuple[Op, ...]:
        inner, k = self.bottleneck_channels, self.kernel_size
        return *conv_bn(in_channels, inner, k), RELU, *conv_bn(inner, self.out_channels, k, stride)


@register_block("TinyNASK1K{kernel_size}", plainnet_fields=None, kernel_size=(1, 3, 5, 7))
@dataclass(frozen=True)
class TinyNASK1KX(TinyNASBlock):
    """``SuperResK1KX`` of TinyNAS: 1x1 down, k x k up with the stride."""

    def body(self, in_channels: int, stride: int) -> tuple[Op, ...]:
        inner = self.bottleneck_channels
        return *conv_bn(in_channels, inner, 1), RELU, *conv_bn(inner, self.out_channels, self.kernel_size, stride)


@register_block("TinyNASK1DW{kernel_size}K1", plainnet_fields=None, kernel_size=(1, 3, 5, 7))
@dataclass(frozen=True)
class TinyNASK1DWK1(TinyNASBlock):
    """``SuperResK1DWK1`` and ``SuperResK1DWSEK1`` of TinyNAS: 1x1 up, depthwise k x k, 1x1 down.

    Where the channels change there is no link.

    Attributes:
        squeeze_excite: Whether a gate stands before the last convolution; the activations are SiLU then.
    """

    squeeze_excite: bool = False

    def body(self, in_channels: int, stride: int) -> tuple[Op, ...]:
        inner = self.bottleneck_channels
        activation: Op = SILU if self.squeeze_excite else RELU
        gate = (_gate(inner),) if self.squeeze_excite else ()
        spatial = conv_bn(inner, inner, self.kernel_size, stride, groups=inner)
        last = conv_bn(inner, self.out_channels, 1)
        return *conv_bn(in_channels, inner, 1), activation, *spatial, activation, *gate, *last

    def unit(self, in_channels: int, stride: int, projects: bool) -> tuple[Op, ...]:
        activation: Op = SILU if self.squeeze_excite else RELU
        if projects:
            return *self.body(in_channels, stride), activation
        residual, _ = super().unit(in_channels, stride, projects)
        return residual, activation


def _gate(channels: int) -> Gate:
    """TinyNAS's squeeze-and-excitation, to a quarter of the channels in whole eights."""
    squeezed = max(1, round(channels * 0.25) // 8) * 8
    excite = conv_bn(squeezed, channels, 1)
    return Gate((GlobalPool(), *conv_bn(channels, squeezed, 1), SILU, *excite, Activation("sigmoid")))
