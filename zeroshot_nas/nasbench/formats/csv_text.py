"""Comma-separated text of benchmarks, line by line, with limits."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zeroshot_nas.core.text import quoted
from zeroshot_nas.errors import FileFormatError
from zeroshot_nas.nasbench.formats.reading import DAMAGE, MAX_ROWS, open_stream

MAX_LINE = 1 << 20
"""Letters of the longest line taken."""

MAX_COLUMNS = 10_000
"""Most columns taken; NAS-Bench-Suite-Zero's proxies, and every device of HW-NAS-Bench, are some dozens."""


@contextmanager
def open_lines(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a text file, which may be compressed; a byte order mark is skipped.

    Raises:
        FileFormatError: While they are read: the file is damaged, or has too long or too many lines.
    """
    with open_stream(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        yield _lines(text, path)


def _lines(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    for number in itertools.count(1):
        try:
            line = text.readline(MAX_LINE)
        except DAMAGE as error:
            raise FileFormatError(f"{path}: damaged or cut short after line {number - 1}: {error}") from error
        if not line:
            return
        if len(line) == MAX_LINE:
            raise FileFormatError(f"{path}: line {number} is longer than {MAX_LINE} letters; this is no table")
        if number > MAX_ROWS:
            raise FileFormatError(f"{path}: more than {MAX_ROWS:,} lines; no benchmark has so many architectures")
        yield line


def read_rows(lines: Iterator[str], path: Path, skipped: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields, after ``skipped`` lines; the first row names the columns, blank lines are no rows.

    Raises:
        FileFormatError: There is no first row, it or it names a column twice.
    """
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise FileFormatError(f"{path}: line {reader.line_num + skipped} is damaged: {error}") from error
        if row is None:
            break
        if not row:
            continue
        if header is None:
            header = row
            _check_header(header, path)
        yield reader.line_num + skipped, row
    if header is None:
        raise FileFormatError(f"{path}: empty; expected a line of column names")


def _check_header(header: list[str], path: Path) -> None:
    if len(header) > MAX_COLUMNS:
        raise FileFormatError(f"{path}: {len(header):,} columns, and at most {MAX_COLUMNS:,} are taken")
    twice = next((a for a, b in itertools.pairwise(sorted(header)) if a == b), None)
    if twice is not None:
        raise FileFormatError(f"{path}: two columns are named {quoted(twice)}")
