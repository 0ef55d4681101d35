"""Images to train on: `ImageData`, the registry of data sets, and how data are fitted to a network's input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot_nas.errors import DataError, ZeroShotNASError
from zeroshot_nas.registry import Registry


class RecipeError(ZeroShotNASError, ValueError):
    """A training recipe that is malformed."""


class TrainingError(ZeroShotNASError, ArithmeticError):
    """Training that can't go on: the loss is not finite."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled images in memory, a part to train on and a part to test on.

    Args:
        train_images: Images ``(N, C, H, W)``, float32 in [0, 1].
        train_labels: Classes ``(N,)``, int64, from 0 to ``len(class_names) - 1``.
        test_images: Images ``(M, C, H, W)``, as above.
        test_labels: Classes ``(M,)``, as above.
        class_names: The classes' names, in the order of their labels.
        name: What messages and results call the data.

    Raises:
        DataError: A shape, dtype or value is not as above.

    Example:
        >>> images, labels = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])
        >>> ImageData(images, labels, images, labels, ("cat", "dog"), name="pets").image_shape
        (1, 8, 8)
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        if not self.class_names:
            raise DataError("class_names must name every class, in the order of the labels; got none")
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            _check_images(images, f"{part}_images")
            _check_labels(labels, f"{part}_labels", len(images), len(self.class_names))
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"train and test images must have one shape, got {tuple(self.train_images.shape[1:])} and "
                f"{tuple(self.test_images.shape[1:])}; resize one of them"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width


DataFunction: TypeAlias = Callable[[], ImageData]

DATASETS: Registry[DataFunction] = Registry("data set", package="zeroshot_nas.training.datasets")


def register_data(name: str) -> Callable[[DataFunction], DataFunction]:
    """Registers a function without arguments that returns `ImageData` under a name."""

    def register(function: DataFunction) -> DataFunction:
        DATASETS.add(name, function)
        return function

    return register


def load_data(data: str | ImageData) -> ImageData:
    """A data set by its registered name; `ImageData` comes back as it is.

    Raises:
        UnknownNameError: No data set has that name.
        DataError: ``data`` is neither.
    """
    if isinstance(data, ImageData):
        return data
    if not isinstance(data, str):
        raise DataError(f"data is a name ({', '.join(DATASETS)}) or an ImageData, got {type(data).__name__}")
    return DATASETS[data]()


def list_data() -> list[str]:
    """Names of the registered data sets.

    Example:
        >>> "digits" in list_data()
        True
    """
    return list(DATASETS)


def fit_to(data: ImageData, input_size: Sequence[int]) -> ImageData:
    """The same data with images of a network's input size.

    Height and width are resized bilinearly, with antialiasing where they shrink. One channel is repeated to any number;
    three become one by their mean.

    Args:
        data: What to fit.
        input_size: Shape ``(C, H, W)`` of one image.

    Raises:
        DataError: The channels can't be adapted.

    Example:
        >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
        >>> fit_to(ImageData(images, labels, images, labels, ("a", "b"), "noise"), (3, 16, 16)).image_shape
        (3, 16, 16)
    """
    if len(input_size) != 3 or any(type(size) is not int or size < 1 for size in input_size):
        raise DataError(f"expected input_size (C, H, W) as whole numbers of 1 or more, got {tuple(input_size)!r}")
    if tuple(input_size) == data.image_shape:
        return data
    channels, *sides = input_size
    train_images, test_images = (
        _resize(_with_channels(images, channels, data.name), sides) for images in (data.train_images, data.test_images)
    )
    return replace(data, train_images=train_images, test_images=test_images)


def stratified_split(labels: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of the images to train on, and of a part held out with the classes in the same proportions.

    Args:
        labels: Classes ``(N,)``.
        fraction: Share to hold out; of each class, that share to within one image.
        generator: Which images of a class are held out.

    Example:
        >>> kept, held_out = stratified_split(torch.tensor([0, 0, 1, 1]), 0.5, torch.Generator().manual_seed(0))
        >>> len(kept), len(held_out)
        (2, 2)
    """
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels.cpu()[order].argsort(stable=True)]  # by class, at random within
    due = (torch.arange(len(labels) + 1, dtype=torch.float64) * fraction).floor()
    held_out = due.diff() > 0  # evenly spaced, so every class gives its share
    return order[~held_out], order[held_out]


def _with_channels(images: Tensor, channels: int, name: str) -> Tensor:
    given = images.shape[1]
    if given == channels:
        return images
    if given == 1:
        return images.repeat(1, channels, 1, 1)
    if (given, channels) == (3, 1):
        return images.mean(1, keepdim=True)
    raise DataError(
        f"the images of {name!r} have {given} channels, the network takes {channels}; expected equal numbers, "
        f"1 to any, or 3 to 1. Give the architecture an input_size with {given} channels"
    )


def _resize(images: Tensor, sides: Sequence[int]) -> Tensor:
    if tuple(images.shape[2:]) == tuple(sides):
        return images
    resized = F.interpolate(images, size=list(sides), mode="bilinear", antialias=True)
    return resized.clamp(0, 1)  # rounding may leave the range by an ulp


def _check_images(images: Tensor, name: str) -> None:
    if not isinstance(images, Tensor) or images.dtype != torch.float32 or images.ndim != 4 or not images.numel():
        raise DataError(f"{name} must be a float32 tensor (N, C, H, W) of one image or more, got {_describe(images)}")
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # not: NaN fails both
        raise DataError(
            f"{name} must be in [0, 1], got values from {low:.4g} to {high:.4g}; divide 8-bit images by 255, and leave "
            "mean and standard deviation to the trainer"
        )


def _check_labels(labels: Tensor, name: str, count: int, classes: int) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != (count,):
        raise DataError(f"{name} must be an int64 tensor ({count},), one label an image, got {_describe(labels)}")
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= classes:
        raise DataError(
            f"{name} must be from 0 to {classes - 1}, since class_names has {classes} names; "
            f"got labels from {low} to {high}"
        )


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
