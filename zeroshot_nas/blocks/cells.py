"""The cells of NAS-Bench-201, NATS-Bench and TransNAS-Bench-101, and the blocks between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from zeroshot_nas.architecture.blockspec import BlockSpec, register_block
from zeroshot_nas.architecture.ops import Conv, Edge, Graph, Node, Op, Pool, Residual, Resolution, Zero
from zeroshot_nas.blocks.base import RELU, conv_bn
from zeroshot_nas.errors import ArchitectureError, did_you_mean

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""What an edge can carry; a genotype holds places in this list."""

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Source and target of each edge, in the order of the string."""

BEST_CIFAR100 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
"""The cell of best CIFAR-100 accuracy, which NATS-Bench's size space fixes."""

WINDOWS = {"2x2": 2, "3x3": 3}
"""Pooling windows of a halving, by name."""

_CELL = re.compile(
    r"\+".join(r"\|" + "".join(rf"(\w+)~{source}\|" for source in range(n)) for n in (1, 2, 3)), re.ASCII
)
_PLACES = {name: place for place, name in enumerate(OPERATIONS)}
_TOKEN = re.compile(r"(?P<name>[^|~+]*)~(?P<source>\d{1,3})\|", re.ASCII)


def cell_text(operations: Sequence[int]) -> str:
    """A cell's string.

    Args:
        operations: For each edge the place of its operation in `OPERATIONS`.

    Example:
        >>> cell_text((4, 2, 1, 2, 1, 0))
        '|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|none~2|'
    """
    tokens = [f"{OPERATIONS[place]}~{source}" for place, (source, _) in zip(operations, EDGES, strict=True)]
    return "+".join(f"|{'|'.join(group)}|" for group in (tokens[:1], tokens[1:3], tokens[3:]))


@lru_cache(maxsize=16_384)
def read_cell(text: str) -> tuple[int, ...]:
    """The operations of a cell's string, as places in `OPERATIONS`.

    Raises:
        ArchitectureError: The string is malformed; token and position are named.

    Example:
        >>> read_cell("|none~0|+|none~0|skip_connect~1|+|nor_conv_3x3~0|none~1|none~2|")
        (0, 0, 1, 3, 0, 0)
    """
    whole = _CELL.fullmatch(text)
    if whole is not None and all(map(_PLACES.__contains__, whole.groups())):
        return tuple(map(_PLACES.__getitem__, whole.groups()))
    raise _fault_of_cell(text)


def cell_expression(operations: Sequence[int]) -> str:
    """What a cell computes, as NAS-Bench-201 tells unique cells: 6,466 of 15,625 differ (arXiv:2001.00326).

    A node is the sorted sum of its edges; ``skip_connect`` is the node that it reads; ``none`` is ``#``, and so is an
    edge from a node that is ``#``. The authors' reduction is neither complete (``#`` stays a term of a sum; without
    such terms 5,390 would be left) nor aware of weights (two equal terms may share theirs or not).

    Example:
        >>> cell_expression((1, 3, 0, 0, 0, 1))
        '#+#+#+(0)@nor_conv_3x3'
        >>> cell_expression((3, 0, 1, 0, 0, 1)) == cell_expression((1, 3, 0, 0, 0, 1))
        True
    """
    expressions = ["0"]
    for target in (1, 2, 3):
        terms = []
        for place, (source, end) in zip(operations, EDGES, strict=True):
            if end == target:
                inner = expressions[source]
                if place == 0 or inner == "#":
                    terms.append("#")
                else:
                    terms.append(inner if place == 1 else f"({inner})@{OPERATIONS[place]}")
        expressions.append("+".join(sorted(terms)))
    return expressions[-1]


@register_block("NASBench201Cell", plainnet_fields=None)
@dataclass(frozen=True)
class NASBench201Cell(BlockSpec):
    """Four nodes, each the sum of one operation on every node before it (Dong and Yang, arXiv:2001.00326).

    Edges from the input take the stride and the change of channels. ``nor_conv`` is ReLU, convolution, batch norm.
    ``skip_connect`` is the identity; where channels change a 1x1 convolution and batch norm, and with a stride ReLU
    before them. The authors' skip of stride 2 takes one half of its output from pixels shifted by one; here both halves
    read the same pixels, which changes neither parameters nor FLOPs. ``avg_pool_3x3`` leaves padding out of the mean.
    ``none`` edges are left out of a sum that has others.

    Attributes:
        cell: The cell's string, as in `BEST_CIFAR100`.

    Example:
        >>> NASBench201Cell(out_channels=4, cell=cell_text((0, 0, 0, 1, 0, 0))).lower(in_channels=4)[0].nodes[-1]
        Node(edges=(Edge(source=0, ops=()),), join='sum')
    """

    cell: str = BEST_CIFAR100

    def __post_init__(self) -> None:
        super().__post_init__()
        read_cell(self.cell)

    def first(self, in_channels: int) -> tuple[Op, ...]:
        return (_cell_graph(self.cell, in_channels, self.out_channels, self.stride),)

    def outline(self) -> NASBench201Cell:
        return _outline(_live_operations(self.cell))


@register_block("NASBench201Reduction", plainnet_fields=None)
@dataclass(frozen=True)
class NASBench201Reduction(BlockSpec):
    """Two ReLU-conv3x3-bn, the first with the stride, plus average pooling and a 1x1 convolution (arXiv:2001.00326).

    At stride 1 the shortcut is the identity, or ReLU, 1x1 convolution, batch norm where channels change. It is a graph,
    no residual link: it belongs to the skeleton, and Zen-score leaves it in.

    Attributes:
        pool: Window of the pooling: ``2x2`` as the authors have it, for even sides; ``3x3`` fits odd ones too.

    Example:
        >>> NASBench201Reduction(out_channels=8, stride=2, pool="2x2").lower(4)[0].nodes[0].edges[1].ops[0]
        Pool(kind='average', kernel_size=2, stride=2)
    """

    depth_field = None

    pool: str = "3x3"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.pool)

    def first(self, in_channels: int) -> tuple[Op, ...]:
        channels = self.out_channels
        body = (*_relu_conv_bn(in_channels, channels, 3, self.stride), *_relu_conv_bn(channels, channels, 3))
        shortcut: tuple[Op, ...] = ()
        if self.stride > 1:
            shortcut = (Pool("average", WINDOWS[self.pool], self.stride), Conv(in_channels, channels, 1))
        elif in_channels != channels:
            shortcut = _relu_conv_bn(in_channels, channels, 1)
        return (Graph((Node((Edge(0, body), Edge(0, shortcut))),)),)


@register_block("PreactivationResidual", plainnet_fields=None)
@dataclass(frozen=True)
class PreactivationResidual(BlockSpec):
    """Two ReLU-conv3x3-bn and a shortcut: TransNAS-Bench-101's ``basic`` block (arXiv:2105.11871).

    The shortcut is the identity, or a 1x1 convolution and batch norm where stride or channels change.

    Example:
        >>> PreactivationResidual(out_channels=8).lower(in_channels=8)[0].shortcut
        ()
    """

    def first(self, in_channels: int) -> tuple[Op, ...]:
        channels = self.out_channels
        body = (*_relu_conv_bn(in_channels, channels, 3, self.stride), *_relu_conv_bn(channels, channels, 3))
        changes = self.stride > 1 or in_channels != channels
        return (Residual(body, conv_bn(in_channels, channels, 1, self.stride) if changes else ()),)


def check_window(window: object) -> None:
    """Refuses what is no name of a pooling window.

    Raises:
        ArchitectureError: It is none of `WINDOWS`.
    """
    if window not in WINDOWS:
        raise ArchitectureError(f"a pooling window is one of {', '.join(WINDOWS)}, got {str(window)[:30]!r}")


def halving_windows(resolution: Resolution, times: int) -> tuple[str, ...]:
    """Pooling windows that halve a resolution so often as a convolution of stride 2 does: 2x2, at odd sides 3x3.

    Example:
        >>> halving_windows((32, 32), 2), halving_windows((20, 14), 2)
        (('2x2', '2x2'), ('2x2', '3x3'))
    """
    windows = []
    height, width = resolution
    for _ in range(times):
        windows.append("3x3" if height % 2 or width % 2 else "2x2")
        height, width = -(-height // 2), -(-width // 2)
    return tuple(windows)


@lru_cache(maxsize=16_384)
def _live_operations(cell: str) -> tuple[int, ...]:
    """A cell's operations, ``none`` on edges that are on no path from its input to its output."""
    operations = read_cell(cell)
    reached, left = {0}, {3}
    for place, (source, target) in zip(operations, EDGES, strict=True):  # in order of their targets
        if place > 0 and source in reached:
            reached.add(target)
    for place, (source, target) in zip(operations[::-1], EDGES[::-1], strict=True):
        if place > 0 and target in left:
            left.add(source)
    return tuple(
        place if source in reached and target in left else 0
        for place, (source, target) in zip(operations, EDGES, strict=True)
    )


@lru_cache(maxsize=16_384)
def _outline(operations: tuple[int, ...]) -> NASBench201Cell:
    return NASBench201Cell(out_channels=1, cell=cell_text(operations))


@lru_cache(maxsize=16_384)
def _cell_graph(cell: str, in_channels: int, out_channels: int, stride: int) -> Graph:
    operations, sizes = read_cell(cell), (in_channels, out_channels, stride)
    return Graph((_node(operations[:1], *sizes), _node(operations[1:3], *sizes), _node(operations[3:], *sizes)))


@lru_cache(maxsize=4_096)
def _node(operations: tuple[int, ...], in_channels: int, out_channels: int, stride: int) -> Node:
    """A node of a cell by the operations of its edges, of which there are as many as nodes before it."""
    edges = []
    for source, place in enumerate(operations):
        if place > 0:
            channels, step = (out_channels, 1) if source else (in_channels, stride)
            edges.append(Edge(source, _edge_ops(place, channels, out_channels, step)))
    return Node(tuple(edges)) if edges else _zeros(in_channels, out_channels, stride)


@lru_cache(maxsize=1_024)
def _edge_ops(place: int, in_channels: int, out_channels: int, stride: int) -> tuple[Op, ...]:
    name = OPERATIONS[place]
    changes = in_channels != out_channels
    if name == "skip_connect":
        projection = conv_bn(in_channels, out_channels, 1, stride)
        return (RELU, *projection) if stride > 1 else projection if changes else ()
    if name == "avg_pool_3x3":
        projection = _relu_conv_bn(in_channels, out_channels, 1) if changes else ()
        return (*projection, Pool("average", 3, stride))
    return _relu_conv_bn(in_channels, out_channels, 3 if name == "nor_conv_3x3" else 1, stride)


def _zeros(in_channels: int, out_channels: int, stride: int) -> Node:
    """A node that nothing reaches: zeros of the cell's channels and resolution."""
    copies, rest = divmod(out_channels, in_channels)
    if rest or not copies:
        raise ArchitectureError(
            f"a cell with a node of 'none' alone takes channels to a multiple, not {in_channels} to {out_channels}"
        )
    zero = Edge(0, (Zero(stride),))
    return Node((zero,)) if copies == 1 else Node((zero,) * copies, "concatenation")


def _relu_conv_bn(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> tuple[Op, ...]:
    return RELU, *conv_bn(in_channels, out_channels, kernel_size, stride)


def _fault_of_cell(text: str) -> ArchitectureError:
    """What is wrong with a cell's string that is none: the first token that can't stand where it does."""
    position = 0
    for source, target in EDGES:
        if source == 0:
            opening = "|" if target == 1 else "+|"
            if not text.startswith(opening, position):
                return _malformed(text, position, repr(opening))
            position += len(opening)
        token = _TOKEN.match(text, position)
        if token is None or token["source"] != str(source):
            return _malformed(text, position, f"'OPERATION~{source}|'")
        if token["name"] not in OPERATIONS:
            return ArchitectureError(
                f"unknown operation {token['name'][:40]!r} at position {position} of a cell."
                f"{did_you_mean(token['name'][:40], OPERATIONS)} Known: {', '.join(OPERATIONS)}"
            )
        position = token.end()
    return _malformed(text, position, "the end")


def _malformed(text: str, position: int, expected: str) -> ArchitectureError:
    got = repr(text[position : position + 30]) if position < len(text) else "the end"
    return ArchitectureError(f"malformed cell at position {position}: expected {expected}, got {got}")
