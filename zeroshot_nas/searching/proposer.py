"""Between a searcher and the search: the budget, duplicates, and the counts of both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import perf_counter

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.searchers.base import Candidate, Problem, Searcher

REMEMBERED = 500_000
"""How many of the last networks at least are known again; a bound on memory, reached after minutes only."""


class Proposer:
    """A searcher's proposals within a budget, none of them twice, with what became of the rest.

    Memory stays flat: of the networks seen before, the last half a million at least are remembered.

    Args:
        searcher: Proposes.
        problem: What it searches for; its budget is what a proposal must keep to.

    Attributes:
        proposed: Proposals so far.
        exhausted: Whether the searcher had nothing more to propose.
        seconds: Wall time spent on proposing and on costs.
    """

    def __init__(self, searcher: Searcher, problem: Problem) -> None:
        self.searcher = searcher
        self.problem = problem
        self.exhausted = False
        self.proposed = 0
        self.seconds = {"propose": 0.0, "cost": 0.0}
        self._max_layers = math.inf if problem.budget.layers is None else problem.budget.layers
        self._over_budget = 0
        self._duplicate = 0
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()
        searcher.begin(problem)

    @property
    def counts(self) -> dict[str, int]:
        """What became of the proposals, in the terms of `Counts`."""
        return {"proposed": self.proposed, "over_budget": self._over_budget, "duplicate": self._duplicate}

    def batches(self, proposals: int, size: int) -> Iterator[list[Candidate]]:
        """New candidates out of each ``size`` proposals, where there are any, until so many or all are proposed."""
        while self.proposed < proposals and not self.exhausted:
            if candidates := self.ask(min(size, proposals - self.proposed)):
                yield candidates

    def ask(self, n: int) -> list[Candidate]:
        """New candidates out of the searcher's next ``n`` proposals, maybe none."""
        start = perf_counter()
        asked = self.searcher.ask(n)
        self.seconds["propose"] += perf_counter() - start
        self.exhausted = not asked
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
            costs = self.problem.costs(architecture)
            if self.problem.budget.violations(costs, architecture):
                self._over_budget += 1
            elif self._is_new(hash(architecture)):  # 64 bits of numbers alone: no collision in a search
                candidates.append(Candidate(architecture, costs, {}, -math.inf))
            else:
                self._duplicate += 1
        self.seconds["cost"] += perf_counter() - start
        return candidates

    def know(self, candidates: Sequence[Candidate]) -> None:
        """Tells the searcher of networks that others scored; proposed again they are duplicates."""
        for candidate in candidates:
            self._is_new(hash(candidate.architecture))
        self.tell(candidates)

    def limit(self, budget: Budget) -> None:
        """Goes on within another budget, which the searcher is told of."""
        self.problem = replace(self.problem, budget=budget)
        self.searcher.begin(self.problem)

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
