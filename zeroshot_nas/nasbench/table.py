"""Tables of known figures of architectures, accuracies among them, and how one is gathered while a file is read."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import DataError, FileFormatError

Floats: TypeAlias = NDArray[np.float64]

DATASET_IMAGES: dict[str, tuple[Shape, int]] = {
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "ImageNet16-120": ((3, 16, 16), 120),
    "class_object": ((3, 256, 256), 75),
    "class_scene": ((3, 256, 256), 47),
}
"""Shape of one image and number of classes, by the names that tables use."""

IMAGE_DATASETS = ("cifar10", "cifar100", "ImageNet16-120")
"""The data sets of NAS-Bench-201 and of the benchmarks after it, by the names that tables use."""

COLUMN_PREFIXES = dict(zip(IMAGE_DATASETS, ("c10_", "c100_", "in16_"), strict=True))
"""How columns begin in tables that hold figures of several data sets."""

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
        loaded_by: What `zeroshot_nas.nasbench.base.load_table` was called with; None for a table made by hand.

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
    loaded_by: Mapping[str, Any] | None = field(default=None, kw_only=True, repr=False, compare=False)

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


_SHOWN = 3
"""Rows that a message names."""


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
        self._missing: list[str] = []  # the first few
        self._missed = 0
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
            self._missed += 1
            if self._missed <= _SHOWN:
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
            first = "; ".join(self._missing)
            raise FileFormatError(
                f"{self.file}: {self._missed} of {self._seen} rows have no {self.figure}, the first: {first}. "
                "Give skip_missing=True to leave them out"
            )
        if not self._places:
            raise FileFormatError(f"{self.file}: no row has a {self.figure}")
        left_out = f"; {self._missed} rows without it left out" if self._missing else ""
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
