"""NAS-Bench-Macro: chains of eight MobileNetV2 blocks, trained on CIFAR-10."""

from __future__ import annotations

from pathlib import Path

from zeroshot_nas.errors import FileFormatError, UnknownNameError
from zeroshot_nas.nasbench.base import register_table_format
from zeroshot_nas.nasbench.formats.json_text import load_json
from zeroshot_nas.nasbench.formats.reading import as_number
from zeroshot_nas.nasbench.table import BenchmarkTable, TableBuilder


def _is_macro(_: Path, head: bytes) -> bool:
    return head.lstrip()[:1] == b"{" and b'"mean_acc"' in head and b'"test_acc"' in head


@register_table_format(
    "nasbench_macro",
    recognises=_is_macro,
    source="arXiv:2103.11922; xiusu/NAS-Bench-Macro, data/nas-bench-macro_cifar10.json",
    splits=("test",),
)
def read_macro(path: Path, /, *, dataset: str | None, skip_missing: bool = False) -> BenchmarkTable:
    """Reads ``nas-bench-macro_cifar10.json``.

    The accuracy is the mean over three trainings. An architecture is eight digits, one a layer: 0 identity, 1 a block
    of kernel 3 and expansion 3, 2 a block of kernel 5 and expansion 6. The columns are ``params``, ``flops``
    (multiply-adds) and ``std``.

    Args:
        path: The file.
        dataset: ``"cifar10"``, the only one.
        skip_missing: Whether to leave out architectures without an accuracy.
    """
    if dataset not in (None, "cifar10"):
        raise UnknownNameError("data set", str(dataset), ["cifar10"])
    content = load_json(path)
    if not isinstance(content, dict):
        raise FileFormatError(f"{path}: expected an object of architectures")
    builder = TableBuilder(path, "mean_acc", skip_missing)
    for arch, entry in content.items():
        where = f"architecture {arch[:100]!r}"
        if not isinstance(entry, dict):
            raise FileFormatError(f"{path}: {where}: expected an object of figures")
        runs = entry.get("test_acc", [])
        numbers = [as_number(run) for run in runs] if isinstance(runs, list) else [None]
        if None in numbers:
            raise FileFormatError(f"{path}: {where}: expected test_acc to be a list of numbers")
        figures = {name: as_number(entry.get(name)) for name in ("params", "flops", "std")}
        known = [number for number in numbers if number is not None]
        builder.add(arch, as_number(entry.get("mean_acc")), known, figures, where)
    return builder.table(
        name="NAS-Bench-Macro",
        space="nasbench_macro",
        dataset="cifar10",
        code="arch",
        source="test accuracy, mean over three trainings",
    )
