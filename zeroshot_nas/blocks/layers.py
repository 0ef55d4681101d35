"""Plain layers in a row, as the fixed parts of benchmark networks have them: ``conv3-bn-relu``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zeroshot_nas.architecture.blockspec import BlockSpec, register_block
from zeroshot_nas.architecture.ops import BatchNorm, Conv, Op
from zeroshot_nas.blocks.base import RELU
from zeroshot_nas.errors import ArchitectureError

_MAX_TEXT = 100
_LAYER = re.compile(r"conv[1357]|bn|relu")


@register_block("Layers", plainnet_fields=None)
@dataclass(frozen=True)
class Layers(BlockSpec):
    """Bias-free convolutions, batch norms and ReLUs in the order that a text gives.

    The first convolution takes the stride and the change of channels. Without one, channels and stride stay.

    Attributes:
        layers: ``conv1``, ``conv3``, ``conv5``, ``conv7``, ``bn`` and ``relu``, joined by ``-``.

    Example:
        >>> [type(op).__name__ for op in Layers(out_channels=8, layers="conv3-bn").lower(in_channels=3)]
        ['Conv', 'BatchNorm']
    """

    depth_field = None

    layers: str = "conv3-bn-relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layers) > _MAX_TEXT:
            raise ArchitectureError(f"Layers.layers must be a text of at most {_MAX_TEXT} characters")
        names = self.layers.split("-")
        for name in names:
            if not _LAYER.fullmatch(name):
                raise ArchitectureError(
                    f"Layers.layers must name conv1, conv3, conv5, conv7, bn or relu, joined by '-', "
                    f"got {name[:30]!r} in {self.layers!r}"
                )
        if self.stride > 1 and not any(name.startswith("conv") for name in names):
            raise ArchitectureError(f"a stride of {self.stride} needs a convolution, got {self.layers!r}")

    def first(self, in_channels: int) -> tuple[Op, ...]:
        ops: list[Op] = []
        channels, stride = in_channels, self.stride
        for name in self.layers.split("-"):
            if name == "relu":
                ops.append(RELU)
            elif name == "bn":
                ops.append(BatchNorm(channels))
            else:
                ops.append(Conv(channels, self.out_channels, int(name.removeprefix("conv")), stride))
                channels, stride = self.out_channels, 1
        if channels != self.out_channels:
            raise ArchitectureError(
                f"layers {self.layers!r} without a convolution keep {channels} channels, not {self.out_channels}"
            )
        return tuple(ops)
