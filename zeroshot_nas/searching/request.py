"""A search as it was asked for: names looked up, defaults filled in, what can't work refused before any work."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture, HasArchitecture, architecture_of
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.weight_bits import BitAllocation, checked_bits
from zeroshot_nas.errors import (
    ArchitectureError,
    BudgetError,
    DepthWarning,
    LatencyWarning,
    ProposalsWarning,
    ProxyError,
    ZeroShotNASError,
)
from zeroshot_nas.latency.device_table import LatencyTable
from zeroshot_nas.runs.options import RunOptions
from zeroshot_nas.scoring.proxy import PROXIES, Proxy, ProxyFunction
from zeroshot_nas.searchers.front import Objective
from zeroshot_nas.searching.call import call_of
from zeroshot_nas.searching.latency_budget import LatencyBudget, caveats, latency_budget_of, latency_table
from zeroshot_nas.searching.objectives import check_reward, ranking, reads_latency
from zeroshot_nas.searching.rounds import RoundPlan
from zeroshot_nas.searching.settings import SearchSettings
from zeroshot_nas.searching.start import costs_of, starting_point
from zeroshot_nas.searching.trials import KINDS, TrialSettings
from zeroshot_nas.spaces.base import SearchSpace, default_space, get_space, options_of


@dataclass(frozen=True)
class Request:
    """What is searched, by what, and how.

    Attributes:
        space: Where.
        proxy: What ranks.
        objectives: What the front is of; none where the fittest network alone is searched for.
        budget: What a network may cost.
        settings: How, with the numbers of proposals and islands filled in where a closed form may guide.
        run: Where it is written and by what it is computed.
        start: A network within the budget.
        table: Predicts latency, where a limit, an objective or the reward reads it.
        latency: The limit on latency.
        has_closed_form: Whether the proxy has a closed form for this space's networks.
        screened: Whether it guides the search.
        trials: How its finalists are tried; None where nothing is trained.
        first: Networks that are proposed before the strategy's own.
        stored: Gives an architecture with the bits of its weights, where they are to choose.
        call: The arguments as JSON, as a run keeps them.
    """

    space: SearchSpace
    proxy: Proxy
    objectives: tuple[Objective, ...]
    budget: Budget
    settings: SearchSettings
    run: RunOptions
    start: Architecture
    table: LatencyTable | None
    latency: LatencyBudget | None
    has_closed_form: bool
    screened: bool
    trials: TrialSettings | None
    call: Mapping[str, Any]
    first: tuple[Architecture, ...] = ()
    stored: BitAllocation | None = None

    def plan(self, start: Architecture) -> RoundPlan:
        """What a round proposes from, beginning with a network."""
        return RoundPlan(
            self.space,
            self.proxy,
            self.objectives,
            self.settings,
            start,
            self.budget,
            self.table,
            self.latency,
            self.has_closed_form,
            KINDS * self.trials.count if self.trials else 0,
            self.first,
            self.stored,
        )

    @property
    def filed_under(self) -> dict[str, Any]:
        """What the result depends on, JSON-ready: a run is resumed where it is equal."""
        structure = self.budget.structure
        return {
            "space": self.space.name,
            "space_options": options_of(self.space),
            "input_size": list(self.space.input_size),
            "num_classes": self.space.num_classes,
            "proxy": self.proxy.key,
            "budget": {**self.budget.limits(), **({"structure": structure.limits()} if structure else {})},
            **self.settings.to_dict(self.screened),
            **({"objectives": [list(each) for each in self.objectives]} if self.objectives else {}),
            **({"device_table": self.table.digest} if self.table else {}),
            **({"trials": self.trials.filed_under} if self.trials else {}),
            **({"first": [each.key for each in self.first]} if self.first else {}),
            **({"bits": list(self.stored.bits)} if self.stored else {}),
        }


def request(
    space: str | SearchSpace | None,
    proxy: str | Proxy | ProxyFunction | None,
    budget: Budget | None,
    settings: SearchSettings | None,
    run: RunOptions | None,
    *,
    input_size: Sequence[int] | None,
    num_classes: int | None,
    backend: str,
    device_table: LatencyTable | str | Path | None,
    options: Mapping[str, Any],
    screens: bool = True,
    trials: TrialSettings | None = None,
    first: Sequence[Architecture | HasArchitecture] = (),
    bits: Sequence[int] | None = None,
) -> Request:
    """Looks up what a search is given, with its errors and warnings; ``screens`` lets a closed form guide it."""
    if not isinstance(budget, Budget | None):
        raise TypeError(f"budget must be a Budget, such as Budget(params=1e5), got {type(budget).__name__}")
    if not isinstance(settings, SearchSettings | None):
        raise TypeError(
            f"settings must be SearchSettings, got {settings!r}; name what else is given, as input_size=..."
        )
    budget = budget or Budget()
    run, rest = (run or RunOptions()).updated(options)
    settings = (settings or SearchSettings()).updated(rest)
    ranked_by, objectives = ranking(proxy, settings.objectives)
    check_reward(settings.reward, ranked_by, objectives)
    space = made_space(space, input_size, num_classes)
    needed = budget.latency_ms is not None or reads_latency(objectives, settings.reward)
    table = latency_table(needed, space, device_table, backend)
    latency = latency_budget_of(budget, table)
    stored = None if bits is None else _allocation(bits, budget, ranked_by, trials)
    start = starting_point(space, budget, latency, stored)
    is_closed_form = not ranked_by.info.parts and not ranked_by.info.needs_weights
    has_closed_form = is_closed_form or _has_closed_form(ranked_by, start)
    screened = screens and (is_closed_form or (bool(settings.screen) and has_closed_form))
    if screens:
        settings = settings.counted(screened, space.size())
    _warn_of_depth(ranked_by, budget, space)
    for caveat in caveats(table, space, budget.latency_ms) if table else ():
        warnings.warn(caveat, LatencyWarning, stacklevel=3)
    call = call_of(space, ranked_by, budget, settings, backend, device_table)
    if trials is not None:
        call["trials"] = trials.call
    if stored is not None:
        call["bits"] = list(stored.bits)
    before = _of_space(first, space)
    _warn_of_over_budget(before, budget, table, stored)
    if before:
        call["first"] = [each.to_dict() for each in before]
    asked = Request(
        space,
        ranked_by,
        objectives,
        budget,
        settings,
        run,
        start,
        table,
        latency,
        has_closed_form,
        screened,
        trials,
        call,
        before,
        stored,
    )
    plan = asked.plan(start)  # refuses bad options, and what its strategy can't search for, before anything is written
    searcher = plan.searcher()
    searcher.begin(plan.problem)
    _warn_of_size(searcher.grid_size, settings)
    return asked


def _of_space(first: Sequence[Architecture | HasArchitecture], space: SearchSpace) -> tuple[Architecture, ...]:
    """Architectures of networks that are to be proposed first.

    Raises:
        ArchitectureError: One is none, or is not of the space.
    """
    found = []
    for network in first:
        architecture = architecture_of(network)
        if architecture is None:
            raise ArchitectureError(f"first takes architectures, and what has one; got {type(network).__name__}")
        try:
            space.genotype(architecture)
        except ArchitectureError as error:
            raise ArchitectureError(f"{architecture} can't be proposed first: {error}") from None
        found.append(architecture)
    return tuple(dict.fromkeys(found))


def _allocation(bits: Sequence[int], budget: Budget, proxy: Proxy, trials: TrialSettings | None) -> BitAllocation:
    """How the bits of weights are chosen.

    Raises:
        BudgetError: They are not of 2, 4 and 8, or there is no limit that they follow from.
        ProxyError: The score does not know bits.
        ValueError: There are trials.
    """
    choices, limit = checked_bits(bits), budget.limits().get("weights")
    if limit is None:
        raise BudgetError(
            "bits follow from a limit on the bytes of weights; set one: Budget(weights='64kB'), --max-weights 64kB"
        )
    if not proxy.info.knows_bits:
        known = ", ".join(name for name in PROXIES if PROXIES[name].knows_bits)
        raise ProxyError(f"{proxy.key} does not know what bits cost; those that do: {known}")
    if trials is not None:
        raise ValueError("trials train in floating point, where bits cost nothing; leave trials or bits out")
    return BitAllocation(limit, choices)


def _has_closed_form(proxy: Proxy, start: Architecture) -> bool:
    """Whether the proxy has a closed form for this space's kind of network."""
    if proxy.info.parts or proxy.info.closed_form is None:
        return False
    try:
        proxy.closed_form(start)
    except ZeroShotNASError:
        return False  # a graph, say: the forward pass scores it
    return True


def _warn_of_depth(proxy: Proxy, budget: Budget, space: SearchSpace) -> None:
    limited = budget.layers is not None or (budget.structure is not None and budget.structure.limits())
    if proxy.info.grows_with_depth and not limited and math.isinf(space.size()):
        warnings.warn(
            f"{proxy.key} grows without limit in depth, and the budget bounds neither layers nor structure: "
            "the winner will be as deep and thin as the other limits allow",
            DepthWarning,
            stacklevel=4,
        )


def _warn_of_over_budget(
    first: Sequence[Architecture], budget: Budget, table: LatencyTable | None, stored: BitAllocation | None
) -> None:
    """Says which networks that are to be proposed first can't win, and why."""
    over = {
        network: violations
        for network, kept in ((each, stored(each) if stored else each) for each in first)
        if (violations := budget.violations(costs_of(kept, table), kept))
    }
    for network, violations in list(over.items())[:1]:
        limits = "; ".join(map(str, violations))
        warnings.warn(
            f"{len(over)} of {len(first)} networks that are proposed first are over the budget and can't win: "
            f"{network} has {limits}",
            ProposalsWarning,
            stacklevel=4,
        )


def _warn_of_size(grid_size: int | None, settings: SearchSettings) -> None:
    if grid_size is not None and settings.proposals is not None and grid_size > settings.proposals:
        warnings.warn(
            f"the grid has {grid_size:,} networks, and {settings.proposals:,} proposals are its coarsest part alone; "
            f"set proposals={grid_size} for all of it, or give fewer values",
            ProposalsWarning,
            stacklevel=4,
        )


def made_space(
    space: str | SearchSpace | None, input_size: Sequence[int] | None, num_classes: int | None
) -> SearchSpace:
    """A space as `zeroshot_nas.search` is given it; None is `default_space`.

    Raises:
        TypeError: It is neither a name nor a space.
        UnknownNameError: No space has that name.
        ValueError: The space has another size of images, or another number of classes.
    """
    if space is None:
        space = default_space(input_size or (3, 32, 32))
    if not isinstance(space, str | SearchSpace):
        raise TypeError(f"space must be a name, such as 'vanilla', or a SearchSpace, got {type(space).__name__}")
    if isinstance(space, str):
        return get_space(space, input_size=input_size or (3, 32, 32), num_classes=num_classes or 10)
    for name, given, has in (
        ("input_size", input_size and tuple(input_size), space.input_size),
        ("num_classes", num_classes, space.num_classes),
    ):
        if given is not None and given != has:
            raise ValueError(f"the space has {name} {has}, got {given}; make the space with the one you want")
    return space
