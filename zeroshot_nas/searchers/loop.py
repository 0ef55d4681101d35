"""The one search loop: tiers, executors, the run's store, failures, progress and the clock, for every strategy."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from zeroshot_nas.architecture import Architecture
from zeroshot_nas.book import Book
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import Costs, complexity
from zeroshot_nas.costs.latency import LatencyTable
from zeroshot_nas.errors import (
    InfeasibleBudgetError,
    ProxyError,
    ZeroShotNASError,
)
from zeroshot_nas.execution import get_executor, is_serial, run_all, worker_failed
from zeroshot_nas.files import write_text
from zeroshot_nas.proxies.base import Proxy, ProxyFunction, Score, get_proxy
from zeroshot_nas.proxies.pool import aggregate_scores
from zeroshot_nas.proxies.scoring import score
from zeroshot_nas.searchers.base import SEARCHERS, Candidate, Counts, Searcher, SearchResult
from zeroshot_nas.searchers.deadline import Deadline, LatencyWarning, deadline_of, doubts
from zeroshot_nas.searchers.proposer import Proposer
from zeroshot_nas.searchers.screening import Island, IslandTask, merge, screen_island, share_out
from zeroshot_nas.seeding import python_rng
from zeroshot_nas.spaces.base import SearchSpace, get_space
from zeroshot_nas.store import ScoreKey, canonical

DEFAULT_PROPOSALS = 2_000
"""Networks that a search proposes where each is scored by a forward pass."""

DEFAULT_SCREENED_PROPOSALS = 100_000
"""Networks that a search proposes where a closed form screens them."""

ISLAND_PROPOSALS = 160_000
"""Proposals of one island unless their number is given."""

DEFAULT_FINALISTS = 200
"""Networks that pass the screen."""

DEFAULT_REPEATS = 2
"""Draws a network gets at first; the leaders get more until they are told apart."""

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


class DepthWarning(UserWarning):
    """A search by a score that grows with depth has no limit on depth."""


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


def search(
    space: str | SearchSpace,
    proxy: str | Proxy | ProxyFunction = "cet",
    budget: Budget | None = None,
    *,
    input_size: Sequence[int] | None = None,
    num_classes: int | None = None,
    searcher: str | type[Searcher] = "regularized_evolution",
    proposals: int | None = None,
    screen: Literal["closed_form"] | None = "closed_form",
    finalists: int = DEFAULT_FINALISTS,
    islands: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    repeats: int = DEFAULT_REPEATS,
    standard_error: float = 0.15,
    max_repeats: int = 64,
    device: str | None = None,
    backend: str = "onnxruntime",
    device_table: LatencyTable | str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    cache: str | Path | None = None,
    executor: str | Executor = "serial",
    workers: int | None = None,
    time_limit: float | None = None,
    progress: bool = True,
    **searcher_options: Any,
) -> SearchResult:
    """Searches a space for the network with the best score within a budget; trains nothing.

    A proxy with a closed form is searched in two tiers: the closed form guides the search and keeps the ``finalists``
    best networks, then the forward pass ranks these, and only that decides. A proxy without one, or without one for
    this space, is computed for every network, and one that is nothing but a closed form needs no second tier. An
    aggregate such as ``"az_nas"`` ranks a network among all that were scored before it, and in the end among all.

    The result is a function of these arguments alone: it does not depend on the executor, on the number of workers, or
    on how often a run was killed and resumed (wall times do, and failures of workers).

    A budget with ``latency_ms`` is kept by a device table's prediction while networks are proposed; then finalists are
    measured whole on this machine, best first, and the first within the budget wins. If none of
    `zeroshot_nas.searchers.deadline.MEASURED_A_ROUND` is, the prediction's limit is divided by the ratio of measured to
    predicted, and the search goes on; no network over its budget is ever returned. Measurements differ from run to run:
    such a search is a function of its arguments, the table, and what was measured, which the run's store keeps.

    Args:
        space: A registered space's name, or a `SearchSpace`.
        proxy: What to rank by: a name, a name with options (``"zen:variant=zennas"``) or a function. The default
            needs no limit on depth, and its winners train at least as well as those of ``"zen"`` and run faster
            (``benchmarks/found_vs_hand.py``).
        budget: Upper limits on costs and shape; None sets none.
        input_size: Shape ``(C, H, W)`` of one image, for a space given by name; default (3, 32, 32).
        num_classes: Outputs of the classifier, for a space given by name; default 10.
        searcher: A registered strategy's name, or a `Searcher` class.
        proposals: Networks to propose; duplicates and networks over budget count, so a search always ends. Default:
            `DEFAULT_SCREENED_PROPOSALS` where a closed form screens, else `DEFAULT_PROPOSALS`.
        screen: ``"closed_form"``, or None to score every network by the forward pass.
        finalists: Networks that pass the screen.
        islands: Searches by closed form that share the proposals, each for itself; several workers run several at
            once. Default: one for each `ISLAND_PROPOSALS`.
        seed: Seed of the search and of every score in it: ``score`` with this seed and a history entry's repeats gives
            its value.
        batch_size: Gaussian images a repeat, as in `score`.
        repeats: Draws of weights and images a score has at first.
        standard_error: Standard error to which the leaders' scores are repeated before the best of them wins; leaders
            are those within two standard errors of the best, `LEADERS` at most.
        max_repeats: Where that stops at the latest.
        device: Where to score.
        backend: Engine whose table of this machine predicts latency, where the budget limits it.
        device_table: Another table, or its file: of more threads, say, or of a device that is not here, where latency
            can only be predicted.
        out: Folder for the run: its store, ``result.json`` and ``best.json``. What is in the store is never lost.
        resume: Go on with the run in ``out``; its settings must be these.
        cache: A store of scores that several runs share.
        executor: ``"serial"``, ``"process"``, ``"dask"``, or any ``concurrent.futures.Executor``.
        workers: How many, for an executor given by name; default: all cores.
        time_limit: Seconds that a worker process may take for one score (or one island) before it is killed.
        progress: Whether to show a bar with the best score, the rate and the rejections.
        searcher_options: Options of the strategy, e.g. ``population_size``.

    Returns:
        The best candidate, the history, and what became of every proposal. Stopped by Ctrl-C it returns what it has, in
        state ``"interrupted"``.

    Raises:
        InfeasibleBudgetError: No network of the space fits the budget.
        UnknownNameError: A name that is not registered.
        ProxyError: The proxy is not usable, or failed for every network.
        LatencyError: There is no device table for this machine, or it is another machine's.
        OutputExistsError: ``out`` holds a run, and ``resume`` is not set.
        SettingsChangedError: The run to resume has other settings.
        StoreError: The store can't be read or written; what was in it is intact.

    Warns:
        DepthWarning: The proxy grows with depth, and the budget limits neither layers nor shape.
        LatencyWarning: The device table is of another device, space or input size, or its networks were all faster.

    Example:
        >>> result = search("resnet", budget=Budget(params=1e5), input_size=(1, 8, 8), proposals=300, finalists=5,
        ...                 progress=False)
        >>> result.counts.proposed, result.counts.ranked, result.best.costs.params <= 1e5
        (300, 5, True)
    """
    ranked_by = get_proxy(proxy)
    budget = budget or Budget()
    where = _space(space, input_size, num_classes)
    deadline = deadline_of(budget, where, device_table, backend)
    start = _starting_point(where, budget, deadline)
    closed_form_only = _is_exact(ranked_by)
    screened = closed_form_only or (screen is not None and _has_closed_form(ranked_by, start))
    proposals = proposals if proposals is not None else DEFAULT_SCREENED_PROPOSALS if screened else DEFAULT_PROPOSALS
    islands = islands if islands is not None else max(1, round(proposals / ISLAND_PROPOSALS)) if screened else 1
    for name, value in (("proposals", proposals), ("finalists", finalists), ("islands", islands)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")
    if islands > proposals:
        raise ValueError(f"islands must be at most the proposals, {proposals:,}, got {islands:,}")
    if resume and out is None:
        raise ValueError("resume needs out, the folder of the run to go on with")
    strategy = SEARCHERS[searcher] if isinstance(searcher, str) else searcher
    strategy(where, python_rng(seed, 0), start, **searcher_options)  # refuses bad options before anything is written
    precision = Precision(batch_size, repeats, standard_error, max_repeats)
    settings = {
        "space": where.name,
        "input_size": list(where.input_size),
        "num_classes": where.num_classes,
        "proxy": ranked_by.key,
        "budget": {**budget.limits(), **({"shape": budget.shape.limits()} if budget.shape else {})},
        "searcher": searcher if isinstance(searcher, str) else searcher.__name__,
        "searcher_options": searcher_options,
        "proposals": proposals,
        "screen": "closed_form" if screened else None,
        "finalists": finalists if screened else None,
        "islands": islands if screened else None,
        "seed": seed,
        **vars(precision),
        **({"device_table": deadline.table.digest} if deadline else {}),
    }
    _warn_of_depth(ranked_by, budget, where)
    for doubt in doubts(deadline, where) if deadline else ():
        warnings.warn(doubt, LatencyWarning, stacklevel=2)
    with ExitStack() as stack:
        book = _Book(stack, out, cache, "search", settings, resume, RESULT_FILE)
        workforce = stack.enter_context(get_executor(executor, workers=workers, time_limit=time_limit))
        run = _Run(ranked_by, precision, seed, device, workforce, book, progress)
        if deadline is not None:
            book.follow(deadline)
        plan = _Plan(where, strategy, searcher_options, start, budget, deadline, proposals)
        while True:
            state = run.screen(plan, islands, finalists) if screened else run.score_all(plan)
            run.refuse_if_empty(budget)
            if deadline is None:
                break
            winner, state = run.measured(deadline, state)
            if winner is not None:
                break
            if state == "interrupted":
                raise InfeasibleBudgetError(f"stopped before any network was measured within {deadline.limit_ms:g} ms")
            deadline.tighten()
            plan = replace(plan, start=_restart(where, budget, deadline))
        result = run.result(settings, state)
        if deadline is not None:
            assert winner is not None, "the loop ends with one"
            result = replace(result, best=winner, latency=deadline.outcome(winner))
        book.finish(result)
    return result


@dataclass(frozen=True)
class _Plan:
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


class _Book(Book):
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


class _Job(NamedTuple):
    """Scores of one network to be computed, with what a worker needs for it."""

    architecture: Architecture
    proxies: tuple[Proxy, ...]
    seed: int
    settings: dict[str, Any]

    @property
    def keys(self) -> list[ScoreKey]:
        settings, architecture = canonical(self.settings), self.architecture.key
        return [ScoreKey(architecture, proxy.key, settings, self.seed) for proxy in self.proxies]


def compute(job: _Job) -> list[Score]:
    """A job's scores; a failure is a state with a reason."""
    return list(score(job.architecture, job.proxies, seed=job.seed, **job.settings).values())


class _Run:
    """The state of one search."""

    def __init__(
        self,
        proxy: Proxy,
        precision: Precision,
        seed: int,
        device: str | None,
        executor: Executor,
        book: _Book,
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

    def score_all(self, plan: _Plan) -> Literal["done", "interrupted"]:
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

    def screen(self, plan: _Plan, islands: int, finalists: int) -> Literal["done", "interrupted"]:
        """The closed form guides the search, the proxy ranks the finalists."""
        tasks = plan.islands(self.proxy, self.seed, islands, finalists)
        found = self._islands(tasks)
        for island in found:
            self.counts.update(island.counts)
            self.failures.update(island.failures)
            self._add_seconds(island.seconds)
        ranked_before = {candidate.architecture for candidate in self.history}
        candidates = [
            Candidate(architecture, _costs(architecture, plan.table), self._closed_form(fitness), fitness)
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
        if _is_exact(self.proxy) or self.proxy.info.parts or self.precision.repeats < 2:
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
        jobs = [_Job(each.architecture, self.parts, self.seed, settings) for each in candidates]
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
        if _is_exact(self.proxy):
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
            f"{_limits(budget)}; raise a limit or propose more"
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


def _costs(architecture: Architecture, table: LatencyTable | None) -> Costs:
    costs = complexity(architecture)
    return costs if table is None else costs.with_latency(table.latency_ms(architecture))


def _is_exact(proxy: Proxy) -> bool:
    """Whether the closed form is the score itself, so that there is nothing else to rank by."""
    return not proxy.info.parts and (proxy.info.function is None or proxy.info.exact)


def _has_closed_form(proxy: Proxy, start: Architecture) -> bool:
    """Whether the proxy has a closed form for this space's kind of network."""
    if proxy.info.closed_form is None:
        return False
    try:
        proxy.closed_form(start)
    except ZeroShotNASError:
        return False  # a graph, say: the forward pass scores it
    return True


def _warn_of_depth(proxy: Proxy, budget: Budget, space: SearchSpace) -> None:
    limited = budget.layers is not None or (budget.shape is not None and budget.shape.limits())
    if proxy.info.grows_with_depth and not limited and math.isinf(space.size()):
        warnings.warn(
            f"{proxy.key} grows without limit in depth, and the budget bounds neither layers nor shape: "
            "the winner will be as deep and thin as the other limits allow",
            DepthWarning,
            stacklevel=3,
        )


def _space(space: str | SearchSpace, input_size: Sequence[int] | None, num_classes: int | None) -> SearchSpace:
    if isinstance(space, str):
        return get_space(space, input_size=input_size or (3, 32, 32), num_classes=num_classes or 10)
    for name, given, has in (
        ("input_size", input_size and tuple(input_size), space.input_size),
        ("num_classes", num_classes, space.num_classes),
    ):
        if given is not None and given != has:
            raise ValueError(f"the space has {name} {has}, got {given}; make the space with the one you want")
    return space


_CANDIDATES = 300
"""Random networks of a finite space among which the fastest to start from is looked for."""


def _starting_point(space: SearchSpace, budget: Budget, deadline: Deadline | None) -> Architecture:
    """A network within the budget: the space's initial one, or the cheapest by some cost.

    Raises:
        InfeasibleBudgetError: Even the network of least cost is over a limit.
    """
    table = None if deadline is None else deadline.table
    cheapest = {name: space.smallest(name) for name in budget.limits() if name != "latency_ms"}
    if table is not None:  # no space knows its fastest network on a device; it is one of these, or near
        candidates = [space.smallest(name) for name in ("params", "flops", "layers", "activations")]
        if space.size() < math.inf:  # cells differ in what a device prunes more than in anything that is counted
            rng = python_rng(0)
            candidates += [space.sample(rng) for _ in range(_CANDIDATES)]
        cheapest["latency_ms"] = min(candidates, key=table.latency_ms)
    for name, architecture in cheapest.items():
        for violation in budget.violations(_costs(architecture, table)):
            if violation.cost == name:
                raise InfeasibleBudgetError(
                    f"no network of the space {space.name!r} fits: the smallest has {_number(violation.value)} {name}; "
                    f"the budget is {_number(violation.limit)}. Raise it, or use a smaller input"
                )
    for architecture in (space.initial(), *cheapest.values()):
        if not budget.violations(_costs(architecture, table), architecture):
            return architecture
    return space.initial()  # each limit alone can be met; whether all can together the search will show


def _restart(space: SearchSpace, budget: Budget, deadline: Deadline) -> Architecture:
    """A network within the budget whose limit on latency was tightened."""
    try:
        return _starting_point(space, deadline.budget(budget), deadline)
    except InfeasibleBudgetError as error:
        raise deadline.given_up() from error


def _limits(budget: Budget) -> str:
    return ", ".join(f"{name} {_number(limit)}" for name, limit in budget.limits().items())


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
