"""What CET weighs: numbers of each convolution, their sums over a network, and the score made of them."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.closed_form.cet.propagation import LINEAR_SHARE
from zeroshot_nas.closed_form.cet.spectra import Array
from zeroshot_nas.core.score import ScoreValue
from zeroshot_nas.errors import ProxyError, UndefinedScoreError

Variant: TypeAlias = Literal["u", "g", "p", "pf", "gm"]

VARIANTS = ("u", "g", "p", "pf", "gm")
"""What the capacity of `zeroshot_nas.closed_form.cet.score.cet` is; see there."""

PLAIN_DEPTH = 20
"""Depth from which on a plain network degrades: He et al. (arXiv:1512.03385) train plain-20 well and plain-32 worse."""

LINEAR_LOSS = -math.log(LINEAR_SHARE)
"""What a layer of a plain chain takes from the logarithm of the share of its output that is linear in the image."""

GRADIENT_GAIN = math.log(math.pi / (math.pi - 1))
"""What a layer of a plain chain adds to the logarithm of the gradient's energy."""

_NO_CONVOLUTION = "no convolution lies on a path from the input to the output"
_TINY = 1e-300


class Layers(NamedTuple):
    """The convolutions that count, in order; one value each.

    Attributes:
        out_channels: Output channels.
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
    positions: Array
    patch_rank: Array
    novelty: Array
    output_rank: Array
    output_positions: Array
    gradient_rank: Array
    gradient_positions: Array
    is_stem: Array

    @property
    def parameters(self) -> Array:
        """Effective parameters of each."""
        return self.novelty * self.out_channels * self.patch_rank

    @property
    def weights(self) -> Array:
        """Effective weights of each that the head can tell apart."""
        return self.novelty * self.gradient_rank * self.patch_rank

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
class CetPieces:
    """What CET weighs; all but U, S, H_U and H_S without the convolutions that read the image.

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

    @classmethod
    def of(cls, layers: Layers, depth_forward: float, depth_backward: float) -> CetPieces:
        """Sums over the convolutions.

        Raises:
            UndefinedScoreError: There is none.
        """
        nets = np.zeros(len(layers.out_channels), np.intp)
        (found,) = summed_up(nets, layers, np.array([depth_forward]), np.array([depth_backward]))
        if isinstance(found, UndefinedScoreError):
            raise found
        return found

    @property
    def D(self) -> float:  # noqa: N802
        """Plain-equivalent depth, the larger of the two."""
        return max(self.D_f, self.D_b)

    @property
    def details(self) -> dict[str, float]:
        """All of them by name, and D."""
        return {**vars(self), "D": self.D}

    def value(self, variant: Variant = "u") -> ScoreValue:
        """The score, with the pieces as its details.

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
    """The variant "u"; see `CetPieces`."""
    return math.log1p(U) + H_U + math.log(0.5 + S) + H_S - _beyond(D_f) - _beyond(D_b)


def _beyond(depth: float) -> float:
    """How far a plain-equivalent depth is beyond what trains."""
    return max(0.0, depth - PLAIN_DEPTH) / PLAIN_DEPTH


def summed_up(
    nets: NDArray[np.intp], layers: Layers, depth_forward: Array, depth_backward: Array
) -> list[CetPieces | UndefinedScoreError]:
    """The pieces of many networks, given for each convolution its network's number, and for each network its depths."""
    size = len(depth_forward)

    def totals(values: Array) -> Array:
        return np.bincount(nets, values, size).astype(float)  # of none it is an array of whole numbers

    inner = (layers.is_stem == 0).astype(float)
    parameters, weights = inner * layers.parameters, inner * layers.weights
    columns = {
        "U": totals(layers.uses),
        "H_U": _entropies(nets, layers.uses, layers.positions, size),
        "S": totals(layers.transmission),
        "H_S": _entropies(nets, layers.transmission, layers.positions, size),
        "P": totals(parameters),
        "PF": totals(parameters * layers.output_positions),
        "W": totals(weights),
        "W_L2": totals(weights * layers.positions),
        "E": totals(inner * layers.expressivity),
        "E_m": totals(inner * layers.transmission),
        "D_f": depth_forward,
        "D_b": depth_backward,
    }
    counts = np.bincount(nets, minlength=size).tolist()
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        CetPieces(**dict(zip(columns, row, strict=True))) if count else UndefinedScoreError(_NO_CONVOLUTION)
        for row, count in zip(rows, counts, strict=True)
    ]


def _entropies(nets: NDArray[np.intp], values: Array, resolutions: Array, size: int) -> Array:
    """Entropy of the shares of each network's sum by resolution; exp of it is the effective number of resolutions."""
    each, place = np.unique(resolutions, return_inverse=True)
    totals = np.bincount(nets * len(each) + place, values, size * len(each)).reshape(size, len(each))
    shares = totals / np.maximum(totals.sum(1, keepdims=True), _TINY)
    entropies: Array = -(shares * np.log(np.maximum(shares, _TINY))).sum(1)
    return entropies


def sum_and_entropy(parts: Collection[float]) -> tuple[float, float]:
    """The sum, and the entropy of the parts' shares; exp of it is the effective number of parts."""
    total = sum(parts)
    return total, -sum([each / total * math.log(each / total) for each in parts if each > 0])
