"""All chains that can still beat the best one, extended block by block and cut by bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from zeroshot_nas.bounds.relaxation import NOTHING, Chain, Domain, Move, Potentials, Relaxation
from zeroshot_nas.bounds.tables import COSTS_FROM, Array, Index, Spot

SLACK = 1e-9
"""Part of a limit or a score that rounding may take: a chain within it is not cut off."""

_CHUNK = 200_000
"""Extensions that are made at once."""


def beyond(best: float) -> float:
    """What must be reached to be better than the best so far, which may be minus infinity: a finite number."""
    return max(_LEAST, best + SLACK * max(1.0, abs(best))) if best > _LEAST else _LEAST


_LEAST = -1e300


class Edges(NamedTuple):
    """Body blocks of one spot and number of sub-layers that can be part of a better chain, by entering width.

    Attributes:
        spot: Where they stand.
        times: Their sub-layers.
        kind: Numbers of their types (N,), as those of their widths below.
        i: Entering widths, ascending.
        b: Widths inside.
        o: Leaving widths.
        rows: Their functions (K, N).
    """

    spot: Spot
    times: int
    kind: Index
    i: Index
    b: Index
    o: Index
    rows: Array

    def move(self, place: int) -> Move:
        """One of them."""
        return Move(
            self.spot, int(self.kind[place]), self.times, int(self.i[place]), int(self.b[place]), int(self.o[place])
        )


def narrowed(found: Potentials, domain: Domain, score: float) -> Domain:
    """The domain without widths through which no chain scores so much."""
    assert found.before is not None, "asked for both ways"
    through = (found.before + found.behind).max(axis=1) + found.constant
    nodes = tuple(kept[through[stage, kept] >= score] for stage, kept in enumerate(domain.nodes))
    opening = found.opening + found.behind_stem + found.constant
    return Domain(domain.stem[opening[domain.stem] >= score], nodes, domain.inner)


def edges_of(relaxation: Relaxation, found: Potentials, domain: Domain, score: float) -> list[list[Edges]]:
    """Blocks with which a chain can score so much: those that open each stage, and then those that go on in each.

    A block is kept where its own gain, the most before it and the most behind it come to the score.
    """
    tables = relaxation.tables
    spots = [(spot, True) for spot in tables.first] + [(spot, False) for spot in tables.more]
    return [
        [
            edges
            for times in range(1, len(tables.forms[spot][0]) + 1)
            if len((edges := _edges(relaxation, found, domain, score, spot, is_first, times)).kind)
        ]
        for spot, is_first in spots
    ]


def _edges(
    relaxation: Relaxation, found: Potentials, domain: Domain, score: float, spot: Spot, is_first: bool, times: int
) -> Edges:
    assert found.before is not None, "asked for both ways"
    tables, layers, w = relaxation.tables, relaxation.limits.layers, relaxation.tables.widths
    before, inner, behind = domain.before(spot, is_first), domain.inner[spot], domain.nodes[spot.stage]
    most = np.full((len(before), len(behind)), NOTHING)  # the most before and behind, over all numbers of layers
    for so_far in range(1, layers - times):
        if is_first and spot.stage == 0:
            came = found.opening[before] if so_far == 1 else None
        else:
            came = found.before[spot.stage - is_first, so_far, before]
        if came is not None:
            np.maximum(most, came[:, None] + found.behind[spot.stage, so_far + times, behind], out=most)
    if relaxation.limits.structure.monotone_widths:
        most = np.where(before[:, None] > behind, NOTHING, most)
    most += found.constant - score
    allowed = relaxation.allowed(inner, behind)
    kept: list[tuple[Index, Index, Index, Index, Array]] = []
    step = max(1, _CHUNK // max(1, len(inner) * len(behind)))
    for kind, forms in enumerate(tables.forms[spot]):
        form = forms[times - 1].weighted(found.weights)
        for start in range(0, len(before), step):
            part = before[start : start + step]
            i, b, o = (each.ravel() for each in np.meshgrid(part, inner, behind, indexing="ij"))
            gains = form.rows(i, b, o, w)[0].reshape(len(part), len(inner), len(behind))
            places = np.nonzero((gains + allowed + most[start : start + step, None, :]).ravel() >= 0)[0]
            i, b, o = i[places], b[places], o[places]
            kept.append((np.full(len(i), kind), i, b, o, forms[times - 1].rows(i, b, o, w)))
    kept = kept or [(before[:0], before[:0], before[:0], before[:0], tables.stem[:, :0])]
    kinds, i, b, o = (np.concatenate([part[column] for part in kept]) for column in range(4))
    rows = np.concatenate([part[4] for part in kept], axis=1)
    order = np.argsort(i, kind="stable")
    kinds, i, b, o = kinds[order], i[order], b[order], o[order]
    return Edges(spot, times, kinds, i, b, o, rows[:, order])


class Labels(NamedTuple):
    """Beginnings of chains that end in the same stage after as many layers.

    Attributes:
        node: Numbers of their last widths (N,).
        rows: Their functions, summed (K, N).
        bound: The most that chains with this beginning score.
        parent: Numbers of the beginnings one block shorter.
        edges: Numbers of the edges that their last block is one of.
        place: Its place there.
    """

    node: Index
    rows: Array
    bound: Array
    parent: Index
    edges: Index
    place: Index

    def at(self, places: Index) -> Labels:
        """Some of them."""
        return Labels(
            *(self.node[places], self.rows[:, places], self.bound[places]),
            *(self.parent[places], self.edges[places], self.place[places]),
        )


@dataclass
class Enumeration:
    """Extends beginnings by blocks, from few layers to many, and cuts those that can't beat the best chain.

    Args:
        relaxation: Of the space.
        domain: Its widths.
        edges: Blocks that are left, as `edges_of` gives them.
        cuts: Potentials, each of which bounds what a beginning can come to; the best first.
        best: The best score so far.
        dominates: Whether a beginning is dropped for another that scores as much and costs no more.
        beam: Beginnings that are kept of a stage and number of layers; None keeps all, which is a proof.
        nodes: Beginnings that are made at most.

    Attributes:
        made: Beginnings that were made.
        open_bound: The most that chains score whose beginnings were not extended yet; minus infinity where all were.
    """

    relaxation: Relaxation
    domain: Domain
    edges: Sequence[Sequence[Edges]]
    cuts: Sequence[Potentials]
    best: float
    dominates: bool = True
    beam: int | None = None
    nodes: float = np.inf
    made: int = 0
    open_bound: float = np.inf
    _store: list[Labels] = field(default_factory=list)
    _offsets: list[int] = field(default_factory=list)
    _stored: int = 0

    @property
    def threshold(self) -> float:
        """What a chain must reach to be better."""
        return beyond(self.best)

    def chains(self) -> Iterator[tuple[float, Chain] | None]:
        """Chains that come within the tables' limits and beat the best so far; None now and then.

        The caller sets ``best``, where such a chain is a network within the budget.
        """
        tables, layers = self.relaxation.tables, self.relaxation.limits.layers
        waiting: dict[tuple[int, int], list[Labels]] = {(1, -1): [self._stems()]}
        self._flat = [edges for group in self.edges for edges in group]
        numbers = iter(range(len(self._flat)))
        numbered = [[(next(numbers), edges) for edges in group] for group in self.edges]
        for so_far in range(1, layers):
            for stage in range(-1, tables.stages):
                labels = self._joined(waiting.pop((so_far, stage), []))
                if labels is None:
                    continue
                first = self._keep(labels)
                if stage == tables.stages - 1:
                    yield from self._closed(labels, first)
                groups = [(stage + 1, numbered[stage + 1])] if stage + 1 < tables.stages else []
                groups += [(stage, numbered[tables.stages + stage])] if stage >= 0 else []
                for behind, group in groups:
                    for number, edges in group:
                        if so_far + edges.times >= layers:
                            continue
                        for longer in self._extended(labels, first, number, edges, so_far, behind):
                            waiting.setdefault((so_far + edges.times, behind), []).append(longer)
                            self.made += len(longer.node)
                        if self.made > self.nodes:
                            return  # what was open before these labels were extended still is
                self.open_bound = max(
                    [float(each.bound.max()) for several in waiting.values() for each in several if len(each.bound)],
                    default=NOTHING,
                )
                yield None
        self.open_bound = NOTHING

    def _stems(self) -> Labels:
        stem = self.domain.stem
        none = np.full(len(stem), -1)
        rows = self.relaxation.tables.stem[:, stem]
        bound = np.min([cut.opening[stem] + cut.behind_stem[stem] + cut.constant for cut in self.cuts], axis=0)
        return Labels(stem, rows, bound, none, none, none)

    def _joined(self, several: list[Labels]) -> Labels | None:
        """What is left of beginnings that came in pieces."""
        if not several:
            return None
        labels = Labels(*(np.concatenate(each, axis=-1) for each in zip(*several, strict=True)))
        labels = labels.at(np.nonzero(labels.bound >= self.threshold)[0])
        if self.beam is not None and len(labels.node) > self.beam:
            labels = labels.at(np.sort(np.argsort(-labels.bound, kind="stable")[: self.beam]))
        if self.dominates and len(labels.node) > 1:
            labels = labels.at(_undominated(labels))
        return labels if len(labels.node) else None

    def _keep(self, labels: Labels) -> int:
        """Stores beginnings, for chains to be read back; the number of the first."""
        first = self._stored
        self._offsets.append(first)
        self._store.append(labels._replace(rows=np.zeros(0)))
        self._stored += len(labels.node)
        return first

    def _extended(
        self, labels: Labels, first: int, number: int, edges: Edges, so_far: int, behind: int
    ) -> Iterator[Labels]:
        begins = np.searchsorted(edges.i, labels.node, "left")
        counts = np.searchsorted(edges.i, labels.node, "right") - begins
        ends = np.cumsum(counts)
        start = 0
        while start < len(counts):
            done = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + _CHUNK, "right")))
            some = counts[start:stop]
            which = np.repeat(np.arange(start, stop), some)
            within = np.arange(int(some.sum())) - np.repeat(np.cumsum(some) - some, some)
            place = begins[which] + within
            start = stop
            if longer := self._cut(labels, which, first, number, edges, place, so_far, behind):
                yield longer

    def _cut(
        self,
        labels: Labels,
        which: Index,
        first: int,
        number: int,
        edges: Edges,
        place: Index,
        so_far: int,
        behind: int,
    ) -> Labels | None:
        """Beginnings longer by one block that can still beat the best."""
        bound = np.full(len(which), np.inf)
        for cut in self.cuts:
            reached = cut.behind[behind, so_far + edges.times]
            gained = (cut.weights @ labels.rows)[which] + (cut.weights @ edges.rows)[place]
            bound = np.minimum(bound, gained + reached[edges.o[place]] + cut.constant)
            kept = np.nonzero(bound >= self.threshold)[0]
            which, place, bound = which[kept], place[kept], bound[kept]
            if not len(which):
                return None
        rows = labels.rows[:, which] + edges.rows[:, place]
        limits = self.relaxation.limits.costs
        kept = np.nonzero((rows[COSTS_FROM:] <= limits[:, None] * (1 + SLACK)).all(axis=0))[0]
        which, place, bound, rows = which[kept], place[kept], bound[kept], rows[:, kept]
        return Labels(edges.o[place], rows, bound, first + which, np.full(len(which), number), place)

    def _closed(self, labels: Labels, first: int) -> Iterator[tuple[float, Chain]]:
        """Whole chains that beat the best, the best first."""
        tables = self.relaxation.tables
        limits = self.relaxation.limits
        outs = np.arange(len(tables.last_outs))
        found: list[tuple[float, int, int]] = []
        for label in range(len(labels.node)):
            node = labels.node[label]
            rows = labels.rows[:, label, None] + tables.last[:, node, :]
            scores = rows[0] + self.relaxation.ends[outs, np.rint(rows[1]).astype(int)]
            fits = (rows[COSTS_FROM:] <= limits.costs[:, None] * (1 + SLACK)).all(axis=0)
            if limits.structure.monotone_widths:
                fits &= tables.last_outs >= node
            places = np.nonzero(fits & (scores > self.threshold))[0]
            found += [(float(scores[place]), label, int(place)) for place in places]
        found.sort(reverse=True)
        for score, label, place in found:
            if score > self.threshold:
                yield score, self._chain(first + label, int(tables.last_outs[place]), place)

    def _chain(self, label: int, last: int, place: int) -> Chain:
        moves: list[Move] = []
        while True:
            part = int(np.searchsorted(self._offsets, label, "right")) - 1
            labels, inside = self._store[part], label - self._offsets[part]
            if labels.parent[inside] < 0:
                return Chain(int(labels.node[inside]), tuple(reversed(moves)), place)
            moves.append(self._flat[int(labels.edges[inside])].move(int(labels.place[inside])))
            label = int(labels.parent[inside])


def _undominated(labels: Labels) -> Index:
    """Places of the beginnings of which no other ends alike, scores as much, and costs no more."""
    count = np.rint(labels.rows[1]).astype(np.intp)
    costs = labels.rows[COSTS_FROM:]
    order = np.lexsort((*costs, -labels.rows[0], count, labels.node))
    keys = np.stack([labels.node[order], count[order]])
    bounds = np.nonzero(np.any(keys[:, 1:] != keys[:, :-1], axis=0))[0] + 1
    kept = [group[_front(costs[:, group])] for group in np.split(order, bounds)]
    return np.sort(np.concatenate(kept))


def _front(costs: Array) -> Index:
    """Of columns by falling score, those that no earlier one undercuts in all costs."""
    if not len(costs):
        return np.zeros(1, np.intp)
    kept: list[int] = []
    size, block = costs.shape[1], 256
    survivors = np.zeros((len(costs), 0))
    for start in range(0, size, block):
        part = costs[:, start : start + block]
        alive = np.logical_not((survivors[:, :, None] <= part[:, None, :]).all(axis=0).any(axis=0))
        for place in np.nonzero(alive)[0]:
            if alive[place]:
                later = (part[:, place, None] <= part[:, place + 1 :]).all(axis=0)
                alive[place + 1 :] &= ~later
        survivors = np.concatenate([survivors, part[:, alive]], axis=1)
        kept += (start + np.nonzero(alive)[0]).tolist()
    return np.array(kept, np.intp)
