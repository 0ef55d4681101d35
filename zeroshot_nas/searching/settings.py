"""Settings of a search: all that its result depends on beside the space, the proxy and the budget."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.core.options import checked_option, keyword_types
from zeroshot_nas.costs.reward import Reward, as_reward
from zeroshot_nas.errors import ObjectiveError, did_you_mean
from zeroshot_nas.runs.options import RunOptions
from zeroshot_nas.searchers.base import SEARCHERS, Searcher

DEFAULT_PROPOSALS = 2_000
"""Networks that a search proposes where each is scored by a forward pass."""

DEFAULT_SCREENED_PROPOSALS = 100_000
"""Networks that a search proposes where a closed form screens them."""

ISLANDS = 4
"""Islands that exchange elites, of a search by closed form."""

LEAST_ISLAND_PROPOSALS, MOST_ISLAND_PROPOSALS = 10_000, 160_000
"""Proposals of one island, unless the number of islands is given."""

EXCHANGES = 9
"""How often islands exchange elites, unless that is given."""

LEG_PROPOSALS = 1_000
"""Proposals of an island between two exchanges at least, unless their number is given."""

DEFAULT_SEARCHER, DEFAULT_OBJECTIVE_SEARCHER = "regularized_evolution", "nsga2"
"""Strategies of a search for the fittest network, and of one for a front."""

LEADER_REPEATS = 8
"""Repeats that a leader gets at least: the standard error of fewer is itself a guess."""


@dataclass(frozen=True)
class SearchSettings:
    """How a search searches; `zeroshot_nas.search` takes each as a keyword too.

    Args:
        searcher: A registered strategy's name, or a `Searcher` class. Default: `DEFAULT_SEARCHER`, with objectives
            `DEFAULT_OBJECTIVE_SEARCHER`.
        searcher_options: Options of the strategy, e.g. ``{"population_size": 64}``.
        proposals: Networks to propose; duplicates and networks over budget count, so a search always ends. Default:
            `DEFAULT_SCREENED_PROPOSALS` where a closed form screens, else `DEFAULT_PROPOSALS`.
        screen: Whether the closed form screens where the proxy has one; else every network is scored by the proxy
            itself.
        finalists: Networks that pass the screen: the fittest, or with objectives those that no other is better than,
            thinned to so many where they are crowded.
        islands: Searches by closed form that share the proposals; several workers run several at once. Default:
            one for each `MOST_ISLAND_PROPOSALS`; of a strategy with a population (`zeroshot_nas.Searcher`) at least
            `ISLANDS`, as far as each has `LEAST_ISLAND_PROPOSALS`. One where the proposals are enough for all networks
            of the space, or another seed changes nothing.
        exchanges: How often islands stop, each passes its elites on to the next, and all go on from their best. Default
            of several islands of a strategy with a population: `EXCHANGES`, as far as `LEG_PROPOSALS` of an island lie
            between them; else 0.
        seed: Seed of the search and of every score in it: ``score`` with this seed and a history entry's repeats gives
            its value.
        batch_size: Gaussian images a repeat, as in `zeroshot_nas.score`.
        repeats: Draws of weights and images a score has at first.
        standard_error: Standard error to which the leaders' scores are repeated before the best of them wins; leaders
            are those within two standard errors of the best, `zeroshot_nas.searching.leaderboard.LEADERS` at most.
        max_repeats: Where that stops at the latest.
        device: Where to score.
        objectives: Names of the proxy and of costs (``("cet", "flops", "latency_ms")``, or as one text with commas)
            whose front is searched for; costs alone stand beside the search's proxy. None searches for the fittest.
        reward: A `zeroshot_nas.Reward`, or its text (``"flops:target=100M"``), that takes the score's place as fitness.

    Raises:
        ValueError: A count is no whole number of 1 or more, or there are more islands than proposals.
        ObjectiveError: Objectives or reward are none.
        UnknownNameError: The reward's cost is not registered.

    Example:
        >>> SearchSettings(proposals=500).updated({"seed": 3}).seed
        3
    """

    searcher: str | type[Searcher] | None = None
    searcher_options: Mapping[str, Any] = field(default_factory=dict)
    proposals: int | None = None
    screen: bool | Literal["closed_form"] | None = True  # the text and None are what older releases took
    finalists: int = 200
    islands: int | None = None
    exchanges: int | None = None
    seed: int = 0
    batch_size: int | None = None
    repeats: int = 2
    standard_error: float = 0.15
    max_repeats: int = 64
    device: str | None = None
    objectives: tuple[str, ...] | None = None
    reward: Reward | None = None

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("proposals", "finalists", "islands")}
        check_counts(**{name: count for name, count in counts.items() if count is not None})
        if self.proposals is not None and self.islands is not None and self.islands > self.proposals:
            raise ValueError(f"islands must be at most the proposals, {self.proposals:,}, got {self.islands:,}")
        if self.exchanges is not None:
            check_counts(0, exchanges=self.exchanges)
        object.__setattr__(self, "screen", bool(self.screen))
        object.__setattr__(self, "objectives", _names_of(self.objectives))
        object.__setattr__(self, "reward", as_reward(self.reward))

    @property
    def searcher_name(self) -> str:
        """The strategy's registered name, or its class's."""
        if self.searcher is None:
            return DEFAULT_SEARCHER if self.objectives is None else DEFAULT_OBJECTIVE_SEARCHER
        return self.searcher if isinstance(self.searcher, str) else self.searcher.__name__

    @property
    def strategy(self) -> type[Searcher]:
        """The searcher's class."""
        return self.searcher if isinstance(self.searcher, type) else SEARCHERS[self.searcher_name]

    def updated(self, options: Mapping[str, Any]) -> SearchSettings:
        """These with other settings or options of the strategy.

        Raises:
            TypeError: An option is neither a setting nor the strategy's.
            ValueError: An option of the strategy is of another type than it takes.
        """
        own = {name: value for name, value in options.items() if name in _NAMES}
        rest = {name: value for name, value in options.items() if name not in own}
        settings = replace(self, **own) if own else self
        if rest:
            settings = replace(settings, searcher_options={**settings.searcher_options, **rest})
        settings.refuse_unknown_options()
        checked = {
            name: checked_option(name, value, settings.option_types.get(name, Any))
            for name, value in settings.searcher_options.items()
        }
        return replace(settings, searcher_options=checked) if checked else settings

    @property
    def option_types(self) -> dict[str, Any]:
        """The strategy's options and their types, as `zeroshot_nas.core.options.option_types` has them."""
        given = ("space", "rng", "start")  # by the search
        return {name: kind for name, kind in keyword_types(self.strategy).items() if name not in given}

    def refuse_unknown_options(self) -> None:
        """Raises `TypeError` where the strategy has no such option."""
        parameters = inspect.signature(self.strategy).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return
        known = list(self.option_types)
        for option in self.searcher_options:
            if option not in known:
                everything = [*_NAMES, *(each.name for each in fields(RunOptions)), *known]
                raise TypeError(
                    f"search takes no option {option!r}.{did_you_mean(option, everything)} Settings: "
                    f"{', '.join(_NAMES)}; options of {self.searcher_name}: {', '.join(known) or 'none'}"
                )

    def counted(self, screened: bool, networks: float = math.inf) -> SearchSettings:
        """These with the numbers of proposals, islands and exchanges filled in.

        Args:
            screened: Whether a closed form guides the search.
            networks: Networks of the space, infinity where depth has no bound.

        Raises:
            ValueError: Islands are to exchange elites more often than they propose, or have no populations.
        """
        default = DEFAULT_SCREENED_PROPOSALS if screened else DEFAULT_PROPOSALS
        proposals = self.proposals if self.proposals is not None else default
        islands = self.islands
        if islands is None:
            islands = self._default_islands(proposals) if screened and networks > proposals else 1
        share = proposals // islands
        exchanges = self.exchanges
        if exchanges is None:
            speak = screened and islands > 1 and self.strategy.has_members()
            exchanges = min(EXCHANGES, max(0, share // LEG_PROPOSALS - 1)) if speak else 0
        elif exchanges and screened and not self.strategy.has_members():
            raise ValueError(f"{self.searcher_name} has no population that elites could join: exchanges must be 0")
        elif exchanges >= share:
            raise ValueError(f"exchanges must be below the proposals of an island, {share:,}, got {exchanges:,}")
        return replace(self, proposals=proposals, islands=islands, exchanges=exchanges)

    def _default_islands(self, proposals: int) -> int:
        if not self.strategy.restarts:
            return 1
        speaking = min(ISLANDS, proposals // LEAST_ISLAND_PROPOSALS) if self.strategy.has_members() else 1
        return max(1, speaking, round(proposals / MOST_ISLAND_PROPOSALS))

    def to_dict(self, screened: bool) -> dict[str, Any]:
        """JSON-ready; what a run is filed under, so without the device."""
        return {
            "searcher": self.searcher_name,
            "searcher_options": {
                name: list(value) if isinstance(value, tuple) else value  # as JSON has it
                for name, value in self.searcher_options.items()
            },
            "proposals": self.proposals,
            "screen": "closed_form" if screened else None,
            "finalists": self.finalists if screened else None,
            "islands": self.islands if screened else None,
            **({"exchanges": self.exchanges} if screened and self.exchanges else {}),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "repeats": self.repeats,
            "standard_error": self.standard_error,
            "max_repeats": self.max_repeats,
            **({"reward": self.reward.to_dict()} if self.reward else {}),
        }

    @property
    def at_first(self) -> dict[str, Any]:
        """Settings of the scores that all networks get."""
        return {**self._of_scores, "standard_error": None}

    @property
    def of_leaders(self) -> dict[str, Any]:
        """Settings of the scores that the leaders get."""
        return {**self._of_scores, "repeats": max(self.repeats, LEADER_REPEATS)}

    @property
    def _of_scores(self) -> dict[str, Any]:
        names = ("batch_size", "repeats", "standard_error", "max_repeats", "device")
        return {name: getattr(self, name) for name in names}


def _names_of(objectives: Any) -> tuple[str, ...] | None:
    """Names as callers, texts with commas and files give them."""
    if objectives is None:
        return None
    if isinstance(objectives, str):
        return tuple(name.strip() for name in objectives.split(","))
    if not isinstance(objectives, Sequence):
        raise ObjectiveError(f'objectives are names, such as ("cet", "flops"), got {objectives!r:.80}')
    return tuple(objectives)


_NAMES = tuple(each.name for each in fields(SearchSettings))
