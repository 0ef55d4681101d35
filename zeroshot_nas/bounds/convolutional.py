r"""Upper bounds on CET and CERES of the chains of a space within a budget: no sums, but made of sums that are bounded.

Of a convolution with c output channels, n weights an output channel and L^2 positions, ranks are at most dimensions. A
tensor's effective channels c / (1 + e) are at most c, for an excess is never below 0, and its effective positions at
most all. The patch rank of an input is at most n: it is (channels read) / (1 + e) times k^2 / m with m >= 1, or the
latter alone where the convolution is depthwise. So for the N convolutions of a chain:

- Uses of weights and effective weights: :math:`U \le \sum c n L^2 \le F` and :math:`A \le \sum c n \le P` for limits F
  on FLOPs and P on params, which count these and more. With the first convolution's :math:`L_0^2` positions, of which
  later ones have no more, :math:`F \le L_0^2 P` as well.
- Outputs :math:`O = \sum c L^2` are at most F / n for the least n of any convolution, and a limit on activations.
- The logarithm is concave, so :math:`S \le \sum \log(1 + c L^2) \le N \log(1 + O / N)`; the root is, so
  :math:`Z \le \sum \sqrt{c L^2} \le \sqrt{N O}`; and :math:`(\sum L \sqrt a)^2 \le N_r F_r` for the convolutions of one
  resolution. Their logarithms add up to at most :math:`n \log(N F / n^2)` over n resolutions, as means compare.
- An entropy of shares by resolution is at most the logarithm of the number of resolutions.
- Depth: a ReLU leaves the share s = 0.25 / 0.341 of what is linear in the image, which is one layer of a plain chain. A
  convolution with batch norm leaves that part's share as it is, at energy 1. Where a residual unit adds a body with j
  ReLUs to a link of energy e, the share is multiplied by :math:`(s^j + e) / (1 + e)`, and e is at most 1: it is 1
  behind a projection, and behind a unit's ReLU at most 0.341 (1 + 1). So where each block type has at least d such
  layers for each of its convolutions, :math:`D_f \ge d N - 1`, and what D_f takes off is known for N. D_b takes off 0
  at least.
- The mean of 1 / c over N - 1 convolutions that read c channels is at least (N - 1) / P, since means compare and each
  has c weights or more, and at least 1 over the widest.

The bound is the maximum of what this leaves over N. It is looked for as far as more convolutions can add more than
their depth costs: each logarithm grows by at most 1/N, since what it is of is concave in N and 0 at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.blocks.base import ResidualBlock
from zeroshot_nas.chains.coding import Chains
from zeroshot_nas.chains.lowering import GATE, LOWERING, UnitKind
from zeroshot_nas.closed_form.ceres import BITS_PER_WEIGHT, DEPTH_POWER
from zeroshot_nas.closed_form.cet.propagation import LINEAR_SHARE
from zeroshot_nas.closed_form.cet.terms import LINEAR_LOSS, PLAIN_DEPTH
from zeroshot_nas.closed_form.training_length import IMAGES, LONG_STEPS, STEPS
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.spaces.base import SearchSpace
from zeroshot_nas.spaces.chain import ChainSpace


@dataclass(frozen=True)
class Sizes:
    """What the convolutions of a space's chains within a budget come to at most.

    Attributes:
        convolutions: Of a chain; infinity where layers have no limit.
        depth: D_f that each convolution adds at least.
        uses: FLOPs of all.
        uses_each: FLOPs of one.
        weights: Weights of all.
        outputs: Outputs of all.
        outputs_each: Outputs of one.
        widest: Channels that one reads at most.
        resolutions: How many different ones.
    """

    convolutions: float
    depth: float
    uses: float
    uses_each: float
    weights: float
    outputs: float
    outputs_each: float
    widest: float
    resolutions: int


def cet_bound(space: SearchSpace, budget: Budget, *, variant: str = "u") -> float | None:
    """What CET of no chain of the space within the budget exceeds; None where nothing is proved.

    Example:
        >>> from zeroshot_nas.spaces.base import get_space
        >>> round(cet_bound(get_space("resnet"), Budget(params=1e6, flops=160e6, layers=18)), 2) > 26.7
        True
    """
    sizes = sizes_of(space, budget)
    if sizes is None or variant != "u":
        return None
    entropies = 2 * math.log(sizes.resolutions)
    best = -math.inf
    for count in range(1, _most(sizes, 2, PLAIN_DEPTH) + 1):
        uses, outputs = _of(count, sizes)
        expressivity = count * math.log1p(outputs / count)
        gained = math.log1p(uses) + math.log(0.5 + expressivity) + entropies
        best = max(best, gained - _beyond(count, sizes, PLAIN_DEPTH))
    return best


def ceres_bound(space: SearchSpace, budget: Budget, *, images: int = IMAGES, steps: int = STEPS) -> float | None:
    """What CERES of no chain of the space within the budget exceeds; None where nothing is proved."""
    sizes = sizes_of(space, budget)
    if sizes is None:
        return None
    classes = max(space.num_classes, 2)
    depth = PLAIN_DEPTH * (steps / LONG_STEPS) ** DEPTH_POWER
    labels = 2 * math.log1p(images * math.log2(classes) / BITS_PER_WEIGHT / sizes.weights)
    best = -math.inf
    for count in range(1, _most(sizes, 4, depth) + 1):
        uses, outputs = _of(count, sizes)
        width = max(
            (2 * math.log(classes) + n * math.log(count * uses / n**2)) / (n + 1)
            for n in range(1, sizes.resolutions + 1)
        )
        narrowness = max(1 / sizes.widest, (count - 1) / sizes.weights)
        ratio = math.sqrt(LONG_STEPS / steps) * max(0.0, sizes.depth * count - 1) / 2 * narrowness
        lost = 2 * math.log1p(ratio) + _beyond(count, sizes, depth)
        best = max(best, width + 2 * math.log(0.5 + math.sqrt(count * outputs)) - lost)
    return best - labels


def sizes_of(space: SearchSpace, budget: Budget) -> Sizes | None:
    """The sizes of a space's chains within a budget; None of what is no chain of this package's residual blocks."""
    if not isinstance(space, ChainSpace) or not type(space).__module__.startswith("zeroshot_nas.spaces."):
        return None
    shapes = [_shape(space, name) for name in space.body_types]
    kinds = [shape for shape in shapes if shape is not None]
    if len(kinds) < len(shapes):
        return None
    channels, height, width = space.input_sizes[-1]  # the largest has the most of all
    resolutions = _resolutions(height, width)
    if type(space).__contains__ is ChainSpace.__contains__:  # its strides are known
        height, width = -(-height // space.stem_stride), -(-width // space.stem_stride)
        resolutions = 1 + sum(stride > 1 for stride in space.body_strides)
    positions, largest = height * width, space.max_width
    most = max(count for count, *_ in kinds)
    weights_each = max(channels * 49 * largest, largest**2, *(weights for *_, weights, _ in kinds))
    outputs_each = max(largest, *(outputs for *_, outputs in kinds)) * positions
    least = min(space.width_step, 8)  # inputs of a dense convolution; a depthwise one and a stem have 9 and more
    limits = budget.limits()
    weights = limits.get("params", math.inf)
    uses = min(limits.get("flops", math.inf), weights * positions)
    return Sizes(
        convolutions=1 + (limits["layers"] - 1) * most if "layers" in limits else math.inf,
        depth=min(1.0, *(depth / count for count, depth, *_ in kinds)),
        uses=uses,
        uses_each=float(weights_each * positions),
        weights=weights,
        outputs=min(limits.get("activations", math.inf), uses / least),
        outputs_each=float(outputs_each),
        widest=outputs_each / positions,
        resolutions=resolutions,
    )


def _shape(space: ChainSpace, name: str) -> tuple[int, float, int, int] | None:
    """Of a block type: convolutions a sub-layer at most, D_f a sub-layer at least, weights and outputs of one."""
    step, largest = space.width_step, space.max_width
    block: Any = space.body_block(name, 3 * step, 1, 2 * step)
    if not isinstance(block, ResidualBlock):
        return None
    alone = Chains.of([Architecture((block,), (5 * step, 8, 8))])
    if not LOWERING.covers(alone).all():
        return None
    blocks = LOWERING.blocks(alone)
    sub_layers = [LOWERING.units_of(int(kind)) for kind in (blocks.first[0], blocks.following[0])]
    depths = [depth for units in sub_layers if (depth := _depth(units)) is not None]
    if len(depths) < len(sub_layers):
        return None
    counts = [sum(len(unit.body) + (unit.shortcut is not None) for unit in units) for units in sub_layers]
    wide = LOWERING.blocks(Chains.of([Architecture((space.body_block(name, largest, 1, largest),), (largest, 8, 8))]))
    convs = LOWERING.convolutions(wide, np.array([0]), wide.first)
    counted = LOWERING.columns["role"][convs.slot] != GATE
    weights, channels = int((convs.out_channels * convs.fan_in)[counted].max()), int(convs.out_channels[counted].max())
    return max(counts), min(depths), weights, channels


def _depth(units: Sequence[UnitKind]) -> float | None:
    """D_f that units add at least; None where one has no link, or no ReLU behind it."""
    depth = 0.0
    for unit in units:
        if not unit.is_fork or not unit.rectified:
            return None
        relus = sum(rectified for *_, rectified in unit.body)
        depth += 1.0 - math.log((1 + LINEAR_SHARE**relus) / 2) / LINEAR_LOSS
    return depth


def _resolutions(height: int, width: int) -> int:
    """How many different resolutions a map has that is halved again and again."""
    count = 1
    while height * width > 1:
        height, width, count = -(-height // 2), -(-width // 2), count + 1
    return count


def _of(count: int, sizes: Sizes) -> tuple[float, float]:
    """FLOPs and outputs of so many convolutions."""
    return min(sizes.uses, count * sizes.uses_each), min(sizes.outputs, count * sizes.outputs_each)


def _beyond(count: int, sizes: Sizes, depth: float) -> float:
    """What the depth of so many convolutions takes off at least."""
    return max(0.0, sizes.depth * count - 1 - depth) / depth


def _most(sizes: Sizes, logarithms: int, depth: float) -> int:
    """Convolutions beyond which a score of so many logarithms falls, or that the budget allows."""
    return int(min(sizes.convolutions, max(logarithms * depth, depth + 1) / sizes.depth + 1))
