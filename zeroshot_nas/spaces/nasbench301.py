"""NAS-Bench-301's space, which is DARTS's: a normal cell and a reduction cell of eight edges each."""

from __future__ import annotations

import ast
import itertools
import random
from dataclasses import dataclass
from functools import lru_cache

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.blocks.darts import (
    OPERATIONS,
    STEPS,
    Cell,
    DARTSNetwork,
    Genotype,
    genotype_text,
    make_genotype,
    read_genotype,
)
from zeroshot_nas.blocks.layers import Layers
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.spaces.base import register_space
from zeroshot_nas.spaces.genotypes import GenotypeSpace
from zeroshot_nas.spaces.notations import Notation, register_notation

_MAX_TEXT = 2_000


@register_space("nasbench301")
@dataclass(frozen=True)
class NASBench301(GenotypeSpace[Genotype]):
    """Networks of DARTS cells (Siems et al., arXiv:2008.09777; Liu et al., arXiv:1806.09055).

    A 3x3 convolution and batch norm to three times ``channels``, ``num_cells`` cells, of which those at a third and two
    thirds are reduction cells, pooling, classifier. Cells and operations are those of
    `zeroshot_nas.blocks.darts.DARTSNetwork`, with batch norms that have weights and none behind poolings; there is no
    auxiliary head.

    A genotype lists a node's two edges by source. There are (180 x 7^8)^2 = 1.08e18, the texts that list them so;
    `canonical` joins those that number the same nodes differently. The notations are ``genotype`` and ``naslib``. The
    numbers of cells and channels are those of the benchmark's training runs.

    Args:
        input_size: Shape ``(C, H, W)`` of one image.
        num_classes: Outputs of the classifier.
        num_cells: Number of cells.
        channels: Channels of a node in the first cells.

    Example:
        >>> space = NASBench301()
        >>> f"{space.size():.3g}", space.to_string(space.initial(), "naslib")[:50]
        ('1.08e+18', '(((0, 3), (1, 3), (0, 3), (1, 3), (0, 2), (1, 3), ')
    """

    input_size: Shape = (3, 32, 32)
    num_classes: int = 10
    num_cells: int = 8
    channels: int = 32

    own_notation = "genotype"

    def network(self, genotype: Genotype) -> Architecture:
        body = DARTSNetwork(16 * self.channels, stride=4, genotype=genotype_text(genotype), cells=self.num_cells)
        stem = Layers(3 * self.channels, layers="conv3-bn")
        return Architecture((stem, body), self.input_size, self.num_classes)

    def genotype_of(self, architecture: Architecture) -> Genotype | None:
        last = architecture.blocks[-1]
        return read_genotype(last.genotype) if isinstance(last, DARTSNetwork) else None

    def initial(self) -> Architecture:
        """DARTS's second-order cells, the example of NAS-Bench-301's code."""
        return self.network(read_genotype(DARTSNetwork.genotype))

    def smallest(self, cost: str) -> Architecture:
        """Poolings alone: they cost nothing, and all else is the same for all networks."""
        cell = [(source, OPERATIONS.index("max_pool_3x3")) for source in (0, 1)] * STEPS
        return self.network(make_genotype(cell, cell))

    def size(self, max_layers: int | None = None) -> float:
        """The number of genotypes: for each node of each cell, two of the nodes before it and two operations."""
        if max_layers is not None and max_layers < self.initial().layers:
            return 0
        cell = 1
        for before in range(2, 2 + STEPS):
            cell *= before * (before - 1) // 2 * len(OPERATIONS) ** 2
        return cell**2

    def sample_genotype(self, rng: random.Random) -> Genotype:
        cells = []
        for _ in range(2):
            pairs = []
            for node in range(2, 2 + STEPS):
                pairs += [(source, int(rng.random() * len(OPERATIONS))) for source in rng.sample(range(node), 2)]
            cells.append(pairs)
        return make_genotype(*cells)

    def mutate_genotype(self, genotype: Genotype, rng: random.Random, mutations: int) -> Genotype:
        """Each mutation gives an edge another operation or, where the node has a third to choose, another source."""
        cells = [list(cell) for cell in genotype]
        for _ in range(mutations):
            cell, place = cells[rng.randrange(2)], rng.randrange(2 * STEPS)
            (source, operation), other = cell[place], cell[place ^ 1][0]
            free = [each for each in range(2 + place // 2) if each not in (source, other)]
            if free and rng.random() < 0.5:
                source = rng.choice(free)
            else:
                operation = (operation + 1 + int(rng.random() * (len(OPERATIONS) - 1))) % len(OPERATIONS)
            cell[place] = (source, operation)
        return make_genotype(*cells)

    def crossover_genotypes(self, a: Genotype, b: Genotype, rng: random.Random) -> Genotype:
        """The first nodes of ``a`` and the rest of ``b``, the normal cell's nodes before the reduction cell's."""
        cut = 2 * rng.randrange(1, 2 * STEPS)
        edges = (a.normal + a.reduce)[:cut] + (b.normal + b.reduce)[cut:]
        return make_genotype(edges[: 2 * STEPS], edges[2 * STEPS :])

    def canonical(self, architecture: Architecture) -> str:
        """The genotype's text with each cell's nodes numbered in the one order that gives the least list.

        Cells that differ in the order of their nodes alone share it: their outputs are the same channels in another
        order.
        """
        genotype = self.genotype(architecture)
        return genotype_text(Genotype(_least(genotype.normal), _least(genotype.reduce)))


@register_notation("nasbench301", "genotype")
class GenotypeText(Notation[Genotype]):
    """``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=[2, 3, 4, 5], reduce=[...], reduce_concat=...)``.

    A node's two edges may stand in any order.
    """

    def parse(self, text: str, space: NASBench301, /) -> Genotype:
        return read_genotype(text)

    def format(self, genotype: Genotype, space: NASBench301, /) -> str:
        return genotype_text(genotype)


@register_notation("nasbench301", "naslib")
class NASLibTuple(Notation[Genotype]):
    """For each cell eight (source, operation) pairs, such as the keys of NAS-Bench-Suite-Zero's tables.

    Operations are places in `zeroshot_nas.blocks.darts.OPERATIONS`; tuples or lists.
    """

    def parse(self, text: str, space: NASBench301, /) -> Genotype:
        if len(text) > _MAX_TEXT:
            raise ArchitectureError(f"a NASLib tuple has at most {_MAX_TEXT:,} characters, got {len(text):,}")
        try:
            cells = ast.literal_eval(text.strip())
        except SyntaxError as error:
            raise ArchitectureError(
                f"malformed NASLib tuple at position {(error.offset or 1) - 1}: {error.msg}"
            ) from None
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            raise ArchitectureError(f"malformed NASLib tuple: {error}") from None
        if not isinstance(cells, list | tuple) or len(cells) != 2:
            raise ArchitectureError(f"a NASLib tuple has a normal and a reduction cell, got {text[:60]!r}")
        return make_genotype(*cells)

    def format(self, genotype: Genotype, space: NASBench301, /) -> str:
        return str(tuple(genotype))

    def recognises(self, text: str) -> bool:
        return text.lstrip()[:1] in ("(", "[")


@lru_cache(maxsize=16_384)
def _least(cell: Cell) -> Cell:
    """The cell under that order of its nodes which makes its list of edges the least."""
    candidates = []
    for order in itertools.permutations(range(2, 2 + STEPS)):
        place = {0: 0, 1: 1, **{node: new for new, node in enumerate(order, start=2)}}
        edges: list[tuple[int, int]] = []
        for new, node in enumerate(order, start=2):
            renamed = sorted((place[source], operation) for source, operation in cell[2 * node - 4 : 2 * node - 2])
            if renamed[-1][0] >= new:
                break
            edges += renamed
        else:
            candidates.append(tuple(edges))
    return min(candidates)
