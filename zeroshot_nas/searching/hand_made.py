"""The hand-made networks of a budget, which trials set beside what a search found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import Costs
from zeroshot_nas.errors import ZeroShotNASError
from zeroshot_nas.references.base import REFERENCES, list_references, reference

STRIDES = ("122", "222")
"""Of families that leave them open: with a first stage at the stem's resolution, and without."""


def hand_made(
    budget: Budget, input_size: Shape, num_classes: int, costs: Callable[[Architecture], Costs]
) -> Iterator[tuple[str, Architecture]]:
    """Names and networks: of each kind whose costs can be told the widest that fits.

    Args:
        budget: What they may cost.
        input_size: Shape of one image.
        num_classes: Outputs of the classifier.
        costs: Counts their costs.
    """
    for family in (name for name in list_references() if REFERENCES[name].tried):
        options = [f":strides={strides}" for strides in STRIDES] if "strides" in REFERENCES[family].options else [""]
        for option in options:
            # no width fits, no map is left to halve, or a device table can't predict this family
            with suppress(ZeroShotNASError):
                network = reference(family + option, budget, input_size, num_classes, costs=costs)
                yield family + option.replace(":strides=", "-"), network
