"""The registry of benchmark file formats, and how a file is recognised and read."""

from __future__ import annotations

import errno
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from zeroshot_nas.core.registry import Registry
from zeroshot_nas.errors import DataError, FileFormatError, UnknownNameError, did_you_mean
from zeroshot_nas.nasbench.formats.reading import peek
from zeroshot_nas.nasbench.table import BenchmarkTable, FigureTable

Split: TypeAlias = Literal["test", "valid"]
"""Which images an accuracy was measured on."""


class TableFunction(Protocol):
    """``(path, *, dataset=, **options) -> BenchmarkTable`` or `FigureTable`; options are keyword-only.

    One of a format that holds both test and validation accuracies has an option ``split``.
    """

    def __call__(self, path: Path, /, *, dataset: str | None) -> FigureTable: ...


Recogniser: TypeAlias = Callable[[Path, bytes], bool]
"""``(path, head) -> bool``: whether a file is of a format, by its name and its first bytes after decompression."""

Finder: TypeAlias = Callable[[str | None], Path]
"""``(dataset) -> path``: where an installed package keeps a table."""


@dataclass(frozen=True)
class TableFormat:
    """A format of benchmark files and the facts that a caller needs.

    Attributes:
        name: Registered name.
        function: Reads a file.
        recognises: Whether a file is of this format.
        splits: Which accuracies the format holds; none where a file does not say, or has no accuracies.
        source: Where the format is documented.
        provides: Name of the table that this or another package holds in this format; empty for none.
        find: Where that package keeps it.
    """

    name: str
    function: TableFunction
    recognises: Recogniser
    splits: tuple[Split, ...]
    source: str
    provides: str = ""
    find: Finder | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the reader's own options."""
        parameters = inspect.signature(self.function).parameters.values()
        names = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        return tuple(name for name in names if name not in ("dataset", "split"))


TABLE_FORMATS: Registry[TableFormat] = Registry("table format", package="zeroshot_nas.nasbench.readers")

_Function = TypeVar("_Function", bound=TableFunction)


def register_table_format(
    name: str,
    *,
    recognises: Recogniser,
    source: str,
    splits: tuple[Split, ...] = ("test", "valid"),
    provides: str = "",
    find: Finder | None = None,
) -> Callable[[_Function], _Function]:
    """Registers a reader under the name of its format; the arguments are `TableFormat`'s.

    Example:
        >>> TABLE_FORMATS["nats_bench"].options
        ('epochs', 'skip_missing')
    """

    def register(function: _Function) -> _Function:
        TABLE_FORMATS.add(name, TableFormat(name, function, recognises, splits, source, provides, find))
        return function

    return register


def list_table_formats() -> list[str]:
    """Names of the formats that `load_table` reads."""
    return list(TABLE_FORMATS)


def list_tables() -> list[str]:
    """Names of the tables that come with this package or an optional one, for `load_table`.

    Example:
        >>> list_tables()
        ['nasbench201', 'vcn']
    """
    return sorted({TABLE_FORMATS[name].provides for name in TABLE_FORMATS} - {""})


def load_table(
    path_or_name: str | Path,
    *,
    dataset: str | None = None,
    format: str | None = None,  # noqa: A002  what it is called everywhere
    split: Split | None = None,
    **options: Any,
) -> BenchmarkTable:
    """Reads trained accuracies from a benchmark's file, whichever its format.

    Nothing in a file is ever executed: pickles go through a reader of plain data, and compressed files are read as a
    stream.

    Args:
        path_or_name: A file, a folder (NATS-Bench's ``-simple``), or the name of a table that a package holds:
            ``"vcn"``, which comes with this one, or ``"nasbench201"``.
        dataset: What the networks were trained on, such as ``"cifar10"``; for TransNAS-Bench-101, the task. Where the
            file holds one only, or holds ``"cifar10"``, it need not be said.
        format: Name of the format, where it can't be told from the file; see `list_table_formats`.
        split: ``"test"`` or ``"valid"``; default: test accuracy where the file has it. The table's ``source`` says
            which figure it is.
        options: The format's own options, such as ``epochs=12``, ``skip_missing=True``, ``budget="A"`` or
            ``accuracy_column="top1"``.

    Raises:
        FileNotFoundError: There is no such file.
        UnknownNameError: No table, format or data set has that name.
        MissingExtraError: The table's package is not installed.
        DataError: An option is unknown, the format has no such split, or the file holds no accuracies.
        FileFormatError: The file is of no known format, is damaged, or asks for code to be run.

    Example:
        >>> table = load_table("vcn", budget="A")
        >>> table.space, table.dataset, len(table) > 15
        ('vanilla', 'cifar10', True)
    """
    table = _load(path_or_name, dataset, format, split, options)
    if not isinstance(table, BenchmarkTable):
        raise DataError(f"{table.name} holds {', '.join(table.columns)}, but no accuracies; read it with load_figures")
    where = str(Path(path_or_name).resolve()) if Path(path_or_name).exists() else str(path_or_name)
    loaded_by = {"path_or_name": where, "dataset": dataset, "format": format, "split": split, **options}
    object.__setattr__(table, "loaded_by", loaded_by)  # the table was checked when it was made
    return table


def load_figures(
    path_or_name: str | Path,
    *,
    dataset: str | None = None,
    format: str | None = None,  # noqa: A002
    **options: Any,
) -> FigureTable:
    """Reads figures of architectures other than accuracies, such as the latencies of HW-NAS-Bench.

    ``table.with_columns(figures)`` joins them to accuracies of the same space. The arguments and errors are those of
    `load_table`.
    """
    return _load(path_or_name, dataset, format, None, options)


def _load(
    path_or_name: str | Path, dataset: str | None, format_name: str | None, split: Split | None, options: dict[str, Any]
) -> FigureTable:
    if split not in (None, "test", "valid"):
        raise DataError(f"split is 'test' or 'valid', got {split!r}")
    path = Path(path_or_name)
    if isinstance(path_or_name, str) and path_or_name in list_tables() and not path.exists():
        providers = [TABLE_FORMATS[name] for name in TABLE_FORMATS if TABLE_FORMATS[name].provides == path_or_name]
        chosen = next((entry for entry in providers if entry.name == format_name), providers[0])
        assert chosen.find is not None, f"{chosen.name} provides a table without saying where it is"
        path = chosen.find(dataset)
    elif not path.exists():
        if path.name == str(path_or_name) and not path.suffix:
            raise UnknownNameError("benchmark table", str(path_or_name), list_tables())
        raise FileNotFoundError(errno.ENOENT, "no such benchmark file", str(path))
    else:
        chosen = TABLE_FORMATS[format_name] if format_name is not None else recognise(path)
    if split is not None and split not in chosen.splits:
        held = f"{chosen.splits[0]} accuracies only" if chosen.splits else "no choice of accuracies; leave split out"
        raise DataError(f"files of the format {chosen.name} hold {held}; got split={split!r}")
    for option in options:
        if option not in chosen.options:
            hint = did_you_mean(option, chosen.options)
            known = ", ".join(chosen.options) or "none"
            raise DataError(f"the format {chosen.name} has no option {option!r}.{hint} Options: {known}")
    function: Callable[..., FigureTable] = chosen.function
    if split is not None and len(chosen.splits) > 1:
        options = {**options, "split": split}
    return function(path, dataset=dataset, **options)


def recognise(path: Path) -> TableFormat:
    """The format of a file, by its name and its first bytes.

    Raises:
        FileFormatError: It is of no known format, or could be of several.
    """
    head = b"" if path.is_dir() else peek(path)
    fitting = [TABLE_FORMATS[name] for name in TABLE_FORMATS if TABLE_FORMATS[name].recognises(path, head)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(entry.name for entry in fitting) if fitting else ", ".join(list_table_formats())
    what = "could be of several formats" if fitting else "is of no known format"
    raise FileFormatError(f"{path} {what}; say which with format=, one of: {names}")
