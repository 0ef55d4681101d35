"""Pieces that several block families share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from zeroshot_nas.architecture.blockspec import BlockSpec
from zeroshot_nas.architecture.ops import Activation, BatchNorm, Conv, Gate, GlobalPool, Op, Residual

RELU = Activation()
"""The one activation of Zen-NAS's blocks."""

RESIDUAL_FIELDS = ("out_channels", "stride", "bottleneck_channels", "sub_layers")
"""Arguments of Zen-NAS's residual blocks in the PlainNet grammar, after the input channels."""


def round_width(width: float, step: int = 8) -> int:
    """The nearest multiple of ``step``, at least one step; halves go up.

    Example:
        >>> [round_width(width) for width in (1, 11.9, 12, 100)], round_width(11.9, step=2)
        ([8, 8, 16, 104], 12)
    """
    return max(step, int(width + step / 2) // step * step)


@lru_cache(maxsize=16_384)
def conv_bn(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> tuple[Op, ...]:
    """A bias-free convolution and its batch norm."""
    return Conv(in_channels, out_channels, kernel_size, stride, groups), BatchNorm(out_channels)


@lru_cache(maxsize=4_096)
def squeeze_and_excitation(channels: int) -> Gate:
    """Zen-NAS's gate: pool, 1x1 to a quarter of the channels, batch norm, ReLU, 1x1, batch norm, sigmoid; no biases."""
    squeezed = max(1, round(channels / 4))
    return Gate(
        (
            GlobalPool(),
            *conv_bn(channels, squeezed, 1),
            Activation(),
            *conv_bn(squeezed, channels, 1),
            Activation("sigmoid"),
        )
    )


class Unit(NamedTuple):
    """One residual unit: convolutions with ReLU between them and a ReLU after the sum.

    Attributes:
        widths: Output channels of each convolution; the last is the unit's.
        kernels: Kernel size of each convolution.
        spatial: Index of the convolution that carries the stride, and the groups where ``depthwise``.
        depthwise: Whether that convolution is depthwise.
    """

    widths: tuple[int, ...]
    kernels: tuple[int, ...]
    spatial: int
    depthwise: bool = False

    def lower(self, in_channels: int, stride: int, squeeze_excite: bool, project: bool) -> tuple[Op, ...]:
        """Operations of the unit; the same objects for the same values.

        The shortcut is a projection (1x1 convolution and batch norm, without the authors' redundant bias) where
        ``project`` is set or channels or stride change, else the identity. The gate stands before the last convolution.
        """
        return _unit_ops(self, in_channels, stride, squeeze_excite, project)


@lru_cache(maxsize=16_384)
def _unit_ops(unit: Unit, in_channels: int, stride: int, squeeze_excite: bool, project: bool) -> tuple[Op, ...]:
    body: list[Op] = []
    channels = in_channels
    for index, (width, kernel_size) in enumerate(zip(unit.widths, unit.kernels, strict=True)):
        here = index == unit.spatial
        groups = channels if here and unit.depthwise else 1
        if index > 0:
            body.append(RELU)
        if squeeze_excite and index == len(unit.widths) - 1:
            body.append(squeeze_and_excitation(channels))
        body += conv_bn(channels, width, kernel_size, stride if here else 1, groups)
        channels = width
    needs_projection = project or stride != 1 or in_channels != channels
    shortcut = conv_bn(in_channels, channels, 1, stride) if needs_projection else ()
    return Residual(tuple(body), shortcut), RELU


@dataclass(frozen=True)
class ResidualBlock(BlockSpec):
    """A chain of residual units; the first carries the stride and a projection shortcut.

    Attributes:
        bottleneck_channels: Width inside the units.
        squeeze_excite: Whether each unit has a squeeze-and-excitation gate before its last convolution.
    """

    bottleneck_channels: int = 8
    squeeze_excite: bool = False

    @abstractmethod
    def units(self) -> tuple[Unit, ...]:
        """The units that one sub-layer consists of."""

    def first(self, in_channels: int) -> tuple[Op, ...]:
        return self._sub_layer(in_channels, self.stride, project=True)

    def following(self) -> tuple[Op, ...]:
        return self._sub_layer(self.out_channels, 1, project=False)

    def _sub_layer(self, in_channels: int, stride: int, project: bool) -> tuple[Op, ...]:
        ops: tuple[Op, ...] = ()
        for index, unit in enumerate(self.units()):
            first = index == 0
            ops += unit.lower(in_channels, stride if first else 1, self.squeeze_excite, project and first)
            in_channels = unit.widths[-1]
        return ops
