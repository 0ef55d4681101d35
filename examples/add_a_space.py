"""A space of your own: networks that a few digits stand for.

Such a space says how a genotype and a network become each other. Sampling, mutation, crossover, counting and membership
follow, and every strategy searches it.

    python examples/add_a_space.py
    zeroshot-nas search stages --plugin examples/add_a_space.py --max-params 200k
"""

from dataclasses import dataclass

import zeroshot_nas as zs
from zeroshot_nas.blocks.conv import SuperConv
from zeroshot_nas.spaces.genotypes import Digits, DigitSpace, DigitString
from zeroshot_nas.testing import check_space

WIDTHS = (8, 16, 32, 64)
DEPTHS = (1, 2, 3)
STAGES = 3


@zs.register_space("stages")
@dataclass(frozen=True)
class Stages(DigitSpace):
    """Three stages of 3x3 convolutions; the width and the depth of each are free: (4 x 3)^3 = 1,728 networks."""

    input_size: tuple[int, int, int] = (3, 32, 32)
    num_classes: int = 10

    choices = (len(WIDTHS), len(DEPTHS)) * STAGES
    own_notation = "digits"

    def network(self, genotype: Digits) -> zs.Architecture:
        stages = zip(genotype[::2], genotype[1::2], strict=True)
        blocks = [
            SuperConv(WIDTHS[width], stride=1 if stage == 0 else 2, sub_layers=DEPTHS[depth], kernel_size=3)
            for stage, (width, depth) in enumerate(stages)
        ]
        return zs.Architecture(tuple(blocks), self.input_size, self.num_classes)

    def genotype_of(self, architecture: zs.Architecture) -> Digits | None:
        digits: list[int] = []
        for block in architecture.blocks:
            if block.out_channels not in WIDTHS or block.sub_layers not in DEPTHS:
                return None
            digits += [WIDTHS.index(block.out_channels), DEPTHS.index(block.sub_layers)]
        return tuple(digits) if len(digits) == 2 * STAGES else None

    def initial(self) -> zs.Architecture:
        return self.network((1, 1) * STAGES)

    def smallest(self, cost: str) -> zs.Architecture:
        return self.network((0, 0) * STAGES)


@zs.register_notation("stages", "digits")
class StageDigits(DigitString):
    """Width and depth of each stage, as in 101112."""

    length, options, what = 2 * STAGES, "0123", "a genotype of stages"


def main() -> None:
    space = zs.get_space("stages")
    check_space(space)
    print(space.size(), "networks, the first of which is", space.to_string(space.initial()))

    found = zs.search("stages", "cet", zs.Budget(params=100_000), searcher="grid", progress=False)
    print(
        f"{space.to_string(found.best.architecture)} has {found.best.costs.params:,} params", found.best.scores["cet"]
    )


if __name__ == "__main__":
    main()
