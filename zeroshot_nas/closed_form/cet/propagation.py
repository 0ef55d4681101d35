"""Runs states through plans, forward and backward, for many networks side by side: one rule an operation.

These are the general rules. Of chains without pooling a few numbers stand for a spectrum: the modules `chain` and
`combs` beside this one have the same rules for these, and take a hundredth of the time; whoever changes a rule changes
it there as well (`tests/closed_form/cet/test_chain.py` holds the two together).

Nothing here depends on how many networks run side by side, to the last bit. A row is made of elementwise operations, of
products that are a call of their own for each row (`zeroshot_nas.closed_form.cet.spectra.dots`), and of sums over
sources in their order. A product or a sum over whole arrays would be faster, but the order of its additions is the
library's affair and changes with the number of rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from zeroshot_nas.closed_form.cet.layout import Convolutions, MixTable, PlacedLayout, StageGroup
from zeroshot_nas.closed_form.cet.spectra import (
    MEAN,
    SIZE,
    Array,
    covariance,
    dots,
    energies,
    spectrum,
    strided,
    stuffed,
    transfer,
)

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
        spectra: Power spectra ``(B, M, 45)``; 0 where a network has fewer than M.
        excess: Their excess ``(B, M)``.
    """

    spectra: Array
    excess: Array


class TensorState(NamedTuple):
    """A tensor between two plans, for each of B networks: a sum over independent sources.

    Attributes:
        spectra: ``(B, 2, 45)``: the power spectrum, and that of the part that is linear in the image; ``(B, 1, 45)`` of
            gradients, summed over channels.
        excess: ``(B,)``; 1 + excess = c tr C^2 / (tr C)^2 for the covariance C between the c channels.
        sources: The sources one by one; None where all filters that they will meet are factors, for which the sum does.
    """

    spectra: Array
    excess: Array
    sources: Sources | None


class MixedTensors(NamedTuple):
    """Tensors that stages read, a row each.

    Attributes:
        spectra: As in `TensorState`.
        energy: Energy of each.
        excess: Excess of each.
    """

    spectra: Array
    energy: Array
    excess: Array


class ForwardPass(NamedTuple):
    """States that a forward pass leaves; the first three have B rows of what enters, and then one for each stage.

    Attributes:
        spectra: Spectra of the sources, as in `TensorState`.
        excess: Their excess.
        powers: Their energy.
        energy: Energy of the tensor that each stage reads.
        angles: Arc cosine of that tensor's autocorrelation; filled in for ReLUs.
        participation: Independent inputs of one output value; filled in for convolutions.
        output: The plans' outputs.
    """

    spectra: Array
    excess: Array
    powers: Array
    energy: Array
    angles: Array
    participation: Array
    output: TensorState


class BackwardPass(NamedTuple):
    """States that a backward pass leaves; the first two have B rows of what enters, and then one for each stage.

    Attributes:
        spectra: Spectra of the gradients' sources.
        powers: Their energy.
        reached: Spectrum of the gradient that reaches each stage's output.
        energy: That gradient's energy.
        reached_excess: That gradient's excess.
        output: The gradients of the plans' inputs.
    """

    spectra: Array
    powers: Array
    reached: Array
    energy: Array
    reached_excess: Array
    output: TensorState


def forward(placed: PlacedLayout, entering: TensorState) -> ForwardPass:
    """Runs states forward through the plans."""
    count = placed.layout.count
    state = _SourceRows.of(entering, count)
    energy, angles, participation = np.empty(count), np.empty((count, SIZE)), np.empty(count)
    for group, convolutions in zip(placed.layout.groups, placed.convolutions, strict=True):
        rows = group.rows
        if group.kind == "concatenation":
            read = _concatenated(group.reads, state)
        else:
            read = _mixed(group.reads, state, entering.sources)
        spectra, excess = read.spectra, read.excess
        energy[rows] = read.energy
        if convolutions is not None:
            spectra, excess, participation[rows] = _convolve(group, convolutions, read)
        elif group.kind == "relu":
            # of a Gaussian z with variance q: max(z, 0) has the covariance q k1(rho) about its mean squared, q / 2 pi;
            # its regression on z has slope 1/2, so that a quarter of the linear part's power stays
            correlation = _correlation(covariance(spectra[:, 0]), read.energy)
            angles[rows] = np.arccos(correlation)
            rectified = spectrum(read.energy[:, None] * (_moment(correlation, angles[rows]) - 0.5 / math.pi))
            spectra, excess = np.stack([rectified, spectra[:, 1] / 4], axis=1), LINEAR_SHARE**2 * excess
        elif group.kind == "norm":
            spectra = spectra / read.energy[:, None, None]
        elif group.kind == "pool":
            spectra = _pick(spectra * transfer(group.pool) ** 2, group)
        state.put(rows, spectra, excess)
    output = _output(placed.layout.outputs, state, entering.sources)
    return ForwardPass(state.spectra, state.excess, state.powers, energy, angles, participation, output)


def backward(placed: PlacedLayout, passed: ForwardPass, entering: TensorState) -> BackwardPass:
    """Runs gradients backward through the plans, whose forward pass is given."""
    count = placed.layout.count
    state = _SourceRows.of(entering, count)
    reached, energy, reached_excess = np.empty((count, SIZE)), np.empty(count), np.empty(count)
    for group, convolutions in zip(reversed(placed.layout.groups), reversed(placed.convolutions), strict=True):
        rows = group.rows
        read = _mixed(group.gradients, state, entering.sources)
        spectra, excess = read.spectra[:, 0], read.excess
        reached[rows], energy[rows], reached_excess[rows] = spectra, read.energy, excess
        if convolutions is not None:
            spectra, excess = _convolve_back(group, convolutions, read, passed.energy[rows])
        elif group.kind == "relu":
            # the mask has mean 1/2 and covariance 1/4 - angle / 2 pi: half of the gradient passes coherently, which the
            # plan has as a factor; the mask's fluctuations make the rest, a source of its own without excess
            mask = 0.25 - passed.angles[rows] / (2 * math.pi)
            spectra, excess = spectrum(covariance(spectra) * mask), np.zeros(len(excess))
        elif group.kind == "norm":
            spectra = spectra / passed.energy[rows, None]
        elif group.kind == "pool":
            spectra = spectrum(stuffed(covariance(spectra), group.stride, group.tori[0])) * transfer(group.pool) ** 2
        else:
            continue  # a sum adds no source to gradients
        state.put(rows, spectra[:, None], excess)
    output = _output(placed.layout.input_gradients, state, entering.sources)
    return BackwardPass(state.spectra[:, 0], state.powers, reached, energy, reached_excess, output)


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


class _SourceRows(NamedTuple):
    """The table of sources while a pass runs: B rows of what enters, each as one source, then the stages'."""

    size: int
    spectra: Array
    powers: Array
    excess: Array

    @classmethod
    def of(cls, entering: TensorState, count: int) -> _SourceRows:
        size, kinds, _ = entering.spectra.shape
        state = cls(size, np.zeros((size + count, kinds, SIZE)), np.zeros(size + count), np.zeros(size + count))
        state.put(slice(-size, 0), entering.spectra, entering.excess)
        return state

    def put(self, rows: slice, spectra: Array, excess: Array) -> None:
        """Fills in rows of stages."""
        behind = slice(rows.start + self.size, rows.stop + self.size)
        self.spectra[behind], self.excess[behind] = spectra, excess
        self.powers[behind] = energies(spectra[:, 0])


def _convolve(group: StageGroup, convs: Convolutions, read: MixedTensors) -> tuple[Array, Array, Array]:
    """Spectra and excess of a convolution's output, behind its batch norm, and how many independent inputs it has.

    The input patch has the covariance (channels) x (taps), so its participation ratio is the product of theirs, c/(1+e)
    and k^2 / m. With random weights the output's channels share the same patch: excess c_out / participation. A
    depthwise convolution has one channel in its patch, and the averages over k^2 taps leave m / k^2 of the excess.
    """
    squares, area = convs.taps.squares(read.spectra[:, 0], read.energy), convs.taps.area
    dense = convs.in_channels / (1 + read.excess)
    participation = np.where(convs.depthwise, 1.0, dense) * area / squares
    excess = np.where(convs.depthwise, read.excess * squares / area, convs.out_channels / participation)
    scale = np.where(convs.normalised, 1 / read.energy, PLAIN_GAIN)
    return _pick(read.spectra * scale[:, None, None], group), excess, participation


def _convolve_back(group: StageGroup, convs: Convolutions, read: MixedTensors, energy: Array) -> tuple[Array, Array]:
    """Spectra and excess of the gradient before a convolution: the forward rule transposed.

    A gradient's energy is summed over channels, so that dense weights keep it; the batch norm divides by the forward
    energy. Of a kernel with a stride one input position meets k / s taps along each axis.
    """
    spectra = read.spectra[:, 0]
    squares, area = convs.backward_taps.squares(spectra, read.energy), convs.backward_taps.area
    dense = convs.in_channels / convs.out_channels * (1 + read.excess)
    excess = np.where(convs.depthwise, read.excess, dense) * squares / area
    scaled = spectra * np.where(convs.normalised, 1 / energy, PLAIN_GAIN)[:, None]
    if group.stride > 1:
        scaled = spectrum(stuffed(covariance(scaled), group.stride, group.tori[0]))
    return scaled, excess


def _pick(spectra: Array, group: StageGroup) -> Array:
    """Spectra of every ``stride``-th position."""
    if group.stride == 1:
        return spectra
    return spectrum(strided(covariance(spectra), group.stride, group.tori))


def _mixed(table: MixTable, state: _SourceRows, entering: Sources | None) -> MixedTensors:
    """Sums over sources, which are independent: powers add, and each has its squared share of the excess.

    What enters is one row of power, but through a filter its sources change their shares. So where it is filtered, the
    excess is that of its sources, one by one.
    """
    spectra, powers = _powers(table, state.spectra, state.powers)
    parts = powers**2 * state.excess[table.sources]
    if len(table.entering):
        assert entering is not None, "sources that meet a filter are kept apart"
        entries = table.filtered[table.entering]
        own = table.sources[entries]
        shares = dots(entering.spectra[own], (table.filters[table.entering] * MEAN)[:, None])
        parts[entries] = np.cumsum(shares**2 * entering.excess[own], axis=1)[:, -1]  # adds in order, and zeros behind
    energy = table.sums(powers)
    return MixedTensors(table.sums(spectra), energy, table.sums(parts) / energy**2)


def _concatenated(table: MixTable, state: _SourceRows) -> MixedTensors:
    """Parts side by side, each with its share of the channels."""
    spectra, powers = _powers(table, state.spectra, state.powers)
    energy = table.sums(powers)
    squares = table.sums(powers * state.powers[table.sources] * (1 + state.excess[table.sources]))
    return MixedTensors(table.sums(spectra), energy, squares / energy**2 - 1)


def _powers(table: MixTable, spectra: Array, powers: Array) -> tuple[Array, Array]:
    """Spectra and energy of each entry, behind its filter."""
    taken, energy = spectra[table.sources], powers[table.sources]
    if table.factors is not None:
        taken *= table.factors[:, None, None]
        energy *= table.factors
    if len(table.filtered):
        taken[table.filtered] *= table.filters[:, None, :]
        energy[table.filtered] = energies(taken[table.filtered, 0])
    return taken, energy


def shared_energy(table: MixTable, spectra: Array, powers: Array) -> Array:
    """Energy of each mix, given spectra ``(rows, 45)`` and energy of the sources."""
    energy = powers[table.sources]
    if table.factors is not None:
        energy *= table.factors
    if len(table.filtered):
        energy[table.filtered] = energies(table.filters * spectra[table.sources[table.filtered]])
    return table.sums(energy)


def _output(table: MixTable, state: _SourceRows, entering: Sources | None) -> TensorState:
    """What leaves the plans: the sources that entered, as far as they get through, and the stages' own."""
    total = _mixed(table, state, entering)
    return TensorState(total.spectra, total.excess, None if entering is None else _apart(table, state, entering))


def _apart(table: MixTable, state: _SourceRows, entering: Sources) -> Sources:
    """The sources that leave the plans, one by one.

    Those that entered come first, in their places (zeros for a network whose input does not get through), then each
    network's new ones.
    """
    size = len(table.starts)
    factors = np.ones((len(table.sources), SIZE))
    if table.factors is not None:
        factors *= table.factors[:, None]
    factors[table.filtered] = table.filters
    net = np.repeat(np.arange(size), np.diff([*table.starts, len(table.sources)]))
    is_new = table.sources >= size
    old, new = np.flatnonzero(~is_new), np.flatnonzero(is_new)
    through = entering.spectra.shape[1] if len(old) else 0
    slot = through + np.arange(len(new)) - np.searchsorted(net[new], net[new])
    width = int(slot.max()) + 1 if len(new) else through
    spectra, excess = np.zeros((size, width, SIZE)), np.zeros((size, width))
    if through:
        own = net[old]
        spectra[own, :through] = factors[old, None] * entering.spectra[own]
        excess[own, :through] = entering.excess[own]
    spectra[net[new], slot] = factors[new] * state.spectra[table.sources[new], 0]
    excess[net[new], slot] = state.excess[table.sources[new]]
    return Sources(spectra, excess)
