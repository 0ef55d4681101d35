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
from functools import reduce
from operator import itemgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.garbage import paused_garbage_collection
from zeroshot_nas.core.pareto import Archive
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import FileFormatError, ZeroShotNASError
from zeroshot_nas.scoring.closed_forms import POOL
from zeroshot_nas.searchers.base import Candidate, Problem, Screened, Searcher
from zeroshot_nas.searchers.pool import Pool, fitness_of, joined, networks_of
from zeroshot_nas.searching.proposer import Proposer
from zeroshot_nas.searching.signature import Signature, signature
from zeroshot_nas.spaces.base import SearchSpace

if TYPE_CHECKING:
    from zeroshot_nas.scoring.proxy import ClosedFormPool

Ranked: TypeAlias = tuple[tuple[float, Architecture], ...]
"""Networks with their fitness, the fittest first."""

_Entry: TypeAlias = tuple[float, int, Sequence[Architecture], int]
"""Fitness of a network, its place in the order of arrival, negative, and a pool with its place there."""

_RANK = itemgetter(0, 1)
"""By what entries are compared; no two are the same."""

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
        index: Its number; the first draws what a search without islands would.
        finalists: Networks to keep.
        legs: Legs that an island has in all.
        population: What the strategy is told of before it proposes.
        kinds: Networks to keep beside these, each the best of its kind, no two alike by their `signature`.
        first: Networks that it proposes before its strategy's own.
    """

    space: SearchSpace
    searcher: type[Searcher]
    searcher_options: Mapping[str, Any]
    start: Architecture
    problem: Problem
    seed: int
    index: int
    finalists: int
    legs: int = 1
    population: Ranked = ()
    kinds: int = 0
    first: tuple[Architecture, ...] = ()

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


def screen_islands(tasks: Sequence[IslandTask], report: Callable[[int, float], None] | None = None) -> list[Island]:
    """Evolves islands side by side: what all of them propose at a time is costed and scored at a time.

    Each is what it would be alone.

    Args:
        tasks: What each does; the legs of one search.
        report: Is told the number of new proposals and the best fitness now and then.
    """
    islands = [_Evolving(task) for task in tasks]
    closed_form = _closed_form(tasks[0])
    reported, interrupted = 0, False
    try:
        with paused_garbage_collection():
            while asked := [(island, networks) for island in islands if len(networks := island.ask())]:
                _generation(asked, closed_form)
                proposed = sum(island.proposer.proposed for island in islands)
                if report is not None and proposed - reported >= _REPORT_EVERY:
                    report(proposed - reported, max(island.best for island in islands))
                    reported = proposed
    except KeyboardInterrupt:
        if not any(island.counts["screened"] for island in islands):
            raise
        interrupted = True
    if report is not None:
        proposed = sum(island.proposer.proposed for island in islands)
        report(proposed - reported, max(island.best for island in islands))
    return [island.result(interrupted) for island in islands]


def _generation(
    asked: Sequence[tuple[_Evolving, Sequence[Architecture]]],
    closed_form: Callable[[Sequence[Architecture]], Sequence[float | ZeroShotNASError]],
) -> None:
    """One generation of each island: costs, what is new and fits, scores, and what the strategy learns of them."""
    start = perf_counter()
    pool = Pool.of(reduce(joined, [networks for _, networks in asked]), asked[0][0].task.problem)
    unknown = [
        island.proposer.unknown(pool.digests, places)
        for (island, _), places in zip(asked, _shares([len(networks) for _, networks in asked]), strict=True)
    ]
    new = pool.take([place for places, _ in unknown for place in places]).costed()
    fits, admitted = new.fits(), []
    for (island, _), (_, numbers), share in zip(
        asked, unknown, _shares([len(each) for each, _ in unknown]), strict=True
    ):
        own = slice(share.start, share.stop)
        places, kept = island.proposer.admitted(new.digests[own], fits[own], numbers)
        admitted.append(([share.start + place for place in places], kept))
    costed = perf_counter()
    fit = new.take([place for places, _ in admitted for place in places])
    values = closed_form(fit.networks) if len(fit) else []
    scored, total = perf_counter(), len(pool)
    shares = _shares([len(places) for places, _ in admitted])
    for (island, networks), (_, numbers), share in zip(asked, admitted, shares, strict=True):
        island.learn(fit.take(share), numbers, values[share.start : share.stop])
        island.seconds["cost"] += (costed - start) * len(networks) / total
        island.seconds["screen"] += (scored - costed) * len(networks) / total


def _shares(counts: Sequence[int]) -> list[range]:
    """Places of each of several that stand one behind the other."""
    ends = list(itertools.accumulate(counts))
    return [range(end - count, end) for end, count in zip(ends, counts, strict=True)]


class _Evolving:
    """An island on its way.

    Attributes:
        task: What it does.
        proposer: Its strategy's proposals.
        counts: How many were screened.
        best: The best fitness so far.
        seconds: Wall time by what it went into.
    """

    def __init__(self, task: IslandTask) -> None:
        stream = (task.index,) if task.index else ()
        self.task = task
        rng = python_rng(task.seed, 0, *stream)
        self.searcher = task.searcher(task.space, rng, task.start, **task.searcher_options)
        self.proposer = Proposer(self.searcher, task.problem, task.first)
        fitness, networks = zip(*task.population, strict=True) if task.population else ((), ())
        self.proposer.know(Pool(networks, task.problem, fitness))
        self.counts: Counter[str] = Counter()
        self.seconds = {"cost": 0.0, "screen": 0.0}
        self.best = -math.inf
        self._kept = _kept(task.kept, task.kinds, task.problem)
        self._failures: Counter[str] = Counter()
        self._trajectory: list[Screened] = []
        self._every = math.ceil(task.proposals * task.legs / TRAJECTORY)
        self._next_kept = 0
        self._settled = self.proposer.counts

    def ask(self) -> Sequence[Architecture]:
        """The next generation; none at the end."""
        left = self.task.proposals - self.proposer.proposed
        if not left or self.proposer.exhausted:
            return ()
        return self.proposer.propose(min(self.searcher.generation, left))

    def learn(self, pool: Pool, numbers: Sequence[int], values: Sequence[float | ZeroShotNASError]) -> None:
        """Takes note of new networks, given how many had been proposed at each, and of their scores."""
        start = perf_counter()
        failed = {place for place, value in enumerate(values) if isinstance(value, ZeroShotNASError)}
        self._failures.update(str(values[place]) for place in sorted(failed))
        if failed:
            kept = [place for place in range(len(pool)) if place not in failed]
            pool, numbers, values = pool.take(kept), [numbers[at] for at in kept], [values[at] for at in kept]
        self.counts["screened"] += len(pool)
        scored = pool.scored([self.task.problem.sign * float(value) for value in values])  # type: ignore[arg-type]
        self._kept.add(scored)
        for place, (fitness, number) in enumerate(zip(scored.fitness, numbers, strict=True)):
            if fitness > self.best or number >= self._next_kept:
                self._trajectory.append(Screened(number, fitness, scored.costs_of(place)))
                self._next_kept = self._every * (number // self._every + 1)
                self.best = max(self.best, fitness)
        self.seconds["screen"] += perf_counter() - start
        self.proposer.tell(scored)
        self._settled = self.proposer.counts

    def result(self, interrupted: bool) -> Island:
        """What it found so far."""
        searcher = self.searcher
        of_proposals = self._settled if interrupted else self.proposer.counts  # without a generation that was cut short
        counts = {**self.counts, **of_proposals, "failed": self._failures.total()}
        counts.setdefault("screened", 0)
        told = searcher.members if self.task.legs > 1 else ()
        members = tuple(zip(fitness_of(told), networks_of(told), strict=True))
        seconds = {**self.proposer.seconds, **self.seconds}
        way = tuple(self._trajectory)
        failures = dict(self._failures)
        return Island(self._kept.ranked(), counts, failures, seconds, interrupted, way, searcher.certificate, members)


class _Fittest:
    """The fittest networks of an island, of equals the first, and beside them the fittest of each of some kinds."""

    def __init__(self, count: int, kinds: int) -> None:
        self.count, self.kinds = count, kinds
        self._heap: list[_Entry] = []  # the worst first
        self._best_of: dict[Signature, _Entry] = {}
        self._added = 0

    def add(self, pool: Pool) -> None:
        for place, fitness in enumerate(pool.fitness):
            self._added += 1
            entry = (fitness, -self._added, pool.networks, place)
            if len(self._heap) < self.count:
                heapq.heappush(self._heap, entry)
            elif fitness > self._heap[0][0]:  # of equals the first stays
                heapq.heapreplace(self._heap, entry)
            if self.kinds:
                kind = signature(pool.networks[place])
                self._best_of[kind] = max(entry, self._best_of.get(kind, entry), key=_RANK)

    def ranked(self) -> Ranked:
        entries = {_RANK(entry): entry for entry in (*self._heap, *self._best_kinds())}
        return tuple(
            (fitness, networks[place])
            for fitness, _, networks, place in sorted(entries.values(), key=_RANK, reverse=True)
        )

    def _best_kinds(self) -> list[_Entry]:
        return heapq.nlargest(self.kinds, self._best_of.values(), key=_RANK)


class _Leading:
    """The networks of an island that no other is better than by the problem's objectives, spread along their front."""

    def __init__(self, count: int, problem: Problem) -> None:
        self.problem = problem
        self._archive: Archive[Candidate] = Archive(count)

    def add(self, pool: Pool) -> None:
        for candidate in pool:
            self._archive.add(self.problem.point(candidate), candidate)

    def ranked(self) -> Ranked:
        self._archive.thin()
        best_first = sorted(self._archive.items, key=lambda candidate: -candidate.fitness)
        return tuple((candidate.fitness, candidate.architecture) for candidate in best_first)


def _kept(finalists: int, kinds: int, problem: Problem) -> _Fittest | _Leading:
    return _Leading(finalists, problem) if problem.objectives else _Fittest(finalists, kinds)


def _closed_form(task: IslandTask) -> Callable[[Sequence[Architecture]], Sequence[float | ZeroShotNASError]]:
    """The closed form of pools; of a space that the islands will see most of, with what they will ask for later."""
    problem = task.problem
    if problem.closed_form_pool is None or task.space.size() > task.proposals:
        return problem.values
    ahead = _Ahead(problem.closed_form_pool, filter(problem.fits, task.space.architectures()))
    return lambda networks: [ahead(network) for network in networks]


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

    def __call__(self, architecture: Architecture) -> float | ZeroShotNASError:
        if architecture not in self.known:
            others = (other for other in self.others if other not in self.known and other != architecture)
            pool = [architecture, *itertools.islice(others, POOL - 1)]
            self.known.update(zip(pool, self.closed_form_pool(pool), strict=True))
        return self.known[architecture]


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
    found: dict[Architecture, float] = {}
    for island in islands:
        for fitness, architecture in island.kept:
            found.setdefault(architecture, fitness)
    kept.add(Pool(list(found), problem).scored(list(found.values())))
    return kept.ranked()
