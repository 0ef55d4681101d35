"""Handwritten digits that come with scikit-learn, so that nothing is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import MissingExtraError
from zeroshot_nas.training.base import ImageData, register_data

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch")

TEST_FRACTION = 0.25
"""Share of the images kept for the test; the split is the same whatever the seed of a run."""


@register_data("digits")
def digits() -> ImageData:
    """1,797 scans of handwritten digits, one channel of 8x8 (the test set of the UCI optical recognition data).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "data") from error
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    train, test = train_test_split(range(len(labels)), test_size=TEST_FRACTION, stratify=labels, random_state=0)
    targets = torch.tensor(labels, dtype=torch.int64)
    names = tuple(map(str, range(10)))
    return ImageData(images[train], targets[train], images[test], targets[test], names, name="digits")
