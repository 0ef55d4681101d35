"""`objective`: a space, a score and a budget as a function of an Optuna trial. optuna is imported when called."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.score import Score
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.errors import (
    ArchitectureError,
    MissingExtraError,
    NothingFitsError,
    ProxyError,
    SearcherError,
    UndefinedScoreError,
)
from zeroshot_nas.latency.device_table import LatencyTable
from zeroshot_nas.scoring.engine import score
from zeroshot_nas.scoring.proxy import Proxy, ProxyFunction
from zeroshot_nas.searchers.base import Candidate
from zeroshot_nas.searchers.writing import Writer, writer_of
from zeroshot_nas.searching.request import request
from zeroshot_nas.searching.settings import SearchSettings
from zeroshot_nas.spaces.base import SearchSpace

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

MOST_PARAMETERS = 500
"""Parameters of one trial, beyond which it is pruned: a chain without a limit on depth could go on for ever."""


def objective(
    proxy: str | Proxy | ProxyFunction | None,
    space: str | SearchSpace,
    budget: Budget | None = None,
    settings: SearchSettings | None = None,
    *,
    input_size: Sequence[int] | None = None,
    num_classes: int | None = None,
    backend: str = "onnxruntime",
    device_table: LatencyTable | str | Path | None = None,
    **options: Any,
) -> OptunaObjective:
    """A function of an Optuna trial: it suggests a network of a space and returns its score.

    The parameters are those of the network written block by block or position by position; of a space that is written
    in neither they are the draws of its sampler. What exceeds the budget is pruned, as is what has no score. Few do: of
    widths and depths those alone are suggested that leave room for the rest, where the limits are sums over blocks, and
    another option that leaves none gives way to the next that does.

    Args:
        proxy: What is returned: a name, a name with options or a function. Aggregates such as ``"az_nas"``, which rank
            a network among others, have no value of one network. None for the one that the objectives name.
        space: A registered space's name, or a `SearchSpace`.
        budget: Upper limits on costs and structure; a limit on latency is kept by a device table's prediction.
        settings: How exactly to score; see `SearchSettings`, of which those of strategies have no use here.
        input_size: Shape ``(C, H, W)`` of one image, for a space given by name; default (3, 32, 32).
        num_classes: Outputs of the classifier, for a space given by name; default 10.
        backend: Engine whose table of this machine predicts latency, where the budget limits it.
        device_table: Another table, or its file.
        options: Settings one by one: ``seed=1, repeats=4, objectives=("cet", "flops")``. With objectives it returns
            their values, for a study with several directions.

    Returns:
        What ``study.optimize`` takes; its ``directions`` are for ``optuna.create_study``.

    Raises:
        InfeasibleBudgetError: No network of the space fits the budget.
        ProxyError: The proxy is an aggregate.
        UnknownNameError: A name that is not registered.

    Example:
        >>> import optuna
        >>> optuna.logging.set_verbosity(optuna.logging.ERROR)
        >>> goal = objective("cet", "resnet", Budget(params=1e5, layers=8), input_size=(1, 8, 8))
        >>> study = optuna.create_study(directions=goal.directions, sampler=optuna.samplers.TPESampler(seed=0))
        >>> study.optimize(goal, n_trials=20)
        >>> best = goal.architecture(study.best_trial)
        >>> best in goal.space, goal.costs(best).params <= 1e5
        (True, True)
    """
    asked = request(
        space,
        proxy,
        budget,
        settings,
        None,
        input_size=input_size,
        num_classes=num_classes,
        backend=backend,
        device_table=device_table,
        options=options,
        screens=False,
    )
    if asked.proxy.info.parts:
        raise ProxyError(
            f"{asked.proxy.key} ranks a network among others and has no value of one alone; take one of its parts: "
            f"{', '.join(asked.proxy.info.parts)}"
        )
    return OptunaObjective(asked)


class OptunaObjective:
    """A space, a score and a budget, as Optuna asks for them; see `objective`.

    Attributes:
        space: The space.
        directions: ``"maximize"`` or ``"minimize"`` for each value.
    """

    def __init__(self, asked: Any) -> None:
        plan = asked.plan(asked.start)
        self.space: SearchSpace = asked.space
        self._asked, self._problem = asked, plan.problem
        self._writer: Writer | None
        try:
            self._writer = writer_of(self.space, self._problem, asked.start)
        except SearcherError:
            self._writer = None
        self._scores: dict[Architecture, Score] = {}
        upward = [each.direction == "higher" for each in asked.objectives]
        if not upward:
            upward = [asked.settings.reward is not None or asked.proxy.sign > 0]
        self.directions = ["maximize" if up else "minimize" for up in upward]

    def __call__(self, trial: BaseTrial) -> float | tuple[float, ...]:
        """The value, or values, of the network that a trial's parameters stand for.

        Raises:
            optuna.TrialPruned: The network exceeds the budget, or its score failed.
            MissingExtraError: optuna is not installed.
        """
        architecture = self.architecture(trial)
        costs = self._problem.costs(architecture)
        trial.set_user_attr("architecture", self.space.text(architecture))
        for name, value in costs.to_dict().items():
            if value is not None:
                trial.set_user_attr(name, value)
        if violations := self._problem.budget.violations(costs, architecture):
            _prune("; ".join(map(str, violations)))
        found = self._score(architecture)
        if not found.ok:
            _prune(found.reason)
        fitness = self._asked.proxy.sign * found.value
        if (reward := self._asked.settings.reward) is not None:
            try:
                return float(reward.of_costs(fitness, costs))
            except UndefinedScoreError as error:
                _prune(str(error))
        if not self._asked.objectives:
            return found.value
        candidate = Candidate(architecture, costs, {}, fitness)
        return tuple(float(each.value(candidate)) for each in self._asked.objectives)

    def architecture(self, trial: Any) -> Architecture:
        """The network that a trial's parameters stand for, of one that runs or of one that is done."""
        if hasattr(trial, "suggest_float") and not hasattr(trial, "state"):
            return self._written(trial)
        optuna = _optuna()
        return self._written(optuna.trial.FixedTrial(trial.params))

    def costs(self, architecture: Architecture) -> Any:
        """What a network costs, latency included where the budget limits it."""
        return self._problem.costs(architecture)

    def _written(self, trial: Any) -> Architecture:
        if self._writer is None:
            return self.space.sample(_Draws(trial))
        try:
            return self._writer.write(_Suggestions(trial))
        except (ArchitectureError, NothingFitsError) as error:
            _prune(str(error))

    def _score(self, architecture: Architecture) -> Score:
        """The score, from the second time on remembered."""
        if architecture not in self._scores:
            settings = self._asked.settings
            self._scores[architecture] = score(
                architecture, [self._asked.proxy], seed=settings.seed, **settings.at_first
            )[self._asked.proxy.key]
        return self._scores[architecture]


class _Suggestions:
    """Tokens of a writer as parameters of a trial; a token that comes again has a number behind its name."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial
        self._seen: Counter[str] = Counter()

    def __call__(
        self,
        name: Hashable,
        logits: Callable[[], Sequence[float]],
        fits: Callable[[int], bool],
        *,
        ordered: bool = False,
        monotone: bool = False,
    ) -> int:
        options = len(logits())
        text = " ".join(map(str, name)) if isinstance(name, tuple) else f"{name}"
        self._seen[text] += 1
        if self._seen.total() > MOST_PARAMETERS:
            _prune(f"more than {MOST_PARAMETERS} parameters")
        text = text if self._seen[text] == 1 else f"{text} #{self._seen[text]}"
        if not ordered:
            option = self._trial.suggest_categorical(text, list(range(options)))
        else:
            option = self._trial.suggest_int(text, 0, _last(fits, options) if monotone else options - 1)
        fitting = next((place for turn in range(options) if fits(place := (int(option) + turn) % options)), None)
        if fitting is None:
            _prune(f"no option of {text} leaves room for the rest")
        return fitting


def _last(fits: Callable[[int], bool], options: int) -> int:
    """The last option that fits, where behind one that does not none does; the first where none does."""
    low, high = 0, options - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


class _Draws(random.Random):
    """A source of randomness whose every draw is a parameter of a trial."""

    def __init__(self, trial: Any) -> None:
        super().__init__(0)
        self._trial, self._count = trial, 0

    def random(self) -> float:
        self._count += 1
        if self._count > MOST_PARAMETERS:
            _prune(f"more than {MOST_PARAMETERS} draws")
        drawn = self._trial.suggest_float(f"draw {self._count}", 0.0, 1.0)
        return min(float(drawn), math.nextafter(1.0, 0.0))


def _prune(reason: str) -> NoReturn:
    raise _optuna().TrialPruned(reason)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("optuna", "optuna") from None
    return optuna
