"""TransNAS-Bench-101: cells and chains of modules, trained on seven vision tasks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal, NamedTuple

from zeroshot_nas.core.text import quoted
from zeroshot_nas.errors import DataError, FileFormatError
from zeroshot_nas.nasbench.base import Split, register_table_format
from zeroshot_nas.nasbench.formats.reading import MAX_RUNS, as_number, choose_dataset, field_of
from zeroshot_nas.nasbench.formats.unpickling import load_torch
from zeroshot_nas.nasbench.table import BenchmarkTable, TableBuilder

METRICS = {
    "class_scene": "top1",
    "class_object": "top1",
    "jigsaw": "top1",
    "room_layout": "neg_loss",
    "segmentsemantic": "mIoU",
    "normal": "ssim",
    "autoencoder": "ssim",
}
"""The tasks, and the figure by which their networks are ranked; higher is better in each."""

_MARKER = "metrics"


class _Task(NamedTuple):
    """What is kept of an architecture's training on one task."""

    last: dict[str, float]
    best: dict[str, float]
    figures: dict[str, float | None]


def _is_transnas(path: Path, head: bytes) -> bool:
    torch_file = b"data.pkl" in head[:200] or head[2:13] == b"\x8a\nl\xfc\x9cF\xf9 j\xa8P"
    return torch_file and (b"metrics_dict" in head or b"task_list" in head or path.name.startswith("transnas"))


@register_table_format(
    "transnas_bench",
    recognises=_is_transnas,
    source="arXiv:2105.11871; yawen-d/TransNASBench, api/api.py",
)
def read_transnas(
    path: Path,
    /,
    *,
    dataset: str | None,
    split: Split = "test",
    space: Literal["micro", "macro"] = "micro",
    metric: str | None = None,
    epoch: Literal["best", "last"] = "best",
    skip_missing: bool = False,
) -> BenchmarkTable:
    """Reads ``transnas-bench_v10141024.pth``; torch is not needed.

    The accuracy is the task's own figure: top-1 in percent for ``class_scene``, ``class_object`` and ``jigsaw``; the
    negative loss for ``room_layout``, the mean intersection over union for ``segmentsemantic``, the structural
    similarity for ``normal`` and ``autoencoder``, which are no percentages. The columns are the file's model info, such
    as ``model_params`` and ``model_FLOPs``.

    Args:
        path: The file.
        dataset: The task; needs to be given where the file holds several.
        split: ``"test"`` unless given, or ``"valid"``.
        space: ``"micro"``, the cells, or ``"macro"``, the chains.
        metric: Another figure of the file in place of the task's own, such as ``"test_top5"``.
        epoch: The ``"best"`` epoch, as the authors' code gives unless told otherwise, or the ``"last"``.
        skip_missing: Whether to leave out architectures without the figure.
    """
    if epoch not in ("best", "last"):
        raise DataError(f"epoch is 'best' or 'last', got {epoch!r}")
    content = load_torch(path, marker=_MARKER, summarise=_summarise)
    spaces = field_of(content, "data", dict, str(path))
    if space not in spaces:
        texts = (each[:80] if isinstance(each, str) else quoted(each) for each in spaces)
        held = ", ".join(itertools.islice(texts, 20))
        raise FileFormatError(f"{path}: no search space {space!r}. Held: {held}")
    archs = field_of(spaces, space, dict, str(path))
    tasks = dict.fromkeys(
        task for entry in archs.values() if isinstance(entry, dict) for task in entry if isinstance(task, str)
    )
    dataset = choose_dataset(dataset, tasks, str(path))
    figure = metric or f"{split}_{METRICS.get(dataset, 'top1')}"
    known: dict[str, None] = {}
    builder = TableBuilder(path, f"{figure} of {dataset}", skip_missing)
    for arch, entry in archs.items():
        if not isinstance(arch, str) or not isinstance(entry, dict):
            raise FileFormatError(f"{path}: expected tasks by architecture in {space!r}")
        task = entry.get(dataset)
        if task is not None and not isinstance(task, _Task):
            raise FileFormatError(f"{path}: {arch[:80]}, {dataset}: expected an entry {_MARKER!r}")
        values = {} if task is None else (task.best if epoch == "best" else task.last)
        known.update(dict.fromkeys(values))
        builder.add(arch, values.get(figure), figures=None if task is None else task.figures)
    if figure not in known:
        held = ", ".join(name[:40] for name in itertools.islice(known, 20))
        kind = DataError if metric else FileFormatError  # the caller's wish, or the file's lack
        raise kind(f"{path} has no figure {figure!r} of {dataset}; held: {held}")
    return builder.table(
        name="TransNAS-Bench-101",
        space=f"transnas_{space}",
        dataset=dataset,
        code="arch",
        source=f"{figure} of the task {dataset}, {epoch} epoch",
    )


def _summarise(task: dict[Any, Any]) -> _Task | dict[Any, Any]:
    """The last and the best of every curve."""
    last, best = {}, {}
    metrics = task[_MARKER]
    if not isinstance(metrics, dict) or len(metrics) > MAX_RUNS:
        return task
    for name, curve in metrics.items():
        numbers = [as_number(value) for value in curve] if isinstance(curve, list) and len(curve) <= MAX_RUNS else []
        known = [number for number in numbers if number is not None]
        if isinstance(name, str) and known and numbers[-1] is not None:
            last[name], best[name] = numbers[-1], max(known)
    info = task.get("model_info")
    figures = {}
    if isinstance(info, dict) and len(info) <= MAX_RUNS:
        figures = {name: as_number(value) for name, value in info.items() if isinstance(name, str)}
    return _Task(last, best, figures)
