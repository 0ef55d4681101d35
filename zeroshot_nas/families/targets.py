"""What the members of a family must keep to: named, and in the order of their size. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.base import STANDARD
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import BudgetError
from zeroshot_nas.families.neighbours import widened
from zeroshot_nas.latency.device_table import DeviceTable, LatencyTable
from zeroshot_nas.searching.start import costs_of
from zeroshot_nas.spaces.base import SearchSpace

_SAMPLED = 64
"""Random networks beside widened ones by which the size of a budget is told."""

_DOUBLINGS = 8
"""Of the widths of the space's initial network, up and down, in halves."""


@dataclass(frozen=True)
class Target:
    """What one member must keep to.

    Args:
        budget: Upper limits.
        device_table: Table of the device that ``budget.latency_ms`` is of, or its file; None is this machine.

    Example:
        >>> Target(Budget(latency_ms=4), "phone.json").name
        'phone-4ms'
        >>> Target(Budget(params=500e3, flops=25e6)).name
        '500k-params-25M-flops'
    """

    budget: Budget
    device_table: LatencyTable | str | Path | None = None

    @property
    def name(self) -> str:
        """What the member is called unless it is given a name; fit for a file."""
        limits = self.budget.limits()
        latency = limits.pop("latency_ms", None)
        parts = [f"{_short(limit)}-{cost}" for cost, limit in limits.items()]
        if latency is not None:
            table = self.device_table
            device = Path(table).stem if isinstance(table, str | Path) else "here" if table is None else "device"
            parts.insert(0, f"{device}-{latency:g}ms")
        return "-".join(parts) or "no-limit"


Budgets: TypeAlias = Sequence[Budget | Target] | Mapping[str, Budget | Target]


def named(budgets: Budgets) -> dict[str, Target]:
    """Targets by name.

    Raises:
        BudgetError: There are none, two are equal, or one is no budget.

    Example:
        >>> list(named([Budget(params=1e6), Budget(params=200e3)]))
        ['1M-params', '200k-params']
    """
    if not isinstance(budgets, Mapping | Sequence) or isinstance(budgets, str):
        raise BudgetError(f"budgets are a list of Budget or Target, or a dict of them by name; got {budgets!r:.80}")
    given = [*budgets.items()] if isinstance(budgets, Mapping) else [(None, each) for each in budgets]
    found: dict[str, Target] = {}
    for name, each in given:
        target = Target(each) if isinstance(each, Budget) else each
        if not isinstance(target, Target):
            raise BudgetError(f"each budget of a family is a Budget, or a Target of a device; got {each!r:.80}")
        name = target.name if name is None else str(name)
        if not name or not set(name) <= _FIT_FOR_A_FILE:
            raise BudgetError(f"a member's name is letters, digits, '-', '_' and '.', it names files; got {name!r:.80}")
        if name in found or target in found.values():
            raise BudgetError(f"the budget {name!r} is given twice; leave one out, or give each a name of its own")
        found[name] = target
    if not found:
        raise BudgetError("a family needs a budget for each of its members, such as [Budget(params=1e6), ...]")
    return found


_FIT_FOR_A_FILE = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def by_size(targets: Mapping[str, Target], tables: Mapping[str, LatencyTable | None], space: SearchSpace) -> list[str]:
    """Names, the largest first: by the most FLOPs that a network within a target has, of some hundred networks.

    So limits on parameters, FLOPs and the latency of unlike devices have one order.
    """
    ladder = _ladder(space)

    def size(name: str) -> tuple[float, float, str]:
        target, table = targets[name], tables[name]
        fitting = [
            complexity(network).flops
            for network in ladder
            if not target.budget.violations(costs_of(network, table), network)
        ]
        return max(fitting, default=0), sum(map(math.log, target.budget.limits().values())), name

    return sorted(targets, key=size, reverse=True)


def is_in_order(given: Sequence[str], ordered: Sequence[str]) -> bool:
    """Whether names were given from the largest on, or from the smallest."""
    return list(given) in (list(ordered), list(reversed(ordered)))


def as_table(table: LatencyTable | str | Path | None) -> LatencyTable | None:
    """A device table, read once where it is a file."""
    return DeviceTable.load(table) if isinstance(table, str | Path) else table


def _ladder(space: SearchSpace) -> list[Architecture]:
    """Networks of many sizes."""
    begins = [space.initial(), *(space.smallest(cost) for cost in STANDARD if cost != "latency_ms")]
    step = getattr(space, "width_step", 1)
    multipliers = [2 ** (half / 2) for half in range(-2 * _DOUBLINGS, 2 * _DOUBLINGS + 1)]
    wide = (widened(begins[0], multiplier, step) for multiplier in multipliers)
    found = [*begins, *space.sample_all(python_rng(0), _SAMPLED), *(each for each in wide if each is not None)]
    return [network for network in found if network in space]


def _short(number: float) -> str:
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.6g}{letter}"
    return f"{number:.6g}"
