"""Runs states through plans, forward and backward, for many networks at once: one rule an operation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.meanfield.filters import constant, gains
from zeroshot_nas.meanfield.plan import Kind, Mix, Plan, Site, Stage
from zeroshot_nas.meanfield.spectra import (
    MEAN,
    SIZE,
    Array,
    covariance,
    spectrum,
    strided,
    stuffed,
    torus_side,
    transfer,
    window,
)
from zeroshot_nas.ops import Conv, Pool

Index = NDArray[np.intp]

CENTRED = 0.5 - 0.5 / math.pi
"""Variance of max(z, 0) for z from N(0, 1)."""

LINEAR_SHARE = 0.25 / CENTRED
"""Share of that variance that is linear in z."""

PLAIN_GAIN = 1 / 3
"""Energy behind a convolution without batch norm over the energy before it: PyTorch's default initialisation."""

_ROUNDING = 1e-12


class Sources(NamedTuple):
    """Independent sources that make up a tensor, for each of B networks.

    Attributes:
        spectra: Power spectra ``(B, M, 45)``.
        excess: ``(B, M)``.
    """

    spectra: Array
    excess: Array


class Field(NamedTuple):
    """What flows between plans, for each of B networks: a sum over independent sources.

    Attributes:
        spectra: ``(B, 2, 45)``: the power spectrum, and that of what is linear in the image; ``(B, 1, 45)`` of
            gradients, summed over channels.
        excess: ``(B,)``; 1 + excess = c tr C^2 / (tr C)^2 for the covariance C between the c channels.
        sources: The sources one by one; None where all filters that they will meet are factors, for which the sum does.
    """

    spectra: Array
    excess: Array
    sources: Sources | None


class Sum(NamedTuple):
    """Tensors, a row each: spectra as in `Field`, energy and excess."""

    spectra: Array
    energy: Array
    excess: Array


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
        counts: How often each does ``(n, lags)``; see `zeroshot_nas.meanfield.spectra.window`.
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


class Forward(NamedTuple):
    """What a forward pass leaves; a row for each stage, behind B rows of what came in.

    Attributes:
        spectra: Spectra of the sources, as in `Field`.
        excess: Their excess.
        powers: Their energy.
        energy: Energy of what each stage reads (no rows of what came in).
        angles: Arc cosine of the autocorrelation of what each stage reads (likewise); filled in for ReLUs.
        participation: Independent inputs of one output value of each convolution (likewise).
        left: What goes out.
    """

    spectra: Array
    excess: Array
    powers: Array
    energy: Array
    angles: Array
    participation: Array
    left: Field


class Backward(NamedTuple):
    """What a backward pass leaves; see `Forward`.

    Attributes:
        spectra: Spectra of the gradients' sources, behind B rows of what came in.
        powers: Their energy, likewise.
        reached: Gradient that reached each stage's output: its spectrum.
        energy: That gradient's energy.
        reached_excess: That gradient's excess.
        left: Gradient that goes on to the plan before.
    """

    spectra: Array
    powers: Array
    reached: Array
    energy: Array
    reached_excess: Array
    left: Field


def forward(ensemble: Ensemble, entered: Field) -> Forward:
    """Runs states forward through the plans."""
    count = ensemble.layout.count
    state = _State.of(entered, count)
    energy, angles, participation = np.empty(count), np.empty((count, SIZE)), np.empty(count)
    for group, convolutions in zip(ensemble.layout.groups, ensemble.convolutions, strict=True):
        rows = group.rows
        if group.kind == "concatenation":
            read = _concatenated(group.reads, state)
        else:
            read = _summed(group.reads, state, entered.sources)
        spectra, excess = read.spectra, read.excess
        energy[rows] = read.energy
        if convolutions is not None:
            spectra, excess, participation[rows] = _convolve(group, convolutions, read)
        elif group.kind == "relu":
            correlation = _correlation(covariance(spectra[:, 0]), read.energy)
            angles[rows] = np.arccos(correlation)
            rectified = spectrum(read.energy[:, None] * (_moment(correlation, angles[rows]) - 0.5 / math.pi))
            spectra, excess = np.array([rectified, spectra[:, 1] / 4]).swapaxes(0, 1), LINEAR_SHARE**2 * excess
        elif group.kind == "norm":
            spectra = spectra / read.energy[:, None, None]
        elif group.kind == "pool":
            spectra = _pick(spectra * transfer(group.pool) ** 2, group)
        state.put(rows, spectra, excess)
    left = _left(ensemble.layout.outputs, state, entered.sources)
    return Forward(state.spectra, state.excess, state.powers, energy, angles, participation, left)


def backward(ensemble: Ensemble, passed: Forward, entered: Field) -> Backward:
    """Runs gradients backward through the plans, whose forward pass is given."""
    count = ensemble.layout.count
    state = _State.of(entered, count)
    reached, energy, reached_excess = np.empty((count, SIZE)), np.empty(count), np.empty(count)
    for group, convolutions in zip(reversed(ensemble.layout.groups), reversed(ensemble.convolutions), strict=True):
        rows = group.rows
        read = _summed(group.gradients, state, entered.sources)
        spectra, excess = read.spectra[:, 0], read.excess
        reached[rows], energy[rows], reached_excess[rows] = spectra, read.energy, excess
        if convolutions is not None:
            spectra, excess = _convolve_back(group, convolutions, read, passed.energy[rows])
        elif group.kind == "relu":
            # half of the gradient passes coherently; the mask's fluctuations make the rest a source of its own
            mask = 0.25 - passed.angles[rows] / (2 * math.pi)
            spectra, excess = spectrum(covariance(spectra) * mask), np.zeros(len(excess))
        elif group.kind == "norm":
            spectra = spectra / passed.energy[rows, None]
        elif group.kind == "pool":
            spectra = spectrum(stuffed(covariance(spectra), group.stride, group.tori[0])) * transfer(group.pool) ** 2
        else:
            continue  # a sum adds no source to gradients
        state.put(rows, spectra[:, None], excess)
    left = _left(ensemble.layout.input_gradients, state, entered.sources)
    return Backward(state.spectra[:, 0], state.powers, reached, energy, reached_excess, left)


def rectified_correlation(correlation: Array) -> Array:
    """Correlation of max(z, 0) and max(z', 0) for that of Gaussian z and z' (arc-cosine kernel of order 1)."""
    kernel: Array = (_moment(correlation, np.arccos(correlation)) - 0.5 / math.pi) / CENTRED
    return kernel


def _moment(correlation: Array, angle: Array) -> Array:
    """Mean of max(z, 0) max(z', 0)."""
    moment: Array = (np.sqrt(1 - correlation**2) + correlation * (math.pi - angle)) / (2 * math.pi)
    return moment


def _correlation(covariances: Array, energy: Array) -> Array:
    """Autocorrelations; 1 where they are so but for rounding, for the arc cosine is steep there."""
    correlation: Array = np.maximum(covariances / energy[:, None], -1.0)
    correlation[correlation > 1 - _ROUNDING] = 1.0
    return correlation


class _State(NamedTuple):
    """Sources while a pass runs: B rows of what came in, as one source, then the stages'."""

    size: int
    spectra: Array
    powers: Array
    excess: Array

    @classmethod
    def of(cls, entered: Field, count: int) -> _State:
        size, kinds, _ = entered.spectra.shape
        state = cls(size, np.zeros((size + count, kinds, SIZE)), np.zeros(size + count), np.zeros(size + count))
        state.put(slice(-size, 0), entered.spectra, entered.excess)
        return state

    def put(self, rows: slice, spectra: Array, excess: Array) -> None:
        """Fills in rows of stages."""
        behind = slice(rows.start + self.size, rows.stop + self.size)
        self.spectra[behind], self.excess[behind] = spectra, excess
        self.powers[behind] = spectra[:, 0] @ MEAN


def _convolve(group: Group, convs: Convolutions, read: Sum) -> tuple[Array, Array, Array]:
    """What a convolution, with its batch norm, adds; and how many independent inputs it has."""
    taps, area = convs.windows.taps(read.spectra[:, 0], read.energy), convs.windows.area
    dense = convs.in_channels / (1 + read.excess)
    participation = np.where(convs.depthwise, 1.0, dense) * area / taps
    excess = np.where(convs.depthwise, read.excess * taps / area, convs.out_channels / participation)
    scale = np.where(convs.normalised, 1 / read.energy, PLAIN_GAIN)
    return _pick(read.spectra * scale[:, None, None], group), excess, participation


def _convolve_back(group: Group, convs: Convolutions, read: Sum, energy: Array) -> tuple[Array, Array]:
    """The forward rule transposed."""
    spectra = read.spectra[:, 0]
    taps, area = convs.backward_windows.taps(spectra, read.energy), convs.backward_windows.area
    dense = convs.in_channels / convs.out_channels * (1 + read.excess)
    excess = np.where(convs.depthwise, read.excess, dense) * taps / area
    scaled = spectra * np.where(convs.normalised, 1 / energy, PLAIN_GAIN)[:, None]
    if group.stride > 1:
        scaled = spectrum(stuffed(covariance(scaled), group.stride, group.tori[0]))
    return scaled, excess


def _pick(spectra: Array, group: Group) -> Array:
    if group.stride == 1:
        return spectra
    return spectrum(strided(covariance(spectra), group.stride, group.tori))


def _summed(terms: Terms, state: _State, entered: Sources | None) -> Sum:
    """Sums over sources, which are independent."""
    spectra, energies = _powers(terms, state.spectra, state.powers)
    parts = energies**2 * state.excess[terms.sources]
    if len(terms.entering):
        assert entered is not None, "sources that meet a filter are kept apart"
        own = terms.sources[terms.filtered[terms.entering]]
        each = np.matmul(entered.spectra[own], (terms.filters[terms.entering] * MEAN)[:, :, None])[:, :, 0]
        parts[terms.filtered[terms.entering]] = (each**2 * entered.excess[own]).sum(1)
    energy = terms.sums(energies)
    return Sum(terms.sums(spectra), energy, terms.sums(parts) / energy**2)


def _concatenated(terms: Terms, state: _State) -> Sum:
    """Parts side by side, each with its share of the channels."""
    spectra, energies = _powers(terms, state.spectra, state.powers)
    energy = terms.sums(energies)
    squares = terms.sums(energies * state.powers[terms.sources] * (1 + state.excess[terms.sources]))
    return Sum(terms.sums(spectra), energy, squares / energy**2 - 1)


def _powers(terms: Terms, spectra: Array, powers: Array) -> tuple[Array, Array]:
    """Spectra and energy of each term."""
    taken, energies = spectra[terms.sources], powers[terms.sources]
    if terms.factors is not None:
        taken *= terms.factors[:, None, None]
        energies *= terms.factors
    if len(terms.filtered):
        taken[terms.filtered] *= terms.filters[:, None, :]
        energies[terms.filtered] = taken[terms.filtered, 0] @ MEAN
    return taken, energies


def shared_energy(terms: Terms, spectra: Array, powers: Array) -> Array:
    """Energy of each mix, given spectra ``(rows, 45)`` and energy of the sources."""
    energies = powers[terms.sources]
    if terms.factors is not None:
        energies *= terms.factors
    if len(terms.filtered):
        energies[terms.filtered] = (terms.filters * spectra[terms.sources[terms.filtered]]) @ MEAN
    return terms.sums(energies)


def _left(terms: Terms, state: _State, entered: Sources | None) -> Field:
    """What goes out: the sources that came in, as far as they get through, and new ones."""
    total = _summed(terms, state, entered)
    return Field(total.spectra, total.excess, None if entered is None else _apart(terms, state, entered))


def _apart(terms: Terms, state: _State, entered: Sources) -> Sources:
    """The sources that go out, one by one."""
    size = len(terms.starts)
    squares = np.ones((len(terms.sources), SIZE))
    if terms.factors is not None:
        squares *= terms.factors[:, None]
    squares[terms.filtered] = terms.filters
    net = np.repeat(np.arange(size), np.diff([*terms.starts, len(terms.sources)]))
    is_new = terms.sources >= size
    old, new = np.flatnonzero(~is_new), np.flatnonzero(is_new)
    through = entered.spectra.shape[1] if len(old) else 0
    slot = through + np.arange(len(new)) - np.searchsorted(net[new], net[new])
    width = int(slot.max()) + 1 if len(new) else through
    spectra, excess = np.zeros((size, width, SIZE)), np.zeros((size, width))
    if through:
        own = net[old]
        spectra[own, :through] = squares[old, None] * entered.spectra[own]
        excess[own, :through] = entered.excess[own]
    spectra[net[new], slot] = squares[new] * state.spectra[terms.sources[new], 0]
    excess[net[new], slot] = state.excess[terms.sources[new]]
    return Sources(spectra, excess)


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
