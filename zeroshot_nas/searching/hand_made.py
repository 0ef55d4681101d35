"""The hand-made networks of a budget, which trials set beside what a search found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import Costs
from zeroshot_nas.errors import ArchitectureError, InfeasibleBudgetError
from zeroshot_nas.references.base import reference

FAMILIES, STRIDES = ("resnet8", "resnet14", "resnet20"), ("122", "222")
"""ResNets for small images (arXiv:1512.03385; ResNet-8 is MLPerf Tiny's, arXiv:2106.07597)."""


def hand_made(
    budget: Budget, input_size: Shape, num_classes: int, costs: Callable[[Architecture], Costs]
) -> Iterator[tuple[str, Architecture]]:
    """Names and networks: of each kind the widest that fits.

    Args:
        budget: What they may cost.
        input_size: Shape of one image.
        num_classes: Outputs of the classifier.
        costs: Counts their costs.
    """
    for family in FAMILIES:
        for strides in STRIDES:
            with suppress(InfeasibleBudgetError, ArchitectureError):  # no width fits, or no map is left to halve
                yield (
                    f"{family}-{strides}",
                    reference(f"{family}:strides={strides}", budget, input_size, num_classes, costs=costs),
                )
