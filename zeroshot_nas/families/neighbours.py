"""What the winners of one budget tell of another one. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.families.scaling import wider
from zeroshot_nas.latency.device_table import LatencyTable
from zeroshot_nas.searching.start import costs_of
from zeroshot_nas.spaces.base import SearchSpace

MOST_WIDENING = 16.0
"""By how much a neighbour's widths are multiplied or divided at most."""

_HALVINGS = 9
"""Of the range of multipliers, in which the widest that fits is looked for; 16 becomes 1.01."""


def fitted(
    networks: Iterable[Architecture], space: SearchSpace, budget: Budget, table: LatencyTable | None = None
) -> list[Architecture]:
    """Networks that fit a budget, each with all its widths times a number so that it uses the budget up.

    Those of which no width fits are left out, and so are widths that the space does not have; a network whose space has
    no free widths stays what it is where it fits.

    Args:
        networks: Winners of other budgets, say.
        space: Where they are of.
        budget: What is to be used up.
        table: Predicts latency, where the budget limits it.

    Example:
        >>> from zeroshot_nas.costs.complexity import complexity
        >>> from zeroshot_nas.spaces.base import get_space
        >>> space = get_space("vanilla", input_size=(1, 8, 8))
        >>> (found,) = fitted([space.initial()], space, Budget(params=100_000))
        >>> complexity(space.initial()).params, complexity(found).params, found in space
        (1442, 97706, True)
    """

    def fits(network: Architecture) -> bool:
        return network in space and not budget.violations(costs_of(network, table), network)

    found = (_widest(network, getattr(space, "width_step", 1), fits) for network in networks)
    return list(dict.fromkeys(network for network in found if network is not None))


def _widest(network: Architecture, step: int, fits: Callable[[Architecture], bool]) -> Architecture | None:
    best = network if fits(network) else None
    low, high = (1.0, MOST_WIDENING) if best is not None else (1 / MOST_WIDENING, 1.0)
    for _ in range(_HALVINGS):
        multiplier = (low * high) ** 0.5
        wide = widened(network, multiplier, step)
        if wide is not None and fits(wide):
            best, low = wide, multiplier
        else:
            high = multiplier
    return best


def widened(network: Architecture, multiplier: float, step: int = 1) -> Architecture | None:
    """A network with all its widths times a number, in steps; None where its blocks do not take such widths."""
    try:
        return Architecture(wider(network.blocks, multiplier, step), network.input_size, network.num_classes)
    except ArchitectureError:  # cells whose parts concatenate take some widths alone
        return None
