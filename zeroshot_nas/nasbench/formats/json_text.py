"""JSON files of benchmarks, read with a limit and without keys that occur twice."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zeroshot_nas.core.text import without_repeats
from zeroshot_nas.errors import FileFormatError
from zeroshot_nas.nasbench.formats.reading import DAMAGE, open_stream

MAX_BYTES = 256 << 20
"""Bytes of the largest JSON text taken; NAS-Bench-Suite-Zero's largest has about 50 MB."""

MAX_VALUES = 8_000_000
"""Values, lists and objects of the largest; each takes up to a hundred bytes of memory, however short it is written."""


def load_json(path: Path, collapse: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The content of a JSON file, which may be compressed by bz2 or gzip.

    Args:
        path: The file.
        collapse: Makes something smaller of each object as soon as it is read.

    Raises:
        FileFormatError: The file is damaged, too large, or has an object with one key twice.
    """

    def read_object(pairs: list[tuple[str, Any]]) -> Any:
        entries = without_repeats(pairs)
        return collapse(entries) if collapse else entries

    with open_stream(path) as stream:
        try:
            text = stream.read(MAX_BYTES + 1)
        except DAMAGE as error:
            raise FileFormatError(f"{path}: damaged or cut short: {error}") from error
    if len(text) > MAX_BYTES:
        raise FileFormatError(f"{path}: more than {MAX_BYTES} bytes of JSON; no benchmark has so many")
    if sum(map(text.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise FileFormatError(f"{path}: more than {MAX_VALUES:,} values; no benchmark has so many")
    try:
        return json.loads(text.removeprefix(codecs.BOM_UTF8), object_pairs_hook=read_object)
    except FileFormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: damaged or cut short JSON: {error}") from error
