"""Hyper-parameters of training, and the learning rate's course that follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal

from zeroshot_nas.errors import RecipeError, UnknownNameError, did_you_mean

POLICIES = (None, "cifar10", "imagenet", "svhn")
PRECISIONS = ("float32", "bfloat16", "auto")
QUANTIZATIONS = (None, "int8", "int8_power_of_two")

_MOST_EPOCHS = 1_000_000
_FROM_ZERO = (
    *("learning_rate_per_256", "weight_decay", "warmup_epochs", "mixup"),
    *("gradient_clip", "distill_logits", "distill_features"),
)


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
        mixup: Both parameters of the beta distribution that mixes images in pairs (arXiv:1710.09412); 0 mixes none.
        random_erasing: Probability that a rectangle of an image is erased (arXiv:1708.04896).
        auto_augment: Policy of AutoAugment (arXiv:1805.09501), ``"cifar10"``, ``"imagenet"`` or ``"svhn"``, or None.
        ema_decay: Decay of the exponential moving average of the weights that is validated and kept; 0 keeps none.
        gradient_clip: Largest norm of all gradients together; 0 sets none.
        zero_init_residual: Sets the last batch norm's scale of each residual branch to 0 at the start.
        precision: ``"float32"``, ``"bfloat16"`` (autocast), or ``"auto"``: bfloat16 where the processor has
            instructions for it and the network's layout suits. Weights are float32 in any case.
        patience: Epochs without a better validation accuracy after which training stops; 0 never stops early.
        distill_logits: Weight of the cross entropy with a teacher's probabilities.
        distill_features: Weight of the smooth L1 distance to a teacher's feature maps.
        validation_fraction: Share of the training images that chooses the best epoch; 0 takes the last epoch.
        quantization: ``"int8"`` trains with values rounded as in the file for microcontrollers, from trained weights
            alone; ``"int8_power_of_two"`` with scales that are powers of two; None rounds nothing.

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
    mixup: float = 0.0
    random_erasing: float = 0.0
    auto_augment: str | None = None
    ema_decay: float = 0.0
    gradient_clip: float = 0.0
    zero_init_residual: bool = False
    precision: Literal["float32", "bfloat16", "auto"] = "auto"
    patience: int = 0
    distill_logits: float = 1.0
    distill_features: float = 1.0
    validation_fraction: float = 0.1
    quantization: Literal["int8", "int8_power_of_two"] | None = None

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("shift", 0), ("patience", 0)):
            value = getattr(self, name)
            _check(type(value) is int and value >= least, name, f"a whole number of {least} or more", value)
        _check(self.epochs <= _MOST_EPOCHS, "epochs", f"{_MOST_EPOCHS:,} or fewer", self.epochs)
        for name in ("momentum", "label_smoothing", "validation_fraction", "ema_decay"):
            value = getattr(self, name)
            _check(_is_number(value) and 0 <= value < 1, name, "a number from 0 to below 1", value)
        for name in _FROM_ZERO:
            value = getattr(self, name)
            _check(_is_number(value) and value >= 0, name, "a finite number of 0 or more", value)
        erasing = self.random_erasing
        _check(_is_number(erasing) and 0 <= erasing <= 1, "random_erasing", "a probability from 0 to 1", erasing)
        for name in ("flip", "zero_init_residual"):
            _check(isinstance(getattr(self, name), bool), name, "True or False", getattr(self, name))
        for name, choices in (
            ("auto_augment", POLICIES),
            ("precision", PRECISIONS),
            ("quantization", QUANTIZATIONS),
        ):
            value = getattr(self, name)
            _check(value in choices, name, f"one of {', '.join(map(repr, choices))}", value)
        _check(
            not (self.patience and not self.validation_fraction),
            "patience",
            "0 without a validation part",
            self.patience,
        )
        rounds = self.quantization is not None
        _check(not (rounds and self.precision == "bfloat16"), "precision", "float32 to be rounded", self.precision)
        _check(not (rounds and self.zero_init_residual), "zero_init_residual", "False for trained weights", True)

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
        """JSON-ready; ``Recipe(**recipe.to_dict())`` is the recipe again.

        ``quantization`` is left out where there is none, as earlier releases have it, whose runs go on.
        """
        return {name: value for name, value in asdict(self).items() if (name, value) != ("quantization", None)}

    def for_new_weights(self) -> Recipe:
        """The recipe itself, if it can train a network from the beginning.

        Raises:
            RecipeError: It starts from trained weights.
        """
        _check(
            self.quantization is None,
            "quantization",
            "none for a network that is not trained yet (train it, then zeroshot-nas qat RUN, or "
            'zs.quantize_aware("RUN"))',
            self.quantization,
        )
        return self


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(right: bool, name: str, expected: str, value: object) -> None:
    if not right:
        raise RecipeError(f"{name} must be {expected}, got {value!r}")


QAT = "qat"
"""The recipe that goes on from trained weights with rounded values."""

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "quick": Recipe(epochs=8, batch_size=32, learning_rate_per_256=0.8, warmup_epochs=2),
        "standard": Recipe(ema_decay=0.99, gradient_clip=5.0),
        "photos": Recipe(epochs=60, shift=4, flip=True, ema_decay=0.99, gradient_clip=5.0),
        "zennas": Recipe(
            epochs=1440,
            learning_rate_per_256=0.1,
            warmup_epochs=5,
            shift=4,
            flip=True,
            mixup=0.2,
            random_erasing=0.25,
            auto_augment="cifar10",
            zero_init_residual=True,
            validation_fraction=0.0,
        ),
        QAT: Recipe(epochs=3, learning_rate_per_256=0.005, warmup_epochs=0.5, ema_decay=0.99, quantization="int8"),
    }
)
"""Recipes by name.

``quick`` is for a look, ``standard`` for a small data set, neither with mirrored images, which digits and text must not
be; ``photos`` is ``standard`` for twice as long, mirrored and shifted by up to 4 pixels. ``zennas`` is Zen-NAS's for
CIFAR (arXiv:2102.01063): SGD with Nesterov momentum 0.9, 0.1 per 256 images, 1,440 epochs, cosine to zero, 5 of
warm-up, label smoothing 0.1, mixup 0.2, random erasing, AutoAugment, weight decay 5e-4 (4e-5 and 480 epochs for
ImageNet), last batch norms of residual branches at zero. Departures: no colour jitter, He's initialisation instead of
Xavier's with gain 3.26, batch norm momentum 0.1, no decay on biases and batch norms, and erased pixels are black.
``qat`` goes on from trained weights with values rounded to int8, at a learning rate that leaves them what they are:
eight bits cost little, and larger steps would be a training of its own.
"""


def list_recipes() -> list[str]:
    """Names of the recipes.

    Example:
        >>> list_recipes()
        ['photos', 'qat', 'quick', 'standard', 'zennas']
    """
    return sorted(RECIPES)


def recipe_table() -> list[tuple[str, ...]]:
    """What the recipes hold: a row for each hyper-parameter, a column for each recipe, with a row of names before.

    Example:
        >>> recipe_table()[:2]
        [('recipe', 'photos', 'qat', 'quick', 'standard', 'zennas'), ('epochs', '60', '3', '8', '30', '1440')]
    """
    recipes = [RECIPES[name] for name in list_recipes()]
    rows = [(field.name, *(_shown(getattr(each, field.name)) for each in recipes)) for field in fields(Recipe)]
    return [("recipe", *list_recipes()), *rows]


def _shown(value: object) -> str:
    """As ``--set`` takes it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def get_recipe(recipe: str | Recipe, **overrides: Any) -> Recipe:
    """A recipe by name, with some values replaced.

    Raises:
        UnknownNameError: No recipe has that name.
        RecipeError: An override is no hyper-parameter, or out of range.

    Example:
        >>> get_recipe("zennas", epochs=5).mixup
        0.2
    """
    if not isinstance(recipe, Recipe):
        if recipe not in RECIPES:
            raise UnknownNameError("recipe", str(recipe), RECIPES)
        recipe = RECIPES[recipe]
    names = [field.name for field in fields(Recipe)]
    if unknown := [name for name in overrides if name not in names]:
        raise RecipeError(
            f"a recipe has no {unknown[0]!r}.{did_you_mean(unknown[0], names)} It has: {', '.join(names)}"
        )
    return replace(recipe, **overrides)
