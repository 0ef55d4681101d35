"""Where a network's feature maps of several resolutions are, told from its operations. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Graph

_SIDE = 64
"""Pixels of the side of a map behind a graph, in which all strides are whole."""


@dataclass(frozen=True)
class FeatureLevel:
    """The last feature map of one resolution.

    Attributes:
        block: Index of the block that gives it.
        channels: Its channels.
        reduction: By what factor its height and width are smaller than the image's.
        node: The node that gives it, where a block is a graph of cells at several resolutions; None for the block's
            own output.
    """

    block: int
    channels: int
    reduction: int
    node: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As timm's ``feature_info`` has it."""
        name = f"blocks.{self.block}" if self.node is None else f"blocks.{self.block}.0"
        values = {"num_chs": self.channels, "reduction": self.reduction, "module": name}
        return values if self.node is None else {**values, "node": self.node}


def feature_levels(architecture: Architecture) -> tuple[FeatureLevel, ...]:
    """The last map of every resolution that a network passes through, the finest first.

    A map is what the next block reads: of a residual unit behind the sum, of a cell the cell's output. A network that
    is one graph of cells (DARTS) is entered, and the output of its last cell of each resolution taken.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,8,2,1)SuperResK3K3(8,8,1,8,1)SuperResK3K3(8,16,2,8,1)")
        >>> [(level.block, level.channels, level.reduction) for level in feature_levels(net)]
        [(1, 8, 2), (2, 16, 4)]
    """
    levels: dict[int, FeatureLevel] = {}
    reduction = 1
    for place, (block, channels, _) in enumerate(architecture.inputs()):
        ops = block.lower(channels)
        if ops and isinstance(ops[0], Graph) and block.stride > 1:
            for node, width, inner in _cell_outputs(ops[0], channels, block.stride):
                levels[reduction * inner] = FeatureLevel(place, width, reduction * inner, node)
        reduction *= block.stride
        levels[reduction] = FeatureLevel(place, block.out_channels, reduction)
    return tuple(levels.values())


def _cell_outputs(graph: Graph, channels: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Number, channels and reduction of the cells' outputs of a graph before its last reduction."""
    side = _SIDE * stride
    for index, node in enumerate(graph.nodes, start=1):
        if node.join == "concatenation":
            width, height, _ = Graph(graph.nodes[:index]).output_shape((channels, side, side))
            if side // height < stride:
                yield index, width, side // height
