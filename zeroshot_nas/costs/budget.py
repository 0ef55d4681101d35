"""Upper limits on what a network may cost, and bounds on its structure. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.base import COSTS, STANDARD
from zeroshot_nas.costs.complexity import Costs
from zeroshot_nas.costs.structure import StructureBounds
from zeroshot_nas.costs.structure import Violation as Violation
from zeroshot_nas.errors import BudgetError, did_you_mean


@dataclass(frozen=True, init=False)
class Budget:
    """Upper limits; None sets no limit.

    Args:
        params: Trainable values.
        flops: FLOPs (multiply-adds) of convolutions and linear layers, for one image.
        layers: Depth as Zen-NAS counts it.
        activations: Outputs of convolutions and linear layers, for one image.
        latency_ms: Milliseconds of a batch on the device that a search is told of.
        structure: Bounds on depth over width, widths and bottlenecks.
        further: Limits on other registered costs, by name.
        shape: What ``structure`` was called in earlier releases.
        more: The same by keyword, a text where the cost has a unit: ``Budget(peak_memory="256kB", weights="1MiB")``.

    Raises:
        BudgetError: A limit is not a positive number or such a text, or ``structure`` is no `StructureBounds`.
        UnknownNameError: No cost of that name is registered.

    Example:
        >>> budget = Budget(params=1e6, layers=18)
        >>> budget.violations(Costs(params=1_200_000, flops=5, layers=18, activations=9))
        (Violation(cost='params', value=1200000, limit=1000000.0),)
    """

    params: float | None
    flops: float | None
    layers: float | None
    activations: float | None
    latency_ms: float | None
    structure: StructureBounds | None
    further: Mapping[str, float] = field(hash=False)

    def __init__(
        self,
        params: float | None = None,
        flops: float | None = None,
        layers: float | None = None,
        activations: float | None = None,
        latency_ms: float | None = None,
        structure: StructureBounds | None = None,
        further: Mapping[str, float] | None = None,
        shape: StructureBounds | None = None,
        **more: float | str | None,
    ) -> None:
        standard = (params, flops, layers, activations, latency_ms)
        given = {**dict(zip(STANDARD, standard, strict=True)), **(further or {}), **more}
        limits = {name: _as_number(name, limit) for name, limit in given.items()}
        for name, limit in limits.items():
            if limit is None:
                continue
            if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
                raise BudgetError(f"Budget.{name} must be a number above 0, or None for no limit; got {limit!r}")
        if structure is not None and shape is not None:
            raise BudgetError("structure and shape are one limit by its new and its old name; give structure alone")
        structure = shape if structure is None else structure
        if structure is not None and not isinstance(structure, StructureBounds):
            raise BudgetError(
                f"Budget.structure must be StructureBounds(...), or None for no bounds; got {type(structure).__name__}"
            )
        own = {name: limits.pop(name) for name in STANDARD}
        further = {name: limit for name, limit in sorted(limits.items()) if limit is not None}
        self.__dict__.update(**own, structure=structure, further=further)

    if not TYPE_CHECKING:  # so that a type checker still knows a misspelt attribute

        def __getattr__(self, name: str) -> float | None:
            if name.startswith("_") or name not in COSTS:
                raise AttributeError(f"there is no limit on {name!r}.{did_you_mean(name, COSTS)}")
            return self.further.get(name)

    @property
    def shape(self) -> StructureBounds | None:
        """What ``structure`` was called in earlier releases."""
        return self.structure

    @cached_property
    def _limits(self) -> tuple[tuple[str, float], ...]:
        """The limits that are set; a search reads them for every proposal."""
        values = {**{name: getattr(self, name) for name in STANDARD}, **self.further}
        return tuple((name, limit) for name, limit in values.items() if limit is not None)

    def limits(self) -> dict[str, float]:
        """The limits on costs that are set, by name; those on structure are ``structure.limits()``."""
        return dict(self._limits)

    def violations(self, costs: Costs, architecture: Architecture | None = None) -> tuple[Violation, ...]:
        """Every limit that the network exceeds; none means that it is within the budget.

        Args:
            costs: The network's costs.
            architecture: The network; without it ``structure`` is not checked.

        Raises:
            BudgetError: A limit is on a cost that the network does not have (a foreign module has no ``layers``).

        Example:
            >>> from zeroshot_nas.costs.complexity import complexity
            >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperConvK3BNRELU(16,8,1,1)")
            >>> budget = Budget(params=1e6, structure=StructureBounds(monotone_widths=True))
            >>> budget.violations(complexity(net), net)
            (Violation(cost='monotone_widths', value=2.0, limit=1),)
        """
        found: list[Violation] = []
        for name, limit in self._limits:
            value = getattr(costs, name)
            if value is None:
                raise BudgetError(f"the network has no {name}, so no budget on it can be checked; leave {name} out")
            if value > limit:
                found.append(Violation(name, value, limit))
        if self.structure is not None and architecture is not None:
            found += self.structure.violations(architecture)
        return tuple(found)


def _as_number(name: str, limit: Any) -> Any:
    """A limit that is a text, as its cost reads it; others as they are.

    Raises:
        BudgetError: The cost reads no such text.
        UnknownNameError: No cost of that name is registered.
    """
    info = COSTS[name]
    if not isinstance(limit, str) or not info.unit:
        return limit
    try:
        return info.parse(limit)
    except ValueError as error:
        raise BudgetError(f"Budget.{name} must be {error}; got {limit!r}") from None
