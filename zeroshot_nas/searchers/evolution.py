"""Zen-NAS's evolution: uniform parents, mutation only, the worst dies."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from operator import itemgetter

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.searchers.base import Candidate, Problem, Searcher, register_searcher
from zeroshot_nas.searchers.pool import Pool, fitness_of, joined, networks_of
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
        generation_size: Networks that are proposed before any of them joins the population, where a closed form scores
            them.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: random.Random,
        start: Architecture,
        population_size: int = 256,
        few: int = 10,
        generation_size: int = 64,
    ) -> None:
        super().__init__(space, rng, start)
        check_counts(population_size=population_size, generation_size=generation_size)
        self.population_size = population_size
        self.few = few
        self.generation = generation_size
        self._heap: list[tuple[float, int, Architecture]] = []  # the worst member first
        self._born = 0
        self._problem = Problem(Budget(), "")
        self._started = False

    def begin(self, problem: Problem) -> None:
        self._problem = problem

    @property
    def members(self) -> Sequence[Candidate]:
        """The population, the worst first."""
        ordered = sorted(self._heap, key=itemgetter(0, 1))
        return Pool([network for *_, network in ordered], self._problem, [fitness for fitness, *_ in ordered])

    def ask(self, n: int) -> Sequence[Architecture]:
        members = len(self._heap)
        if not self._started:
            self._started = True
            if not members:
                return joined([self.start], self.ask(n - 1) if n > 1 else [])
        parents, seeds = [], []
        for _ in range(n):  # one by one, so that it does not matter how many are asked for at a time
            parents.append(self._heap[int(self.rng.random() * members)][2] if members else self.start)
            seeds.append(self.rng.getrandbits(64))
        mutations = 1 if members <= self.few else 2
        return self.space.mutate_all(parents, seeds, [mutations] * n)

    def tell(self, candidates: Sequence[Candidate]) -> None:
        networks = networks_of(candidates)
        for place, fitness in enumerate(fitness_of(candidates)):
            if len(self._heap) < self.population_size:
                heapq.heappush(self._heap, (fitness, self._born, networks[place]))
            elif (fitness, self._born) > self._heap[0][:2]:
                heapq.heapreplace(self._heap, (fitness, self._born, networks[place]))
            self._born += 1
