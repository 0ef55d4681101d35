"""Bounds on a network's structure: depth over width, widths that never shrink, bottlenecks that aren't too narrow."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec, block_steps
from zeroshot_nas.architecture.ops import Conv, Resolution
from zeroshot_nas.errors import BudgetError


class Violation(NamedTuple):
    """One limit that a network exceeds.

    Attributes:
        cost: The limit's name: ``"params"``, ``"depth_to_width"``.
        value: What the network has.
        limit: What it may have at most.
    """

    cost: str
    value: float
    limit: float

    def __str__(self) -> str:
        return f"{self.cost} {self.value:,.10g}, the limit is {self.limit:,.10g}"


class DepthAndWidth(NamedTuple):
    """A block's main chain.

    Attributes:
        depth: Convolutions.
        log_width: Sum of their log fan-in.
    """

    depth: int
    log_width: float


@dataclass(frozen=True)
class StructureBounds:
    """Bounds that keep a score which grows with depth from ending in a thin and untrainable chain; None sets none.

    Args:
        depth_to_width: Upper bound on `effectiveness`; DeepMAD (arXiv:2303.02165) takes about 0.3.
        monotone_widths: Whether a block may not have fewer output channels than the block before it. A violation's
            value is the largest factor from one block to the next by which they shrink; its limit is 1.
        bottleneck_ratio: Upper bound on out_channels / bottleneck_channels of every block that has a bottleneck, as in
            TinyNAS's searches. A violation's value is the largest such ratio.

    Raises:
        BudgetError: A bound is not a positive number, or ``monotone_widths`` is no truth value.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,32,1,1)SuperResK3K3(32,16,2,2,1)")
        >>> bounds = StructureBounds(depth_to_width=0.3, monotone_widths=True, bottleneck_ratio=4)
        >>> for violation in bounds.violations(net):
        ...     print(*violation)
        monotone_widths 2.0 1
        bottleneck_ratio 8.0 4
    """

    depth_to_width: float | None = None
    monotone_widths: bool = False
    bottleneck_ratio: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.monotone_widths, bool):
            raise BudgetError(f"StructureBounds.monotone_widths must be True or False, got {self.monotone_widths!r}")
        for name in ("depth_to_width", "bottleneck_ratio"):
            bound = getattr(self, name)
            valid = isinstance(bound, int | float) and not isinstance(bound, bool) and bound > 0
            if bound is not None and not valid:
                raise BudgetError(
                    f"StructureBounds.{name} must be a number above 0, or None for no bound; got {bound!r}"
                )

    def limits(self) -> dict[str, float]:
        """The bounds that are set, by name; ready for JSON.

        Example:
            >>> StructureBounds(depth_to_width=0.3, monotone_widths=True).limits()
            {'depth_to_width': 0.3, 'monotone_widths': True}
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: bound for name, bound in values.items() if bound is not None and bound is not False}

    def violations(self, architecture: Architecture) -> tuple[Violation, ...]:
        """Every bound that the architecture breaks; none means that it keeps them all."""
        measures = (
            ("depth_to_width", self.depth_to_width, effectiveness),
            ("monotone_widths", 1 if self.monotone_widths else None, _largest_shrink),
            ("bottleneck_ratio", self.bottleneck_ratio, _narrowest_bottleneck),
        )
        return tuple(
            Violation(name, value, bound)
            for name, bound, measure in measures
            if bound is not None and (value := measure(architecture)) > bound
        )


ShapeBounds = StructureBounds
"""Its name in earlier releases."""


def effectiveness(architecture: Architecture) -> float:
    r"""Depth over width (Shen et al., "DeepMAD", CVPR 2023, arXiv:2303.02165); lower is easier to train.

    .. math:: \max_s D_s \exp(-W_s / D_s), \qquad W_s = \sum_{l \le s} \log \frac{C_{in}}{g} k^2

    D_s counts the convolutions of the main chain (no shortcuts, no gates) from the image to the end of stage s; the
    width is the geometric mean of their fan-in. A stage ends just before each later block whose stride is above 1, and
    at the end. A chain without convolutions has 0.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperConvK3BNRELU(16,32,2,1)", (3, 8, 8))
        >>> round(effectiveness(net), 4)  # 1 / 27 after the first stage, 2 / sqrt(27 144) after the second
        0.037
    """
    largest, depth, log_width = 0.0, 0, 0.0
    for index, (block, in_channels, resolution) in enumerate(architecture.inputs()):
        if index > 0 and block.stride > 1:
            largest = max(largest, _depth_over_width(depth, log_width))
        more = block_depth_and_width(block, in_channels, resolution)
        depth += more.depth
        log_width += more.log_width
    return max(largest, _depth_over_width(depth, log_width))


@lru_cache(maxsize=65_536)
def block_depth_and_width(block: BlockSpec, in_channels: int, resolution: Resolution) -> DepthAndWidth:
    """Depth and width of one block, memoised: in a search most blocks are those of the parent.

    Example:
        >>> from zeroshot_nas.blocks.conv import SuperConv
        >>> block_depth_and_width(SuperConv(out_channels=8, sub_layers=2, kernel_size=1), 1, (4, 4))  # log 1 + log 8
        DepthAndWidth(depth=2, log_width=2.0794415416798357)
    """
    depth, log_width = 0, 0.0
    for op, _, _, times, in_main_chain in block_steps(block, in_channels, resolution).steps:
        if in_main_chain and isinstance(op, Conv):
            depth += times
            log_width += times * math.log(op.fan_in)
    return DepthAndWidth(depth, log_width)


def _depth_over_width(depth: int, log_width: float) -> float:
    return depth * math.exp(-log_width / depth) if depth else 0.0


def _largest_shrink(architecture: Architecture) -> float:
    """The largest factor by which output channels shrink from one block to the next."""
    return max((before.out_channels / after.out_channels for before, after in pairwise(architecture.blocks)), default=0)


def _narrowest_bottleneck(architecture: Architecture) -> float:
    """The largest ratio of a block's output channels to its bottleneck channels."""
    bottlenecks = ((block.out_channels, getattr(block, "bottleneck_channels", None)) for block in architecture.blocks)
    return max((channels / bottleneck for channels, bottleneck in bottlenecks if bottleneck), default=0)
