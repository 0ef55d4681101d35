"""Upper limits on what a network may cost. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from zeroshot_nas.costs.complexity import Costs
from zeroshot_nas.errors import BudgetError


class Violation(NamedTuple):
    """One limit that a network exceeds."""

    cost: str
    value: float
    limit: float


@dataclass(frozen=True)
class Budget:
    """Upper limits; None sets no limit.

    Args:
        params: Trainable values.
        flops: FLOPs (multiply-adds) of convolutions and linear layers, for one image.
        layers: Depth as Zen-NAS counts it.
        activations: Outputs of convolutions and linear layers, for one image.

    Raises:
        BudgetError: A limit is not a positive number.

    Example:
        >>> budget = Budget(params=1e6, layers=18)
        >>> budget.violations(Costs(params=1_200_000, flops=5, layers=18, activations=9))
        (Violation(cost='params', value=1200000, limit=1000000.0),)
    """

    params: float | None = None
    flops: float | None = None
    layers: float | None = None
    activations: float | None = None

    def __post_init__(self) -> None:
        for name, limit in self.limits().items():
            if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
                raise BudgetError(f"Budget.{name} must be a number above 0, or None for no limit; got {limit!r}")

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: limit for name, limit in values.items() if limit is not None}

    def violations(self, costs: Costs) -> tuple[Violation, ...]:
        """Every limit that ``costs`` exceeds; none means that the network is within the budget.

        Raises:
            BudgetError: A limit is on a cost that the network does not have (a foreign module has no ``layers``).
        """
        for name in self.limits():
            if getattr(costs, name) is None:
                raise BudgetError(f"the network has no {name}, so no budget on it can be checked; leave {name} out")
        return tuple(
            Violation(name, value, limit)
            for name, limit in self.limits().items()
            if (value := getattr(costs, name)) > limit
        )
