"""CET: capacity x expressivity x trainability of a network, in closed form from its graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.architecture import Architecture
from zeroshot_nas.detailed import Detailed
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.meanfield.novelty import novelty
from zeroshot_nas.meanfield.plan import Plan, sub_layer_plan
from zeroshot_nas.meanfield.propagation import (
    LINEAR_SHARE,
    Backward,
    Ensemble,
    Field,
    Forward,
    backward,
    forward,
)
from zeroshot_nas.meanfield.spectra import MEAN, SIZE, Array, effective_modes, spectrum, torus_side, white

Variant: TypeAlias = Literal["g", "p", "pf", "gm"]

VARIANTS = ("g", "p", "pf", "gm")

PLAIN_DEPTH = 20
"""Depth from which on a plain network degrades: He et al. (arXiv:1512.03385) train plain-20 well and plain-32 worse."""

LINEAR_LOSS = -math.log(LINEAR_SHARE)
"""What a layer of a plain chain takes from the logarithm of the share of its output that is linear in the image."""

GRADIENT_GAIN = math.log(math.pi / (math.pi - 1))
"""What a layer of a plain chain adds to the logarithm of the gradient's energy."""

CHUNK = 128
"""Networks that run side by side."""


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
    """

    out_channels: Array
    positions: Array
    patch_rank: Array
    novelty: Array
    output_rank: Array
    output_positions: Array
    gradient_rank: Array
    gradient_positions: Array

    @property
    def parameters(self) -> Array:
        """Effective parameters of each."""
        return self.novelty * self.out_channels * self.patch_rank

    @property
    def weights(self) -> Array:
        """Effective weights of each that the head can tell apart."""
        return self.novelty * self.gradient_rank * self.patch_rank

    @property
    def expressivity(self) -> Array:
        """Log of the effective output dimension of each, at least 0."""
        return np.maximum(0.0, np.log(np.maximum(self.output_rank * self.output_positions, 1e-300)))

    @property
    def transmission(self) -> Array:
        """The same of the narrower of output and gradient, and 1 added to it."""
        ranks = self.output_rank * self.output_positions, self.gradient_rank * self.gradient_positions
        return np.log1p(np.minimum(*ranks))


@dataclass(frozen=True)
class CetPieces:
    """What CET weighs.

    Attributes:
        P: Effective parameters.
        PF: The same, each at its effective output positions: effective FLOPs.
        W: Effective weights that the head can tell apart.
        W_L2: The same, each at all its output positions.
        E: Expressivity.
        E_m: Two-sided expressivity.
        D_f: Layers of a plain chain that keeps as small a share of its output linear in the image.
        D_b: Layers of a plain chain whose gradient grows as much.
    """

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
        if not len(layers.out_channels):
            raise UndefinedScoreError("no convolution lies on a path from the input to the output")
        parameters, weights = layers.parameters, layers.weights
        return cls(
            P=float(parameters.sum()),
            PF=float(parameters @ layers.output_positions),
            W=float(weights.sum()),
            W_L2=float(weights @ layers.positions),
            E=float(layers.expressivity.sum()),
            E_m=float(layers.transmission.sum()),
            D_f=depth_forward,
            D_b=depth_backward,
        )

    @property
    def D(self) -> float:  # noqa: N802
        """Plain-equivalent depth, the larger of the two."""
        return max(self.D_f, self.D_b)

    def value(self, variant: Variant = "g") -> Detailed:
        """The score, with the pieces as its details.

        Raises:
            ProxyError: No variant has that name.
        """
        capacities = {"g": self.W * self.W_L2, "p": self.P**2, "pf": self.PF**2, "gm": self.P * self.PF}
        if variant not in capacities:
            raise ProxyError(f"cet has the variants {', '.join(VARIANTS)}, got {variant!r}")
        expressivity = self.E_m if variant == "g" else self.E
        depth = max(0.0, self.D - PLAIN_DEPTH) / PLAIN_DEPTH
        number = math.log1p(math.sqrt(capacities[variant])) + math.log(0.5 + expressivity) - depth
        return Detailed(number, {**vars(self), "D": self.D})


def cet(architecture: Architecture, *, variant: Variant = "g") -> Detailed:
    r"""Capacity x expressivity x trainability, in closed form; higher is better. A score of this project's own.

    .. math:: \log\Big(1 + \sqrt{\textstyle\sum_l W_l \sum_l W_l H_l W_l}\Big)
        + \log\Big(\tfrac12 + \textstyle\sum_l \log(1 + \min(r_l, g_l))\Big) - \frac{\max(0, D - 20)}{20}

    with W_l the effective weights of convolution l (output channels x independent inputs x what no parallel convolution
    repeats, as far as the gradient at its output has independent channels), r_l and g_l the effective dimensions of its
    output and of that output's gradient, and D the plain-equivalent depth. Sums run over the convolutions that an input
    path reaches and a gradient leaves, without those that read the image. ``docs/cet.md`` derives it.

    Args:
        architecture: Any architecture whose operations have a mean-field rule: chains and cells of convolutions (full
            and depthwise), batch norm, ReLU, pooling, sums, concatenation. Gates count as the identity.
        variant: ``"g"`` as above (CET-G). ``"p"`` takes effective parameters as the capacity, ``"pf"`` effective FLOPs,
            ``"gm"`` the geometric mean of both; all three have the one-sided expressivity, sum of log r_l.

    Returns:
        The score, with its pieces as ``.details``; see `CetPieces`.

    Raises:
        UndefinedScoreError: No path leads from the input to the output, or an operation has no rule.
        ProxyError: No variant has that name.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)", (3, 16, 16))
        >>> score = cet(net)
        >>> round(score, 3), round(score.details["P"]), round(score.details["D"], 2)
        (13.399, 6407, 1.55)
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
    ready: list[tuple[_Shape, int, _Course]] = []
    for place, architecture in enumerate(asked):
        try:
            course = _course(architecture)
        except UndefinedScoreError as error:
            found[place] = error
        else:
            ready.append(((tuple(times for _, times in course), architecture.input_size), place, course))
    ready.sort(key=lambda entry: entry[0])
    for (_, input_size), group in groupby(ready, key=lambda entry: entry[0]):
        members = list(group)
        for start in range(0, len(members), CHUNK):
            chunk = members[start : start + CHUNK]
            passes = propagate(
                [course for _, _, course in chunk], input_size, [asked[at].num_classes for _, at, _ in chunk]
            )
            for (_, place, _), pieces in zip(chunk, _pieces(passes), strict=True):
                found[place] = pieces
    return [each for each in found if each is not None]


_Course: TypeAlias = "Sequence[tuple[Plan, int]]"
_Shape: TypeAlias = "tuple[tuple[int, ...], tuple[int, int, int]]"


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
    image = np.broadcast_to(white(torus_side(side)), (size, 1, SIZE))
    state = Field(image, np.zeros((size, 1)), image[:, 0])
    taken: list[tuple[Ensemble, Forward]] = []
    for index, (_, times) in enumerate(courses[0]):
        ensemble = Ensemble([course[index][0] for course in courses])
        for _ in range(times):
            passed = forward(ensemble, state)
            taken.append((ensemble, passed))
            state = passed.left
    last = [course[-1][0] for course in courses]
    rank = np.array([plan.shape[0] / classes for plan, classes in zip(last, num_classes, strict=True)])
    constant = np.broadcast_to(spectrum(np.ones(SIZE)), (size, 1, SIZE))  # global pooling: the same at all positions
    gradient = Field(constant, rank[:, None], np.zeros((size, SIZE)))
    steps: list[Step] = []
    for ensemble, passed in reversed(taken):
        came = backward(ensemble, passed, gradient)
        steps.append(Step(ensemble, passed, came))
        gradient = came.left
    energy = state.spectra.sum(1) @ MEAN
    share = state.linear @ MEAN / energy
    positions = np.array([plan.shape[1] * plan.shape[2] for plan in last])
    growth = (gradient.spectra.sum(1) @ MEAN) * (input_size[1] * input_size[2]) / (positions * energy)
    rectified = np.array([float(plan.ends_in_relu) for plan in last])  # behind it only the head is left: no layer
    return Passes(steps[::-1], -np.log(share) / LINEAR_LOSS - rectified, np.log(growth) / GRADIENT_GAIN - rectified)


def _course(architecture: Architecture) -> _Course:
    """The plans of an architecture's sub-layers, with how often each stands in a row."""
    channels, *sides = architecture.input_size
    resolution = (sides[0], sides[1])
    course: list[tuple[Plan, int]] = []
    for block in architecture.blocks:
        plan = sub_layer_plan(block, channels, resolution)
        course.append((plan, 1))
        channels, resolution = block.out_channels, plan.shape[1:]
        if block.sub_layers > 1:
            course.append((sub_layer_plan(block, None, resolution), block.sub_layers - 1))
    return course


def _pieces(passes: Passes) -> Iterator[CetPieces | UndefinedScoreError]:
    nets, layers = layers_of(passes)
    order = np.argsort(nets, kind="stable")
    cuts = np.searchsorted(nets[order], np.arange(len(passes.depth_forward) + 1))
    columns = [column[order] for column in layers]
    for net, (depth_forward, depth_backward) in enumerate(
        zip(passes.depth_forward.tolist(), passes.depth_backward.tolist(), strict=True)
    ):
        own = Layers(*(column[cuts[net] : cuts[net + 1]] for column in columns))
        try:
            yield CetPieces.of(own, depth_forward, depth_backward)
        except UndefinedScoreError as error:
            yield error


def layers_of(passes: Passes) -> tuple[NDArray[np.intp], Layers]:
    """The convolutions that count, of all networks: for each the network's number, and its numbers."""
    nets: list[int] = []
    columns: list[list[Array]] = [[] for _ in Layers._fields]
    for index, step in enumerate(passes.steps):
        counted = [
            (net, row, stage)
            for net, place, row in step.ensemble.convolutions()
            if (stage := step.ensemble.plans[net].stages[place]).counts and not (index == 0 and set(stage.reads) == {0})
        ]
        if not counted:
            continue
        nets += [net for net, _, _ in counted]
        rows = np.array([row for _, row, _ in counted])
        values = _numbers(step, rows, np.array([(*stage.shape, stage.torus[1]) for _, _, stage in counted], float))
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return np.array(nets, np.intp), Layers(*(np.concatenate(column) if column else np.empty(0) for column in columns))


def _numbers(step: Step, rows: NDArray[np.intp], shapes: Array) -> Layers:
    channels, height, width, torus = shapes.T
    behind = rows + step.ensemble.size
    positions = height * width
    scale = positions / torus**2
    return Layers(
        out_channels=channels,
        positions=positions,
        patch_rank=step.forward.participation[rows],
        novelty=novelty(step.ensemble, step.forward, step.backward)[rows],
        output_rank=channels / (1 + step.forward.excess[behind]),
        output_positions=effective_modes(step.forward.spectra[behind]) * scale,
        gradient_rank=channels / (1 + step.backward.reached_excess[rows]),
        gradient_positions=effective_modes(step.backward.reached[rows]) * scale,
    )
