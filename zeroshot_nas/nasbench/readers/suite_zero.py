"""NAS-Bench-Suite-Zero: reference scores of thirteen proxies, with validation accuracies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zeroshot_nas.errors import FileFormatError
from zeroshot_nas.nasbench.base import register_table_format
from zeroshot_nas.nasbench.formats.json_text import load_json
from zeroshot_nas.nasbench.formats.reading import as_number, choose_dataset
from zeroshot_nas.nasbench.table import BenchmarkTable, TableBuilder

SPACES = {
    "nasbench101": "nasbench101",
    "nasbench201": "nasbench201",
    "nasbench301": "nasbench301",
    "transbench101_micro": "transnas_micro",
    "transbench101_macro": "transnas_macro",
}
"""NASLib's names of search spaces and ours."""

FAILED = -1e8
"""What NASLib writes where a score could not be computed."""

_ACCURACY = "val_accuracy"
_DIGITS = re.compile(r"\(\d(, \d){5}\)", re.ASCII)


def _is_suite_zero(path: Path, head: bytes) -> bool:
    named = path.name.startswith("zc_") and path.suffix == ".json"
    return head.lstrip()[:1] == b"{" and (named or b'"val_accuracy"' in head or b'"synflow"' in head)


def _collapse(entries: dict[str, Any]) -> Any:
    """A score's object becomes its number."""
    return entries.get("score", entries)


@register_table_format(
    "nasbench_suite_zero",
    recognises=_is_suite_zero,
    source="arXiv:2210.03230; automl/NASLib, naslib/runners/zc",
    splits=("valid",),
)
def read_suite_zero(
    path: Path, /, *, dataset: str | None, space: str | None = None, skip_missing: bool = False
) -> BenchmarkTable:
    """Reads ``zc_nasbench201.json`` and its siblings, as released or in the earlier layout by search space.

    The accuracy is the validation accuracy of one training. Every proxy is a column with its score as stored: no sign
    flipped, ``synflow`` a logarithm already, ``params`` and ``flops`` in millions where the released files have them;
    NaN where the computation failed (-1e8 in the file) or the proxy is missing. NAS-Bench-201's architectures become
    ``naslib_code``, six digits; others keep NASLib's tuple as text, ``naslib_tuple``.

    Args:
        path: The file.
        dataset: Which of its data sets, or tasks; need not be given where it holds one, or holds ``"cifar10"``.
        space: NASLib's name of the search space, in files that do not tell it by their name or layout.
        skip_missing: Whether to leave out architectures without an accuracy.
    """
    content = load_json(path, _collapse)
    if not isinstance(content, dict) or not all(isinstance(part, dict) for part in content.values()):
        raise FileFormatError(f"{path}: expected an object of data sets")
    named = next((name for name in SPACES if name in path.name), "")
    if _is_by_space(content):
        space = choose_dataset(space or (named if named in content else None), content, f"{path}, search spaces")
        content = content[space]
    dataset = choose_dataset(dataset, content, str(path))
    entries = content[dataset]
    if not isinstance(entries, dict) or not entries:
        raise FileFormatError(f"{path}: no architectures of the data set {dataset!r}")
    digits = all(_DIGITS.fullmatch(arch) for arch in entries)
    space = space or named
    code = "naslib_code" if digits and space == "nasbench201" else "naslib_tuple"
    builder = TableBuilder(path, _ACCURACY, skip_missing)
    failed: dict[str, int] = {}
    for arch, entry in entries.items():
        if not isinstance(entry, dict):
            raise FileFormatError(f"{path}: expected an object of scores for {arch[:100]!r}")
        scores = {}
        for proxy, value in entry.items():
            if proxy in (_ACCURACY, "idx", "arch"):
                continue
            score = as_number(value)
            if score is None or score == FAILED:
                failed[proxy] = failed.get(proxy, 0) + 1
                score = None
            scores[proxy] = score
        row = "".join(filter(str.isdigit, arch)) if code == "naslib_code" else arch
        builder.add(row, as_number(entry.get(_ACCURACY)), figures=scores, where=f"architecture {arch[:100]}")
    lost = ", ".join(f"{count} of {proxy}" for proxy, count in sorted(failed.items()))
    return builder.table(
        name="NAS-Bench-Suite-Zero",
        space=SPACES.get(space, space),
        dataset=dataset,
        code=code,
        source=f"validation accuracy of one training on {dataset}"
        + (f"; scores that failed are NaN: {lost}" if lost else ""),
    )


def _is_by_space(content: dict[str, Any]) -> bool:
    """Whether the first level is search spaces: the accuracies are a level deeper then."""
    for part in content.values():
        for entry in part.values():
            return isinstance(entry, dict) and any(isinstance(inner, dict) for inner in entry.values())
    return False
