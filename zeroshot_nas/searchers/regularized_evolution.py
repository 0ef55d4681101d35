"""Regularized evolution: parents by tournament, the oldest dies."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.core.seeding import uniform
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.searchers.base import Candidate, Problem, Searcher, register_searcher
from zeroshot_nas.searchers.pool import Pool, fitness_of, joined, networks_of, taken
from zeroshot_nas.spaces.base import SearchSpace

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")


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
        generation_size: Networks that are proposed before any of them joins the population, where a closed form scores
            them.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: random.Random,
        start: Architecture,
        population_size: int = 64,
        tournament_size: int = 3,
        generation_size: int = 64,
    ) -> None:
        super().__init__(space, rng, start)
        sizes = {
            "population_size": population_size,
            "tournament_size": tournament_size,
            "generation_size": generation_size,
        }
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")
        self.population_size = population_size
        self.tournament_size = tournament_size
        self.generation = generation_size
        self._networks: Sequence[Architecture] = []
        self._fitness: list[float] = []
        self._problem = Problem(Budget(), "")
        self._started = False

    def begin(self, problem: Problem) -> None:
        self._problem = problem

    @property
    def members(self) -> Sequence[Candidate]:
        return Pool(self._networks, self._problem, self._fitness)

    def ask(self, n: int) -> Sequence[Architecture]:
        if not self._started:
            self._started = True
            if not self._fitness:
                return joined([self.start], self.ask(n - 1) if n > 1 else [])
        seeds = [self.rng.getrandbits(64) for _ in range(2 * n)]
        if not self._fitness:
            return self.space.mutate_all([self.start] * n, seeds[1::2], [1] * n)
        draws = uniform(seeds[::2], 0, self.tournament_size + 1)
        rivals = (draws[:, :-1] * len(self._fitness)).astype(np.intp)
        winners = np.array(self._fitness)[rivals].argmax(1)  # of equals the first
        parents, mutations = rivals[np.arange(n), winners].tolist(), 1 + (draws[:, -1] < 0.5)
        return self.space.mutate_all(taken(self._networks, parents), seeds[1::2], mutations.tolist())

    def tell(self, candidates: Sequence[Candidate]) -> None:
        self._fitness = [*self._fitness, *fitness_of(candidates)][-self.population_size :]
        self._networks = joined(self._networks, networks_of(candidates))[-self.population_size :]
