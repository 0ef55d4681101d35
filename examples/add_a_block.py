"""A block of your own, and a space that is made of it.

A block is data: it says which operations it consists of. Costs, closed forms, latency, the torch module and export
follow.

    python examples/add_a_block.py
    zeroshot-nas search sandglass --plugin examples/add_a_block.py --max-params 100k --max-layers 12
"""

from dataclasses import dataclass
from typing import Any

import zeroshot_nas as zs
from zeroshot_nas.architecture.ops import Op, Residual
from zeroshot_nas.blocks.base import RELU, RESIDUAL_FIELDS, conv_bn, squeeze_and_excitation
from zeroshot_nas.spaces.chain import ChainSpace
from zeroshot_nas.testing import check_block, check_space


@zs.register_block("SandglassK{kernel_size}", plainnet_fields=RESIDUAL_FIELDS, kernel_size=(3, 5))
@dataclass(frozen=True)
class Sandglass(zs.BlockSpec):
    """The block of MobileNeXt (arXiv:2007.02269): depthwise, 1x1 to fewer channels, 1x1, depthwise, with a shortcut."""

    bottleneck_channels: int = 8
    squeeze_excite: bool = False
    kernel_size: int = 3

    def first(self, in_channels: int) -> tuple[Op, ...]:
        width, kernel = self.out_channels, self.kernel_size
        body = (
            *(*conv_bn(in_channels, in_channels, kernel, groups=in_channels), RELU),
            *conv_bn(in_channels, self.bottleneck_channels, 1),
            *(*conv_bn(self.bottleneck_channels, width, 1), RELU),
            *([squeeze_and_excitation(width)] if self.squeeze_excite else []),
            *conv_bn(width, width, kernel, self.stride, groups=width),
        )
        same_shape = in_channels == width and self.stride == 1
        return Residual(body, () if same_shape else conv_bn(in_channels, width, 1, self.stride)), RELU


@zs.register_space("sandglass")
def sandglass(*, input_size: tuple[int, int, int], num_classes: int, **options: Any) -> zs.SearchSpace:
    """Chains of it: a 3x3 stem, such blocks of free width, depth and kernel, a last 1x1 convolution."""
    return ChainSpace("sandglass", ("SandglassK3", "SandglassK5"), input_size, num_classes, **options)


def main() -> None:
    check_block("SandglassK3")  # its channels and strides are what it says, its costs those of the module
    check_space(zs.get_space("sandglass", input_size=(3, 16, 16)))

    budget = zs.Budget(params=100_000, layers=12)
    found = zs.search("sandglass", budget=budget, input_size=(3, 16, 16), proposals=2_000, progress=False)
    print(found.best.architecture.to_string())
    print(found.best.costs)


if __name__ == "__main__":
    main()
