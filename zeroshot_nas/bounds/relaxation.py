r"""A Lagrangian relaxation of the best chain within a budget, solved by dynamic programming.

For prices :math:`\lambda \ge 0` of the costs c with limits R, no network within the budget scores more than

.. math:: \max_{\text{chains}} \left( \text{score} - \lambda^T c \right) + \lambda^T R

for what is taken off is at most what is added. Without limits on costs the score is a sum over blocks, so that the best
chain up to a width, a stage and a number of layers does not depend on what follows, and dynamic programming over these
three gives the maximum. Where the score's end depends on a count n over all blocks (zen's depth), :math:`e(n)` is
replaced by :math:`\mu n + \max_m (e(m) - \mu m)`, which is never less, and adds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.bounds.tables import COSTS_FROM, Array, ChainTables, Form, Index, Spot
from zeroshot_nas.costs.structure import StructureBounds

NOTHING = -np.inf


@dataclass(frozen=True)
class Limits:
    """What a chain may cost.

    Attributes:
        layers: Most layers.
        costs: Limits on the tables' costs, in their order.
        structure: Bounds, of which widths that never shrink and bottlenecks are kept to here.
    """

    layers: int
    costs: Array
    structure: StructureBounds


class Move(NamedTuple):
    """A body block by numbers: its type, its sub-layers, and the widths that enter, stand inside and leave."""

    spot: Spot
    kind: int
    times: int
    i: int
    b: int
    o: int


class Chain(NamedTuple):
    """A chain by numbers."""

    stem: int
    moves: tuple[Move, ...]
    last: int


@dataclass(frozen=True)
class Domain:
    """Which widths a chain may have, by their numbers.

    Attributes:
        stem: Of the stem.
        nodes: Behind blocks, by stage.
        inner: Inside blocks, by spot.
    """

    stem: Index
    nodes: tuple[Index, ...]
    inner: Mapping[Spot, Index]

    @classmethod
    def all_of(cls, tables: ChainTables, numbers: Index) -> Domain:
        """The same widths everywhere."""
        spots = {*tables.first, *tables.more}
        return cls(numbers, (numbers,) * tables.stages, dict.fromkeys(spots, numbers))

    def before(self, spot: Spot, is_first: bool) -> Index:
        """Widths that enter blocks of a spot."""
        if not is_first:
            return self.nodes[spot.stage]
        return self.nodes[spot.stage - 1] if spot.stage else self.stem


@dataclass(frozen=True)
class Potentials:
    """The relaxation for given prices.

    Attributes:
        prices: mu, and lambda of each cost.
        weights: What each function of the tables is multiplied by (K,).
        bound: Upper bound on the score of all chains of the domain within the limits.
        constant: lambda^T R.
        opening: What the stem gains by its width (W,).
        behind: What a chain can still gain, by stage, layers so far and width (stages, layers + 1, W).
        behind_stem: The same behind the stem (W,).
        before: What a chain has gained at most, as ``behind``; None where only the bound was asked for.
        ends: max_m (e(m) - mu m) for each last width.
        counts: The m of that.
    """

    prices: Array
    weights: Array
    bound: float
    constant: float
    opening: Array
    behind: Array
    behind_stem: Array
    before: Array | None
    ends: Array
    counts: Index


class Relaxation:
    """The relaxation of a chain space's optimum under limits."""

    def __init__(self, tables: ChainTables, limits: Limits) -> None:
        self.tables, self.limits = tables, limits
        most = tables.most_counted(limits.layers) if tables.score.count else 0
        self.ends = np.array([[tables.end(int(o), m) for m in range(most + 1)] for o in tables.last_outs])

    def potentials(self, prices: Array, domain: Domain, both_ways: bool = False) -> Potentials:
        """Solves the relaxation for prices mu and lambda."""
        tables, layers = self.tables, self.limits.layers
        weights = np.concatenate([[1.0, prices[0]], -prices[1:]])
        slope = self.ends - prices[0] * np.arange(self.ends.shape[1])
        ends, counts = slope.max(axis=1), slope.argmax(axis=1)
        first = [self._gains(spot, weights, domain, True) for spot in tables.first]
        more = [self._gains(spot, weights, domain, False) for spot in tables.more]
        last = np.tensordot(weights, tables.last, 1) + ends  # (W, outs)
        if self.limits.structure.monotone_widths:
            last = np.where(self._shrinks(tables.last_outs), NOTHING, last)
        closing = last.max(axis=1)
        stages, count = tables.stages, len(tables.widths)
        behind = np.full((stages, layers + 1, count), NOTHING)
        for stage in reversed(range(stages)):
            nodes = domain.nodes[stage]
            for so_far in reversed(range(2 + stage, layers)):
                best = closing[nodes] if stage == stages - 1 else np.full(len(nodes), NOTHING)
                for times in range(1, min(len(more[stage]), layers - so_far) + 1):
                    best = np.maximum(best, _after(more[stage][times - 1], behind[stage, so_far + times, nodes]))
                    if stage < stages - 1:
                        reached = behind[stage + 1, so_far + times, domain.nodes[stage + 1]]
                        best = np.maximum(best, _after(first[stage + 1][times - 1], reached))
                behind[stage, so_far, nodes] = best
        behind_stem = np.full(count, NOTHING)
        for times in range(1, min(len(first[0]), layers - 1) + 1):
            reached = behind[0, 1 + times, domain.nodes[0]]
            behind_stem[domain.stem] = np.maximum(behind_stem[domain.stem], _after(first[0][times - 1], reached))
        constant = float(prices[1:] @ self.limits.costs)
        opening = weights @ tables.stem
        bound = float((opening + behind_stem).max()) + constant
        before = self._before(first, more, domain, opening) if both_ways else None
        return Potentials(prices, weights, bound, constant, opening, behind, behind_stem, before, ends, counts)

    def _before(self, first: list[list[Array]], more: list[list[Array]], domain: Domain, opening: Array) -> Array:
        tables, layers = self.tables, self.limits.layers
        before = np.full((tables.stages, layers + 1, len(tables.widths)), NOTHING)
        for so_far in range(2, layers):
            for stage, nodes in enumerate(domain.nodes):
                best = np.full(len(nodes), NOTHING)
                for times in range(1, min(len(more[stage]), so_far - 1) + 1):
                    best = np.maximum(best, _upto(before[stage, so_far - times, nodes], more[stage][times - 1]))
                    if stage:
                        came = before[stage - 1, so_far - times, domain.nodes[stage - 1]]
                    elif so_far - times == 1:
                        came = opening[domain.stem]
                    else:
                        continue
                    best = np.maximum(best, _upto(came, first[stage][times - 1]))
                before[stage, so_far, nodes] = best
        return before

    def _gains(self, spot: Spot, weights: Array, domain: Domain, is_first: bool) -> list[Array]:
        """The most that a block of a spot gains, by its sub-layers, and the widths before and behind it."""
        tables = self.tables
        before, behind, inner = domain.before(spot, is_first), domain.nodes[spot.stage], domain.inner[spot]
        gains = [np.full((len(before), len(behind)), NOTHING) for _ in tables.forms[spot][0]]
        if not min(len(before), len(behind), len(inner)):
            return gains
        allowed = self.allowed(inner, behind)
        for forms in tables.forms[spot]:
            for gain, form in zip(gains, forms, strict=True):
                np.maximum(gain, self._most(form.weighted(weights), before, inner, behind, allowed), out=gain)
        if self.limits.structure.monotone_widths:
            gains = [np.where(self._shrinks(behind)[before], NOTHING, gain) for gain in gains]
        return gains

    def _most(self, form: Form, before: Index, inner: Index, behind: Index, allowed: Array) -> Array:
        """The maximum over inner widths of one function of blocks."""
        w = self.tables.widths
        (a, b, d, e), (k1, k2, k3) = form.lines[:, 0], form.products[:, 0]
        to_inner = k1 * w[before][:, None] * w[inner]
        onward = b[inner][:, None] + k2 * w[inner][:, None] * w[behind] + allowed
        onward += np.where(inner[:, None] == behind, e[behind], 0.0)
        best = np.full((len(before), len(behind)), NOTHING)
        step = max(1, _CHUNK // best.size)
        for start in range(0, len(inner), step):
            part = slice(start, start + step)
            sums = to_inner[:, part, None] + onward[None, part, :]
            if form.dense is not None:
                sums = sums + form.dense[0][np.ix_(before, inner[part], behind)]
            np.maximum(best, sums.max(axis=1), out=best)
        best += a[before][:, None] + d[behind] + k3 * w[before][:, None] * w[behind]
        return best

    def allowed(self, inner: Index, behind: Index) -> Array:
        """0 where a bottleneck may be so narrow, else minus infinity."""
        w, ratio = self.tables.widths, self.limits.structure.bottleneck_ratio
        if ratio is None:
            return np.zeros((len(inner), len(behind)))
        return np.where(w[behind] / w[inner][:, None] > ratio, NOTHING, 0.0)

    def _shrinks(self, behind: Index) -> NDArray[np.bool_]:
        """Whether widths shrink, from all widths to those behind."""
        w = self.tables.widths
        return w[:, None] > w[behind]

    def best_chain(self, found: Potentials, domain: Domain) -> Chain:
        """A chain that reaches the bound."""
        tables, layers, weights = self.tables, self.limits.layers, found.weights
        stem = int((weights @ tables.stem + found.behind_stem).argmax())
        moves: list[Move] = []
        stage, so_far, here = -1, 1, stem
        closing = np.tensordot(weights, tables.last, 1) + found.ends
        if self.limits.structure.monotone_widths:
            closing = np.where(self._shrinks(tables.last_outs), NOTHING, closing)
        while True:
            options: list[tuple[float, Move]] = []
            spots = [tables.first[stage + 1]] if stage + 1 < tables.stages else []
            spots += [tables.more[stage]] if stage >= 0 else []
            for spot in spots:
                if not (len(domain.inner[spot]) and len(domain.nodes[spot.stage])):
                    continue
                for times in range(1, min(len(tables.forms[spot][0]), layers - 1 - so_far) + 1):
                    reached = found.behind[spot.stage, so_far + times, domain.nodes[spot.stage]]
                    options.append(self._best_move(spot, times, here, reached, weights, domain))
            value, move = max(options, key=lambda option: option[0], default=(NOTHING, None))
            if stage == tables.stages - 1 and closing[here].max() >= value:
                return Chain(stem, tuple(moves), int(closing[here].argmax()))
            assert move is not None, "a chain without an end has no potential"
            moves.append(move)
            stage, so_far, here = move.spot.stage, so_far + move.times, move.o

    def _best_move(
        self, spot: Spot, times: int, here: int, reached: Array, weights: Array, domain: Domain
    ) -> tuple[float, Move]:
        inner, behind = domain.inner[spot], domain.nodes[spot.stage]
        b, o = (each.ravel() for each in np.meshgrid(inner, behind, indexing="ij"))
        i = np.full(len(b), here)
        base = np.tile(reached, len(inner)) + self.allowed(inner, behind).ravel()
        if self.limits.structure.monotone_widths:
            base = np.where(o < here, NOTHING, base)
        best: tuple[float, Move] | None = None
        for kind, forms in enumerate(self.tables.forms[spot]):
            values = weights @ forms[times - 1].rows(i, b, o, self.tables.widths) + base
            place = int(values.argmax())
            if best is None or values[place] > best[0]:
                best = float(values[place]), Move(spot, kind, times, here, int(b[place]), int(o[place]))
        assert best is not None, "a space has a type"
        return best

    def rows(self, chain: Chain) -> Array:
        """The functions of a chain, summed (K,); the score without its end."""
        tables = self.tables
        total: Array = tables.stem[:, chain.stem].copy()
        for move in chain.moves:
            i, b, o = np.array([[move.i], [move.b], [move.o]], np.intp)
            total += tables.forms[move.spot][move.kind][move.times - 1].rows(i, b, o, tables.widths)[:, 0]
        here = chain.moves[-1].o
        total += tables.last[:, here, chain.last]
        return total

    def slopes(self, found: Potentials, chain: Chain) -> Array:
        """A subgradient of the bound by the prices."""
        rows = self.rows(chain)
        return np.concatenate([[rows[1] - found.counts[chain.last]], self.limits.costs - rows[COSTS_FROM:]])


_CHUNK = 300_000
"""Sums that are made at once."""


def _after(gains: Array, reached: Array) -> Array:
    """The most behind each width before a block."""
    best: Array = (gains + reached).max(axis=1, initial=NOTHING)
    return best


def _upto(came: Array, gains: Array) -> Array:
    """The most up to each width behind a block."""
    best: Array = (came[:, None] + gains).max(axis=0, initial=NOTHING)
    return best
