"""NAS-Bench-Macro's space: eight layers, each a shortcut or one of two MobileNetV2 blocks."""

from __future__ import annotations

from dataclasses import dataclass

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.blocks.layers import Layers
from zeroshot_nas.blocks.mobilenet_v2 import MobileNetV2, Shortcut
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.spaces.base import register_space
from zeroshot_nas.spaces.genotypes import Digits, DigitSpace, DigitString
from zeroshot_nas.spaces.notations import register_notation

STAGES = (2, 3, 3)
"""Layers of each stage; the first of a stage halves the resolution and doubles the channels."""

STEM_WIDTH, LAST_WIDTH = 32, 1280
"""Channels of the first and the last convolution."""


@register_space("nasbench_macro")
@dataclass(frozen=True)
class NASBenchMacro(DigitSpace):
    """Chains of MobileNetV2 blocks (Su et al., CVPR 2021, arXiv:2103.11922).

    A 3x3 convolution to 32 channels, eight layers in stages of 2, 3 and 3 with 64, 128 and 256 channels, a 1x1
    convolution to 1280; batch norm and ReLU behind both. A layer is 0, the identity (at a stage's start a 1x1
    convolution and batch norm), 1, a MobileNetV2 block of kernel 3 and expansion 3, or 2, one of kernel 5 and
    expansion 6.

    There are 3^8 = 6,561 strings of 3,969 networks: an identity inside a stage is the same wherever it stands. An
    identity counts as a layer. The notation is ``arch``, the eight digits. No departures from the authors' code.

    Args:
        input_size: Shape ``(C, H, W)`` of one image.
        num_classes: Outputs of the classifier.

    Example:
        >>> space = NASBenchMacro()
        >>> space.size(), space.to_string(space.from_string("02012100"))
        (6561, '02012100')
    """

    input_size: Shape = (3, 32, 32)
    num_classes: int = 10

    choices = (3,) * sum(STAGES)
    own_notation = "arch"

    def network(self, genotype: Digits) -> Architecture:
        blocks: list[BlockSpec] = [Layers(STEM_WIDTH, layers="conv3-bn-relu")]
        digits, width = iter(genotype), STEM_WIDTH
        for layers in STAGES:
            width *= 2
            blocks += [_layer(next(digits), width, 2 if index == 0 else 1) for index in range(layers)]
        blocks.append(Layers(LAST_WIDTH, layers="conv1-bn-relu"))
        return Architecture(tuple(blocks), self.input_size, self.num_classes)

    def genotype_of(self, architecture: Architecture) -> Digits | None:
        digits = []
        for block in architecture.blocks[1:-1]:
            if isinstance(block, Shortcut):
                digits.append(0)
            elif isinstance(block, MobileNetV2):
                digits.append(1 if block.expansion == 3 else 2)
        return tuple(digits) if len(digits) == sum(STAGES) else None

    def initial(self) -> Architecture:
        return self.network((1,) * sum(STAGES))

    def smallest(self, cost: str) -> Architecture:
        """Costs are sums over the layers, so the cheapest option of each layer makes the cheapest network."""
        return self.network(self.cheapest(lambda each: getattr(complexity(each), cost)))

    def canonical(self, architecture: Architecture) -> str:
        """The digits with each stage's identities moved behind its blocks; networks of one key are the same.

        Example:
            >>> space = NASBenchMacro()
            >>> space.canonical(space.from_string("02012100"))
            '02012100'
            >>> space.canonical(space.from_string("01202001"))
            '01220010'
        """
        digits = iter(self.to_string(architecture))
        key = ""
        for layers in STAGES:
            first, *rest = (next(digits) for _ in range(layers))
            key += first + "".join(rest).replace("0", "").ljust(layers - 1, "0")
        return key


@register_notation("nasbench_macro", "arch")
class LayerDigits(DigitString):
    """A digit a layer, the genotype itself."""

    length, options, what = sum(STAGES), "012", "architecture"


def _layer(digit: int, width: int, stride: int) -> BlockSpec:
    if digit == 0:
        return Shortcut(width, stride)
    return MobileNetV2(width, stride, expansion=3 * digit, kernel_size=2 * digit + 1)
