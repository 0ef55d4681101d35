"""Outputs of convolutions and linear layers."""

from zeroshot_nas.architecture.ops import Conv, Linear, Shape
from zeroshot_nas.costs.base import CostInfo, register_cost


@register_cost(
    CostInfo("activations", ops=(Conv, Linear), elementwise=True, help="Upper limit on activations, e.g. 500k.")
)
def activations(_: Conv | Linear, output_shape: Shape) -> int:
    """Values that a convolution or a linear layer puts out for one image (Radosavovic et al., arXiv:2003.13678).

    Example:
        >>> activations(Conv(3, 8, 1), (8, 4, 4))
        128
    """
    channels, height, width = output_shape
    return channels * height * width
