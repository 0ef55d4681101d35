"""Training of a family: each member begins with its neighbour's weights."""

from __future__ import annotations

from dataclasses import replace

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.network.inheritance import inherit
from zeroshot_nas.network.module import Network
from zeroshot_nas.network.slicing import shrink
from zeroshot_nas.training.recipe import Recipe

TUNING = 0.25
"""Share of the epochs that a member gets which begins with its neighbour's weights."""


def tuning_recipe(recipe: Recipe, share: float = TUNING) -> Recipe:
    """A recipe for weights that were inherited: itself with a share of the epochs.

    Example:
        >>> tuning_recipe(Recipe(epochs=30)).epochs
        8
    """
    return replace(recipe, epochs=max(1, round(share * recipe.epochs)))


def begun_with(network: Network, architecture: Architecture, *, seed: int = 0) -> Network:
    """A network that begins with a trained neighbour's weights: sliced from a larger one, grown from a smaller one.

    Raises:
        ArchitectureError: Neither contains the other.
    """
    if complexity(architecture).params <= complexity(network.architecture).params:
        return shrink(network, architecture)
    return inherit(network, architecture, seed=seed)
