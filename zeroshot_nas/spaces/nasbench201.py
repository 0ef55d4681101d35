"""NAS-Bench-201's space, which is NATS-Bench's topology space: one cell of six edges, five operations each."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from functools import cached_property, lru_cache

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.blocks.cells import (
    OPERATIONS,
    NASBench201Cell,
    NASBench201Reduction,
    cell_expression,
    cell_text,
    halving_windows,
    read_cell,
)
from zeroshot_nas.blocks.layers import Layers
from zeroshot_nas.spaces.base import register_space
from zeroshot_nas.spaces.genotypes import Digits, DigitSpace, DigitString, EdgeDict, read_choices, read_index
from zeroshot_nas.spaces.notations import Notation, register_notation

_NASLIB_OPERATIONS = (1, 0, 3, 2, 4)  # NASLib's numbers: skip, none, 3x3, 1x1, pooling; the map is its own inverse
_NASLIB_EDGES = (0, 1, 3, 2, 4, 5)  # NASLib's edges 01, 02, 03, 12, 13, 23; also its own inverse


@register_space("nasbench201")
@dataclass(frozen=True)
class NASBench201(DigitSpace):
    """Three stages of one cell, with reductions between them (Dong and Yang, ICLR 2020, arXiv:2001.00326).

    A 3x3 convolution and batch norm, then ``num_cells`` cells a stage of ``channels``, twice and four times as many; a
    residual block of stride 2 between stages; batch norm, ReLU, pooling, classifier. A genotype is six places in
    `zeroshot_nas.blocks.cells.OPERATIONS`, in the order of the string's edges: 01, 02, 12, 03, 13, 23.

    There are 15,625 strings, of which the authors' reduction leaves 6,466 (`canonical`). The notations are ``arch``,
    ``op_code``, ``naslib_code``, ``naslib``, ``edges`` and ``index``.

    Departures from the authors' code: a reduction at an odd side pools 3x3 windows instead of 2x2, which would not fit.
    NATS-Bench's topology space (arXiv:2009.00437) is the same.

    Args:
        input_size: Shape ``(C, H, W)`` of one image.
        num_classes: Outputs of the classifier.
        num_cells: Cells a stage.
        channels: Channels of the first stage.

    Example:
        >>> space = NASBench201()
        >>> space.size(), [space.to_string(space.initial(), name) for name in ("op_code", "naslib_code", "index")]
        (15625, ['303101', '210210', '11472'])
    """

    input_size: Shape = (3, 32, 32)
    num_classes: int = 10
    num_cells: int = 5
    channels: int = 16

    choices = (len(OPERATIONS),) * 6
    own_notation = "arch"

    def network(self, genotype: Digits) -> Architecture:
        cell, (stem, reduction1, reduction2, tail) = cell_text(genotype), self._skeleton
        stages = (_stage(factor * self.channels, self.num_cells, cell) for factor in (1, 2, 4))
        blocks = (stem, next(stages), reduction1, next(stages), reduction2, next(stages), tail)
        return Architecture(blocks, self.input_size, self.num_classes)

    @cached_property
    def _skeleton(self) -> tuple[BlockSpec, ...]:
        """The blocks that all networks share."""
        width, windows = self.channels, halving_windows((self.input_size[1], self.input_size[2]), 2)
        return (
            Layers(width, layers="conv3-bn"),
            NASBench201Reduction(2 * width, stride=2, pool=windows[0]),
            NASBench201Reduction(4 * width, stride=2, pool=windows[1]),
            Layers(4 * width, layers="bn-relu"),
        )

    def genotype_of(self, architecture: Architecture) -> Digits | None:
        cells = (block for block in architecture.blocks if isinstance(block, NASBench201Cell))
        first = next(cells, None)
        return None if first is None else read_cell(first.cell)

    def initial(self) -> Architecture:
        """The residual cell of the authors' code: two 3x3 convolutions and a skip connection."""
        return self.network((3, 0, 3, 1, 0, 1))

    def smallest(self, cost: str) -> Architecture:
        """Skip connections alone: they cost nothing, and the depth is the same for all cells."""
        return self.network((1,) * 6)

    def canonical(self, architecture: Architecture) -> str:
        """The authors' expression of what the cell computes: `zeroshot_nas.blocks.cells.cell_expression`."""
        return cell_expression(self.genotype(architecture))


@register_notation("nasbench201", "arch")
class CellString(Notation[Digits]):
    """The benchmark's string: ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``."""

    def parse(self, text: str, space: NASBench201, /) -> Digits:
        return read_cell(text)

    def format(self, genotype: Digits, space: NASBench201, /) -> str:
        return cell_text(genotype)


@register_notation("nasbench201", "op_code")
class OperationCode(DigitString):
    """Six digits, the genotype itself."""

    length, options, what = 6, "01234", "op_code"


@register_notation("nasbench201", "naslib_code")
class NASLibCode(DigitString):
    """Six digits of NASLib: edges 01, 02, 03, 12, 13, 23; 0 skip, 1 none, 2 3x3, 3 1x1, 4 pooling."""

    length, options, what = 6, "01234", "naslib_code"

    def parse(self, text: str, space: NASBench201, /) -> Digits:
        return _swap_naslib(super().parse(text, space))

    def format(self, genotype: Digits, space: NASBench201, /) -> str:
        return super().format(_swap_naslib(genotype), space)


@register_notation("nasbench201", "naslib")
class NASLibTuple(Notation[Digits]):
    """`NASLibCode` as a tuple's text, such as the keys of NAS-Bench-Suite-Zero's tables."""

    def parse(self, text: str, space: NASBench201, /) -> Digits:
        return _swap_naslib(read_choices(text, 6, range(5), "NASLib tuple"))

    def format(self, genotype: Digits, space: NASBench201, /) -> str:
        return str(_swap_naslib(genotype))

    def recognises(self, text: str) -> bool:
        return text.lstrip().startswith("(")


@register_notation("nasbench201", "edges")
class CellEdges(EdgeDict):
    """A dict of edges."""

    operations = OPERATIONS


@register_notation("nasbench201", "index")
class Index(Notation[Digits]):
    """The place in the benchmark's files, 0 to 15624."""

    def parse(self, text: str, space: NASBench201, /) -> Digits:
        return _benchmark_order()[read_index(text, len(_benchmark_order()))]

    def format(self, genotype: Digits, space: NASBench201, /) -> str:
        return str(_benchmark_index()[genotype])


def _swap_naslib(digits: Digits) -> Digits:
    """From a genotype to NASLib's numbers, and back."""
    return tuple(_NASLIB_OPERATIONS[digits[edge]] for edge in _NASLIB_EDGES)


@lru_cache(maxsize=65_536)  # the three stages of every cell
def _stage(width: int, num_cells: int, cell: str) -> NASBench201Cell:
    return NASBench201Cell(width, sub_layers=num_cells, cell=cell)


@lru_cache(maxsize=1)
def _benchmark_order() -> tuple[Digits, ...]:
    """All genotypes as the benchmark numbers them: in order, the last edge fastest, then shuffled with seed 88."""
    genotypes = list(itertools.product(range(len(OPERATIONS)), repeat=6))
    random.Random(88).shuffle(genotypes)
    return tuple(genotypes)


@lru_cache(maxsize=1)
def _benchmark_index() -> dict[Digits, int]:
    return {genotype: index for index, genotype in enumerate(_benchmark_order())}
