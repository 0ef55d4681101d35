"""Plans of many networks as tables: which rows a pass reads and writes, and the sizes of what stands there.

`Layout` knows the plans alone, `PlacedLayout` adds widths and resolutions. Both passes keep one table of *sources*. Its
first B rows hold what enters each of the B plans, one row a plan; behind them every stage of every plan has a row.
Stages are sorted by level and kind, so that all that can run at once is a slice of rows (`StageGroup`). Levels ascend
from what a stage reads to the stage, so groups in order are a forward pass and groups in reverse a backward pass.

A mix, a sum of filtered sources, becomes a few entries of a `MixTable`. Entries of a mix stand in a row, mixes of a
group one after the other. Most mixes have one entry; for the others `MixTable.sums` adds the second entries of all
mixes that have one, then the third: the order of additions in a mix never depends on the mixes beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.architecture.ops import Conv, Pool
from zeroshot_nas.closed_form.cet.filters import constant, gains
from zeroshot_nas.closed_form.cet.plan import Kind, Mix, PlacedPlan, Plan, Stage
from zeroshot_nas.closed_form.cet.spectra import SIZE, Array, TapLags, dots, tap_lags, times, torus_side

Index = NDArray[np.intp]


class MixTable(NamedTuple):
    """Mixes, one after the other, an entry for each source of each.

    Attributes:
        starts: Entry at which each mix begins.
        sources: Row of each entry's source; the first B rows are what enters the plans.
        factors: Factor on each entry's power ``(T,)``, 1 where a filter acts; None where all are 1.
        filtered: Entries behind a filter that is no factor.
        filters: Factors on the power spectra of these ``(F, 45)``.
        entering: Places in ``filtered`` of those whose source enters from the plan before.
        further: For the second entry of mixes, the third and so on: the mixes that have one, and its place.
    """

    starts: Index
    sources: Index
    factors: Array | None
    filtered: Index
    filters: Array
    entering: Index
    further: Sequence[tuple[Index, Index]]

    def sums(self, values: Array) -> Array:
        """Sum over each mix of its entries' values."""
        if not self.further:
            return values
        total: Array = values[self.starts]
        for mixes, places in self.further:
            total[mixes] += values[places]
        return total


class StageGroup(NamedTuple):
    """Stages of one level and kind, which run together.

    Attributes:
        kind: Kind of all of them.
        stride: Stride of all of them.
        tori: Sides of the torus before and behind them, where there is a stride.
        rows: Their rows, not counting the B of what enters.
        reads: Tensors that they read.
        gradients: Gradients that reach their outputs.
        pool: Window of a pooling, else 0.
    """

    kind: Kind
    stride: int
    tori: tuple[int, int]
    rows: slice
    reads: MixTable
    gradients: MixTable
    pool: int


class TapPairs(NamedTuple):
    """Pairs of taps of kernels, a row each.

    Attributes:
        area: Number of taps.
        same: Pairs of taps at the same place, over the number of taps.
        kinds: For each kernel size and dilation its rows and the displacements between different taps.
    """

    area: Array
    same: Array
    kinds: Sequence[tuple[Index | slice, TapLags]]

    def squares(self, spectra: Array, energy: Array) -> Array:
        """Sum over pairs of taps of their squared correlation, over the number of taps."""
        total = self.same.copy()
        for rows, lags in self.kinds:
            correlation = times(spectra[rows], lags.to_covariance) / energy[rows, None]
            total[rows] += dots(correlation**2, lags.counts)
        return total


@lru_cache(maxsize=256)
def _tap_pairs(kernels: tuple[int, ...], dilations: tuple[int, ...]) -> TapPairs:
    """The pairs of taps of kernels with their dilations; stages of a network ask for the same again."""
    places: dict[tuple[int, int], list[int]] = {}
    for place, kind in enumerate(zip(kernels, dilations, strict=True)):
        places.setdefault(kind, []).append(place)
    same, kinds = np.empty(len(kernels)), list[tuple[Index | slice, TapLags]]()
    for kind, members in places.items():
        lags, rows = tap_lags(*kind), slice(None) if len(places) == 1 else np.array(members, np.intp)
        same[rows] = lags.same
        if len(lags.counts):
            kinds.append((rows, lags))
    return TapPairs(np.array(kernels, float) ** 2, same, kinds)


class Convolutions(NamedTuple):
    """Numbers of convolutions, a row each.

    Attributes:
        in_channels: Input channels.
        out_channels: Output channels.
        depthwise: True where they are depthwise.
        normalised: True where a batch norm follows.
        taps: Pairs of taps, of the kernel as far as the map reaches.
        backward_taps: The same of the taps that one input position meets.
    """

    in_channels: Array
    out_channels: Array
    depthwise: NDArray[np.bool_]
    normalised: NDArray[np.bool_]
    taps: TapPairs
    backward_taps: TapPairs


class Pairs(NamedTuple):
    """Convolutions that may be redundant; a row each pair, unless said otherwise.

    Attributes:
        size: Side of the largest network's matrix of likenesses.
        places: Network, and the two places in its matrix.
        stages: Rows of the two.
        gradients: Sources that their output gradients share.
        differ: Pairs that do not read the same tensor.
        readers: For each of these the rows of the stages whose reads are compared.
        rectified: For each of these True where the stages are ReLUs, whose outputs the convolutions read.
        inputs: For each of these the sources that their reads share.
        members: For each convolution in a matrix its network, its place there and its row.
    """

    size: int
    places: Index
    stages: Index
    gradients: MixTable
    differ: Index
    readers: Index
    rectified: NDArray[np.bool_]
    inputs: MixTable
    members: Index


class Counted(NamedTuple):
    """A convolution that is alive and counts.

    Attributes:
        net: Number of its network.
        place: Its place in the plan.
        row: Its row.
        reads_input: True where it reads the plan's input and nothing else.
    """

    net: int
    place: int
    row: int
    reads_input: bool


class Sizes(NamedTuple):
    """Sizes of stages as their plans have them, a row each: of the output, and of the convolution (else 0)."""

    channels: Index
    height: Index
    width: Index
    in_channels: Index
    kernel_size: Index
    kernel: Index  # as far as the map reaches
    stride: Index
    dilation: Index
    depthwise: Index
    normalised: Index

    @classmethod
    def of(cls, stages: Sequence[Stage]) -> Sizes:
        rows = [(*stage.shape, *_kernel_numbers(stage)) for stage in stages]
        return cls(*np.array(rows, np.intp).reshape(len(rows), len(cls._fields)).T)


@lru_cache(maxsize=32)
def layout_of(plans: tuple[Plan, ...]) -> Layout:
    """The layout of plans; networks share a stem and reductions, and sub-layers a plan."""
    return Layout(plans)


class Layout:
    """Plans of B networks, one each, laid out so that stages of one level and kind run together.

    Args:
        plans: The plans.

    Attributes:
        size: B.
        count: Stages of all plans.
        rows: For each plan the row of each stage.
        nets: For each row its network.
        sizes: Sizes of the stages.
        groups: Stages that run together, in order.
        outputs: The plans' outputs, forward.
        input_gradients: The gradients that reach the plans' inputs, backward.
        counted: Convolutions that count, network by network.
        pairs: Convolutions that may be redundant; None where there are none.
    """

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.size = len(plans)
        order = sorted(
            (
                (_group_key(stage), net, place)
                for net, plan in enumerate(plans)
                for place, stage in enumerate(plan.stages)
            ),
            key=lambda entry: entry[0],
        )
        self.count = len(order)
        self.rows: list[list[int]] = [[0] * len(plan.stages) for plan in plans]
        for row, (_, net, place) in enumerate(order):
            self.rows[net][place] = row
        members = [(net, plans[net].stages[place]) for _, net, place in order]
        self.nets = np.array([net for net, _ in members], np.intp)
        self.sizes = Sizes.of([stage for _, stage in members])
        self.groups = []
        start = 0
        for key, entries in itertools.groupby(order, key=lambda entry: entry[0]):
            rows = slice(start, start + len(list(entries)))
            self.groups.append(self._group(key, rows, members[rows]))
            start = rows.stop
        self.outputs = self._table(enumerate(plan.output for plan in plans))
        self.input_gradients = self._table(enumerate(plan.input_gradient for plan in plans))
        self.counted = [
            Counted(net, place, self.rows[net][place], [source for source, _ in stage.reads] == [0])
            for net, plan in enumerate(plans)
            for place, stage in enumerate(plan.stages)
            if stage.kind == "conv" and stage.counts
        ]
        self.pairs = self._pairs(plans)

    def _group(self, key: _GroupKey, rows: slice, members: Sequence[tuple[int, Stage]]) -> StageGroup:
        _, kind, stride, tori, pool = key
        reads = self._table(((net, stage.reads) for net, stage in members), squared=kind != "concatenation")
        gradients = self._table((net, stage.gradient) for net, stage in members)
        return StageGroup(kind, stride, tori, rows, reads, gradients, pool)

    def _table(self, mixes: Iterable[tuple[int, Mix]], *, squared: bool = True) -> MixTable:
        """Mixes of networks, given by number, as one table.

        Filters act on amplitudes, so that power gets their square. Shares of a concatenation's channels, and products
        of two filters in what two tensors share, are factors on power already: these are not ``squared``.
        """
        sizes: list[int] = []
        sources: list[int] = []
        filters = []
        for net, mix in mixes:
            sizes.append(len(mix))
            own = self.rows[net]
            for source, filter_ in mix:
                sources.append(self.size + own[source - 1] if source else net)
                filters.append(filter_)
        constants = [constant(filter_) for filter_ in filters]
        power = 2 if squared else 1
        factors = np.array([1.0 if each is None else each**power for each in constants])
        filtered = [place for place, each in enumerate(constants) if each is None]
        entering = [at for at, place in enumerate(filtered) if sources[place] < self.size]
        lengths = np.array(sizes, np.intp)
        starts = np.cumsum(lengths) - lengths
        longer = [np.flatnonzero(lengths > length) for length in range(1, max(sizes, default=0))]
        return MixTable(
            starts,
            np.array(sources, np.intp),
            None if (factors == 1).all() else factors,
            np.array(filtered, np.intp),
            np.array([gains(filters[place]) for place in filtered]).reshape(-1, SIZE) ** power,
            np.array(entering, np.intp),
            [(mixes_, starts[mixes_] + length) for length, mixes_ in enumerate(longer, start=1)],
        )

    def _pairs(self, plans: Sequence[Plan]) -> Pairs | None:
        pairs = [(net, pair) for net, plan in enumerate(plans) for pair in plan.pairs]
        if not pairs:
            return None
        number = [{stage: place for place, stage in enumerate(plan.rivals)} for plan in plans]
        differ = [(at, net, pair, pair.inputs) for at, (net, pair) in enumerate(pairs) if pair.inputs is not None]
        readers = [[self.rows[net][stage] for stage in pair.rectified or pair.stages] for _, net, pair, _ in differ]
        members = [
            (net, place, self.rows[net][stage]) for net, own in enumerate(number) for stage, place in own.items()
        ]
        return Pairs(
            max(map(len, number)),
            np.array([(net, number[net][pair.stages[0]], number[net][pair.stages[1]]) for net, pair in pairs], np.intp),
            np.array([[self.rows[net][stage] for stage in pair.stages] for net, pair in pairs], np.intp),
            self._table(((net, pair.gradients) for net, pair in pairs), squared=False),
            np.array([at for at, _, _, _ in differ], np.intp),
            np.array(readers, np.intp).reshape(-1, 2),
            np.array([pair.rectified is not None for _, _, pair, _ in differ]),
            self._table(((net, inputs) for _, net, _, inputs in differ), squared=False),
            np.array(members, np.intp),
        )


class PlacedLayout:
    """Plans of B networks where they stand: a layout, and the sizes of its stages.

    Args:
        layout: The plans' layout.
        plans: The plans in their places.

    Attributes:
        layout: The layout.
        convolutions: For each of its groups the numbers of the convolutions; None for groups of another kind.
        shapes: For each stage channels, height and width of its output, and the side of the torus behind it.
        in_channels: For each stage the input channels of its convolution; 0 where it is none.
        fan_in: Likewise the weights of one output channel.
    """

    def __init__(self, layout: Layout, plans: Sequence[PlacedPlan]) -> None:
        self.layout = layout
        widths = np.array([each.width for each in plans])[layout.nets]
        resolutions = np.array([each.resolution or (0, 0) for each in plans], np.intp)[layout.nets]
        sizes = layout.sizes
        height, width = np.where(resolutions.T, resolutions.T, (sizes.height, sizes.width))
        torus = [torus_side(side) for side in np.minimum(height, width).tolist()]
        self.shapes = np.array([sizes.channels * widths, height, width, torus], float).T
        self.in_channels: Array = (sizes.in_channels * widths).astype(float)
        self.fan_in: Array = np.where(sizes.depthwise, 1.0, self.in_channels) * sizes.kernel_size.astype(float) ** 2
        self.convolutions = [
            _convolutions(
                Sizes(*(column[group.rows] for column in sizes)), widths[group.rows], resolutions[group.rows].min(1)
            )
            if group.kind == "conv"
            else None
            for group in layout.groups
        ]


_GroupKey: TypeAlias = tuple[int, Kind, int, tuple[int, int], int]


def _group_key(stage: Stage) -> _GroupKey:
    stride = stage.op.stride if stage.op is not None else 1
    pool = stage.op.kernel_size if isinstance(stage.op, Pool) else 0
    return stage.level, stage.kind, stride, stage.tori, pool


def _kernel_numbers(stage: Stage) -> tuple[int, ...]:
    """The last columns of `Sizes`."""
    conv = stage.op
    if not isinstance(conv, Conv):
        return (0,) * 7
    numbers = (conv.in_channels, conv.kernel_size, stage.kernel, conv.stride, conv.dilation)
    return (*numbers, conv.groups > 1, stage.normalised)


def _convolutions(sizes: Sizes, widths: Index, sides: Index) -> Convolutions:
    """Numbers of convolutions; ``sides`` are those of the maps, 0 where they are as the plan has them."""
    reach = np.maximum(1, np.minimum(sizes.kernel_size, sides // sizes.dilation))
    kernels = np.where(sides, reach, sizes.kernel)
    dilations = tuple(sizes.dilation.tolist())
    back = np.maximum(1, np.rint(kernels / sizes.stride).astype(np.intp))
    return Convolutions(
        (sizes.in_channels * widths).astype(float),
        (sizes.channels * widths).astype(float),
        sizes.depthwise == 1,
        sizes.normalised == 1,
        _tap_pairs(tuple(kernels.tolist()), dilations),
        _tap_pairs(tuple(back.tolist()), dilations),
    )
