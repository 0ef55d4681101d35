"""Our own compact files: a table as ``.npz`` or ``.csv``, a few megabytes where the original has gigabytes."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.core.files import write_atomically
from zeroshot_nas.errors import DataError
from zeroshot_nas.nasbench.table import BenchmarkTable

META = ("name", "space", "dataset", "code", "source")
"""What a table says about itself, as text."""

CSV_MARK = "#zeroshot_nas.table "
"""How the first line of our CSV files starts; the same facts follow as JSON."""

NPZ_FORMAT = "zeroshot_nas.table"
NPZ_VERSION = 1
COLUMN = "column:"
"""What stands before a column's name in a ``.npz`` file."""


def convert(table: BenchmarkTable, path: str | Path) -> Path:
    """Writes a table to a small file, which `zeroshot_nas.nasbench.base.load_table` reads back without any pickle.

    ``.npz`` keeps every bit. ``.csv`` does too, and people can read it: a first line of JSON after
    ``#zeroshot_nas.table``, a line of column names, then ``arch``, ``accuracy``, ``run0`` and so on, and the further
    columns.

    Args:
        table: What to write.
        path: The file, ending in ``.npz`` or ``.csv``; replaced if it exists.

    Returns:
        The path.

    Raises:
        DataError: The file's name ends otherwise, or a column is named as one of the above.
    """
    path = Path(path)
    if path.suffix == ".npz":
        write_atomically(path, lambda draft: draft.write_bytes(_npz(table)))
    elif path.suffix == ".csv":
        write_atomically(path, lambda draft: draft.write_text(_csv(table), encoding="utf-8", newline=""))
    else:
        raise DataError(f"a table is written as .npz or .csv, got {path.name!r}")
    return path


def _meta(table: BenchmarkTable) -> dict[str, str]:
    return {key: getattr(table, key) for key in META}


def _runs(table: BenchmarkTable) -> NDArray[np.float64]:
    """Runs by row and number, NaN where a row has fewer."""
    runs = table.runs or []
    grid = np.full((len(runs), max(map(len, runs), default=0)), math.nan)
    for row, values in enumerate(runs):
        grid[row, : len(values)] = values
    return grid


def _npz(table: BenchmarkTable) -> bytes:
    text = [row.encode() for row in table.rows]
    meta = json.dumps({"format": NPZ_FORMAT, "version": NPZ_VERSION, **_meta(table)}).encode()
    arrays: dict[str, NDArray[np.generic]] = {
        "meta": np.frombuffer(meta, np.uint8),
        "rows": np.frombuffer(b"".join(text), np.uint8),
        "lengths": np.array([len(row) for row in text], np.uint32),
        "accuracy": table.accuracy,
        **{f"{COLUMN}{name}": values for name, values in table.columns.items()},
    }
    if table.runs is not None:
        arrays["runs"] = _runs(table)
    target = io.BytesIO()
    np.savez_compressed(target, allow_pickle=False, **arrays)
    return target.getvalue()


def _csv(table: BenchmarkTable) -> str:
    runs = None if table.runs is None else _runs(table)
    header = ["arch", "accuracy", *(f"run{number}" for number in range(0 if runs is None else runs.shape[1]))]
    taken = sorted(set(header) & set(table.columns))
    if taken:
        raise DataError(f"columns named {', '.join(taken)} can't be told from ours in a .csv; write a .npz")
    target = io.StringIO(newline="")
    target.write(f"{CSV_MARK}{json.dumps(_meta(table))}\n")
    writer = csv.writer(target, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([*header, *table.columns])
    for place, row in enumerate(table.rows):
        numbers = [table.accuracy[place], *([] if runs is None else runs[place])]
        numbers += [values[place] for values in table.columns.values()]
        writer.writerow([row, *("" if math.isnan(number) else float(number) for number in numbers)])
    return target.getvalue()
