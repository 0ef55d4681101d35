"""CERES, capacity and expressivity by resolution, in closed form: a score for networks that fill the same budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.chains.coding import Chains
from zeroshot_nas.closed_form.cet.score import pool_of
from zeroshot_nas.closed_form.cet.spectra import Array
from zeroshot_nas.closed_form.cet.terms import OF_CERES, PLAIN_DEPTH, CetTerms
from zeroshot_nas.closed_form.rounding import less_rounding
from zeroshot_nas.closed_form.training_length import IMAGES, LONG_STEPS, STEPS
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.core.garbage import paused_garbage_collection
from zeroshot_nas.core.score import ScoreValue
from zeroshot_nas.errors import ProxyError, UndefinedScoreError

BITS_PER_WEIGHT = 2
"""Bits that a trained weight can hold (Allen-Zhu and Li, arXiv:2404.05405)."""

DEPTH_POWER = 0.25
"""How the depth that trains grows with the number of steps; chosen, see ``docs/ceres.md``."""


def ceres(architecture: Architecture, *, images: int = IMAGES, steps: int = STEPS) -> ScoreValue:
    r"""Capacity and expressivity by resolution, in closed form; higher is better. A score of this project's own.

    .. math:: \frac{2 \log K + \sum_r R_r}{n + 1} + 2 \log(\tfrac12 + Z) - 2 \log(1 + B/A)
        - 2 \log\left(1 + \sqrt{T_0/T}\, \rho\right) - \frac{(D_f - D)_+ + (D_b - D)_+}{D}

    For a convolution with n weights, of which a are effective (independent inputs times independent outputs, without
    what a larger parallel one repeats), and an output of L^2 positions, through which f independent channels get:

    - :math:`R_r = 2 \log \sum L \sqrt a` over the layers of one of the n resolutions, which add up in amplitude; each
      resolution has to be served, and so has the classifier's, whose K classes are its directions;
    - :math:`Z = \sum L \sqrt{f a / n}`, layers, as far as their weights and channels are independent: expressivity;
    - :math:`A = \sum a` against :math:`B = \tfrac12 N \log_2 K` for N images of K classes: how many weights of two
      bits hold all labels. More are of little use, fewer are the limit;
    - :math:`\rho = \tfrac12 (D_f + D_b) \overline{1/c}`, depth over width: D_f and D_b as in
      `zeroshot_nas.closed_form.cet.score.cet`, how many layers of a plain chain lose as much linear signal, and let the
      gradient grow as much; :math:`\overline{1/c}`, the mean of 1 over the input channels of all convolutions behind
      the image. What one draw of weights makes of signals and gradients varies with this ratio (Hanin and Rolnick,
      arXiv:1803.01719), and T training steps against :math:`T_0 = 64000` have to make up for it;
    - D_f and D_b against the depth :math:`D = 20 (T / T_0)^{1/4}` that T steps train.

    Where the architecture says of how many bits weights are, what their rounding takes from the signal is subtracted
    (`zeroshot_nas.closed_form.rounding.rounding_loss`).

    Sums run over the convolutions that an input path reaches and a gradient leaves. ``docs/ceres.md`` tells where the
    terms come from, what was chosen on which data, and where it fails.

    Args:
        architecture: As for `zeroshot_nas.closed_form.cet.score.cet`.
        images: Training images N.
        steps: Training steps T.

    Returns:
        The score, with A, R (the sum over resolutions), their number, Z, the narrowness (mean of 1/c), D_f and D_b as
        its ``.details``, and what rounding takes where the architecture has bits.

    Raises:
        UndefinedScoreError: No path leads from the input to the output, or an operation has no rule.
        ProxyError: A number is no whole number of 1 or more.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)", (3, 16, 16))
        >>> score = ceres(net)
        >>> round(score, 3), round(score.details["A"]), ceres(net, images=1_000) > score
        (12.563, 5347, True)
    """
    (value,) = ceres_pool([architecture], images=images, steps=steps)
    if isinstance(value, UndefinedScoreError):
        raise value
    return value


def ceres_pool(
    architectures: Iterable[Architecture], *, images: int = IMAGES, steps: int = STEPS
) -> list[ScoreValue | UndefinedScoreError]:
    """`ceres` of many architectures, side by side, to the last bit.

    Returns:
        For each architecture, in order, its score, or the error that `ceres` raises.

    Raises:
        ProxyError: As `ceres`.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)", (3, 16, 16))
        >>> ceres_pool([net]) == [ceres(net)]
        True
    """
    check_counts(1, ProxyError, images=images, steps=steps)
    networks = architectures if isinstance(architectures, Sequence) else list(architectures)
    with paused_garbage_collection():
        pool = pool_of(networks)
        classes = _classes(networks)
        values = _score(pool.terms, classes, images, steps).tolist()
        scores = [
            pool.errors[place] or ScoreValue(value, partial(_details, pool.terms, place))
            for place, value in enumerate(values)
        ]
        return less_rounding(scores, networks)


def score_of(terms: CetTerms, num_classes: int, images: int, steps: int) -> ScoreValue:
    """The score that a network's terms make; see `ceres`."""
    value = _score(vars(terms), num_classes, images, steps)
    return ScoreValue(float(value), {name: getattr(terms, name) for name in _PARTS})


_PARTS = (*OF_CERES, "D_f", "D_b")


def _classes(networks: Sequence[Architecture]) -> Any:
    return networks.num_classes if isinstance(networks, Chains) else np.array([each.num_classes for each in networks])


def _details(terms: Mapping[str, Array], place: int) -> dict[str, float]:
    return {name: float(terms[name][place]) for name in _PARTS}


def _score(terms: Mapping[str, Any], num_classes: Any, images: int, steps: int) -> Any:
    """The score that terms make, numbers or columns of them."""
    weights, logs, resolutions, layers, narrowness, *depths = (terms[name] for name in _PARTS)
    classes = np.maximum(num_classes, 2)
    width = (2 * np.log(classes) + logs) / (resolutions + 1)
    needed = images * np.log2(classes) / BITS_PER_WEIGHT
    ratio = math.sqrt(LONG_STEPS / steps) * np.maximum(0.0, sum(depths) / 2) * narrowness
    limit = PLAIN_DEPTH * (steps / LONG_STEPS) ** DEPTH_POWER
    beyond = sum(np.maximum(0.0, depth - limit) for depth in depths) / limit
    return width + 2 * np.log(0.5 + layers) - 2 * np.log1p(needed / weights) - 2 * np.log1p(ratio) - beyond
