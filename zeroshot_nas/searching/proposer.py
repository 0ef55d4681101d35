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
        first: Networks that are proposed before its own.

    Attributes:
        proposed: Proposals so far.
        exhausted: Whether the searcher had nothing more to propose.
        seconds: Wall time spent on proposing and on costs.
    """

    def __init__(self, searcher: Searcher, problem: Problem, first: Sequence[Architecture] = ()) -> None:
        self.searcher = searcher
        self.problem = problem
        self.exhausted = False
        self.proposed = 0
        self.seconds = {"propose": 0.0, "cost": 0.0}
        self._first = first
        self._over_budget = 0
        self._duplicate = 0
        self._seen: dict[int, bool] = {}  # whether each fits, by its digest
        self._seen_before: dict[int, bool] = {}
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
        """The searcher's next ``n`` proposals; of those that come first no more than these."""
        if self._first:
            asked, self._first = self._first[:n], self._first[n:]
            return asked
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
        places, numbers = self.unknown(pool.digests, range(len(pool)))
        asked = pool.take(places).costed()
        admitted, _ = self.admitted(asked.digests, asked.fits(), numbers)
        self.seconds["cost"] += perf_counter() - start
        return list(asked.take(admitted))

    def unknown(self, digests: Sequence[int], places: range) -> tuple[list[int], list[int]]:
        """Of proposals in these places those that did not come before; the others are counted.

        Returns:
            Their places, and how many networks had been proposed at each.
        """
        new: list[int] = []
        numbers: list[int] = []
        for number, place in enumerate(places, start=self.proposed + 1):
            fits = self._fits(digests[place])
            if fits is None:
                new.append(place)
                numbers.append(number)
            else:
                self._count(fits)
        self.proposed += len(places)
        return new, numbers

    def admitted(
        self, digests: Sequence[int], fits: Sequence[bool], numbers: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """Of networks that did not come before those that keep to the budget, none twice; the others are counted.

        Returns:
            Their places, and how many networks had been proposed at each, out of ``numbers``.
        """
        new: list[int] = []
        of_new: list[int] = []
        for place, (digest, fit, number) in enumerate(zip(digests, fits, numbers, strict=True)):
            if fit and self._fits(digest) is None:  # 64 bits of numbers alone: no collision in a search
                new.append(place)
                of_new.append(number)
            else:
                self._count(fit)
            self._remember(digest, fit)
        return new, of_new

    def know(self, candidates: Sequence[Candidate]) -> None:
        """Tells the searcher of networks that others scored; proposed again they are duplicates."""
        for digest in digests(networks_of(candidates)):
            self._remember(digest, True)
        self.tell(candidates)

    def limit(self, budget: Budget) -> None:
        """Goes on within another budget, which the searcher is told of."""
        self.problem = replace(self.problem, budget=budget)
        for seen in (self._seen, self._seen_before):
            for digest in [digest for digest, fits in seen.items() if not fits]:
                del seen[digest]
        self.searcher.begin(self.problem)

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Passes scored candidates on to the searcher."""
        start = perf_counter()
        self.searcher.tell(candidates)
        self.seconds["propose"] += perf_counter() - start

    def _count(self, fits: bool) -> None:
        if fits:
            self._duplicate += 1
        else:
            self._over_budget += 1

    def _fits(self, digest: int) -> bool | None:
        """Whether a network keeps to the budget; None where it did not come before."""
        fits = self._seen.get(digest)
        return self._seen_before.get(digest) if fits is None else fits

    def _remember(self, digest: int, fits: bool) -> None:
        if len(self._seen) >= REMEMBERED:
            self._seen_before, self._seen = self._seen, {}
        self._seen[digest] = fits
