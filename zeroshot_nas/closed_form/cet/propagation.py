"""Runs states through plans, forward and backward, for many networks at once: one rule an operation."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from zeroshot_nas.closed_form.cet.layout import Convolutions, Ensemble, Group, Terms
from zeroshot_nas.closed_form.cet.spectra import MEAN, SIZE, Array, covariance, spectrum, strided, stuffed, transfer

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
