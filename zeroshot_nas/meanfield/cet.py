"""CET: capacity x expressivity x trainability of a network, in closed form from its graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.architecture import Architecture
from zeroshot_nas.detailed import Detailed
from zeroshot_nas.errors import UndefinedScoreError
from zeroshot_nas.meanfield.chain import propagate_chain
from zeroshot_nas.meanfield.novelty import novelty
from zeroshot_nas.meanfield.pieces import GRADIENT_GAIN, LINEAR_LOSS, CetPieces, Layers, Variant
from zeroshot_nas.meanfield.plan import Plan, sub_layer_plan
from zeroshot_nas.meanfield.propagation import (
    Backward,
    Ensemble,
    Field,
    Forward,
    backward,
    forward,
)
from zeroshot_nas.meanfield.spectra import MEAN, SIZE, Array, effective_modes, spectrum, torus_side, white

CHUNK = 128
"""Networks that run side by side."""


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
    chain = propagate_chain(architecture) if variant == "u" else None
    if chain is not None:
        return Detailed(chain.score(), lambda: chain.pieces().details)
    return cet_pieces(architecture).value(variant)


def cet_pieces(architecture: Architecture) -> CetPieces:
    """The pieces of CET of one architecture; see `cet`.

    Raises:
        UndefinedScoreError: As `cet`.
    """
    chain = propagate_chain(architecture)
    if chain is not None:
        return chain.pieces()
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
    ready: list[tuple[_Shape, int, Course]] = []
    for place, architecture in enumerate(asked):
        chain = propagate_chain(architecture)
        if chain is not None:
            found[place] = chain.pieces()
            continue
        try:
            course = course_of(architecture)
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
            for (_, place, _), pieces in zip(chunk, pieces_of(passes), strict=True):
                found[place] = pieces
    return [each for each in found if each is not None]


Course: TypeAlias = "Sequence[tuple[Plan, int]]"
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


def propagate(courses: Sequence[Course], input_size: tuple[int, int, int], num_classes: Sequence[int]) -> Passes:
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


def course_of(architecture: Architecture) -> Course:
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


def pieces_of(passes: Passes) -> Iterator[CetPieces | UndefinedScoreError]:
    """The pieces of each network, or the reason why it has none."""
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
            if (stage := step.ensemble.plans[net].stages[place]).counts
        ]
        if not counted:
            continue
        nets += [net for net, _, _ in counted]
        rows = np.array([row for _, row, _ in counted])
        shapes = np.array([(*stage.shape, stage.torus[1]) for _, _, stage in counted], float)
        stem = np.array([float(index == 0 and set(stage.reads) == {0}) for _, _, stage in counted])
        values = _numbers(step, rows, shapes, stem)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return np.array(nets, np.intp), Layers(*(np.concatenate(column) if column else np.empty(0) for column in columns))


def _numbers(step: Step, rows: NDArray[np.intp], shapes: Array, is_stem: Array) -> Layers:
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
        is_stem=is_stem,
    )
