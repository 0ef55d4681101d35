"""Primitive operations as frozen data: what a block lowers to, and all that costs, closed forms and modules read.

Shapes are those of one image, ``(C, H, W)``. Every operation states its output shape; nothing else about it is said
here: costs are in ``costs``, modules in ``network``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from zeroshot_nas.errors import ArchitectureError

Shape: TypeAlias = tuple[int, int, int]
"""Channels, height and width of one image's tensor."""

Resolution: TypeAlias = tuple[int, int]
"""Height and width."""

BATCH_NORM_EPSILON = 1e-5
"""What batch normalisation adds to the variance."""

Op: TypeAlias = "Conv | BatchNorm | Activation | Pool | Zero | GlobalPool | Linear | Gate | Residual | Repeat | Graph"
"""Any primitive operation."""


@dataclass(frozen=True, slots=True)
class Conv:
    """A square 2-D convolution with "same" zero padding: output side ``ceil(side / stride)`` for an odd kernel.

    With a dilation d the kernel reads every d-th position.

    Example:
        >>> Conv(3, 8, kernel_size=3, stride=2).output_shape((3, 15, 15))
        (8, 8, 8)
        >>> Conv(3, 8, kernel_size=3, dilation=2).padding
        2
    """

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    groups: int = 1
    bias: bool = False
    dilation: int = 1

    @property
    def fan_in(self) -> int:
        """Inputs of one output value."""
        return self.in_channels // self.groups * self.kernel_size**2

    @property
    def padding(self) -> int:
        """Zeros added on each side."""
        return self.kernel_size // 2 * self.dilation

    def output_shape(self, shape: Shape) -> Shape:
        _expect_channels(self, self.in_channels, shape[0])
        reach, stride = 2 * self.padding - self.dilation * (self.kernel_size - 1) - 1, self.stride
        return self.out_channels, (shape[1] + reach) // stride + 1, (shape[2] + reach) // stride + 1


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Batch normalisation over batch, height and width, with a learned scale and shift a channel."""

    channels: int

    def output_shape(self, shape: Shape) -> Shape:
        _expect_channels(self, self.channels, shape[0])
        return shape


@dataclass(frozen=True, slots=True)
class Activation:
    """An elementwise function."""

    kind: Literal["relu", "sigmoid"] = "relu"

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, slots=True)
class Pool:
    """Average or maximum over a square window; odd windows are padded to keep the resolution, even ones are not.

    Positions outside the image don't count.
    """

    kind: Literal["average", "max"] = "average"
    kernel_size: int = 3
    stride: int = 1

    @property
    def padding(self) -> int:
        """Positions added on each side."""
        return self.kernel_size // 2 if self.kernel_size % 2 else 0

    def output_shape(self, shape: Shape) -> Shape:
        reach = 2 * self.padding - self.kernel_size
        height, width = (reach + shape[1]) // self.stride + 1, (reach + shape[2]) // self.stride + 1
        if height < 1 or width < 1:
            raise ArchitectureError(f"a {self.kernel_size}x{self.kernel_size} window does not fit {shape[1:]}")
        return shape[0], height, width


@dataclass(frozen=True, slots=True)
class Zero:
    """No connection: zeros, of the resolution that a stride leaves."""

    stride: int = 1

    def output_shape(self, shape: Shape) -> Shape:
        return shape[0], -(-shape[1] // self.stride), -(-shape[2] // self.stride)


@dataclass(frozen=True, slots=True)
class GlobalPool:
    """The mean over height and width: ``(C, H, W)`` to ``(C, 1, 1)``."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape[0], 1, 1


@dataclass(frozen=True, slots=True)
class Linear:
    """A fully connected layer on a pooled ``(C, 1, 1)`` tensor."""

    in_features: int
    out_features: int
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        _expect_channels(self, self.in_features, shape[0] * shape[1] * shape[2])
        return self.out_features, 1, 1


@dataclass(frozen=True, slots=True)
class Gate:
    """Multiplies its input by ``body(input)``, broadcast over height and width (squeeze-and-excitation)."""

    body: tuple[Op, ...]

    def output_shape(self, shape: Shape) -> Shape:
        _expect_channels(self, shape[0], output_shape(self.body, shape)[0])
        return shape


@dataclass(frozen=True, slots=True)
class Residual:
    """``body(x) + shortcut(x)``; an empty shortcut is the identity."""

    body: tuple[Op, ...]
    shortcut: tuple[Op, ...] = ()

    def output_shape(self, shape: Shape) -> Shape:
        return _sum_shape(output_shape(self.body, shape), output_shape(self.shortcut, shape))


@dataclass(frozen=True, slots=True)
class Repeat:
    """``times`` copies of ``body`` in a row, each with weights of its own; the body keeps the shape."""

    body: tuple[Op, ...]
    times: int

    def output_shape(self, shape: Shape) -> Shape:
        return _same_shape(shape, output_shape(self.body, shape))


class Edge(NamedTuple):
    """A chain of operations on the output of an earlier node; an empty chain is the identity.

    Attributes:
        source: 0 for the graph's input, i for its i-th node.
        ops: The operations.
    """

    source: int
    ops: tuple[Op, ...] = ()


class Node(NamedTuple):
    """The sum, or the concatenation over channels, of what its edges bring."""

    edges: tuple[Edge, ...]
    join: Literal["sum", "concatenation"] = "sum"


@dataclass(frozen=True, slots=True)
class Graph:
    """A directed acyclic graph of nodes, each reading earlier ones; the last node is the output (a cell).

    Example:
        >>> skip_and_convolution = Node((Edge(0), Edge(0, (Conv(4, 4, 3),))))
        >>> Graph((skip_and_convolution,)).output_shape((4, 8, 8))
        (4, 8, 8)
    """

    nodes: tuple[Node, ...]

    def output_shape(self, shape: Shape) -> Shape:
        return _walk_graph(self, shape, 1, [])


def output_shape(ops: tuple[Op, ...], shape: Shape) -> Shape:
    """Shape after a chain of operations.

    Raises:
        ArchitectureError: An operation does not take the shape that reaches it.
    """
    for op in ops:
        shape = op.output_shape(shape)
    return shape


OPS = (Conv, BatchNorm, Activation, Pool, Zero, GlobalPool, Linear, Graph)
"""Classes of operations that stand in a `Step`."""

COMPOSITES = (Residual, Repeat, Gate)
"""Classes of operations that `walk` enters, so that only what they hold stands in steps."""


class Step(NamedTuple):
    """One primitive operation in its place.

    Attributes:
        op: The operation.
        input_shape: Shape that it takes.
        output_shape: Shape that it gives.
        times: How often it stands there in a row of repeats.
        in_main_chain: Whether it is there when residual links and gates are left out, as Zen-score does.
    """

    op: Op
    input_shape: Shape
    output_shape: Shape
    times: int
    in_main_chain: bool


def walk(ops: tuple[Op, ...], shape: Shape) -> tuple[list[Step], Shape]:
    """Every primitive operation with its shapes, in order, and the shape behind the chain.

    Composites are entered: a residual's body stands before its shortcut, a repeat stands once with its number. A graph
    stands before what it holds, which is in no main chain.

    Example:
        >>> ops = (Repeat((Residual((Conv(4, 4, 3),), (Conv(4, 4, 1),)), Activation()), times=2),)
        >>> [(type(step.op).__name__, step.times, step.in_main_chain) for step in walk(ops, (4, 8, 8))[0]]
        [('Conv', 2, True), ('Conv', 2, False), ('Activation', 2, True)]
    """
    steps: list[Step] = []
    return steps, _walk(ops, shape, 1, True, steps)


def _walk(ops: tuple[Op, ...], shape: Shape, times: int, main: bool, steps: list[Step]) -> Shape:
    for op in ops:
        if isinstance(op, Graph):
            start = len(steps)
            after = _walk_graph(op, shape, times, steps)
            steps.insert(start, Step(op, shape, after, times, main))
            shape = after
        elif isinstance(op, COMPOSITES):
            shape = _enter(op, shape, times, main, steps)
        else:
            after = op.output_shape(shape)
            steps.append(Step(op, shape, after, times, main))
            shape = after
    return shape


def _enter(op: Residual | Repeat | Gate, shape: Shape, times: int, main: bool, steps: list[Step]) -> Shape:
    if isinstance(op, Residual):
        after = _walk(op.body, shape, times, main, steps)
        return _sum_shape(after, _walk(op.shortcut, shape, times, False, steps))
    if isinstance(op, Repeat):
        return _same_shape(shape, _walk(op.body, shape, times * op.times, main, steps))
    _walk(op.body, shape, times, False, steps)
    return op.output_shape(shape)


def _walk_graph(graph: Graph, shape: Shape, times: int, steps: list[Step]) -> Shape:
    return graph_shape(graph, shape, lambda ops, inner: _walk(ops, inner, times, False, steps))


def graph_shape(graph: Graph, shape: Shape, edge_shape: Callable[[tuple[Op, ...], Shape], Shape]) -> Shape:
    """Shape behind a graph.

    Args:
        graph: The graph.
        shape: Shape that it takes.
        edge_shape: Called with the operations of every edge and the shape that they take, in order; gives the shape
            behind them.

    Raises:
        ArchitectureError: A node reads none before it, or what its edges bring does not fit.
    """
    shapes = [shape]
    for index, node in enumerate(graph.nodes, start=1):
        brought = []
        for source, ops in node.edges:
            if not 0 <= source < index:
                break
            brought.append(edge_shape(ops, shapes[source]))
        if not brought or len(brought) < len(node.edges):
            raise ArchitectureError(f"node {index} of a graph must read at least one node before it, got {node.edges}")
        if node.join == "concatenation":
            fits = all(other[1:] == brought[0][1:] for other in brought)
            shapes.append((sum(other[0] for other in brought), *brought[0][1:]))
        else:
            fits = brought.count(brought[0]) == len(brought)
            shapes.append(brought[0])
        if not fits:
            raise ArchitectureError(f"node {index} of a graph is a {node.join} of {brought}; they don't fit")
    if len(shapes) == 1:
        raise ArchitectureError("a graph needs at least one node")
    return shapes[-1]


def _sum_shape(main: Shape, side: Shape) -> Shape:
    if main != side:
        raise ArchitectureError(f"a residual branch gives {main} but its shortcut {side}; they must be equal")
    return main


def _same_shape(before: Shape, after: Shape) -> Shape:
    if before != after:
        raise ArchitectureError(f"a repeated body takes {before} but gives {after}; they must be equal")
    return after


def _expect_channels(op: object, expected: int, got: int) -> None:
    if expected != got:
        raise ArchitectureError(f"{type(op).__name__} expects {expected:,} input channels, got {got:,}")
