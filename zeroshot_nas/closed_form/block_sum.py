"""Scores that are sums over blocks: what a strategy needs to know to plan ahead, and to prove an upper bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec, block_steps
from zeroshot_nas.architecture.ops import Resolution


class PlacedBlock(NamedTuple):
    """A block where it stands.

    Attributes:
        block: The block.
        in_channels: Channels that enter it.
        resolution: Height and width that enter it.
        stage: Blocks of stride above 1 up to this one, itself included; the network's first block does not count.
        stages: The network's stages: the same of its last block, and 1.
        is_first: Whether it reads the image.
    """

    block: BlockSpec
    in_channels: int
    resolution: Resolution
    stage: int
    stages: int
    is_first: bool


class End(NamedTuple):
    """What stands behind the blocks.

    Attributes:
        channels: Of the last feature map.
        resolution: Of the last feature map.
        num_classes: Outputs of the classifier.
        counted: Sum of the blocks' counts; 0 of a score without.
    """

    channels: int
    resolution: Resolution
    num_classes: int
    counted: int


def no_end(_: End) -> float:
    """A score to which nothing is added behind the blocks."""
    return 0.0


@dataclass(frozen=True)
class BlockSum:
    r"""A score that is a sum over blocks, and a function of what stands behind them.

    .. math:: \text{score} = \sum_l \text{term}(b_l) + \text{end}\left(C, H, W, \sum_l \text{count}(b_l)\right)

    A term may depend on a block and on where it stands, but on no other block. All that ``exact`` proves rests on that,
    so `total` is to be the score's closed form, to rounding, for every network.

    Attributes:
        term: ``(placed, **options) -> float``.
        end: ``(end, **options) -> float``.
        count: ``(placed) -> int``: what the end depends on beside channels and resolution, as depth; None where it is
            nothing.
        options: The score's options, for ``term`` and ``end``.

    Example:
        >>> widths = BlockSum(lambda placed: float(placed.block.out_channels * placed.block.sub_layers))
        >>> widths.total(Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperConvK3BNRELU(16,8,2,3)"))
        40.0
    """

    term: Callable[..., float]
    end: Callable[..., float] = no_end
    count: Callable[[PlacedBlock], int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def of_block(self, placed: PlacedBlock) -> float:
        """The term of a block."""
        return self.term(placed, **self.options)

    def count_of(self, placed: PlacedBlock) -> int:
        """The count of a block."""
        return 0 if self.count is None else self.count(placed)

    def of_end(self, end: End) -> float:
        """What is added behind the blocks."""
        return self.end(end, **self.options)

    def total(self, architecture: Architecture) -> float:
        """The score."""
        placed = list(placed_blocks(architecture))
        channels, height, width = architecture.feature_shape
        end = End(channels, (height, width), architecture.num_classes, sum(map(self.count_of, placed)))
        return sum(map(self.of_block, placed)) + self.of_end(end)


def placed_blocks(architecture: Architecture) -> Iterator[PlacedBlock]:
    """The blocks of a network where they stand."""
    stages = 1 + sum(block.stride > 1 for block in architecture.blocks[1:])
    stage = 0
    channels, *sides = architecture.input_size
    resolution: Resolution = (sides[0], sides[1])
    for index, block in enumerate(architecture.blocks):
        stage += index > 0 and block.stride > 1
        yield PlacedBlock(block, channels, resolution, stage, stages, index == 0)
        resolution = block_steps(block, channels, resolution).resolution
        channels = block.out_channels
