"""Regularized evolution: parents by tournament, the oldest dies."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.searchers.base import Candidate, Searcher, register_searcher
from zeroshot_nas.spaces.base import SearchSpace


@register_searcher("regularized_evolution")
class RegularizedEvolution(Searcher):
    """Aging evolution (Real et al., arXiv:1802.01548).

    A proposal mutates the best of ``tournament_size`` members drawn evenly with replacement, in one block or in two.
    The oldest member leaves, however good it is, so that a lineage must prove itself again: on the closed form this
    leaves local optima that hold Zen-NAS's `Evolution`, where the worst leaves.

    Args:
        space: Where to search.
        rng: Its only source of randomness.
        start: The first proposal unless it is told of networks before, and the parent while the population is empty.
        population_size: Members kept.
        tournament_size: Members that compete to be the parent.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: random.Random,
        start: Architecture,
        population_size: int = 64,
        tournament_size: int = 3,
    ) -> None:
        super().__init__(space, rng, start)
        sizes = {"population_size": population_size, "tournament_size": tournament_size}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")
        self.tournament_size = tournament_size
        self.population: deque[Candidate] = deque(maxlen=population_size)
        self._started = False

    @property
    def members(self) -> list[Candidate]:
        return list(self.population)

    def ask(self, n: int) -> list[Architecture]:
        return [self._propose() for _ in range(n)]

    def tell(self, candidates: Sequence[Candidate]) -> None:
        self.population.extend(candidates)

    def _propose(self) -> Architecture:
        if not self._started:
            self._started = True
            if not self.population:
                return self.start
        members, draw = self.population, self.rng.random
        if not members:
            return self.space.mutate(self.start, self.rng)
        size = len(members)
        parent = members[int(draw() * size)]
        for _ in range(self.tournament_size - 1):
            rival = members[int(draw() * size)]
            if rival.fitness > parent.fitness:
                parent = rival
        return self.space.mutate(parent.architecture, self.rng, 1 + (draw() < 0.5))
