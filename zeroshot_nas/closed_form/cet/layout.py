"""Plans of many networks as arrays: which rows a pass reads and writes, and the sizes of what stands there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.architecture.ops import Conv, Pool
from zeroshot_nas.closed_form.cet.filters import constant, gains
from zeroshot_nas.closed_form.cet.plan import Kind, Mix, Plan, Site, Stage
from zeroshot_nas.closed_form.cet.spectra import SIZE, Array, covariance, torus_side, window

Index = NDArray[np.intp]


class Terms(NamedTuple):
    """Mixes, one after the other.

    Attributes:
        starts: Where each mix begins.
        sources: Row of each term's source; the first B rows are what comes in.
        factors: What each term's power is multiplied by ``(T,)``, 1 where a filter does; None where all are 1.
        filtered: Terms behind a filter that is no factor.
        filters: What their power spectra are multiplied by ``(F, 45)``.
        entering: Places in ``filtered`` of those whose source comes in from the plan before.
        further: For the second term of mixes, the third and so on: which mixes have one, and where.
    """

    starts: Index
    sources: Index
    factors: Array | None
    filtered: Index
    filters: Array
    entering: Index
    further: Sequence[tuple[Index, Index]]

    def sums(self, values: Array) -> Array:
        """Sum over each mix of what its terms have."""
        if not self.further:
            return values
        total: Array = values[self.starts]
        for mixes, places in self.further:
            total[mixes] += values[places]
        return total


class Group(NamedTuple):
    """Stages of one level and kind.

    Attributes:
        kind: Their kind.
        stride: Their stride.
        tori: Sides of the torus before and behind it, where there is a stride.
        rows: Their rows, without the B of what comes in.
        reads: Tensors that they read.
        gradients: Gradients that reach them.
        pool: Window of a pooling.
    """

    kind: Kind
    stride: int
    tori: tuple[int, int]
    rows: slice
    reads: Terms
    gradients: Terms
    pool: int


class Windows(NamedTuple):
    """Pairs of taps of kernels, a row each.

    Attributes:
        area: Number of taps.
        lags: Displacements that lie between two taps of any of the kernels.
        counts: How often each does ``(n, lags)``; see `zeroshot_nas.closed_form.cet.spectra.window`.
    """

    area: Array
    lags: Index
    counts: Array

    def taps(self, spectra: Array, energy: Array) -> Array:
        """Sum over displacements of count times correlation squared."""
        correlation = covariance(spectra, self.lags) / energy[:, None]
        taps: Array = (correlation**2 * self.counts).sum(1)
        return taps


@lru_cache(maxsize=256)
def _windows(kernels: tuple[int, ...], dilations: tuple[int, ...]) -> Windows:
    """The windows of kernels with their dilations; stages of a network ask for the same again."""
    counts = np.array([window(kernel, dilation) for kernel, dilation in zip(kernels, dilations, strict=True)])
    lags = np.flatnonzero(counts.any(0))
    return Windows(np.array(kernels, float) ** 2, lags, counts[:, lags])


class Convolutions(NamedTuple):
    """Numbers of convolutions, a row each.

    Attributes:
        in_channels: Input channels.
        out_channels: Output channels.
        depthwise: Whether they are depthwise.
        normalised: Whether a batch norm follows.
        windows: Pairs of taps, of the kernel as far as the map reaches.
        backward_windows: The same of the taps that one input position meets.
    """

    in_channels: Array
    out_channels: Array
    depthwise: NDArray[np.bool_]
    normalised: NDArray[np.bool_]
    windows: Windows
    backward_windows: Windows


class Pairs(NamedTuple):
    """Convolutions that may be redundant; a row each pair, unless said otherwise.

    Attributes:
        size: Size of the largest network's matrix of likenesses.
        places: Network, and the two places in its matrix.
        stages: Rows of the two.
        gradients: What their output gradients share.
        differ: Pairs that do not read the same tensor.
        readers: For each of these the rows of the stages whose reads are compared.
        rectified: For each of these whether the stages are ReLUs, whose outputs the convolutions read.
        inputs: What their reads share.
        members: For each convolution in a matrix its network, its place there and its row.
    """

    size: int
    places: Index
    stages: Index
    gradients: Terms
    differ: Index
    readers: Index
    rectified: NDArray[np.bool_]
    inputs: Terms
    members: Index


class Counted(NamedTuple):
    """A convolution that is alive and counts.

    Attributes:
        net: Number of its network.
        place: Its place in the plan.
        row: Its row.
        reads_input: Whether it reads the plan's input and nothing else.
    """

    net: int
    place: int
    row: int
    reads_input: bool


class Sizes(NamedTuple):
    """Sizes of stages as their plans have them, a row each: of the output, and 0 for what is no convolution."""

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
        outputs: What goes out, forward.
        input_gradients: What goes out, backward.
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
        self.outputs = self._terms(enumerate(plan.output for plan in plans))
        self.input_gradients = self._terms(enumerate(plan.input_gradient for plan in plans))
        self.counted = [
            Counted(net, place, self.rows[net][place], [source for source, _ in stage.reads] == [0])
            for net, plan in enumerate(plans)
            for place, stage in enumerate(plan.stages)
            if stage.kind == "conv" and stage.counts
        ]
        self.pairs = self._pairs(plans)

    def _group(self, key: _GroupKey, rows: slice, members: Sequence[tuple[int, Stage]]) -> Group:
        _, kind, stride, tori, pool = key
        reads = self._terms(((net, stage.reads) for net, stage in members), squared=kind != "concatenation")
        return Group(
            kind, stride, tori, rows, reads, self._terms((net, stage.gradient) for net, stage in members), pool
        )

    def _terms(self, mixes: Iterable[tuple[int, Mix]], *, squared: bool = True) -> Terms:
        """Mixes of networks, given by number, as one table; of power, or else of amplitudes."""
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
        return Terms(
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
            self._terms(((net, pair.gradients) for net, pair in pairs), squared=False),
            np.array([at for at, _, _, _ in differ], np.intp),
            np.array(readers, np.intp).reshape(-1, 2),
            np.array([pair.rectified is not None for _, _, pair, _ in differ]),
            self._terms(((net, inputs) for _, net, _, inputs in differ), squared=False),
            np.array(members, np.intp),
        )


class Ensemble:
    """Plans of B networks where they stand: a layout, and the sizes of its stages.

    Args:
        layout: The plans' layout.
        sites: The plans in their places.

    Attributes:
        layout: The layout.
        convolutions: For each of its groups the numbers of the convolutions; None for groups of another kind.
        shapes: For each stage channels, height and width of its output, and the side of the torus behind it.
    """

    def __init__(self, layout: Layout, sites: Sequence[Site]) -> None:
        self.layout = layout
        widths = np.array([site.width for site in sites])[layout.nets]
        resolutions = np.array([site.resolution or (0, 0) for site in sites], np.intp)[layout.nets]
        sizes = layout.sizes
        height, width = np.where(resolutions.T, resolutions.T, (sizes.height, sizes.width))
        torus = [torus_side(side) for side in np.minimum(height, width).tolist()]
        self.shapes = np.array([sizes.channels * widths, height, width, torus], float).T
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
        _windows(tuple(kernels.tolist()), dilations),
        _windows(tuple(back.tolist()), dilations),
    )
