"""Images of one's own: a folder of folders, one a class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.core.files import write_text
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import DataError, FileFormatError
from zeroshot_nas.training.base import ImageData, register_data, stratified_split
from zeroshot_nas.training.images import SUFFIXES, read_image

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

SPLIT = "split.json"
"""File in the folder that keeps which images are held out for the test."""

TEST_FRACTION = 0.2
"""Share of the images kept for the test where the split is ours."""

DEFAULT_SIZE = (3, 32, 32)
"""Shape of an image where no network says which."""


@register_data("folder")
def folder(path: Path, input_size: Sequence[int] | None = None) -> ImageData:
    """The image files of ``path/CLASS/``, or of ``path/train/CLASS/`` and ``path/test/CLASS/``.

    Without the latter a fifth of each class is held out for the test. Which, is drawn once and kept in
    ``path/split.json``, so that images added later don't move others; new ones are drawn by themselves. Images are
    held in memory, as 8-bit numbers of the network's input size.

    Args:
        path: The folder.
        input_size: Shape ``(C, H, W)`` to read the images in; None is 3x32x32.

    Raises:
        DataError: The folder is not as above, a class is empty, or a file is no image; the message names it.
        FileFormatError: ``split.json`` is damaged.
    """
    if not path.is_dir():
        raise DataError(f"{path} is no folder; expected one with a folder of images for each class")
    size = DEFAULT_SIZE if input_size is None else tuple(input_size)
    if (path / "train").is_dir() and (path / "test").is_dir():
        parts = [_files(path / "train"), _files(path / "test")]
        if parts[0].keys() != parts[1].keys():
            odd = sorted(parts[0].keys() ^ parts[1].keys())
            raise DataError(f"{path / 'train'} and {path / 'test'} must have the same classes; {odd[0]!r} is in one")
    else:
        parts = _split(path, _files(path))
    return ImageData(*_read(parts[0], size), *_read(parts[1], size), tuple(parts[0]), f"folder:{path}")


def _files(path: Path) -> dict[str, list[Path]]:
    """The image files of every class, in order."""
    found = {
        each.name: sorted(file for file in each.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        for each in sorted(path.iterdir())
        if each.is_dir() and not each.name.startswith(".")
    }
    if not found:
        raise DataError(f"{path} has no folders; expected one for each class, with its images")
    for name, files in found.items():
        if not files:
            raise DataError(
                f"the class folder {path / name} has no image ({', '.join(sorted(SUFFIXES))}); add some or remove it"
            )
    return found


def _split(path: Path, files: dict[str, list[Path]]) -> list[dict[str, list[Path]]]:
    """The files to train on and those to test on, by the kept split; what it does not know is drawn and added."""
    kept = _kept_split(path / SPLIT)
    names = [file.relative_to(path).as_posix() for several in files.values() for file in several]
    labels = torch.tensor([label for label, several in enumerate(files.values()) for _ in several])
    new = torch.tensor([index for index, name in enumerate(names) if name not in kept], dtype=torch.int64)
    if len(new):
        train, test = stratified_split(labels[new], TEST_FRACTION, torch_generator(0, len(kept)))
        for part, indices in (("train", train), ("test", test)):
            kept.update({names[int(new[index])]: part for index in indices})
        text = json.dumps(
            {part: sorted(n for n, p in kept.items() if p == part) for part in ("train", "test")}, indent=1
        )
        try:
            write_text(path / SPLIT, text + "\n")
        except OSError as error:
            raise DataError(
                f"the split could not be kept in {path / SPLIT} ({error}); make the folder writable, or divide it into "
                "train/ and test/ yourself"
            ) from error
    parts: list[dict[str, list[Path]]] = []
    for part in ("train", "test"):
        parts.append(
            {n: [f for f in each if kept[f.relative_to(path).as_posix()] == part] for n, each in files.items()}
        )
        for name, several in parts[-1].items():
            if not several:
                raise DataError(
                    f"the class folder {path / name} has too few images: none of its {len(files[name])} is left to "
                    f"{part} on; add some, or edit {path / SPLIT}"
                )
    return parts


def _kept_split(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    try:
        split = json.loads(file.read_text(encoding="utf-8"))
        return {name: part for part in ("train", "test") for name in split[part]}
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(
            f"{file} is damaged; expected an object with the lists 'train' and 'test'. Repair it, or remove it to draw "
            "a new split"
        ) from error


def _read(files: dict[str, list[Path]], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    images = torch.stack([read_image(file, size) for several in files.values() for file in several])
    return images, torch.tensor([label for label, several in enumerate(files.values()) for _ in several])
