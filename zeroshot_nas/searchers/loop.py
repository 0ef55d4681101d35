"""The one search loop: budget, duplicates, screening, failures, progress and the clock, for every strategy."""

from __future__ import annotations

import gc
import heapq
import math
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from tqdm import tqdm

from zeroshot_nas.architecture import Architecture
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import InfeasibleBudgetError, ProxyError, ZeroShotNASError
from zeroshot_nas.proxies.base import Proxy, ProxyFunction, Score, get_proxy, pool_only
from zeroshot_nas.proxies.scoring import score
from zeroshot_nas.searchers.base import SEARCHERS, Candidate, Counts, Searcher, SearchResult
from zeroshot_nas.seeding import python_rng
from zeroshot_nas.spaces.base import SearchSpace, get_space

DEFAULT_PROPOSALS = 2_000
"""Networks that a search proposes where each is scored by a forward pass."""

DEFAULT_SCREENED_PROPOSALS = 100_000
"""Networks that a search proposes where a closed form screens them."""

DEFAULT_FINALISTS = 200
"""Networks that pass the screen."""

DEFAULT_REPEATS = 2
"""Draws a network gets at first; the leaders get more until they are told apart."""

LEADERS = 16
"""How many networks at most get more repeats than the rest."""

LEADER_REPEATS = 8
"""Repeats that a leader gets at least: the standard error of fewer is itself a guess."""

_REPORT_EVERY = 256


class DepthWarning(UserWarning):
    """A search by a score that grows with depth has no limit on depth."""


@dataclass(frozen=True)
class Precision:
    """How exactly networks are scored.

    Attributes:
        batch_size: Gaussian images a repeat.
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
    proxy: str | Proxy | ProxyFunction = "zen",
    budget: Budget | None = None,
    *,
    input_size: Sequence[int] | None = None,
    num_classes: int | None = None,
    searcher: str | type[Searcher] = "regularized_evolution",
    proposals: int | None = None,
    screen: Literal["closed_form"] | None = "closed_form",
    finalists: int = DEFAULT_FINALISTS,
    seed: int = 0,
    batch_size: int | None = None,
    repeats: int = DEFAULT_REPEATS,
    standard_error: float = 0.15,
    max_repeats: int = 64,
    device: str | None = None,
    progress: bool = True,
    **searcher_options: Any,
) -> SearchResult:
    """Searches a space for the network with the best score within a budget; trains nothing.

    A proxy with a closed form is searched in two tiers: the closed form guides the search and keeps the ``finalists``
    best networks, then the forward pass ranks these, and only that decides. A proxy without one is computed for every
    network, and one that is nothing but a closed form needs no second tier.

    Args:
        space: A registered space's name, or a `SearchSpace`.
        proxy: What to rank by: a name, a name with options (``"zen:variant=zennas"``) or a function.
        budget: Upper limits on costs and shape; None sets none.
        input_size: Shape ``(C, H, W)`` of one image, for a space given by name; default (3, 32, 32).
        num_classes: Outputs of the classifier, for a space given by name; default 10.
        searcher: A registered strategy's name, or a `Searcher` class.
        proposals: Networks to propose; duplicates and networks over budget count, so a search always ends. Default:
            `DEFAULT_SCREENED_PROPOSALS` where a closed form screens, else `DEFAULT_PROPOSALS`.
        screen: ``"closed_form"``, or None to score every network by the forward pass.
        finalists: Networks that pass the screen.
        seed: Seed of the search and of every score in it: ``score`` with this seed and a history entry's repeats gives
            its value.
        batch_size: Gaussian images a repeat, as in `score`.
        repeats: Draws of weights and images a score has at first.
        standard_error: Standard error to which the leaders' scores are repeated before the best of them wins; leaders
            are those within two standard errors of the best, `LEADERS` at most.
        max_repeats: Where that stops at the latest.
        device: Where to score.
        progress: Whether to show a bar with the best score, the rate and the rejections.
        searcher_options: Options of the strategy, e.g. ``population_size``.

    Returns:
        The best candidate, the history, and what became of every proposal. Stopped by Ctrl-C it returns what it has, in
        state ``"interrupted"``.

    Raises:
        InfeasibleBudgetError: No network of the space fits the budget.
        UnknownNameError: A name that is not registered.
        ProxyError: The proxy is not usable, or failed for every network.

    Warns:
        DepthWarning: The proxy grows with depth, and the budget limits neither layers nor shape.

    Example:
        >>> result = search("resnet", "zen", Budget(params=1e5, layers=8), input_size=(1, 8, 8), proposals=300,
        ...                 finalists=5, progress=False)
        >>> result.counts.proposed, result.counts.ranked, result.best.costs.params <= 1e5
        (300, 5, True)
    """
    ranked_by = get_proxy(proxy)
    if ranked_by.info.parts:
        raise pool_only(ranked_by.info)
    closed_form_only = ranked_by.info.function is None
    screened = ranked_by.info.closed_form is not None and (screen is not None or closed_form_only)
    proposals = proposals if proposals is not None else DEFAULT_SCREENED_PROPOSALS if screened else DEFAULT_PROPOSALS
    for name, value in (("proposals", proposals), ("finalists", finalists)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")
    budget = budget or Budget()
    where = _space(space, input_size, num_classes)
    strategy = SEARCHERS[searcher] if isinstance(searcher, str) else searcher
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
        "seed": seed,
        **vars(precision),
    }
    start = _starting_point(where, budget)
    _warn_of_depth(ranked_by, budget)
    run = _Run(
        strategy(where, python_rng(seed, 0), start, **searcher_options), budget, ranked_by, precision, seed, device
    )
    state = run.screen(proposals, finalists, progress) if screened else run.score_all(proposals, progress)
    return run.result(settings, state)


class _Run:
    """The state of one search."""

    def __init__(
        self,
        searcher: Searcher,
        budget: Budget,
        proxy: Proxy,
        precision: Precision,
        seed: int,
        device: str | None,
    ) -> None:
        self.searcher = searcher
        self.budget = budget
        self.proxy = proxy
        self.precision = precision
        self.seed = seed
        self.device = device
        self.seen: set[int] = set()
        self.history: list[Candidate] = []
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def score_all(self, proposals: int, progress: bool) -> Literal["done", "interrupted"]:
        """Every proposal that fits is scored by the proxy, and the searcher learns from that."""
        best = -math.inf
        with self._bar("search", proposals, progress) as bar:
            try:
                for candidate in self._proposals(proposals, bar):
                    scored = self._ranked(candidate)
                    self.history.append(scored)
                    if math.isfinite(scored.fitness):
                        best = max(best, scored.fitness)
                        self._tell(scored)
                    bar.set_postfix_str(self._status(best), refresh=False)
                self._separate_leaders()
            except KeyboardInterrupt:
                if not math.isfinite(best):
                    raise
                return "interrupted"
        return "done"

    def screen(self, proposals: int, finalists: int, progress: bool) -> Literal["done", "interrupted"]:
        """The closed form guides the search, the proxy ranks the finalists."""
        kept: list[tuple[float, int, Candidate]] = []  # a heap, the worst finalist first
        try:
            with self._bar("screening", proposals, progress) as bar, _paused_garbage_collection():
                for candidate in self._proposals(proposals, bar):
                    screened = self._screened(candidate)
                    if screened is None:
                        continue
                    entry = (screened.fitness, -self.counts["screened"], screened)
                    (heapq.heappush if len(kept) < finalists else heapq.heappushpop)(kept, entry)
                    self._tell(screened)
                    if self.counts["screened"] % _REPORT_EVERY == 0:
                        bar.set_postfix_str(self._status(max(kept)[0]), refresh=False)
        except KeyboardInterrupt:
            if not kept:
                raise
            self.history = [self._with_closed_form(candidate) for _, _, candidate in sorted(kept, reverse=True)]
            return "interrupted"
        return self._rank([candidate for _, _, candidate in sorted(kept, reverse=True)], progress)

    def _rank(self, finalists: list[Candidate], progress: bool) -> Literal["done", "interrupted"]:
        with self._bar("ranking", len(finalists), progress) as bar:
            try:
                for candidate in finalists:
                    self.history.append(self._ranked(self._with_closed_form(candidate)))
                    bar.update()
                    bar.set_postfix_str(self._status(max(each.fitness for each in self.history)), refresh=False)
                self._separate_leaders()
            except KeyboardInterrupt:
                if not any(math.isfinite(each.fitness) for each in self.history):
                    self.history += [self._with_closed_form(candidate) for candidate in finalists]
                return "interrupted"
        return "done"

    def _separate_leaders(self) -> None:
        """Repeats the scores of the leaders until they are told apart, or as certain as asked."""
        if self.proxy.info.function is None or self.precision.repeats < 2:
            return
        errors = [each.scores[self.proxy.key].standard_error or 0.0 for each in self.history]
        pooled = math.sqrt(
            sum(error**2 for error in errors) / max(1, len(errors))
        )  # of few repeats each alone says little
        order = sorted(range(len(self.history)), key=lambda index: self.history[index].fitness, reverse=True)
        for index in order[:LEADERS]:
            if self.history[index].fitness + 4 * pooled >= self.history[order[0]].fitness:
                self.history[index] = self._ranked(self.history[index], leads=True)

    def _proposals(self, proposals: int, bar: Any) -> Iterator[Candidate]:
        """Candidates within the budget that were not seen before, until so many are proposed."""
        ask, seen, clock = self.searcher.ask, self.seen, time.perf_counter
        max_layers = self.budget.layers if self.budget.layers is not None else math.inf
        proposed = duplicate = over_budget = 0
        propose_seconds = cost_seconds = 0.0
        try:
            while proposed < proposals:
                start = clock()
                (architecture,) = ask(1)
                asked = clock()
                proposed += 1
                if proposed % _REPORT_EVERY == 0:
                    bar.update(_REPORT_EVERY)
                propose_seconds += asked - start
                if architecture.layers > max_layers:  # known before any cost
                    over_budget += 1
                    continue
                costs = complexity(architecture)
                fits = not self.budget.violations(costs, architecture)
                digest = hash(architecture)  # 64 bits of numbers alone: no chance of a collision in a search
                new = fits and digest not in seen
                cost_seconds += clock() - asked
                if not fits:
                    over_budget += 1
                elif not new:
                    duplicate += 1
                else:
                    seen.add(digest)
                    yield Candidate(architecture, costs, {}, -math.inf)
        finally:
            bar.update(proposed % _REPORT_EVERY)
            self.counts.update(proposed=proposed, duplicate=duplicate, over_budget=over_budget)
            self.seconds["propose"] += propose_seconds
            self.seconds["cost"] += cost_seconds

    def _screened(self, candidate: Candidate) -> Candidate | None:
        """The candidate with its closed form as fitness; None, and a counted failure, where it has none."""
        start = time.perf_counter()
        try:
            fitness = self.proxy.sign * self.proxy.closed_form(candidate.architecture)
        except ZeroShotNASError as error:
            self._fail(str(error))
            return None
        self.counts["screened"] += 1
        self.seconds["screen"] += time.perf_counter() - start
        return Candidate(candidate.architecture, candidate.costs, {}, fitness)

    def _ranked(self, candidate: Candidate, leads: bool = False) -> Candidate:
        """The candidate with its score by the proxy; a failure is a state with a reason, and counted."""
        start = time.perf_counter()
        repeats = self.precision.repeats
        first = self.proxy.key not in candidate.scores
        try:
            outcome = score(
                candidate.architecture,
                self.proxy,
                batch_size=self.precision.batch_size,
                repeats=max(repeats, LEADER_REPEATS) if leads else repeats,
                standard_error=self.precision.standard_error if leads else None,
                max_repeats=self.precision.max_repeats,
                seed=self.seed,
                device=self.device,
            )
        except ZeroShotNASError as error:
            outcome = Score(self.proxy.key, math.nan, None, 0, 0.0, "failed", str(error))
        self.seconds["rank"] += time.perf_counter() - start
        if first and outcome.ok:
            self.counts["ranked"] += 1
        elif not outcome.ok:
            self._fail(outcome.reason)
        fitness = self.proxy.sign * outcome.value if outcome.ok else -math.inf
        return replace(candidate, scores={self.proxy.key: outcome, **_others(candidate, outcome)}, fitness=fitness)

    def _with_closed_form(self, candidate: Candidate) -> Candidate:
        """The candidate with the closed form among its scores."""
        if self.proxy.info.function is None:
            return candidate
        value = self.proxy.sign * candidate.fitness
        key = f"{self.proxy.key} in closed form"
        return replace(candidate, scores={key: Score(key, value, 0.0, 1, 0.0)})

    def _tell(self, candidate: Candidate) -> None:
        start = time.perf_counter()
        self.searcher.tell([candidate])
        self.seconds["propose"] += time.perf_counter() - start

    def _fail(self, reason: str) -> None:
        self.counts["failed"] += 1
        self.failures[reason] += 1

    def _bar(self, what: str, total: int, progress: bool) -> Any:
        return tqdm(total=total, desc=f"{what} by {self.proxy.key}", unit="net", disable=not progress)

    def _status(self, best: float) -> str:
        text = f"best {self.proxy.sign * best:.5g}" if math.isfinite(best) else "best none yet"
        return text + (f", failed {self.counts['failed']}" if self.counts["failed"] else "")

    def result(self, settings: dict[str, Any], state: Literal["done", "interrupted"]) -> SearchResult:
        """The search's outcome.

        Raises:
            ProxyError: Every score failed.
            InfeasibleBudgetError: Nothing fitted the budget.
        """
        alive = [candidate for candidate in self.history if math.isfinite(candidate.fitness)]
        if not alive and self.failures:
            reason, count = self.failures.most_common(1)[0]
            raise ProxyError(
                f"{self.proxy.key} failed for all {self.counts['failed']} networks that fit the budget; "
                f"{count} times: {reason}"
            )
        if not alive:
            raise InfeasibleBudgetError(
                f"none of {self.counts['proposed']:,} proposed networks fits the budget "
                f"{_limits(self.budget)}; raise a limit or propose more"
            )
        seconds = {name: self.seconds[name] for name in ("propose", "cost", "screen", "rank")}
        return SearchResult(
            best=max(alive, key=lambda candidate: candidate.fitness),
            history=tuple(self.history),
            counts=Counts(**self.counts),
            failures=dict(self.failures),
            seconds={**seconds, "total": sum(seconds.values())},
            settings=settings,
            state=state,
        )


def _others(candidate: Candidate, outcome: Score) -> dict[str, Score]:
    return {key: each for key, each in candidate.scores.items() if key != outcome.proxy}


@contextmanager
def _paused_garbage_collection() -> Iterator[None]:
    """A search makes millions of small tuples and no cycles; looking for cycles would take half of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _warn_of_depth(proxy: Proxy, budget: Budget) -> None:
    if proxy.info.grows_with_depth and budget.layers is None and (budget.shape is None or not budget.shape.limits()):
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


def _starting_point(space: SearchSpace, budget: Budget) -> Architecture:
    """A network within the budget: the space's initial one, or the cheapest by some cost.

    Raises:
        InfeasibleBudgetError: Even the network of least cost is over a limit.
    """
    cheapest = {name: space.smallest(name) for name in budget.limits()}
    for name, architecture in cheapest.items():
        for violation in budget.violations(complexity(architecture)):
            if violation.cost == name:
                raise InfeasibleBudgetError(
                    f"no network of the space {space.name!r} fits: the smallest has {violation.value:,} {name}; "
                    f"the budget is {violation.limit:,.0f}. Raise it, or use a smaller input"
                )
    for architecture in (space.initial(), *cheapest.values()):
        if not budget.violations(complexity(architecture), architecture):
            return architecture
    return space.initial()  # each limit alone can be met; whether all can together the search will show


def _limits(budget: Budget) -> str:
    return ", ".join(f"{name} {limit:,.0f}" for name, limit in budget.limits().items())
