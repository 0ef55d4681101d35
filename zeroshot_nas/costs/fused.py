"""An architecture as a list of kernels: primitive operations grouped as inference engines fuse them. No torch here.

Latency is a property of what runs in one go: a convolution takes its batch norm and its activation with it. One
lowering serves the prediction, the exported graph and the timers, so that they speak of the same kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from zeroshot_nas.architecture import Architecture
from zeroshot_nas.ops import (
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


def instructions(chains: Iterator[tuple[Op, ...]] | tuple[tuple[Op, ...], ...], shape: Shape) -> list[Instruction]:
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
    program = _Program([], [shape])
    tensor = 0
    for ops in chains:
        tensor = program.chain(ops, tensor)
    return program.instructions


def kernels(architecture: Architecture) -> list[Kernel]:
    """The kernels of an architecture in the order in which they run."""
    return [each.kernel for each in instructions(architecture.lower(), architecture.input_size)]


@dataclass
class _Program:
    """Instructions so far, and the shape of every tensor."""

    instructions: list[Instruction]
    shapes: list[Shape]

    def chain(self, ops: tuple[Op, ...], tensor: int, joins: bool = False) -> int:
        """Appends a chain that reads ``tensor``; ``joins`` says that a sum takes its output. Returns its output."""
        position = 0
        while position < len(ops):
            op = ops[position]
            position += 1
            if isinstance(op, Repeat):
                for _ in range(op.times):
                    tensor = self.chain(op.body, tensor)
                continue
            if isinstance(op, Conv):
                taken = self._following(ops, position, BatchNorm)
                taken += self._following(ops, position + len(taken), Activation)
            elif isinstance(op, Residual | BatchNorm | Graph):
                taken = self._following(ops, position, Activation)
            else:
                taken = ()
            position += len(taken)
            tensor = self._append(op, taken, tensor, joins and position == len(ops))
        return tensor

    @staticmethod
    def _following(ops: tuple[Op, ...], position: int, kind: type) -> tuple[Op, ...]:
        here = ops[position : position + 1]
        return here if here and isinstance(here[0], kind) else ()

    def _append(self, op: Op, taken: tuple[Op, ...], tensor: int, joins: bool) -> int:
        """Appends one operation with what it takes in."""
        if isinstance(op, Residual):
            main, side = self.chain(op.body, tensor, joins=True), self.chain(op.shortcut, tensor)
            return self._join(ADD, (main, side), taken)
        if isinstance(op, Gate):
            return self._join(SCALE, (tensor, self.chain(op.body, tensor)), taken)
        if isinstance(op, Graph):
            return self._graph(op, tensor, taken)
        channels, height, width = self.shapes[tensor]
        out = op.output_shape(self.shapes[tensor])
        activation = next((each.kind for each in (op, *taken) if isinstance(each, Activation)), "")
        kernel = Kernel(_KIND[type(op)], channels, out[0], height, width, activation=activation, joins=joins)
        if isinstance(op, Conv):
            kind = DEPTHWISE if op.groups == op.in_channels > 1 else CONV
            kernel = kernel._replace(kind=kind, kernel_size=op.kernel_size, stride=op.stride, groups=op.groups)
        elif isinstance(op, Pool):
            kernel = kernel._replace(kernel_size=op.kernel_size, stride=op.stride)
        elif isinstance(op, Zero):
            kernel = kernel._replace(stride=op.stride)
        return self._add(Instruction(kernel, (op, *taken), (tensor,), out))

    def _join(self, kind: str, sources: tuple[int, ...], taken: tuple[Op, ...]) -> int:
        shape = self.shapes[sources[0]]
        if kind == CONCATENATE:
            shape = (sum(self.shapes[source][0] for source in sources), *shape[1:])
        activation = next((each.kind for each in taken if isinstance(each, Activation)), "")
        kernel = Kernel(kind, shape[0], shape[0], *shape[1:], inputs=len(sources), activation=activation)
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


_KIND: dict[type, str] = {
    Conv: CONV,
    Linear: LINEAR,
    GlobalPool: GLOBAL_POOL,
    Pool: POOL,
    Zero: ZERO,
    BatchNorm: NORM,
    Activation: ACTIVATION,
}
