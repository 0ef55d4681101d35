"""Files that are whole or not there at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


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
