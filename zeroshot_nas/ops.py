"""Primitive operations as frozen data: what a block lowers to, and all that costs, closed forms and modules read.

Shapes are those of one image, ``(C, H, W)``. Every operation states its output shape; nothing else about it is said
here: costs are in ``costs``, modules in ``network``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from zeroshot_nas.errors import ArchitectureError

Shape: TypeAlias = tuple[int, int, int]
"""Channels, height and width of one image's tensor."""

Resolution: TypeAlias = tuple[int, int]
"""Height and width."""

BATCH_NORM_EPSILON = 1e-5
"""What batch normalisation adds to the variance."""

Op: TypeAlias = "Conv | BatchNorm | Activation | GlobalPool | Linear | Gate | Residual"
"""Any primitive operation."""


@dataclass(frozen=True, slots=True)
class Conv:
    """A square 2-D convolution with "same" zero padding ``kernel_size // 2``: output side ``ceil(side / stride)``.

    Example:
        >>> Conv(3, 8, kernel_size=3, stride=2).output_shape((3, 15, 15))
        (8, 8, 8)
    """

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    groups: int = 1
    bias: bool = False

    @property
    def fan_in(self) -> int:
        """Inputs of one output value."""
        return self.in_channels // self.groups * self.kernel_size**2

    @property
    def padding(self) -> int:
        """Zeros added on each side."""
        return self.kernel_size // 2

    def output_shape(self, shape: Shape) -> Shape:
        _expect_channels(self, self.in_channels, shape[0])
        reach = 2 * self.padding - self.kernel_size
        height, width = ((side + reach) // self.stride + 1 for side in shape[1:])
        return self.out_channels, height, width


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
        main, side = output_shape(self.body, shape), output_shape(self.shortcut, shape)
        if main != side:
            raise ArchitectureError(f"a residual branch gives {main} but its shortcut {side}; they must be equal")
        return main


def output_shape(ops: tuple[Op, ...], shape: Shape) -> Shape:
    """Shape after a chain of operations.

    Raises:
        ArchitectureError: An operation does not take the shape that reaches it.
    """
    for op in ops:
        shape = op.output_shape(shape)
    return shape


def walk(ops: tuple[Op, ...], shape: Shape) -> Iterator[tuple[Op, Shape, Shape]]:
    """Every operation with the shapes of its input and output, composites before their parts.

    Example:
        >>> [type(op).__name__ for op, _, _ in walk((Residual((Conv(4, 4, 3),)),), (4, 8, 8))]
        ['Residual', 'Conv']
    """
    for op in ops:
        after = op.output_shape(shape)
        yield op, shape, after
        match op:
            case Gate(body=body):
                yield from walk(body, shape)
            case Residual(body=body, shortcut=shortcut):
                yield from walk(body, shape)
                yield from walk(shortcut, shape)
        shape = after


def main_chain(ops: tuple[Op, ...], shape: Shape) -> Iterator[tuple[Op, Shape, Shape]]:
    """The operations of the chain without residual links and gates, with the shapes of their input and output.

    Example:
        >>> [type(op).__name__ for op, _, _ in main_chain((Residual((Conv(4, 4, 3),), ()), Activation()), (4, 8, 8))]
        ['Conv', 'Activation']
    """
    for op in ops:
        after = op.output_shape(shape)
        match op:
            case Residual(body=body):
                yield from main_chain(body, shape)
            case Gate():
                pass
            case _:
                yield op, shape, after
        shape = after


def _expect_channels(op: object, expected: int, got: int) -> None:
    if expected != got:
        raise ArchitectureError(f"{type(op).__name__} expects {expected:,} input channels, got {got:,}")
