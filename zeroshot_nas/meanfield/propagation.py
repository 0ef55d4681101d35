"""Runs states through plans, forward and backward, for many networks at once: one rule an operation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.meanfield.plan import Kind, Mix, Plan, Stage
from zeroshot_nas.meanfield.spectra import (
    MEAN,
    SIZE,
    Array,
    covariance,
    spectrum,
    strided,
    stuffed,
    transfer,
    window,
)
from zeroshot_nas.ops import Conv, Pool

Index = NDArray[np.intp]

CENTRED = 0.5 - 0.5 / math.pi
"""Variance of max(z, 0) for z from N(0, 1)."""

LINEAR_SHARE = 0.25 / CENTRED
"""Share of that variance that is linear in z."""

_ONE = 1 - 1e-12  # what is 1 but for rounding: arccos turns an error of 1e-16 there into 1e-8

PLAIN_GAIN = 1 / 3
"""Energy behind a convolution without batch norm over the energy before it: PyTorch's default initialisation."""


class Field(NamedTuple):
    """What flows between plans, for each of B networks: a sum over M independent sources.

    Attributes:
        spectra: Power spectra ``(B, M, 45)``; of gradients the sum over channels.
        excess: ``(B, M)``; 1 + excess = c tr C^2 / (tr C)^2 for the covariance C between the c channels.
        linear: Spectrum ``(B, 45)`` of what is linear in the image; zeros in gradients.
    """

    spectra: Array
    excess: Array
    linear: Array


class Sum(NamedTuple):
    """Tensors, a row each: spectrum, energy, excess, and the spectrum that is linear in the image."""

    spectra: Array
    energy: Array
    excess: Array
    linear: Array


class Terms(NamedTuple):
    """Mixes, one after the other.

    Attributes:
        starts: Where each mix begins.
        sources: Row of each term's source; the first B rows are what comes in.
        filters: Transfer functions ``(T, 45)``.
        entering: Terms whose source comes in from the plan before.
    """

    starts: Index
    sources: Index
    filters: Array
    entering: Index


class Group(NamedTuple):
    """Stages of one level and kind.

    Attributes:
        kind: Their kind.
        stride: Their stride.
        tori: Sides of the torus before and behind them; without a stride the same for all and not told.
        rows: Their rows, without the B of what comes in.
        reads: Tensors that they read.
        gradients: Gradients that reach them.
        convolutions: What the rules need of convolutions.
        pool: Window of a pooling.
    """

    kind: Kind
    stride: int
    tori: tuple[int, int]
    rows: slice
    reads: Terms
    gradients: Terms
    convolutions: Convolutions | None
    pool: int


class Convolutions(NamedTuple):
    """Numbers of convolutions, a row each.

    Attributes:
        in_channels: Input channels.
        out_channels: Output channels.
        depthwise: Whether they are depthwise.
        normalised: Whether a batch norm follows.
        kernel: Side of the kernel, as far as the map reaches.
        backward_kernel: Taps that one input position meets along an axis.
        windows: Displacements between taps ``(n, 45)``.
        backward_windows: The same for the gradient.
    """

    in_channels: Array
    out_channels: Array
    depthwise: NDArray[np.bool_]
    normalised: NDArray[np.bool_]
    kernel: Array
    backward_kernel: Array
    windows: Array
    backward_windows: Array


class Ensemble:
    """Plans of B networks, one each, laid out so that stages of one level and kind run together.

    Args:
        plans: The plans.

    Attributes:
        size: B.
        count: Stages of all plans.
        rows: For each plan the row of each stage.
        groups: Stages that run together, in order.
        outputs: What goes out, forward.
        input_gradients: What goes out, backward.
        pairs: Convolutions that may be redundant, each with its network's number.
        pair_places: For each pair its network and its places in that network's matrix.
        paired: Size of the largest such matrix.
        paired_rows: For each convolution in a matrix its network, its place there and its row.
    """

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.plans = plans
        self.size = len(plans)
        order = sorted(
            (
                (_group_key(stage), net, place)
                for net, plan in enumerate(plans)
                for place, stage in enumerate(plan.stages)
            ),
            key=lambda entry: entry[0],
        )
        self.rows: list[list[int]] = [[0] * len(plan.stages) for plan in plans]
        for row, (_, net, place) in enumerate(order):
            self.rows[net][place] = row
        self.count = len(order)
        self.groups: list[Group] = []
        start = 0
        for _, entries in itertools.groupby(order, key=lambda entry: entry[0]):
            members = [(net, plans[net].stages[place]) for _, net, place in entries]
            self.groups.append(self._group(members, start))
            start += len(members)
        self.outputs = self.terms(list(enumerate(plan.output for plan in plans)))
        self.input_gradients = self.terms(list(enumerate(plan.input_gradient for plan in plans)))
        self._lay_out_pairs()

    def _lay_out_pairs(self) -> None:
        """Gives each convolution that has a rival a place in its network's matrix, the largest first."""
        self.pairs = [(net, pair) for net, plan in enumerate(self.plans) for pair in plan.pairs]
        places: list[tuple[int, int, int]] = []
        rows: list[tuple[int, int, int]] = []
        self.paired = 0
        for net, plan in enumerate(self.plans):
            number = {stage: place for place, stage in enumerate(plan.rivals)}
            self.paired = max(self.paired, len(number))
            places += [(net, number[pair.stages[0]], number[pair.stages[1]]) for pair in plan.pairs]
            rows += [(net, place, self.rows[net][stage]) for stage, place in number.items()]
        self.pair_places, self.paired_rows = np.array(places, np.intp), np.array(rows, np.intp)

    def convolutions(self) -> Iterator[tuple[int, int, int]]:
        """Network, place in its plan and row of every convolution that is alive."""
        for net, plan in enumerate(self.plans):
            for layer in plan.layers:
                if layer.stage is not None:
                    yield net, layer.stage, self.rows[net][layer.stage]

    def terms(self, mixes: Sequence[tuple[int, Mix]]) -> Terms:
        """Mixes of networks, given by number, as one table."""
        sizes = [len(mix) for _, mix in mixes]
        size = len(self.plans)
        sources = [size + self.rows[net][source - 1] if source else net for net, mix in mixes for source in mix]
        filters = [filter_ for _, mix in mixes for filter_ in mix.values()]
        starts = np.cumsum([0, *sizes[:-1]], dtype=np.intp)
        where = np.array(sources, np.intp)
        return Terms(starts, where, np.array(filters).reshape(-1, SIZE), np.flatnonzero(where < size))

    def _group(self, members: Sequence[tuple[int, Stage]], start: int) -> Group:
        first = members[0][1]
        stages = [stage for _, stage in members]
        return Group(
            first.kind,
            first.op.stride if first.op is not None else 1,
            first.torus,
            slice(start, start + len(members)),
            self.terms([(net, stage.reads) for net, stage in members]),
            self.terms([(net, stage.gradient) for net, stage in members]),
            _convolutions(stages) if first.kind == "conv" else None,
            first.op.kernel_size if isinstance(first.op, Pool) else 0,
        )


class Forward(NamedTuple):
    """What a forward pass leaves; a row for each stage, behind B rows of what came in.

    Attributes:
        entered: What came in.
        spectra: Spectra of the sources.
        excess: Their excess.
        linear: Spectra of what is linear in the image.
        energy: Energy of what each stage reads (no rows of what came in).
        correlation: Autocorrelation of what each stage reads (likewise); filled in for ReLUs.
        participation: Independent inputs of one output value of each convolution (likewise).
        left: What goes out.
    """

    entered: Field
    spectra: Array
    excess: Array
    linear: Array
    energy: Array
    correlation: Array
    participation: Array
    left: Field


class Backward(NamedTuple):
    """What a backward pass leaves; see `Forward`.

    Attributes:
        spectra: Spectra of the gradients' sources, behind B rows of what came in.
        excess: Their excess, likewise.
        reached: Gradient that reached each stage's output: its spectrum.
        energy: That gradient's energy.
        reached_excess: That gradient's excess.
        left: Gradient that goes on to the plan before.
    """

    spectra: Array
    excess: Array
    reached: Array
    energy: Array
    reached_excess: Array
    left: Field


def forward(ensemble: Ensemble, entered: Field) -> Forward:
    """Runs states forward through the plans."""
    size, count = ensemble.size, ensemble.count
    spectra, excess, linear = np.empty((size + count, SIZE)), np.empty(size + count), np.empty((size + count, SIZE))
    spectra[:size], excess[:size], linear[:size] = _merged(entered), 0.0, entered.linear
    energy, correlation, participation = np.empty(count), np.empty((count, SIZE)), np.empty(count)
    for group in ensemble.groups:
        rows = group.rows
        if group.kind == "concatenation":
            read = _concatenated(group.reads, spectra, excess, linear)
        else:
            read = _summed(group.reads, spectra, excess, linear, entered)
        energy[rows] = read.energy
        if group.convolutions is not None:
            given, participation[rows] = _convolve(group, group.convolutions, read)
        elif group.kind == "relu":
            found = covariance(read.spectra) / read.energy[:, None]
            correlation[rows] = np.clip(np.where(found > _ONE, 1.0, found), -1.0, 1.0)
            given = _rectify(read, correlation[rows])
        elif group.kind == "norm":
            given = read.spectra / read.energy[:, None], read.excess, read.linear / read.energy[:, None]
        elif group.kind == "pool":
            share = transfer(group.pool) ** 2
            given = _pick(read.spectra * share, group), read.excess, _pick(read.linear * share, group)
        else:
            given = read.spectra, read.excess, read.linear
        behind = slice(rows.start + size, rows.stop + size)
        spectra[behind], excess[behind], linear[behind] = given
    left = _field(ensemble.outputs, spectra, excess, linear, entered)
    return Forward(entered, spectra, excess, linear, energy, correlation, participation, left)


def backward(ensemble: Ensemble, passed: Forward, entered: Field) -> Backward:
    """Runs gradients backward through the plans, whose forward pass is given."""
    size, count = ensemble.size, ensemble.count
    spectra, excess = np.zeros((size + count, SIZE)), np.zeros(size + count)
    spectra[:size] = _merged(entered)
    reached, energy, reached_excess = np.empty((count, SIZE)), np.empty(count), np.empty(count)
    nothing = np.zeros_like(spectra)
    for group in reversed(ensemble.groups):
        rows = group.rows
        read = _summed(group.gradients, spectra, excess, None, entered)
        reached[rows], energy[rows], reached_excess[rows] = read.spectra, read.energy, read.excess
        behind = slice(rows.start + size, rows.stop + size)
        if group.convolutions is not None:
            spectra[behind], excess[behind] = _convolve_back(group, group.convolutions, read, passed.energy[rows])
        elif group.kind == "relu":
            # half of the gradient passes coherently; the mask's fluctuations make the rest a source of its own
            mask = (math.pi - np.arccos(passed.correlation[rows])) / (2 * math.pi)
            spectra[behind] = spectrum(covariance(read.spectra) * (mask - 0.25))
        elif group.kind == "norm":
            spectra[behind], excess[behind] = read.spectra / passed.energy[rows, None], read.excess
        elif group.kind == "pool":
            spread = spectrum(stuffed(covariance(read.spectra), group.stride, group.tori[0]))
            spectra[behind], excess[behind] = spread * transfer(group.pool) ** 2, read.excess
    left = _field(ensemble.input_gradients, spectra, excess, nothing, entered)
    return Backward(spectra, excess, reached, energy, reached_excess, left)


def rectified_correlation(correlation: Array) -> Array:
    """Correlation of max(z, 0) and max(z', 0) for that of Gaussian z and z' (arc-cosine kernel of order 1)."""
    angle = np.arccos(correlation)
    moment = (np.sqrt(1 - correlation**2) + correlation * (math.pi - angle)) / (2 * math.pi)
    kernel: Array = (moment - 0.5 / math.pi) / CENTRED
    return kernel


def _convolve(group: Group, convs: Convolutions, read: Sum) -> tuple[tuple[Array, Array, Array], Array]:
    """What a convolution, with its batch norm, adds; and how many independent inputs it has."""
    correlation = covariance(read.spectra) / read.energy[:, None]
    taps = (correlation**2 * convs.windows).sum(1)
    area = convs.kernel**2
    dense = convs.in_channels / (1 + read.excess)
    participation = np.where(convs.depthwise, 1.0, dense) * area / taps
    excess = np.where(convs.depthwise, read.excess * taps / area, convs.out_channels / participation)
    scale = np.where(convs.normalised, 1 / read.energy, PLAIN_GAIN)[:, None]
    return (_pick(read.spectra * scale, group), excess, _pick(read.linear * scale, group)), participation


def _convolve_back(group: Group, convs: Convolutions, read: Sum, energy: Array) -> tuple[Array, Array]:
    """The forward rule transposed."""
    covariances = covariance(read.spectra)
    taps = ((covariances / read.energy[:, None]) ** 2 * convs.backward_windows).sum(1)
    area = convs.backward_kernel**2
    dense = convs.in_channels / convs.out_channels * (1 + read.excess)
    excess = np.where(convs.depthwise, read.excess, dense) * taps / area
    scale = np.where(convs.normalised, 1 / energy, PLAIN_GAIN)[:, None]
    if group.stride == 1:
        return read.spectra * scale, excess
    return spectrum(stuffed(covariances * scale, group.stride, group.tori[0])), excess


def _rectify(read: Sum, correlation: Array) -> tuple[Array, Array, Array]:
    kernel = rectified_correlation(correlation) * CENTRED
    return spectrum(read.energy[:, None] * kernel), LINEAR_SHARE**2 * read.excess, read.linear / 4


def _pick(spectra: Array, group: Group) -> Array:
    if group.stride == 1:
        return spectra
    return spectrum(strided(covariance(spectra), group.stride, group.tori))


def _merged(field: Field) -> Array:
    merged: Array = field.spectra.sum(1)
    return merged


def _summed(terms: Terms, spectra: Array, excess: Array, linear: Array | None, entered: Field) -> Sum:
    """Sums over sources, which are independent."""
    squares = terms.filters**2
    filtered = squares * spectra[terms.sources]
    energies = filtered @ MEAN
    parts = energies**2 * excess[terms.sources]
    if len(terms.entering):
        own = terms.sources[terms.entering]
        each = np.einsum("tf,tmf->tm", squares[terms.entering] * MEAN, entered.spectra[own])
        parts[terms.entering] = (each**2 * entered.excess[own]).sum(1)
    total = np.add.reduceat(filtered, terms.starts)
    energy = np.add.reduceat(energies, terms.starts)
    lines = total if linear is None else np.add.reduceat(squares * linear[terms.sources], terms.starts)
    return Sum(total, energy, np.add.reduceat(parts, terms.starts) / energy**2, lines)


def _concatenated(terms: Terms, spectra: Array, excess: Array, linear: Array) -> Sum:
    """Parts side by side, each with its share of the channels."""
    shares = terms.filters
    parts = shares * spectra[terms.sources]
    energies = spectra[terms.sources] @ MEAN
    total, starts = np.add.reduceat(parts, terms.starts), terms.starts
    energy = total @ MEAN
    squares = np.add.reduceat(shares[:, 0] * energies**2 * (1 + excess[terms.sources]), starts)
    return Sum(total, energy, squares / energy**2 - 1, np.add.reduceat(shares * linear[terms.sources], starts))


def _field(terms: Terms, spectra: Array, excess: Array, linear: Array, entered: Field) -> Field:
    """What goes out: the sources that came in, as far as they get through, and new ones."""
    size = len(terms.starts)
    squares = terms.filters**2
    net = np.repeat(np.arange(size), np.diff([*terms.starts, len(terms.sources)]))
    is_new = np.ones(len(terms.sources), bool)
    is_new[terms.entering] = False
    through = entered.spectra.shape[1] if len(terms.entering) else 0
    new = np.flatnonzero(is_new)
    slot = np.arange(len(new)) - np.searchsorted(net[new], net[new])
    width = through + (int(slot.max()) + 1 if len(new) else 0)
    out, out_excess = np.zeros((size, width, SIZE)), np.zeros((size, width))
    if through:
        own = terms.sources[terms.entering]
        out[own, :through] = squares[terms.entering, None] * entered.spectra[own]
        out_excess[own, :through] = entered.excess[own]
    out[net[new], through + slot] = squares[new] * spectra[terms.sources[new]]
    out_excess[net[new], through + slot] = excess[terms.sources[new]]
    return Field(out, out_excess, np.add.reduceat(squares * linear[terms.sources], terms.starts))


def _group_key(stage: Stage) -> tuple[int, Kind, int, tuple[int, int], int]:
    stride = stage.op.stride if stage.op is not None else 1
    pool = stage.op.kernel_size if isinstance(stage.op, Pool) else 0
    return stage.level, stage.kind, stride, stage.torus if stride > 1 else (0, 0), pool


def _convolutions(stages: Sequence[Stage]) -> Convolutions:
    convs = [(stage, stage.op) for stage in stages if isinstance(stage.op, Conv)]
    back = [max(1, round(stage.kernel / conv.stride)) for stage, conv in convs]
    return Convolutions(
        np.array([float(conv.in_channels) for _, conv in convs]),
        np.array([float(conv.out_channels) for _, conv in convs]),
        np.array([conv.groups > 1 for _, conv in convs]),
        np.array([stage.normalised for stage, _ in convs]),
        np.array([float(stage.kernel) for stage, _ in convs]),
        np.array(back, float),
        np.array([window(stage.kernel, conv.dilation) for stage, conv in convs]),
        np.array([window(kernel, conv.dilation) for kernel, (_, conv) in zip(back, convs, strict=True)]),
    )
