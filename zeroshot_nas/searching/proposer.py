"""Between a searcher and the search: the budget, duplicates, and the counts of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import perf_counter

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.searchers.base import Candidate, Problem, Searcher
from zeroshot_nas.searchers.pool import Pool, digests, networks_of

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
        return self.admit(self.propose(n))

    def propose(self, n: int) -> Sequence[Architecture]:
        """The searcher's next ``n`` proposals."""
        start = perf_counter()
        asked = self.searcher.ask(n)
        self.seconds["propose"] += perf_counter() - start
        self.exhausted = not len(asked)
        return asked

    def admit(self, architectures: Sequence[Architecture]) -> list[Candidate]:
        """Those of the proposals that keep to the budget and did not come before, with their costs."""
        if not len(architectures):
            return []
        start = perf_counter()
        pool = Pool.of(architectures, self.problem)
        places, _ = self.admitted(pool, range(len(pool)), pool.fits())
        candidates = list(pool.take(places))
        self.seconds["cost"] += perf_counter() - start
        return candidates

    def admitted(self, pool: Pool, places: range, fits: Sequence[bool]) -> tuple[list[int], list[int]]:
        """Of a pool's networks in these places, which are proposals, those that fit and did not come before.

        Returns:
            Their places, and how many networks had been proposed at each.
        """
        new: list[int] = []
        numbers: list[int] = []
        digests = pool.digests
        for number, place in enumerate(places, start=self.proposed + 1):
            if not fits[place]:
                self._over_budget += 1
            elif self._is_new(digests[place]):  # 64 bits of numbers alone: no collision in a search
                new.append(place)
                numbers.append(number)
            else:
                self._duplicate += 1
        self.proposed += len(places)
        return new, numbers

    def know(self, candidates: Sequence[Candidate]) -> None:
        """Tells the searcher of networks that others scored; proposed again they are duplicates."""
        for digest in digests(networks_of(candidates)):
            self._is_new(digest)
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
