"""Trials of a search before any is trained: what is asked for, which networks are tried, and in which rounds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zeroshot_nas.errors import RecipeError, TrialsWarning
from zeroshot_nas.searchers.base import Candidate
from zeroshot_nas.searchers.trial import Round
from zeroshot_nas.searching.signature import Signature, signature
from zeroshot_nas.training.base import ImageData, absolute
from zeroshot_nas.training.recipe import Recipe, get_recipe

DEFAULT_RECIPE = "standard"

KINDS = 4
"""Kinds of networks that a screen keeps the best of, for each trial: a latency budget may rule some out."""


@dataclass(frozen=True)
class TrialSettings:
    """How a search tries its finalists.

    Attributes:
        count: Networks to try.
        data: What they are trained on.
        recipe: Of the full training that the winner may go on to.
    """

    count: int
    data: str | ImageData
    recipe: Recipe

    @property
    def filed_under(self) -> dict[str, Any]:
        """What the result depends on, JSON-ready; wherever the data lie, trainings compare their content."""
        name = self.data.name if isinstance(self.data, ImageData) else self.data
        return {"count": self.count, "data": name.partition(":")[0], "recipe": self.recipe.to_dict()}

    @property
    def call(self) -> dict[str, Any]:
        """The arguments as JSON, to ask for the same again; data are None that only the caller can give."""
        data = self.data.loaded_by if isinstance(self.data, ImageData) else absolute(self.data)
        return {"count": self.count, "data": data, "recipe": self.recipe.to_dict()}


def trial_settings(count: int, data: str | ImageData | None, recipe: Recipe | str | None) -> TrialSettings | None:
    """Trials as `zeroshot_nas.search` is asked for them; None where it is not.

    Raises:
        ValueError: ``count`` is neither 0 nor 2 or more, or trials lack data, or there are data or a recipe without
            trials.
        RecipeError: The recipe holds no validation images out, or is too short for so many networks.

    Warns:
        TrialsWarning: Networks are dropped before the recipe's warm-up ends.
    """
    if type(count) is not int or count < 0 or count == 1:
        raise ValueError(f"trials must be 0 for none, or a whole number of 2 or more, got {count!r}")
    if not count:
        for name, given in (("data", data), ("recipe", recipe)):
            if given is not None:
                raise ValueError(f"{name} is what trials train by, and there are none; give trials, such as 8, as well")
        return None
    if data is None:
        raise ValueError("trials need data to train on: data='digits', 'folder:photos/' (--data) or an ImageData")
    chosen = get_recipe(DEFAULT_RECIPE if recipe is None else recipe).for_new_weights()
    if not chosen.validation_fraction:
        raise RecipeError("trials are decided by validation images; give a recipe with a validation_fraction above 0")
    _warn_if_rash(count, halving(count, chosen.epochs, chosen.warmup_epochs), chosen)
    return TrialSettings(count, data, chosen)


def _warn_if_rash(count: int, rounds: Sequence[Round], recipe: Recipe) -> None:
    """Warns of a first round that ends within the warm-up."""
    dropped_after, warmup = rounds[0].until, recipe.warmup_epochs
    if dropped_after >= warmup:
        return
    fits = (each for each in range(count, 1, -1) if halving(each, recipe.epochs, warmup)[0].until >= warmup)
    fewer = next(fits, None)
    warnings.warn(
        f"half of {count} trials are dropped after epoch {dropped_after} of {recipe.epochs}, within the {warmup:g} of "
        f"warm-up, where accuracies tell little; give {f'{fewer} trials, or ' if fewer else ''}more epochs",
        TrialsWarning,
        stacklevel=4,
    )


def halving(networks: int, epochs: int, warmup: float = 0.0) -> tuple[Round, ...]:
    """Rounds of successive halving that cost, in epochs, at most one full training (arXiv:1502.07943).

    The better half, rounded up, is in the next round, until one is left. Each round gets an equal part of what is left
    of the epochs; the first one more where it would end within the warm-up, which tells little of a deep network. A
    recipe that is too short for all rounds has fewer: more networks are dropped after the last.

    Args:
        networks: How many are in the first round.
        epochs: Epochs of the recipe.
        warmup: Its warm-up in epochs.

    Raises:
        RecipeError: Even one epoch for each is more than one training.

    Example:
        >>> halving(8, 30)
        (Round(networks=8, until=1), Round(networks=4, until=3), Round(networks=2, until=10))
    """
    if networks > epochs:
        raise RecipeError(
            f"{networks} trials of one epoch each cost more than the recipe's {epochs} epochs; give {epochs} trials at "
            "most, or a longer recipe"
        )
    sizes: list[int] = []
    while networks > 1 and sum(sizes) + networks <= epochs:
        sizes.append(networks)
        networks = math.ceil(networks / 2)
    rounds: list[Round] = []
    until = 0
    for place, size in enumerate(sizes):
        step = max(1, epochs // (len(sizes) - place) // size)
        if not rounds:
            step = max(step, min(math.ceil(warmup), (epochs - sum(sizes[1:])) // size))
        until, epochs = until + step, epochs - size * step
        rounds.append(Round(size, until))
    return tuple(rounds)


def entrants(
    found: Sequence[Candidate],
    hand_made: Sequence[Candidate],
    count: int,
    is_allowed: Callable[[Candidate], bool] | None = None,
) -> list[Candidate]:
    """The networks to try, no two of them alike.

    The fittest found one, hand-made ones to half of all, and found ones; hand-made ones again where these are too few.

    Args:
        found: Networks that the search ranked; those without a score are passed over.
        hand_made: Others, the best first among which those with a score are.
        count: How many at most.
        is_allowed: Whether a network may be tried, asked of those alone that would be; None allows all.
    """
    ranked = sorted((each for each in found if math.isfinite(each.fitness)), key=_fittest_first)
    taken: dict[Signature, Candidate] = {}

    def take(candidates: Iterable[Candidate], until: int) -> None:
        for candidate in candidates:
            if len(taken) >= until:
                return
            alike = signature(candidate.architecture)
            if alike not in taken and (is_allowed is None or is_allowed(candidate)):
                taken[alike] = candidate

    by_hand = sorted(hand_made, key=_fittest_first)
    take(ranked, 1)
    take(by_hand, len(taken) + count // 2)
    take(ranked, count)
    take(by_hand, count)
    return list(taken.values())


def _fittest_first(candidate: Candidate) -> float:
    return -candidate.fitness
