"""Plans: the effect of a chain of operations on sums of independent maps, worked out once for any state.

Random weights make what a convolution or a ReLU adds independent of all that went in, so a tensor is a sum over such
*sources*, each through a fixed linear filter (skips and poolings in a row). The filters depend on the graph alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

from zeroshot_nas.architecture.ops import Conv, Pool, Resolution, Shape
from zeroshot_nas.closed_form.cet.filters import Filter, constant

Mix: TypeAlias = tuple[tuple[int, Filter], ...]
"""A tensor: sources, in order, with the filters that they come through. Source 0 is the plan's input, source i + 1 the
one that its i-th operation adds; backward, source 0 is the gradient of the plan's output."""

Kind: TypeAlias = Literal["conv", "relu", "norm", "pool", "merge", "concatenation"]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that adds a source.

    Attributes:
        kind: ``norm`` is a batch norm that follows no convolution, ``pool`` one with a stride; ``merge`` turns a sum of
            sources into one.
        op: The convolution or the pooling.
        reads: The tensor that it reads; of a concatenation, the share of channels of each part.
        level: Length of the longest path to it from the plan's input.
        shape: Shape of its output.
        tori: Sides of the torus before and behind it, where it has a stride; else not told.
        group: Number of the graph that it is in; 0 outside.
        kernel: A convolution's kernel as far as the map reaches.
        normalised: True where a batch norm follows at once.
    """

    kind: Kind
    op: Conv | Pool | None
    reads: Mix
    level: int
    shape: Shape
    tori: tuple[int, int]
    group: int
    kernel: int
    normalised: bool


@dataclass(frozen=True, slots=True)
class Stage(Operation):
    """An operation that adds a source, with the gradient that comes back to it.

    Attributes:
        gradient: The gradient that reaches its output.
        counts: True where a convolution's weights count: a batch norm follows, or further convolutions alone (else its
            output goes into a sum at the size that its initialisation happens to give it).
    """

    gradient: Mix
    counts: bool


class TracedConv(NamedTuple):
    """A convolution of a sub-layer, alive or dead.

    Attributes:
        conv: The convolution.
        resolution: Height and width of its output.
        stage: Its place among the plan's stages; None where it is dead: no path from the input, or none to the output.
    """

    conv: Conv
    resolution: Resolution
    stage: int | None


class Pair(NamedTuple):
    """Two convolutions that may be the same map in part.

    Attributes:
        stages: Their places.
        inputs: Sources that their inputs share, with the product of the filters; None where both read the same tensor.
        rectified: Places of the ReLUs that they read, where it is the tensors before these that share ``inputs``; else
            None.
        gradients: Sources that their output gradients share.
    """

    stages: tuple[int, int]
    inputs: Mix | None
    rectified: tuple[int, int] | None
    gradients: Mix


@dataclass(frozen=True, eq=False)
class Plan:
    """A sub-layer's operations. Sub-layers that do the same share one, whatever the order of their parallel branches.

    Attributes:
        stages: Operations that add a source, each behind what it reads.
        output: The chain's output.
        input_gradient: The gradient that reaches its input.
        shape: Shape of the output.
        pairs: Convolutions of one graph that may be redundant.
        rivals: Stages that are in a pair, those with more weights first, of equal ones the first in the chain.
        ends_in_relu: True where the output is a ReLU's.
    """

    stages: tuple[Stage, ...]
    output: Mix
    input_gradient: Mix
    shape: Shape
    pairs: tuple[Pair, ...]
    rivals: tuple[int, ...]
    ends_in_relu: bool

    @cached_property
    def filters_input(self) -> bool:
        """True where the input goes through a filter other than a factor."""
        return _filters_first(*(stage.reads for stage in self.stages), self.output)

    @cached_property
    def filters_gradient(self) -> bool:
        """The same of the gradient."""
        return _filters_first(*(stage.gradient for stage in self.stages), self.input_gradient)


def _filters_first(*mixes: Mix) -> bool:
    """True where one of them has source 0 behind a filter that is no factor."""
    return any(mix and mix[0][0] == 0 and constant(mix[0][1]) is None for mix in mixes)


class PlacedPlan(NamedTuple):
    """A plan in its place in a network.

    Attributes:
        plan: The plan.
        width: Factor on all its channels.
        resolution: Height and width of all its maps; None where they are as the plan has them.
    """

    plan: Plan
    width: int = 1
    resolution: Resolution | None = None

    @property
    def shape(self) -> Shape:
        """Shape of the output."""
        shape = self.plan.shape
        height, width = self.resolution or shape[1:]
        return shape[0] * self.width, height, width
