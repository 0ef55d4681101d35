"""Depth, which an architecture knows of itself."""

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.base import CostInfo, register_cost


@register_cost(CostInfo("layers", per="architecture", help="Upper limit on layers, as Zen-NAS counts them."))
def layers(architecture: Architecture) -> int:
    """Depth as Zen-NAS counts it: the sum of the blocks' sub-layers."""
    return architecture.layers
