"""From operations to plans: a block or cell is run once with symbols in place of tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from zeroshot_nas.architecture.blockspec import BlockSpec
from zeroshot_nas.architecture.ops import (
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
from zeroshot_nas.closed_form.cet.filters import UNIT, Filter, added, constant, multiplied, pooling, scaled
from zeroshot_nas.closed_form.cet.plan import Kind, Mix, Operation, Pair, PlacedPlan, Plan, Stage, TracedConv
from zeroshot_nas.closed_form.cet.spectra import torus_side
from zeroshot_nas.errors import UndefinedScoreError

_LARGE = 64  # a side that cuts no kernel

_Mix: TypeAlias = dict[int, Filter]  # the same while it is traced


def placed_sub_layer(block: BlockSpec, in_channels: int | None, resolution: Resolution) -> PlacedPlan:
    """The plan of a block's first sub-layer, or for ``in_channels`` None of a following one.

    Blocks that differ in width alone share it where they say so.

    Raises:
        UndefinedScoreError: It has no path from input to output, or an operation without a rule.
    """
    outline = block.outline()
    if outline is None or (in_channels is not None and (block.stride > 1 or in_channels != block.out_channels)):
        return PlacedPlan(trace_sub_layer(block, in_channels, resolution).plan)
    return PlacedPlan(trace_sub_layer(outline, 1, (_LARGE, _LARGE)).plan, block.out_channels, resolution)


class Traced(NamedTuple):
    """A chain of operations.

    Attributes:
        plan: Its plan.
        convolutions: All its convolutions, in order, dead ones among them.
    """

    plan: Plan
    convolutions: tuple[TracedConv, ...]


@lru_cache(maxsize=16_384)
def trace_sub_layer(block: BlockSpec, in_channels: int | None, resolution: Resolution) -> Traced:
    """A block's first sub-layer, or for ``in_channels`` None a following one.

    Raises:
        UndefinedScoreError: It has no path from input to output, or an operation without a rule.
    """
    ops = block.following() if in_channels is None else block.first(in_channels)
    return trace(ops, (in_channels or block.out_channels, *resolution))


def trace(ops: tuple[Op, ...], shape: Shape) -> Traced:
    """A chain of operations that takes tensors of that shape.

    Raises:
        UndefinedScoreError: It has no path from input to output, or an operation without a rule.

    Example:
        >>> conv = Conv(4, 4, 3), BatchNorm(4)
        >>> plan = trace((Residual((Activation(), *conv)),), (4, 8, 8)).plan
        >>> [stage.kind for stage in plan.stages]
        ['relu', 'conv']
        >>> [source for source, _ in plan.output]  # the input itself, and the convolution's source
        [0, 2]
    """
    walked = _Trace()
    output = walked.chain(ops, _Tensor({0: UNIT}, shape), 0)
    if not output.mix:
        raise UndefinedScoreError("no path leads from the input to the output")
    return walked.traced(output)


@dataclass(slots=True)
class _Tensor:
    """A tensor while it is traced, and its ReLU where something reads that."""

    mix: _Mix
    shape: Shape
    rectified: _Tensor | None = None


@dataclass(slots=True)
class _Draft:
    """An operation while it is traced."""

    kind: Kind
    op: Conv | Pool | None
    reads: _Mix
    level: int
    shape: Shape
    tori: tuple[int, int]
    group: int
    kernel: int = 1
    normalised: bool = False

    @property
    def label(self) -> tuple[Any, ...]:
        """Its operation without what it reads, to sort by."""
        return self.level, self.kind, _numbers(self.op), self.normalised, self.group

    def operation(self, number: dict[int, int]) -> Operation:
        """With the sources that it reads by their numbers."""
        return Operation(
            *(self.kind, self.op, _numbered(self.reads, number), self.level, self.shape, self.tori, self.group),
            *(self.kernel, self.normalised),
        )


class _Trace:
    """Walks operations and drafts each that adds a source."""

    def __init__(self) -> None:
        self.drafts: list[_Draft] = []
        self.convolutions: list[tuple[Conv, Resolution, int | None]] = []
        self.groups = 0

    def chain(self, ops: Iterable[Op], tensor: _Tensor, group: int) -> _Tensor:
        for op in ops:
            tensor = self.step(op, tensor, group)
        return tensor

    def step(self, op: Op, tensor: _Tensor, group: int) -> _Tensor:
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

    def add(self, kind: Kind, op: Conv | Pool | None, reads: _Mix, before: Shape, shape: Shape, group: int) -> _Tensor:
        level = 1 + max(self.drafts[source - 1].level if source else 0 for source in reads)
        tori = (_torus(before), _torus(shape)) if op is not None and op.stride > 1 else (0, 0)
        self.drafts.append(_Draft(kind, op, reads, level, shape, tori, group))
        return _Tensor({len(self.drafts): UNIT}, shape)

    def convolution(self, op: Conv, tensor: _Tensor, shape: Shape, group: int) -> _Tensor:
        if op.groups not in (1, op.in_channels):
            raise UndefinedScoreError(f"the mean field has rules for full and for depthwise convolutions, got {op}")
        if not tensor.mix:
            self.convolutions.append((op, shape[1:], None))
            return _Tensor({}, shape)
        output = self.add("conv", op, tensor.mix, tensor.shape, shape, group)
        self.drafts[-1].kernel = reached_kernel(op, min(tensor.shape[1:]))
        self.convolutions.append((op, shape[1:], len(self.drafts) - 1))
        return output

    def pooling(self, op: Pool, tensor: _Tensor, shape: Shape, group: int) -> _Tensor:
        if op.stride > 1:
            return self.add("pool", op, tensor.mix, tensor.shape, shape, group)
        mean = pooling(op.kernel_size)
        return _Tensor({source: multiplied(mean, filter_) for source, filter_ in tensor.mix.items()}, shape)

    def batch_norm(self, tensor: _Tensor, group: int) -> _Tensor:
        draft = self.draft_of(tensor)
        if draft is not None and draft.kind == "conv" and draft is self.drafts[-1]:
            draft.normalised = True
            return tensor
        return self.add("norm", None, tensor.mix, tensor.shape, tensor.shape, group)

    def relu(self, tensor: _Tensor, group: int) -> _Tensor:
        if tensor.rectified is None:
            tensor.rectified = self.add("relu", None, tensor.mix, tensor.shape, tensor.shape, group)
        return tensor.rectified

    def graph(self, graph: Graph, tensor: _Tensor, group: int) -> _Tensor:
        if not group:
            self.groups += 1
            group = self.groups
        outputs = [tensor]
        for node in graph.nodes:
            brought = [self.chain(edge.ops, outputs[edge.source], group) for edge in node.edges]
            joined = self.concatenation(brought, group) if node.join == "concatenation" else _sum(brought)
            outputs.append(joined)
        return outputs[-1]

    def concatenation(self, parts: Sequence[_Tensor], group: int) -> _Tensor:
        channels = sum(part.shape[0] for part in parts)
        shape = (channels, *parts[0].shape[1:])
        shares: _Mix = {}
        for part in parts:
            if part.mix:
                single = part if self.draft_of(part) is not None else self.merge(part, group)
                (source,) = single.mix
                _add(shares, {source: scaled(UNIT, part.shape[0] / channels)})
        return self.add("concatenation", None, shares, shape, shape, group) if shares else _Tensor({}, shape)

    def merge(self, tensor: _Tensor, group: int) -> _Tensor:
        return self.add("merge", None, tensor.mix, tensor.shape, tensor.shape, group)

    def draft_of(self, tensor: _Tensor) -> _Draft | None:
        """The draft whose output a tensor is, unfiltered."""
        if len(tensor.mix) != 1:
            return None
        ((source, filter_),) = tensor.mix.items()
        return self.drafts[source - 1] if source and filter_ == UNIT else None

    def traced(self, output: _Tensor) -> Traced:
        """Leaves out what does not reach the output, and puts the rest in order."""
        order = _in_order(self.drafts, _reached(self.drafts, output.mix), output.mix)
        number = {0: 0, **{old + 1: new + 1 for new, old in enumerate(order)}}
        operations = tuple(self.drafts[old].operation(number) for old in order)
        plan = _plan(operations, _numbered(output.mix, number), output.shape)
        rivals = tuple(sorted(plan.rivals, key=lambda place: (-_weights(operations[place]), order[place])))
        convolutions = tuple(
            TracedConv(conv, resolution, number[old + 1] - 1 if old is not None and old + 1 in number else None)
            for conv, resolution, old in self.convolutions
        )
        return Traced(plan if rivals == plan.rivals else _with_rivals(plan, rivals), convolutions)


@lru_cache(maxsize=16_384)
def _plan(operations: tuple[Operation, ...], output: Mix, shape: Shape) -> Plan:
    """The plan of operations in order."""
    gradients = _trace_gradients(operations, output)
    stages = tuple(
        Stage(
            *(each.kind, each.op, each.reads, each.level, each.shape, each.tori, each.group, each.kernel),
            *(each.normalised, _mix(gradient), each.normalised or _is_of_convolutions(gradient, operations)),
        )
        for each, gradient in zip(operations, gradients[1:], strict=True)
    )
    pairs = tuple(_pairs(stages))
    return Plan(
        *(stages, output, _mix(gradients[0]), shape, pairs),
        rivals=tuple(sorted({place for pair in pairs for place in pair.stages})),
        ends_in_relu=_alone(output) is not None and stages[-1].kind == "relu",
    )


@lru_cache(maxsize=16_384)
def _with_rivals(plan: Plan, rivals: tuple[int, ...]) -> Plan:
    return replace(plan, rivals=rivals)


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


def _numbered(mix: _Mix, number: dict[int, int]) -> Mix:
    return tuple(sorted([(number[source], filter_) for source, filter_ in mix.items()]))


def _alone(mix: Mix) -> int | None:
    """The only source of a mix, unfiltered, by its place; None for another mix and for the input."""
    if len(mix) > 1:
        return None
    ((source, filter_),) = mix
    return source - 1 if source and filter_ == UNIT else None


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
    readers: dict[int, list[tuple[tuple[Any, ...], Filter]]] = {0: [], **{place + 1: [] for place in alive}}
    for source, filter_ in output.items():
        readers[source].append(((), filter_))
    by_level: dict[int, list[int]] = {}
    for place in alive:
        draft = drafts[place]
        by_level.setdefault(draft.level, []).append(place)
        for source, filter_ in draft.reads.items():
            readers[source].append((draft.label, filter_))
    order: list[int] = []
    number = {0: 0}
    for level in sorted(by_level):
        places = by_level[level]
        if len(places) > 1:
            places.sort(
                key=lambda place: (
                    drafts[place].label,
                    _numbered(drafts[place].reads, number),
                    sorted(readers[place + 1]),
                )
            )
        order += places
        number |= {place + 1: len(number) + at for at, place in enumerate(places)}
    return order


@lru_cache(maxsize=4_096)
def _numbers(op: Conv | Pool | None) -> tuple[Any, ...]:
    return () if op is None else astuple(op)


def _trace_gradients(operations: Sequence[Operation], output: Mix) -> list[_Mix]:
    """The gradient that reaches the input, and those that reach each operation's output."""
    gradients: list[_Mix] = [{} for _ in range(len(operations) + 1)]
    for source, filter_ in output:
        gradients[source] = {0: filter_}
    for own in range(len(operations), 0, -1):
        operation = operations[own - 1]
        kind = operation.kind
        for source, filter_ in operation.reads:
            _add(gradients[source], _filtered(_passed(kind, gradients[own], own, filter_), filter_, kind))
    return gradients


def _is_of_convolutions(gradient: _Mix, operations: Sequence[Operation]) -> bool:
    """True where a tensor is read by convolutions alone."""
    return all(source and operations[source - 1].kind == "conv" for source in gradient)


def _passed(kind: Kind, gradient: _Mix, own: int, filter_: Filter) -> _Mix:
    """The gradient behind an operation; ``own`` is the source that it adds to gradients."""
    if kind == "merge":
        return gradient
    if kind == "concatenation":
        return _scaled(gradient, _share(filter_) ** 0.5)  # a slice has its share of the energy
    if kind == "relu":
        return {**_scaled(gradient, 0.5), own: UNIT}
    return {own: UNIT}


def _share(filter_: Filter) -> float:
    share = constant(filter_)
    assert share is not None, "a concatenation reads sources unfiltered"
    return share


def _filtered(mix: _Mix, filter_: Filter, kind: Kind) -> _Mix:
    if filter_ == UNIT or kind == "concatenation":
        return mix
    return {source: multiplied(filter_, each) for source, each in mix.items()}


def _pairs(stages: Sequence[Stage]) -> Iterable[Pair]:
    """Pairs of convolutions of one graph whose inputs and whose output gradients have something in common."""
    groups: dict[int, list[int]] = {}
    for place, stage in enumerate(stages):
        if stage.group and stage.kind == "conv":
            groups.setdefault(stage.group, []).append(place)
    came, read = [dict(stage.gradient) for stage in stages], [dict(stage.reads) for stage in stages]
    for places in groups.values():
        for first, second in itertools.combinations(places, 2):
            gradients = _shared(came[first], came[second])
            if not gradients:
                continue
            if stages[first].reads == stages[second].reads:
                yield Pair((first, second), None, None, gradients)
                continue
            relus = _relu_read(stages, first), _relu_read(stages, second)
            if relus[0] is not None and relus[1] is not None:
                inputs = _shared(read[relus[0]], read[relus[1]])
                rectified = relus[0], relus[1]
                if inputs:
                    yield Pair((first, second), inputs, rectified, gradients)
            elif inputs := _shared(read[first], read[second]):
                yield Pair((first, second), inputs, None, gradients)


def _weights(operation: Operation) -> int:
    assert isinstance(operation.op, Conv), "pairs are of convolutions"
    return operation.op.out_channels * operation.op.fan_in


def _relu_read(stages: Sequence[Stage], place: int) -> int | None:
    """The ReLU whose output, unfiltered, a convolution reads."""
    read = _alone(stages[place].reads)
    return read if read is not None and stages[read].kind == "relu" else None


def _shared(first: _Mix, second: _Mix) -> Mix:
    if first.keys().isdisjoint(second):
        return ()
    return _mix({source: multiplied(filter_, second[source]) for source, filter_ in first.items() if source in second})
