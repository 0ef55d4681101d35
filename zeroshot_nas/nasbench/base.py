"""What a benchmark table is, the registry of file formats, and how a file is recognised and read."""

from __future__ import annotations

import bz2
import errno
import gzip
import inspect
import itertools
import math
import zlib
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.core.registry import Registry
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import DataError, FileFormatError, UnknownNameError, did_you_mean

Split: TypeAlias = Literal["test", "valid"]
"""Which images an accuracy was measured on."""

Floats: TypeAlias = NDArray[np.float64]

DATASETS: dict[str, tuple[Shape, int]] = {
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "ImageNet16-120": ((3, 16, 16), 120),
    "class_object": ((3, 256, 256), 75),
    "class_scene": ((3, 256, 256), 47),
}
"""Shape of one image and number of classes, by the names that tables use."""

IMAGE_DATASETS = ("cifar10", "cifar100", "ImageNet16-120")
"""The data sets of NAS-Bench-201 and of the benchmarks after it, by the names that tables use."""

DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, zlib.error)
"""What reading a damaged compressed file raises."""

MAX_RUNS = 1000
"""Longest list of runs, or of epochs, that is taken; a pickle can refer to one long list again and again."""

_HEAD = 4096

_Table = TypeVar("_Table", bound="FigureTable")


@dataclass(frozen=True, eq=False, kw_only=True)
class FigureTable:
    """Known figures of the architectures of a space, such as latencies; one row an architecture.

    Args:
        name: What messages and reports call the table.
        space: Registered name of the search space, such as ``"nasbench201"``; empty where the file does not say.
        dataset: What the networks were trained or measured on, such as ``"cifar10"``.
        rows: The architectures, each once, as text.
        code: The notation of ``rows``, one of `zeroshot_nas.spaces.base.SearchSpace.notations`: ``"op_code"`` and
            ``"naslib_code"`` are one digit an operation, ``"naslib"`` is NASLib's tuple of numbers, ``"arch"`` what the
            space itself writes.
        columns: Figures by name, one number a row; NaN where a figure is not known.
        source: Which file the figures are from, and which figures of it.

    Raises:
        DataError: The lengths differ, or an architecture occurs twice.

    Example:
        >>> table = FigureTable(name="demo", rows=["00", "01"], columns={"latency_ms": [1.5, 2.5]})
        >>> len(table), table.index("01"), table.columns["latency_ms"].tolist()
        (2, 1, [1.5, 2.5])
    """

    name: str
    rows: list[str]
    space: str = ""
    dataset: str = ""
    code: str = "arch"
    columns: Mapping[str, Floats] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", list(self.rows))
        if not all(isinstance(row, str) and row for row in self.rows):
            raise DataError("rows are architectures as text, none of them empty")
        if len(self._positions) != len(self.rows):
            twice = next(row for place, row in enumerate(self.rows) if self._positions[row] != place)
            raise DataError(f"the architecture {twice!r} occurs twice; give each architecture one row")
        columns = {name: self._numbers(values, f"column {name!r}") for name, values in self.columns.items()}
        object.__setattr__(self, "columns", columns)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {row: place for place, row in enumerate(self.rows)}

    def _numbers(self, values: ArrayLike, what: str) -> Floats:
        numbers = np.array(values, dtype=np.float64)
        if numbers.shape != (len(self.rows),):
            raise DataError(f"expected one number a row in {what}, {len(self.rows)} in all, got shape {numbers.shape}")
        numbers.setflags(write=False)
        return numbers

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, arch: object) -> bool:
        return arch in self._positions

    def index(self, arch: str) -> int:
        """The row of an architecture.

        Raises:
            DataError: The table has no such architecture.
        """
        try:
            return self._positions[arch]
        except (KeyError, TypeError):
            like = f", such as {self.rows[0]!r}" if self.rows else ""
            raise DataError(
                f"{self.name} has no architecture {arch!r}; its {len(self)} architectures are written in the code "
                f"{self.code!r}{like}"
            ) from None

    def take(self: _Table, places: Sequence[int]) -> _Table:
        """A table of some rows, in the order given."""
        return replace(
            self,
            rows=[self.rows[place] for place in places],
            columns={name: values[list(places)] for name, values in self.columns.items()},
        )

    def sample(self: _Table, n: int, seed: int) -> _Table:
        """A random part of the table, the same for the same seed on every machine; rows keep their order.

        With one seed, a smaller sample is a part of every larger one.

        Args:
            n: How many architectures.
            seed: An integer of 0 or more.

        Raises:
            DataError: The table does not have so many.
        """
        if isinstance(n, bool) or not isinstance(n, int) or not 0 < n <= len(self):
            raise DataError(f"a sample of {self.name} has 1 to {len(self)} architectures, got n={n!r}")
        return self.take(sorted(python_rng(seed).sample(range(len(self)), len(self))[:n]))

    def with_columns(self: _Table, figures: FigureTable, prefix: str = "") -> _Table:
        """The same table with the columns of another one of the same space, matched by architecture.

        Args:
            figures: Where the columns come from; NaN stands where it lacks an architecture.
            prefix: Put before their names.

        Raises:
            DataError: The tables write architectures differently, or have columns of one name.
        """
        if (figures.space, figures.code) != (self.space, self.code):
            raise DataError(
                f"expected architectures of space {self.space!r} in code {self.code!r}, as in {self.name}, got "
                f"{figures.space!r} and {figures.code!r} of {figures.name}"
            )
        columns = dict(self.columns)
        for name, values in figures.columns.items():
            if prefix + name in columns:
                raise DataError(f"{self.name} has a column {prefix + name!r} already; give another prefix")
            columns[prefix + name] = np.array(
                [values[figures.index(row)] if row in figures else math.nan for row in self.rows]
            )
        return replace(self, columns=columns, source=f"{self.source}; {figures.source}")


@dataclass(frozen=True, eq=False, kw_only=True)
class BenchmarkTable(FigureTable):
    """Architectures of a search space with their trained accuracy: what proxies are correlated with.

    Args:
        accuracy: Top-1 accuracy of every row in percent, the mean over training runs where there are several; higher
            is better.
        runs: The accuracy of each training run of every row, where the file has them; the rows may have different
            numbers of runs.

    Raises:
        DataError: An accuracy is missing, or see `FigureTable`.

    Example:
        >>> table = BenchmarkTable(name="demo", rows=["00", "01", "10"], accuracy=[10.0, 91.5, 93.0])
        >>> table.accuracy_of("10"), table.sample(2, seed=0).rows
        (93.0, ['00', '10'])
    """

    accuracy: Floats
    runs: list[tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        accuracy = self._numbers(self.accuracy, "accuracy")
        object.__setattr__(self, "accuracy", accuracy)
        gaps = np.flatnonzero(~np.isfinite(accuracy))
        if len(gaps):
            raise DataError(
                f"{len(gaps)} of {len(self)} accuracies are no finite numbers, the first that of "
                f"{self.rows[gaps[0]]!r}; leave these rows out"
            )
        if self.runs is not None:
            object.__setattr__(self, "runs", [tuple(map(float, runs)) for runs in self.runs])
            if len(self.runs) != len(self):
                raise DataError(f"expected the runs of {len(self)} rows, got those of {len(self.runs)}")

    def accuracy_of(self, arch: str) -> float:
        """The accuracy of an architecture in percent.

        Raises:
            DataError: The table has no such architecture.
        """
        return float(self.accuracy[self.index(arch)])

    def take(self, places: Sequence[int]) -> BenchmarkTable:
        """A table of some rows, in the order given."""
        return replace(
            self,
            rows=[self.rows[place] for place in places],
            columns={name: values[list(places)] for name, values in self.columns.items()},
            accuracy=self.accuracy[list(places)],
            runs=None if self.runs is None else [self.runs[place] for place in places],
        )


class TableBuilder:
    """Gathers rows while a file is read, eight bytes a number, and checks them as every format must be.

    Args:
        file: The file's name for messages.
        figure: What the accuracy is, for messages: ``"x-valid accuracy after 200 epochs"``.
        skip_missing: Whether rows without an accuracy are left out; otherwise they are an error.
    """

    def __init__(self, file: str | Path, figure: str, skip_missing: bool = False) -> None:
        self.file, self.figure, self.skip_missing = str(file), figure, skip_missing
        self._places: dict[str, int] = {}
        self._accuracy = array("d")
        self._runs: list[tuple[float, ...]] = []
        self._columns: dict[str, array[float]] = {}
        self._missing: list[str] = []
        self._seen = 0

    def add(
        self,
        arch: str,
        accuracy: float | None,
        runs: Iterable[float] = (),
        figures: Mapping[str, float | None] | None = None,
        where: str = "",
    ) -> None:
        """Adds a row.

        Args:
            arch: The architecture.
            accuracy: In percent; None or NaN where it is missing.
            runs: The accuracies of its runs.
            figures: Further figures; None where one is not known.
            where: Where the row stands in the file, for messages.

        Raises:
            FileFormatError: The architecture is empty, or came before with another accuracy.
        """
        self._seen += 1
        where = where or f"architecture {arch[:80]!r}"
        if not arch:
            raise FileFormatError(f"{self.file}: {where} has an empty architecture")
        if accuracy is None or not math.isfinite(accuracy):
            self._missing.append(where)
            return
        if arch in self._places:
            known = self._accuracy[self._places[arch]]
            if known != accuracy:
                raise FileFormatError(
                    f"{self.file}: {where} gives the accuracy {accuracy:g} to {arch[:80]!r}, an earlier row gave "
                    f"{known:g}; keep one row an architecture"
                )
            return
        self._places[arch] = len(self._accuracy)
        self._accuracy.append(accuracy)
        self._runs.append(tuple(runs))
        for name, value in (figures or {}).items():
            if name not in self._columns:
                self._columns[name] = array("d", [math.nan]) * (len(self._accuracy) - 1)
            self._columns[name].append(math.nan if value is None else value)
        for column in self._columns.values():
            if len(column) < len(self._accuracy):
                column.append(math.nan)

    def drop_columns(self, names: Iterable[str]) -> None:
        """Takes back columns that turned out to hold no figures."""
        for name in names:
            self._columns.pop(name, None)

    def table(self, *, name: str, space: str, dataset: str, code: str, source: str) -> BenchmarkTable:
        """The table of all rows added.

        Raises:
            FileFormatError: Rows have no accuracy and are not to be skipped, or there are no rows.
        """
        if self._missing and not self.skip_missing:
            first = "; ".join(self._missing[:3])
            raise FileFormatError(
                f"{self.file}: {len(self._missing)} of {self._seen} rows have no {self.figure}, the first: {first}. "
                "Give skip_missing=True to leave them out"
            )
        if not self._places:
            raise FileFormatError(f"{self.file}: no row has a {self.figure}")
        left_out = f"; {len(self._missing)} rows without it left out" if self._missing else ""
        return BenchmarkTable(
            name=name,
            space=space,
            dataset=dataset,
            rows=list(self._places),
            code=code,
            accuracy=np.frombuffer(self._accuracy),
            runs=self._runs if any(self._runs) else None,
            columns={name: np.frombuffer(values) for name, values in self._columns.items()},
            source=f"{Path(self.file).name}: {source}{left_out}",
        )


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
        provides: Name of the table that an installed package holds in this format; empty for none.
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
    """Names of the tables that come with an optional package, for `load_table`.

    Example:
        >>> list_tables()
        ['nasbench201']
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
        path_or_name: A file, a folder (NATS-Bench's ``-simple``), or the name of a table that an optional package
            holds: ``"nasbench201"``.
        dataset: What the networks were trained on, such as ``"cifar10"``; for TransNAS-Bench-101, the task. Where the
            file holds one only, or holds ``"cifar10"``, it need not be said.
        format: Name of the format, where it can't be told from the file; see `list_table_formats`.
        split: ``"test"`` or ``"valid"``; default: test accuracy where the file has it. The table's ``source`` says
            which figure it is.
        options: The format's own options, such as ``epochs=12``, ``skip_missing=True`` or ``accuracy_column="top1"``.

    Raises:
        FileNotFoundError: There is no such file.
        UnknownNameError: No table, format or data set has that name.
        MissingExtraError: The table's package is not installed.
        DataError: An option is unknown, the format has no such split, or the file holds no accuracies.
        FileFormatError: The file is of no known format, is damaged, or asks for code to be run.
    """
    table = _load(path_or_name, dataset, format, split, options)
    if not isinstance(table, BenchmarkTable):
        raise DataError(f"{table.name} holds {', '.join(table.columns)}, but no accuracies; read it with load_figures")
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


def open_stream(path: Path) -> BinaryIO:
    """Opens a file for reading, through bz2 or gzip where its first bytes say so."""
    with path.open("rb") as file:
        magic = file.read(3)
    if magic == b"BZh":
        return cast(BinaryIO, bz2.open(path, "rb"))
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def peek(path: Path) -> bytes:
    """The first 4,096 bytes of a file after decompression; what there is where it is damaged."""
    with open_stream(path) as stream:
        try:
            return stream.read(_HEAD)
        except DAMAGE:
            return b""


def as_number(value: object) -> float | None:
    """A finite number as a float; None for anything else, such as text, NaN or a truth value.

    Example:
        >>> as_number(3), as_number("3"), as_number(float("nan"))
        (3.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int of more than 308 digits
        return None
    return number if math.isfinite(number) else None


def field_of(data: object, key: object, kind: type[_Kind], where: str) -> _Kind:
    """An entry of a mapping, of the type it must have.

    Args:
        data: What should be a dict.
        key: The entry's key.
        kind: The type that it must have.
        where: File and place, for the message.

    Raises:
        FileFormatError: ``data`` is no dict, has no such entry, or it is of another type.
    """
    if not isinstance(data, dict):
        raise FileFormatError(f"{where}: expected a dict with {key!r}, got {_described(data)}")
    if key not in data:
        near = [name for name in itertools.islice(data, 200) if isinstance(name, str) and len(name) < 80]
        hint = did_you_mean(key, near) if isinstance(key, str) else ""
        raise FileFormatError(f"{where}: expected an entry {key!r}, found none.{hint}")
    value = data[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise FileFormatError(f"{where}: expected {key!r} to be of type {kind.__name__}, got {_described(value)}")
    return value


def choose_dataset(dataset: str | None, held: Iterable[str], where: str) -> str:
    """The data set that is meant: the given one, or the only one, or CIFAR-10.

    Raises:
        FileFormatError: The file does not hold it, or holds several and none was named.
    """
    names = list(held)
    listed = ", ".join(name[:80] for name in names[:20]) or "none"
    if dataset is None:
        if "cifar10" in names or len(names) == 1:
            return "cifar10" if "cifar10" in names else names[0]
        raise FileFormatError(f"{where}: holds several data sets; say which with dataset=, one of: {listed}")
    if dataset not in names:
        raise FileFormatError(f"{where}: no data set {dataset!r}.{did_you_mean(dataset, names)} Held: {listed}")
    return dataset


_Kind = TypeVar("_Kind")


def _described(value: object) -> str:
    return f"{type(value).__name__} {value[:40]!r}" if isinstance(value, str) else type(value).__name__
