"""What a chain of operations does to sums of independent maps, worked out once: a plan that any state runs through.

Random weights make what a convolution or a ReLU adds independent of all that went in, so a tensor is a sum over such
*sources*, each through a fixed linear filter (skips and poolings in a row). The filters depend on the graph alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

from zeroshot_nas.architecture import BlockSpec
from zeroshot_nas.errors import UndefinedScoreError
from zeroshot_nas.meanfield.filters import UNIT, Filter, added, constant, multiplied, pooling, scaled
from zeroshot_nas.meanfield.spectra import torus_side
from zeroshot_nas.ops import (
    Activation,
    BatchNorm,
    Conv,
    Edge,
    Gate,
    Graph,
    Node,
    Op,
    Pool,
    Repeat,
    Residual,
    Resolution,
    Shape,
    Zero,
)

Mix: TypeAlias = tuple[tuple[int, Filter], ...]
"""A tensor: sources, in order, with the filters that they come through. Source 0 is the plan's input, source i + 1 what
its i-th operation adds; backward, source 0 is the gradient of the plan's output."""

_Mix: TypeAlias = dict[int, Filter]  # the same while it is traced

_LARGE = 64  # a side that cuts no kernel

Kind: TypeAlias = Literal["conv", "relu", "norm", "pool", "merge", "concatenation"]


class Stage(NamedTuple):
    """An operation that adds a source.

    Attributes:
        kind: ``norm`` is a batch norm that follows no convolution, ``pool`` one with a stride; ``merge`` turns a sum of
            sources into one.
        op: The convolution or the pooling.
        reads: The tensor that it reads; of a concatenation, the share of channels of each part.
        gradient: The gradient that reaches its output.
        level: Length of the longest path to it from the plan's input.
        shape: Shape of its output.
        torus: Sides of the torus before and behind it.
        normalised: Whether a batch norm follows at once.
        kernel: A convolution's kernel as far as the map reaches.
        counts: Whether a convolution's weights count: a batch norm follows, or further convolutions alone (else its
            output goes into a sum at the size that its initialisation happens to give it).
    """

    kind: Kind
    op: Conv | Pool | None
    reads: Mix
    gradient: Mix
    level: int
    shape: Shape
    torus: tuple[int, int]
    normalised: bool
    kernel: int
    counts: bool


class Layer(NamedTuple):
    """A convolution in its place.

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
        rectified: Whether their inputs are ReLUs of tensors that share these.
        gradients: Sources that their output gradients share.
    """

    stages: tuple[int, int]
    inputs: Mix | None
    rectified: tuple[int, int] | None
    gradients: Mix


@dataclass(frozen=True)
class Plan:
    """What a chain does. Chains that do the same have equal plans, whatever the order of their parallel branches.

    Attributes:
        stages: Operations that add a source, each behind what it reads.
        output: The chain's output.
        input_gradient: The gradient that reaches its input.
        shape: Shape of the output.
        pairs: Convolutions of one graph that may be redundant.
        rivals: Stages that are in a pair, those with more weights first.
        ends_in_relu: Whether the output is a ReLU's.
        layers: All convolutions, in order, dead ones among them; equal plans may differ in these.
    """

    stages: tuple[Stage, ...]
    output: Mix
    input_gradient: Mix
    shape: Shape
    pairs: tuple[Pair, ...]
    rivals: tuple[int, ...]
    ends_in_relu: bool
    layers: tuple[Layer, ...] = field(compare=False)

    @cached_property
    def filters_input(self) -> bool:
        """Whether what comes in goes through a filter other than a factor."""
        return _filters_first(*(stage.reads for stage in self.stages), self.output)

    @cached_property
    def filters_gradient(self) -> bool:
        """The same of the gradient."""
        return _filters_first(*(stage.gradient for stage in self.stages), self.input_gradient)


def _filters_first(*mixes: Mix) -> bool:
    """Whether one of them has source 0 behind a filter that is no factor."""
    return any(mix and mix[0][0] == 0 and constant(mix[0][1]) is None for mix in mixes)


class Site(NamedTuple):
    """A plan where it stands.

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
        channels, *resolution = self.plan.shape
        height, width = self.resolution or resolution
        return channels * self.width, height, width


@lru_cache(maxsize=65_536)
def sub_layer_site(block: BlockSpec, in_channels: int | None, resolution: Resolution) -> Site:
    """The plan of a sub-layer as `sub_layer_plan` has it, shared by blocks that differ in width alone.

    Equal plans are one object.

    Raises:
        UndefinedScoreError: As `sub_layer_plan`.
    """
    outline = block.outline()
    if outline is None or (in_channels is not None and (block.stride > 1 or in_channels != block.out_channels)):
        return Site(_one_of_equals(sub_layer_plan(block, in_channels, resolution)))
    return Site(_outline_plan(outline), block.out_channels, resolution)


@lru_cache(maxsize=16_384)
def _outline_plan(outline: BlockSpec) -> Plan:
    return _one_of_equals(sub_layer_plan(outline, 1, (_LARGE, _LARGE)))


@lru_cache(maxsize=16_384)
def _one_of_equals(plan: Plan) -> Plan:
    """The first plan asked for that equals this one."""
    return plan


@lru_cache(maxsize=16_384)
def sub_layer_plan(block: BlockSpec, in_channels: int | None, resolution: Resolution) -> Plan:
    """The plan of a block's first sub-layer, or for ``in_channels`` None of a following one.

    Raises:
        UndefinedScoreError: It has no path from input to output, or an operation without a rule.
    """
    ops = block.following() if in_channels is None else block.first(in_channels)
    return make_plan(ops, (in_channels or block.out_channels, *resolution))


@lru_cache(maxsize=16_384)
def make_plan(ops: tuple[Op, ...], shape: Shape) -> Plan:
    """The plan of a chain of operations.

    Raises:
        UndefinedScoreError: It has no path from input to output, or an operation without a rule.

    Example:
        >>> conv = Conv(4, 4, 3), BatchNorm(4)
        >>> plan = make_plan((Residual((Activation(), *conv)),), (4, 8, 8))
        >>> [stage.kind for stage in plan.stages]
        ['relu', 'conv']
        >>> [source for source, _ in plan.output]  # the input itself, and the convolution's source
        [0, 2]
    """
    trace = _Trace()
    output = trace.chain(ops, _Tensor({0: UNIT}, shape), None)
    if not output.mix:
        raise UndefinedScoreError("no path leads from the input to the output")
    return trace.plan(output)


@dataclass
class _Tensor:
    """A tensor while it is traced."""

    mix: _Mix
    shape: Shape
    rectified: _Tensor | None = None


@dataclass
class _Draft:
    """A stage while it is traced."""

    kind: Kind
    op: Conv | Pool | None
    reads: _Mix
    level: int
    shape: Shape
    torus: tuple[int, int]
    group: int | None
    kernel: int = 1
    normalised: bool = False
    gradient: _Mix = field(default_factory=dict)


class _Trace:
    """Walks operations and notes what each adds."""

    def __init__(self) -> None:
        self.drafts: list[_Draft] = []
        self.convolutions: list[tuple[Conv, Resolution, int | None]] = []
        self.groups = 0
        self._rectified: dict[int, tuple[_Tensor, _Tensor]] = {}

    def chain(self, ops: Iterable[Op], tensor: _Tensor, group: int | None) -> _Tensor:
        for op in ops:
            tensor = self.step(op, tensor, group)
        return tensor

    def step(self, op: Op, tensor: _Tensor, group: int | None) -> _Tensor:
        if isinstance(op, Graph):
            return self.graph(op, tensor, group)
        if isinstance(op, Residual):
            return self.graph(Graph((Node((Edge(0, op.body), Edge(0, op.shortcut))),)), tensor, group)
        if isinstance(op, Repeat):
            for _ in range(op.times):
                tensor = self.chain(op.body, tensor, group)
            return tensor
        if isinstance(op, Gate):
            return tensor  # the identity in the mean
        shape = op.output_shape(tensor.shape)
        if isinstance(op, Conv):
            return self.convolution(op, tensor, shape, group)
        if isinstance(op, Zero) or not tensor.mix:
            return _Tensor({}, shape)
        if isinstance(op, Pool):
            return self.pooling(op, tensor, shape, group)
        if isinstance(op, BatchNorm):
            return self.batch_norm(tensor, group)
        if isinstance(op, Activation) and op.kind == "relu":
            return self.relu(tensor, group)
        raise UndefinedScoreError(f"the mean field has no rule for {op}")

    def add(
        self, kind: Kind, op: Conv | Pool | None, reads: _Mix, before: Shape, shape: Shape, group: int | None
    ) -> _Tensor:
        level = 1 + max((self.drafts[source - 1].level for source in reads if source), default=0)
        torus = (_torus(before), _torus(shape))
        self.drafts.append(_Draft(kind, op, reads, level, shape, torus, group))
        return _Tensor({len(self.drafts): UNIT}, shape)

    def convolution(self, op: Conv, tensor: _Tensor, shape: Shape, group: int | None) -> _Tensor:
        if op.groups not in (1, op.in_channels):
            raise UndefinedScoreError(f"the mean field has rules for full and for depthwise convolutions, got {op}")
        if not tensor.mix:
            self.convolutions.append((op, shape[1:], None))
            return _Tensor({}, shape)
        output = self.add("conv", op, tensor.mix, tensor.shape, shape, group)
        self.drafts[-1].kernel = reached_kernel(op, min(tensor.shape[1:]))
        self.convolutions.append((op, shape[1:], len(self.drafts) - 1))
        return output

    def pooling(self, op: Pool, tensor: _Tensor, shape: Shape, group: int | None) -> _Tensor:
        if op.stride > 1:
            return self.add("pool", op, tensor.mix, tensor.shape, shape, group)
        mean = pooling(op.kernel_size)
        return _Tensor({source: multiplied(mean, filter_) for source, filter_ in tensor.mix.items()}, shape)

    def batch_norm(self, tensor: _Tensor, group: int | None) -> _Tensor:
        draft = self.draft_of(tensor)
        if draft is not None and draft.kind == "conv" and draft is self.drafts[-1]:
            draft.normalised = True
            return tensor
        return self.add("norm", None, tensor.mix, tensor.shape, tensor.shape, group)

    def relu(self, tensor: _Tensor, group: int | None) -> _Tensor:
        if id(tensor) not in self._rectified:
            output = self.add("relu", None, tensor.mix, tensor.shape, tensor.shape, group)
            self._rectified[id(tensor)] = tensor, output  # the tensor is kept, so that its id stays its own
        return self._rectified[id(tensor)][1]

    def graph(self, graph: Graph, tensor: _Tensor, group: int | None) -> _Tensor:
        if group is None:
            self.groups += 1
            group = self.groups
        outputs = [tensor]
        for node in graph.nodes:
            brought = [self.chain(edge.ops, outputs[edge.source], group) for edge in node.edges]
            joined = self.concatenation(brought, group) if node.join == "concatenation" else _sum(brought)
            outputs.append(joined)
        return outputs[-1]

    def concatenation(self, parts: Sequence[_Tensor], group: int | None) -> _Tensor:
        channels = sum(part.shape[0] for part in parts)
        shape = (channels, *parts[0].shape[1:])
        shares: _Mix = {}
        for part in parts:
            if part.mix:
                single = part if self.draft_of(part) is not None else self.merge(part, group)
                (source,) = single.mix
                _add(shares, {source: scaled(UNIT, part.shape[0] / channels)})
        return self.add("concatenation", None, shares, shape, shape, group) if shares else _Tensor({}, shape)

    def merge(self, tensor: _Tensor, group: int | None) -> _Tensor:
        return self.add("merge", None, tensor.mix, tensor.shape, tensor.shape, group)

    def draft_of(self, tensor: _Tensor) -> _Draft | None:
        """The draft whose output a tensor is, unfiltered."""
        if len(tensor.mix) != 1:
            return None
        ((source, filter_),) = tensor.mix.items()
        return self.drafts[source - 1] if source and filter_ == UNIT else None

    def plan(self, output: _Tensor) -> Plan:
        """Leaves out what does not reach the output, puts the rest in order, and traces the gradients."""
        alive = _in_order(self.drafts, _reached(self.drafts, output.mix), output.mix)
        number = {0: 0, **{old + 1: new + 1 for new, old in enumerate(alive)}}
        drafts = [self.drafts[old] for old in alive]
        for draft in drafts:
            draft.reads = _renumbered(draft.reads, number)
        out = _renumbered(output.mix, number)
        input_gradient = _trace_gradients(drafts, out)
        stages = tuple(
            Stage(
                *(each.kind, each.op, _mix(each.reads), _mix(each.gradient), each.level, each.shape, each.torus),
                *(each.normalised, each.kernel, each.normalised or _read_by_convolutions(drafts, each)),
            )
            for each in drafts
        )
        layers = tuple(
            Layer(conv, resolution, number[old + 1] - 1 if old is not None and old + 1 in number else None)
            for conv, resolution, old in self.convolutions
        )
        last = self.draft_of(output)
        ranking = sorted(
            (place for place, draft in enumerate(drafts) if isinstance(draft.op, Conv)),
            key=lambda place: (-_weights(drafts[place]), alive[place]),
        )
        pairs = tuple(_pairs(drafts))
        paired = {place for pair in pairs for place in pair.stages}
        return Plan(
            *(stages, _mix(out), _mix(input_gradient), output.shape, pairs),
            rivals=tuple(place for place in ranking if place in paired),
            ends_in_relu=last is not None and last.kind == "relu",
            layers=layers,
        )


def reached_kernel(conv: Conv, side: int) -> int:
    """A convolution's kernel as far as a map of that side reaches."""
    return max(1, min(conv.kernel_size, side // conv.dilation))


def _torus(shape: Shape) -> int:
    return torus_side(min(shape[1:]))


def _sum(tensors: Sequence[_Tensor]) -> _Tensor:
    if len(tensors) == 1:
        return tensors[0]
    mix: _Mix = {}
    for tensor in tensors:
        _add(mix, tensor.mix)
    return _Tensor(mix, tensors[0].shape)


def _mix(traced: _Mix) -> Mix:
    return tuple(sorted(traced.items()))


def _add(mix: _Mix, more: _Mix) -> None:
    for source, filter_ in more.items():
        mix[source] = added(mix[source], filter_) if source in mix else filter_


def _scaled(mix: _Mix, factor: float) -> _Mix:
    return {source: scaled(filter_, factor) for source, filter_ in mix.items()}


def _renumbered(mix: _Mix, number: dict[int, int]) -> _Mix:
    return {number[source]: filter_ for source, filter_ in mix.items()}


def _reached(drafts: Sequence[_Draft], output: _Mix) -> list[int]:
    """Places of the drafts from which a path leads to the output."""
    reached = set(output)
    for place in range(len(drafts) - 1, -1, -1):
        if place + 1 in reached:
            reached.update(drafts[place].reads)
    return [place for place in range(len(drafts)) if place + 1 in reached]


def _in_order(drafts: Sequence[_Draft], alive: Sequence[int], output: _Mix) -> list[int]:
    """Places that are alive, sorted by what the drafts are, what they read and what reads them.

    Drafts that all this does not tell apart stay in the chain's order.
    """
    by_level: dict[int, list[int]] = {}
    for place in alive:
        by_level.setdefault(drafts[place].level, []).append(place)
    levels = [by_level[level] for level in sorted(by_level)]
    rank = {0: 0}  # by source
    for places in levels:
        rank |= _ranked({place + 1: _description(drafts[place], rank) for place in places}, start=len(rank))
    readers: dict[int, list[tuple[int, Filter]]] = {source: [] for source in rank}
    for source, filter_ in output.items():
        readers[source].append((0, filter_))
    use = {0: 0}
    for places in reversed(levels):
        read_by = {
            place + 1: tuple(sorted((rank[by], use[by], filter_) for by, filter_ in readers[place + 1]))
            for place in places
        }
        use |= _ranked(read_by, start=len(use))
        for place in places:
            for source, filter_ in drafts[place].reads.items():
                readers[source].append((place + 1, filter_))
    return sorted(alive, key=lambda place: (drafts[place].level, rank[place + 1], use[place + 1], place))


def _ranked(described: dict[int, tuple[Any, ...]], start: int) -> dict[int, int]:
    order = {each: at for at, each in enumerate(sorted(set(described.values())), start)}
    return {source: order[each] for source, each in described.items()}


def _description(draft: _Draft, rank: dict[int, int]) -> tuple[Any, ...]:
    reads = tuple(sorted((rank[source], filter_) for source, filter_ in draft.reads.items()))
    return draft.kind, _numbers(draft.op), draft.normalised, draft.group or 0, reads


@lru_cache(maxsize=4_096)
def _numbers(op: Conv | Pool | None) -> tuple[Any, ...]:
    return () if op is None else astuple(op)


def _trace_gradients(drafts: Sequence[_Draft], output: _Mix) -> _Mix:
    """Fills in the gradient that reaches each draft's output; returns the one that reaches the input."""
    gradients: list[_Mix] = [{} for _ in range(len(drafts) + 1)]
    for source, filter_ in output.items():
        gradients[source] = {0: filter_}
    for place in range(len(drafts) - 1, -1, -1):
        draft = drafts[place]
        draft.gradient = gradients[place + 1]
        for source, filter_ in draft.reads.items():
            _add(gradients[source], _filtered(_passed(draft, place + 1, filter_), filter_, draft.kind))
    return gradients[0]


def _read_by_convolutions(drafts: Sequence[_Draft], draft: _Draft) -> bool:
    return all(source and drafts[source - 1].kind == "conv" for source in draft.gradient)


def _passed(draft: _Draft, own: int, filter_: Filter) -> _Mix:
    """The gradient behind a draft; ``own`` is the source that it adds to gradients."""
    if draft.kind == "merge":
        return draft.gradient
    if draft.kind == "concatenation":
        return _scaled(draft.gradient, _share(filter_) ** 0.5)  # a slice has its share of the energy
    if draft.kind == "relu":
        return {**_scaled(draft.gradient, 0.5), own: UNIT}
    return {own: UNIT}


def _share(filter_: Filter) -> float:
    share = constant(filter_)
    assert share is not None, "a concatenation reads sources unfiltered"
    return share


def _filtered(mix: _Mix, filter_: Filter, kind: Kind) -> _Mix:
    if filter_ == UNIT or kind == "concatenation":
        return mix
    return {source: multiplied(filter_, each) for source, each in mix.items()}


def _pairs(drafts: Sequence[_Draft]) -> Iterable[Pair]:
    """Pairs of convolutions of one graph whose inputs and whose output gradients have something in common."""
    groups: dict[int, list[int]] = {}
    for place, draft in enumerate(drafts):
        if draft.group is not None and isinstance(draft.op, Conv):
            groups.setdefault(draft.group, []).append(place)
    for places in groups.values():
        for first, second in itertools.combinations(places, 2):
            gradients = _shared(drafts[first].gradient, drafts[second].gradient)
            if not gradients:
                continue
            if drafts[first].reads == drafts[second].reads:
                yield Pair((first, second), None, None, gradients)
                continue
            relus = _relu_read(drafts, first), _relu_read(drafts, second)
            if relus[0] is not None and relus[1] is not None:
                inputs = _shared(drafts[relus[0]].reads, drafts[relus[1]].reads)
                rectified = relus[0], relus[1]
                if inputs:
                    yield Pair((first, second), inputs, rectified, gradients)
            elif inputs := _shared(drafts[first].reads, drafts[second].reads):
                yield Pair((first, second), inputs, None, gradients)


def _weights(draft: _Draft) -> int:
    assert isinstance(draft.op, Conv), "pairs are of convolutions"
    return draft.op.out_channels * draft.op.fan_in


def _relu_read(drafts: Sequence[_Draft], place: int) -> int | None:
    """The ReLU whose output, unfiltered, a convolution reads."""
    reads = drafts[place].reads
    if len(reads) != 1:
        return None
    ((source, filter_),) = reads.items()
    return source - 1 if source and filter_ == UNIT and drafts[source - 1].kind == "relu" else None


def _shared(first: _Mix, second: _Mix) -> Mix:
    return _mix({source: multiplied(filter_, second[source]) for source, filter_ in first.items() if source in second})
