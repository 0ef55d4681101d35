"""VCN-Bench: networks of our own spaces trained at equal budgets, the table that comes with this package."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from zeroshot_nas.errors import DataError, FileFormatError, UnknownNameError
from zeroshot_nas.nasbench.base import register_table_format
from zeroshot_nas.nasbench.formats.csv_text import open_lines, read_rows
from zeroshot_nas.nasbench.formats.reading import choose_dataset
from zeroshot_nas.nasbench.table import BenchmarkTable, TableBuilder

HEAD = b"name,budget,kind,architecture,params,flops,layers,accuracy,"
"""How the file begins."""

COSTS = ("params", "flops", "layers")

BUDGETS = ("A", "B", "C")

TABLE = Path(__file__).parents[1] / "tables" / "vcn.csv.gz"


def _find(dataset: str | None) -> Path:
    choose_dataset(dataset, ["cifar10"], "VCN-Bench")
    return TABLE


@register_table_format(
    "vcn",
    recognises=lambda _, head: head.startswith(HEAD),
    source="benchmarks/vcn_bench.py",
    splits=("test",),
    provides="vcn",
    find=_find,
)
def read_vcn(
    path: Path,
    /,
    *,
    dataset: str | None,
    budget: str | None = None,
    protocol: Literal["short", "long"] = "short",
) -> BenchmarkTable:
    """Reads ``vcn.csv.gz``: test accuracies on CIFAR-10, the mean over one or two trainings, see ``docs/vcn.md``.

    The rows are PlainNet strings of the space ``vanilla``; the columns are ``params``, ``flops``, ``layers`` and, where
    there are any, ``long_accuracy``.

    Args:
        path: The file.
        dataset: ``"cifar10"``.
        budget: ``"A"``, ``"B"`` or ``"C"``; None gives the networks of all, where size decides most.
        protocol: ``"short"``, 20,000 images and 12 epochs, or ``"long"``, 50,000 and 40, of a few networks of A.
    """
    choose_dataset(dataset, ["cifar10"], "VCN-Bench")
    if budget is not None and budget not in BUDGETS:
        raise UnknownNameError("budget", str(budget), BUDGETS)
    if protocol not in ("short", "long"):
        raise UnknownNameError("protocol", str(protocol), ("short", "long"))
    with open_lines(path) as lines:
        rows = read_rows(lines, path)
        _, header = next(rows)
        wanted = ("architecture", "budget", *COSTS, "accuracy", "accuracy_long")
        if missing := [name for name in wanted if name not in header]:
            raise FileFormatError(f"{path}: no column {missing[0]!r}")
        builder = TableBuilder(path, f"test accuracy by the {protocol} protocol", skip_missing=protocol == "long")
        held, accuracies = set(), []
        for line, row in rows:
            if len(row) != len(header):
                raise FileFormatError(f"{path}: line {line} has {len(row)} fields, the header has {len(header)}")
            cells = dict(zip(header, row, strict=True))
            held.add(cells["budget"])
            if budget not in (None, cells["budget"]):
                continue
            numbers = {
                name: _number(cell, f"{path}: line {line}, column {name!r}")
                for name, cell in cells.items()
                if name in COSTS or name.startswith("accuracy")
            }
            runs = [value for name, value in numbers.items() if name.startswith("accuracy_run") and value is not None]
            figures = {name: numbers[name] for name in COSTS}
            if numbers["accuracy_long"] is not None:
                figures["long_accuracy"] = numbers["accuracy_long"]
            accuracy = numbers["accuracy"] if protocol == "short" else numbers["accuracy_long"]
            accuracies.append(accuracy)
            builder.add(cells["architecture"], accuracy, runs if protocol == "short" else (), figures, f"line {line}")
    if budget is not None and budget not in held:
        raise DataError(f"no network of budget {budget} is trained yet; held: {', '.join(sorted(held)) or 'none'}")
    if all(accuracy is None for accuracy in accuracies):
        raise DataError(f"no network is trained by the {protocol} protocol yet; try the other, or a later release")
    return builder.table(
        name="VCN-Bench" if budget is None else f"VCN-Bench {budget}",
        space="vanilla",
        dataset="cifar10",
        code="arch",
        source=f"test accuracy by the {protocol} protocol, mean over trainings",
    )


def _number(cell: str, where: str) -> float | None:
    """None for an empty cell."""
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FileFormatError(f"{where}: no number: {cell[:40]!r}")
    return value
