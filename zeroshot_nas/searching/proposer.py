"""Between a searcher and the search: the budget, duplicates, and the counts of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import Costs, complexity
from zeroshot_nas.searchers.base import Candidate, Searcher

REMEMBERED = 500_000
"""How many of the last networks at least are known again; a bound on memory, reached after minutes only."""


class Proposer:
    """A searcher's proposals within a budget, none of them twice, with what became of the rest.

    Memory stays flat: of the networks seen before, the last half a million at least are remembered.

    Args:
        searcher: Proposes.
        budget: What a proposal must keep to.
        latency_ms: Predicts latency, where the budget limits it.

    Attributes:
        proposed: Proposals so far.
        seconds: Wall time spent on proposing and on costs.
    """

    def __init__(
        self, searcher: Searcher, budget: Budget, latency_ms: Callable[[Architecture], float] | None = None
    ) -> None:
        self.searcher = searcher
        self.budget = budget
        self.latency_ms = latency_ms
        self.proposed = 0
        self.seconds = {"propose": 0.0, "cost": 0.0}
        self._max_layers = math.inf if budget.layers is None else budget.layers
        self._over_budget = 0
        self._duplicate = 0
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()

    @property
    def counts(self) -> dict[str, int]:
        """What became of the proposals, in the terms of `Counts`."""
        return {"proposed": self.proposed, "over_budget": self._over_budget, "duplicate": self._duplicate}

    def batches(self, proposals: int, size: int) -> Iterator[list[Candidate]]:
        """New candidates out of each ``size`` proposals, where there are any, until so many are proposed."""
        while self.proposed < proposals:
            if candidates := self.ask(min(size, proposals - self.proposed)):
                yield candidates

    def ask(self, n: int) -> list[Candidate]:
        """New candidates out of the searcher's next ``n`` proposals, maybe none."""
        start = perf_counter()
        asked = self.searcher.ask(n)
        self.seconds["propose"] += perf_counter() - start
        return self.admit(asked)

    def admit(self, architectures: Sequence[Architecture]) -> list[Candidate]:
        """Those of the proposals that keep to the budget and did not come before, with their costs."""
        start = perf_counter()
        self.proposed += len(architectures)
        candidates = []
        for architecture in architectures:
            if architecture.layers > self._max_layers:  # known before any cost
                self._over_budget += 1
                continue
            costs = self.costs(architecture)
            if self.budget.violations(costs, architecture):
                self._over_budget += 1
            elif self._is_new(hash(architecture)):  # 64 bits of numbers alone: no collision in a search
                candidates.append(Candidate(architecture, costs, {}, -math.inf))
            else:
                self._duplicate += 1
        self.seconds["cost"] += perf_counter() - start
        return candidates

    def costs(self, architecture: Architecture) -> Costs:
        """What an architecture costs, latency included where the budget limits it."""
        costs = complexity(architecture)
        return costs if self.latency_ms is None else costs.with_latency(self.latency_ms(architecture))

    def fits(self, architecture: Architecture) -> bool:
        """Whether an architecture keeps to the budget."""
        return not self.budget.violations(self.costs(architecture), architecture)

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Passes scored candidates on to the searcher."""
        start = perf_counter()
        self.searcher.tell(candidates)
        self.seconds["propose"] += perf_counter() - start

    def _is_new(self, digest: int) -> bool:
        if digest in self._seen or digest in self._seen_before:
            return False
        if len(self._seen) >= REMEMBERED:
            self._seen_before, self._seen = self._seen, set()
        self._seen.add(digest)
        return True
