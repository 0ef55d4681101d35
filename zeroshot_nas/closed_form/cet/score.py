"""CET: capacity x expressivity x trainability of a network, in closed form from its graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, TypeAlias

import numpy as np

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Resolution, Shape
from zeroshot_nas.chains.coding import Chains, has_code
from zeroshot_nas.chains.lowering import LOWERING
from zeroshot_nas.closed_form.cet.chain import propagate_chains
from zeroshot_nas.closed_form.cet.layout import Index, PlacedLayout, layout_of
from zeroshot_nas.closed_form.cet.novelty import novelty
from zeroshot_nas.closed_form.cet.plan import PlacedPlan
from zeroshot_nas.closed_form.cet.propagation import (
    BackwardPass,
    ForwardPass,
    Sources,
    TensorState,
    backward,
    forward,
)
from zeroshot_nas.closed_form.cet.spectra import SIZE, Array, effective_modes, energies, spectrum, torus_side, white
from zeroshot_nas.closed_form.cet.terms import (
    GRADIENT_GAIN,
    LINEAR_LOSS,
    NO_CONVOLUTION,
    TERMS,
    CetTerms,
    ConvColumns,
    NetworkTerms,
    score_of_terms,
)
from zeroshot_nas.closed_form.cet.tracing import placed_sub_layer
from zeroshot_nas.closed_form.cet.variant import Variant
from zeroshot_nas.closed_form.rounding import less_rounding
from zeroshot_nas.core.garbage import paused_garbage_collection
from zeroshot_nas.core.score import ScoreValue
from zeroshot_nas.errors import ProxyError, UndefinedScoreError, ZeroShotNASError

CHUNK = 192
"""Networks that run side by side; more gain nothing, for their tables leave the cache."""


def cet(architecture: Architecture, *, variant: Variant = "u") -> ScoreValue:
    r"""Capacity x expressivity x trainability, in closed form; higher is better. A score of this project's own.

    .. math:: \log(1 + U) + H(U) + \log(\tfrac12 + S) + H(S) - \frac{(D_f - 20)_+ + (D_b - 20)_+}{20}

    U sums the effective uses of weights over the convolutions, min(W L^2, r g): W counts the weights whose inputs and
    gradients are independent and that no parallel convolution repeats, L^2 the positions of the output, r and g the
    effective dimensions of the output and of its gradient. S sums log(1 + min(r, g)). H is the entropy of a sum's
    shares by resolution. D_f and D_b tell how many layers of a plain chain lose as much linear signal, and let the
    gradient grow as much. Sums run over the convolutions that an input path reaches and a gradient leaves.
    Where the architecture says of how many bits weights are, what their rounding takes from the signal is subtracted
    (`zeroshot_nas.closed_form.rounding.rounding_loss`). ``docs/cet.md`` derives it and says where it fails.

    Args:
        architecture: Any architecture whose operations have a mean-field rule: chains and cells of convolutions (full
            and depthwise), batch norm, ReLU, pooling, sums, concatenation. Gates count as the identity.
        variant: ``"u"`` as above. The others are log(1 + capacity) + log(1/2 + expressivity) - (D - 20)_+ / 20 with
            D = max(D_f, D_b), and leave out what reads the image. ``"g"`` (CET-G): sqrt(sum W * sum W L^2), and S.
            ``"p"``: effective parameters, whatever their gradients; ``"pf"``: effective FLOPs; ``"gm"``: the geometric
            mean of both; these three with the sum of log r, each at least 0.

    Returns:
        The score, with its terms as ``.details``; see `CetTerms`.

    Raises:
        UndefinedScoreError: No path leads from the input to the output, or an operation has no rule.
        ProxyError: No variant has that name.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)", (3, 16, 16))
        >>> score = cet(net)
        >>> round(score, 3), round(score.details["P"]), round(score.details["D"], 2)
        (17.336, 6407, 1.55)
    """
    (value,) = cet_pool([architecture], variant=variant)
    if isinstance(value, ZeroShotNASError):
        raise value
    return value


def cet_terms(architecture: Architecture) -> CetTerms:
    """The terms of one architecture's CET; see `cet`.

    Raises:
        UndefinedScoreError: As `cet`.
    """
    (terms,) = cet_terms_pool([architecture])
    if isinstance(terms, UndefinedScoreError):
        raise terms
    return terms


def cet_pool(
    architectures: Iterable[Architecture], *, variant: Variant = "u"
) -> list[ScoreValue | UndefinedScoreError | ProxyError]:
    """`cet` of many architectures, side by side: a cell of NAS-Bench-201 takes a fraction of its time alone.

    Score and details are those of each architecture alone, to the last bit, whatever stands beside it.

    Returns:
        For each architecture, in order, its score, or the error that `cet` raises.

    Example:
        >>> from zeroshot_nas.spaces.nasbench201 import NASBench201
        >>> space = NASBench201()
        >>> nets = [space.from_string(code, notation="op_code") for code in ("000000", "333333")]
        >>> dead, dense = cet_pool(nets)
        >>> type(dead).__name__, dense == cet(nets[1])
        ('UndefinedScoreError', True)
    """
    with paused_garbage_collection():
        networks = architectures if isinstance(architectures, Sequence) else list(architectures)
        pool = pool_of(networks)
        try:
            values = score_of_terms(pool.terms, variant).tolist()
        except ProxyError as error:
            return [each or error.with_traceback(None) for each in pool.errors]
        scores = [pool.value(place, value) for place, value in enumerate(values)]
        return [*less_rounding(scores, networks)]


def cet_terms_pool(architectures: Iterable[Architecture]) -> list[CetTerms | UndefinedScoreError]:
    """The terms of many architectures, as `cet_pool`: all variants follow from them."""
    with paused_garbage_collection():
        pool = pool_of(architectures)
        return [pool.row(place) if error is None else error for place, error in enumerate(pool.errors)]


@dataclass(frozen=True, eq=False)
class Pool:
    """The terms of architectures, side by side.

    Attributes:
        terms: Of each term of `CetTerms` a column, a value an architecture; not a number where it has none.
        errors: For each architecture None, or the reason why it has no terms.
    """

    terms: Mapping[str, Array]
    errors: Sequence[UndefinedScoreError | None]

    def row(self, place: int) -> CetTerms:
        """The terms of one."""
        return CetTerms(**{name: float(column[place]) for name, column in self.terms.items()})

    def value(self, place: int, value: float) -> ScoreValue | UndefinedScoreError:
        """The score of one, with its terms as its details, or its error."""
        return self.errors[place] or ScoreValue(value, lambda: self.row(place).details)


class _Joined(Mapping[str, Array]):
    """The terms of groups of networks as columns of all of them."""

    def __init__(self, size: int, groups: Sequence[_Group]) -> None:
        self.size, self.groups = size, groups
        self._columns: dict[str, Array] = {}

    def __len__(self) -> int:
        return len(TERMS)

    def __iter__(self) -> Iterator[str]:
        return iter(TERMS)

    def __getitem__(self, name: str) -> Array:
        if name not in self._columns:
            column = np.full(self.size, math.nan)
            for group in self.groups:
                column[group.places] = group.terms[name][group.rows]
            self._columns[name] = column
        return self._columns[name]


class _Group(NamedTuple):
    """Networks that were propagated together.

    Attributes:
        places: Their places among all.
        rows: Their rows in ``terms``.
        terms: The terms.
    """

    places: Index
    rows: Index
    terms: NetworkTerms


def pool_of(architectures: Iterable[Architecture]) -> Pool:
    """The terms of many architectures: chains by `propagate_chains`, others by spectra."""
    networks = architectures if isinstance(architectures, Sequence) else list(architectures)
    errors: list[UndefinedScoreError | None] = [None] * len(networks)
    groups = list(_groups_of_chains(networks))
    rest = np.ones(len(networks), np.bool_)
    for group in groups:
        rest[group.places] = False
    groups += _groups_by_spectra(networks, np.flatnonzero(rest).tolist(), errors)
    for group in groups:
        for row in np.flatnonzero(group.terms.counts == 0).tolist():
            for place in group.places[group.rows == row].tolist():
                errors[place] = UndefinedScoreError(NO_CONVOLUTION)
    return Pool(_Joined(len(networks), groups), errors)


def _groups_of_chains(networks: Sequence[Architecture]) -> Iterator[_Group]:
    """Those that are chains without pooling, of one input size and number of classes at a time."""
    if isinstance(networks, Chains):
        coded = [(np.arange(len(networks)), networks)]
    else:
        places: dict[tuple[Shape, int], list[int]] = {}
        for place, network in enumerate(networks):
            if has_code(network):
                places.setdefault((network.input_size, network.num_classes), []).append(place)
        coded = [(np.array(own), Chains.of([networks[place] for place in own])) for own in places.values()]
    for own, chains in coded:
        covered = np.flatnonzero(LOWERING.covers(chains))
        if len(covered):
            members = chains if len(covered) == len(chains) else chains.take(covered)
            terms = NetworkTerms(*propagate_chains(members))
            yield _Group(own[covered], np.arange(len(covered)), terms)


def _groups_by_spectra(
    networks: Sequence[Architecture], places: Sequence[int], errors: list[UndefinedScoreError | None]
) -> Iterator[_Group]:
    """Networks that do the same once; those that have input size and numbers of sub-layers in common run together.

    `CHUNK` at a time. Notes the error of one that has no plan.
    """
    alike: dict[_Identity, list[int]] = {}
    sequences: dict[_Identity, PlanSequence] = {}
    for place in places:
        try:
            sequence = plan_sequence(networks[place])
        except UndefinedScoreError as error:
            errors[place] = error.with_traceback(None)  # which would keep all these lists alive
        else:
            identity = _identity(networks[place], sequence)
            sequences[identity] = sequence
            alike.setdefault(identity, []).append(place)
    shapes = {identity: _shape(identity, sequence) for identity, sequence in sequences.items()}
    for (input_size, *_), group in groupby(sorted(shapes, key=shapes.__getitem__), key=shapes.__getitem__):
        members = list(group)
        for start in range(0, len(members), CHUNK):
            chunk = members[start : start + CHUNK]
            passes = propagate([sequences[each] for each in chunk], input_size, [each.num_classes for each in chunk])
            rows = np.repeat(np.arange(len(chunk)), [len(alike[each]) for each in chunk])
            own = np.array([place for each in chunk for place in alike[each]], np.intp)
            yield _Group(own, rows, terms_of(passes))


PlanSequence: TypeAlias = "Sequence[tuple[PlacedPlan, int]]"
"""The plans of a network's sub-layers, each with the number of times that it stands in a row."""


class _Identity(NamedTuple):
    """All that a score depends on; plans by identity, for equal ones are one object."""

    input_size: Shape
    num_classes: int
    plans: tuple[tuple[int, int, Resolution | None, int], ...]


def _identity(architecture: Architecture, sequence: PlanSequence) -> _Identity:
    plans = tuple([(id(placed.plan), placed.width, placed.resolution, times) for placed, times in sequence])
    return _Identity(architecture.input_size, architecture.num_classes, plans)


def _shape(identity: _Identity, sequence: PlanSequence) -> tuple[Shape, tuple[int, ...], bool, bool]:
    """All that networks which run side by side have in common; also which of their sources are kept apart."""
    return (
        identity.input_size,
        tuple([times for _, times in sequence]),
        any(placed.plan.filters_input for placed, _ in sequence),
        any(placed.plan.filters_gradient for placed, _ in sequence),
    )


class SubLayerPasses(NamedTuple):
    """Both passes through one sub-layer of all networks.

    Attributes:
        placed: Its plans.
        forward: The forward pass.
        backward: The backward pass.
    """

    placed: PlacedLayout
    forward: ForwardPass
    backward: BackwardPass


class NetworkPasses(NamedTuple):
    """Both passes through networks of one depth.

    Attributes:
        steps: Sub-layers, first to last.
        depth_forward: D_f of each network.
        depth_backward: D_b of each network.
    """

    steps: Sequence[SubLayerPasses]
    depth_forward: Array
    depth_backward: Array


def propagate(sequences: Sequence[PlanSequence], input_size: Shape, num_classes: Sequence[int]) -> NetworkPasses:
    """Runs images forward and gradients backward through networks with as many sub-layers in as many blocks.

    The image is white noise, all of it linear in itself. The gradient starts behind the ReLU that the head averages
    over, so it is the same at all positions; its rank is that of the classes, an excess of channels / classes.
    """
    size, side = len(sequences), min(input_size[1:])
    columns = [[sequence[index][0] for sequence in sequences] for index in range(len(sequences[0]))]
    image = np.tile(white(torus_side(side)), (size, 2, 1))
    apart = any(placed.plan.filters_input for column in columns for placed in column)
    state = TensorState(image, np.zeros(size), Sources(image[:, :1], np.zeros((size, 1))) if apart else None)
    taken: list[tuple[PlacedLayout, ForwardPass]] = []
    for column, (_, times) in zip(columns, sequences[0], strict=True):
        layout = PlacedLayout(layout_of(tuple(placed.plan for placed in column)), column)
        for _ in range(times):
            forward_pass = forward(layout, state)
            taken.append((layout, forward_pass))
            state = forward_pass.output
    shapes = [placed.shape for placed in columns[-1]]
    rank = np.array([channels / classes for (channels, _, _), classes in zip(shapes, num_classes, strict=True)])
    constant = np.tile(spectrum(np.ones(SIZE)), (size, 1, 1))  # global pooling: the same at all positions
    apart = any(placed.plan.filters_gradient for column in columns for placed in column)
    gradient = TensorState(constant, rank, Sources(constant, rank[:, None]) if apart else None)
    steps: list[SubLayerPasses] = []
    for layout, forward_pass in reversed(taken):
        backward_pass = backward(layout, forward_pass, gradient)
        steps.append(SubLayerPasses(layout, forward_pass, backward_pass))
        gradient = backward_pass.output
    energy, linear = energies(state.spectra).T
    positions = np.array([height * width for _, height, width in shapes])
    growth = energies(gradient.spectra[:, 0]) * (input_size[1] * input_size[2]) / (positions * energy)
    # behind a ReLU at the end only the head is left: no layer
    rectified = np.array([float(placed.plan.ends_in_relu) for placed in columns[-1]])
    return NetworkPasses(
        steps[::-1],
        -np.log(linear / energy) / LINEAR_LOSS - rectified,
        np.log(growth) / GRADIENT_GAIN - rectified,
    )


def plan_sequence(architecture: Architecture) -> PlanSequence:
    """The plans of an architecture's sub-layers.

    Raises:
        UndefinedScoreError: No path leads from the input to the output, or an operation has no rule.
    """
    channels, *sides = architecture.input_size
    resolution = (sides[0], sides[1])
    sequence: list[tuple[PlacedPlan, int]] = []
    for block in architecture.blocks:
        placed = placed_sub_layer(block, channels, resolution)
        channels, resolution = block.out_channels, placed.shape[1:]
        alike = block.sub_layers == 1 or placed.resolution is not None  # an outline's plan is that of a further one
        following = placed if alike else placed_sub_layer(block, None, resolution)
        if following == placed:
            sequence.append((placed, block.sub_layers))
        else:
            sequence += [(placed, 1), (following, block.sub_layers - 1)]
    return sequence


def terms_of(passes: NetworkPasses) -> NetworkTerms:
    """The terms of each network."""
    return NetworkTerms(*conv_columns(passes), passes.depth_forward, passes.depth_backward)


def conv_columns(passes: NetworkPasses) -> tuple[Index, ConvColumns]:
    """The convolutions that count: the number of each one's network, and their columns.

    They are in order of sub-layers, and in each network by network.
    """
    nets: list[Index] = []
    columns: list[ConvColumns] = []
    for index, step in enumerate(passes.steps):
        counted = step.placed.layout.counted
        if counted:
            net, _, rows, reads_input = np.array(counted, np.intp).T
            nets.append(net)
            columns.append(_columns(step, rows, (reads_input * (index == 0)).astype(float)))
    if not nets:
        return np.empty(0, np.intp), ConvColumns(*(np.empty(0) for _ in ConvColumns._fields))
    return np.concatenate(nets), ConvColumns(*map(np.concatenate, zip(*columns, strict=True)))


def _columns(step: SubLayerPasses, rows: Index, is_stem: Array) -> ConvColumns:
    """The convolutions of one sub-layer that stand in some of its rows."""
    channels, height, width, torus = step.placed.shapes[rows].T
    behind = rows + step.placed.layout.size
    positions = height * width
    scale = positions / torus**2
    return ConvColumns(
        out_channels=channels,
        in_channels=step.placed.in_channels[rows],
        fan_in=step.placed.fan_in[rows],
        positions=positions,
        patch_rank=step.forward.participation[rows],
        novelty=novelty(step.placed, step.forward, step.backward)[rows],
        output_rank=channels / (1 + step.forward.excess[behind]),
        output_positions=effective_modes(step.forward.spectra[behind, 0]) * scale,
        gradient_rank=channels / (1 + step.backward.reached_excess[rows]),
        gradient_positions=effective_modes(step.backward.reached[rows]) * scale,
        is_stem=is_stem,
    )
