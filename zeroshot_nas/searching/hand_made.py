"""The hand-made networks of a budget, which trials set beside what a search found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import Costs

DEPTHS, STRIDES = (8, 14, 20), ("122", "222")
"""Of the ResNets for small images (arXiv:1512.03385; ResNet-8 is MLPerf Tiny's, arXiv:2106.07597)."""


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
    for depth in DEPTHS:
        for strides in STRIDES:

            def render(width: float, depth: int = depth, strides: str = strides) -> Architecture:
                return _resnet(depth, strides, width, input_size, num_classes)

            if (network := _widest(render, budget, costs)) is not None:
                yield f"resnet{depth}-{strides}", network


def _resnet(depth: int, strides: str, multiplier: float, input_size: Shape, num_classes: int) -> Architecture:
    widths = [max(4, round(width * multiplier)) for width in (16, 32, 64)]
    blocks = [BLOCKS["SuperConvK3BNRELU"](out_channels=widths[0])]
    for width, stride in zip(widths, map(int, strides), strict=True):
        blocks.append(
            BLOCKS["SuperResK3K3"](
                out_channels=width, stride=stride, bottleneck_channels=width, sub_layers=(depth - 2) // 6
            )
        )
    return Architecture(tuple(blocks), input_size, num_classes)


def _widest(
    render: Callable[[float], Architecture], budget: Budget, costs: Callable[[Architecture], Costs]
) -> Architecture | None:
    """The network of the largest multiplier that fits; the published one where no limit depends on widths."""

    def fits(multiplier: float) -> bool:
        network = render(multiplier)
        return not budget.violations(costs(network), network)

    low, high = 0.02, 64.0
    if fits(high):
        return render(1.0)
    if not fits(low):
        return None
    while high / low > 1.002:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return render(low)
