"""What an interpreter on a microcontroller runs: an architecture as operators of TensorFlow Lite. No torch here.

The memory model and the exported file read the same operators, so that they speak of the same network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec
from zeroshot_nas.architecture.kernels import (
    ACTIVATION,
    ADD,
    CONCATENATE,
    GLOBAL_POOL,
    LINEAR,
    NORM,
    POOL,
    SCALE,
    ZERO,
    Instruction,
    instructions_and_output,
)
from zeroshot_nas.architecture.ops import Conv, Op, Pool, Resolution, Shape

NORMALIZE = -1
"""The instruction that the first operator of a network belongs to: the images' normalisation."""

OPERATORS = (
    "ADD",
    "AVERAGE_POOL_2D",
    "CONCATENATION",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "LOGISTIC",
    "MAX_POOL_2D",
    "MEAN",
    "MUL",
    "PAD",
    "RELU",
)
"""Every operator that networks become; a device's interpreter needs no other."""


class Operator(NamedTuple):
    """One operator in its place.

    Attributes:
        code: One of `OPERATORS`.
        inputs: The tensors it reads: 0 is what goes in, i the output of the i-th operator.
        shape: Shape ``(C, H, W)`` of its output.
        instruction: Index of the kernel that it belongs to, or `NORMALIZE`.
        weights: How many weights it has.
        channels: How many biases and scales it has.
        kernel_size: Of a window.
        stride: Of a window.
        dilation: Of a convolution.
        same: Whether padding is TensorFlow's ``SAME``, else ``VALID``.
        relu: Whether it applies a ReLU to its output.
        pads: Rows above and below, columns left and right that a PAD adds.
        layer: The place of a convolution or linear layer among them; None for others.
        weight_bits: Bits of a weight.
    """

    code: str
    inputs: tuple[int, ...]
    shape: Shape
    instruction: int
    weights: int = 0
    channels: int = 0
    kernel_size: int = 1
    stride: int = 1
    dilation: int = 1
    same: bool = False
    relu: bool = False
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    layer: int | None = None
    weight_bits: int = 8

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights, packed."""
        return packed_bytes(self.weights, self.weight_bits)


def packed_bytes(weights: int, bits: int) -> int:
    """Bytes of so many weights of so many bits.

    Example:
        >>> packed_bytes(27, 4)
        14
    """
    return -(-weights * bits // 8)


def network_operators(architecture: Architecture) -> list[Operator]:
    """The operators of an architecture in the order in which kernels run, the normalisation of its images first.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,8,2,1)SuperResK3K3(8,8,1,8,1)", (3, 8, 8))
        >>> [operator.code for operator in network_operators(net)]  # doctest: +NORMALIZE_WHITESPACE
        ['DEPTHWISE_CONV_2D', 'PAD', 'CONV_2D', 'CONV_2D', 'CONV_2D', 'CONV_2D', 'ADD', 'MEAN', 'FULLY_CONNECTED']
    """
    found = operators(architecture.lower(), architecture.input_size, normalize=True)
    if architecture.weight_bits is None:
        return found
    bits = architecture.weight_bits
    return [each if each.layer is None else each._replace(weight_bits=bits[each.layer]) for each in found]


@lru_cache(maxsize=16_384)
def sub_layer_operators(block: BlockSpec, in_channels: int | None, resolution: Resolution) -> tuple[Operator, ...]:
    """The operators of a block's first sub-layer, or for ``in_channels`` None of a following one."""
    if in_channels is None:
        return tuple(operators((block.following(),), (block.out_channels, *resolution)))
    return tuple(operators((block.first(in_channels),), (in_channels, *resolution)))


def operators(chains: Iterable[tuple[Op, ...]], shape: Shape, normalize: bool = False) -> list[Operator]:
    """Chains of operations, one behind the other, as operators; those whose output nobody reads are left out.

    Args:
        chains: The chains.
        shape: Shape of what goes in.
        normalize: Whether to begin with the normalisation of images, channel by channel.
    """
    program, output = instructions_and_output(chains, shape)
    lowering = _Lowering(shape, normalize, Counter(source for each in program for source in each.sources))
    for index, instruction in enumerate(program):
        lowering.add(index, instruction)
    return lowering.needed_for(output)


class _Lowering:
    """Operators so far, and the tensor that each kernel gives."""

    def __init__(self, shape: Shape, normalize: bool, readers: Mapping[int, int]) -> None:
        self.found: list[Operator] = []
        self.shapes = [shape]
        self.readers = readers
        self.zeros: set[int] = set()
        self.layers = 0
        first = 0
        if normalize:
            first = self._put("DEPTHWISE_CONV_2D", (0,), shape, NORMALIZE, weights=shape[0], channels=shape[0])
        self.tensors = [first]

    def add(self, index: int, instruction: Instruction) -> None:
        kernel, _, sources, shape = instruction
        inputs = tuple(self.tensors[source] for source in sources)
        kind, relu = kernel.kind, kernel.activation == "relu"
        if kind == ADD:
            tensor = self._sum(index, inputs, shape, relu)
        elif kind == CONCATENATE:
            tensor = self._relu_behind(self._put("CONCATENATION", inputs, shape, index), index, relu)
        elif kind == SCALE:
            tensor = self._put("MUL", inputs, shape, index, relu=relu)
        elif kind == POOL:
            tensor = self._pool(index, instruction, inputs[0])
        elif kind == GLOBAL_POOL:
            tensor = self._put("MEAN", inputs, shape, index)
        elif kind == LINEAR:
            weights = instruction.ops[0].in_features * shape[0]  # type: ignore[union-attr]
            layer = self._next_layer()
            tensor = self._put("FULLY_CONNECTED", inputs, shape, index, weights, shape[0], layer=layer)
        elif kind in (NORM, ZERO):
            tensor = self._put(
                "DEPTHWISE_CONV_2D", inputs, shape, index, shape[0], shape[0], stride=kernel.stride, relu=relu
            )
            if kind == ZERO and self.readers[index + 1] == 1:
                self.zeros.add(tensor)  # what others read too stays, so that a block is the same in any network
        elif kind == ACTIVATION:
            tensor = self._relu_behind(inputs[0], index, relu)
        else:
            tensor = self._convolution(index, instruction, inputs[0], relu)
        if kernel.activation == "sigmoid":
            tensor = self._put("LOGISTIC", (tensor,), shape, index)
        self.tensors.append(tensor)

    def needed_for(self, output: int) -> list[Operator]:
        """The operators that a kernel's output needs."""
        needed = {self.tensors[output]}
        for tensor in range(len(self.found), 0, -1):
            if tensor in needed:
                needed.update(self.found[tensor - 1].inputs)
        kept = [tensor for tensor in range(1, len(self.found) + 1) if tensor in needed]
        if len(kept) == len(self.found):
            return self.found
        names = {0: 0, **{tensor: place for place, tensor in enumerate(kept, start=1)}}
        return [
            (each := self.found[tensor - 1])._replace(inputs=tuple(names[source] for source in each.inputs))
            for tensor in kept
        ]

    def _sum(self, index: int, inputs: tuple[int, ...], shape: Shape, relu: bool) -> int:
        """A sum, two tensors at a time; zeros are left out."""
        summands = [tensor for tensor in inputs if tensor not in self.zeros] or [inputs[0]]
        self.zeros.difference_update(inputs)
        if len(summands) == 1:
            return self._relu_behind(summands[0], index, relu)
        tensor = summands[0]
        for place, other in enumerate(summands[1:], start=2):
            tensor = self._put("ADD", (tensor, other), shape, index, relu=relu and place == len(summands))
        return tensor

    def _relu_behind(self, tensor: int, index: int, relu: bool) -> int:
        return self._put("RELU", (tensor,), self.shapes[tensor], index) if relu else tensor

    def _pool(self, index: int, instruction: Instruction, tensor: int) -> int:
        (op, *_), shape = instruction.ops, instruction.output_shape
        assert isinstance(op, Pool)
        code = "MAX_POOL_2D" if op.kind == "max" else "AVERAGE_POOL_2D"
        height, width = self.shapes[tensor][1:]
        padding = [_padding(side, op.kernel_size, op.stride, op.padding) for side in (height, width)]
        if padding[0] == padding[1] is not None:
            same = padding[0] == "same"
            return self._put(code, (tensor,), shape, index, kernel_size=op.kernel_size, stride=op.stride, same=same)
        # TensorFlow would place the windows elsewhere: all of them, then every other one
        whole = self._put(code, (tensor,), self.shapes[tensor], index, kernel_size=op.kernel_size, same=True)
        return self._put("MAX_POOL_2D", (whole,), shape, index, stride=op.stride)

    def _convolution(self, index: int, instruction: Instruction, tensor: int, relu: bool) -> int:
        (op, *_), shape = instruction.ops, instruction.output_shape
        assert isinstance(op, Conv)
        depthwise = op.groups == op.in_channels > 1 and op.out_channels % op.in_channels == 0
        sides: Resolution = self.shapes[tensor][1:]
        size, padding = op.kernel_size, _conv_padding(op, sides, op.kernel_size)
        if padding is None and depthwise and op.dilation == 1:
            wider = _conv_padding(op, sides, size + 1)  # a last row and column of zeros is cheaper than a padded copy
            size, padding = (size + 1, wider) if wider == "same" else (size, None)
        if padding is None:
            pads = [_pads(side, after, op) for side, after in zip(sides, shape[1:], strict=True)]
            padded = (op.in_channels, *(side + sum(pad) for side, pad in zip(sides, pads, strict=True)))
            tensor = self._put("PAD", (tensor,), (padded[0], padded[1], padded[2]), index, pads=(*pads[0], *pads[1]))
        weights = op.out_channels * (op.in_channels // op.groups) * size**2
        return self._put(
            "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
            (tensor,),
            shape,
            index,
            weights,
            shape[0],
            size,
            op.stride,
            op.dilation,
            padding == "same",
            relu,
            layer=self._next_layer(),
        )

    def _next_layer(self) -> int:
        self.layers += 1
        return self.layers - 1

    def _put(
        self,
        code: str,
        inputs: tuple[int, ...],
        shape: Shape,
        instruction: int,
        weights: int = 0,
        channels: int = 0,
        kernel_size: int = 1,
        stride: int = 1,
        dilation: int = 1,
        same: bool = False,
        relu: bool = False,
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        layer: int | None = None,
    ) -> int:
        window = (kernel_size, stride, dilation, same)
        self.found.append(Operator(code, inputs, shape, instruction, weights, channels, *window, relu, pads, layer))
        self.shapes.append(shape)
        return len(self.found)


def _conv_padding(op: Conv, sides: Iterable[int], size: int) -> str | None:
    """TensorFlow's name for a convolution's padding with a kernel of that size; None where it has none."""
    names = {_padding(side, op.dilation * (size - 1) + 1, op.stride, op.padding) for side in sides}
    return names.pop() if len(names) == 1 else None


def _padding(side: int, reach: int, stride: int, padding: int) -> str | None:
    """What TensorFlow calls a padding by which windows stand as ours do; None where it has no name for it."""
    if padding == 0:
        return "valid"
    needed = (-(-side // stride) - 1) * stride + reach - side
    return "same" if needed // 2 == padding else None


def _pads(side: int, after: int, op: Conv) -> tuple[int, int]:
    """Zeros before and behind a side that a convolution without padding needs; none that it would not read."""
    reach = op.dilation * (op.kernel_size - 1) + 1
    return op.padding, max((after - 1) * op.stride + reach - side - op.padding, 0)
