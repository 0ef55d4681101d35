"""Networks of DARTS cells, each reading the two before it (Liu et al., arXiv:1806.09055), and the genotype's text."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from zeroshot_nas.architecture.architecture import MAX_LAYERS
from zeroshot_nas.architecture.blockspec import BlockSpec, register_block
from zeroshot_nas.architecture.ops import Conv, Edge, Graph, Node, Op, Pool
from zeroshot_nas.blocks.base import RELU, conv_bn
from zeroshot_nas.errors import ArchitectureError, did_you_mean

OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""What an edge can carry, in the order of NAS-Bench-301's and NASLib's numbers."""

STEPS = 4
"""Nodes of a cell, each with two edges; their outputs are concatenated."""

Pair = tuple[int, int]
"""Source and operation of an edge: 0 and 1 are the cell's inputs, 2 to 5 its nodes; operations as in `OPERATIONS`."""

Cell = tuple[Pair, ...]
"""The edges of a cell, two for each node, sorted by source."""

_MAX_TEXT = 5_000


class Genotype(NamedTuple):
    """A normal cell and a reduction cell."""

    normal: Cell
    reduce: Cell


def make_genotype(normal: Any, reduce: Any) -> Genotype:
    """A genotype from two lists of eight (source, operation) pairs, checked and each node's two edges sorted.

    Raises:
        ArchitectureError: There are not eight pairs, a number is out of range, or a node reads one source twice.
    """
    return Genotype(_cell("normal", normal), _cell("reduce", reduce))


def genotype_text(genotype: Genotype) -> str:
    """The genotype as DARTS and NAS-Bench-301 write it.

    Example:
        >>> genotype_text(make_genotype([(0, 2), (1, 3)] * 4, [(0, 0), (1, 0)] * 4))[:61]
        "Genotype(normal=[('skip_connect', 0), ('sep_conv_3x3', 1), ('"
    """
    cells = [[(OPERATIONS[operation], source) for source, operation in cell] for cell in genotype]
    concat = list(range(2, 2 + STEPS))
    return f"Genotype(normal={cells[0]}, normal_concat={concat}, reduce={cells[1]}, reduce_concat={concat})"


@lru_cache(maxsize=16_384)
def read_genotype(text: str) -> Genotype:
    """Reads ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=[2, 3, 4, 5], reduce=..., reduce_concat=...)``.

    The text is parsed, never run: a call with literal arguments (or ``range(2, 6)``) is all that it may hold.

    Raises:
        ArchitectureError: The text is malformed or outside DARTS's cells.

    Example:
        >>> text = genotype_text(make_genotype([(0, 2), (1, 3)] * 4, [(0, 0), (1, 0)] * 4))
        >>> read_genotype(text).normal[:2]
        ((0, 2), (1, 3))
    """
    if len(text) > _MAX_TEXT:
        raise ArchitectureError(f"a genotype has at most {_MAX_TEXT:,} characters, got {len(text):,}")
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ArchitectureError(f"malformed genotype at position {(error.offset or 1) - 1}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ArchitectureError(f"malformed genotype: {error}") from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "Genotype":
        raise ArchitectureError(f"malformed genotype: expected Genotype(normal=..., ...), got {text[:60]!r}")
    fields = dict(zip(("normal", "normal_concat", "reduce", "reduce_concat"), call.args, strict=False))
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in fields:
            raise ArchitectureError(f"malformed genotype: unexpected {keyword.arg or '**'!r}")
        fields[keyword.arg] = keyword.value
    if len(call.args) > 4 or set(fields) != {"normal", "normal_concat", "reduce", "reduce_concat"}:
        raise ArchitectureError(
            f"a genotype has normal, normal_concat, reduce and reduce_concat, got {', '.join(sorted(fields)) or 'none'}"
        )
    for name in ("normal_concat", "reduce_concat"):
        if (concat := _literal(name, fields[name])) not in (expected := list(range(2, 2 + STEPS)), tuple(expected)):
            raise ArchitectureError(f"{name} must be {expected}, got {str(concat)[:40]}")
    return make_genotype(*(_named_pairs(name, _literal(name, fields[name])) for name in ("normal", "reduce")))


@register_block("DARTSNetwork", plainnet_fields=None)
@dataclass(frozen=True)
class DARTSNetwork(BlockSpec):
    """``cells`` cells behind a stem, as one graph: each reads the two before it, the first two the stem.

    A reduction cell stands for every prime factor of the stride, spread evenly (of 8 cells and stride 4, the cells
    2 and 5), and doubles the channels. A node sums its two edges; a cell concatenates its four nodes. ``sep_conv`` is
    twice ReLU, depthwise, 1x1, batch norm; ``dil_conv`` is one such with dilation 2. Where the authors halve the
    resolution by a 1x1 convolution (a skip of stride 2, the first input behind a reduction), they take one half of the
    output from pixels shifted by one; here both halves read the same pixels, which changes neither parameters nor
    FLOPs. The last nodes have ``out_channels / 4`` channels; where that is not whole, a 1x1 convolution and batch norm
    follow.

    Attributes:
        genotype: The text of `genotype_text`.
        cells: Number of cells.

    Example:
        >>> block = DARTSNetwork(out_channels=64, stride=4, cells=3)
        >>> block.lower(12)[0].output_shape((12, 8, 8))
        (64, 2, 2)
    """

    depth_field = "cells"

    genotype: str = genotype_text(
        Genotype(
            ((0, 3), (1, 3), (0, 3), (1, 3), (0, 2), (1, 3), (0, 2), (2, 5)),
            ((0, 0), (1, 0), (1, 0), (2, 2), (0, 0), (2, 2), (1, 0), (2, 2)),
        )
    )
    cells: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        read_genotype(self.genotype)
        if not len(_prime_factors(self.stride)) <= self.cells <= MAX_LAYERS:
            raise ArchitectureError(
                f"a stride of {self.stride} takes {len(_prime_factors(self.stride))} to {MAX_LAYERS:,} cells, "
                f"got {self.cells:,}"
            )

    def first(self, in_channels: int) -> tuple[Op, ...]:
        return _network(self.genotype, self.cells, in_channels, self.out_channels, self.stride)


@lru_cache(maxsize=4_096)
def _network(text: str, cells: int, in_channels: int, out_channels: int, stride: int) -> tuple[Op, ...]:
    genotype = read_genotype(text)
    factors = _prime_factors(stride)
    reductions = {number * cells // (len(factors) + 1): step for number, step in enumerate(factors, start=1)}
    channels = max(1, out_channels // STEPS >> len(factors))
    nodes: list[Node] = []
    before_last = last = (0, in_channels)  # index of a node, and its channels
    step_before = 1
    for index in range(cells):
        step = reductions.get(index, 1)
        if step > 1:
            channels *= 2
        cell = genotype.reduce if step > 1 else genotype.normal
        output = _append_cell(nodes, cell, before_last, last, channels, step, step_before)
        before_last, last, step_before = last, (output, STEPS * channels), step
    graph = Graph(tuple(nodes))
    return (graph,) if last[1] == out_channels else (graph, *conv_bn(last[1], out_channels, 1))


def _append_cell(
    nodes: list[Node], cell: Cell, before_last: Pair, last: Pair, channels: int, step: int, step_before: int
) -> int:
    """Adds a cell's nodes; returns the index of its output."""
    states = []
    for (source, width), stride in ((before_last, step_before), (last, 1)):
        nodes.append(Node((Edge(source, _relu_conv_bn(width, channels, stride)),)))
        states.append(len(nodes))
    for number in range(STEPS):
        edges = [
            Edge(states[source], _operation(OPERATIONS[operation], channels, step if source < 2 else 1))
            for source, operation in cell[2 * number : 2 * number + 2]
        ]
        nodes.append(Node(tuple(edges)))
        states.append(len(nodes))
    nodes.append(Node(tuple(Edge(state) for state in states[2:]), "concatenation"))
    return len(nodes)


def _operation(name: str, channels: int, stride: int) -> tuple[Op, ...]:
    if name == "skip_connect":
        return () if stride == 1 else _relu_conv_bn(channels, channels, stride)
    if name.endswith("pool_3x3"):
        return (Pool("max" if name == "max_pool_3x3" else "average", 3, stride),)
    kernel_size = int(name[-1])
    if name.startswith("dil_conv"):
        return _depthwise(channels, kernel_size, stride, dilation=2)
    return _depthwise(channels, kernel_size, stride) + _depthwise(channels, kernel_size, 1)


def _depthwise(channels: int, kernel_size: int, stride: int, dilation: int = 1) -> tuple[Op, ...]:
    spatial = Conv(channels, channels, kernel_size, stride, groups=channels, dilation=dilation)
    return RELU, spatial, *conv_bn(channels, channels, 1)


def _relu_conv_bn(in_channels: int, out_channels: int, stride: int) -> tuple[Op, ...]:
    return RELU, *conv_bn(in_channels, out_channels, 1, stride)


def _prime_factors(number: int) -> tuple[int, ...]:
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor = divisor + 1 if divisor**2 <= number else number
    return tuple(factors)


def _literal(name: str, node: ast.expr) -> Any:
    """The value of a literal, or of ``range`` with numbers."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        bounds = [_literal(name, argument) for argument in node.args]
        if len(bounds) == 2 and all(isinstance(bound, int) and 0 <= bound < 100 for bound in bounds):
            return list(range(*bounds))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise ArchitectureError(
            f"malformed genotype at position {node.col_offset}: {name} must be a list of literals"
        ) from None


def _named_pairs(name: str, pairs: Any) -> list[tuple[Any, int]]:
    """(source, operation's number) from (operation's name, source)."""
    if not isinstance(pairs, list | tuple):
        raise ArchitectureError(f"{name} must be a list of ('operation', source) pairs, got {str(pairs)[:40]}")
    found = []
    for place, pair in enumerate(pairs):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ArchitectureError(f"{name}[{place}] must be an ('operation', source) pair, got {str(pair)[:40]}")
        operation, source = pair
        if operation not in OPERATIONS:
            raise ArchitectureError(
                f"unknown operation {str(operation)[:40]!r} in {name}[{place}]."
                f"{did_you_mean(str(operation)[:40], OPERATIONS)} Known: {', '.join(OPERATIONS)}"
            )
        found.append((source, OPERATIONS.index(operation)))
    return found


def _cell(name: str, pairs: Any) -> Cell:
    if not isinstance(pairs, list | tuple) or len(pairs) != 2 * STEPS:
        raise ArchitectureError(f"{name} must have {2 * STEPS} edges, got {str(pairs)[:40]}")
    edges: list[Pair] = []
    for place, pair in enumerate(pairs):
        node = place // 2 + 2
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ArchitectureError(f"{name}[{place}] must be a pair of numbers, got {str(pair)[:40]}")
        for number, limit, what in zip(pair, (node, len(OPERATIONS)), ("source", "operation"), strict=True):
            if type(number) is not int or not 0 <= number < limit:
                raise ArchitectureError(
                    f"the {what} in {name}[{place}] must be a number from 0 to {limit - 1}, got {str(number)[:20]!r}"
                )
        edges.append((pair[0], pair[1]))
    for place in range(0, len(edges), 2):
        if edges[place][0] == edges[place + 1][0]:
            raise ArchitectureError(f"{name}[{place}] and {name}[{place + 1}] must read two sources, got one twice")
    return tuple(edge for place in range(0, len(edges), 2) for edge in sorted(edges[place : place + 2]))
