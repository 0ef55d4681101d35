"""Hyper-parameters of training, and the learning rate's course that follows from them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from zeroshot_nas.training.base import RecipeError


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with Nesterov momentum, linear warm-up, then a cosine to zero.

    The form is Zen-NAS's (arXiv:2102.01063); the values suit a small network on some thousand small images.

    Args:
        epochs: Passes over the training images.
        batch_size: Images a step, 2 or more.
        learning_rate_per_256: Peak learning rate for a batch of 256; it scales with ``batch_size``.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty on weights; biases and batch norm have none.
        warmup_epochs: Epochs of linear warm-up; half of a run at most.
        label_smoothing: Share of the target spread over all classes.
        shift: Largest random shift in pixels of the network's input.
        flip: Mirrors images at random; not for digits or text.
        validation_fraction: Share of the training images that chooses the best epoch; 0 takes the last epoch.

    Raises:
        RecipeError: A value is out of range.

    Example:
        >>> Recipe(batch_size=128, learning_rate_per_256=0.4).peak_learning_rate
        0.2
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate_per_256: float = 0.4
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 3
    label_smoothing: float = 0.1
    shift: int = 1
    flip: bool = False
    validation_fraction: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("shift", 0)):
            value = getattr(self, name)
            _check(type(value) is int and value >= least, name, f"a whole number of {least} or more", value)
        for name in ("momentum", "label_smoothing", "validation_fraction"):
            value = getattr(self, name)
            _check(_is_number(value) and 0 <= value < 1, name, "a number from 0 to below 1", value)
        for name in ("learning_rate_per_256", "weight_decay", "warmup_epochs"):
            value = getattr(self, name)
            _check(_is_number(value) and value >= 0, name, "a finite number of 0 or more", value)
        _check(isinstance(self.flip, bool), "flip", "True or False", self.flip)

    @property
    def peak_learning_rate(self) -> float:
        """Learning rate at the end of the warm-up, for this batch size."""
        return self.learning_rate_per_256 * self.batch_size / 256

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of one step.

        It rises linearly to the peak, which the last warm-up step has, and falls as half a cosine that would reach zero
        one step after the last.

        Args:
            step: Steps done before this one in the whole run.
            steps_per_epoch: Steps of one epoch.

        Example:
            >>> recipe = Recipe(epochs=4, warmup_epochs=2, batch_size=256, learning_rate_per_256=1.0)
            >>> [round(recipe.learning_rate(step, steps_per_epoch=2), 3) for step in range(8)]
            [0.25, 0.5, 0.75, 1.0, 1.0, 0.854, 0.5, 0.146]
        """
        steps = self.epochs * steps_per_epoch
        warmup = round(min(self.warmup_epochs, self.epochs / 2) * steps_per_epoch)
        if step < warmup:
            return self.peak_learning_rate * (step + 1) / warmup
        return self.peak_learning_rate * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``Recipe(**recipe.to_dict())`` is the recipe again."""
        return asdict(self)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(right: bool, name: str, expected: str, value: object) -> None:
    if not right:
        raise RecipeError(f"{name} must be {expected}, got {value!r}")


RECIPES: dict[str, Recipe] = {
    "quick": Recipe(epochs=8, batch_size=32, learning_rate_per_256=0.8, warmup_epochs=2),
    "standard": Recipe(),
}
"""Recipes by name."""
