"""What a search is told of the training that its winner will have. No torch unless there are data."""

from __future__ import annotations

from dataclasses import replace

from zeroshot_nas.errors import DataError, ProxyError
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY, Proxy
from zeroshot_nas.spaces.base import SearchSpace
from zeroshot_nas.training.base import ImageData, Split, fit_to, learned_and_held_out, load_data
from zeroshot_nas.training.recipe import Recipe, get_recipe

DEFAULT_RECIPE = "standard"

OPTIONS = frozenset({"images", "steps"})
"""Options of a proxy that asks how long the training is: images to learn from, and steps."""


def images_for(space: SearchSpace, data: str | ImageData, split: Split | None = None) -> ImageData:
    """Images of a space's input size; where it has several, as they are, files in the largest of these.

    Raises:
        DataError: They are not there, or not of the space's number of classes.
    """
    sizes = space.input_sizes
    images = load_data(data, sizes[-1], split)
    classes = len(images.class_names)
    if classes != space.num_classes:
        raise DataError(
            f"the search is for num_classes={space.num_classes}, but {images.name!r} has {classes} classes; "
            f"search with num_classes={classes}, on the command line --classes {classes}"
        )
    # of several sizes each training takes its own
    return fit_to(images, sizes[-1]) if len(sizes) == 1 else images


def recipe_for(data: object, recipe: Recipe | str | None) -> Recipe | None:
    """The recipe that a winner will be trained by; None where there are no data.

    Raises:
        ValueError: There is a recipe, and there are no data.
        RecipeError: The recipe goes on from trained weights.
    """
    if data is None:
        if recipe is not None:
            raise ValueError("recipe says how data are trained on, and there are none; give data as well")
        return None
    return get_recipe(DEFAULT_RECIPE if recipe is None else recipe).for_new_weights()


def asks_for_length(proxy: Proxy) -> bool:
    """Whether a proxy has options for the length of the training, and none of them is set."""
    return proxy.info.options.keys() >= OPTIONS and OPTIONS.isdisjoint(proxy.options)


def told(proxy: Proxy, images: ImageData, recipe: Recipe) -> Proxy:
    """The proxy with the length of a training on these images."""
    learned, _ = learned_and_held_out(images, recipe.validation_fraction, 0)  # as many with any seed
    return replace(proxy, options={**proxy.options, "images": len(learned), "steps": recipe.steps(len(learned))})


def refuse_unused(proxy: Proxy) -> None:
    """Refuses data that neither trials nor a score have a use for.

    Raises:
        ProxyError: What the score is, and what to do.
    """
    if OPTIONS & proxy.options.keys():
        raise ProxyError(f"{proxy.key} says itself how long the training is; leave data and recipe out, or its options")
    if not asks_for_length(proxy):
        raise ProxyError(
            f"{proxy.key} does not ask how long the winner will be trained, as {DEFAULT_SEARCH_PROXY} does; leave data "
            "and recipe out, or give trials, such as 8, which train on them"
        )
