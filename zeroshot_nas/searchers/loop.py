"""The one search loop: budget, duplicates, failures, progress and the clock, for every strategy."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal

from tqdm import tqdm

from zeroshot_nas.architecture import Architecture
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import Costs, complexity
from zeroshot_nas.errors import InfeasibleBudgetError, ProxyError, ZeroShotNASError
from zeroshot_nas.proxies.base import Proxy, ProxyFunction, Score, get_proxy
from zeroshot_nas.proxies.scoring import DEFAULT_BATCH_SIZE, DEFAULT_REPEATS, score
from zeroshot_nas.searchers.base import SEARCHERS, Candidate, Counts, Searcher, SearchResult
from zeroshot_nas.seeding import python_rng
from zeroshot_nas.spaces.base import SearchSpace, get_space

DEFAULT_PROPOSALS = 2_000
"""Networks that a search proposes unless told otherwise."""


def search(
    space: str | SearchSpace,
    proxy: str | Proxy | ProxyFunction = "zen",
    budget: Budget | None = None,
    *,
    input_size: Sequence[int] | None = None,
    num_classes: int | None = None,
    searcher: str | type[Searcher] = "evolution",
    proposals: int = DEFAULT_PROPOSALS,
    seed: int = 0,
    batch_size: int = DEFAULT_BATCH_SIZE,
    repeats: int = DEFAULT_REPEATS,
    device: str | None = None,
    progress: bool = True,
    **searcher_options: Any,
) -> SearchResult:
    """Searches a space for the network with the best score within a budget; trains nothing.

    Args:
        space: A registered space's name, or a `SearchSpace`.
        proxy: What to rank by: a name, a name with options (``"zen:variant=zennas"``) or a function.
        budget: Upper limits; None sets none.
        input_size: Shape ``(C, H, W)`` of one image, for a space given by name; default (3, 32, 32).
        num_classes: Outputs of the classifier, for a space given by name; default 10.
        searcher: A registered strategy's name, or a `Searcher` class.
        proposals: Networks to propose; duplicates and networks over budget count, so a search always ends.
        seed: Seed of the search and of every score in it: ``score`` with this seed gives the history's values.
        batch_size: Gaussian images a repeat, as in `score`.
        repeats: Draws of weights and images a score, as in `score`.
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

    Example:
        >>> from zeroshot_nas import Budget
        >>> result = search("resnet", "zen", Budget(params=1e5, layers=8), input_size=(1, 8, 8), proposals=20,
        ...                 progress=False)
        >>> result.counts.proposed, result.best.costs.params <= 1e5
        (20, True)
    """
    if isinstance(proposals, bool) or not isinstance(proposals, int) or proposals < 1:
        raise ValueError(f"proposals must be a whole number of 1 or more, got {proposals!r}")
    budget = budget or Budget()
    ranked_by = get_proxy(proxy)
    where = _space(space, input_size, num_classes)
    start = _starting_point(where, budget)
    strategy = SEARCHERS[searcher] if isinstance(searcher, str) else searcher
    settings = {
        "space": where.name,
        "input_size": list(where.input_size),
        "num_classes": where.num_classes,
        "proxy": ranked_by.key,
        "budget": budget.limits(),
        "searcher": searcher if isinstance(searcher, str) else searcher.__name__,
        "searcher_options": searcher_options,
        "proposals": proposals,
        "seed": seed,
        "batch_size": batch_size,
        "repeats": repeats,
    }

    def score_one(architecture: Architecture) -> Score:
        return score(architecture, ranked_by, batch_size=batch_size, repeats=repeats, seed=seed, device=device)

    run = _Run(strategy(where, python_rng(seed, 0), start, **searcher_options), budget, ranked_by, score_one)
    state = run.until(proposals, progress)
    return run.result(settings, state)


class _Run:
    """The state of one search."""

    def __init__(
        self, searcher: Searcher, budget: Budget, proxy: Proxy, score_one: Callable[[Architecture], Score]
    ) -> None:
        self.searcher = searcher
        self.budget = budget
        self.proxy = proxy
        self.score_one = score_one
        self.seen: set[Architecture] = set()
        self.history: list[Candidate] = []
        self.best: Candidate | None = None
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def until(self, proposals: int, progress: bool) -> Literal["done", "interrupted"]:
        """Proposes and scores until ``proposals`` are made, or the keyboard interrupts."""
        with tqdm(total=proposals, desc=f"search by {self.proxy.key}", unit="net", disable=not progress) as bar:
            try:
                while self.counts["proposed"] < proposals:
                    with self._timed("propose"):
                        (architecture,) = self.searcher.ask(1)
                    self.counts["proposed"] += 1
                    self._consider(architecture)
                    bar.update()
                    bar.set_postfix_str(self._status(), refresh=False)
            except KeyboardInterrupt:
                if self.best is None:
                    raise
                return "interrupted"
        return "done"

    def _consider(self, architecture: Architecture) -> None:
        """Files one proposal: duplicate, over budget, failed or scored."""
        if architecture in self.seen:
            self.counts["duplicate"] += 1
            return
        self.seen.add(architecture)
        with self._timed("cost"):
            costs = complexity(architecture)
        if self.budget.violations(costs):
            self.counts["over_budget"] += 1
            return
        with self._timed("score"):
            outcome = self._score(architecture)
        self._file(architecture, costs, outcome)

    def _score(self, architecture: Architecture) -> Score:
        try:
            return self.score_one(architecture)
        except ZeroShotNASError as error:  # a state with a reason, counted; it must not end the search
            return Score(self.proxy.key, math.nan, None, 0, 0.0, "failed", str(error))

    def _file(self, architecture: Architecture, costs: Costs, outcome: Score) -> None:
        fitness = self.proxy.sign * outcome.value if outcome.ok else -math.inf
        candidate = Candidate(architecture, costs, {outcome.proxy: outcome}, fitness)
        self.history.append(candidate)
        if not outcome.ok:
            self.counts["failed"] += 1
            self.failures[outcome.reason] += 1
            return
        self.counts["scored"] += 1
        if self.best is None or fitness > self.best.fitness:
            self.best = candidate
        with self._timed("propose"):
            self.searcher.tell([candidate])

    def _status(self) -> str:
        best = "none yet" if self.best is None else f"{self.proxy.sign * self.best.fitness:.5g}"
        counts = self.counts
        text = f"best {best}, over budget {counts['over_budget']}, duplicate {counts['duplicate']}"
        return text + (f", failed {counts['failed']}" if counts["failed"] else "")

    def result(self, settings: dict[str, Any], state: Literal["done", "interrupted"]) -> SearchResult:
        """The search's outcome.

        Raises:
            ProxyError: Nothing was scored.
        """
        if self.best is None and self.failures:
            reason, count = self.failures.most_common(1)[0]
            raise ProxyError(
                f"{self.proxy.key} failed for all {self.counts['failed']} networks that fit the budget; "
                f"{count} times: {reason}"
            )
        if self.best is None:
            raise InfeasibleBudgetError(
                f"none of {self.counts['proposed']} proposed networks fits the budget "
                f"{_limits(self.budget)}; raise a limit or propose more"
            )
        seconds = {name: self.seconds[name] for name in ("propose", "cost", "score")}
        return SearchResult(
            best=self.best,
            history=tuple(self.history),
            counts=Counts(**self.counts),
            failures=dict(self.failures),
            seconds={**seconds, "total": sum(seconds.values())},
            settings=settings,
            state=state,
        )

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - start


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
        if not budget.violations(complexity(architecture)):
            return architecture
    return space.initial()  # each limit alone can be met; whether all can together the search will show


def _limits(budget: Budget) -> str:
    return ", ".join(f"{name} {limit:,.0f}" for name, limit in asdict(budget).items() if limit is not None)
