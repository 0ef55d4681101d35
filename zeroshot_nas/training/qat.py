"""`quantize_aware`: a trained network goes on with its values rounded as its int8 file rounds them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from zeroshot_nas.errors import DataError, OutputExistsError, RecipeError, UnfinishedRunWarning, UnknownNameError
from zeroshot_nas.runs.options import RunOptions, run_options
from zeroshot_nas.training.base import ImageData, load_data, read_split
from zeroshot_nas.training.checkpoint import SPLIT, read_result
from zeroshot_nas.training.recipe import QAT, Recipe, get_recipe
from zeroshot_nas.training.result import TrainResult
from zeroshot_nas.training.trainer import load_roundable, train

_OF_THE_DATA = (
    *("batch_size", "label_smoothing", "shift", "flip", "mixup", "random_erasing", "auto_augment"),
    "validation_fraction",
)
"""Hyper-parameters that say what images are like, and which of them were not learned from."""


def quantize_aware(
    weights: str | Path,
    data: str | ImageData | None = None,
    recipe: Recipe | str = QAT,
    run: RunOptions | None = None,
    *,
    power_of_two: bool = False,
    teacher: nn.Module | str | Path | None = None,
    seed: int | None = None,
    device: str | torch.device | None = None,
    threads: int | None = None,
    **options: Any,
) -> TrainResult:
    """Trains a run's network further while all its values are rounded as in its int8 file (Jacob et al., 2018).

    Weights, biases and every tensor between two operators are rounded by the same rules as in the file, with gradients
    as if they were not; batch norms are folded with the statistics that they have. The ranges of tensors begin with
    those on 256 training images, follow the batches for the first half of the epochs, and are fixed for the rest.
    Exporting the result to ``tflite`` needs no calibration images. All else is as in `train`: the same seed gives the
    same weights, and a run that was stopped goes on.

    Args:
        weights: Folder of a run that `train` made, or its file of weights; it is left as it is.
        data: The images; default: the run's, with the same test images.
        recipe: Hyper-parameters, or the name of a recipe. ``"qat"`` takes augmentation, batch size, label smoothing and
            the part for validation from the run's own recipe.
        run: As in `train`.
        power_of_two: Whether every scale is a power of two, so that a device rescales by shifts.
        teacher: As in `train`; a teacher's feature maps are not compared.
        seed: Default: the run's, so that the images for validation are those that it did not learn from.
        device: As in `train`.
        threads: As in `train`.
        options: ``out``, ``resume``, ``force``, ``progress``, ``callbacks`` one by one, which win over ``run``.

    Returns:
        The result; its accuracies, and its network, are with rounded values.

    Raises:
        FileNotFoundError: There are no such weights.
        FileFormatError: They are damaged.
        RecipeError: The network is quantised already, has operators that int8 lacks, or the recipe can't round.
        DataError: The run's data are not known by name, or don't fit.
        OutputExistsError: ``out`` holds a run, or is the one that is started from.

    Warns:
        UnfinishedRunWarning: The run was interrupted or killed, or still goes on.

    Example:
        >>> import tempfile, zeroshot_nas as zs
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net = zs.Architecture.from_string("SuperConvK3BNRELU(1,8,2,1)", (1, 8, 8), num_classes=10)
        ...     first = zs.train(net, "digits", zs.Recipe(epochs=1, batch_size=256), out=folder, progress=False)
        ...     rounded = zs.quantize_aware(folder, recipe=zs.Recipe(epochs=1), power_of_two=True, progress=False)
        >>> rounded.recipe.quantization
        'int8_power_of_two'
    """
    run = run_options(run, options, "quantize_aware", takes=("out", "resume", "force", "progress", "callbacks"))
    folder = folder_of(weights)
    if run.folder is not None and run.folder.resolve() == folder.resolve():
        raise OutputExistsError(f"{folder} holds the weights to start from; give another folder for the int8 run")
    network = load_roundable(weights)
    told = read_result(Path(weights))
    warn_unfinished(folder, told)
    if data is None:
        data = data_of(folder, told, network.architecture.input_size)
    chosen = rounding_recipe(weights, recipe, power_of_two=power_of_two)
    seed = told.get("seed", 0) if seed is None else seed
    return train(weights, data, chosen, run, teacher=teacher, seed=seed, device=device, threads=threads)


def rounding_recipe(
    weights: str | Path, recipe: Recipe | str = QAT, *, power_of_two: bool = False, **changes: Any
) -> Recipe:
    """The recipe for a run's weights: what belongs to the data is the run's where the recipe is ``"qat"``.

    Args:
        weights: The run.
        recipe: Hyper-parameters, or the name of a recipe.
        power_of_two: Whether every scale is a power of two.
        changes: Hyper-parameters that are another's.

    Raises:
        RecipeError: A change is out of range, or contradicts ``power_of_two``.
    """
    known = read_result(Path(weights)).get("recipe", {}) if recipe == QAT else {}
    chosen = get_recipe(recipe, **{**{name: known[name] for name in _OF_THE_DATA if name in known}, **changes})
    wanted: Literal["int8", "int8_power_of_two"] = "int8_power_of_two" if power_of_two else "int8"
    if power_of_two and changes.get("quantization", wanted) != wanted:
        raise RecipeError(f"power_of_two asks for {wanted!r}, but quantization={changes['quantization']!r} is set")
    if power_of_two or chosen.quantization is None:
        chosen = get_recipe(chosen, quantization=wanted)
    return chosen


def default_int8_folder(weights: Path, recipe: Recipe) -> Path:
    """Where the command line keeps an int8 run: beside the run that it starts from."""
    folder = folder_of(weights).resolve()
    return Path(f"{folder}-{str(recipe.quantization).replace('_', '-')}")


def warn_unfinished(folder: Path, told: Mapping[str, Any]) -> None:
    """Warns, in the name of a caller's caller, where a run to start from is not at its end."""
    if told.get("state", "done") != "done":
        warnings.warn(
            f"{folder} is {told['state']}, {told['epochs']} of {told['recipe']['epochs']} epochs are done; its best "
            "weights so far are started from",
            UnfinishedRunWarning,
            stacklevel=3,
        )


def folder_of(weights: str | Path) -> Path:
    """The folder of a run, by it or by a file in it."""
    path = Path(weights)
    return path if path.is_dir() else path.parent


def data_of(folder: Path, told: Mapping[str, Any], size: tuple[int, int, int]) -> str | ImageData:
    """A run's data, in the run's own split.

    Raises:
        DataError: The run does not say what they are.
    """
    name = told.get("data")
    if name is None:
        raise DataError(f"{folder} does not say what it was trained on; give the data (--data)")
    split = read_split(folder / SPLIT)
    if split is None:
        return str(name)
    try:
        return load_data(name, size, split)
    except UnknownNameError:
        return str(name)
