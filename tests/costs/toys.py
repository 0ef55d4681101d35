"""Two costs as a plug-in has them: the convolutions, a sum over operations, and the widest block, of the whole."""

from zeroshot_nas.architecture.ops import Conv
from zeroshot_nas.costs.base import CostInfo, register_cost

CALLS = []


@register_cost(CostInfo("convolutions", ops=(Conv,), help="Upper limit on convolutions, e.g. 9."))
def convolutions(op, output_shape):
    return 1


@register_cost(CostInfo("peak_width", per="architecture", unit="channels"))
def peak_width(architecture):
    CALLS.append(architecture)
    return max(block.out_channels for block in architecture.blocks)
