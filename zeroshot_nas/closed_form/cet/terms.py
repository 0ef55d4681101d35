"""The terms of CET: numbers of each convolution, their sums over a network, and the score made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

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

NO_CONVOLUTION = "no convolution lies on a path from the input to the output"
"""Why a network has no terms."""

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
        return NetworkTerms(nets, columns, np.array([depth_forward]), np.array([depth_backward])).row(0)

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
        return ScoreValue(float(score_of_terms(vars(self), variant)), self.details)


def score_of_terms(terms: Mapping[str, Any], variant: Variant) -> Any:
    """The score that terms make, numbers or columns of them; see `zeroshot_nas.closed_form.cet.score.cet`.

    Raises:
        ProxyError: No variant has that name.
    """
    forward, backward = terms["D_f"], terms["D_b"]
    if variant == "u":
        capacity, expressivity = np.log1p(terms["U"]) + terms["H_U"], np.log(0.5 + terms["S"]) + terms["H_S"]
        return capacity + expressivity - _beyond(forward) - _beyond(backward)
    factors = {"g": ("W", "W_L2"), "p": ("P", "P"), "pf": ("PF", "PF"), "gm": ("P", "PF")}
    if variant not in factors:
        raise ProxyError(f"cet has the variants {', '.join(VARIANTS)}, got {variant!r}")
    first, second = factors[variant]
    expressivity = terms["E_m" if variant == "g" else "E"]
    capacity = np.log1p(np.sqrt(terms[first] * terms[second]))
    return capacity + np.log(0.5 + expressivity) - _beyond(np.maximum(forward, backward))


def _beyond(depth: Any) -> Any:
    """The part of a plain-equivalent depth beyond what trains, over that."""
    return np.maximum(0.0, depth - PLAIN_DEPTH) / PLAIN_DEPTH


class NetworkTerms(Mapping[str, Array]):
    """The terms of many networks: of each term of `CetTerms` a column, worked out when it is asked for.

    Args:
        nets: For each convolution its network's number.
        convolutions: The convolutions.
        depth_forward: D_f of each network.
        depth_backward: D_b of each network.
    """

    def __init__(
        self, nets: NDArray[np.intp], convolutions: ConvColumns, depth_forward: Array, depth_backward: Array
    ) -> None:
        self.nets, self.convolutions, self.size = nets, convolutions, len(depth_forward)
        self._columns = {"D_f": depth_forward, "D_b": depth_backward}

    def __len__(self) -> int:
        return len(TERMS)

    def __iter__(self) -> Iterator[str]:
        return iter(TERMS)

    def __getitem__(self, name: str) -> Array:
        if name not in self._columns:
            self._columns[name] = TERMS[name](self)
        return self._columns[name]

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """Convolutions of each network that count."""
        return np.bincount(self.nets, minlength=self.size)

    @cached_property
    def inner(self) -> Array:
        """1 for each convolution that does not read the image, else 0."""
        inner: Array = (self.convolutions.is_stem == 0).astype(float)
        return inner

    def total(self, values: Array) -> Array:
        """The sum of each network's values, added in their order whatever stands between them."""
        return np.bincount(self.nets, values, self.size).astype(float)  # of no values it is an array of whole numbers

    def by_resolution(self, values: Array) -> Array:
        """The same of each resolution ``(networks, resolutions)``; 0 at one that a network lacks."""
        place, width = self._resolutions
        sums: Array = np.bincount(self.nets * width + place, values, self.size * width).astype(float)
        return sums.reshape(self.size, width)

    @cached_property
    def _resolutions(self) -> tuple[NDArray[np.intp], int]:
        """The number of each convolution's resolution, and how many there are."""
        positions = self.convolutions.positions
        begins = np.flatnonzero(np.diff(positions, prepend=-1))  # most stand beside others of their resolution
        different, places = np.unique(positions[begins], return_inverse=True)
        return np.repeat(places, np.diff([*begins, len(positions)])), len(different)

    def entropy(self, values: Array) -> Array:
        """Entropy of the shares of each network's sum by resolution; exp of it is their effective number."""
        totals = self.by_resolution(values)
        shares = totals / np.maximum(_added(totals), _TINY)[:, None]
        return -_added(shares * np.log(np.maximum(shares, _TINY)))

    def amplitudes(self) -> Array:
        """Sum of L sqrt(a) of each resolution, of convolutions with sides L and a effective weights."""
        return self.by_resolution(np.sqrt(self.convolutions.directions * self.convolutions.positions))

    def row(self, place: int) -> CetTerms:
        """The terms of one network.

        Raises:
            UndefinedScoreError: It has no convolution that counts.
        """
        if not self.counts[place]:
            raise UndefinedScoreError(NO_CONVOLUTION)
        return CetTerms(**{name: float(self[name][place]) for name in self})


def _added(columns: Array) -> Array:
    """Sums along the last axis, in its order whatever stands in other rows."""
    total: Array = np.zeros(len(columns))
    for column in columns.T:
        total = total + column
    return total


def _log_of_amplitudes(terms: NetworkTerms) -> Array:
    totals = terms.amplitudes()
    return 2 * _added(np.log(np.where(totals > 0, totals, 1.0)))


def _narrowness(terms: NetworkTerms) -> Array:
    inner = terms.total(terms.inner)
    return terms.total(terms.inner / terms.convolutions.in_channels) / np.maximum(inner, 1)


def _layers(convs: ConvColumns) -> Array:
    layers: Array = np.sqrt(convs.positions * convs.throughput * convs.efficiency)
    return layers


TERMS: dict[str, Callable[[NetworkTerms], Array]] = {
    "U": lambda terms: terms.total(terms.convolutions.uses),
    "H_U": lambda terms: terms.entropy(terms.convolutions.uses),
    "S": lambda terms: terms.total(terms.convolutions.transmission),
    "H_S": lambda terms: terms.entropy(terms.convolutions.transmission),
    "P": lambda terms: terms.total(terms.inner * terms.convolutions.parameters),
    "PF": lambda terms: terms.total(terms.inner * terms.convolutions.parameters * terms.convolutions.output_positions),
    "W": lambda terms: terms.total(terms.inner * terms.convolutions.weights),
    "W_L2": lambda terms: terms.total(terms.inner * terms.convolutions.weights * terms.convolutions.positions),
    "E": lambda terms: terms.total(terms.inner * terms.convolutions.expressivity),
    "E_m": lambda terms: terms.total(terms.inner * terms.convolutions.transmission),
    "D_f": lambda terms: terms["D_f"],
    "D_b": lambda terms: terms["D_b"],
    "A": lambda terms: terms.total(terms.convolutions.directions),
    "R": _log_of_amplitudes,
    "resolutions": lambda terms: _added((terms.amplitudes() > 0).astype(float)),
    "Z": lambda terms: terms.total(_layers(terms.convolutions)),
    "narrowness": _narrowness,
}
"""The terms in order, each with what works it out."""
