"""Networks side by side, as candidates: their costs, whether they keep to a budget, and their fitness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.costs.base import STANDARD
from zeroshot_nas.costs.complexity import Costs, costs_of_sums
from zeroshot_nas.searchers.base import Candidate, Problem

if TYPE_CHECKING:
    from zeroshot_nas.chains import coding, editing
    from zeroshot_nas.costs import chains as costs
else:
    coding, editing = LazyModule("zeroshot_nas.chains.coding"), LazyModule("zeroshot_nas.chains.editing")
    costs = LazyModule("zeroshot_nas.costs.chains")


@dataclass(frozen=True, eq=False)
class Pool(Sequence[Candidate]):
    """Networks with their costs and fitness; as a sequence, candidates, made when they are asked for.

    Attributes:
        networks: The networks; arrays where the space makes them (`zeroshot_nas.chains.coding.Chains`).
        problem: What they are costed for.
        fitness: Their fitness; minus infinity before they are scored.
        columns: Costs that were worked out side by side, by name; None before, and where they are not.
    """

    networks: Sequence[Architecture]
    problem: Problem
    fitness: Sequence[float] = ()
    columns: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, networks: Sequence[Architecture], problem: Problem) -> Pool:
        """Networks without fitness."""
        made = networks.made if isinstance(networks, editing.Mutants) else networks
        return cls(made, problem, (-math.inf,) * len(networks))

    def __len__(self) -> int:
        return len(self.networks)

    @overload
    def __getitem__(self, place: int) -> Candidate: ...
    @overload
    def __getitem__(self, place: slice) -> Pool: ...
    def __getitem__(self, place: int | slice) -> Candidate | Pool:
        if isinstance(place, slice):
            return self.take(range(len(self))[place])
        network = self.networks[place]
        return Candidate(network, self._costs(place, network), {}, self.fitness[place])

    def _costs(self, place: int, network: Architecture) -> Costs:
        if self.columns is None or self.problem.latency_ms is not None:
            return self.problem.costs(network)
        stored = network if self.problem.stored is None else self.problem.stored(network)
        return costs_of_sums(((name, _plain(column[place])) for name, column in self.columns.items()), stored)

    def take(self, places: Sequence[int]) -> Pool:
        """The candidates in these places."""
        columns = self.columns and {name: column[list(places)] for name, column in self.columns.items()}
        fitness = [self.fitness[place] for place in places]
        return Pool(taken(self.networks, places), self.problem, fitness, columns)

    def costed(self) -> Pool:
        """The candidates with costs that are worked out side by side, where they have a code."""
        chains = as_chains(self.networks) if len(self) else None
        return self if chains is None else replace(self, columns=costs.costs_of_chains(chains))

    def scored(self, fitness: Sequence[float]) -> Pool:
        """The candidates with their fitness."""
        return replace(self, fitness=fitness)

    def costs_of(self, place: int) -> Mapping[str, float]:
        """What is known of a network's costs, by name."""
        if self.columns is None or self.problem.latency_ms is not None:
            return self[place].costs.to_dict(complete=False)
        standard = [name for name in STANDARD if name in self.columns]
        further = sorted(self.columns.keys() - STANDARD)
        return {name: _plain(self.columns[name][place]) for name in (*standard, *further)}

    @cached_property
    def digests(self) -> Sequence[int]:
        """A number of 64 bits for each network."""
        return digests(self.networks)

    def fits(self) -> Sequence[bool]:
        """Whether each network keeps to the budget."""
        budget = self.problem.budget
        if self.columns is None:
            most = math.inf if budget.layers is None else budget.layers  # known before any cost
            return [network.layers <= most and self.problem.fits(network) for network in self.networks]
        limits = budget.limits()
        fits = self.columns["layers"] >= 0
        for name in self.columns.keys() & limits:
            fits &= self.columns[name] <= limits[name]
        if limits.keys() <= self.columns.keys() and budget.structure is None:
            return list(fits.tolist())
        return [fit and self.problem.fits(self.networks[place]) for place, fit in enumerate(fits.tolist())]


def _plain(value: Any) -> float:
    """A column's number: a whole one as such."""
    number = float(value)
    return int(number) if number.is_integer() else number


def joined(first: Sequence[Architecture], second: Sequence[Architecture]) -> Sequence[Architecture]:
    """Networks and others behind them; arrays where one is, and the other can be."""
    if not len(first) or not len(second):
        return second if not len(first) else first
    if isinstance(first, editing.Mutants) and isinstance(second, editing.Mutants):
        return first.joined(second)
    if any(isinstance(each, coding.Chains | editing.Mutants) for each in (first, second)):
        one, two = as_chains(first), as_chains(second)
        if one is not None and two is not None:
            return one.joined(two)
    return [*first, *second]


def as_chains(networks: Sequence[Architecture]) -> coding.Chains | None:
    """Networks of one space as arrays; None where they have no code."""
    if isinstance(networks, editing.Mutants):
        return networks.made
    if isinstance(networks, coding.Chains):
        return networks
    return coding.Chains.of(networks) if all(map(coding.has_code, networks)) else None


def taken(networks: Sequence[Architecture], places: Sequence[int]) -> Sequence[Architecture]:
    """The networks in these places; arrays where all are."""
    return networks.take(list(places)) if isinstance(networks, coding.Chains) else [networks[place] for place in places]


def digests(networks: Sequence[Architecture]) -> Sequence[int]:
    """A number of 64 bits for each network, of arrays and of what stands in their place the same."""
    chains = as_chains(networks) if len(networks) else None
    if chains is not None:
        return list(chains.digests.tolist())
    return [int(coding.Chains.of([each]).digests[0]) if coding.has_code(each) else hash(each) for each in networks]


def networks_of(candidates: Sequence[Candidate]) -> Sequence[Architecture]:
    """The networks of candidates; arrays where they are."""
    return candidates.networks if isinstance(candidates, Pool) else [each.architecture for each in candidates]


def fitness_of(candidates: Sequence[Candidate]) -> Sequence[float]:
    """The fitness of candidates."""
    return candidates.fitness if isinstance(candidates, Pool) else [each.fitness for each in candidates]
