"""CET: capacity x expressivity x trainability of a network, in closed form from its graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple, TypeAlias

import numpy as np

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Resolution, Shape
from zeroshot_nas.closed_form.cet.chain import propagate_chain
from zeroshot_nas.closed_form.cet.layout import Ensemble, Index, Layout
from zeroshot_nas.closed_form.cet.novelty import novelty
from zeroshot_nas.closed_form.cet.plan import Site
from zeroshot_nas.closed_form.cet.propagation import Backward, Field, Forward, Sources, backward, forward
from zeroshot_nas.closed_form.cet.spectra import MEAN, SIZE, Array, effective_modes, spectrum, torus_side, white
from zeroshot_nas.closed_form.cet.terms import GRADIENT_GAIN, LINEAR_LOSS, CetPieces, Layers, Variant, summed_up
from zeroshot_nas.closed_form.cet.tracing import sub_layer_site
from zeroshot_nas.core.score import ScoreValue
from zeroshot_nas.errors import UndefinedScoreError

CHUNK = 128
"""Networks that run side by side."""


def cet(architecture: Architecture, *, variant: Variant = "u") -> ScoreValue:
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
        return ScoreValue(chain.score(), lambda: chain.pieces().details)
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
    alike: dict[_Identity, list[int]] = {}  # places of networks that do the same
    courses: dict[_Identity, Course] = {}
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
            for identity, pieces in zip(chunk, pieces_of(passes), strict=True):
                for place in alike[identity]:
                    found[place] = pieces
    return [each for each in found if each is not None]


Course: TypeAlias = "Sequence[tuple[Site, int]]"


class _Identity(NamedTuple):
    """What makes a network: plans by identity, for equal ones are one object."""

    input_size: Shape
    num_classes: int
    plans: tuple[tuple[int, int, Resolution | None, int], ...]


def _identity(architecture: Architecture, course: Course) -> _Identity:
    plans = tuple((id(site.plan), site.width, site.resolution, times) for site, times in course)
    return _Identity(architecture.input_size, architecture.num_classes, plans)


def _shape(identity: _Identity, course: Course) -> tuple[Shape, tuple[int, ...], bool, bool]:
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


def propagate(courses: Sequence[Course], input_size: tuple[int, int, int], num_classes: Sequence[int]) -> Passes:
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


def course_of(architecture: Architecture) -> Course:
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


def pieces_of(passes: Passes) -> list[CetPieces | UndefinedScoreError]:
    """The pieces of each network, or the reason why it has none."""
    return summed_up(*layers_of(passes), passes.depth_forward, passes.depth_backward)


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
