"""Images of one's own: a folder of folders, one a class."""

from __future__ import annotations

import hashlib
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import DataError, DataWarning
from zeroshot_nas.training.base import ImageData, Split, read_split, register_data
from zeroshot_nas.training.images import OTHER_SUFFIXES, SUFFIXES, is_image, is_skipped, read_image, walk

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

SPLIT = "split.json"
"""File that a user may put into the folder to say which images are held out for the test, such as a run's."""

TEST_FRACTION = 0.2
"""Share of the images kept for the test where the split is ours."""

DEFAULT_SIZE = (3, 32, 32)
"""Shape of an image where no network says which."""

PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "validate", "eval", "evaluation", "dev"),
    "test": ("test", "testing"),
}
"""Names of folders, in small or capital letters, that hold parts of the data and are no classes."""

_Files: TypeAlias = dict[str, list[Path]]
"""Image files by class."""


@register_data("folder")
def folder(path: Path, input_size: Sequence[int] | None = None, split: Split | None = None) -> ImageData:
    """The image files of ``path/CLASS/``, or of ``path/train/CLASS/`` beside ``path/test/CLASS/``.

    The parts may also be called ``training``, ``testing``, ``val``, ``valid`` or ``validation``, in any case. The
    latter are the test part where there is no other, else they choose the best epoch.

    Without parts a fifth of each class is held out for the test, one image at least of two or more. Which, follows
    from the files' names, so that an image that is added moves at most one other of its class. A run keeps its split
    in its own folder; a copy of that ``split.json`` in ``path`` holds for all runs, and images added later are drawn
    beside it. Images are held in memory, as 8-bit numbers of the network's input size.

    Hidden files and folders are skipped at every depth, and so is what systems leave behind, such as ``__MACOSX``.

    Args:
        path: The folder.
        input_size: Shape ``(C, H, W)`` to read the images in; None is 3x32x32.
        split: The split of an earlier run, whose images are read again and no others.

    Raises:
        DataError: The folder is not as above, a class is empty, or a file is no image; the message names it.
        FileFormatError: ``split.json`` is damaged.

    Warns:
        DataWarning: Images are left out: of formats that are not read, or in no class.
    """
    if not path.is_dir():
        raise DataError(f"{path} is no folder; expected one with a folder of images for each class")
    size = DEFAULT_SIZE if input_size is None else tuple(input_size)
    given = _parts(path)
    if given:
        parts = {part: _classes(where) for part, where in given.items()}
        _check_same_classes(given, parts)
        drawn = None
    else:
        parts = _split(path, _classes(path), split)
        drawn = {
            part: [_name(path, file) for files in several.values() for file in files] for part, several in parts.items()
        }
    if len(parts["train"]) < 2:
        (only,) = parts["train"]
        raise DataError(f"{path} has one class only, {only!r}; expected a folder for each of two classes or more")
    _warn_of_others(path, list(given.values()) or [path])
    test = parts.get("test") or parts["validation"]
    train, held_out = parts["train"], None
    if "test" in parts and "validation" in parts:
        train = {name: [*files, *parts["validation"][name]] for name, files in train.items()}
        ours = [file in set(parts["validation"][name]) for name, files in train.items() for file in files]
        held_out = torch.tensor(ours).nonzero().flatten()
    name = f"folder:{path.resolve()}"
    return ImageData(*_read(train, size), *_read(test, size), tuple(train), name, held_out=held_out, split=drawn)


def _folders(path: Path) -> list[Path]:
    """The folders in a folder, in order, without hidden ones and those of systems."""
    return [each for each in sorted(path.iterdir()) if each.is_dir() and not is_skipped(each.name)]


def _parts(path: Path) -> dict[str, Path]:
    """The folders of the parts, those to train on first; none where the folders are classes.

    Raises:
        DataError: Two folders are the same part.
    """
    found: dict[str, Path] = {}
    for each in _folders(path):
        for part in [part for part, names in PARTS.items() if each.name.lower() in names]:
            if part in found:
                raise DataError(f"{found[part]} and {each} are both the {part} part; join them or rename one")
            found[part] = each
    return {part: found[part] for part in PARTS if part in found} if "train" in found and len(found) > 1 else {}


def _classes(path: Path) -> _Files:
    """The image files of every class, in order.

    Raises:
        DataError: A class has no images, or the folders look like something else than classes.
    """
    folders = _folders(path)
    if not folders:
        raise DataError(f"{path} has no folders; expected one for each class, with its images")
    _refuse_another_level(path, folders)
    classes = {each.name: sorted(file for file in walk(each) if is_image(file)) for each in folders}
    for name, files in classes.items():
        if not files:
            raise DataError(
                f"the class folder {path / name} has no image ({', '.join(sorted(SUFFIXES))}); add some or remove it"
            )
    return classes


def _refuse_another_level(path: Path, folders: Sequence[Path]) -> None:
    """Refuses folders that hold nothing but the same folders, which are the classes then."""
    within = [{each.name for each in _folders(one)} for one in folders]
    common = sorted(set.intersection(*within))
    if len(common) > 1 and not any(is_image(file) for one in folders for file in one.iterdir()):
        raise DataError(
            f"the folders of {path} ({_listed([each.name for each in folders])}) have no images of their own but "
            f"folders of the same names ({_listed(common)}), which seem to be the classes; give "
            f"folder:{folders[0]}, or name the parts train and test"
        )


def _check_same_classes(where: dict[str, Path], parts: dict[str, _Files]) -> None:
    for part, classes in parts.items():
        if odd := sorted(parts["train"].keys() ^ classes.keys()):
            raise DataError(f"{where['train']} and {where[part]} must have the same classes; {odd[0]!r} is in one")


def _split(path: Path, classes: _Files, split: Split | None) -> dict[str, _Files]:
    """The files to train on and those to test on: those of ``split`` alone, or of ``split.json`` and drawn ones."""
    kept = split if split is not None else read_split(path / SPLIT)
    test, train = (set(() if kept is None else kept[part]) for part in ("test", "train"))
    if split is None:
        for files in classes.values():
            names = [_name(path, file) for file in files]
            new = sorted({*names} - test - train, key=_place)
            due = max(1, round(TEST_FRACTION * len(names))) if len(names) > 1 else 0
            test.update(new[: max(0, due - len(test.intersection(names)))])
            train.update(set(new) - test)
    parts = {
        part: {label: [file for file in files if _name(path, file) in names] for label, files in classes.items()}
        for part, names in (("train", train - test), ("test", test))
    }
    for part, several in parts.items():
        for name, files in several.items():
            if not files:
                raise DataError(
                    f"the class folder {path / name} has too few images: none of its {len(classes[name])} is left to "
                    f"{part} on; add some" + ("" if kept is None else ", or edit split.json")
                )
    return parts


def _name(path: Path, file: Path) -> str:
    return file.relative_to(path).as_posix()


def _place(name: str) -> bytes:
    """Where an image stands in the order in which images are held out: at random, and the same on every system."""
    return hashlib.sha256(unicodedata.normalize("NFC", name).encode(errors="surrogateescape")).digest()


def _warn_of_others(path: Path, of_classes: Sequence[Path]) -> None:
    """Says how many images are left out, and why."""
    others = Counter(file.suffix.lower() for file in walk(path) if file.suffix.lower() in OTHER_SUFFIXES)
    said = [f"{count} {suffix}" for suffix, count in sorted(others.items())]
    said += [f"{count} in {place} itself" for place in of_classes if (count := sum(map(is_image, _loose(place))))]
    if len(of_classes) > 1:
        said += [f"the folder {each.name}" for each in _folders(path) if each not in of_classes]
    if said:
        warnings.warn(
            f"images are left out of {path}: {', '.join(said)}. Expected {', '.join(sorted(SUFFIXES))} in the classes' "
            "folders; convert or move them",
            DataWarning,
            stacklevel=3,
        )


def _loose(path: Path) -> list[Path]:
    return [each for each in path.iterdir() if not is_skipped(each.name)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def _read(classes: _Files, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    images = torch.stack([read_image(file, size) for files in classes.values() for file in files])
    return images, torch.tensor([label for label, files in enumerate(classes.values()) for _ in files])
