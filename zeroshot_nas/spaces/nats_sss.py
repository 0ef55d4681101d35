"""NATS-Bench's size space: one cell, and five widths from 8 to 64."""

from __future__ import annotations

from dataclasses import dataclass

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.blocks.cells import BEST_CIFAR100, NASBench201Cell, NASBench201Reduction, halving_windows
from zeroshot_nas.blocks.layers import Layers
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.spaces.base import register_space
from zeroshot_nas.spaces.genotypes import Digits, DigitSpace, read_index
from zeroshot_nas.spaces.notations import Notation, register_notation

WIDTHS = tuple(range(8, 65, 8))
"""What each width can be; a genotype holds places in this list."""

_LAYERS = ("stem and stage 1", "reduction 1", "stage 2", "reduction 2", "stage 3")


@register_space("nats_sss")
@dataclass(frozen=True)
class NATSSize(DigitSpace):
    """The skeleton of NAS-Bench-201 with one cell a stage and free widths (Dong et al., TPAMI 2021, arXiv:2009.00437).

    The widths are, in the string's order, those of the first convolution and the first stage's cell, the first
    reduction, the second stage's cell, the second reduction, and the third stage's cell. Where a cell changes the
    width, its skip connection is a 1x1 convolution and batch norm. The cell is
    `zeroshot_nas.blocks.cells.BEST_CIFAR100`.

    There are 8^5 = 32,768 strings, and no two name the same network. The notations are ``widths`` and ``index``.

    Departures from the authors' code: a reduction at an odd side pools 3x3 windows instead of 2x2, which would not fit.

    Args:
        input_size: Shape ``(C, H, W)`` of one image.
        num_classes: Outputs of the classifier.
        num_cells: Cells a stage.

    Example:
        >>> space = NATSSize()
        >>> space.size(), space.to_string(space.from_string("8:16:24:32:40"), "index")
        (32768, '668')
    """

    input_size: Shape = (3, 32, 32)
    num_classes: int = 10
    num_cells: int = 1

    choices = (len(WIDTHS),) * 5
    own_notation = "widths"

    def network(self, genotype: Digits) -> Architecture:
        stem, reduction1, stage2, reduction2, stage3 = (WIDTHS[place] for place in genotype)
        windows = halving_windows((self.input_size[1], self.input_size[2]), 2)
        return Architecture(
            (
                Layers(stem, layers="conv3-bn"),
                self._stage(stem),
                NASBench201Reduction(reduction1, stride=2, pool=windows[0]),
                self._stage(stage2),
                NASBench201Reduction(reduction2, stride=2, pool=windows[1]),
                self._stage(stage3),
                Layers(stage3, layers="bn-relu"),
            ),
            self.input_size,
            self.num_classes,
        )

    def _stage(self, width: int) -> NASBench201Cell:
        return NASBench201Cell(width, sub_layers=self.num_cells, cell=BEST_CIFAR100)

    def genotype_of(self, architecture: Architecture) -> Digits | None:
        blocks = architecture.blocks
        widths = [block.out_channels for block in (blocks[0], *blocks[2:6])]
        if len(widths) != len(_LAYERS) or not set(widths) <= set(WIDTHS):
            return None
        return tuple(map(WIDTHS.index, widths))

    def initial(self) -> Architecture:
        """The widths of NAS-Bench-201's skeleton: 16 in the first stage, 32 and 64 in the others."""
        return self.network(tuple(map(WIDTHS.index, (16, 32, 32, 64, 64))))

    def smallest(self, cost: str) -> Architecture:
        """The least widths: what all networks have is cheapest there, and no skip connection needs a convolution."""
        return self.network((0,) * len(_LAYERS))


@register_notation("nats_sss", "widths")
class Widths(Notation[Digits]):
    """The widths themselves, as in ``8:16:24:32:40``."""

    def parse(self, text: str, space: NATSSize, /) -> Digits:
        tokens = text.split(":")
        if len(tokens) != len(_LAYERS):
            raise ArchitectureError(f"expected five widths as in 8:16:24:32:40, got {len(tokens)} in {text[:60]!r}")
        known, places, position = list(map(str, WIDTHS)), [], 0
        for what, token in zip(_LAYERS, tokens, strict=True):
            if token not in known:
                raise ArchitectureError(
                    f"malformed widths at position {position}: the width of {what} must be one of {', '.join(known)}, "
                    f"got {token[:30]!r}"
                )
            places.append(known.index(token))
            position += len(token) + 1
        return tuple(places)

    def format(self, genotype: Digits, space: NATSSize, /) -> str:
        return ":".join(str(WIDTHS[place]) for place in genotype)


@register_notation("nats_sss", "index")
class Index(Notation[Digits]):
    """The place in the benchmark's files, 0 to 32767."""

    def parse(self, text: str, space: NATSSize, /) -> Digits:
        index = read_index(text, 8**5)
        return tuple(index // 8**power % 8 for power in (4, 3, 2, 1, 0))

    def format(self, genotype: Digits, space: NATSSize, /) -> str:
        return str(sum(place * 8**power for place, power in zip(genotype, (4, 3, 2, 1, 0), strict=True)))
