"""Files that are whole or not there at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from zeroshot_nas.errors import FileFormatError, ZeroShotNASError

try:
    import fcntl
except ImportError:  # on Windows nobody can remove a file that another process has open
    fcntl = None  # type: ignore[assignment]

_Value = TypeVar("_Value")


def write_atomically(file: Path, write: Callable[[Path], object]) -> None:
    """Writes a file whole or not at all: a reader never sees a part of it, whenever the process dies.

    The content goes to a draft beside it under a name that nobody can foresee, so that no link can be laid there. What
    drafts of it killed processes left is removed.

    Args:
        file: Where the content goes; an older file is replaced.
        write: Writes the content to the path it is given, which is that of an empty file.
    """
    draft, descriptor = _new_draft(file)
    try:
        write(draft)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
        os.close(descriptor)
    _remove_abandoned(file)


def read_as(file: Path, parse: Callable[[str], _Value]) -> _Value:
    """What a file of UTF-8 text holds; what is wrong with it is said with the file's name.

    Raises:
        FileFormatError: It is damaged, or something else.
    """
    try:
        return parse(file.read_text(encoding="utf-8"))
    except ValueError as error:  # ours are such too, and that the text is no UTF-8
        raise FileFormatError(f"{file} can't be read: {error}") from error


def write_text(file: Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    write_atomically(file, lambda draft: draft.write_text(text, encoding="utf-8"))


def _new_draft(file: Path) -> tuple[Path, int]:
    """An empty file, locked as long as its descriptor is open: the lock goes when the process does."""
    while True:
        draft = file.with_name(f"{_prefix(file)}{secrets.token_hex(8)}.tmp")
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)  # a link there is an error
        if not _lock(descriptor) or _is_at(draft, descriptor):
            return draft, descriptor
        os.close(descriptor)  # taken for abandoned between the two calls


def _prefix(file: Path) -> str:
    return f".{file.name[:200]}."


def _lock(descriptor: int) -> bool:
    """Whether a lock was had; False also where the file system has none."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove_abandoned(file: Path) -> None:
    """Removes the drafts of a file that no process works at any more."""
    for name in os.listdir(file.parent):
        draft = file.with_name(name)
        if not name.startswith(_prefix(file)) or not name.endswith(".tmp") or draft.is_symlink():
            continue
        try:
            descriptor = os.open(draft, os.O_RDONLY)
        except OSError:  # gone by now, or not ours to read
            continue
        try:
            if _lock(descriptor):
                draft.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


@contextmanager
def explained_writes(folder: Path, error: type[Exception], way_out: str) -> Iterator[None]:
    """What the system says while files are written, such as that the disk is full, as an error of ours.

    Args:
        folder: Where they are written.
        error: What is raised.
        way_out: What to do, for the message.
    """
    try:
        yield
    except ZeroShotNASError:
        raise
    except OSError as reason:
        said = reason.strerror or str(reason)
        raise error(f"{folder} can't be written to ({said[:1].lower()}{said[1:]}); {way_out}") from reason
