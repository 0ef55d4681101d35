"""NAS-Bench-101's cell: any graph of up to seven vertices with operations at the vertices (arXiv:1902.09635)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from zeroshot_nas.architecture.blockspec import BlockSpec, register_block
from zeroshot_nas.architecture.ops import Edge, Graph, Node, Op, Pool
from zeroshot_nas.blocks.base import RELU, conv_bn
from zeroshot_nas.errors import ArchitectureError, did_you_mean

OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
"""What a vertex between input and output can do, in the benchmark's order."""

Matrix = tuple[tuple[int, ...], ...]
"""Rows of 0 and 1; a 1 in row u and column v is an edge from vertex u to v, with u < v."""

_WINDOWS = {"2x2": 2, "3x3": 3}
_CELL = re.compile(r"([01]+) ([a-z0-9,-]+)", re.ASCII)


class Spec(NamedTuple):
    """A cell: its edges, and a name for each vertex, from ``input`` to ``output``."""

    matrix: Matrix
    operations: tuple[str, ...]


def prune(matrix: Sequence[Sequence[int]], operations: Sequence[str]) -> Spec:
    """The part of a cell that lies between its input and its output.

    Args:
        matrix: Square, 0 and 1, nothing on the diagonal or below.
        operations: ``input``, one of `OPERATIONS` for each vertex between, ``output``.

    Raises:
        ArchitectureError: The two don't make a cell, or no path leads from input to output.

    Example:
        >>> prune([[0, 0, 1], [0, 0, 1], [0, 0, 0]], ["input", "maxpool3x3", "output"])
        Spec(matrix=((0, 1), (0, 0)), operations=('input', 'output'))
    """
    size = _check(matrix, operations)
    forward, backward = {0}, {size - 1}
    for vertex in range(1, size):
        if any(matrix[source][vertex] for source in forward if source < vertex):
            forward.add(vertex)
    for vertex in range(size - 2, -1, -1):
        if any(matrix[vertex][target] for target in backward if target > vertex):
            backward.add(vertex)
    kept = sorted(forward & backward)
    if kept[:1] != [0] or kept[-1] != size - 1:
        raise ArchitectureError("the cell has no path from input to output")
    rows = tuple(tuple(int(matrix[u][v]) for v in kept) for u in kept)
    return Spec(rows, tuple(operations[vertex] for vertex in kept))


def spec_text(spec: Spec) -> str:
    """The cell as the benchmark's records have it: the matrix by rows, a space, the operations.

    Example:
        >>> spec_text(Spec(((0, 1), (0, 0)), ("input", "output")))
        '0100 input,output'
    """
    return f"{''.join(str(bit) for row in spec.matrix for bit in row)} {','.join(spec.operations)}"


@lru_cache(maxsize=16_384)
def read_spec(text: str) -> Spec:
    """Reads `spec_text`'s form.

    Raises:
        ArchitectureError: The text is malformed, or no cell.
    """
    match = _CELL.fullmatch(text)
    if match is None:
        raise ArchitectureError(
            f"malformed cell {text[:60]!r}: expected the matrix by rows, a space and the operations, as in "
            "'010001000 input,conv3x3-bn-relu,output'"
        )
    bits, operations = match[1], tuple(match[2].split(","))
    size = len(operations)
    if len(bits) != size**2:
        raise ArchitectureError(f"malformed cell: {size} operations need {size**2} matrix digits, got {len(bits)}")
    matrix = tuple(tuple(int(bit) for bit in bits[row * size : (row + 1) * size]) for row in range(size))
    _check(matrix, operations)
    return Spec(matrix, operations)


def vertex_channels(matrix: Matrix, in_channels: int, out_channels: int) -> tuple[int, ...]:
    """Channels of every vertex, as the benchmark's authors compute them.

    Those that feed the output share its channels evenly, the first ones taking the rest; every other vertex between
    takes the most that any vertex behind it takes.

    Raises:
        ArchitectureError: The output has fewer channels than vertices feed it.

    Example:
        >>> vertex_channels(((0, 1, 1, 1, 0), (0, 0, 0, 0, 1), (0, 0, 0, 0, 1), (0, 0, 0, 0, 1), (0,) * 5), 8, 8)
        (8, 3, 3, 2, 8)
    """
    last = len(matrix) - 1
    channels = [in_channels, *[0] * (last - 1), out_channels]
    feeding = [vertex for vertex in range(1, last) if matrix[vertex][last]]
    if len(feeding) > out_channels:
        raise ArchitectureError(f"{len(feeding)} vertices share {out_channels} output channels; each needs one")
    for place, vertex in enumerate(feeding):
        channels[vertex] = out_channels // len(feeding) + (place < out_channels % len(feeding))
    for vertex in range(last - 1, 0, -1):
        if not matrix[vertex][last]:
            channels[vertex] = max(channels[target] for target in range(vertex + 1, last) if matrix[vertex][target])
    return tuple(channels)


@register_block("NASBench101Cell", plainnet_fields=None)
@dataclass(frozen=True)
class NASBench101Cell(BlockSpec):
    """Vertices that sum what they read, and an output that concatenates it (Ying et al., arXiv:1902.09635).

    What comes from the cell's input is projected by a 1x1 convolution, batch norm and ReLU for each reader, and added
    at the output. Where a vertex reads one with a channel more, that channel is left out, as the authors do it: the
    wider vertex is built in two parts, so that its reader takes the first. A stride is a max pooling in front.

    Attributes:
        cell: The cell as `spec_text` writes it, without vertices off the paths from input to output.
        pool: Window of that pooling: ``2x2`` as the authors have it, for even sides; ``3x3`` fits odd ones too.

    Example:
        >>> block = NASBench101Cell(out_channels=8, cell="010001000 input,conv3x3-bn-relu,output")
        >>> [type(op).__name__ for op in block.lower(4)[0].nodes[0].edges[0].ops]
        ['Conv', 'BatchNorm', 'Activation', 'Conv', 'BatchNorm', 'Activation']
    """

    cell: str = "0101001000010000 input,conv3x3-bn-relu,conv3x3-bn-relu,output"
    pool: str = "3x3"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pool not in _WINDOWS:
            raise ArchitectureError(f"a pooling window is one of {', '.join(_WINDOWS)}, got {str(self.pool)[:30]!r}")
        spec = read_spec(self.cell)
        if prune(*spec) != spec:
            raise ArchitectureError(f"the cell {self.cell[:80]!r} has vertices off the paths from input to output")

    def first(self, in_channels: int) -> tuple[Op, ...]:
        graph = _cell_graph(self.cell, in_channels, self.out_channels)
        return (Pool("max", _WINDOWS[self.pool], self.stride), graph) if self.stride > 1 else (graph,)


@lru_cache(maxsize=16_384)
def _cell_graph(cell: str, in_channels: int, out_channels: int) -> Graph:
    matrix, operations = read_spec(cell)
    last = len(matrix) - 1
    channels = vertex_channels(matrix, in_channels, out_channels)
    inner = range(1, last)
    truncates = any(matrix[u][v] and channels[u] > channels[v] for u in inner for v in range(u + 1, last))
    narrowest = min(channels[1:last], default=0)
    builder = _Builder([])
    parts: dict[int, tuple[Edge, ...]] = {}
    for vertex in inner:
        split = truncates and channels[vertex] > narrowest
        widths = (narrowest, 1) if split else (channels[vertex],)
        brought = []
        for part, width in enumerate(widths):
            edges = [parts[source][part] for source in range(1, vertex) if matrix[source][vertex]]
            if matrix[0][vertex]:
                edges.append(Edge(0, _conv_bn_relu(in_channels, width, 1)))
            brought.append(builder.join(edges, "sum"))
        if operations[vertex] == "maxpool3x3":
            parts[vertex] = tuple(builder.apply(edge, (Pool("max", 3),)) for edge in brought)
        else:
            kernel_size = 3 if operations[vertex] == "conv3x3-bn-relu" else 1
            whole = builder.join(brought, "concatenation")
            convolutions = (_conv_bn_relu(channels[vertex], width, kernel_size) for width in widths)
            parts[vertex] = tuple(builder.apply(whole, ops) for ops in convolutions)
    outputs = [edge for vertex in inner if matrix[vertex][last] for edge in parts[vertex]]
    summands = [builder.join(outputs, "concatenation")] if outputs else []
    if matrix[0][last]:
        summands.append(Edge(0, _conv_bn_relu(in_channels, out_channels, 1)))
    builder.nodes.append(Node(tuple(summands)))
    return Graph(tuple(builder.nodes))


class _Builder(NamedTuple):
    """Nodes of a graph under construction."""

    nodes: list[Node]

    def join(self, edges: Sequence[Edge], how: str) -> Edge:
        """What several edges bring, as one edge; a single one stays as it is."""
        if len(edges) == 1:
            return edges[0]
        self.nodes.append(Node(tuple(edges), "sum" if how == "sum" else "concatenation"))
        return Edge(len(self.nodes))

    def apply(self, edge: Edge, ops: tuple[Op, ...]) -> Edge:
        """The node that an operation on an edge gives."""
        self.nodes.append(Node((Edge(edge.source, edge.ops + ops),)))
        return Edge(len(self.nodes))


def _conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int) -> tuple[Op, ...]:
    return *conv_bn(in_channels, out_channels, kernel_size), RELU


def _check(matrix: Sequence[Sequence[int]], operations: Sequence[str]) -> int:
    """The number of vertices; refuses what is no square upper triangle of 0 and 1 with operations to match."""
    size = len(operations)
    if size < 2 or len(matrix) != size or any(len(row) != size for row in matrix):
        raise ArchitectureError(
            f"a cell of {size} operations needs a {size}x{size} matrix of at least 2x2, "
            f"got rows of {sorted({len(row) for row in matrix})} numbers, {len(matrix)} of them"
        )
    for row, numbers in enumerate(matrix):
        for column, number in enumerate(numbers):
            if number not in ((0, 1) if column > row else (0,)):
                raise ArchitectureError(
                    f"row {row}, column {column} of a cell's matrix holds {str(number)[:20]}; "
                    "expected 0 or 1 above the diagonal and 0 elsewhere"
                )
    for vertex, name in enumerate(operations):
        known = ("input",) if vertex == 0 else ("output",) if vertex == size - 1 else OPERATIONS
        if name not in known:
            raise ArchitectureError(
                f"unknown operation {str(name)[:40]!r} at vertex {vertex}.{did_you_mean(str(name)[:40], known)} "
                f"Known: {', '.join(known)}"
            )
    return size
