"""Files that are whole or not there at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zeroshot_nas.errors import ZeroShotNASError


def write_atomically(file: Path, write: Callable[[Path], object]) -> None:
    """Writes a file whole or not at all: a reader never sees a part of it, whenever the process dies.

    Args:
        file: Where the content goes; an older file is replaced.
        write: Writes the content to the path it is given.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        write(draft)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    write_atomically(file, lambda draft: draft.write_text(text, encoding="utf-8"))


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
