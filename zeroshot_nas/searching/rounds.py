"""What a search consists of: proposals, the islands of its screen, ranking, and what is kept of it."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import chain
from time import perf_counter
from typing import Any, Literal

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.closed_form.block_sum import BlockSum
from zeroshot_nas.core.files import write_text
from zeroshot_nas.core.garbage import paused_garbage_collection
from zeroshot_nas.core.progress import progress_bar
from zeroshot_nas.core.score import Score
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.core.state import RunState
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.reward import RewardedForm
from zeroshot_nas.costs.weight_bits import BitAllocation, StoredForm
from zeroshot_nas.errors import InfeasibleBudgetError, ProxyError
from zeroshot_nas.execution import is_serial, run_all, worker_failed
from zeroshot_nas.latency.device_table import LatencyTable
from zeroshot_nas.runs.evaluate import Job, evaluate
from zeroshot_nas.runs.release import SameRelease
from zeroshot_nas.runs.session import RunSession
from zeroshot_nas.scoring.proxy import Proxy
from zeroshot_nas.searchers.base import Candidate, Counts, Problem, Screened, Searcher, SearchResult
from zeroshot_nas.searchers.front import Objective
from zeroshot_nas.searching.latency_budget import LatencyBudget
from zeroshot_nas.searching.leaderboard import Leaderboard
from zeroshot_nas.searching.proposer import Proposer
from zeroshot_nas.searching.screening import (
    Island,
    IslandTask,
    join_trajectories,
    merge,
    populations,
    screen_islands,
    share_out,
)
from zeroshot_nas.searching.settings import SearchSettings
from zeroshot_nas.searching.start import costs_of, limits_text
from zeroshot_nas.spaces.base import SearchSpace

GENERATION = 8
"""Networks that are scored before the searcher learns of any of them, where no closed form screens.

So many can several workers do at once; it is the same for one, so that results do not depend on their number.
"""

SIDE_BY_SIDE = 4
"""Islands that one process evolves side by side: more save little, and each remembers what it proposed."""

RESULT_FILE = "result.json"
BEST_FILE = "best.json"
FILES = (RESULT_FILE, BEST_FILE)
"""What a finished search leaves, beside its store; the first says that it is finished."""


@dataclass(frozen=True)
class RoundPlan:
    """What every round of a search proposes from; only a latency budget makes for more than one.

    Attributes:
        kinds: Networks that the screen keeps beside the finalists, each the best of its kind.
        first: Networks that are proposed before the strategy's own; islands share them out.
        stored: As of `Problem`.
    """

    space: SearchSpace
    proxy: Proxy
    objectives: tuple[Objective, ...]
    settings: SearchSettings
    start: Architecture
    whole_budget: Budget
    table: LatencyTable | None
    latency: LatencyBudget | None
    has_closed_form: bool
    kinds: int
    first: tuple[Architecture, ...] = ()
    stored: BitAllocation | None = None

    @property
    def proposals(self) -> int:
        assert self.settings.proposals is not None, "filled in when the search began"
        return self.settings.proposals

    @property
    def round(self) -> int:
        return 0 if self.latency is None else len(self.latency.limits_ms) - 1

    @property
    def budget(self) -> Budget:
        """What this round's proposals must keep to."""
        return self.whole_budget if self.latency is None else self.latency.budget(self.whole_budget)

    def proposer(self) -> Proposer:
        """Proposals of a round without a screen."""
        return Proposer(self.searcher(), self.problem, self.first)

    def searcher(self) -> Searcher:
        """The strategy, as it was made; it is told of the problem by what asks it.

        Raises:
            ValueError: One of its options is not usable.
        """
        stream = (self.round,) if self.round else ()
        rng = python_rng(self.settings.seed, 0, *stream)
        return self.settings.strategy(self.space, rng, self.start, **self.settings.searcher_options)

    @property
    def problem(self) -> Problem:
        """What a strategy is told of this round."""
        reward, proxy = self.settings.reward, self.proxy
        latency_ms = None if self.table is None else self.table.latency_ms
        closed_form: Callable[[Architecture], float] | None = None
        if self.has_closed_form:
            closed_form = proxy.bound_closed_form()
            if reward is not None:
                closed_form = RewardedForm(closed_form, proxy.sign, reward, latency_ms)
        key, sign = (proxy.key, proxy.sign) if reward is None else (f"{proxy.key} rewarded by {reward}", 1)
        proposals, objectives = self.settings.proposals, self.objectives
        pool = proxy.bound_closed_form_pool() if self.has_closed_form and reward is None else None
        block_sum, stored = self._block_sum(), self.stored
        if stored is not None:
            closed_form = closed_form and StoredForm(closed_form, stored)
            pool = pool and StoredForm(pool, stored)
        return Problem(self.budget, key, closed_form, sign, latency_ms, proposals, objectives, block_sum, pool, stored)

    def _block_sum(self) -> BlockSum | ProxyError | None:
        if not self.has_closed_form:
            return None
        if self.settings.reward is not None:
            return ProxyError(
                f"{self.proxy.key} rewarded by {self.settings.reward} is no sum over blocks; set a budget in place of "
                "the reward, or take another strategy, as regularized_evolution"
            )
        return self.proxy.block_sum_or_error()

    @property
    def legs(self) -> int:
        """Legs of each island, between which elites travel."""
        return 1 + (self.settings.exchanges or 0)

    def leg(self, before: Sequence[Sequence[Island]]) -> list[IslandTask]:
        """What the islands do next, after the legs before; numbered on from those, and from earlier rounds."""
        settings, islands = self.settings, self.settings.islands
        assert islands is not None, "filled in when the search began"
        problem, begun = self.problem, populations(before, self.problem)
        shares = [share_out(share, self.legs)[len(before)] for share in share_out(self.proposals, islands)]
        return [
            IslandTask(
                self.space,
                settings.strategy,
                dict(settings.searcher_options),
                self.start,
                replace(problem, proposals=share),
                settings.seed,
                (self.round * self.legs + len(before)) * islands + index,
                settings.finalists,
                self.legs,
                begun[index] if begun else (),
                self.kinds,
                () if before else self.first[index::islands],
            )
            for index, share in enumerate(shares)
        ]


class SearchSession(RunSession):
    """A search's stores."""

    def islands(self) -> dict[int, Island]:
        """Legs of islands that were finished before, by their numbers."""
        return {body["index"]: Island.from_dict(body["island"]) for body in self.journal("island")}

    def keep_island(self, index: int, island: Island) -> None:
        """Notes that an island's leg is finished."""
        if self.store is not None:
            self.log("island", {"index": index, "island": island.to_dict()})

    def finish(self, result: SearchResult) -> None:
        """Writes the result's files."""
        best = result.best
        costs = {name: value for name, value in best.costs.to_dict().items() if value is not None}
        values = {key: score.value for key, score in best.scores.items()}
        about = {"state": result.state, "architecture": best.string or best.architecture.to_json()}
        self.hooks.will_end({**values, **costs, **vars(result.counts)}, about)
        if self.folder is None:
            return
        write_text(self.folder / BEST_FILE, json.dumps(result.best.to_dict(), indent=1))
        write_text(self.folder / RESULT_FILE, result.to_json())
        self.log(result.state, {"counts": vars(result.counts)})


class Search:
    """The state of one search.

    Args:
        space: Where it searches.
        proxy: What to rank by.
        settings: How to search, and how exactly to score.
        executor: What scores.
        session: The run's stores.
        progress: Whether to show a bar.

    Attributes:
        board: What has been scored.
        counts: What became of the proposals.
        trajectory: The way of the screen.
        certificate: What the strategy proved.
        seconds: Wall time by what it went into.
    """

    def __init__(
        self,
        space: SearchSpace,
        proxy: Proxy,
        settings: SearchSettings,
        executor: Executor,
        session: SearchSession,
        progress: bool,
    ) -> None:
        self.space = space
        self.proxy = proxy
        self.settings = settings
        self.executor = executor
        self.session = session
        self.progress = progress
        self.board = Leaderboard(proxy, settings.reward)
        self.counts: Counter[str] = Counter()
        self.trajectory: list[Screened] = []
        self.certificate: Mapping[str, Any] | None = None
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def evaluate(self, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Scores candidates and enters them in the leaderboard, in order, each as soon as its score is there."""
        for candidate, (scores, known) in zip(
            candidates, self._scores(candidates, self.settings.at_first), strict=True
        ):
            scored = self.board.add(candidate, scores)
            self._tell("score", len(self.board.history), scored, known)
            yield scored

    def learn(self, proposer: Proposer, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Scores candidates and tells the searcher of those that have a score; all of them, in order."""
        scored = list(self.evaluate(candidates))
        if self.proxy.info.parts:
            scored = self.board.join()[len(self.board.history) - len(scored) :]
        proposer.tell([candidate for candidate in scored if math.isfinite(candidate.fitness)])
        return scored

    def enter(self, proposer: Proposer, candidate: Candidate, scores: Mapping[str, Score], known: bool) -> Candidate:
        """Enters a candidate with scores that are the caller's, and tells the searcher."""
        scored = self.board.add(candidate, scores)
        self._tell("score", len(self.board.history), scored, known)
        proposer.tell([scored])
        return scored

    def score_all(self, plan: RoundPlan) -> RunState:
        """Every proposal that fits is scored by the proxy, and the searcher learns from that."""
        proposer, proposals = plan.proposer(), plan.proposals
        noted = 0
        state: RunState = "done"
        with self._bar("search", proposals) as bar:
            try:
                for candidates in proposer.batches(proposals, GENERATION):
                    self.learn(proposer, candidates)
                    bar.update(proposer.proposed - bar.n)
                    self.session.note_progress(proposer.proposed - noted, self.proxy.sign * self.board.best_fitness)
                    noted = proposer.proposed
                    bar.set_postfix_str(self._status(self.board.best_fitness), refresh=False)
                bar.update(proposer.proposed - bar.n)
                self.separate_leaders()
            except KeyboardInterrupt:
                if not math.isfinite(self.board.best_fitness):
                    raise
                state = "interrupted"
        self.counts.update(proposer.counts)
        self._add_seconds(proposer.seconds)
        self.certificate = proposer.searcher.certificate or self.certificate
        return state

    def screen(self, plan: RoundPlan) -> RunState:
        """The closed form guides the search, the proxy ranks the finalists."""
        kept = len(self.session.islands()) if self.session.hooks else 0
        screened, finished = self._islands(plan)
        way = join_trajectories(screened, self.counts["proposed"])
        self.trajectory += way
        self._tell_screen(way, known=kept >= (plan.round + 1) * plan.legs * (self.settings.islands or 1))
        for island in screened:
            self.certificate = island.certificate or self.certificate
            self.counts.update({name: count for name, count in island.counts.items() if name != "failed"})
            self.board.failures.update(island.failures)
            self._add_seconds(island.seconds)
        ranked_before = {candidate.architecture for candidate in self.board.history}
        merged = merge(screened, self.settings.finalists, plan.problem, plan.kinds)
        finalists = [(fitness, plan.stored(each) if plan.stored else each) for fitness, each in merged]
        candidates = [
            Candidate(
                architecture, costs_of(architecture, plan.table), self._closed_form(architecture, fitness), fitness
            )
            for fitness, architecture in finalists
            if architecture not in ranked_before
        ]
        if not finished:
            self.board.history += candidates
            return "interrupted"
        return self._rank(candidates)

    def measured(self, budget: LatencyBudget, state: RunState) -> tuple[Candidate | None, RunState]:
        """The fittest network so far that keeps to a latency budget, and whether the search was stopped meanwhile."""
        start = perf_counter()
        try:
            return budget.first_within(self.board.history), state
        except KeyboardInterrupt:
            return budget.first_within(self.board.history, measures=False), "interrupted"
        finally:
            self.seconds["measure"] += perf_counter() - start

    def ranked_with(self, others: Sequence[Candidate]) -> list[Candidate]:
        """The history and behind it other networks, scored and ranked as one pool; the history stays what it is."""
        pool = Leaderboard(self.proxy, self.settings.reward)
        pool.history = list(self.board.history)
        for candidate, (scores, _) in zip(others, self._scores(others, self.settings.at_first), strict=True):
            pool.add(candidate, scores)
        return pool.join() if self.proxy.info.parts else pool.history

    def separate_leaders(self) -> None:
        """Repeats the scores of the leaders until they are told apart, or as certain as asked."""
        if self.proxy.info.parts or not self.proxy.info.needs_weights or self.settings.repeats < 2:
            return
        leaders = self.board.leaders()
        again = self._scores([self.board.history[place] for place in leaders], self.settings.of_leaders)
        with self._bar("repeating the leaders", len(leaders)) as bar:
            for place, (scores, known) in zip(leaders, again, strict=True):
                self.board.rescore(place, scores)
                self._tell("leader", place + 1, self.board.history[place], known)
                bar.update()

    def refuse_if_empty(self, budget: Budget) -> None:
        """Says why there is no network to choose from, where there is none.

        Raises:
            ProxyError: Every score failed.
            InfeasibleBudgetError: Nothing fitted the budget.
        """
        if math.isfinite(self.board.best_fitness):
            return
        if failures := self.board.failures:
            reason, count = failures.most_common(1)[0]
            raise ProxyError(
                f"{self.proxy.key} failed for all {failures.total()} networks that fit the budget; "
                f"{count} times: {reason}"
            )
        raise InfeasibleBudgetError(
            f"none of {self.counts['proposed']:,} proposed networks fits the budget "
            f"{limits_text(budget)}; raise a limit or propose more"
        )

    def result(self, settings: dict[str, Any], state: RunState) -> SearchResult:
        """The search's outcome."""
        names = ("propose", "cost", "screen", "rank", *(name for name in ("measure",) if name in self.seconds))
        seconds = {name: self.seconds[name] for name in names}
        board = self.board
        result = SearchResult(
            best=board.best,
            history=tuple(board.history),
            counts=Counts(**self.counts, ranked=board.ranked, failed=board.failures.total()),
            failures=dict(board.failures),
            seconds={**seconds, "total": sum(seconds.values())},
            settings=settings,
            state=state,
            trajectory=tuple(self.trajectory),
            certificate=self.certificate,
        )
        if "objectives" not in settings:
            return result
        return replace(result, best=max(result.front, key=lambda candidate: candidate.fitness))

    def _islands(self, plan: RoundPlan) -> tuple[list[Island], bool]:
        """The legs of all islands, in order, and whether all are there; those up to an interruption."""
        kept = self.session.islands()
        legs: list[list[Island]] = []
        interrupted = False
        with paused_garbage_collection(), self._bar("screening", plan.proposals) as bar:  # once for all legs
            while len(legs) < plan.legs and not interrupted:
                tasks = plan.leg(legs)
                done = {task.index: kept[task.index] for task in tasks if task.index in kept}
                bar.update(sum(task.proposals for task in tasks if task.index in done))
                try:
                    for task, island in self._screened([task for task in tasks if task.index not in done], bar):
                        done[task.index] = island
                        if interrupted := island.interrupted:
                            break
                        self.session.keep_island(task.index, island)
                except KeyboardInterrupt:
                    if not done and not legs:
                        raise
                    interrupted = True
                legs.append([done[index] for index in sorted(done)])
        return list(chain.from_iterable(legs)), not interrupted

    def _screened(self, tasks: Sequence[IslandTask], bar: Any) -> Iterator[tuple[IslandTask, Island]]:
        if is_serial(self.executor):  # here the bar can move within an island

            def report(proposed: int, best: float) -> None:
                bar.update(proposed)
                self.session.note_progress(proposed, self.proxy.sign * best)
                bar.set_postfix_str(self._status(best), refresh=False)

            for group in _groups(tasks, SIDE_BY_SIDE):
                yield from zip(group, screen_islands(group, report), strict=True)
            return
        workers = getattr(self.executor, "workers", len(tasks))
        groups = _groups(tasks, min(SIDE_BY_SIDE, max(1, len(tasks) // workers)))
        outcomes = run_all(self.executor, SameRelease(screen_islands), [(group,) for group in groups])
        for group, outcome in zip(groups, outcomes, strict=True):
            bar.update(sum(task.proposals for task in group))
            if outcome.error is not None and not worker_failed(outcome.error):
                raise outcome.error
            # where workers do not survive it, this process does it: an island is light, and its result is the same
            yield from zip(group, outcome.value or screen_islands(group), strict=True)

    def _rank(self, finalists: list[Candidate]) -> RunState:
        ranked_before = len(self.board.history)
        with self._bar("ranking", len(finalists)) as bar:
            try:
                for _ in self.evaluate(finalists):
                    bar.update()
                    bar.set_postfix_str(self._status(self.board.best_fitness), refresh=False)
                self.separate_leaders()
            except KeyboardInterrupt:
                if not math.isfinite(self.board.best_fitness):
                    self.board.history += finalists[len(self.board.history) - ranked_before :]
                return "interrupted"
        return "done"

    def _scores(
        self, candidates: Sequence[Candidate], settings: Mapping[str, Any]
    ) -> Iterator[tuple[dict[str, Score], bool]]:
        """The candidates' scores by proxy key, in order, and whether an earlier process of the run had them."""
        jobs = [Job(candidate.architecture, self.board.parts, self.settings.seed, settings) for candidate in candidates]
        known = self.session.known(jobs)
        start = perf_counter()
        for scores, was_known in zip(evaluate(jobs, self.executor, self.session.stores), known, strict=True):
            self.seconds["rank"] += perf_counter() - start
            yield scores, was_known
            start = perf_counter()

    def _tell(self, kind: Literal["score", "leader"], step: int, candidate: Candidate, known: bool) -> None:
        """Tells callbacks of a candidate that was scored."""
        if not self.session.hooks:
            return
        best = self.board.best_fitness
        sign = self.proxy.sign if self.settings.reward is None else 1
        values = {key: score.value for key, score in candidate.scores.items() if score.ok}
        values |= {"best": sign * best} if math.isfinite(best) else {}
        costs = {name: value for name, value in candidate.costs.to_dict().items() if value is not None}
        about = {"architecture": self.space.text(candidate.architecture)}
        self.session.hooks.tell(kind, step, {**values, **costs}, about, known=known)

    def _tell_screen(self, way: Sequence[Screened], *, known: bool) -> None:
        """Tells callbacks of the networks on the way of a screen, whose islands may have run anywhere, in order."""
        best = -math.inf
        for point in way if self.session.hooks else ():
            best = max(best, point.fitness)
            values = {"closed form": self.proxy.sign * point.fitness, "best": self.proxy.sign * best}
            self.session.hooks.tell("screen", point.proposals, {**values, **point.costs}, known=known)

    def _closed_form(self, architecture: Architecture, fitness: float) -> dict[str, Score]:
        """The closed form among a finalist's scores."""
        if not self.proxy.info.needs_weights:
            return {}
        rewarded = self.settings.reward is not None
        value = self.proxy.closed_form(architecture) if rewarded else self.proxy.sign * fitness
        key = f"{self.proxy.key} in closed form"
        return {key: Score(key, value, 0.0, 1, 0.0)}

    def _add_seconds(self, seconds: Mapping[str, float]) -> None:
        for name, value in seconds.items():
            self.seconds[name] += value

    def _bar(self, what: str, total: int) -> Any:
        return progress_bar(what=f"{what} by {self.proxy.key}", unit="net", shown=self.progress, total=total)

    def _status(self, best: float) -> str:
        text = f"best {self.proxy.sign * best:.5g}" if math.isfinite(best) else "best none yet"
        failed = self.board.failures.total()
        return text + (f", failed {failed}" if failed else "")


def _groups(tasks: Sequence[IslandTask], size: int) -> list[Sequence[IslandTask]]:
    return [tasks[first : first + size] for first in range(0, len(tasks), size)]
