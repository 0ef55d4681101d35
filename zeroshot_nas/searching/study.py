"""`Study`: a search that its caller drives, by ask and tell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture, HasArchitecture, architecture_of
from zeroshot_nas.core.score import Score
from zeroshot_nas.costs.budget import Budget, Violation
from zeroshot_nas.costs.complexity import Costs
from zeroshot_nas.errors import ArchitectureError, ObjectiveError, ProxyError
from zeroshot_nas.latency.device_table import LatencyTable
from zeroshot_nas.runs.options import RunOptions
from zeroshot_nas.runs.store import ScoreKey, canonical
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY, Proxy, ProxyFunction
from zeroshot_nas.scoring.told import TOLD
from zeroshot_nas.searchers.base import Candidate, Counts, SearchResult
from zeroshot_nas.searching.request import request
from zeroshot_nas.searching.rounds import FILES, Search, SearchSession
from zeroshot_nas.searching.settings import SearchSettings
from zeroshot_nas.spaces.base import SearchSpace

PATIENCE = 10_000
"""Proposals in a row that bring nothing new before `Study.ask` gives what it has."""

_OF_SEARCHES = ("proposals", "screen", "finalists", "islands", "exchanges")
"""Settings that a study has no use for: its caller decides how many networks there are."""


class Study:
    """A search whose loop is the caller's: a notebook's, Optuna's, one that measures on a phone.

    It keeps what `zeroshot_nas.search` keeps: the budget, that no network comes twice, scores by any executor, the
    run's store, and what leads. Networks come from its own strategy (`ask`) or from the caller (`admit`); they are
    scored by the proxy (`evaluate`) or by the caller (`tell`). The strategy learns from either.

    The same calls give the same result. With ``out`` every score is kept as it is there: a program that was stopped is
    begun again with ``resume=True``, asks for the same networks, and gets known scores from the store.

    Args:
        space: A registered space's name, or a `SearchSpace`; default:
            `zeroshot_nas.spaces.base.default_space`, by the size of images.
        proxy: What `evaluate` ranks by; None for a fitness that only the caller knows, and tells.
        budget: Upper limits on costs and structure; a limit on latency is kept by a device table's prediction.
        settings: Strategy, seed, and how exactly to score; see `SearchSettings`. Those of a screen and the number of
            proposals have no use here.
        run: Where the run is written and by what it is computed; see `RunOptions`.
        input_size: Shape ``(C, H, W)`` of one image, for a space given by name; default (3, 32, 32).
        num_classes: Outputs of the classifier, for a space given by name; default 10.
        backend: Engine whose table of this machine predicts latency, where the budget limits it.
        device_table: Another table, or its file.
        options: Settings, run options and options of the strategy one by one, as in `zeroshot_nas.search`. Objectives
            name costs, and the proxy where they like; ``result().front`` is of them.

    Raises:
        InfeasibleBudgetError: No network of the space fits the budget.
        UnknownNameError: A name that is not registered.
        OutputExistsError: ``out`` holds a run, and ``resume`` is not set.
        SettingsChangedError: The run to resume has other settings.
        TypeError: An option that a study has no use for.

    Example:
        A random search, written by hand; ``ask`` would let the strategy propose.

        >>> import random
        >>> rng, space = random.Random(0), "resnet"
        >>> with Study(space, "cet", Budget(params=1e5), input_size=(1, 8, 8), seed=0) as study:
        ...     while study.counts.proposed < 64:
        ...         candidates = study.admit([study.space.sample(rng) for _ in range(8)])
        ...         scored = study.evaluate(candidates)
        >>> study.best.costs.params <= 1e5, study.counts.ranked == len(study.history)
        (True, True)

        A fitness of the caller's own: here the fewest FLOPs.

        >>> with Study(space, None, Budget(params=1e5), input_size=(1, 8, 8)) as study:
        ...     for candidate in study.ask(5):
        ...         told = study.tell(candidate, -candidate.costs.flops)
        >>> study.best.costs.flops == min(candidate.costs.flops for candidate in study.history)
        True
    """

    def __init__(
        self,
        space: str | SearchSpace | None = None,
        proxy: str | Proxy | ProxyFunction | None = DEFAULT_SEARCH_PROXY,
        budget: Budget | None = None,
        settings: SearchSettings | None = None,
        run: RunOptions | None = None,
        *,
        input_size: Sequence[int] | None = None,
        num_classes: int | None = None,
        backend: str = "onnxruntime",
        device_table: LatencyTable | str | Path | None = None,
        **options: Any,
    ) -> None:
        _refuse_settings_of_searches(settings, options)
        self._asked = asked = request(
            space,
            TOLD if proxy is None else proxy,
            budget,
            settings,
            run,
            input_size=input_size,
            num_classes=num_classes,
            backend=backend,
            device_table=device_table,
            options=options,
            screens=False,
        )
        self._tells = proxy is None
        if self._tells and asked.settings.reward is not None:
            raise ObjectiveError("a reward is made of a proxy's score; of a fitness of your own tell the reward itself")
        self._proposer = asked.plan(asked.start).proposer()
        with ExitStack() as stack:
            call = {**asked.call, "proxy": TOLD.key} if proxy is None else asked.call
            session = SearchSession(
                stack, asked.run, "study", asked.filed_under, FILES, {"call": call, "sign": asked.proxy.sign}
            )
            if asked.latency:
                asked.latency.follow(session)
            executor = stack.enter_context(asked.run.open_executor())
            self._search = Search(asked.space, asked.proxy, asked.settings, executor, session, progress=False)
            self._stack = stack.pop_all()

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the run's store and its workers; what was scored stays readable."""
        self._stack.close()

    @property
    def space(self) -> SearchSpace:
        """Where it searches."""
        return self._asked.space

    @property
    def budget(self) -> Budget:
        """What candidates keep to."""
        return self._proposer.problem.budget

    @property
    def history(self) -> tuple[Candidate, ...]:
        """Every candidate that was scored or told, in order, failed ones included."""
        return tuple(self._search.board.history)

    @property
    def best(self) -> Candidate | None:
        """The fittest candidate so far, the first of equals; None before any has a score."""
        board = self._search.board
        return board.best if math.isfinite(board.best_fitness) else None

    @property
    def counts(self) -> Counts:
        """What became of the proposals so far, the strategy's and the caller's."""
        board = self._search.board
        return Counts(**self._proposer.counts, ranked=board.ranked, failed=board.failures.total())

    def costs(self, network: Architecture | HasArchitecture | str) -> Costs:
        """What a network costs, latency included where the budget limits it."""
        return self._proposer.problem.costs(self._architecture(network))

    def violations(self, network: Architecture | HasArchitecture | str) -> tuple[Violation, ...]:
        """Every limit of the budget that a network exceeds."""
        architecture = self._architecture(network)
        return self.budget.violations(self.costs(architecture), architecture)

    def ask(self, n: int = 1) -> list[Candidate]:
        """New networks within the budget, proposed by the strategy.

        Args:
            n: How many; fewer come where `PATIENCE` proposals in a row brought none, as in a small space, or the
                strategy has no more.

        Returns:
            Candidates without a score. One whose fitness an earlier process of this run was told comes with it.
        """
        candidates: list[Candidate] = []
        in_vain = 0
        while len(candidates) < n and in_vain < PATIENCE and not self._proposer.exhausted:
            asked = min(n - len(candidates), PATIENCE // 10)
            admitted = self._proposer.ask(asked)
            in_vain = 0 if admitted else in_vain + asked
            candidates += admitted
        return [self._remembered(candidate) for candidate in candidates]

    def admit(self, networks: Sequence[Architecture | HasArchitecture | str]) -> list[Candidate]:
        """Those of the caller's networks that keep to the budget and did not come before, as candidates.

        Args:
            networks: Architectures, or their strings in the space's notation.

        Raises:
            ArchitectureError: One of them is none, or is not in the space.
        """
        admitted = self._proposer.admit([self._architecture(network) for network in networks])
        return [self._remembered(candidate) for candidate in admitted]

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Scores candidates by the proxy, or looks their scores up, and lets the strategy learn from them.

        An aggregate such as ``"az_nas"`` ranks each among all that were scored so far.

        Returns:
            The candidates with their scores and fitness, in order; a failed one has a fitness of minus infinity.

        Raises:
            ProxyError: The study has no proxy, or it is not usable.
        """
        if self._tells:
            raise ProxyError("the study has no proxy (proxy=None): tell its candidates' fitness, by tell")
        return self._search.learn(self._proposer, candidates)

    def tell(self, candidate: Candidate, fitness: float) -> Candidate:
        """Enters a candidate with a fitness that the caller found, and lets the strategy learn from it.

        Args:
            candidate: From `ask` or `admit`.
            fitness: Higher is better. A network that could not be measured is best not told.

        Returns:
            The candidate with its fitness.

        Raises:
            ProxyError: The study has a proxy, whose scores a told value does not compare with.
            ValueError: The fitness is no finite number.
        """
        if not self._tells:
            raise ProxyError(
                f"the study ranks by {self._asked.proxy.key}, which evaluate computes; for a fitness of your own make "
                "it with proxy=None"
            )
        value = float(fitness)
        if not math.isfinite(value):
            raise ValueError(f"a fitness is a finite number, got {fitness!r}; leave out what could not be measured")
        score = Score(TOLD.key, value, None, 1, 0.0)
        store = self._search.session.store
        known = store is not None and store.score(self._told_key(candidate)) is not None
        if store is not None:  # an empty one is false
            store.put_architectures([candidate.architecture])
            store.put_scores([(self._told_key(candidate), score)])
        return self._search.enter(self._proposer, candidate, {TOLD.key: score}, known)

    def result(self) -> SearchResult:
        """The search so far as a `SearchResult`, written to the run's folder; more may follow.

        Scores of the leaders are repeated until they are told apart, as in `zeroshot_nas.search`. Under a latency
        budget the fittest are measured, where the table is of this machine, and the first within the limit is the best;
        where none is, the prediction's limit is tightened for what is asked for next.

        Raises:
            ProxyError: Every score failed.
            InfeasibleBudgetError: There is no candidate, or none was measured within the latency budget.
        """
        asked, search = self._asked, self._search
        search.counts = Counter(self._proposer.counts)
        search.seconds.update(self._proposer.seconds)
        search.refuse_if_empty(asked.budget)
        if not self._tells:
            search.separate_leaders()
        result = search.result({**asked.filed_under, "proposals": self._proposer.proposed}, "done")
        if asked.latency:
            winner, _ = search.measured(asked.latency, "done")
            if winner is None:
                error = asked.latency.infeasible_error()
                asked.latency.tighten()
                self._proposer.limit(asked.latency.budget(asked.budget))
                raise error
            result = replace(result, best=winner, latency=asked.latency.outcome(winner))
        result = result.written_by(self.space)
        search.session.finish(result)
        return result

    def __repr__(self) -> str:
        counts = self.counts
        return (
            f"<Study of {self.space.name} by {self._asked.proxy.key}: {counts.proposed} proposed, "
            f"{counts.ranked} scored, best {self.best.fitness if self.best else None}>"
        )

    def _architecture(self, network: Architecture | HasArchitecture | str) -> Architecture:
        """A network as the study's space has it."""
        space = self.space
        architecture = space.from_string(network) if isinstance(network, str) else architecture_of(network)
        if architecture is None:
            raise ArchitectureError(f"expected an Architecture, or its string, got {type(network).__name__}")
        space.genotype(architecture)  # refuses what is not in the space, whose strategies could not go on from it
        return architecture

    def _remembered(self, candidate: Candidate) -> Candidate:
        store = self._search.session.store
        if not self._tells or store is None:
            return candidate
        score = store.score(self._told_key(candidate))
        return candidate if score is None else candidate.with_fitness(score.value)

    def _told_key(self, candidate: Candidate) -> ScoreKey:
        return ScoreKey(candidate.architecture.key, TOLD.key, canonical({}), self._asked.settings.seed)


def _refuse_settings_of_searches(settings: SearchSettings | None, options: dict[str, Any]) -> None:
    default = {each.name: each.default for each in fields(SearchSettings)}
    given = {**(vars(settings) if settings else {}), **options}
    for name in _OF_SEARCHES:
        if name in options or (settings and given[name] != default[name]):
            raise TypeError(f"a Study takes no {name}: its caller decides how many networks there are")
