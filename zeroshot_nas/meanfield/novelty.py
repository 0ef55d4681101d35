"""How much of a convolution no larger one on a parallel path repeats."""

from __future__ import annotations

import numpy as np

from zeroshot_nas.meanfield.plan import Mix, Pair
from zeroshot_nas.meanfield.propagation import Backward, Ensemble, Forward, rectified_correlation
from zeroshot_nas.meanfield.spectra import MEAN, Array

_SMALLEST_PIVOT = 1e-9


def novelty(ensemble: Ensemble, passed: Forward, came: Backward) -> Array:
    """The share of every stage's weights that is new, by row; 1 for what is no convolution.

    Two parallel convolutions are one linear map as far as they read and write the same: their likeness is the
    correlation of their inputs times that of their output gradients. In order of size, what is left of a convolution
    beside those before it is the squared diagonal of the Cholesky factor of the likenesses.
    """
    new = np.ones(ensemble.count)
    pairs = ensemble.pairs
    if not pairs:
        return new
    inputs, gradients = _input_correlations(ensemble, passed, pairs), _gradient_correlations(ensemble, came, pairs)
    net, first, second = ensemble.pair_places.T
    likeness = np.broadcast_to(np.eye(ensemble.paired), (ensemble.size, ensemble.paired, ensemble.paired)).copy()
    likeness[net, first, second] = likeness[net, second, first] = inputs * gradients
    net, place, row = ensemble.paired_rows.T
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


def _gradient_correlations(ensemble: Ensemble, came: Backward, pairs: list[tuple[int, Pair]]) -> Array:
    first, second = (np.array([ensemble.rows[net][pair.stages[end]] for net, pair in pairs]) for end in (0, 1))
    terms = ensemble.terms([(net, pair.gradients) for net, pair in pairs])
    shared = np.add.reduceat((terms.filters * came.spectra[terms.sources]) @ MEAN, terms.starts)
    correlations: Array = np.clip(shared / np.sqrt(came.energy[first] * came.energy[second]), -1.0, 1.0)
    return correlations


def _input_correlations(ensemble: Ensemble, passed: Forward, pairs: list[tuple[int, Pair]]) -> Array:
    correlations = np.ones(len(pairs))
    differ: list[int] = []
    mixes: list[tuple[int, Mix]] = []
    for place, (net, pair) in enumerate(pairs):
        if pair.inputs is not None:
            differ.append(place)
            mixes.append((net, pair.inputs))
    if not differ:
        return correlations
    read = [(net, pair.rectified or pair.stages) for net, pair in (pairs[place] for place in differ)]
    first, second = (np.array([ensemble.rows[net][ends[end]] for net, ends in read]) for end in (0, 1))
    terms = ensemble.terms(mixes)
    shared = np.add.reduceat((terms.filters * passed.spectra[terms.sources]) @ MEAN, terms.starts)
    plain = np.clip(shared / np.sqrt(passed.energy[first] * passed.energy[second]), -1.0, 1.0)
    rectified = np.array([pairs[place][1].rectified is not None for place in differ])
    correlations[differ] = np.where(rectified, rectified_correlation(plain), plain)
    return correlations
