"""Tables as comma-separated text, plain or compressed, with named columns."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from zeroshot_nas.errors import DataError, FileFormatError, did_you_mean
from zeroshot_nas.nasbench.base import Split, register_table_format
from zeroshot_nas.nasbench.convert import CSV_MARK, META
from zeroshot_nas.nasbench.formats.csv_text import open_lines, read_rows
from zeroshot_nas.nasbench.table import BenchmarkTable, TableBuilder
from zeroshot_nas.spaces.notations import OWN, is_notation

ACCURACY_COLUMNS = ("accuracy", "mean_acc")
"""Where the accuracy is looked for unless the caller says."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CODE = re.compile(r"0\d+", re.ASCII)
_GAPS = ("", "nan", "na", "n/a", "null", "none")

_OTHERS = (b"index,c10_edgegpu_latency,", b"name,budget,kind,architecture,")
"""How files begin that other readers take: HW-NAS-Bench's, of figures and no accuracies, and VCN-Bench's."""


def _is_csv(path: Path, head: bytes) -> bool:
    named = path.name.endswith((".csv", ".csv.gz", ".csv.bz2"))
    return head.startswith(CSV_MARK.encode()) or (named and not head.startswith(_OTHERS))


@register_table_format("csv", recognises=_is_csv, source="RFC 4180")
def read_csv(
    path: Path,
    /,
    *,
    dataset: str | None,
    split: Split | None = None,
    arch_column: str = "arch",
    accuracy_column: str | None = None,
    run_columns: Sequence[str] = (),
    space: str | None = None,
    code: str | None = None,
    name: str | None = None,
    skip_missing: bool = False,
) -> BenchmarkTable:
    """Reads comma-separated text with a line of column names, ``.csv`` or ``.csv.gz``.

    Architectures stay text, so that ``op_code`` keeps its leading zeros. Every further column whose cells are numbers
    or empty becomes a column of the table; columns of text, and of codes such as ``001234``, are left out. A first line
    that `zeroshot_nas.nasbench.convert` wrote says the space, data set, code and source.

    Args:
        path: The file.
        dataset: What to call the data set.
        split: What to call the accuracy: ``"test"`` or ``"valid"``.
        arch_column: Name of the column of architectures.
        accuracy_column: Name of the column of accuracies in percent; default: ``"accuracy"``, else ``"mean_acc"``.
        run_columns: Names of the columns of separate runs; empty cells are runs that do not exist.
        space: Registered name of the search space.
        code: How the architectures are written; default: ``arch_column`` where it names a notation, such as
            ``"op_code"``, else ``"arch"``.
        name: What to call the table; default: the file's name.
        skip_missing: Whether to leave out rows with an empty accuracy, or one that is no number.
    """
    with open_lines(path) as every:
        meta, lines = _meta(every, path)
        rows = read_rows(lines, path, skipped=1 if meta else 0)
        if meta and dataset not in (None, meta["dataset"]):
            raise DataError(f"{path} is of the data set {meta['dataset']!r}, got dataset={dataset!r}")
        _, header = next(rows)
        if meta:
            run_columns = run_columns or [column for column in header if re.fullmatch(r"run\d+", column)]
        if accuracy_column is None:
            accuracy_column = next((column for column in ACCURACY_COLUMNS if column in header), ACCURACY_COLUMNS[0])
        places = {column: place for place, column in enumerate(header)}
        for column in (arch_column, accuracy_column, *run_columns):
            if column not in places:
                raise FileFormatError(
                    f"{path}: no column {column!r}.{did_you_mean(column, header)} Columns: {', '.join(header)[:500]}"
                )
        figures = [column for column in header if column not in (arch_column, accuracy_column, *run_columns)]
        builder = TableBuilder(path, f"accuracy in column {accuracy_column!r}", skip_missing)
        no_figures: set[str] = set()
        for number, (line, row) in enumerate(rows, start=1):
            where = f"row {number} (line {line})"
            if len(row) != len(header):
                raise FileFormatError(f"{path}: {where} has {len(row)} fields, the header has {len(header)}")
            runs = [_number(row[places[column]]) for column in run_columns]
            for column, value in zip(run_columns, runs, strict=True):
                if value is None:
                    raise FileFormatError(
                        f"{path}: {where}, column {column!r}: no number: {_shown(row[places[column]])}"
                    )
            values = {}
            for column in figures:
                cell = row[places[column]]
                value = None if _CODE.fullmatch(cell.strip()) else _number(cell)
                if value is None:
                    no_figures.add(column)
                else:
                    values[column] = value
            accuracy = _number(row[places[accuracy_column]])
            builder.add(
                row[places[arch_column]],
                accuracy,
                [run for run in runs if run is not None and not math.isnan(run)],
                values,
                f"{where}, column {accuracy_column!r}: {_shown(row[places[accuracy_column]])}",
            )
            figures = [column for column in figures if column not in no_figures]
    builder.drop_columns(no_figures)
    what = f"{split} accuracy" if split else "accuracy"
    told = {
        "name": path.name,
        "space": "",
        "dataset": "",
        "code": arch_column if is_notation(arch_column) else OWN,
        **meta,
    }
    given = {"name": name, "space": space, "dataset": dataset, "code": code}
    told |= {key: value for key, value in given.items() if value is not None}
    told["source"] = f"{what} in column {accuracy_column!r}"
    table = builder.table(**told)
    return replace(table, source=meta["source"]) if meta else table


def _meta(lines: Iterator[str], path: Path) -> tuple[dict[str, str], Iterator[str]]:
    """What a first line of ours says, and the lines of the table itself."""
    first = next(lines, "")
    if not first.startswith(CSV_MARK):
        return {}, itertools.chain([first] if first else [], lines)
    try:
        content = json.loads(first[len(CSV_MARK) :])
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: its first line is no JSON: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), str) for key in META):
        raise FileFormatError(f"{path}: its first line must hold {', '.join(META)} as text")
    return {key: content[key] for key in META}, lines


def _number(cell: str) -> float | None:
    """The number in a cell, NaN where it is empty, None where it is something else."""
    cell = cell.strip()
    if cell.lower() in _GAPS:
        return math.nan
    if len(cell) > 64 or not _NUMBER.fullmatch(cell):
        return None
    number = float(cell)
    return number if math.isfinite(number) else None


def _shown(cell: str) -> str:
    return repr(cell[:40]) if cell.strip() else "empty"
