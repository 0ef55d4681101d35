"""What a searcher is, and what a search gives. No torch here at run time."""

from __future__ import annotations

import json
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.closed_form.block_sum import BlockSum
from zeroshot_nas.core.checks import check_format, parsed
from zeroshot_nas.core.frames import data_frame
from zeroshot_nas.core.html import html_table, number
from zeroshot_nas.core.registry import Registry
from zeroshot_nas.core.score import Score, value_or_error
from zeroshot_nas.core.state import RunState
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import Costs, complexity
from zeroshot_nas.errors import ArchitectureError, FileFormatError, ProxyError, ZeroShotNASError
from zeroshot_nas.searchers.front import DEFAULT_OBJECTIVES, Front, Hypervolume, Objective, point_of
from zeroshot_nas.searchers.trial import Trials
from zeroshot_nas.searchers.words import bits_rows
from zeroshot_nas.spaces.base import SearchSpace

if TYPE_CHECKING:
    import pandas

_CANDIDATE_FORMAT = "zeroshot_nas.candidate"
_RESULT_FORMAT = "zeroshot_nas.search_result"
_VERSION = 1

_FRONT_SHOWN = 8
"""Networks of a front that a notebook shows."""


@dataclass(frozen=True)
class Candidate:
    """An architecture with what it costs and how it scores.

    Attributes:
        architecture: The network.
        costs: Its costs.
        scores: Its scores by proxy key; the search ranks by the first.
        fitness: What the search maximises: the first score, negated where lower is better, or the reward that is made
            of it; minus infinity where it failed.
        string: The network as its space writes it, a hand-made one that its space does not have as PlainNet; empty
            while a search is under way, and where a space writes none.
    """

    architecture: Architecture
    costs: Costs
    scores: Mapping[str, Score]
    fitness: float
    string: str = ""

    def __repr__(self) -> str:
        name = self.string or str(self.architecture)
        costs = ", ".join(f"{cost} {value:,.6g}" for cost, value in self.costs.to_dict().items() if value is not None)
        scores = "".join(f", {key} {score.value:.6g}" for key, score in self.scores.items())
        return f"Candidate({_shortened(name)!r}, {costs}{scores})"

    def rows(self) -> list[tuple[str, str]]:
        """The network, its scores and its costs as names and values."""
        scores = [(key, number(score.value) if score.ok else "failed") for key, score in self.scores.items()]
        costs = [(name, number(value)) for name, value in self.costs.to_dict().items() if value is not None]
        network = ("network", _shortened(self.string or str(self.architecture)))
        return [network, *bits_rows(self.architecture), *scores, *costs]

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        return html_table("Candidate", self.rows())

    def with_fitness(self, fitness: float) -> Candidate:
        """The candidate with another fitness; in a tenth of the time that ``dataclasses.replace`` takes."""
        return Candidate(self.architecture, self.costs, self.scores, fitness, self.string)

    def written_by(self, space: SearchSpace) -> Candidate:
        """The candidate with its string; as it is where the space has no notation for it."""
        try:
            return replace(self, string=space.to_string(self.architecture))
        except ArchitectureError:  # blocks of a space that writes none: the architecture itself says it all
            return self

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": _CANDIDATE_FORMAT,
            "version": _VERSION,
            "string": self.string,
            "architecture": self.architecture.to_dict(),
            "costs": self.costs.to_dict(),
            "scores": {key: score.to_dict() for key, score in self.scores.items()},
            "fitness": self.fitness if math.isfinite(self.fitness) else None,
        }

    @classmethod
    def from_dict(cls, data: Any) -> Candidate:
        """Reads what `to_dict` gives, and what earlier releases wrote, with ``plainnet`` in place of ``string``.

        Raises:
            FileFormatError: The data is not a candidate.
        """
        check_format(data, _CANDIDATE_FORMAT, _VERSION, "a candidate")
        try:
            scores = {str(key): Score.from_dict(value) for key, value in data["scores"].items()}
            fitness = -math.inf if data["fitness"] is None else float(data["fitness"])
            string = str(data.get("string", data.get("plainnet", "")))
            return cls(Architecture.from_dict(data["architecture"]), Costs(**data["costs"]), scores, fitness, string)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise FileFormatError(f"not a valid candidate: {_reason(error)}") from error


@dataclass(frozen=True)
class Counts:
    """What became of the proposals.

    Attributes:
        proposed: Networks that the searcher proposed.
        over_budget: Of these, how many exceed the budget.
        duplicate: Of the rest, how many had been proposed before.
        screened: Of the rest, how many the closed form scored; 0 without a screen.
        ranked: How many the proxy itself scored: the finalists of the screen, or all without one.
        failed: How many scores failed, in either tier.
    """

    proposed: int = 0
    over_budget: int = 0
    duplicate: int = 0
    screened: int = 0
    ranked: int = 0
    failed: int = 0


class Screened(NamedTuple):
    """A network on the way of a screen.

    Attributes:
        proposals: Networks that had been proposed by then.
        fitness: Its closed form, negated where lower is better.
        costs: Its costs by name.
    """

    proposals: int
    fitness: float
    costs: Mapping[str, float]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: The fittest candidate; the first of equals, with objectives the first of them on the front. After trials
            their winner, which may be a hand-made network.
        history: Every candidate that the proxy itself scored, in order, failed ones included: the finalists of a
            screen, best closed form first, or all without one.
        counts: What became of the proposals.
        failures: Reasons of failed scores, with how often each came.
        seconds: Wall time by what it went into: ``propose``, ``cost``, ``screen`` (closed form), ``rank`` (forward
            pass), ``total``.
        settings: What the search was asked for: space, proxy, budget, seed and the rest.
        state: ``"done"``, or ``"interrupted"`` where it was stopped by the keyboard.
        latency: How a latency budget was kept: ``limit_ms``, the winner's ``predicted_ms`` and ``measured_ms`` (None on
            a device that is not here), ``spread``, ``prediction_limits_ms`` round by round, ``measurements``; None
            without such a budget.
        trajectory: Networks that the screen saw, in order: every improvement, and of the others a few hundred at even
            distances; empty without a screen.
        trials: The networks that were trained for a short while to choose the best among them, with what became of
            each; None where nothing was trained.
        certificate: What no network within the budget exceeds: ``bound``, the ``best`` that was found and the ``gap``
            between, by the ``proxy``'s closed form; ``by`` what it was proved, ``finished`` where the best is the
            optimum, ``enumerated``: what ``exact`` went through, ``checked_whole``: limits that the bound leaves out.
            None where nothing is proved.
    """

    best: Candidate
    history: tuple[Candidate, ...]
    counts: Counts
    failures: Mapping[str, int]
    seconds: Mapping[str, float]
    settings: Mapping[str, Any]
    state: RunState = "done"
    latency: Mapping[str, Any] | None = None
    trajectory: tuple[Screened, ...] = ()
    trials: Trials | None = None
    certificate: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        counts = self.counts
        became = f"{counts.proposed:,} proposed, {counts.ranked:,} ranked, {counts.failed:,} failed"
        total = f" in {self.seconds['total']:.1f} s" if "total" in self.seconds else ""
        return f"SearchResult({self.state}, {became}{total}, best {self.best!r})"

    def _repr_html_(self) -> str:
        """The winner, the counts and the front as tables, for notebooks."""
        proposed, *others = asdict(self.counts).items()
        became = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in others)
        counts = [(proposed[0], f"{proposed[1]:,}: {became}")]
        title = f"Search, {self.state}" + (f", {self.seconds['total']:.1f} s" if "total" in self.seconds else "")
        names = [objective.name for objective in self.objectives]
        front = [
            (index, *(number(objective.value(each)) for objective in self.objectives))
            for index, each in enumerate(self.front[:_FRONT_SHOWN])
        ]
        left = len(self.front) - len(front)
        more = f", the first {len(front)} of {len(self.front)}" if left else ""
        return html_table(title, [*self.best.rows(), *counts]) + html_table(f"Front{more}", front, ("", *names))

    def to_pandas(self) -> pandas.DataFrame:
        """The history: a row a candidate, with its string, fitness, scores and costs, and whether it is on the front.

        Raises:
            MissingExtraError: The extra ``pandas`` is not installed.
        """
        leading = set(map(id, self.front))
        return data_frame(
            {
                "string": candidate.string or str(candidate.architecture),
                "fitness": candidate.fitness,
                **{key: score.value for key, score in candidate.scores.items()},
                **candidate.costs.to_dict(),
                "on_front": id(candidate) in leading,
            }
            for candidate in self.history
        )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the front is of: the search's objectives, or fitness, params and FLOPs where it was asked for none."""
        return tuple(Objective(*each) for each in self.settings.get("objectives", ())) or DEFAULT_OBJECTIVES

    @property
    def front(self) -> Front:
        """Candidates that no other beats or equals in every objective, as a tuple; ``front(8)`` picks eight of them.

        Latency is what the device table predicts.
        """
        return Front((each for each in self.history if math.isfinite(each.fitness)), self.objectives)

    def hypervolume(self, reference: Mapping[str, float] | Sequence[float] | None = None) -> Hypervolume:
        """The volume between the front and a reference point, which the result states; see `Front.hypervolume`.

        Args:
            reference: The point, by objective (``{"cet": 60, "flops": 160e6}``) or in the order of the objectives;
                default: a tenth of the front's range beyond its worst values (`Front.reference`).

        Raises:
            ValueError: The point has other objectives, or is not of finite numbers.

        Warns:
            HypervolumeWarning: No network is better than the point in every objective: the volume is 0.
        """
        return self.front.hypervolume(reference)

    def written_by(self, space: SearchSpace) -> SearchResult:
        """The result with each candidate's string, as files have them."""
        history = tuple(candidate.written_by(space) for candidate in self.history)
        return replace(self, best=self.best.written_by(space), history=history)

    def to_json(self, indent: int | None = None) -> str:
        """The result as JSON text; `from_json` reads it back."""
        data = {
            "format": _RESULT_FORMAT,
            "version": _VERSION,
            **{each.name: getattr(self, each.name) for each in fields(self)},
            "best": self.best.to_dict(),
            "history": [candidate.to_dict() for candidate in self.history],
            "counts": asdict(self.counts),
            "trials": self.trials and self.trials.to_dict(),
        }
        return json.dumps(data, indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> SearchResult:
        """Reads `to_json`'s text.

        Raises:
            FileFormatError: The text is not a search result.
        """
        data = parsed(text, _RESULT_FORMAT, _VERSION, "a search result")
        try:
            return cls(
                best=Candidate.from_dict(data["best"]),
                history=tuple(map(Candidate.from_dict, data["history"])),
                counts=Counts(**data["counts"]),
                **{name: data[name] for name in ("failures", "seconds", "settings", "state")},
                latency=data.get("latency"),
                trajectory=tuple(Screened(*point) for point in data.get("trajectory", ())),
                trials=Trials.from_dict(data["trials"]) if data.get("trials") else None,
                certificate=data.get("certificate"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(f"not a valid search result: {_reason(error)}") from error


@dataclass(frozen=True)
class Problem:
    """What a search maximises and under which limits, for strategies that plan ahead.

    Attributes:
        budget: What a network may cost.
        proxy: Key of what ranks, such as ``"cet"`` or ``"zen:variant=zennas"``; with a reward behind it, where one is
            made of it.
        closed_form: Its closed form, reward included; None where it has none for these networks.
        sign: 1 where a higher score is better, -1 where a lower one is.
        latency_ms: Predicts latency, where the budget limits it, or it is an objective or rewarded.
        proposals: Networks that may be proposed; None where the caller decides.
        objectives: What the front is of; none where the fittest network alone is searched for.
        block_sum: The closed form as a sum over blocks; the error that says so where it is none, and None where no
            closed form is searched by.
        closed_form_pool: The closed form of many architectures side by side, where that is faster.
        stored: Gives an architecture as it will be stored, with the bits of its weights, which its costs are of; None
            where it stays as it is. The closed form sees to that itself.
    """

    budget: Budget
    proxy: str
    closed_form: Callable[[Architecture], float] | None = None
    sign: int = 1
    latency_ms: Callable[[Architecture], float] | None = None
    proposals: int | None = None
    objectives: tuple[Objective, ...] = ()
    block_sum: BlockSum | ProxyError | None = None
    closed_form_pool: Callable[[Sequence[Architecture]], Sequence[float | ZeroShotNASError]] | None = None
    stored: Callable[[Architecture], Architecture] | None = None

    def point(self, candidate: Candidate) -> tuple[float, ...]:
        """A candidate's place by the objectives, or by fitness, params and FLOPs; smaller is better on every axis."""
        return point_of(candidate, self.objectives or DEFAULT_OBJECTIVES)

    def costs(self, architecture: Architecture) -> Costs:
        """What an architecture costs, latency included where it is predicted."""
        costs = complexity(architecture if self.stored is None else self.stored(architecture))
        return costs if self.latency_ms is None else costs.with_latency(self.latency_ms(architecture))

    def values(self, architectures: Sequence[Architecture]) -> Sequence[float | ZeroShotNASError]:
        """The closed form of architectures, side by side where that is faster; the error where one has none."""
        assert self.closed_form is not None, "asked for where there is one"
        if self.closed_form_pool is not None:
            return self.closed_form_pool(architectures)
        return [value_or_error(self.closed_form, architecture) for architecture in architectures]

    def fits(self, architecture: Architecture) -> bool:
        """Whether an architecture keeps to the budget."""
        return not self.budget.violations(self.costs(architecture), architecture)


class Searcher(ABC):
    """A strategy: proposes architectures, learns from how they did. It loads no torch.

    The loop tells a searcher of scored candidates only; duplicates and networks over budget never reach it. Most
    strategies need to know nothing else; one that plans ahead learns from `begin` what is searched for.

    Args:
        space: Where to search.
        rng: Its only source of randomness.
        start: A network within the budget to start from.

    Attributes:
        restarts: Whether another seed leads to other proposals. Of a strategy that does not, a search has one island.
        generation: Networks that it proposes at a time in a search by closed form, before it is told of any of them.
        grid_size: Proposals that a strategy has in all, where they are known beforehand; a search says so where it may
            propose fewer.
    """

    restarts: ClassVar[bool] = True
    generation: int = 32
    grid_size: int | None = None

    def __init__(self, space: SearchSpace, rng: random.Random, start: Architecture) -> None:
        self.space = space
        self.rng = rng
        self.start = start

    def begin(self, problem: Problem) -> None:
        """Takes note of what is searched for, before anything is asked, and again where a limit is tightened.

        Light: work belongs to `ask`.

        Raises:
            ZeroShotNASError: The strategy can't search for this.
        """
        del problem

    @property
    def members(self) -> Sequence[Candidate]:
        """The population: told to a new strategy of this kind before it is asked, it is all that this one has learnt.

        Islands of a strategy that has it exchange their elites now and then.
        """
        return ()

    @classmethod
    def has_members(cls) -> bool:
        """Whether it is a strategy with a population."""
        return cls.members is not Searcher.members

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """What the strategy has proved so far, as `SearchResult.certificate`; None where it proves nothing."""
        return None

    @abstractmethod
    def ask(self, n: int) -> Sequence[Architecture]:
        """The next ``n`` proposals; fewer where the strategy has no more, and none ends the search."""

    @abstractmethod
    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Takes note of scored candidates."""


SEARCHERS: Registry[type[Searcher]] = Registry("searcher", package="zeroshot_nas.searchers")

_Searcher = TypeVar("_Searcher", bound=type[Searcher])


def register_searcher(name: str) -> Callable[[_Searcher], _Searcher]:
    """Registers a searcher class under a name; ``examples/add_a_searcher.py`` is one."""

    def register(cls: _Searcher) -> _Searcher:
        SEARCHERS.add(name, cls)
        return cls

    return register


def list_searchers() -> list[str]:
    """Names of the registered searchers.

    Example:
        >>> list_searchers()
        ['evolution', 'exact', 'gradient', 'grid', 'nsga2', 'random', 'regularized_evolution', 'reinforce']
    """
    return list(SEARCHERS)


def _shortened(text: str, length: int = 240) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ZeroShotNASError) else f"{type(error).__name__}: {error}"
