"""What every block of a chain adds to a score and to costs, as tables over widths."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec, block_steps
from zeroshot_nas.architecture.ops import Resolution
from zeroshot_nas.closed_form.block_sum import BlockSum, End, PlacedBlock
from zeroshot_nas.costs.base import summed_costs
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.spaces.chain import SPLIT_AT, ChainSpace

Array: TypeAlias = NDArray[np.float64]
Index: TypeAlias = NDArray[np.intp]

MOST_WIDTHS = 256
"""Widths that a table has at most; Zen-NAS's multiples of 8 up to 2048 are as many."""

_DENSE = 200_000
"""Blocks of one type in one place that are evaluated one by one, where they follow no form."""

_PROBES = 48
"""Random blocks on which a form is checked."""

_SCORE, _COUNT, COSTS_FROM = 0, 1, 2
"""Rows of every table: the score's term, its count, and the costs from there on."""


class Spot(NamedTuple):
    """Where in a chain a body block stands.

    Attributes:
        stage: Number of the body's stage, from 0.
        stride: Its stride.
        resolution: What enters it.
        score_stage: The stage as `PlacedBlock` counts it.
    """

    stage: int
    stride: int
    resolution: Resolution
    score_stage: int


@dataclass(frozen=True)
class Form:
    r"""Values of all blocks of one type with so many sub-layers in one place: K functions of three widths.

    .. math:: f(i, b, o) = A_i + B_b + D_o + E_o [b = o] + k_1 w_i w_b + k_2 w_b w_o + k_3 w_i w_o

    for the numbers i, b and o of the widths that enter, stand inside and leave. Sums over operations have this form
    where each convolution adds the product of its widths to costs, and a function of one width to a score.

    Attributes:
        lines: A, B, D and E (4, K, W).
        products: The coefficients (3, K).
        dense: What the form does not give (K, W, W, W); None where that is nothing.
    """

    lines: Array
    products: Array
    dense: Array | None = None

    def __add__(self, other: Form) -> Form:
        dense = other.dense if self.dense is None else self.dense if other.dense is None else self.dense + other.dense
        return Form(self.lines + other.lines, self.products + other.products, dense)

    def __mul__(self, times: float) -> Form:
        return Form(self.lines * times, self.products * times, None if self.dense is None else self.dense * times)

    def weighted(self, weights: Array) -> Form:
        """One function, the weighted sum of all."""
        dense = None if self.dense is None else np.tensordot(weights, self.dense, 1)[None]
        return Form(np.einsum("k,akw->aw", weights, self.lines)[:, None], (self.products @ weights)[:, None], dense)

    def rows(self, i: Index, b: Index, o: Index, widths: Array) -> Array:
        """The functions of given blocks (K, N)."""
        (a, inner, d, e), (k1, k2, k3) = self.lines, self.products[:, :, None]
        wi, wb, wo = widths[i], widths[b], widths[o]
        values: Array = (
            a[:, i] + inner[:, b] + d[:, o] + e[:, o] * (b == o) + k1 * wi * wb + k2 * wb * wo + k3 * wi * wo
        )
        return values if self.dense is None else values + self.dense[:, i, b, o]


class ChainTables:
    """Tables of a chain space: the terms of a score, its count, and the costs that add up.

    Args:
        space: The space.
        score: The score.
        costs: Names of the costs, which are sums over operations.

    Attributes:
        widths: The space's widths (W,).
        spots: Places of body blocks: the first of each stage, then further ones of each stage.
        forms: By spot and type, the form for 1, 2, ... sub-layers.
        stem: The functions of the stem (K, W).
        last: The functions of the last convolution, by the widths before and behind it (K, W, W).
        evaluated: Blocks that were evaluated.

    Raises:
        ProxyError: The space has too many widths, or the score too many different blocks.
    """

    def __init__(self, space: ChainSpace, score: BlockSum, costs: Sequence[str]) -> None:
        self.space, self.score = space, score
        self.widths = np.arange(space.width_step, space.max_width + 1, space.width_step, dtype=float)
        if len(self.widths) > MOST_WIDTHS:
            raise ProxyError(
                f"exact compares at most {MOST_WIDTHS} widths, and the space {space.name!r} has "
                f"{len(self.widths):,}; raise its width_step or lower its max_width"
            )
        summed = summed_costs()
        self._columns = [summed.names.index(name) for name in costs]
        self._sums, self._head = summed.block_sums, summed.head_row
        self.stages = len(space.body_strides)
        self._score_stages = 1 + sum(stride > 1 for stride in space.body_strides)
        self.evaluated = 0
        channels, *sides = space.initial_size
        stem = space._stem(space.width_step)
        resolution = block_steps(stem, channels, (sides[0], sides[1])).resolution
        self.first, self.more = list[Spot](), list[Spot]()
        score_stage = 0
        for stage, stride in enumerate(space.body_strides):
            score_stage += stride > 1
            self.first.append(Spot(stage, stride, resolution, score_stage))
            block = space.body_block(space.body_types[0], space.width_step, stride, space.width_step)
            resolution = block_steps(block, space.width_step, resolution).resolution
            self.more.append(Spot(stage, 1, resolution, score_stage))
        self.end_resolution = resolution
        self.stem = np.array(
            [self._row(space._stem(int(w)), channels, (sides[0], sides[1]), 0, True) for w in self.widths]
        ).T.astype(float)
        self._last()
        self.forms = {
            spot: [self._forms(spot, kind) for kind in range(len(space.body_types))]
            for spot in {*self.first, *self.more}
        }

    @property
    def layers_of_ends(self) -> int:
        """Layers of stem and last convolution."""
        return 2

    def block(self, spot: Spot, kind: int, times: int, b: int, o: int) -> BlockSpec:
        """A body block by the numbers of its type and widths."""
        width, inner = int(self.widths[o]), int(self.widths[b])
        return self.space.body_block(self.space.body_types[kind], width, spot.stride, inner, times)

    def network(self, stem: int, body: Sequence[BlockSpec], last: int) -> Architecture:
        """The network with a stem and a last convolution of the widths of those numbers."""
        ends = self.space._stem(int(self.widths[stem])), self.space._last(int(self.widths[last]))
        return self.space._assemble([ends[0], *body, ends[1]])

    def end(self, o: int, counted: int) -> float:
        """What the score adds behind a last convolution of that width."""
        return self.score.of_end(End(self.last_width(o), self.end_resolution, self.space.num_classes, counted))

    def most_counted(self, layers: int) -> int:
        """The most that blocks of so many layers count."""
        a_layer = max(
            float(form.lines[:, _COUNT].max(axis=1).sum() + (form.products[:, _COUNT] * self.widths[-1] ** 2).sum())
            + (0.0 if form.dense is None else float(form.dense[_COUNT].max()))
            for forms in self.forms.values()
            for of_type in forms
            for form in [each * (1 / times) for times, each in enumerate(of_type, start=1)]
        )
        return round(float(self.stem[_COUNT].max() + self.last[_COUNT].max()) + a_layer * layers)

    def last_width(self, o: int) -> int:
        return self.space._last(int(self.widths[o])).out_channels

    def _last(self) -> None:
        """The last convolution with the head's costs; bilinear like all, but few enough to be evaluated one by one."""
        space, count = self.space, len(self.widths)
        outs = [0] if space.last_width else range(count)
        self.last_outs = np.array(list(outs), np.intp)
        stage = self._score_stages - 1

        def evaluate(i: int, _: int, o: int) -> list[float]:
            last = space._last(int(self.widths[o]))
            return self._row(last, int(self.widths[i]), self.end_resolution, stage, False)

        form = fit(evaluate, self.widths, space.last_type)
        i, o = np.meshgrid(np.arange(count), self.last_outs, indexing="ij")
        rows = form.rows(i.ravel(), np.zeros(i.size, np.intp), o.ravel(), self.widths)
        heads = np.array(
            [self._head(self.last_width(int(o)), self.end_resolution, space.num_classes) for o in self.last_outs]
        )
        self.last = rows.reshape(-1, count, len(self.last_outs))
        self.last[COSTS_FROM:] += heads[:, self._columns].T[:, None, :]

    def _row(self, block: BlockSpec, in_channels: int, resolution: Resolution, stage: int, first: bool) -> list[float]:
        self.evaluated += 1
        placed = PlacedBlock(block, in_channels, resolution, stage, self._score_stages, first)
        costs = self._sums(block, in_channels, resolution).row
        counted = self.score.count_of(placed)
        return [self.score.of_block(placed), counted, *[costs[column] for column in self._columns]]

    def _forms(self, spot: Spot, kind: int) -> list[Form]:
        """Forms of a type's blocks in one place, with 1, 2, ... sub-layers."""
        name = self.space.body_types[kind]

        def evaluator(times: int) -> Evaluate:
            @lru_cache(maxsize=4_096)  # lines and probes ask for the same blocks
            def evaluate(i: int, b: int, o: int) -> list[float]:
                block = self.block(spot, kind, times, b, o)
                return self._row(block, int(self.widths[i]), spot.resolution, spot.score_stage, False)

            return evaluate

        evaluators = [evaluator(times) for times in range(1, SPLIT_AT)]
        one = fit(evaluators[0], self.widths, name)
        following = fit(evaluators[1], self.widths, name) + one * -1
        # of a sum over operations each further sub-layer adds the same
        forms = [one + following * more for more in range(len(evaluators))]
        return [
            form if follows(form, evaluate, self.widths) else fit(evaluate, self.widths, name)
            for form, evaluate in zip(forms, evaluators, strict=True)
        ]


Evaluate: TypeAlias = Callable[[int, int, int], Sequence[float]]
"""The functions of a block by the numbers of its widths: what enters, stands inside and leaves."""


def fit(evaluate: Evaluate, widths: Array, name: str) -> Form:
    """The form of a block type.

    Raises:
        ProxyError: There is none, and too many blocks to evaluate each.
    """
    count = len(widths)
    form = None if count < 8 else _lines(evaluate, widths)
    if form is not None and follows(form, evaluate, widths):
        return form
    if count**3 > _DENSE:
        raise ProxyError(
            f"what {name} adds to the score or a cost is no sum of products and functions of single widths, and "
            f"{count**3:,} blocks are too many to ask each; raise the space's width_step or lower its max_width, to "
            f"{int(_DENSE ** (1 / 3))} widths"
        )
    numbers = range(count)
    dense = np.array([[[evaluate(i, b, o) for o in numbers] for b in numbers] for i in numbers])
    functions = dense.shape[-1]
    return Form(np.zeros((4, functions, count)), np.zeros((3, functions)), np.moveaxis(dense, -1, 0))


def _lines(evaluate: Evaluate, widths: Array) -> Form:
    """The form through a few lines of blocks; it may not hold elsewhere."""
    w = widths

    def at(i: int, b: int, o: int) -> Array:
        return np.array(evaluate(i, b, o), float)

    i0, b0, o0, i1, b1, o1 = range(6)
    base = at(i0, b0, o0)
    bent_i, bent_b, bent_o = at(i1, b0, o0), at(i0, b1, o0), at(i0, b0, o1)
    k1 = (at(i1, b1, o0) - bent_i - bent_b + base) / ((w[i1] - w[i0]) * (w[b1] - w[b0]))
    k2 = (at(i0, b1, o1) - bent_b - bent_o + base) / ((w[b1] - w[b0]) * (w[o1] - w[o0]))
    k3 = (at(i1, b0, o1) - bent_i - bent_o + base) / ((w[i1] - w[i0]) * (w[o1] - w[o0]))

    def rest(i: int, b: int, o: int) -> Array:
        """What the products do not give."""
        value: Array = at(i, b, o) - k1 * w[i] * w[b] - k2 * w[b] * w[o] - k3 * w[i] * w[o]
        return value

    of_i = line(lambda i: rest(i, b0, o0), w)
    of_b = line(lambda b: rest(i0, b, o1) - rest(i0, b0, o1) if b == o0 else rest(i0, b, o0) - of_i[i0], w)
    of_o = line(lambda o: rest(i0, b1, o) - rest(i0, b1, o0) if o == b0 else rest(i0, b0, o) - of_i[i0], w)
    equal = line(lambda o: rest(i0, o, o) - of_i[i0] - of_b[o] - of_o[o], w)
    return Form(np.array([of_i, of_b, of_o, equal]).transpose(0, 2, 1), np.array([k1, k2, k3]))


def line(value: Callable[[int], Array], widths: Array) -> Array:
    """Functions of one width, for all widths (W, K).

    Costs are polynomials of a width and scores have its logarithm, so a few widths tell all; where they do not, each is
    evaluated.
    """
    last = len(widths) - 1
    if last >= 2 * (_BASIS + _CHECKS):
        places = np.unique(np.round(last * np.linspace(0, 1, _BASIS + _CHECKS) ** 2).astype(int))
        values = np.array([value(int(place)) for place in places])
        basis = _basis(widths)
        taken = np.linspace(0, len(places) - 1, _BASIS).astype(int)
        all_values: Array = basis @ np.linalg.solve(basis[places[taken]], values[taken])
        if np.allclose(all_values[places], values, rtol=1e-10, atol=1e-10):
            all_values[places] = values
            return all_values
    return np.array([value(place) for place in range(last + 1)])


_BASIS, _CHECKS = 4, 4
"""Functions of a width that `line` knows, and further widths that tell whether they suffice."""


def _basis(widths: Array) -> Array:
    scaled = widths / widths[-1]
    return np.stack([np.ones_like(scaled), scaled, scaled**2, np.log(scaled)], axis=1)


def follows(form: Form, evaluate: Evaluate, widths: Array) -> bool:
    """Whether a form gives what random blocks have, among them some of equal widths, and the outermost."""
    rng, end = random.Random(0), len(widths) - 1
    numbers = [tuple(rng.randrange(end + 1) for _ in range(3)) for _ in range(_PROBES)]
    equal = [(i, i, o) for i, _, o in numbers[:6]] + [(i, b, i) for i, b, _ in numbers[6:12]]
    equal += [(i, b, b) for i, b, _ in numbers[12:18]] + [(i, i, i) for i, _, _ in numbers[18:24]]
    corners = [(i, b, o) for i in (0, end) for b in (0, end) for o in (0, end)]
    probes = list(dict.fromkeys([*numbers, *equal, *corners]))
    i, b, o = np.array(probes, np.intp).T
    values = np.array([evaluate(*probe) for probe in probes], float).T
    return bool(np.allclose(form.rows(i, b, o, widths), values, rtol=1e-9, atol=1e-9))
