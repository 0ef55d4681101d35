"""Image files as tensors, through Pillow."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image
    from torch import Tensor
else:
    np = LazyModule("numpy")
    torch = LazyModule("torch")

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Names of image files end so, in small or capital letters."""

OTHER_SUFFIXES = frozenset(
    {".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".tga", ".ico", ".psd", ".svg", ".eps", ".exr", ".hdr", ".pfm"}
    | {".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".dcm", ".apng", ".dib", ".pcx"}
)
"""Names of images that are not read end so."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's plug-ins that a file may reach, whatever its name; others start programs or are of no use here."""

MAX_PIXELS = 1 << 26
"""Pixels of the largest image that is decoded as a whole, 67 million; of a larger JPEG a smaller copy is decoded."""

FITTING = (
    "scaled bilinearly, with antialiasing, until it covers the input's height and width, then cropped at the centre; "
    "the camera's orientation is followed, transparency dropped"
)
"""How an image file is fitted to a network's input."""

_DEPTHS = (1.0, 255.0, 65535.0)
"""White in numbers of 1, 8 and 16 bits."""


_SYSTEM = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__")
"""Folders that systems and programs leave among a user's files."""


def is_skipped(name: str) -> bool:
    """Whether a file or folder is hidden, or one that systems leave behind."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_image(file: Path) -> bool:
    """Whether a file is an image, by its name."""
    return file.suffix.lower() in SUFFIXES and file.is_file()


def walk(path: Path) -> Iterator[Path]:
    """All files under a folder that are not hidden, nor in a hidden folder.

    Raises:
        DataError: A folder can't be read.
    """
    for place, folders, files in os.walk(path, onerror=_refuse_unreadable):
        folders[:] = [each for each in folders if not is_skipped(each)]
        yield from (Path(place, each) for each in files if not is_skipped(each))


def _refuse_unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename} can't be read ({error.strerror}); allow it or move it away") from error


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files given, and in place of a folder the images in it, in order.

    Raises:
        DataError: A folder has no image.
    """
    files: list[Path] = []
    for path in paths:
        within = sorted(file for file in walk(path) if is_image(file)) if path.is_dir() else [path]
        if not within:
            raise DataError(
                f"{path} has no image ({', '.join(sorted(SUFFIXES))}); give image files, or a folder of them"
            )
        files += within
    return files


def read_image(file: Path, input_size: Sequence[int]) -> Tensor:
    """An image file as a uint8 tensor ``(C, H, W)``: scaled so that it covers the size, and cropped at the centre.

    The camera's orientation is followed where EXIF is not damaged; transparency is dropped. One channel is grey, three
    are red, green and blue. Images of 16 bits are scaled by 1/257. Images of 32-bit or floating-point numbers do not
    say what white is: 1 where no number is above it, else 255, else 65,535.

    Args:
        file: JPEG, PNG, WebP, BMP, GIF, TIFF or PPM (PGM, PBM), known by its content.
        input_size: Shape ``(C, H, W)`` wanted, with 1 or 3 channels.

    Raises:
        DataError: The file is damaged, too large or no image, or the channels are neither 1 nor 3; the message names
            the file.
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
    if file.is_dir():
        raise DataError(f"{file} is a folder; expected an image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of what is harmless and of sizes that are checked here
            with Image.open(file, formats=FORMATS) as image:
                _bound(image)
                upright = _as_8_bit(_upright(image)).convert("L" if channels == 1 else "RGB")
                pixels = np.array(ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR))
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is not there; expected an image file") from None
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    except Exception as error:  # of a damaged file Pillow's plug-ins raise anything
        raise DataError(f"{file} can't be read as an image: {_reason(error)}; repair or remove it") from error
    return torch.from_numpy(pixels).view(height, width, channels).permute(2, 0, 1).contiguous()


def _bound(image: Image) -> None:
    """Keeps the memory of decoding within bounds: a JPEG can be decoded at a half, a quarter or an eighth."""
    width, height = image.size
    if width * height > MAX_PIXELS and image.format in ("JPEG", "MPO"):
        shrink = (width * height / MAX_PIXELS) ** 0.5
        image.draft(None, (int(width / shrink / 2), int(height / shrink / 2)))
        width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(
            f"it has {width:,} x {height:,} pixels, and at most {MAX_PIXELS:,} are taken; scale it down or remove it"
        )


def _upright(image: Image) -> Image:
    """The image as the camera was held; as it is where its EXIF is damaged."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF of any kind of nonsense; what else is wrong with the image is found when it is converted
        return image


def _as_8_bit(image: Image) -> Image:
    """An image of 8-bit numbers; Pillow's own conversion would cut larger ones off at 255."""
    from PIL.Image import fromarray

    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image).astype(np.float32)
    is_16_bit = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
    white = (
        65535.0 if is_16_bit else next((each for each in _DEPTHS[image.mode != "F" :] if values.max() <= each), None)
    )
    if white is None or not (values.min() >= 0 and values.max() <= white):  # not: NaN fails both
        raise DataError(
            f"its numbers (mode {image.mode}) go from {values.min():g} to {values.max():g}, expected 0 to 1, 255 or "
            "65,535; scale them or remove it"
        )
    values *= 255 / white
    return fromarray(np.rint(values, out=values).astype(np.uint8))


def _reason(error: Exception) -> Any:
    """What Pillow or the system says, without the number of the error and the file's name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
