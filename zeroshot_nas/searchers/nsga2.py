"""NSGA-II: a population that spreads along the front of several objectives."""

from __future__ import annotations

import random
from collections.abc import Sequence

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.pareto import crowding_distances, least_crowded, nondominated_ranks
from zeroshot_nas.searchers.base import Candidate, Problem, Searcher, register_searcher
from zeroshot_nas.searchers.pool import joined
from zeroshot_nas.spaces.base import SearchSpace


@register_searcher("nsga2")
class NSGA2(Searcher):
    """NSGA-II (Deb et al., IEEE TEC 6(2), 2002), by a search's objectives; by fitness, params and FLOPs without any.

    A generation is as many scored networks as the population has. Of both together the better half goes on: front by
    front, and of the last front that has room those that are `least_crowded`, one leaving at a time. Parents win
    binary tournaments, by front, then by crowding. A child is a crossover of two of them, mutated in one block or two,
    or a mutant of one. The first generation grows from the start: mutants of what was scored so far.

    Args:
        space: Where to search.
        rng: Its only source of randomness.
        start: The first proposal, unless it is told of networks before.
        population_size: Members kept.
        crossover_rate: Share of the children that have two parents.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: random.Random,
        start: Architecture,
        population_size: int = 100,
        crossover_rate: float = 0.5,
    ) -> None:
        super().__init__(space, rng, start)
        if population_size < 2:
            raise ValueError(f"population_size must be 2 or more, got {population_size}")
        if not 0 <= crossover_rate <= 1:
            raise ValueError(f"crossover_rate must be between 0 and 1, got {crossover_rate}")
        self.population_size = population_size
        self.crossover_rate = crossover_rate
        self.population: list[Candidate] = []
        self._merit: list[tuple[float, float]] = []  # of each member: its front and its crowding, smaller is better
        self._children: list[Candidate] = []
        self._problem: Problem | None = None
        self._started = False
        self.generation = min(population_size, 64)

    def begin(self, problem: Problem) -> None:
        self._problem = problem

    @property
    def members(self) -> list[Candidate]:
        return self.population + self._children

    def ask(self, n: int) -> Sequence[Architecture]:
        if not self._started:
            self._started = True
            if not self.members:
                return joined([self.start], self.ask(n - 1) if n > 1 else [])
        parents, seeds, mutations = [], [], []
        for _ in range(n):  # one by one, so that it does not matter how many are asked for at a time
            parents.append(self._parents_child())
            mutations.append(1 + (self.rng.random() < 0.5))
            seeds.append(self.rng.getrandbits(64))
        return self.space.mutate_all(parents, seeds, mutations)

    def tell(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            self._children.append(candidate)
            if len(self._children) == self.population_size:
                self._select()

    def _parents_child(self) -> Architecture:
        """A crossover of two parents, or one of them, before it is mutated."""
        parent = self._parent()
        if self.population and self.rng.random() < self.crossover_rate:
            return self.space.crossover(parent, self._parent(), self.rng)
        return parent

    def _parent(self) -> Architecture:
        """The winner of a tournament; before there is a population any network that was scored."""
        if not self.population:
            return self._drawn(self._children) if self._children else self.start
        size, draw, merit = len(self.population), self.rng.random, self._merit
        one, other = int(draw() * size), int(draw() * size)
        return self.population[other if merit[other] < merit[one] else one].architecture

    def _drawn(self, candidates: Sequence[Candidate]) -> Architecture:
        return candidates[int(self.rng.random() * len(candidates))].architecture

    def _select(self) -> None:
        """The next population out of this one and its children."""
        assert self._problem is not None, "begun"
        both = self.population + self._children
        self._children = []
        points = [self._problem.point(candidate) for candidate in both]
        ranks = nondominated_ranks(points).tolist()
        self.population, self._merit = [], []
        for rank in range(max(ranks) + 1):
            front = [place for place, each in enumerate(ranks) if each == rank]
            room = self.population_size - len(self.population)
            if len(front) > room:
                front = [front[place] for place in least_crowded([points[each] for each in front], room)]
            crowding = crowding_distances([points[place] for place in front])
            self.population += [both[place] for place in front]
            self._merit += [(rank, -distance) for distance in crowding.tolist()]
            if len(front) >= room:
                return
