"""Our own compact tables, which `zeroshot_nas.nasbench.convert` writes."""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.core.checks import check_format
from zeroshot_nas.errors import DataError, FileFormatError
from zeroshot_nas.nasbench.base import register_table_format
from zeroshot_nas.nasbench.convert import COLUMN, META, NPZ_FORMAT, NPZ_VERSION
from zeroshot_nas.nasbench.formats.reading import MAX_ROWS, check_ratio
from zeroshot_nas.nasbench.table import BenchmarkTable, TableBuilder

MAX_BYTES = 1 << 29
"""Bytes of the largest file after decompression; NAS-Bench-101 takes 100 MB."""


def _is_npz(path: Path, head: bytes) -> bool:
    return head.startswith(b"PK") and path.suffix == ".npz"


@register_table_format("npz", recognises=_is_npz, source="zeroshot_nas.nasbench.convert", splits=())
def read_npz(path: Path, /, *, dataset: str | None) -> BenchmarkTable:
    """Reads a ``.npz`` file that ``convert`` wrote; no pickle in it is ever read.

    Args:
        path: The file.
        dataset: The data set that it must be of, if given.
    """
    arrays = _arrays(path)
    meta = _meta(arrays, path)
    if dataset is not None and dataset != meta["dataset"]:
        raise DataError(f"{path} is of the data set {meta['dataset']!r}, got dataset={dataset!r}")
    lengths = _array(arrays, "lengths", "u", 1, path)
    count = len(lengths)
    if count > MAX_ROWS:
        raise FileFormatError(f"{path}: {count:,} rows, and at most {MAX_ROWS:,} are taken")
    text = _array(arrays, "rows", "u", 1, path).tobytes()
    ends = np.cumsum(lengths, dtype=np.uint64).tolist()
    if text and (not ends or ends[-1] != len(text)):
        raise FileFormatError(f"{path}: its rows are damaged")
    try:
        rows = [text[end - length : end].decode() for end, length in zip(ends, lengths.tolist(), strict=True)]
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: its rows are damaged: {error}") from error
    accuracy = _array(arrays, "accuracy", "f", 1, path, count)
    runs = _array(arrays, "runs", "f", 2, path, count) if "runs" in arrays else None
    columns = {
        name.removeprefix(COLUMN): _array(arrays, name, "f", 1, path, count)
        for name in arrays
        if name.startswith(COLUMN)
    }
    builder = TableBuilder(path, "accuracy")
    for place, row in enumerate(rows):
        own = [] if runs is None else [run for run in runs[place].tolist() if not math.isnan(run)]
        builder.add(row, float(accuracy[place]), own, {name: float(values[place]) for name, values in columns.items()})
    table = builder.table(**meta)
    if len(table) != count:
        raise FileFormatError(f"{path}: an architecture occurs twice")
    return replace(table, source=meta["source"])  # as it was written, without this file's name


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise FileFormatError(f"{path}: {size} bytes after decompression, and at most {MAX_BYTES} are taken")
        check_ratio(size, path)
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except FileFormatError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds on bytes that are not their own
        raise FileFormatError(f"{path}: no table, or damaged or cut short: {error}") from error


def _array(
    arrays: dict[str, NDArray[Any]], name: str, kind: str, dimensions: int, path: Path, count: int | None = None
) -> NDArray[Any]:
    found = arrays.get(name)
    if not isinstance(found, np.ndarray) or found.dtype.kind != kind or found.ndim != dimensions:
        raise FileFormatError(f"{path}: expected an array {name!r} of kind {kind!r} and {dimensions} dimensions")
    if count is not None and len(found) != count:
        raise FileFormatError(f"{path}: expected {count} rows in {name!r}, got {len(found)}")
    return found


def _meta(arrays: dict[str, NDArray[Any]], path: Path) -> dict[str, str]:
    try:
        content = json.loads(_array(arrays, "meta", "u", 1, path).tobytes())
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: what it says about itself is no JSON: {error}") from error
    check_format(content, NPZ_FORMAT, NPZ_VERSION, "a table of this package", file=str(path))
    if not all(isinstance(content.get(key), str) for key in META):
        raise FileFormatError(f"{path}: expected {', '.join(META)} as text")
    return {key: content[key] for key in META}
