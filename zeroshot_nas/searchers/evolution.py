"""Zen-NAS's evolution: uniform parents, mutation only, the worst dies."""

from __future__ import annotations

import random
from collections.abc import Sequence

from zeroshot_nas.architecture import Architecture
from zeroshot_nas.searchers.base import Candidate, Searcher, register_searcher
from zeroshot_nas.spaces.base import SearchSpace


@register_searcher("evolution")
class Evolution(Searcher):
    """Steady-state evolution (Lin et al., arXiv:2102.01063, algorithm 1).

    A proposal mutates a parent drawn evenly from the population: one block while the population has at most
    ``few`` members, two afterwards (the same block twice is one). Over ``population_size`` the worst member leaves.

    Args:
        space: Where to search.
        rng: Its only source of randomness.
        start: The first proposal, and the parent while the population is empty.
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
        self.population: list[Candidate] = []
        self._started = False

    def ask(self, n: int) -> list[Architecture]:
        return [self._propose() for _ in range(n)]

    def tell(self, candidates: Sequence[Candidate]) -> None:
        self.population += candidates
        while len(self.population) > self.population_size:
            self.population.remove(min(self.population, key=lambda candidate: candidate.fitness))

    def _propose(self) -> Architecture:
        if not self._started:
            self._started = True
            return self.start
        if not self.population:
            return self.space.mutate(self.start, self.rng)
        parent = self.rng.choice(self.population).architecture
        return self.space.mutate(parent, self.rng, mutations=1 if len(self.population) <= self.few else 2)
