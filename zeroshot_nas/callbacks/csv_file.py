"""Events as CSV files, one a kind of event, which any table program reads while the run works."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import IO, Any, get_args

from zeroshot_nas.callbacks.base import Event, Kind, register_callback
from zeroshot_nas.core.files import write_atomically
from zeroshot_nas.errors import CallbackError


@register_callback("csv")
class CsvWriter:
    """Writes ``score.csv``, ``epoch.csv`` and so on: a row an event, a column a number or a text of it.

    The files are begun anew with the run, and what it has done before is told again, so that each is whole.

    Args:
        folder: Where; made where it is not there.

    Raises:
        CallbackError: There is no folder.
    """

    def __init__(self, folder: str | Path | None) -> None:
        if folder is None:
            raise CallbackError("csv writes files: give the run a folder (out, --out), or say where, csv:folder=logs")
        self.folder = Path(folder)
        self._columns: dict[str, list[str]] = {}

    def __call__(self, event: Event) -> None:
        """Adds a row for an event."""
        if event.kind == "begin":
            self.folder.mkdir(parents=True, exist_ok=True)
            self._columns.clear()
            for kind in get_args(Kind):
                (self.folder / f"{kind}.csv").unlink(missing_ok=True)
            return
        texts = {name: value for name, value in event.about.items() if isinstance(value, str)}
        row = {"step": event.step, **texts, **event.values}
        file = self.folder / f"{event.kind}.csv"
        columns = self._columns.get(event.kind)
        if columns is None:
            self._begin(event.kind, file, list(row))
        elif new := [name for name in row if name not in columns]:
            self._widen(event.kind, file, [*columns, *new])
        with file.open("a", encoding="utf-8", newline="") as out:
            self._writer(event.kind, out).writerow(row)

    def _begin(self, kind: str, file: Path, columns: list[str]) -> None:
        self._columns[kind] = columns
        with file.open("w", encoding="utf-8", newline="") as out:
            self._writer(kind, out).writeheader()

    def _widen(self, kind: str, file: Path, columns: list[str]) -> None:
        """Writes the file again with further columns."""
        with file.open(encoding="utf-8", newline="") as before:
            rows = list(csv.DictReader(before))
        self._columns[kind] = columns

        def write(draft: Path) -> None:
            with draft.open("w", encoding="utf-8", newline="") as out:
                writer = self._writer(kind, out)
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(file, write)

    def _writer(self, kind: str, out: IO[str]) -> csv.DictWriter[Any]:
        return csv.DictWriter(out, self._columns[kind], lineterminator="\n")
