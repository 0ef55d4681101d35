"""What a run must not lose, in one SQLite file: its settings, its journal, and every score with what it depends on."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.score import Score
from zeroshot_nas.errors import CorruptStoreError, RunInUseError, StoreError

if TYPE_CHECKING:
    from filelock import FileLock

SCORING_VERSION = 1
"""Raised whenever a release changes a proxy's values, so that older scores are not taken for newer ones."""

FILE_NAME = "run.db"
"""The store of a run, in the run's folder."""

_BUSY_SECONDS = 30.0

_MIGRATIONS = (
    """
    CREATE TABLE facts (name TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE journal (
        number INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL
    );
    CREATE TABLE architectures (key TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE scores (
        architecture TEXT NOT NULL, proxy TEXT NOT NULL, settings TEXT NOT NULL, seed INTEGER NOT NULL,
        version INTEGER NOT NULL, value REAL, body TEXT NOT NULL,
        PRIMARY KEY (architecture, proxy, settings, seed, version)
    ) WITHOUT ROWID;
    """,
)
"""Each takes a store from one version of the schema to the next."""

_TABLES = {"facts": 2, "journal": 4, "architectures": 2, "scores": 7}
"""Tables and how many columns they have."""


class ScoreKey(NamedTuple):
    """What a score depends on, beside the release's `SCORING_VERSION`.

    Attributes:
        architecture: `Architecture.key`.
        proxy: `Proxy.key`.
        settings: Canonical JSON of the settings: batch size, repeats, device and the rest.
        seed: The seed.
    """

    architecture: str
    proxy: str
    settings: str
    seed: int


class Entry(NamedTuple):
    """One entry of a run's journal."""

    number: int
    time: str
    kind: str
    body: Any


def canonical(settings: Mapping[str, Any]) -> str:
    """Settings as text: equal exactly where they are.

    Example:
        >>> canonical({"b": 1, "a": None})
        '{"a":null,"b":1}'
    """
    return json.dumps(settings, sort_keys=True, separators=(",", ":"))


class Store:
    """A SQLite file in write-ahead mode: many processes may read it while one writes.

    Args:
        path: The file; it is made if it is not there.
        read_only: Open for reading alone; the file must be there.

    Raises:
        StoreError: The file can't be opened, or is of a newer release.
        CorruptStoreError: The file is damaged.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with Store(Path(folder.name) / "run.db") as store:
        ...     store.set_fact("settings", {"seed": 0})
        ...     store.log("start", {})
        ...     [entry.kind for entry in store.journal()], store.fact("settings")
        (['start'], {'seed': 0})
        >>> folder.cleanup()
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        if read_only and not self.path.is_file():
            raise StoreError(f"{self.path} is not there")
        if self.path.is_file() and self.path.stat().st_size and not _is_sqlite(self.path):
            raise CorruptStoreError(f"{self.path} is not a store: its first bytes are not SQLite's")
        with self._explained("opened"):
            mode = "ro" if read_only else "rwc"
            uri = f"{self.path.absolute().as_uri()}?mode={mode}"
            self._connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            with self._explained("opened"):
                self._check()
                if not read_only:
                    self._connection.execute("PRAGMA journal_mode=WAL")
                    self._connection.execute("PRAGMA synchronous=NORMAL")
                self._migrate(read_only)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def fact(self, name: str) -> Any:
        """What was last set under a name; None if nothing was."""
        row = self._one("SELECT body FROM facts WHERE name = ?", (name,))
        return None if row is None else self._decoded(row[0])

    def set_fact(self, name: str, body: Any) -> None:
        """Keeps something under a name."""
        self._write("INSERT OR REPLACE INTO facts VALUES (?, ?)", [(name, json.dumps(body))])

    def log(self, kind: str, body: Any) -> None:
        """Adds an entry to the journal."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._write("INSERT INTO journal (time, kind, body) VALUES (?, ?, ?)", [(now, kind, json.dumps(body))])

    def journal(self, kind: str | None = None) -> Iterator[Entry]:
        """Entries of the journal, in order; of one kind, or all."""
        with self._explained("read"):
            rows = self._connection.execute(
                "SELECT number, time, kind, body FROM journal WHERE ? IN (kind, '') ORDER BY number", (kind or "",)
            )
            for number, time, what, body in rows:
                yield Entry(number, time, what, self._decoded(body))

    def score(self, key: ScoreKey) -> Score | None:
        """A stored score, or None."""
        row = self._one(
            "SELECT body FROM scores "
            "WHERE architecture = ? AND proxy = ? AND settings = ? AND seed = ? AND version = ?",
            (*key, SCORING_VERSION),
        )
        if row is None:
            return None
        try:
            return Score.from_dict(self._decoded(row[0]))
        except (TypeError, KeyError, AttributeError) as error:
            raise CorruptStoreError(f"{self.path} holds a score that is none: {row[0]:.80}") from error

    def put_architectures(self, architectures: Iterable[Architecture]) -> None:
        """Keeps architectures, so that scores by key can be read back with them."""
        rows = [(each.key, each.to_json()) for each in architectures]
        self._write("INSERT OR IGNORE INTO architectures VALUES (?, ?)", rows)

    def architecture(self, key: str) -> Architecture | None:
        """A kept architecture."""
        row = self._one("SELECT body FROM architectures WHERE key = ?", (key,))
        return None if row is None else Architecture.from_json(row[0])

    def put_scores(self, scores: Iterable[tuple[ScoreKey, Score]]) -> None:
        """Keeps scores, all or none of them."""
        rows = []
        for key, score in scores:
            body = score.to_dict()
            rows.append((*key, SCORING_VERSION, body["value"], json.dumps(body)))
        self._write("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def scores(self) -> Iterator[tuple[ScoreKey, Any]]:
        """All scores of this release's version, as `Score.to_dict` gives them."""
        with self._explained("read"):
            rows = self._connection.execute(
                "SELECT architecture, proxy, settings, seed, body FROM scores WHERE version = ? "
                "ORDER BY proxy, architecture, settings, seed",
                (SCORING_VERSION,),
            )
            for *key, body in rows:
                yield ScoreKey(*key), self._decoded(body)

    def __len__(self) -> int:
        row = self._one("SELECT count(*) FROM scores WHERE version = ?", (SCORING_VERSION,))
        return int(row[0]) if row else 0

    def _one(self, statement: str, values: tuple[Any, ...]) -> Any:
        with self._explained("read"):
            return self._connection.execute(statement, values).fetchone()

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with self._explained("written"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(statement, rows)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _check(self) -> None:
        connection = self._connection
        connection.text_factory = lambda text: text.decode(errors="replace")  # what it names may be damaged too
        damage = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
        connection.text_factory = str
        if damage != ["ok"]:
            raise CorruptStoreError(_damaged(self.path, "; ".join(damage)))

    def _migrate(self, read_only: bool) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise StoreError(
                f"{self.path} has schema version {version}; this release reads up to {len(_MIGRATIONS)}. Update it"
            )
        if version < len(_MIGRATIONS) and read_only:
            raise StoreError(f"{self.path} is of an older release; open it once for writing to bring it up to date")
        for number in range(version, len(_MIGRATIONS)):
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {_MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
            )

    def _decoded(self, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise CorruptStoreError(_damaged(self.path, f"{text!r:.60} is not JSON")) from error

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        """SQLite's errors as ours, with the file and what to do."""
        try:
            yield
        except UnicodeDecodeError as error:
            raise CorruptStoreError(_damaged(self.path, str(error))) from error
        except sqlite3.DatabaseError as error:
            reason = str(error)
            if "malformed" in reason or "not a database" in reason:
                raise CorruptStoreError(_damaged(self.path, reason)) from error
            ways_out = {
                "full": "make room; what was written before is intact",
                "readonly": "choose a folder that you may write to",
                "unable to open": "check that the folder is there and that you may write to it",
                "locked": "another process is writing to it; try again when it has ended",
                "disk I/O": "check the disk; what was written before is intact",
            }
            way_out = next((text for part, text in ways_out.items() if part in reason), "see the reason")
            raise StoreError(f"{self.path} can't be {verb} ({reason}): {way_out}") from error


def recover(damaged: Path | str, target: Path | str) -> dict[str, int]:
    """Copies what can still be read of a damaged store to a new file; nothing is overwritten.

    Args:
        damaged: The damaged file; it is only read.
        target: A file that is not there yet.

    Returns:
        How many rows of each table were saved.

    Raises:
        StoreError: The target exists.
    """
    target = Path(target)
    if target.exists():
        raise StoreError(f"{target} exists; recovery writes to a new file only")
    saved = dict.fromkeys(_TABLES, 0)
    with tempfile.TemporaryDirectory() as folder, Store(target) as store, store._explained("written"):
        copy = Path(folder) / FILE_NAME
        _copy_at_full_length(Path(damaged), copy)
        with closing(sqlite3.connect(copy)) as source:
            for table, columns in _TABLES.items():
                marks = ",".join("?" * columns)
                for row in _readable(source, table):
                    store._connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)  # noqa: S608
                    saved[table] += 1
    return saved


def _copy_at_full_length(damaged: Path, copy: Path) -> None:
    """Copies a SQLite file; what a truncated one lacks is filled with zeros, so that SQLite reads the rest."""
    data = damaged.read_bytes()
    page_size, pages = int.from_bytes(data[16:18]), int.from_bytes(data[28:32])
    missing = (1 << 16 if page_size == 1 else page_size) * pages - len(data)
    with copy.open("wb") as file:
        file.write(data)
        if 0 < missing < 1 << 32:
            file.truncate(len(data) + missing)
    log = damaged.with_name(damaged.name + "-wal")
    if log.exists():
        copy.with_name(copy.name + "-wal").write_bytes(log.read_bytes())


def _readable(source: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """Rows of a table up to its first damaged page, from either end."""
    seen: set[tuple[Any, ...]] = set()
    orders = {
        "facts": ("name", "name DESC"),
        "architectures": ("key", "key DESC"),
        "journal": ("number", "number DESC"),
        "scores": (
            "architecture, proxy, settings, seed, version",
            "architecture DESC, proxy DESC, settings DESC, seed DESC, version DESC",
        ),
    }[table]
    for order in orders:
        try:
            for row in source.execute(f"SELECT * FROM {table} ORDER BY {order}"):  # noqa: S608
                if row not in seen:
                    seen.add(row)
                    yield row
            return
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            continue  # the damaged page: the rest is read from the other end


@dataclass
class RunFolder:
    """A run's folder, locked for this process.

    Attributes:
        folder: The folder.
        store: Its store.
    """

    folder: Path
    store: Store
    _lock: FileLock

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()
        self._lock.release()


def lock_folder(folder: Path) -> FileLock:
    """Locks a run's folder for this process until the lock is released; the folder is made if it is not there.

    Raises:
        RunInUseError: Another process has it.
        StoreError: The folder can't be written to.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise RunInUseError(f"{folder} is in use by another process; wait for it, or choose another folder") from None
    except OSError as error:
        raise StoreError(f"{folder} can't be used for a run: {error}. Choose a folder that you may write to") from error
    return lock


def open_run(folder: Path | str, replaces: Sequence[str] | None = None) -> RunFolder:
    """Locks a run's folder for this process and opens its store; both are made if they are not there.

    Args:
        folder: The run's folder.
        replaces: Files of an earlier run that are removed with its store; None leaves everything.

    Raises:
        RunInUseError: Another process has it.
        StoreError: The folder can't be written to.
    """
    folder = Path(folder)
    lock = lock_folder(folder)
    try:
        if replaces is not None:
            for name in (*replaces, *(f"{FILE_NAME}{suffix}" for suffix in ("", "-wal", "-shm"))):
                (folder / name).unlink(missing_ok=True)
        return RunFolder(folder, Store(folder / FILE_NAME), lock)
    except BaseException:
        lock.release()
        raise


def settings_difference(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Where two runs' settings differ, one line each.

    Example:
        >>> settings_difference({"seed": 0, "proxy": "zen"}, {"seed": 1, "proxy": "zen"})
        ['seed: 0 in the run, 1 asked for']
    """
    names = [*stored, *(name for name in asked if name not in stored)]
    return [
        f"{name}: {stored.get(name)!r} in the run, {asked.get(name)!r} asked for"
        for name in names
        if stored.get(name) != asked.get(name)
    ]


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError as error:
        raise StoreError(f"{path} can't be read: {error}") from error


def _damaged(path: Path, reason: str) -> str:
    return (
        f"{path} is damaged ({reason}). It is left as it is; `zeroshot-nas runs recover` copies what can be read to a "
        "new file"
    )
