"""Networks such as a search visits, to measure a device on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.closed_form.zen import zen_closed_form
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ZeroShotNASError
from zeroshot_nas.spaces.base import SearchSpace

_MOVES = (10, 400)
_LAYERS = (4, 32)
_FINITE = 1_000_000


def calibration_networks(space: SearchSpace, count: int, max_flops: float, seed: int = 0) -> list[Architecture]:
    """Distinct networks at the ends of walks by the space's own moves, each under a budget of its own.

    Budgets spread evenly over the logarithm of FLOPs and over depth. Every other walk climbs the closed form of
    Zen-score, as a search does, and so comes to its narrow bottlenecks and large kernels; the rest wander. A space of
    few networks is sampled.

    Args:
        space: Where to walk.
        count: How many networks.
        max_flops: FLOPs (multiply-adds) of the largest budget.
        seed: Seed of the walks.

    Raises:
        ValueError: The space has no network within ``max_flops``, or fewer than ``count``.

    Example:
        >>> from zeroshot_nas.spaces.base import get_space
        >>> found = calibration_networks(get_space("resnet"), 4, max_flops=1e8)
        >>> len(set(found)), all(complexity(each).flops <= 1e8 for each in found)
        (4, True)
    """
    least = complexity(space.smallest("flops")).flops
    if max_flops < least:
        raise ValueError(
            f"max_flops must be at least {least:,}, of the smallest network there is; got {max_flops:,.0f}"
        )
    found: dict[Architecture, None] = {}
    walk = 0
    while len(found) < count and walk < 100 * count:
        walks = range(walk, min(walk + max(count - len(found), walk // 4), 100 * count))  # more where most end alike
        walk = walks.stop
        rngs = [python_rng(seed, each) for each in walks]
        if space.size() <= _FINITE:
            networks = [space.sample(rng) for rng in rngs]
        else:
            networks = _walked(space, math.log(least), math.log(max_flops), rngs, [each % 2 == 1 for each in walks])
        found |= dict.fromkeys(each for each in networks if complexity(each).flops <= max_flops)
    if len(found) < count:
        raise ValueError(
            f"only {len(found)} different networks were found, asked for {count}; raise max_flops or ask fewer"
        )
    return list(found)[:count]


def _walked(
    space: SearchSpace, least: float, most: float, rngs: Sequence[random.Random], climbs: Sequence[bool]
) -> list[Architecture]:
    """Where walks end, which take their steps side by side; each by its own generator alone."""
    limits = [(math.exp(rng.uniform(least, most)), rng.randint(*_LAYERS)) for rng in rngs]
    start = space.smallest("flops")
    networks = [start] * len(rngs)
    heights = [_height(start) if each else 0.0 for each in climbs]
    moves = [rng.randint(*_MOVES) for rng in rngs]
    for step in range(max(moves, default=0)):
        walking = [place for place, own in enumerate(moves) if own > step]
        mutants = _neighbours(space, [networks[place] for place in walking], [rngs[place] for place in walking])
        for place, mutant in zip(walking, mutants, strict=True):
            max_flops, max_layers = limits[place]
            if mutant.layers > max(max_layers, start.layers) or complexity(mutant).flops > max_flops:
                continue
            height = _height(mutant) if climbs[place] else 0.0
            if height >= heights[place]:
                networks[place], heights[place] = mutant, height
    return networks


def _neighbours(
    space: SearchSpace, networks: Sequence[Architecture], rngs: Sequence[random.Random]
) -> Sequence[Architecture]:
    """What ``mutate`` makes of each network by its generator; in one go where the space moves many at once."""
    if type(space).mutate_all is SearchSpace.mutate_all:
        return [space.mutate(network, rng) for network, rng in zip(networks, rngs, strict=True)]
    return space.mutate_all(networks, [rng.getrandbits(64) for rng in rngs], [1] * len(rngs))


def _height(network: Architecture) -> float:
    try:
        return zen_closed_form(network)
    except ZeroShotNASError:  # a kind of network that it has no rule for: the walk wanders
        return 0.0
