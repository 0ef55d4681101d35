"""Images to train on: `ImageData`, the registry of data sets, and how data are fitted to a network's input."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.core.registry import Registry
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import DataError, FileFormatError

if TYPE_CHECKING:
    import numpy as np
    import torch
    import torch.nn.functional as F
    from torch import Tensor
    from torch.utils.data import Dataset
else:
    np = LazyModule("numpy")
    torch = LazyModule("torch")
    F = LazyModule("torch.nn.functional")


Split: TypeAlias = Mapping[str, Sequence[str]]
"""Names of files, relative to their folder, under ``"train"`` and ``"test"``."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled images in memory, a part to train on and a part to test on.

    Args:
        train_images: Images ``(N, C, H, W)``, float32 in [0, 1] or uint8 from 0 to 255, a quarter of the memory.
        train_labels: Classes ``(N,)``, int64, from 0 to ``len(class_names) - 1``.
        test_images: Images ``(M, C, H, W)``, as above.
        test_labels: Classes ``(M,)``, as above.
        class_names: The classes' names, in the order of their labels.
        name: What messages and results call the data.
        loaded_by: What `load_data` was called with, its path made absolute; None for images of one's own.
        held_out: Indices of the training images that choose the best epoch; None has a share of them drawn.
        split: The files of either part, ``"train"`` and ``"test"``, where that was drawn; None where it was given.

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
    loaded_by: str | None = field(default=None, kw_only=True)
    held_out: Tensor | None = field(default=None, kw_only=True)
    split: Split | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        parts = len(self.train_images), len(self.test_images), len(self.class_names)
        counts = "{:,} images to train on, {:,} to test on, {:,} classes".format(*parts)
        return f"ImageData({self.name}: {counts}, shape {self.image_shape}, {self.train_images.dtype})"

    def __post_init__(self) -> None:
        if not self.class_names:
            raise DataError("class_names must name every class, in the order of the labels; got none")
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            _check_images(images, f"{part}_images")
            _check_labels(labels, f"{part}_labels", len(images), len(self.class_names))
        if self.held_out is not None:
            _check_held_out(self.held_out, len(self.train_images))
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


DataFunction: TypeAlias = Callable[..., ImageData]
"""``() -> ImageData``; of data on disk ``(path) -> ImageData``, or ``(path, input_size) -> ImageData``."""

DATASETS: Registry[DataFunction] = Registry("data set", package="zeroshot_nas.training.datasets")


def register_data(name: str) -> Callable[[DataFunction], DataFunction]:
    """Registers a function that returns `ImageData` under a name.

    A function with an argument ``path`` reads data on disk, which are asked for as ``"name:path"``. One with an
    argument ``input_size`` is told the shape ``(C, H, W)`` that images are wanted in, or None; one with an argument
    ``split`` the `ImageData.split` to read again, or None.
    """

    def register(function: DataFunction) -> DataFunction:
        DATASETS.add(name, function)
        return function

    return register


def load_data(data: str | ImageData, input_size: Sequence[int] | None = None, split: Split | None = None) -> ImageData:
    """A data set by its registered name, with a path where it is on disk; `ImageData` comes back as it is.

    Args:
        data: ``"digits"``, ``"cifar10:/data/cifar-10-batches-py"``, ``"folder:photos/"``, or `ImageData`.
        input_size: Shape ``(C, H, W)`` to read images of several sizes in.
        split: The split of an earlier run, whose files are read again and no others; None draws one where need be.

    Raises:
        UnknownNameError: No data set has that name.
        DataError: ``data`` is neither, or a path is missing or too much.
    """
    if isinstance(data, ImageData):
        return data
    if not isinstance(data, str):
        raise DataError(f"data is a name ({', '.join(DATASETS)}) or an ImageData, got {type(data).__name__}")
    name, _, path = data.partition(":")
    if name not in DATASETS and Path(data).is_dir():
        raise DataError(f"{data!r} is no data set's name but a folder: give it as folder:{data}, or cifar10:{data}")
    function = DATASETS[name]
    takes = inspect.signature(function).parameters
    if ("path" in takes) != bool(path):
        raise DataError(
            f"{name} is read from disk: give its path as {name}:PATH"
            if "path" in takes
            else f"{name} takes no path, got {data!r}"
        )
    given = {"path": Path(path), "input_size": input_size, "split": split}
    images = function(**{key: value for key, value in given.items() if key in takes})
    object.__setattr__(images, "loaded_by", f"{name}:{Path(path).resolve()}" if path else name)
    return images


def from_datasets(
    train: Dataset[Any], test: Dataset[Any], class_names: Sequence[str], name: str = "dataset"
) -> ImageData:
    """Reads torch data sets of pairs (image, class) into memory.

    Args:
        train: Pairs to train on; an image is a tensor ``(C, H, W)``, uint8 or float32 in [0, 1], or a Pillow image.
            All images of a set have one shape.
        test: Pairs to test on.
        class_names: The classes' names, in the order of their labels.
        name: What messages and results call the data.

    Raises:
        DataError: An item is no such pair, or its image is of another shape than the first.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> pairs = TensorDataset(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
        >>> from_datasets(pairs, pairs, ("cat", "dog")).image_shape
        (3, 8, 8)
    """
    return ImageData(*_stacked(train), *_stacked(test), tuple(class_names), name)


def as_float(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def absolute(data: str) -> str:
    """A data set's name, with its path, where it has one, made absolute.

    Example:
        >>> absolute("digits"), absolute("folder:/photos")
        ('digits', 'folder:/photos')
    """
    name, colon, path = data.partition(":")
    return f"{name}:{Path(path).resolve()}" if colon else name


def read_split(file: Path) -> dict[str, list[str]] | None:
    """A split that was kept as JSON; None where there is no such file.

    Raises:
        FileFormatError: The file is damaged.
    """
    if not file.exists():
        return None
    try:
        split = json.loads(file.read_text(encoding="utf-8"))
        parts = {part: split[part] for part in ("train", "test")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged_split(file) from error
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in parts.values()):
        raise _damaged_split(file)
    return parts


def _damaged_split(file: Path) -> FileFormatError:
    return FileFormatError(
        f"{file} is damaged; expected an object with the lists 'train' and 'test'. Repair it, or remove it to draw a "
        "new split"
    )


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


def evenly(images: Tensor, count: int) -> Tensor:
    """So many of some images or indices, evenly spaced, all where there are fewer: files may be in order of class.

    Example:
        >>> evenly(torch.arange(10), 3), evenly(torch.arange(2), 3)
        (tensor([0, 3, 6]), tensor([0, 1]))
    """
    count = min(count, len(images))
    return images[torch.arange(count) * len(images) // max(count, 1)]


def learned_and_held_out(data: ImageData, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training images to learn from, and of those that choose the best epoch.

    Args:
        data: Images, which may hold some out themselves.
        fraction: Share to hold out; 0 for none.
        seed: Which.

    Raises:
        DataError: Either part is too small.
    """
    if data.held_out is not None and fraction:
        is_kept = torch.ones(len(data.train_labels), dtype=torch.bool).index_fill(0, data.held_out.cpu(), False)
        kept, held_out = is_kept.nonzero().flatten(), data.held_out.cpu()
    else:
        kept, held_out = stratified_split(data.train_labels, fraction, torch_generator(seed, 1))
    if len(kept) < 2 or (fraction and not len(held_out)):
        raise DataError(
            f"{len(data.train_labels)} training images at validation_fraction {fraction} leave "
            f"{len(kept)} to train on and {len(held_out)} to validate on; expected 2 and 1 or more. "
            "Give more images, or set validation_fraction to 0"
        )
    return kept, held_out


def _with_channels(images: Tensor, channels: int, name: str) -> Tensor:
    given = images.shape[1]
    if given == channels:
        return images
    if given == 1:
        return images.repeat(1, channels, 1, 1)
    if (given, channels) == (3, 1):
        return as_float(images).mean(1, keepdim=True)
    raise DataError(
        f"the images of {name!r} have {given} channels, the network takes {channels}; expected equal numbers, "
        f"1 to any, or 3 to 1. Give the architecture an input_size with {given} channels"
    )


def _resize(images: Tensor, sides: Sequence[int]) -> Tensor:
    if tuple(images.shape[2:]) == tuple(sides):
        return images
    resized = F.interpolate(as_float(images), size=list(sides), mode="bilinear", antialias=True)
    return resized.clamp(0, 1)  # rounding may leave the range by an ulp


def _check_images(images: Tensor, name: str) -> None:
    dtypes = (torch.float32, torch.uint8)
    if not isinstance(images, torch.Tensor) or images.dtype not in dtypes or images.ndim != 4 or not images.numel():
        raise DataError(
            f"{name} must be a float32 or uint8 tensor (N, C, H, W) of one image or more, got {_describe(images)}"
        )
    if images.dtype == torch.uint8:
        return
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # not: NaN fails both
        raise DataError(
            f"{name} must be in [0, 1], got values from {low:.4g} to {high:.4g}; divide 8-bit images by 255, and leave "
            "mean and standard deviation to the trainer"
        )


def _check_labels(labels: Tensor, name: str, count: int, classes: int) -> None:
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.shape != (count,):
        raise DataError(f"{name} must be an int64 tensor ({count},), one label an image, got {_describe(labels)}")
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= classes:
        raise DataError(
            f"{name} must be from 0 to {classes - 1}, since class_names has {classes} names; "
            f"got labels from {low} to {high}"
        )


def _check_held_out(held_out: Tensor, count: int) -> None:
    right = isinstance(held_out, torch.Tensor) and held_out.dtype == torch.int64 and held_out.ndim == 1
    places = set(held_out.tolist()) if right else set()
    if len(places) < len(held_out) or not places < set(range(count)) or not places:
        raise DataError(
            f"held_out must be an int64 tensor of different indices of the {count} training images, some of them but "
            f"not all; got {_describe(held_out)}"
        )


def _stacked(dataset: Dataset[Any]) -> tuple[Tensor, Tensor]:
    """All images and all labels of a torch data set."""
    images: list[Tensor] = []
    labels: list[int] = []
    for index in range(len(dataset)):  # type: ignore[arg-type]  # a Dataset with a length, or TypeError says so
        try:
            image, label = dataset[index]
            images.append(image if isinstance(image, torch.Tensor) else _from_pillow(image))
            labels.append(int(label))
        except (TypeError, ValueError) as error:
            raise DataError(f"item {index} of the data set is no pair of an image and a class: {error}") from error
        if images[-1].shape != images[0].shape or images[-1].dtype != images[0].dtype:
            raise DataError(
                f"image {index} of the data set is {_describe(images[-1])}, the first {_describe(images[0])}; "
                "they must be alike. Resize them in the data set"
            )
    if not images:
        raise DataError("the data set is empty; expected one pair of an image and a class or more")
    return torch.stack(images), torch.tensor(labels)


def _from_pillow(image: Any) -> Tensor:
    pixels = np.array(image, dtype=np.uint8)  # a copy, since torch shares its memory
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def _describe(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
