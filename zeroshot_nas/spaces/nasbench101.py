"""NAS-Bench-101's space: cells that are any graph of up to seven vertices and nine edges."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.blocks.cells import halving_windows
from zeroshot_nas.blocks.layers import Layers
from zeroshot_nas.blocks.nasbench101 import OPERATIONS, Matrix, NASBench101Cell, Spec, prune, read_spec, spec_text
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.spaces.base import register_space
from zeroshot_nas.spaces.genotypes import GenotypeSpace, read_numbers
from zeroshot_nas.spaces.notations import Notation, register_notation

MAX_VERTICES, MAX_EDGES = 7, 9
"""Bounds of a cell, its input and output counted among the vertices."""

MATRICES = {2: 1, 3: 2, 4: 10, 5: 121, 6: 1545, 7: 4793}
"""By number of vertices, the matrices of at most `MAX_EDGES` edges with every vertex on a path from input to output."""

_NASLIB = ("input", "output", "maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu")
_MAX_TEXT = 2_000
_INCEPTION = "0111100000000100000010000001000001000000010000000"  # 1x1, 3x3 and pooling beside two 3x3 in a row


@register_space("nasbench101")
@dataclass(frozen=True)
class NASBench101(GenotypeSpace[Spec]):
    """Three stacks of three equal cells (Ying et al., ICML 2019, arXiv:1902.09635).

    A 3x3 convolution, batch norm and ReLU to ``channels``; stacks of ``num_cells`` cells, the second and third behind
    2x2 max pooling and with twice the channels of the one before; pooling, classifier. A genotype is a
    `zeroshot_nas.blocks.nasbench101.Spec` without vertices off the paths from input to output.

    There are 1,293,208 such genotypes, of 423,624 networks (`canonical`). The notations are ``json``, ``record`` and
    ``naslib``; vertices off the paths are pruned when a text is read.

    Departures from the authors' code: a pooling at an odd side has 3x3 windows instead of 2x2, which would not fit.

    Args:
        input_size: Shape ``(C, H, W)`` of one image.
        num_classes: Outputs of the classifier.
        num_cells: Cells a stack.
        channels: Channels of the first stack; at least 4, which is how many vertices can share a cell's output.

    Example:
        >>> space = NASBench101()
        >>> network = space.from_string("(0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 4, 1)")
        >>> space.size(), space.to_string(network, "record")
        (1293208, '010001000 input,conv3x3-bn-relu,output')
    """

    input_size: Shape = (3, 32, 32)
    num_classes: int = 10
    num_cells: int = 3
    channels: int = 128

    own_notation = "json"

    def __post_init__(self) -> None:
        if self.channels < 4:
            raise ArchitectureError(f"the space needs at least 4 channels, got {self.channels}")
        super().__post_init__()

    def network(self, genotype: Spec) -> Architecture:
        cell, width, times = spec_text(genotype), self.channels, self.num_cells
        windows = halving_windows((self.input_size[1], self.input_size[2]), 2)
        return Architecture(
            (
                Layers(width, layers="conv3-bn-relu"),
                NASBench101Cell(width, sub_layers=times, cell=cell),
                NASBench101Cell(2 * width, stride=2, sub_layers=times, cell=cell, pool=windows[0]),
                NASBench101Cell(4 * width, stride=2, sub_layers=times, cell=cell, pool=windows[1]),
            ),
            self.input_size,
            self.num_classes,
        )

    def genotype_of(self, architecture: Architecture) -> Spec | None:
        last = architecture.blocks[-1]
        spec = read_spec(last.cell) if isinstance(last, NASBench101Cell) else None
        return None if spec is None or _fault(spec) else spec

    def initial(self) -> Architecture:
        """The Inception-like cell of the authors' example."""
        one, three, pool = "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3"
        return self.network(read_spec(f"{_INCEPTION} input,{three},{one},{pool},{three},{three},output"))

    def smallest(self, cost: str) -> Architecture:
        """Four poolings in a row that share the output, the first of them reading the input.

        The only convolution of such a cell is the projection of its input, to a quarter of the channels (rounded up). A
        cell has at least one projection, and the vertices on its path are as wide as the widest that feeds the output;
        that is a quarter at least, as nine edges are too few for five vertices that each read something and feed it.
        """
        chain = [[int(v == u + 1 or (v == 5 and 0 < u < 5)) for v in range(6)] for u in range(6)]
        return self.network(prune(chain, ["input", *["maxpool3x3"] * 4, "output"]))

    def size(self, max_layers: int | None = None) -> float:
        """The number of genotypes: pruned matrices with operations; all networks have the same depth."""
        if max_layers is not None and max_layers < self.initial().layers:
            return 0
        genotypes: int = sum(count * len(OPERATIONS) ** (vertices - 2) for vertices, count in MATRICES.items())
        return genotypes

    def sample_genotype(self, rng: random.Random) -> Spec:
        """As the authors draw: seven vertices, every edge with probability 1/2, until a cell of the space is left."""
        while True:
            matrix = [[int(v > u and rng.random() < 0.5) for v in range(MAX_VERTICES)] for u in range(MAX_VERTICES)]
            operations = [OPERATIONS[int(rng.random() * 3)] for _ in range(MAX_VERTICES - 2)]
            spec = _pruned(matrix, ["input", *operations, "output"])
            if spec is not None:
                return spec

    def mutate_genotype(self, genotype: Spec, rng: random.Random, mutations: int) -> Spec:
        """Each mutation changes an operation, flips an edge, or puts a vertex between two; the rest is pruned."""
        for _ in range(mutations):
            genotype = _changed(genotype, rng)
        return genotype

    def crossover_genotypes(self, a: Spec, b: Spec, rng: random.Random) -> Spec:
        """The first vertices with what they read of ``a``, the rest of ``b``; ``a`` where no cut gives a cell."""
        first, second = _padded(a), _padded(b)
        cuts = list(range(2, MAX_VERTICES - 1))
        rng.shuffle(cuts)
        for cut in cuts:
            rows = range(MAX_VERTICES)
            matrix = [first.matrix[u][:cut] + second.matrix[u][cut:] for u in rows]
            spec = _pruned(matrix, first.operations[:cut] + second.operations[cut:])
            if spec is not None:
                return spec
        return a

    def canonical(self, architecture: Architecture) -> str:
        """The benchmark's module hash: 32 hexadecimal digits that isomorphic cells share.

        Example:
            >>> space = NASBench101()
            >>> pairs = ("maxpool3x3,conv1x1-bn-relu", "conv1x1-bn-relu,maxpool3x3")
            >>> len({space.canonical(space.from_string(f"0110000100010000 input,{pair},output")) for pair in pairs})
            1
        """
        spec = self.genotype(architecture)
        return module_hash(spec.matrix, [-1, *map(OPERATIONS.index, spec.operations[1:-1]), -2])


@register_notation("nasbench101", "json")
class CellJson(Notation[Spec]):
    """``[matrix, operations]``, or as tables of the benchmark have it ``{"matrix": ..., "ops": ...}``."""

    def parse(self, text: str, space: NASBench101, /) -> Spec:
        return _of_space(*_read_json(_bounded(text)))

    def format(self, genotype: Spec, space: NASBench101, /) -> str:
        return json.dumps(genotype)

    def recognises(self, text: str) -> bool:
        return text.lstrip()[:1] in ("[", "{")


@register_notation("nasbench101", "record")
class CellRecord(Notation[Spec]):
    """The matrix by rows, a space, the operations, as in ``010001000 input,maxpool3x3,output``."""

    def parse(self, text: str, space: NASBench101, /) -> Spec:
        return _of_space(*read_spec(_bounded(text)))

    def format(self, genotype: Spec, space: NASBench101, /) -> str:
        return spec_text(genotype)

    def recognises(self, text: str) -> bool:
        return text.lstrip()[:1] not in ("[", "{", "(")


@register_notation("nasbench101", "naslib")
class NASLibTuple(Notation[Spec]):
    """A tuple's text of the matrix and then the operations, such as the keys of NAS-Bench-Suite-Zero's tables.

    Operations are 0 input, 1 output, 2 pooling, 3 1x1, 4 3x3; 56 numbers for seven vertices.
    """

    def parse(self, text: str, space: NASBench101, /) -> Spec:
        return _of_space(*_read_naslib(_bounded(text)))

    def format(self, genotype: Spec, space: NASBench101, /) -> str:
        return str((*(bit for row in genotype.matrix for bit in row), *map(_NASLIB.index, genotype.operations)))

    def recognises(self, text: str) -> bool:
        return text.lstrip().startswith("(")


def module_hash(matrix: Matrix, labels: list[int]) -> str:
    """The authors' hash of a labelled graph, which does not depend on the order of its vertices.

    Every vertex starts from its degrees and label; then, as often as there are vertices, it takes in what its
    neighbours have; the result is a digest of all, sorted (arXiv:1902.09635, appendix).

    Example:
        >>> matrix = ((0, 1, 1, 0), (0, 0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 0))
        >>> module_hash(matrix, [-1, 0, 1, -2]) == module_hash(matrix, [-1, 1, 0, -2])
        True
    """
    vertices = range(len(matrix))
    sources = [[u for u in vertices if matrix[u][v]] for v in vertices]
    targets = [[v for v in vertices if matrix[u][v]] for u in vertices]
    hashes = [_md5(str((len(targets[v]), len(sources[v]), labels[v]))) for v in vertices]
    for _ in vertices:
        before = [("".join(sorted(hashes[u] for u in near)) for near in (sources[v], targets[v])) for v in vertices]
        hashes = [_md5("|".join((*sides, own))) for sides, own in zip(before, hashes, strict=True)]
    return _md5(str(sorted(hashes)))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _fault(spec: Spec) -> str | None:
    """Why a pruned cell is not of the space; None where it is."""
    vertices, edges = len(spec.operations), sum(map(sum, spec.matrix))
    if vertices > MAX_VERTICES:
        return f"a cell has at most {MAX_VERTICES} vertices, got {vertices}"
    return f"a cell has at most {MAX_EDGES} edges, got {edges}" if edges > MAX_EDGES else None


def _of_space(matrix: Any, operations: Any) -> Spec:
    """The cell of the space that is left of a graph.

    Raises:
        ArchitectureError: It is no cell, or none of the space.
    """
    spec = prune(matrix, operations)
    if fault := _fault(spec):
        raise ArchitectureError(fault)
    return spec


def _bounded(text: str) -> str:
    if len(text) > _MAX_TEXT:
        raise ArchitectureError(f"a cell's text has at most {_MAX_TEXT:,} characters, got {len(text):,}")
    return text


def _pruned(matrix: Any, operations: Any) -> Spec | None:
    """The cell of the space that is left of a graph; None where none is."""
    try:
        return _of_space(matrix, operations)
    except ArchitectureError:
        return None


def _changed(spec: Spec, rng: random.Random) -> Spec:
    """A cell that differs from ``spec`` by one small change."""
    while True:
        size = len(spec.operations)
        matrix, operations = [list(row) for row in spec.matrix], list(spec.operations)
        what = int(rng.random() * 3)
        if what == 0 and size > 2:
            vertex = rng.randrange(1, size - 1)
            operations[vertex] = rng.choice([name for name in OPERATIONS if name != operations[vertex]])
        elif what == 1:
            u, v = sorted(rng.sample(range(size), 2))
            matrix[u][v] = 1 - matrix[u][v]
        elif what == 2 and size < MAX_VERTICES:
            place = rng.randrange(1, size)
            for row in matrix:
                row.insert(place, 0)
            matrix.insert(place, [0] * (size + 1))
            operations.insert(place, OPERATIONS[int(rng.random() * 3)])
            matrix[rng.randrange(place)][place] = matrix[place][rng.randrange(place + 1, size + 1)] = 1
        changed = _pruned(matrix, operations)
        if changed is not None and changed != spec:
            return changed


def _padded(spec: Spec) -> Spec:
    """The cell with unconnected vertices before its output, seven in all."""
    missing = MAX_VERTICES - len(spec.operations)
    rows = [(*row[:-1], *[0] * missing, row[-1]) for row in spec.matrix]
    matrix = (*rows[:-1], *[(0,) * MAX_VERTICES] * missing, rows[-1])
    return Spec(matrix, (*spec.operations[:-1], *["maxpool3x3"] * missing, "output"))


def _read_json(text: str) -> tuple[list[list[int]], list[str]]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArchitectureError(f"malformed cell, no JSON: {error}") from None
    match data:
        case [[*rows], [*operations]] | {"matrix": [*rows], "ops": [*operations]} if all(
            isinstance(row, list) for row in rows
        ):
            return rows, operations
    raise ArchitectureError(f"malformed cell: expected [matrix, operations], got {text[:60]!r}")


def _read_naslib(text: str) -> tuple[list[list[int]], list[str]]:
    numbers = read_numbers(text, "NASLib tuple")
    size = next((n for n in range(2, len(numbers)) if n * (n + 1) >= len(numbers)), 2)
    if size * (size + 1) != len(numbers):
        raise ArchitectureError(
            f"malformed NASLib tuple: expected n x n + n numbers, 56 for seven vertices, got {len(numbers)}"
        )
    names = []
    for number, position in numbers[size**2 :]:
        if number >= len(_NASLIB):
            raise ArchitectureError(
                f"malformed NASLib tuple at position {position}: operations are 0 to {len(_NASLIB) - 1}, got {number}"
            )
        names.append(_NASLIB[number])
    values = [number for number, _ in numbers]
    return [values[row * size : (row + 1) * size] for row in range(size)], names
