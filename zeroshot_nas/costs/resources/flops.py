"""Multiply-adds."""

from zeroshot_nas.architecture.ops import Conv, Linear, Shape
from zeroshot_nas.costs.base import CostInfo, register_cost


@register_cost(
    CostInfo(
        "flops",
        "FLOPs (multiply-adds)",
        ops=(Conv, Linear),
        elementwise=True,
        help="Upper limit on FLOPs (multiply-adds), e.g. 160M.",
    ),
)
def flops(op: Conv | Linear, output_shape: Shape) -> int:
    """Multiply-adds of convolutions and linear layers for one image; biases are not counted.

    Example:
        >>> flops(Conv(3, 8, 1), (8, 4, 4))
        384
    """
    channels, height, width = output_shape
    return (op.fan_in if isinstance(op, Conv) else op.in_features) * channels * height * width
