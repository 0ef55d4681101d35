"""Networks such as a search visits, to measure a device on."""

from __future__ import annotations

import math
import random

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
    for walk in range(100 * count):
        rng = python_rng(seed, walk)
        if space.size() <= _FINITE:
            network = space.sample(rng)
        else:
            limit = math.exp(rng.uniform(math.log(least), math.log(max_flops)))
            network = _walk(space, limit, rng.randint(*_LAYERS), rng, climbs=walk % 2 == 1)
        if complexity(network).flops <= max_flops:
            found.setdefault(network)
        if len(found) == count:
            return list(found)
    raise ValueError(
        f"only {len(found)} different networks were found, asked for {count}; raise max_flops or ask fewer"
    )


def _walk(space: SearchSpace, max_flops: float, max_layers: int, rng: random.Random, climbs: bool) -> Architecture:
    network = space.smallest("flops")
    height = _height(network) if climbs else 0.0
    max_layers = max(max_layers, network.layers)
    for _ in range(rng.randint(*_MOVES)):
        mutant = space.mutate(network, rng)
        if mutant.layers > max_layers or complexity(mutant).flops > max_flops:
            continue
        mutant_height = _height(mutant) if climbs else 0.0
        if mutant_height >= height:
            network, height = mutant, mutant_height
    return network


def _height(network: Architecture) -> float:
    try:
        return zen_closed_form(network)
    except ZeroShotNASError:  # a kind of network that it has no rule for: the walk wanders
        return 0.0
