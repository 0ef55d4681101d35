"""HW-NAS-Bench as comma-separated text: a column for each data set, device and metric."""

from __future__ import annotations

import math
from pathlib import Path

from zeroshot_nas.errors import FileFormatError
from zeroshot_nas.nasbench.base import register_table_format
from zeroshot_nas.nasbench.formats.csv_text import open_lines, read_rows
from zeroshot_nas.nasbench.formats.reading import choose_dataset
from zeroshot_nas.nasbench.table import COLUMN_PREFIXES, FigureTable

_START = b"index,c10_edgegpu_latency,"


@register_table_format(
    "hw_nas_bench_csv",
    recognises=lambda _, head: head.startswith(_START),
    source="arXiv:2103.10584; GATECH-EIC/HW-NAS-Bench",
    splits=(),
)
def read_hw_nas_bench_csv(path: Path, /, *, dataset: str | None) -> FigureTable:
    """Reads ``nb201_hardware.csv.gz``; `load_figures` gives it, it has no accuracies.

    Columns are those of the pickle, without the data set's prefix; rows are NAS-Bench-201's numbers, in the code
    ``"index"``. What was not measured is -1 in the file and NaN here.

    Args:
        path: The file.
        dataset: ``"cifar10"`` unless given, ``"cifar100"`` or ``"ImageNet16-120"``.
    """
    with open_lines(path) as lines:
        header, *rows = (row for _, row in read_rows(lines, path))
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise FileFormatError(f"{path}: row {number} has {len(row)} fields, the header has {len(header)}")
    held = (name for name, prefix in COLUMN_PREFIXES.items() if any(column.startswith(prefix) for column in header))
    dataset = choose_dataset(dataset, held, str(path))
    prefix = COLUMN_PREFIXES[dataset]
    places = {name.removeprefix(prefix): place for place, name in enumerate(header) if name.startswith(prefix)}
    return FigureTable(
        name="HW-NAS-Bench",
        space="nasbench201",
        dataset=dataset,
        rows=[row[0] for row in rows],
        code="index",
        columns={name: [_number(row[place], path) for row in rows] for name, place in places.items()},  # type: ignore[misc]
        source=f"{path.name}: latency in ms, energy in mJ",
    )


def _number(cell: str, path: Path) -> float:
    try:
        value = float(cell or "nan")
    except ValueError:
        raise FileFormatError(f"{path}: expected a number, got {cell[:40]!r}") from None
    return value if value > 0 else math.nan
