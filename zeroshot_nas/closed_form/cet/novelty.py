"""How much of a convolution no larger one on a parallel path repeats."""

from __future__ import annotations

import numpy as np

from zeroshot_nas.closed_form.cet.layout import Pairs, PlacedLayout
from zeroshot_nas.closed_form.cet.propagation import BackwardPass, ForwardPass, rectified_correlation, shared_energy
from zeroshot_nas.closed_form.cet.spectra import Array

_SMALLEST_PIVOT = 1e-9


def novelty(placed: PlacedLayout, forward_pass: ForwardPass, backward_pass: BackwardPass) -> Array:
    """The share of every stage's weights that is new, by row; 1 for what is no convolution.

    Two parallel convolutions are one linear map as far as they read and write the same: their likeness is the
    correlation of their inputs times that of their output gradients. In order of size, what is left of a convolution
    beside those before it is the squared diagonal of the Cholesky factor of the likenesses.
    """
    new, pairs = np.ones(placed.layout.count), placed.layout.pairs
    if pairs is None:
        return new
    likeness = np.zeros((placed.layout.size, pairs.size, pairs.size)) + np.eye(pairs.size)
    net, first, second = pairs.places.T
    shared = _input_correlations(forward_pass, pairs) * _gradient_correlations(backward_pass, pairs)
    likeness[net, first, second] = likeness[net, second, first] = shared
    net, place, row = pairs.members.T
    new[row] = _pivots(likeness)[net, place]
    return new


def _pivots(matrices: Array) -> Array:
    """Squared diagonals of Cholesky factors, 0 where what is left is nothing; ``(B, m, m)`` to ``(B, m)``."""
    pivots = np.empty(matrices.shape[:2])
    for place in range(matrices.shape[1]):
        pivot = np.clip(matrices[:, place, place], 0.0, 1.0)
        pivots[:, place] = pivot
        left = pivot > _SMALLEST_PIVOT
        column = matrices[:, place + 1 :, place] * (left / np.sqrt(np.where(left, pivot, 1.0)))[:, None]
        matrices[:, place + 1 :, place + 1 :] -= column[:, :, None] * column[:, None, :]
    return pivots


def _gradient_correlations(backward_pass: BackwardPass, pairs: Pairs) -> Array:
    shared = shared_energy(pairs.gradients, backward_pass.spectra, backward_pass.powers)
    first, second = backward_pass.energy[pairs.stages].T
    correlations: Array = np.clip(shared / np.sqrt(first * second), -1.0, 1.0)
    return correlations


def _input_correlations(forward_pass: ForwardPass, pairs: Pairs) -> Array:
    correlations = np.ones(len(pairs.places))
    if len(pairs.differ):
        shared = shared_energy(pairs.inputs, forward_pass.spectra[:, 0], forward_pass.powers)
        first, second = forward_pass.energy[pairs.readers].T
        plain = np.clip(shared / np.sqrt(first * second), -1.0, 1.0)
        correlations[pairs.differ] = np.where(pairs.rectified, rectified_correlation(plain), plain)
    return correlations
