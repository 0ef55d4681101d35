"""Trainable values."""

from zeroshot_nas.architecture.ops import BatchNorm, Conv, Linear, Shape
from zeroshot_nas.costs.base import CostInfo, register_cost


@register_cost(
    CostInfo("params", ops=(Conv, BatchNorm, Linear), elementwise=True, help="Upper limit on parameters, e.g. 1M.")
)
def params(op: Conv | BatchNorm | Linear, _: Shape) -> int:
    """Weights and biases, and a scale and a shift for each channel of a batch norm.

    Example:
        >>> params(BatchNorm(8), (8, 4, 4))
        16
    """
    if isinstance(op, Conv):
        return op.out_channels * (op.fan_in + op.bias)
    if isinstance(op, BatchNorm):
        return 2 * op.channels
    return (op.in_features + op.bias) * op.out_features
