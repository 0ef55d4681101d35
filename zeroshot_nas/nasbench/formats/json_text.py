"""JSON files of benchmarks, read with a limit and without keys that occur twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zeroshot_nas.errors import FileFormatError
from zeroshot_nas.nasbench.formats.reading import DAMAGE, open_stream

MAX_BYTES = 256 << 20
"""Bytes of the largest JSON text taken; NAS-Bench-Suite-Zero's largest has about 50 MB."""


def load_json(path: Path, collapse: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The content of a JSON file, which may be compressed by bz2 or gzip.

    Args:
        path: The file.
        collapse: Makes something smaller of each object as soon as it is read.

    Raises:
        FileFormatError: The file is damaged, too large, or has an object with one key twice.
    """

    def read_object(pairs: list[tuple[str, Any]]) -> Any:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in entries if keys.count(key) > 1)
            raise FileFormatError(f"{path}: the entry {twice[:80]!r} occurs twice; keep one")
        return collapse(entries) if collapse else entries

    with open_stream(path) as stream:
        try:
            text = stream.read(MAX_BYTES + 1)
        except DAMAGE as error:
            raise FileFormatError(f"{path}: damaged or cut short: {error}") from error
    if len(text) > MAX_BYTES:
        raise FileFormatError(f"{path}: more than {MAX_BYTES} bytes of JSON; no benchmark has so many")
    try:
        return json.loads(text, object_pairs_hook=read_object)
    except FileFormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: damaged or cut short JSON: {error}") from error
