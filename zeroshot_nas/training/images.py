"""Image files as tensors, through Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor
else:
    np = LazyModule("numpy")
    torch = LazyModule("torch")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
"""Names of image files end so, in small or capital letters."""


def read_image(file: Path, input_size: Sequence[int]) -> Tensor:
    """An image file as a uint8 tensor ``(C, H, W)``: scaled so that it covers the size, and cropped at the centre.

    The camera's orientation is followed; transparency is dropped. One channel is grey, three are red, green and blue.

    Args:
        file: JPEG, PNG, WebP or what else Pillow reads.
        input_size: Shape ``(C, H, W)`` wanted, with 1 or 3 channels.

    Raises:
        DataError: The file is damaged or no image, or the channels are neither 1 nor 3; the message names the file.
        FileNotFoundError: There is no such file.
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError("Pillow", "data") from error
    channels, height, width = input_size
    if channels not in (1, 3):
        raise DataError(f"image files have 1 or 3 channels, the network takes {channels}; expected one of those")
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
            pixels = np.array(ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:  # Pillow's, by format
        raise DataError(f"{file} can't be read as an image: {error}; repair or remove it") from error
    return torch.from_numpy(pixels).view(height, width, channels).permute(2, 0, 1).contiguous()
