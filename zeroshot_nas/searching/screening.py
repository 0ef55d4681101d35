"""The first tier of a search: islands that evolve by the closed form.

Each evolves for itself, a leg at a time; between legs the elites of one go to the next. All legs end before any elite
travels, so that any number of workers gives the same finalists.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.garbage import paused_garbage_collection
from zeroshot_nas.core.pareto import Archive
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import Costs
from zeroshot_nas.errors import FileFormatError, ZeroShotNASError
from zeroshot_nas.scoring.closed_forms import POOL
from zeroshot_nas.searchers.base import Candidate, Problem, Screened, Searcher
from zeroshot_nas.searching.proposer import Proposer
from zeroshot_nas.searching.signature import Signature, signature
from zeroshot_nas.spaces.base import SearchSpace

if TYPE_CHECKING:
    from zeroshot_nas.scoring.proxy import ClosedFormPool

Ranked: TypeAlias = tuple[tuple[float, Architecture], ...]
"""Networks with their fitness, the fittest first."""

_Entry: TypeAlias = tuple[float, int, Architecture]
"""A network with its fitness and its place in the order of arrival, negative; no two places are the same."""

_REPORT_EVERY = 256

TRAJECTORY = 400
"""Networks of an island's way that are kept beside its improvements."""

ELITES = 8
"""Of its best networks those that an island passes on to the next one."""


@dataclass(frozen=True)
class IslandTask:
    """What one island does in one leg; a worker needs nothing else.

    Attributes:
        problem: What it searches for, with the number of its proposals; its closed form needs no torch, so that a
            worker need not load it.
        closed_form_pool: The closed form of many architectures side by side, where that is faster.
        index: Its number; the first draws what a search without islands would.
        finalists: Networks to keep.
        legs: Legs that an island has in all.
        population: What the strategy is told of before it proposes.
        kinds: Networks to keep beside these, each the best of its kind, no two alike by their `signature`.
    """

    space: SearchSpace
    searcher: type[Searcher]
    searcher_options: Mapping[str, Any]
    start: Architecture
    problem: Problem
    closed_form_pool: ClosedFormPool | None
    seed: int
    index: int
    finalists: int
    legs: int = 1
    population: Ranked = ()
    kinds: int = 0

    @property
    def kept(self) -> int:
        """Networks that a leg keeps: the finalists, and what it passes on."""
        return self.finalists if self.legs == 1 else max(self.finalists, ELITES)

    @property
    def proposals(self) -> int:
        """Networks to propose."""
        assert self.problem.proposals is not None, "an island's caller decides"
        return self.problem.proposals


class Island(NamedTuple):
    """What an island found.

    Attributes:
        kept: Its best networks by the closed form, or its front with objectives, each with its fitness, fittest first.
        counts: What became of its proposals.
        failures: Reasons of failed scores.
        seconds: Wall time by what it went into.
        interrupted: Whether it was stopped by the keyboard.
        trajectory: Its way: every improvement, and some of the rest.
        certificate: What its strategy proved.
        members: Its population, where it has another leg.
    """

    kept: Ranked
    counts: Mapping[str, int]
    failures: Mapping[str, int]
    seconds: Mapping[str, float]
    interrupted: bool = False
    trajectory: tuple[Screened, ...] = ()
    certificate: Mapping[str, Any] | None = None
    members: Ranked = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return {**self._asdict(), "kept": _to_list(self.kept), "members": _to_list(self.members)}

    @classmethod
    def from_dict(cls, data: Any) -> Island:
        """Reads what `to_dict` gives.

        Raises:
            FileFormatError: The data is not an island's.
        """
        try:
            names = ("counts", "failures", "seconds", "interrupted")
            trajectory = tuple(Screened(*point) for point in data.get("trajectory", ()))  # none of earlier releases
            return cls(_from_list(data["kept"]), *(data[name] for name in names))._replace(
                trajectory=trajectory,
                certificate=data.get("certificate"),
                members=_from_list(data.get("members", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"not a valid island: {type(error).__name__}: {error}") from error


def _to_list(networks: Ranked) -> list[list[Any]]:
    return [[fitness, each.to_dict()] for fitness, each in networks]


def _from_list(data: Any) -> Ranked:
    return tuple((float(fitness), Architecture.from_dict(each)) for fitness, each in data)


def share_out(proposals: int, islands: int) -> list[int]:
    """Proposals by island, as even as they go.

    Example:
        >>> share_out(10, 3)
        [4, 3, 3]
    """
    return [proposals // islands + (index < proposals % islands) for index in range(islands)]


def screen_island(task: IslandTask, report: Callable[[int, float], None] | None = None) -> Island:
    """Evolves one island.

    Args:
        task: What to do.
        report: Is told the number of new proposals and the best fitness now and then.
    """
    stream = (task.index,) if task.index else ()
    searcher = task.searcher(task.space, python_rng(task.seed, 0, *stream), task.start, **task.searcher_options)
    proposer = Proposer(searcher, task.problem)
    costs = task.problem.costs
    proposer.know([Candidate(network, costs(network), {}, fitness) for fitness, network in task.population])
    kept = _kept(task.kept, task.kinds, task.problem)
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    best, seconds, interrupted = -math.inf, 0.0, False
    closed_form, sign = _closed_form(task), task.problem.sign
    trajectory: list[Screened] = []
    every = math.ceil(task.proposals * task.legs / TRAJECTORY)
    reported, next_kept = 0, 0
    try:
        with paused_garbage_collection():
            for (candidate,) in proposer.batches(task.proposals, 1):
                start = perf_counter()
                try:
                    fitness = sign * closed_form(candidate.architecture)
                except ZeroShotNASError as error:
                    failures[str(error)] += 1
                    continue
                counts["screened"] += 1
                scored = candidate.with_fitness(fitness)
                kept.add(fitness, candidate.architecture, candidate.costs)
                if fitness > best or proposer.proposed >= next_kept:
                    trajectory.append(Screened(proposer.proposed, fitness, candidate.costs.to_dict(complete=False)))
                    next_kept = every * (proposer.proposed // every + 1)
                best = max(best, fitness)
                seconds += perf_counter() - start
                proposer.tell([scored])
                if report is not None and proposer.proposed - reported >= _REPORT_EVERY:
                    report(proposer.proposed - reported, best)
                    reported = proposer.proposed
    except KeyboardInterrupt:
        if not counts["screened"]:
            raise
        interrupted = True
    if report is not None:
        report(proposer.proposed - reported, best)
    counts.update({**proposer.counts, "failed": sum(failures.values())})
    times = {**proposer.seconds, "screen": seconds}
    found, way = kept.ranked(), tuple(trajectory)
    members = tuple((each.fitness, each.architecture) for each in searcher.members) if task.legs > 1 else ()
    return Island(found, dict(counts), dict(failures), times, interrupted, way, searcher.certificate, members)


class _Fittest:
    """The fittest networks of an island, of equals the first, and beside them the fittest of each of some kinds."""

    def __init__(self, count: int, kinds: int) -> None:
        self.count, self.kinds = count, kinds
        self._heap: list[_Entry] = []  # the worst first
        self._best_of: dict[Signature, _Entry] = {}
        self._added = 0

    def add(self, fitness: float, architecture: Architecture, _costs: Costs | None = None) -> None:
        self._added += 1
        entry = (fitness, -self._added, architecture)
        (heapq.heappush if len(self._heap) < self.count else heapq.heappushpop)(self._heap, entry)
        if self.kinds:
            kind = signature(architecture)
            self._best_of[kind] = max(entry, self._best_of.get(kind, entry))

    def ranked(self) -> Ranked:
        entries = {*self._heap, *heapq.nlargest(self.kinds, self._best_of.values())}
        return tuple((fitness, architecture) for fitness, _, architecture in sorted(entries, reverse=True))


class _Leading:
    """The networks of an island that no other is better than by the problem's objectives, spread along their front."""

    def __init__(self, count: int, problem: Problem) -> None:
        self.problem = problem
        self._archive: Archive[Candidate] = Archive(count)

    def add(self, fitness: float, architecture: Architecture, costs: Costs | None = None) -> None:
        candidate = Candidate(architecture, costs or self.problem.costs(architecture), {}, fitness)
        self._archive.add(self.problem.point(candidate), candidate)

    def ranked(self) -> Ranked:
        self._archive.thin()
        best_first = sorted(self._archive.items, key=lambda candidate: -candidate.fitness)
        return tuple((candidate.fitness, candidate.architecture) for candidate in best_first)


def _kept(finalists: int, kinds: int, problem: Problem) -> _Fittest | _Leading:
    return _Leading(finalists, problem) if problem.objectives else _Fittest(finalists, kinds)


def _closed_form(task: IslandTask) -> Callable[[Architecture], float]:
    """The closed form, of a space that the island will see most of by pools, which cost a fraction of one by one."""
    if task.closed_form_pool is None or task.space.size() > task.proposals:
        assert task.problem.closed_form is not None, "an island searches by one"
        return task.problem.closed_form
    return _Ahead(task.closed_form_pool, filter(task.problem.fits, task.space.architectures()))


class _Ahead:
    """A closed form that computes, with what it is asked for, what it will be asked for.

    Args:
        closed_form_pool: Computes many side by side.
        others: Architectures that will be asked for.
    """

    def __init__(self, closed_form_pool: ClosedFormPool, others: Iterator[Architecture]) -> None:
        self.closed_form_pool = closed_form_pool
        self.others = others
        self.known: dict[Architecture, float | ZeroShotNASError] = {}

    def __call__(self, architecture: Architecture) -> float:
        if architecture not in self.known:
            others = (other for other in self.others if other not in self.known and other != architecture)
            pool = [architecture, *itertools.islice(others, POOL - 1)]
            self.known.update(zip(pool, self.closed_form_pool(pool), strict=True))
        value = self.known[architecture]
        if isinstance(value, ZeroShotNASError):
            raise value
        return value


def populations(legs: Sequence[Sequence[Island]], problem: Problem) -> list[Ranked]:
    """What each island begins its next leg with: its members, and after them the elites of the island before it.

    Args:
        legs: Of each leg so far its islands.
        problem: What they search for.
    """
    if not legs:
        return []
    elites = [merge(island, ELITES, problem) for island in zip(*legs, strict=True)]
    begun = []
    for index, island in enumerate(legs[-1]):
        known = {network for _, network in island.members}
        begun.append((*island.members, *(each for each in elites[index - 1] if each[1] not in known)))
    return begun


def join_trajectories(islands: Sequence[Island], before: int = 0) -> list[Screened]:
    """The way of all islands one after the other, counted on from the proposals before them."""
    joined = []
    for island in islands:
        joined += [point._replace(proposals=before + point.proposals) for point in island.trajectory]
        before += island.counts["proposed"]
    return joined


def merge(islands: Sequence[Island], finalists: int, problem: Problem, kinds: int = 0) -> Ranked:
    """The best distinct networks of all islands, best first, with the best of so many kinds; of equals the first."""
    kept = _kept(finalists, kinds, problem)
    seen: set[Architecture] = set()
    for island in islands:
        for fitness, architecture in island.kept:
            if architecture not in seen:
                seen.add(architecture)
                kept.add(fitness, architecture)
    return kept.ranked()
