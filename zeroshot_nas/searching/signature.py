"""What makes two networks alike, so that a search can try kinds of networks rather than one kind many times."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import block_steps
from zeroshot_nas.architecture.ops import Conv, Resolution


class Signature(NamedTuple):
    """What two networks that are alike have in common.

    Attributes:
        depth: Power of two that is nearest to the number of layers.
        resolutions: Resolutions that blocks put out.
        kernels: Quarters of all convolutions that are of each kernel size, depthwise (or grouped) or not.
    """

    depth: int
    resolutions: frozenset[Resolution]
    kernels: frozenset[tuple[int, bool, int]]


def signature(architecture: Architecture) -> Signature:
    """What makes a network alike to others.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,16,2)", (3, 8, 8))
        >>> signature(net).depth, sorted(signature(net).resolutions), sorted(signature(net).kernels)
        (4, [(4, 4), (8, 8)], [(1, False, 1), (3, False, 3)])
    """
    resolutions = set()
    counts: Counter[tuple[int, bool]] = Counter()
    for place in architecture.inputs():
        steps, resolution = block_steps(*place)
        resolutions.add(resolution)
        for step in steps:
            if isinstance(step.op, Conv):
                counts[step.op.kernel_size, step.op.groups > 1] += step.times
    quarters = {kind: round(4 * count / counts.total()) for kind, count in counts.items()}
    kernels = frozenset((*kind, share) for kind, share in quarters.items() if share)
    return Signature(2 ** round(math.log2(architecture.layers)), frozenset(resolutions), kernels)
