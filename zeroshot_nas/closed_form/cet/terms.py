"""The terms of CET: numbers of each convolution, their sums over a network, and the score made of them."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.closed_form.cet.propagation import LINEAR_SHARE
from zeroshot_nas.closed_form.cet.spectra import Array
from zeroshot_nas.closed_form.cet.variant import Variant
from zeroshot_nas.core.score import ScoreValue
from zeroshot_nas.errors import ProxyError, UndefinedScoreError

VARIANTS = ("u", "g", "p", "pf", "gm")
"""Names of the capacities of `zeroshot_nas.closed_form.cet.score.cet`; see there."""

PLAIN_DEPTH = 20
"""Depth from which on a plain network degrades: He et al. (arXiv:1512.03385) train plain-20 well and plain-32 worse."""

LINEAR_LOSS = -math.log(LINEAR_SHARE)
"""Loss a layer of a plain chain, in the logarithm of the share of its output that is linear in the image."""

GRADIENT_GAIN = math.log(math.pi / (math.pi - 1))
"""Gain a layer of a plain chain, in the logarithm of the gradient's energy."""

OF_CERES = ("A", "R", "resolutions", "Z", "narrowness")
"""Terms of `zeroshot_nas.closed_form.ceres.ceres` alone."""

_NO_CONVOLUTION = "no convolution lies on a path from the input to the output"
_TINY = 1e-300


class ConvColumns(NamedTuple):
    """The convolutions that count, in order: a column for each number, one value a convolution.

    Attributes:
        out_channels: Output channels.
        in_channels: Input channels.
        fan_in: Weights of one output channel.
        positions: Output positions, height times width.
        patch_rank: Participation ratio of the input patches' covariance: independent inputs of one output value.
        novelty: Share of it that no larger convolution on a parallel path repeats, 0 to 1.
        output_rank: Effective output channels c / (1 + e).
        output_positions: Effective output positions: exp of the entropy of the power spectrum, as a part of them.
        gradient_rank: As ``output_rank``, of the output's gradient.
        gradient_positions: As ``output_positions``, of that gradient.
        is_stem: 1 where it reads the image, else 0; of the variants "u" alone counts these.
    """

    out_channels: Array
    in_channels: Array
    fan_in: Array
    positions: Array
    patch_rank: Array
    novelty: Array
    output_rank: Array
    output_positions: Array
    gradient_rank: Array
    gradient_positions: Array
    is_stem: Array

    @property
    def size(self) -> Array:
        """Weights of each."""
        return self.out_channels * self.fan_in

    @property
    def parameters(self) -> Array:
        """Effective parameters of each."""
        return self.novelty * self.out_channels * self.patch_rank

    @property
    def weights(self) -> Array:
        """Effective weights of each that the head can tell apart."""
        return self.novelty * self.gradient_rank * self.patch_rank

    @property
    def directions(self) -> Array:
        """Effective weights of each: independent inputs times independent outputs that no larger one repeats."""
        return self.novelty * self.output_rank * self.patch_rank

    @property
    def efficiency(self) -> Array:
        """The share of each one's weights that `directions` counts."""
        return self.directions / self.size

    @property
    def throughput(self) -> Array:
        """Independent channels that get through each: no more than enter, leave, and come back as gradients."""
        return np.minimum(np.minimum(self.output_rank, self.gradient_rank), self.in_channels)

    @property
    def outputs(self) -> Array:
        """Independent values that each emits for an image."""
        return self.output_rank * self.output_positions

    @property
    def gradients(self) -> Array:
        """Independent gradients that reach each for an image."""
        return self.gradient_rank * self.gradient_positions

    @property
    def uses(self) -> Array:
        """Effective uses of the weights of each.

        One product of input and gradient a weight and a position, but no more than there are pairs of an independent
        output and an independent gradient.
        """
        return np.minimum(self.weights * self.positions, self.outputs * self.gradients)

    @property
    def expressivity(self) -> Array:
        """Log of the effective output dimension of each, at least 0."""
        return np.log(np.maximum(self.outputs, 1.0))

    @property
    def transmission(self) -> Array:
        """The same of the narrower of output and gradient, and 1 added to it."""
        return np.log1p(np.minimum(self.outputs, self.gradients))


@dataclass(frozen=True)
class CetTerms:
    """The terms of one network's CET; all but U, S, H_U and H_S without the convolutions that read the image.

    Attributes:
        U: Effective uses of the weights.
        H_U: Entropy of their shares by resolution, in nats.
        S: Two-sided expressivity.
        H_S: Entropy of its shares by resolution, in nats.
        P: Effective parameters.
        PF: The same, each at its effective output positions: effective FLOPs.
        W: Effective weights that the head can tell apart.
        W_L2: The same, each at all its output positions.
        E: Expressivity.
        E_m: Two-sided expressivity.
        D_f: Layers of a plain chain that keeps as small a share of its output linear in the image.
        D_b: Layers of a plain chain whose gradient grows as much.
        A: Effective weights, independent inputs times independent outputs; with those that read the image.
        R: Sum over resolutions of 2 log of the sum of L sqrt(a), of convolutions with sides L and a effective weights.
        resolutions: Number of resolutions.
        Z: Sum of L sqrt(f a / n): f is how many independent channels get through, n the number of weights.
        narrowness: Mean of 1 over the input channels, of all but those that read the image.
    """

    U: float
    H_U: float
    S: float
    H_S: float
    P: float
    PF: float
    W: float
    W_L2: float
    E: float
    E_m: float
    D_f: float
    D_b: float
    A: float
    R: float
    resolutions: float
    Z: float
    narrowness: float

    @classmethod
    def of(cls, columns: ConvColumns, depth_forward: float, depth_backward: float) -> CetTerms:
        """Sums over the convolutions.

        Raises:
            UndefinedScoreError: There is none.
        """
        nets = np.zeros(len(columns.out_channels), np.intp)
        (terms,) = network_terms(nets, columns, np.array([depth_forward]), np.array([depth_backward]))
        if isinstance(terms, UndefinedScoreError):
            raise terms
        return terms

    @property
    def D(self) -> float:  # noqa: N802
        """Plain-equivalent depth, the larger of the two."""
        return max(self.D_f, self.D_b)

    @property
    def details(self) -> dict[str, float]:
        """Those that CET is made of by name, and D."""
        own = {name: value for name, value in vars(self).items() if name not in OF_CERES}
        return {**own, "D": self.D}

    def value(self, variant: Variant = "u") -> ScoreValue:
        """The score, with the terms as its details.

        Raises:
            ProxyError: No variant has that name.
        """
        if variant == "u":
            number = score_u(self.U, self.H_U, self.S, self.H_S, self.D_f, self.D_b)
        else:
            squares = {"g": self.W * self.W_L2, "p": self.P**2, "pf": self.PF**2, "gm": self.P * self.PF}
            if variant not in squares:
                raise ProxyError(f"cet has the variants {', '.join(VARIANTS)}, got {variant!r}")
            expressivity = self.E_m if variant == "g" else self.E
            number = math.log1p(math.sqrt(squares[variant])) + math.log(0.5 + expressivity) - _beyond(self.D)
        return ScoreValue(number, self.details)


def score_u(U: float, H_U: float, S: float, H_S: float, D_f: float, D_b: float) -> float:  # noqa: N803
    """The variant "u"; see `CetTerms`."""
    return math.log1p(U) + H_U + math.log(0.5 + S) + H_S - _beyond(D_f) - _beyond(D_b)


def _beyond(depth: float) -> float:
    """The part of a plain-equivalent depth beyond what trains, over that."""
    return max(0.0, depth - PLAIN_DEPTH) / PLAIN_DEPTH


def network_terms(
    nets: NDArray[np.intp], columns: ConvColumns, depth_forward: Array, depth_backward: Array
) -> list[CetTerms | UndefinedScoreError]:
    """The terms of many networks, or the reason why one has none.

    Args:
        nets: For each convolution its network's number.
        columns: The convolutions.
        depth_forward: D_f of each network.
        depth_backward: D_b of each network.
    """
    size = len(depth_forward)
    inner = (columns.is_stem == 0).astype(float)
    parameters, weights, uses = inner * columns.parameters, inner * columns.weights, columns.uses
    transmission = columns.transmission
    terms = {
        "U": _totals(nets, uses, size),
        "H_U": _entropies(nets, uses, columns.positions, size),
        "S": _totals(nets, transmission, size),
        "H_S": _entropies(nets, transmission, columns.positions, size),
        "P": _totals(nets, parameters, size),
        "PF": _totals(nets, parameters * columns.output_positions, size),
        "W": _totals(nets, weights, size),
        "W_L2": _totals(nets, weights * columns.positions, size),
        "E": _totals(nets, inner * columns.expressivity, size),
        "E_m": _totals(nets, inner * transmission, size),
        "D_f": depth_forward,
        "D_b": depth_backward,
        "A": _totals(nets, columns.directions, size),
        **_logs(nets, np.sqrt(columns.directions * columns.positions), columns.positions, size),
        "Z": _totals(nets, np.sqrt(columns.positions * columns.throughput * columns.efficiency), size),
        "narrowness": _totals(nets, inner / columns.in_channels, size) / np.maximum(_totals(nets, inner, size), 1),
    }
    counts = np.bincount(nets, minlength=size).tolist()
    rows = zip(*(column.tolist() for column in terms.values()), strict=True)
    return [
        CetTerms(**dict(zip(terms, row, strict=True))) if count else UndefinedScoreError(_NO_CONVOLUTION)
        for row, count in zip(rows, counts, strict=True)
    ]


def _totals(nets: NDArray[np.intp], values: Array, size: int) -> Array:
    """Sum of each network's values, added in their order whatever stands between them."""
    return np.bincount(nets, values, size).astype(float)  # of no values it is an array of whole numbers


def _entropies(nets: NDArray[np.intp], values: Array, resolutions: Array, size: int) -> Array:
    """Entropy of the shares of each network's sum by resolution; exp of it is the effective number of resolutions.

    A resolution that a network lacks adds 0 to its sums.
    """
    all_resolutions, place = np.unique(resolutions, return_inverse=True)
    width = len(all_resolutions)
    totals = _totals(nets * width + place, values, size * width)
    owners = np.repeat(np.arange(size), width)
    shares = totals / np.maximum(_totals(owners, totals, size), _TINY)[owners]
    return -_totals(owners, shares * np.log(np.maximum(shares, _TINY)), size)


def _logs(nets: NDArray[np.intp], values: Array, resolutions: Array, size: int) -> dict[str, Array]:
    """Twice the sum over a network's resolutions of the logarithm of the sum of its values there, and their number."""
    all_resolutions, place = np.unique(resolutions, return_inverse=True)
    width = len(all_resolutions)
    totals = _totals(nets * width + place, values, size * width)
    owners, present = np.repeat(np.arange(size), width)[totals > 0], totals[totals > 0]
    return {
        "R": 2 * _totals(owners, np.log(present), size),
        "resolutions": _totals(owners, np.ones(len(owners)), size),
    }


def sum_and_entropy(parts: Collection[float]) -> tuple[float, float]:
    """The sum, and the entropy of the parts' shares; exp of it is the effective number of parts."""
    total = sum(parts)
    return total, -sum([each / total * math.log(each / total) for each in parts if each > 0])
