"""NATS-Bench and NAS-Bench-201: trained results of cells and of widths, an architecture at a time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from zeroshot_nas.core.text import quoted
from zeroshot_nas.errors import DataError, FileFormatError, UnknownNameError
from zeroshot_nas.nasbench.base import Split, register_table_format
from zeroshot_nas.nasbench.formats.reading import MAX_RUNS, as_number, field_of
from zeroshot_nas.nasbench.formats.unpickling import load_pickle, load_torch
from zeroshot_nas.nasbench.table import IMAGE_DATASETS, BenchmarkTable, TableBuilder

EPOCHS_OF = {"less": 12, "full": 200}
"""What NAS-Bench-201 calls its two training lengths; NATS-Bench writes the number of epochs."""

_MARKER = "all_results"
_SIZES = re.compile(r"\d+(:\d+)+")


class _Result(NamedTuple):
    """What is kept of an architecture's training on one data set."""

    runs: tuple[float, ...]
    figures: dict[str, float | None]


class _Kept(NamedTuple):
    arch: str
    result: _Result | None  # None where it was not trained on the data set


def _is_nats_bench(path: Path, head: bytes) -> bool:
    if path.is_dir():
        return (path / "meta.pickle.pbz2").is_file()
    named = path.name.startswith("NATS-") and path.suffix == ".pbz2"
    return head[:1] == b"\x80" and (named or b"meta_archs" in head) and not _is_nasbench201(path, head)


def _is_nasbench201(path: Path, head: bytes) -> bool:
    torch_file = b"data.pkl" in head[:200] or head[2:13] == b"\x8a\nl\xfc\x9cF\xf9 j\xa8P"
    return torch_file and (b"meta_archs" in head or path.name.startswith("NAS-Bench-201"))


@register_table_format(
    "nats_bench",
    recognises=_is_nats_bench,
    source="arXiv:2009.00437; nats-bench 1.8, nats_bench/api_utils.py",
)
def read_nats_bench(
    path: Path, /, *, dataset: str | None, split: Split = "test", epochs: int | None = None, skip_missing: bool = False
) -> BenchmarkTable:
    """Reads NATS-Bench: the file ``NATS-tss-v1_0-3ffb9.pickle.pbz2`` or the folder ``NATS-tss-v1_0-3ffb9-simple``.

    The same for the size search space, ``NATS-sss-v1_0-50262``. The accuracy is what the papers report: the mean over
    seeds after the last epoch, on ``ori-test`` for CIFAR-10 (trained on all 50,000 images), ``x-valid`` of
    ``cifar10-valid`` for its validation (trained on half), and ``x-test`` and ``x-valid`` for the others. The columns
    are ``params``, ``flops`` (multiply-adds), ``latency_s`` and ``train_seconds``. Where the runs of an architecture
    disagree about parameters, that of seed 888 counts, as in the authors' code.

    Reading a whole file takes minutes (4 for the 5.7 GB of pickle that 15,625 cells come to, on one core, and the
    decompression on top), and half a gigabyte of memory at most. ``convert`` the table to keep it.

    Args:
        path: The file or folder.
        dataset: ``"cifar10"`` unless given, ``"cifar100"`` or ``"ImageNet16-120"``.
        split: ``"test"`` unless given, or ``"valid"``.
        epochs: Length of the training: 12 or 200 for cells, 1, 12 or 90 for widths; default: the longest.
        skip_missing: Whether to leave out architectures that the file or folder has no such result of.
    """
    figure = _Figure(path, dataset, split)
    if path.is_dir():
        meta = load_pickle(path / "meta.pickle.pbz2", tensors=True)
        archs = field_of(meta, "meta_archs", list, str(path / "meta.pickle.pbz2"))
        found: dict[Any, Any] = {}
        for index in range(len(archs)):
            names = (f"{index:06d}.pickle.pbz2", f"{index}.pickle.pbz2")
            file = next((path / name for name in names if (path / name).is_file()), None)
            if file is not None:
                figure.where = str(file)
                found[index] = load_pickle(file, tensors=True, marker=_MARKER, summarise=figure.summarise)
        return _table(path, figure, archs, found, range(len(archs)), epochs, skip_missing)
    content = load_pickle(path, tensors=True, marker=_MARKER, summarise=figure.summarise)
    return _whole_table(path, figure, content, epochs, skip_missing)


@register_table_format(
    "nasbench201",
    recognises=_is_nasbench201,
    source="arXiv:2001.00326; nas-bench-201 2.1, nas_201_api/api_201.py",
)
def read_nasbench201(
    path: Path, /, *, dataset: str | None, split: Split = "test", epochs: int | None = None, skip_missing: bool = False
) -> BenchmarkTable:
    """Reads NAS-Bench-201's torch files: ``NAS-Bench-201-v1_1-096897.pth`` and v1.0's.

    What the file calls ``"less"`` is 12 epochs, ``"full"`` 200. Torch is not asked to load it: even with
    ``weights_only=True`` it would build all the training curves at once, in tens of gigabytes, and it refuses a
    ``defaultdict``. Arguments, accuracies and columns are those of `read_nats_bench`.
    """
    figure = _Figure(path, dataset, split)
    content = load_torch(path, marker=_MARKER, summarise=figure.summarise)
    return _whole_table(path, figure, content, epochs, skip_missing)


class _Figure:
    """Which accuracy is read, and how an architecture's results are summarised to it."""

    def __init__(self, path: Path, dataset: str | None, split: Split) -> None:
        self.dataset = dataset or "cifar10"
        if self.dataset not in IMAGE_DATASETS:
            raise UnknownNameError("data set", self.dataset, IMAGE_DATASETS)
        self.split = split
        self.trained_on = "cifar10-valid" if (self.dataset, self.split) == ("cifar10", "valid") else self.dataset
        self.measured_on = "ori-test" if (self.dataset, self.split) == ("cifar10", "test") else f"x-{self.split}"
        self.where = str(path)

    def summarise(self, results: dict[Any, Any]) -> _Kept:
        """The accuracies and costs of an ``ArchResults``, without its curves."""
        where = self.where
        arch = field_of(results, "arch_str", str, where)
        where = f"{where}: {arch[:100]}"
        trained = field_of(results, _MARKER, dict, where)
        seeds = field_of(results, "dataset_seed", dict, where).get(self.trained_on)
        if not seeds:
            return _Kept(arch, None)
        if not isinstance(seeds, list) or len(seeds) > MAX_RUNS or not all(isinstance(seed, int) for seed in seeds):
            raise FileFormatError(f"{where}: expected a list of seeds for {self.trained_on}")
        runs, costs = [], []
        for seed in seeds:
            result = field_of(trained, (self.trained_on, seed), dict, where)
            last = field_of(result, "epochs", int, where) - 1
            accuracies = field_of(result, "eval_acc1es", dict, where)
            key = f"{self.measured_on}@{last}"
            accuracy = as_number(accuracies.get(key))
            if accuracy is None:
                raise FileFormatError(f"{where}, {self.trained_on}, seed {seed}: no accuracy {key!r} in eval_acc1es")
            runs.append(accuracy)
            costs.append(result)
        figures = {
            "params": _agreed([_millions(result.get("params")) for result in costs], seeds),
            "flops": _agreed([_millions(result.get("flop")) for result in costs], seeds),
            "latency_s": _mean([_latency(result.get("latency")) for result in costs]),
            "train_seconds": _mean([_total(result.get("train_times")) for result in costs]),
        }
        return _Kept(arch, _Result(tuple(runs), figures))


def _whole_table(path: Path, figure: _Figure, content: Any, epochs: int | None, skip_missing: bool) -> BenchmarkTable:
    archs = field_of(content, "meta_archs", list, str(path))
    found = field_of(content, "arch2infos", dict, str(path))
    for index in found:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(archs):
            raise FileFormatError(f"{path}: arch2infos has results of architecture {quoted(index)} of {len(archs)}")
    return _table(path, figure, archs, found, sorted(found), epochs, skip_missing)


def _table(
    path: Path,
    figure: _Figure,
    archs: list[Any],
    found: dict[Any, Any],
    indexes: range | list[int],
    epochs: int | None,
    skip_missing: bool,
) -> BenchmarkTable:
    lengths = {index: _by_epochs(trained, f"{path}: architecture {index}") for index, trained in found.items()}
    held = sorted({length for results in lengths.values() for length in results})
    if not held:
        raise FileFormatError(f"{path}: holds no results")
    if epochs is not None and epochs not in held:
        raise DataError(f"{path} has results after {', '.join(map(str, held))} epochs, got epochs={epochs!r}")
    length = held[-1] if epochs is None else epochs
    what = f"{figure.measured_on} accuracy after {length} epochs on {figure.trained_on}"
    builder = TableBuilder(path, what, skip_missing)
    for index in indexes:
        arch = archs[index]
        if not isinstance(arch, str):
            raise FileFormatError(f"{path}: architecture {index} of meta_archs is no text")
        kept = lengths.get(index, {}).get(length)
        result = None if kept is None else kept.result
        where = f"architecture {index} {arch[:100]}"
        if result is None:
            builder.add(arch, None, where=where)
        else:
            builder.add(arch, sum(result.runs) / len(result.runs), result.runs, result.figures, where)
    sizes = all(_SIZES.fullmatch(arch) for arch in archs)
    return builder.table(
        name="NATS-Bench size" if sizes else "NAS-Bench-201",
        space="nats_sss" if sizes else "nasbench201",
        dataset=figure.dataset,
        code="arch",
        source=f"{what}, mean over seeds",
    )


def _by_epochs(trained: Any, where: str) -> dict[int, _Kept]:
    if not isinstance(trained, dict):
        raise FileFormatError(f"{where}: expected a dict of results by number of epochs")
    results = {}
    for name, kept in trained.items():
        epochs = EPOCHS_OF.get(name) if isinstance(name, str) else None
        if epochs is None and isinstance(name, str) and re.fullmatch(r"\d{1,6}", name, re.ASCII):
            epochs = int(name)
        if epochs is None or not isinstance(kept, _Kept):
            raise FileFormatError(f"{where}: expected results by number of epochs, got the entry {quoted(name)}")
        results[epochs] = kept
    return results


def _agreed(values: list[float | None], seeds: list[int]) -> float | None:
    """What the runs agree on; where they do not, what that of seed 888 has."""
    same = len({None if value is None else round(value, -1) for value in values}) == 1
    return values[seeds.index(888) if not same and 888 in seeds else 0]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _millions(value: object) -> float | None:
    number = as_number(value)
    return None if number is None else number * 1e6


def _latency(value: object) -> float | None:
    """Mean of a list of seconds; -1 stands for an unknown one."""
    times = [as_number(time) for time in value] if isinstance(value, list) and len(value) <= MAX_RUNS else []
    mean = _mean(times)
    return mean if mean is not None and mean > 0 else None


def _total(value: object) -> float | None:
    """Sum of seconds by epoch."""
    times = [as_number(time) for time in value.values()] if isinstance(value, dict) and len(value) <= MAX_RUNS else []
    return sum(time for time in times if time is not None) if times and None not in times else None
