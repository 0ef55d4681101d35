"""The best chain within a budget, with a bound that holds at any moment and meets it in the end.

First prices are looked for on a few widths, then the relaxation is solved once for all widths: that is the first bound.
Widths and blocks through which no chain can beat the best network so far are left out, which makes further rounds of
prices cheap, and what is left is enumerated (`zeroshot_nas.bounds.labels`). Better networks come from every step.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.bounds.labels import SLACK, Edges, Enumeration, beyond, edges_of, narrowed
from zeroshot_nas.bounds.prices import priced
from zeroshot_nas.bounds.relaxation import Chain, Domain, Limits, Potentials, Relaxation
from zeroshot_nas.bounds.tables import Array, ChainTables
from zeroshot_nas.closed_form.block_sum import BlockSum
from zeroshot_nas.costs.base import COSTS
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.structure import StructureBounds
from zeroshot_nas.spaces.chain import ChainSpace

COARSE = 28
"""Widths at geometric distances among which prices are looked for first."""

BEAM = 2_000
"""Beginnings that are kept of a stage and number of layers when a good network is looked for."""

CUTS = 8
"""Prices, the best so far, that bound what a beginning can come to."""

ROUNDS = 3
"""How often prices are looked for anew among the widths that are left."""

STEPS = 40
"""Prices that are tried each time at most."""


@dataclass(frozen=True)
class Task:
    """What the optimum is of.

    Attributes:
        space: Where.
        score: What is maximised.
        budget: What a network may cost; it limits layers.
        nodes: Beginnings of chains that the enumeration makes at most.
    """

    space: ChainSpace
    score: BlockSum
    budget: Budget
    nodes: int

    @property
    def summed(self) -> list[str]:
        """Limited costs that are sums over operations."""
        return [name for name in self.budget.limits() if COSTS[name].per == "op"]

    @property
    def checked_whole(self) -> list[str]:
        """Limits that no relaxation has: only whole networks are held against them."""
        others = [name for name in self.budget.limits() if name not in self.summed and name != "layers"]
        structure = self.budget.structure
        return others + (["depth_to_width"] if structure and structure.depth_to_width is not None else [])

    @property
    def limits(self) -> Limits:
        """The limits of the relaxation."""
        limits = self.budget.limits()
        costs = np.array([limits[name] for name in self.summed])
        return Limits(int(limits["layers"]), costs, self.budget.structure or StructureBounds())


class Optimum:
    """The search for the best network of a task.

    The caller takes networks from `improvements` and says in `accept` what each scores, where it keeps to the budget.

    Attributes:
        best: The best score so far; minus infinity before one.
        bound: What no network within the budget exceeds; infinity before the first bound.
        finished: Whether the best is proved to be the optimum, or that there is none.
        blocks: Blocks that were evaluated for the tables.
        left: Blocks that could still be part of a better chain when enumeration began; None before.
        made: Beginnings of chains that were made.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.best = -np.inf
        self.bound = np.inf
        self.finished = False
        self.blocks, self.made = 0, 0
        self.left: int | None = None

    @property
    def threshold(self) -> float:
        """What a network must reach to be better."""
        return beyond(self.best)

    def accept(self, score: float) -> None:
        """Takes note of a network within the budget."""
        self.best = max(self.best, score)
        self.bound = max(self.bound, self.best)  # equal to rounding

    def improvements(self) -> Iterator[Architecture]:
        """Networks that are better than the best so far, unless a limit on the whole network keeps them out."""
        tables = ChainTables(self.task.space, self.task.score, self.task.summed)
        self.blocks = tables.evaluated
        relaxation = Relaxation(tables, self.task.limits)
        count = len(tables.widths)
        spread = np.geomspace(1, count, COARSE) if count > COARSE else np.arange(1, count + 1)
        numbers = np.unique(np.round(spread).astype(np.intp)) - 1
        coarse, domain = Domain.all_of(tables, numbers), Domain.all_of(tables, np.arange(count))
        prices = self._first_prices(relaxation, coarse)
        if prices is None:  # so few layers make no chain
            self._lower(-np.inf)
            self.finished = True
            return
        cuts = yield from self._priced(relaxation, coarse, prices)
        found = relaxation.potentials(cuts[0].prices, coarse, both_ways=True)
        yield from self._beam(relaxation, coarse, edges_of(relaxation, found, coarse, self.threshold), [found])
        found = relaxation.potentials(cuts[0].prices, domain, both_ways=True)
        self._lower(found.bound)
        if len(numbers) < count:
            cuts = [found]  # prices of few widths bound no chain of others
            yield from self._offered(relaxation, [(found, relaxation.best_chain(found, domain))])
        for _ in range(ROUNDS if len(numbers) < count else 0):
            if self.bound <= self.threshold:
                break
            domain = narrowed(found, domain, self.threshold)
            edges = edges_of(relaxation, found, domain, self.threshold)
            domain = _inner(domain, edges)
            if not len(domain.stem) or not all(map(len, domain.nodes)):
                break
            yield from self._beam(relaxation, domain, edges, cuts)
            cuts = yield from self._priced(relaxation, domain, cuts[0].prices)
            found = relaxation.potentials(cuts[0].prices, domain, both_ways=True)
            self._lower(found.bound)
        if self.bound > self.threshold:
            yield from self._enumerated(relaxation, found, domain, cuts)
        else:
            self._lower(self.best)
            self.finished = True

    def certificate(self) -> dict[str, Any]:
        """What is proved so far, JSON-ready."""
        bound = float(self.bound) if np.isfinite(self.bound) else None
        best = float(self.best) if np.isfinite(self.best) else None
        return {
            "bound": bound,
            "best": best,
            "gap": None if bound is None or best is None else max(0.0, bound - best),
            "finished": self.finished,
            "enumerated": {"blocks": self.blocks, "blocks_left": self.left, "chains": self.made},
            "checked_whole": self.task.checked_whole,
        }

    def _first_prices(self, relaxation: Relaxation, domain: Domain) -> Array | None:
        """Where to begin: costs at their limits take half of what is gained without limits; None without any chain."""
        free = np.zeros(1 + len(self.task.summed))
        most = abs(relaxation.potentials(free, domain).bound)
        if np.isinf(most):
            return None
        free[1:] = 0.5 * most / (relaxation.limits.costs * max(1, len(self.task.summed)))
        return free

    def _priced(
        self, relaxation: Relaxation, domain: Domain, start: Array
    ) -> Generator[Architecture, None, list[Potentials]]:
        """Looks for prices, and offers the chains that come up; returns the best potentials."""
        tried: list[Potentials] = []
        for found, chain in priced(relaxation, domain, start, STEPS):
            tried.append(found)
            yield from self._offered(relaxation, [(found, chain)])
        return sorted(tried, key=lambda each: each.bound)[:CUTS]

    def _offered(self, relaxation: Relaxation, chains: Sequence[tuple[Potentials, Chain]]) -> Iterator[Architecture]:
        """The chains that keep to the limits and beat the best."""
        limits = relaxation.limits.costs
        for _, chain in chains:
            rows = relaxation.rows(chain)
            score = rows[0] + relaxation.ends[chain.last, int(np.rint(rows[1]))]
            if (rows[2:] <= limits * (1 + SLACK)).all() and score > self.threshold:
                yield self._network(relaxation.tables, chain)

    def _beam(
        self, relaxation: Relaxation, domain: Domain, edges: list[list[Edges]], cuts: Sequence[Potentials]
    ) -> Iterator[Architecture]:
        yield from self._chains(Enumeration(relaxation, domain, edges, cuts, self.best, True, BEAM))

    def _enumerated(
        self, relaxation: Relaxation, found: Potentials, domain: Domain, cuts: Sequence[Potentials]
    ) -> Iterator[Architecture]:
        """All that is left; the proof."""
        domain = narrowed(found, domain, self.threshold)
        edges = edges_of(relaxation, found, domain, self.threshold)
        self.left = sum(len(each.kind) for group in edges for each in group)
        dominates = not self.task.checked_whole
        enumeration = Enumeration(relaxation, domain, edges, cuts, self.best, dominates, None, self.task.nodes)
        yield from self._chains(enumeration, proves=True)
        self._lower(enumeration.open_bound)
        self.finished = enumeration.open_bound <= self.threshold

    def _chains(self, enumeration: Enumeration, proves: bool = False) -> Iterator[Architecture]:
        before = self.made
        for item in enumeration.chains():
            self.made = before + enumeration.made
            if item is None:
                if proves:
                    self._lower(enumeration.open_bound)
                continue
            yield self._network(enumeration.relaxation.tables, item[1])
            enumeration.best = self.best
        self.made = before + enumeration.made

    def _lower(self, bound: float) -> None:
        """A new bound on what was not left out; what was left out is no better than the best."""
        self.bound = min(self.bound, max(bound, self.best))

    def _network(self, tables: ChainTables, chain: Chain) -> Architecture:
        body = [tables.block(move.spot, move.kind, move.times, move.b, move.o) for move in chain.moves]
        return tables.network(chain.stem, body, int(tables.last_outs[chain.last]))


def _inner(domain: Domain, edges: list[list[Edges]]) -> Domain:
    """The domain with those widths alone inside blocks that are left."""
    inner: dict[Any, set[int]] = {spot: set() for spot in domain.inner}
    for group in edges:
        for each in group:
            inner[each.spot].update(each.b.tolist())
    return replace(domain, inner={spot: np.array(sorted(found), np.intp) for spot, found in inner.items()})


def signed(score: BlockSum, sign: int) -> BlockSum:
    """The score, negated where lower is better."""
    if sign > 0:
        return score
    return replace(score, term=partial(_negated, score.term), end=partial(_negated, score.end))


def _negated(function: Any, *arguments: Any, **options: Any) -> float:
    return -float(function(*arguments, **options))
