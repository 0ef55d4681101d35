"""An architecture as a list of kernels: primitive operations grouped as inference engines fuse them. No torch here.

Latency is a property of what runs in one go: a convolution takes its batch norm and its activation with it. One
lowering serves the prediction, the exported graph and the timers, so that they speak of the same kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import (
    Activation,
    BatchNorm,
    Conv,
    Gate,
    GlobalPool,
    Graph,
    Linear,
    Op,
    Pool,
    Repeat,
    Residual,
    Shape,
    Zero,
)
from zeroshot_nas.errors import ArchitectureError

CONV, DEPTHWISE, LINEAR, GLOBAL_POOL, POOL, ADD, SCALE, CONCATENATE, ZERO, NORM, ACTIVATION = KINDS = (
    "conv",
    "depthwise",
    "linear",
    "global_pool",
    "pool",
    "add",
    "scale",
    "concatenate",
    "zero",
    "norm",
    "activation",
)
"""What a kernel can be; ``scale`` is a gate's product, ``norm`` and ``activation`` are those that nothing took in."""


class Kernel(NamedTuple):
    """What the latency of one kernel depends on, and all it depends on: two equal ones cost the same.

    Attributes:
        kind: One of `KINDS`.
        in_channels: Channels in.
        out_channels: Channels out.
        height: Of the input.
        width: Of the input.
        kernel_size: Of a convolution or pool; 1 otherwise.
        stride: Of a convolution, pool or zero; 1 otherwise.
        groups: Of a convolution; 1 otherwise.
        inputs: How many tensors it joins.
        activation: What it applies to its output: ``""``, ``"relu"`` or ``"sigmoid"``.
        joins: Whether its output goes into a sum at once, which some engines take in as well.
    """

    kind: str
    in_channels: int
    out_channels: int
    height: int
    width: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    inputs: int = 1
    activation: str = ""
    joins: bool = False


class Instruction(NamedTuple):
    """A kernel in its place.

    Attributes:
        kernel: What it is.
        ops: The operations it consists of; a sum, product or concatenation of its sources stands before them.
        sources: The tensors it reads: 0 is the network's input, i the output of the i-th instruction.
        output_shape: Shape ``(C, H, W)`` of what it gives.
    """

    kernel: Kernel
    ops: tuple[Op, ...]
    sources: tuple[int, ...]
    output_shape: Shape


def instructions(chains: Iterable[tuple[Op, ...]], shape: Shape) -> list[Instruction]:
    """Chains of operations, one behind the other, as kernels in the order in which they run.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,8,1,8,1)", (3, 8, 8))
        >>> for kernel, _, sources, _ in instructions(net.lower(), net.input_size):
        ...     print(kernel.kind, kernel.kernel_size, kernel.activation, sources)
        conv 3 relu (0,)
        conv 3 relu (1,)
        conv 3  (2,)
        conv 1  (1,)
        add 1 relu (3, 4)
        global_pool 1  (5,)
        linear 1  (6,)
    """
    return instructions_and_output(chains, shape)[0]


def instructions_and_output(chains: Iterable[tuple[Op, ...]], shape: Shape) -> tuple[list[Instruction], int]:
    """As `instructions`, and the tensor that comes out, which is not the last one where a cell passes its input on."""
    program = _Program([], [shape])
    tensor = 0
    for ops in chains:
        tensor = program.chain(ops, tensor)
    return program.instructions, tensor


def kernels(architecture: Architecture) -> list[Kernel]:
    """The kernels of an architecture in the order in which they run."""
    return [each.kernel for each in instructions(architecture.lower(), architecture.input_size)]


def pieces(ops: tuple[Op, ...]) -> list[tuple[Op, ...]]:
    """A chain cut into operations, each with the norm and the activation that it takes in.

    No kernel reaches beyond its piece, so that what is true of a chain is the sum over its pieces.

    Example:
        >>> [len(piece) for piece in pieces((Conv(3, 8, 3), BatchNorm(8), Activation(), GlobalPool()))]
        [3, 1]
    """
    found, start, count = [], 0, len(ops)
    while start < count:
        kind, end = type(ops[start]), start + 1
        if kind is Conv and end < count and type(ops[end]) is BatchNorm:
            end += 1
        if kind in _TAKE_ACTIVATION and end < count and type(ops[end]) is Activation:
            end += 1
        found.append(ops[start:end])
        start = end
    return found


@dataclass
class _Program:
    """Instructions so far, and the shape of every tensor."""

    instructions: list[Instruction]
    shapes: list[Shape]

    def chain(self, ops: tuple[Op, ...], tensor: int, joins: bool = False) -> int:
        """Appends a chain that reads ``tensor``; ``joins`` says that a sum takes its output. Returns its output."""
        cut = pieces(ops)
        last = len(cut) - 1
        for index, piece in enumerate(cut):
            tensor = self._append(piece, tensor, joins and index == last)
        return tensor

    def _append(self, piece: tuple[Op, ...], tensor: int, joins: bool) -> int:
        """Appends one operation with what it takes in."""
        op = piece[0]
        kind = _KIND.get(type(op))
        if kind is None:
            return self._append_composite(op, piece[1:], tensor)
        shape = self.shapes[tensor]
        out = op.output_shape(shape)
        kernel_size = stride = groups = 1
        if kind is CONV:
            kernel_size, stride, groups = op.kernel_size, op.stride, op.groups  # type: ignore[union-attr]
            kind = DEPTHWISE if groups == op.in_channels > 1 else CONV  # type: ignore[union-attr]
        elif kind is POOL:
            kernel_size, stride = op.kernel_size, op.stride  # type: ignore[union-attr]
        elif kind is ZERO:
            stride = op.stride  # type: ignore[union-attr]
        last = piece[-1]
        activation = last.kind if type(last) is Activation else ""
        kernel = Kernel(kind, shape[0], out[0], shape[1], shape[2], kernel_size, stride, groups, 1, activation, joins)
        return self._add(Instruction(kernel, piece, (tensor,), out))

    def _append_composite(self, op: Op, taken: tuple[Op, ...], tensor: int) -> int:
        if isinstance(op, Residual):
            main, side = self.chain(op.body, tensor, joins=True), self.chain(op.shortcut, tensor)
            return self._join(ADD, (main, side), taken)
        if isinstance(op, Gate):
            return self._join(SCALE, (tensor, self.chain(op.body, tensor)), taken)
        if isinstance(op, Repeat):
            for _ in range(op.times):
                tensor = self.chain(op.body, tensor)
            return tensor
        if isinstance(op, Graph):
            return self._graph(op, tensor, taken)
        raise ArchitectureError(f"no kernel is known for the operation {type(op).__name__}")

    def _join(self, kind: str, sources: tuple[int, ...], taken: tuple[Op, ...]) -> int:
        shape = self.shapes[sources[0]]
        if kind == CONCATENATE:
            shape = (sum(self.shapes[source][0] for source in sources), *shape[1:])
        activation = taken[-1].kind if taken and isinstance(taken[-1], Activation) else ""
        kernel = Kernel(kind, shape[0], shape[0], shape[1], shape[2], 1, 1, 1, len(sources), activation)
        return self._add(Instruction(kernel, taken, sources, shape))

    def _graph(self, graph: Graph, tensor: int, taken: tuple[Op, ...]) -> int:
        nodes = [tensor]
        for index, node in enumerate(graph.nodes, start=1):
            behind = taken if index == len(graph.nodes) else ()
            several = len(node.edges) > 1
            brought = tuple(self.chain(edge.ops, nodes[edge.source], joins=several) for edge in node.edges)
            if several:
                nodes.append(self._join(ADD if node.join == "sum" else CONCATENATE, brought, behind))
            else:
                nodes.append(self.chain(behind, brought[0]))
        return nodes[-1]

    def _add(self, instruction: Instruction) -> int:
        self.instructions.append(instruction)
        self.shapes.append(instruction.output_shape)
        return len(self.instructions)


_TAKE_ACTIVATION = frozenset((Conv, Residual, BatchNorm, Graph))

_KIND: dict[type, str] = {
    Conv: CONV,
    Linear: LINEAR,
    GlobalPool: GLOBAL_POOL,
    Pool: POOL,
    Zero: ZERO,
    BatchNorm: NORM,
    Activation: ACTIVATION,
}
