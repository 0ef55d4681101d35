"""What networks a supernet holds, and random ones of them. No torch here."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.cost import cost
from zeroshot_nas.errors import ArchitectureError, InfeasibleBudgetError

LEAST_KERNEL = 3
"""The smallest kernel that a larger one becomes, as in Once-for-all: a 1x1 convolution sees no neighbours."""

_DRAWS = 10_000
"""Networks that are drawn until one is within the budget."""


@dataclass(frozen=True)
class Elastic:
    """The networks that a largest one holds: widths, depths, kernels and expansions of each block up to its own.

    Args:
        largest: The largest network.
        width_step: Widths are the multiples of it, and the largest network's own.
        least_width: The least part of the largest network's width that a width is.
        budget: What a random network costs at most.

    Raises:
        ArchitectureError: A value is out of range.

    Example:
        >>> largest = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK5K5(16,32,2,24,3)")
        >>> elastic = Elastic(largest, width_step=8, least_width=0.5)
        >>> elastic.smallest().to_string()
        'SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,16,1)'
        >>> elastic.sample(random.Random(0)).to_string()
        'SuperConvK3BNRELU(3,16,1,1)SuperResK5K5(16,16,2,16,2)'
    """

    largest: Architecture
    width_step: int = 8
    least_width: float = 0.25
    budget: Budget | None = None

    def __post_init__(self) -> None:
        check_counts(1, ArchitectureError, width_step=self.width_step)
        if not 0 < self.least_width <= 1:
            raise ArchitectureError(f"least_width must be above 0 and at most 1, got {self.least_width!r}")

    def sample(self, rng: random.Random) -> Architecture:
        """A network whose every choice is drawn evenly, on its own; one above the budget is drawn again.

        Raises:
            InfeasibleBudgetError: So many were above it that there may be none within it.
        """
        for _ in range(_DRAWS):
            drawn = self._with(lambda choices: choices[int(rng.random() * len(choices))])
            if self.budget is None or not self.budget.violations(cost(drawn)):
                return drawn
        raise InfeasibleBudgetError(
            f"none of {_DRAWS:,} random networks was within {self.budget}; the smallest one costs "
            f"{cost(self.smallest())}. Give a larger budget, or a smaller largest network"
        )

    def smallest(self) -> Architecture:
        """The network of the least choices."""
        return self._with(lambda choices: choices[0])

    def _with(self, choose: Callable[[list[int]], int]) -> Architecture:
        blocks = []
        for block in self.largest.blocks:
            values = {name: choose(choices) for name, choices in self.choices(block)}
            blocks.append(replace(block, **values))
        return replace(self.largest, blocks=tuple(blocks), weight_bits=None)

    def choices(self, block: BlockSpec) -> Iterator[tuple[str, list[int]]]:
        """What each field of a block may be, the least first; fields that stay as they are are left out."""
        types = _types(type(block))
        fixed = set().union(*types)
        for each in fields(block):
            own = getattr(block, each.name)
            if each.name in fixed:
                least = min(own, LEAST_KERNEL) if each.name == "kernel_size" else 1
                yield each.name, sorted({values[each.name] for values in types if least <= values[each.name] <= own})
            elif each.name == block.depth_field:
                yield each.name, list(range(1, own + 1))
            elif each.name.endswith("_channels"):
                yield each.name, self._widths(own)

    def _widths(self, largest: int) -> list[int]:
        step = self.width_step
        first = max(1, math.ceil(self.least_width * largest / step)) * step
        return sorted({*range(first, largest + 1, step), largest})


@cache
def _types(kind: type[BlockSpec]) -> tuple[Mapping[str, int], ...]:
    """What the names fix that a kind of block is registered under."""
    return tuple(BLOCKS[name].fixed for name in BLOCKS if BLOCKS[name].cls is kind)
