"""Where a search starts: a network within the budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.base import COSTS, STANDARD, list_costs
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import Costs, complexity
from zeroshot_nas.errors import InfeasibleBudgetError
from zeroshot_nas.latency.device_table import LatencyTable
from zeroshot_nas.spaces.base import SearchSpace

if TYPE_CHECKING:
    from zeroshot_nas.searching.latency_budget import LatencyBudget

Stored: TypeAlias = Callable[[Architecture], Architecture] | None
"""`Problem.stored`."""

_CANDIDATES = 300
"""Random networks of a finite space among which the cheapest to start from is looked for."""


def starting_point(
    space: SearchSpace,
    budget: Budget,
    latency: LatencyBudget | None,
    stored: Stored = None,
) -> Architecture:
    """A network within the budget: the space's initial one, or the cheapest by some cost; ``stored`` as `Problem` has.

    Raises:
        InfeasibleBudgetError: Even the network of least cost is over a limit.
    """
    table = None if latency is None else latency.table
    cheapest = {name: _cheapest(space, name, table) for name in budget.limits()}
    for name, architecture in cheapest.items():
        for violation in budget.violations(costs_of(stored(architecture) if stored else architecture, table)):
            if violation.cost == name:
                raise InfeasibleBudgetError(
                    f"no network of the space {space.name!r} fits: the smallest has {_amount(violation.value, name)}; "
                    f"the budget is {_number(violation.limit)}. Raise it, or use a smaller input"
                )
    for architecture in (space.initial(), *cheapest.values()):
        if not budget.violations(costs_of(stored(architecture) if stored else architecture, table), architecture):
            return architecture
    return space.initial()  # each limit alone can be met; whether all can together the search will show


def _cheapest(space: SearchSpace, cost: str, table: LatencyTable | None) -> Architecture:
    """The network of least cost; of a cost that no space knows of itself, the best of those that are likely."""
    if cost in STANDARD and cost != "latency_ms":
        return space.smallest(cost)
    candidates = [space.smallest(name) for name in list_costs() if COSTS[name].per != "device"]
    if space.size() < math.inf:  # cells differ in what a device prunes more than in anything that is counted
        rng = python_rng(0)
        candidates += [space.sample(rng) for _ in range(_CANDIDATES)]
    best = min(candidates, key=lambda architecture: getattr(costs_of(architecture, table), cost))
    return best if cost == "latency_ms" else _descended(space, best, cost)


def _descended(space: SearchSpace, start: Architecture, cost: str) -> Architecture:
    """The cheapest network on a walk of moves that each cost less."""
    rng, best = python_rng(0), start
    least = complexity(best)[cost]
    for _ in range(_CANDIDATES):
        moved = space.mutate(best, rng)
        value = complexity(moved)[cost]
        if value is not None and least is not None and value < least:
            best, least = moved, value
    return best


def restart(space: SearchSpace, budget: Budget, latency: LatencyBudget, stored: Stored = None) -> Architecture:
    """A network within the budget whose limit on latency was tightened."""
    try:
        return starting_point(space, latency.budget(budget), latency, stored)
    except InfeasibleBudgetError as error:
        raise latency.infeasible_error() from error


def costs_of(architecture: Architecture, table: LatencyTable | None) -> Costs:
    """Costs, with the latency that a table predicts where there is one."""
    costs = complexity(architecture)
    return costs if table is None else costs.with_latency(table.latency_ms(architecture))


def limits_text(budget: Budget) -> str:
    """A budget's limits in words."""
    return ", ".join(f"{name} {_number(limit)}" for name, limit in budget.limits().items())


def _amount(value: float, cost: str) -> str:
    info = COSTS[cost]
    return f"{_number(value)} bytes of {info.label}" if info.unit == "bytes" else f"{_number(value)} {cost}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
