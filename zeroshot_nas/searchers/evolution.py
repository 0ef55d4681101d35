"""Zen-NAS's evolution: uniform parents, mutation only, the worst dies."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from operator import itemgetter

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.searchers.base import Candidate, Searcher, register_searcher
from zeroshot_nas.spaces.base import SearchSpace


@register_searcher("evolution")
class Evolution(Searcher):
    """Steady-state evolution (Lin et al., arXiv:2102.01063, algorithm 1).

    A proposal mutates a parent drawn evenly from the population: one block while the population has at most
    ``few`` members, two afterwards (the same block twice is one). Over ``population_size`` the worst member leaves, of
    equals the oldest.

    Args:
        space: Where to search.
        rng: Its only source of randomness.
        start: The first proposal unless it is told of networks before, and the parent while the population is empty.
        population_size: Members kept.
        few: Population up to which one block is mutated.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: random.Random,
        start: Architecture,
        population_size: int = 256,
        few: int = 10,
    ) -> None:
        super().__init__(space, rng, start)
        if population_size < 1:
            raise ValueError(f"population_size must be 1 or more, got {population_size}")
        self.population_size = population_size
        self.few = few
        self._heap: list[tuple[float, int, Candidate]] = []  # the worst member first
        self._born = 0
        self._started = False

    @property
    def members(self) -> list[Candidate]:
        """The population, the worst first."""
        return [member for _, _, member in sorted(self._heap, key=itemgetter(0, 1))]

    def ask(self, n: int) -> list[Architecture]:
        return [self._propose() for _ in range(n)]

    def tell(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            member = (candidate.fitness, self._born, candidate)
            self._born += 1
            if len(self._heap) < self.population_size:
                heapq.heappush(self._heap, member)
            else:
                heapq.heappushpop(self._heap, member)

    def _propose(self) -> Architecture:
        if not self._started:
            self._started = True
            if not self._heap:
                return self.start
        members = len(self._heap)
        if not members:
            return self.space.mutate(self.start, self.rng)
        parent = self._heap[int(self.rng.random() * members)][2]
        return self.space.mutate(parent.architecture, self.rng, 1 if members <= self.few else 2)
