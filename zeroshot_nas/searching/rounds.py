"""What a search consists of: proposals, the islands of its screen, ranking, and what is kept of it."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.files import write_text
from zeroshot_nas.core.score import Score
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.errors import InfeasibleBudgetError, ProxyError
from zeroshot_nas.execution import is_serial, run_all, worker_failed
from zeroshot_nas.latency.device_table import LatencyTable
from zeroshot_nas.runs.session import Book
from zeroshot_nas.runs.store import ScoreKey, canonical
from zeroshot_nas.scoring.engine import score
from zeroshot_nas.scoring.pool import aggregate_scores
from zeroshot_nas.scoring.proxy import Proxy, get_proxy
from zeroshot_nas.searchers.base import Candidate, Counts, Searcher, SearchResult
from zeroshot_nas.searching.latency_budget import Deadline
from zeroshot_nas.searching.proposer import Proposer
from zeroshot_nas.searching.screening import Island, IslandTask, merge, screen_island, share_out
from zeroshot_nas.searching.start import costs_of, limits_text
from zeroshot_nas.spaces.base import SearchSpace

GENERATION = 8
"""Networks that are scored before the searcher learns of any of them, where no closed form screens.

So many can several workers do at once; it is the same for one, so that results do not depend on their number.
"""

LEADERS = 16
"""How many networks at most get more repeats than the rest."""

LEADER_REPEATS = 8
"""Repeats that a leader gets at least: the standard error of fewer is itself a guess."""

RESULT_FILE = "result.json"
BEST_FILE = "best.json"


@dataclass(frozen=True)
class Precision:
    """How exactly networks are scored.

    Attributes:
        batch_size: Gaussian images a repeat; None is the proxy's own.
        repeats: Draws of weights and images a score.
        standard_error: What the leaders' scores are repeated to reach, so that the winner is told from the next.
        max_repeats: Where that stops at the latest.
    """

    batch_size: int | None
    repeats: int
    standard_error: float
    max_repeats: int


@dataclass(frozen=True)
class Plan:
    """What every round of a search proposes from; only a latency budget makes for more than one."""

    space: SearchSpace
    strategy: type[Searcher]
    options: dict[str, Any]
    start: Architecture
    whole_budget: Budget
    deadline: Deadline | None
    proposals: int

    @property
    def round(self) -> int:
        return 0 if self.deadline is None else len(self.deadline.limits_ms) - 1

    @property
    def budget(self) -> Budget:
        """What this round's proposals must keep to."""
        return self.whole_budget if self.deadline is None else self.deadline.budget(self.whole_budget)

    @property
    def table(self) -> LatencyTable | None:
        return None if self.deadline is None else self.deadline.table

    def proposer(self, seed: int) -> Proposer:
        """Proposals of a round without a screen."""
        stream = (self.round,) if self.round else ()
        searcher = self.strategy(self.space, python_rng(seed, 0, *stream), self.start, **self.options)
        return Proposer(searcher, self.budget, None if self.table is None else self.table.latency_ms)

    def islands(self, proxy: Proxy, seed: int, islands: int, finalists: int) -> list[IslandTask]:
        """Islands of a round with a screen, numbered on from those before."""
        return [
            IslandTask(
                self.space,
                self.strategy,
                self.options,
                self.start,
                self.budget,
                proxy.bound_closed_form(),
                proxy.sign,
                seed,
                self.round * islands + index,
                share,
                finalists,
                self.table,
            )
            for index, share in enumerate(share_out(self.proposals, islands))
        ]


class SearchBook(Book):
    """A search's stores."""

    def scores(self, keys: Sequence[ScoreKey]) -> list[Score] | None:
        """Scores that are known, if all are."""
        known = [found for key in keys if (found := self.score(key)) is not None]
        return known if len(known) == len(keys) else None

    def islands(self) -> dict[int, Island]:
        """Islands that were finished before."""
        if self.run is None:
            return {}
        entries = (entry.body for entry in self.run.journal("island"))
        return {body["index"]: Island.from_dict(body["island"]) for body in entries}

    def keep_island(self, index: int, island: Island) -> None:
        """Notes that an island is finished."""
        if self.run is not None:
            self.run.log("island", {"index": index, "island": island.to_dict()})

    def follow(self, deadline: Deadline) -> None:
        """Gives a deadline what was measured before, and keeps what it measures from now on."""
        if self.run is not None:
            deadline.remember([entry.body for entry in self.run.journal("latency")])
            deadline.keep = partial(self.run.log, "latency")

    def finish(self, result: SearchResult) -> None:
        """Writes the result's files."""
        if self.run is None or self.folder is None:
            return
        write_text(self.folder / BEST_FILE, json.dumps(result.best.to_dict(), indent=1))
        write_text(self.folder / RESULT_FILE, result.to_json())
        self.run.log(result.state, {"counts": vars(result.counts)})


class Job(NamedTuple):
    """Scores of one network to be computed, with what a worker needs for it."""

    architecture: Architecture
    proxies: tuple[Proxy, ...]
    seed: int
    settings: dict[str, Any]

    @property
    def keys(self) -> list[ScoreKey]:
        settings, architecture = canonical(self.settings), self.architecture.key
        return [ScoreKey(architecture, proxy.key, settings, self.seed) for proxy in self.proxies]


def compute(job: Job) -> list[Score]:
    """A job's scores; a failure is a state with a reason."""
    return list(score(job.architecture, job.proxies, seed=job.seed, **job.settings).values())


class Run:
    """The state of one search."""

    def __init__(
        self,
        proxy: Proxy,
        precision: Precision,
        seed: int,
        device: str | None,
        executor: Executor,
        book: SearchBook,
        progress: bool,
    ) -> None:
        self.proxy = proxy
        self.parts = tuple(get_proxy(part) for part in proxy.info.parts) or (proxy,)
        self.precision = precision
        self.seed = seed
        self.device = device
        self.executor = executor
        self.book = book
        self.progress = progress
        self.history: list[Candidate] = []
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @property
    def best(self) -> float:
        return max((each.fitness for each in self.history), default=-math.inf)

    def score_all(self, plan: Plan) -> Literal["done", "interrupted"]:
        """Every proposal that fits is scored by the proxy, and the searcher learns from that."""
        proposer, proposals = plan.proposer(self.seed), plan.proposals
        state: Literal["done", "interrupted"] = "done"
        with self._bar("search", proposals) as bar:
            try:
                for candidates in proposer.batches(proposals, GENERATION):
                    scored = []
                    for each in self._ranked(candidates):
                        self.history.append(each)
                        scored.append(each)
                    if self.proxy.info.parts:
                        self._join()
                        scored = self.history[-len(scored) :]
                    proposer.tell([each for each in scored if math.isfinite(each.fitness)])
                    bar.update(proposer.proposed - bar.n)
                    bar.set_postfix_str(self._status(self.best), refresh=False)
                bar.update(proposer.proposed - bar.n)
                self._separate_leaders()
            except KeyboardInterrupt:
                if not math.isfinite(self.best):
                    raise
                state = "interrupted"
        self.counts.update(proposer.counts)
        self._add_seconds(proposer.seconds)
        return state

    def screen(self, plan: Plan, islands: int, finalists: int) -> Literal["done", "interrupted"]:
        """The closed form guides the search, the proxy ranks the finalists."""
        tasks = plan.islands(self.proxy, self.seed, islands, finalists)
        found = self._islands(tasks)
        for island in found:
            self.counts.update(island.counts)
            self.failures.update(island.failures)
            self._add_seconds(island.seconds)
        ranked_before = {candidate.architecture for candidate in self.history}
        candidates = [
            Candidate(architecture, costs_of(architecture, plan.table), self._closed_form(fitness), fitness)
            for fitness, architecture in merge(found, finalists)
            if architecture not in ranked_before
        ]
        if any(island.interrupted for island in found) or len(found) < len(tasks):
            self.history += candidates
            return "interrupted"
        return self._rank(candidates)

    def _islands(self, tasks: Sequence[IslandTask]) -> list[Island]:
        """What the islands found, in order; those up to an interruption."""
        kept = self.book.islands()
        known = {task.index: kept[task.index] for task in tasks if task.index in kept}
        missing = [task for task in tasks if task.index not in known]
        found = dict(known)
        with self._bar("screening", sum(task.proposals for task in tasks)) as bar:
            bar.update(sum(task.proposals for task in tasks if task.index in known))
            try:
                for task, island in self._screened(missing, bar):
                    found[task.index] = island
                    if island.interrupted:
                        break
                    self.book.keep_island(task.index, island)
            except KeyboardInterrupt:
                if not found:
                    raise
        return [found[index] for index in sorted(found)]

    def _screened(self, tasks: Sequence[IslandTask], bar: Any) -> Iterator[tuple[IslandTask, Island]]:
        if is_serial(self.executor):  # here the bar can move within an island

            def report(proposed: int, best: float) -> None:
                bar.update(proposed)
                bar.set_postfix_str(self._status(best), refresh=False)

            for task in tasks:
                yield task, screen_island(task, report)
            return
        outcomes = run_all(self.executor, screen_island, [(task,) for task in tasks])
        for task, outcome in zip(tasks, outcomes, strict=True):
            bar.update(task.proposals)
            if outcome.error is not None and not worker_failed(outcome.error):
                raise outcome.error
            # where workers do not survive it, this process does it: an island is light, and its result is the same
            yield task, outcome.value or screen_island(task)

    def measured(
        self, deadline: Deadline, state: Literal["done", "interrupted"]
    ) -> tuple[Candidate | None, Literal["done", "interrupted"]]:
        """The fittest network so far that keeps to a latency budget, and whether the search was stopped meanwhile."""
        start = perf_counter()
        try:
            return deadline.first_within(self.history), state
        except KeyboardInterrupt:
            return deadline.first_within(self.history, measures=False), "interrupted"
        finally:
            self.seconds["measure"] += perf_counter() - start

    def _rank(self, finalists: list[Candidate]) -> Literal["done", "interrupted"]:
        ranked_before = len(self.history)
        with self._bar("ranking", len(finalists)) as bar:
            try:
                for each in self._ranked(finalists):
                    self.history.append(each)
                    bar.update()
                    bar.set_postfix_str(self._status(self.best), refresh=False)
                self._separate_leaders()
            except KeyboardInterrupt:
                if not math.isfinite(self.best):
                    self.history += finalists[len(self.history) - ranked_before :]
                return "interrupted"
        return "done"

    def _separate_leaders(self) -> None:
        """Repeats the scores of the leaders until they are told apart, or as certain as asked."""
        if is_exact(self.proxy) or self.proxy.info.parts or self.precision.repeats < 2:
            return
        errors = [each.scores[self.proxy.key].standard_error or 0.0 for each in self.history]
        pooled = math.sqrt(
            sum(error**2 for error in errors) / max(1, len(errors))
        )  # of few repeats each alone says little
        order = sorted(range(len(self.history)), key=lambda index: self.history[index].fitness, reverse=True)
        threshold = self.history[order[0]].fitness - 4 * pooled if order else math.inf
        leaders = [index for index in order[:LEADERS] if self.history[index].fitness >= threshold]
        again = self._ranked([self.history[index] for index in leaders], leads=True)
        for index, candidate in zip(leaders, again, strict=True):
            self.history[index] = candidate

    def _ranked(self, candidates: Sequence[Candidate], leads: bool = False) -> Iterator[Candidate]:
        """The candidates with their scores by the proxy, in order; a failure is a state with a reason, and counted."""
        precision = self.precision
        settings = {
            "batch_size": precision.batch_size,
            "repeats": max(precision.repeats, LEADER_REPEATS) if leads else precision.repeats,
            "standard_error": precision.standard_error if leads else None,
            "max_repeats": precision.max_repeats,
            "device": self.device,
        }
        jobs = [Job(each.architecture, self.parts, self.seed, settings) for each in candidates]
        known = [self.book.scores(job.keys) for job in jobs] if self.book.stores else [None] * len(jobs)
        missing = [(job,) for job, found in zip(jobs, known, strict=True) if found is None]
        computed = run_all(self.executor, compute, missing)
        start = perf_counter()
        for candidate, job, found in zip(candidates, jobs, known, strict=True):
            outcome = found
            if outcome is None:
                answer = next(computed)
                outcome = answer.value if answer.value is not None else self._lost(answer.error)
                if answer.ok and self.book.stores:
                    self.book.keep([candidate.architecture], list(zip(job.keys, outcome, strict=True)))
            self.seconds["rank"] += perf_counter() - start
            yield self._with_scores(candidate, outcome)
            start = perf_counter()

    def _lost(self, error: BaseException | None) -> list[Score]:
        """The scores of a candidate that its workers did not survive; what is no worker's failure is raised."""
        assert error is not None, "a task without a value has an error"
        if not worker_failed(error):
            raise error
        return [Score(part.key, math.nan, None, 0, 0.0, "failed", str(error)) for part in self.parts]

    def _with_scores(self, candidate: Candidate, outcome: Sequence[Score]) -> Candidate:
        """The candidate with its scores, and the fitness where it is that of one proxy."""
        first = self.proxy.key not in candidate.scores and self.parts[0].key not in candidate.scores
        self.counts["ranked"] += first and any(each.ok for each in outcome)
        for each in outcome:
            if not each.ok:
                self.counts["failed"] += 1
                self.failures[each.reason] += 1
        scores = {each.proxy: each for each in outcome}
        others = {key: each for key, each in candidate.scores.items() if key not in scores}
        alone = outcome[0].ok and not self.proxy.info.parts
        fitness = self.proxy.sign * outcome[0].value if alone else -math.inf
        return replace(candidate, scores={**scores, **others}, fitness=fitness)

    def _join(self) -> None:
        """Gives every candidate so far its aggregate among all of them."""
        key = self.proxy.key
        joined = aggregate_scores(self.proxy, [each.scores for each in self.history])
        for index, (candidate, outcome) in enumerate(zip(self.history, joined, strict=True)):
            others = {name: each for name, each in candidate.scores.items() if name != key}
            fitness = outcome.value if outcome.ok else -math.inf
            self.history[index] = replace(candidate, scores={key: outcome, **others}, fitness=fitness)

    def _closed_form(self, fitness: float) -> dict[str, Score]:
        """The closed form among a finalist's scores."""
        if is_exact(self.proxy):
            return {}
        key = f"{self.proxy.key} in closed form"
        return {key: Score(key, self.proxy.sign * fitness, 0.0, 1, 0.0)}

    def _add_seconds(self, seconds: Any) -> None:
        for name, value in seconds.items():
            self.seconds[name] += value

    def _bar(self, what: str, total: int) -> Any:
        return tqdm(total=total, desc=f"{what} by {self.proxy.key}", unit="net", disable=not self.progress)

    def _status(self, best: float) -> str:
        text = f"best {self.proxy.sign * best:.5g}" if math.isfinite(best) else "best none yet"
        return text + (f", failed {self.counts['failed']}" if self.counts["failed"] else "")

    def refuse_if_empty(self, budget: Budget) -> None:
        """Says why there is no network to choose from, where there is none.

        Raises:
            ProxyError: Every score failed.
            InfeasibleBudgetError: Nothing fitted the budget.
        """
        if any(math.isfinite(candidate.fitness) for candidate in self.history):
            return
        if self.failures:
            reason, count = self.failures.most_common(1)[0]
            raise ProxyError(
                f"{self.proxy.key} failed for all {self.counts['failed']} networks that fit the budget; "
                f"{count} times: {reason}"
            )
        raise InfeasibleBudgetError(
            f"none of {self.counts['proposed']:,} proposed networks fits the budget "
            f"{limits_text(budget)}; raise a limit or propose more"
        )

    def result(self, settings: dict[str, Any], state: Literal["done", "interrupted"]) -> SearchResult:
        """The search's outcome."""
        names = ("propose", "cost", "screen", "rank", *(name for name in ("measure",) if name in self.seconds))
        seconds = {name: self.seconds[name] for name in names}
        return SearchResult(
            best=max(self.history, key=lambda candidate: candidate.fitness),
            history=tuple(self.history),
            counts=Counts(**self.counts),
            failures=dict(self.failures),
            seconds={**seconds, "total": sum(seconds.values())},
            settings=settings,
            state=state,
        )


def is_exact(proxy: Proxy) -> bool:
    """Whether the closed form is the score itself, so that there is nothing else to rank by."""
    return not proxy.info.parts and (proxy.info.function is None or proxy.info.exact)
