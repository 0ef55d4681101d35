"""CET: capacity x expressivity x trainability of a network, in closed form from its graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from zeroshot_nas.architecture import Architecture
from zeroshot_nas.detailed import Detailed
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.meanfield.novelty import novelty
from zeroshot_nas.meanfield.plan import Site, sub_layer_site
from zeroshot_nas.meanfield.propagation import (
    LINEAR_SHARE,
    Backward,
    Ensemble,
    Field,
    Forward,
    Index,
    Layout,
    Sources,
    backward,
    forward,
)
from zeroshot_nas.meanfield.spectra import MEAN, SIZE, Array, effective_modes, spectrum, torus_side, white
from zeroshot_nas.ops import Resolution, Shape

Variant: TypeAlias = Literal["u", "g", "p", "pf", "gm"]

VARIANTS = ("u", "g", "p", "pf", "gm")
"""What the capacity of `cet` is; see there."""

PLAIN_DEPTH = 20
"""Depth from which on a plain network degrades: He et al. (arXiv:1512.03385) train plain-20 well and plain-32 worse."""

LINEAR_LOSS = -math.log(LINEAR_SHARE)
"""What a layer of a plain chain takes from the logarithm of the share of its output that is linear in the image."""

GRADIENT_GAIN = math.log(math.pi / (math.pi - 1))
"""What a layer of a plain chain adds to the logarithm of the gradient's energy."""

CHUNK = 128
"""Networks that run side by side."""

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
        (found,) = _summed_up(nets, layers, np.array([depth_forward]), np.array([depth_backward]))
        if isinstance(found, UndefinedScoreError):
            raise found
        return found

    @property
    def D(self) -> float:  # noqa: N802
        """Plain-equivalent depth, the larger of the two."""
        return max(self.D_f, self.D_b)

    def value(self, variant: Variant = "u") -> Detailed:
        """The score, with the pieces as its details.

        Raises:
            ProxyError: No variant has that name.
        """
        if variant == "u":
            number = math.log1p(self.U) + self.H_U + math.log(0.5 + self.S) + self.H_S
            number -= _beyond(self.D_f) + _beyond(self.D_b)
        else:
            squares = {"g": self.W * self.W_L2, "p": self.P**2, "pf": self.PF**2, "gm": self.P * self.PF}
            if variant not in squares:
                raise ProxyError(f"cet has the variants {', '.join(VARIANTS)}, got {variant!r}")
            expressivity = self.E_m if variant == "g" else self.E
            number = math.log1p(math.sqrt(squares[variant])) + math.log(0.5 + expressivity) - _beyond(self.D)
        return Detailed(number, {**vars(self), "D": self.D})


def _beyond(depth: float) -> float:
    """How far a plain-equivalent depth is beyond what trains."""
    return max(0.0, depth - PLAIN_DEPTH) / PLAIN_DEPTH


def _summed_up(
    nets: Index, layers: Layers, depth_forward: Array, depth_backward: Array
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


def _entropies(nets: Index, values: Array, resolutions: Array, size: int) -> Array:
    """Entropy of the shares of each network's sum by resolution; exp of it is the effective number of resolutions."""
    each, place = np.unique(resolutions, return_inverse=True)
    totals = np.bincount(nets * len(each) + place, values, size * len(each)).reshape(size, len(each))
    shares = totals / np.maximum(totals.sum(1, keepdims=True), _TINY)
    entropies: Array = -(shares * np.log(np.maximum(shares, _TINY))).sum(1)
    return entropies


def cet(architecture: Architecture, *, variant: Variant = "u") -> Detailed:
    r"""Capacity x expressivity x trainability, in closed form; higher is better. A score of this project's own.

    .. math:: \log(1 + U) + H(U) + \log(\tfrac12 + S) + H(S) - \frac{(D_f - 20)_+ + (D_b - 20)_+}{20}

    U sums the effective uses of weights over the convolutions, min(W L^2, r g): W counts the weights whose inputs and
    gradients are independent and that no parallel convolution repeats, L^2 the positions of the output, r and g the
    effective dimensions of the output and of its gradient. S sums log(1 + min(r, g)). H is the entropy of a sum's
    shares by resolution. D_f and D_b tell how many layers of a plain chain lose as much linear signal, and let the
    gradient grow as much. Sums run over the convolutions that an input path reaches and a gradient leaves.
    ``docs/cet.md`` derives it and says where it fails.

    Args:
        architecture: Any architecture whose operations have a mean-field rule: chains and cells of convolutions (full
            and depthwise), batch norm, ReLU, pooling, sums, concatenation. Gates count as the identity.
        variant: ``"u"`` as above. The others are log(1 + capacity) + log(1/2 + expressivity) - (D - 20)_+ / 20 with
            D = max(D_f, D_b), and leave out what reads the image. ``"g"`` (CET-G): sqrt(sum W * sum W L^2), and S.
            ``"p"``: effective parameters, whatever their gradients; ``"pf"``: effective FLOPs; ``"gm"``: the geometric
            mean of both; these three with the sum of log r, each at least 0.

    Returns:
        The score, with its pieces as ``.details``; see `CetPieces`.

    Raises:
        UndefinedScoreError: No path leads from the input to the output, or an operation has no rule.
        ProxyError: No variant has that name.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)", (3, 16, 16))
        >>> score = cet(net)
        >>> round(score, 3), round(score.details["P"]), round(score.details["D"], 2)
        (17.336, 6407, 1.55)
    """
    return cet_pieces(architecture).value(variant)


def cet_pieces(architecture: Architecture) -> CetPieces:
    """The pieces of CET of one architecture; see `cet`.

    Raises:
        UndefinedScoreError: As `cet`.
    """
    (found,) = cet_pool([architecture])
    if isinstance(found, UndefinedScoreError):
        raise found
    return found


def cet_pool(architectures: Iterable[Architecture]) -> list[CetPieces | UndefinedScoreError]:
    """The pieces of many architectures, side by side: a cell of NAS-Bench-201 takes a fraction of its time alone.

    Returns:
        For each architecture its pieces, or the reason why it has none.

    Example:
        >>> from zeroshot_nas.spaces.nasbench201 import NASBench201
        >>> space = NASBench201()
        >>> nets = [space.from_string(code, code="op_code") for code in ("000000", "333333")]
        >>> [type(found).__name__ for found in cet_pool(nets)]
        ['UndefinedScoreError', 'CetPieces']
    """
    asked = list(architectures)
    found: list[CetPieces | UndefinedScoreError | None] = [None] * len(asked)
    alike: dict[_Identity, list[int]] = {}  # places of networks that do the same
    courses: dict[_Identity, _Course] = {}
    for place, architecture in enumerate(asked):
        try:
            course = _course(architecture)
        except UndefinedScoreError as error:
            found[place] = error
        else:
            identity = _identity(architecture, course)
            courses[identity] = course
            alike.setdefault(identity, []).append(place)
    ready = sorted(
        ((_shape(identity, course), identity) for identity, course in courses.items()), key=lambda entry: entry[0]
    )
    for (input_size, *_), group in groupby(ready, key=lambda entry: entry[0]):
        members = [identity for _, identity in group]
        for start in range(0, len(members), CHUNK):
            chunk = members[start : start + CHUNK]
            passes = propagate([courses[each] for each in chunk], input_size, [each.num_classes for each in chunk])
            for identity, pieces in zip(chunk, _pieces(passes), strict=True):
                for place in alike[identity]:
                    found[place] = pieces
    return [each for each in found if each is not None]


_Course: TypeAlias = "Sequence[tuple[Site, int]]"


class _Identity(NamedTuple):
    """What makes a network: plans by identity, for equal ones are one object."""

    input_size: Shape
    num_classes: int
    plans: tuple[tuple[int, int, Resolution | None, int], ...]


def _identity(architecture: Architecture, course: _Course) -> _Identity:
    plans = tuple((id(site.plan), site.width, site.resolution, times) for site, times in course)
    return _Identity(architecture.input_size, architecture.num_classes, plans)


def _shape(identity: _Identity, course: _Course) -> tuple[Shape, tuple[int, ...], bool, bool]:
    """What networks that run side by side have in common; for speed also which of their sources are kept apart."""
    return (
        identity.input_size,
        tuple(times for _, times in course),
        any(site.plan.filters_input for site, _ in course),
        any(site.plan.filters_gradient for site, _ in course),
    )


class Step(NamedTuple):
    """One sub-layer of all networks: its plans, forward and backward pass."""

    ensemble: Ensemble
    forward: Forward
    backward: Backward


class Passes(NamedTuple):
    """Both passes through networks of one depth.

    Attributes:
        steps: Sub-layers, first to last.
        depth_forward: D_f of each network.
        depth_backward: D_b of each network.
    """

    steps: Sequence[Step]
    depth_forward: Array
    depth_backward: Array


def propagate(courses: Sequence[_Course], input_size: tuple[int, int, int], num_classes: Sequence[int]) -> Passes:
    """Runs images forward and gradients backward through networks with as many sub-layers in as many blocks."""
    size, side = len(courses), min(input_size[1:])
    columns = [[course[index][0] for course in courses] for index in range(len(courses[0]))]
    image = np.broadcast_to(white(torus_side(side)), (size, 2, SIZE))
    apart = any(site.plan.filters_input for column in columns for site in column)
    state = Field(image, np.zeros(size), Sources(image[:, :1], np.zeros((size, 1))) if apart else None)
    layouts: dict[tuple[int, ...], Layout] = {}
    taken: list[tuple[Ensemble, Forward]] = []
    for column, (_, times) in zip(columns, courses[0], strict=True):
        plans = [site.plan for site in column]
        key = tuple(map(id, plans))
        if key not in layouts:
            layouts[key] = Layout(plans)
        ensemble = Ensemble(layouts[key], column)
        for _ in range(times):
            passed = forward(ensemble, state)
            taken.append((ensemble, passed))
            state = passed.left
    shapes = [site.shape for site in columns[-1]]
    rank = np.array([channels / classes for (channels, _, _), classes in zip(shapes, num_classes, strict=True)])
    constant = np.broadcast_to(spectrum(np.ones(SIZE)), (size, 1, SIZE))  # global pooling: the same at all positions
    apart = any(site.plan.filters_gradient for column in columns for site in column)
    gradient = Field(constant, rank, Sources(constant, rank[:, None]) if apart else None)
    steps: list[Step] = []
    for ensemble, passed in reversed(taken):
        came = backward(ensemble, passed, gradient)
        steps.append(Step(ensemble, passed, came))
        gradient = came.left
    energy, linear = (state.spectra @ MEAN).T
    share = linear / energy
    positions = np.array([height * width for _, height, width in shapes])
    growth = (gradient.spectra[:, 0] @ MEAN) * (input_size[1] * input_size[2]) / (positions * energy)
    rectified = np.array(
        [float(site.plan.ends_in_relu) for site in columns[-1]]
    )  # behind it only the head is left: no layer
    return Passes(steps[::-1], -np.log(share) / LINEAR_LOSS - rectified, np.log(growth) / GRADIENT_GAIN - rectified)


def _course(architecture: Architecture) -> _Course:
    """The plans of an architecture's sub-layers, with how often each stands in a row."""
    channels, *sides = architecture.input_size
    resolution = (sides[0], sides[1])
    course: list[tuple[Site, int]] = []
    for block in architecture.blocks:
        site = sub_layer_site(block, channels, resolution)
        channels, resolution = block.out_channels, site.shape[1:]
        following = sub_layer_site(block, None, resolution) if block.sub_layers > 1 else site
        if following == site:
            course.append((site, block.sub_layers))
        else:
            course += [(site, 1), (following, block.sub_layers - 1)]
    return course


def _pieces(passes: Passes) -> list[CetPieces | UndefinedScoreError]:
    return _summed_up(*layers_of(passes), passes.depth_forward, passes.depth_backward)


def layers_of(passes: Passes) -> tuple[Index, Layers]:
    """The convolutions that count, of all networks: for each the network's number, and its numbers."""
    nets: list[Index] = []
    columns: list[Layers] = []
    for index, step in enumerate(passes.steps):
        counted = step.ensemble.layout.counted
        if counted:
            net, _, rows, reads_input = np.array(counted, np.intp).T
            nets.append(net)
            columns.append(_numbers(step, rows, (reads_input * (index == 0)).astype(float)))
    if not nets:
        return np.empty(0, np.intp), Layers(*(np.empty(0) for _ in Layers._fields))
    return np.concatenate(nets), Layers(*map(np.concatenate, zip(*columns, strict=True)))


def _numbers(step: Step, rows: Index, is_stem: Array) -> Layers:
    channels, height, width, torus = step.ensemble.shapes[rows].T
    behind = rows + step.ensemble.layout.size
    positions = height * width
    scale = positions / torus**2
    return Layers(
        out_channels=channels,
        positions=positions,
        patch_rank=step.forward.participation[rows],
        novelty=novelty(step.ensemble, step.forward, step.backward)[rows],
        output_rank=channels / (1 + step.forward.excess[behind]),
        output_positions=effective_modes(step.forward.spectra[behind, 0]) * scale,
        gradient_rank=channels / (1 + step.backward.reached_excess[rows]),
        gradient_positions=effective_modes(step.backward.reached[rows]) * scale,
        is_stem=is_stem,
    )
