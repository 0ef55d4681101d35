"""HW-NAS-Bench: latency and energy of NAS-Bench-201's networks on six devices."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from zeroshot_nas.core.text import quoted
from zeroshot_nas.errors import FileFormatError
from zeroshot_nas.nasbench.base import register_table_format
from zeroshot_nas.nasbench.formats.reading import MAX_RUNS, as_number, choose_dataset, field_of
from zeroshot_nas.nasbench.formats.unpickling import load_pickle
from zeroshot_nas.nasbench.table import FigureTable

SPACE = "nasbench201"
_CONFIG = "config"


def _is_hw_nas_bench(path: Path, head: bytes) -> bool:
    return head[:1] == b"\x80" and (path.name.startswith("HW-NAS-Bench") or b"edgegpu_latency" in head)


@register_table_format(
    "hw_nas_bench",
    recognises=_is_hw_nas_bench,
    source="arXiv:2103.10584; GATECH-EIC/HW-NAS-Bench, hw_nas_bench_api",
    splits=(),
)
def read_hw_nas_bench(path: Path, /, *, dataset: str | None) -> FigureTable:
    """Reads the NAS-Bench-201 part of ``HW-NAS-Bench-v1_0.pickle``; `load_figures` gives it, it has no accuracies.

    Every metric is a column under its own name: ``edgegpu_latency``, ``raspi4_latency``, ``edgetpu_latency``,
    ``pixel3_latency``, ``eyeriss_latency`` and ``fpga_latency`` in milliseconds, ``edgegpu_energy``, ``eyeriss_energy``
    and ``fpga_energy`` in millijoules, ``eyeriss_arithmetic_intensity``. The architectures are read from the file's own
    ``config`` entries; where it has none, they are NAS-Bench-201's numbers as text, in the code ``"index"``. The FBNet
    part holds figures of operations, not of networks, and is not read.

    Args:
        path: The file.
        dataset: ``"cifar10"`` unless given, ``"cifar100"`` or ``"ImageNet16-120"``.
    """
    content = field_of(load_pickle(path), SPACE, dict, str(path))
    dataset = choose_dataset(dataset, (name for name in content if isinstance(name, str)), str(path))
    entries = field_of(content, dataset, dict, str(path))
    where = f"{path}: {dataset}"
    if len(entries) > MAX_RUNS:
        raise FileFormatError(f"{where}: expected some ten metrics, got {len(entries)}")
    metrics = {name: values for name, values in entries.items() if name != _CONFIG}
    if strange := next((name for name in metrics if not isinstance(name, str) or len(name) > MAX_RUNS), None):
        raise FileFormatError(f"{where}: expected metrics by name, got the entry {quoted(strange)}")
    columns = {name: _column(values, f"{where}, {quoted(name)}") for name, values in metrics.items()}
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise FileFormatError(f"{where}: expected metrics of one length, got {sorted(lengths)}")
    rows = _architectures(entries.get(_CONFIG), lengths.pop(), where)
    return FigureTable(
        name="HW-NAS-Bench",
        space=SPACE,
        dataset=dataset,
        rows=rows,
        code="arch" if _CONFIG in entries else "index",
        columns=columns,  # type: ignore[arg-type]  # lists become arrays
        source=f"{path.name}: latency in ms, energy in mJ",
    )


def _column(values: Any, where: str) -> list[float]:
    if isinstance(values, dict):  # by index
        values = [values.get(index) for index in range(len(values))]
    numbers = [as_number(value) for value in values] if isinstance(values, list) else [None]
    known = [number for number in numbers if number is not None]
    if len(known) != len(numbers):
        raise FileFormatError(f"{where}: expected a number an architecture, row {numbers.index(None)} has none")
    return [number if number > 0 else math.nan for number in known]  # the file has -1 where nothing was measured


def _architectures(configs: Any, count: int, where: str) -> list[str]:
    if configs is None:
        return [str(index) for index in range(count)]
    if isinstance(configs, dict):
        configs = [configs.get(index) for index in range(len(configs))]
    if not isinstance(configs, list) or len(configs) != count:
        raise FileFormatError(f"{where}: expected {count} entries in {_CONFIG!r}")
    rows = [
        field_of(config, "arch_str", str, f"{where}, {_CONFIG} of architecture {index}")
        for index, config in enumerate(configs)
    ]
    if "" in rows or len(set(rows)) < len(rows):
        raise FileFormatError(f"{where}: an architecture in {_CONFIG!r} is empty or occurs twice")
    return rows
