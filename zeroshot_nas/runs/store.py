"""What a run must not lose, in one SQLite file: its settings, its journal, and every score with what it depends on."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.score import Score
from zeroshot_nas.errors import CorruptStoreError, RunInUseError, StoreError

if TYPE_CHECKING:
    from filelock import FileLock

SCORING_VERSION = 3
"""Raised whenever a release changes a proxy's values, so that older scores are not taken for newer ones."""

FILE_NAME = "run.db"
"""The store of a run, in the run's folder."""

LOCK_NAME = ".lock"
"""What a process holds that works in a run's folder."""

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
    """
    ALTER TABLE facts RENAME TO old_facts;
    ALTER TABLE journal RENAME TO old_journal;
    ALTER TABLE architectures RENAME TO old_architectures;
    ALTER TABLE scores RENAME TO old_scores;
    CREATE TABLE facts (name TEXT PRIMARY KEY, body TEXT NOT NULL, digest TEXT NOT NULL);
    CREATE TABLE journal (
        number INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
        digest TEXT NOT NULL
    );
    CREATE TABLE architectures (key TEXT PRIMARY KEY, body TEXT NOT NULL, digest TEXT NOT NULL);
    CREATE TABLE scores (
        architecture TEXT NOT NULL, proxy TEXT NOT NULL, settings TEXT NOT NULL, seed TEXT NOT NULL,
        version INTEGER NOT NULL, value REAL, body TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (architecture, proxy, settings, seed, version)
    ) WITHOUT ROWID;
    INSERT INTO facts SELECT name, body, digest(name, body) FROM old_facts;
    INSERT INTO journal SELECT number, time, kind, body, digest(time, kind, body) FROM old_journal;
    INSERT INTO architectures SELECT key, body, digest(key, body) FROM old_architectures;
    INSERT INTO scores SELECT architecture, proxy, settings, seed, version, value, body,
        digest(architecture, proxy, settings, CAST(seed AS TEXT), version, body) FROM old_scores;
    DROP TABLE old_facts; DROP TABLE old_journal; DROP TABLE old_architectures; DROP TABLE old_scores;
    """,
)
"""Each takes a store from one version of the schema to the next; the second brought digests, and seeds of any size."""

_DIGESTED = {
    "facts": ("name", "body"),
    "journal": ("time", "kind", "body"),
    "architectures": ("key", "body"),
    "scores": ("architecture", "proxy", "settings", "seed", "version", "body"),
}
"""Tables, and the columns of each that a row's digest is of: a disk that turns a bit over must not choose a winner."""


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
        self._resources = ExitStack()
        if read_only and not self.path.is_file():
            raise StoreError(f"{self.path} is not there")
        if self.path.is_file() and self.path.stat().st_size and not _is_sqlite(self.path):
            raise CorruptStoreError(f"{self.path} is not a store: its first bytes are not SQLite's")
        with self._explained("opened"):
            if not read_only:
                self._open(self.path, "rwc")
            else:
                try:
                    self._open(self.path, "ro")
                except sqlite3.OperationalError as error:
                    if not any(part in str(error) for part in ("unable to open", "readonly", "disk I/O")):
                        raise
                    self._open(self._copied(), "rw")  # SQLite writes beside what it reads; this folder takes nothing
                    self._connection.execute("PRAGMA query_only = ON")

    def _open(self, path: Path, mode: str) -> None:
        """Connects to a file, makes sure that it is a store, and brings it up to date where it may be written."""
        deadline = time.monotonic() + _BUSY_SECONDS
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        while True:
            self._connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                self._connection.create_function("digest", -1, _digest, deterministic=True)
                self._version = self._checked_version()
                if mode == "rwc":
                    self._connection.execute("PRAGMA journal_mode=WAL")
                    self._connection.execute("PRAGMA synchronous=NORMAL")
                    self._version = _migrate(self._connection)
                elif self._version == 0:  # killed before anything was kept
                    self._connection.close()
                    self._connection = _empty(len(_MIGRATIONS))
                    self._version = len(_MIGRATIONS)
                return
            except BaseException as error:
                self._connection.close()
                # two that begin a store at once: SQLite does not wait here, whatever its timeout
                if not isinstance(error, sqlite3.OperationalError) or "locked" not in str(error):
                    raise
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _copied(self) -> Path:
        """The file, with what SQLite has beside it, in a folder that can be written."""
        folder = Path(self._resources.enter_context(tempfile.TemporaryDirectory()))
        for suffix in ("", "-wal", "-journal"):
            part = self.path.with_name(self.path.name + suffix)
            if part.is_file():
                shutil.copyfile(part, folder / part.name)
        return folder / self.path.name

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()
        self._resources.close()

    def fact(self, name: str) -> Any:
        """What was last set under a name; None if nothing was."""
        row = self._one("facts", "name = ?", (name,))
        return None if row is None else self._decoded(row["body"])

    def set_fact(self, name: str, body: Any) -> None:
        """Keeps something under a name."""
        with self._transaction():
            self._insert("facts", [{"name": name, "body": json.dumps(body)}])

    def begin(self, facts: Mapping[str, Any], kind: str, body: Any) -> None:
        """Keeps facts and an entry of the journal, all or none of them."""
        with self._transaction():
            self._insert("facts", [{"name": name, "body": json.dumps(fact)} for name, fact in facts.items()])
            self._insert("journal", [_entry(kind, body)])

    def log(self, kind: str, body: Any) -> None:
        """Adds an entry to the journal."""
        with self._transaction():
            self._insert("journal", [_entry(kind, body)])

    def journal(self, kind: str | None = None) -> Iterator[Entry]:
        """Entries of the journal, in order; of one kind, or all."""
        for row in self._rows("journal", "1 = 1", (), "number"):
            if kind in (None, row["kind"]):
                yield Entry(row["number"], row["time"], row["kind"], self._decoded(row["body"]))

    def score(self, key: ScoreKey) -> Score | None:
        """A stored score, or None."""
        where = "architecture = ? AND proxy = ? AND settings = ? AND seed = ? AND version = ?"
        row = self._one("scores", where, (*_columns(key).values(), SCORING_VERSION))
        if row is None:
            return None
        try:
            return Score.from_dict(self._decoded(row["body"]))
        except (TypeError, KeyError, AttributeError) as error:
            raise CorruptStoreError(f"{self.path} holds a score that is none: {row['body']:.80}") from error

    def put_architectures(self, architectures: Iterable[Architecture]) -> None:
        """Keeps architectures, so that scores by key can be read back with them."""
        with self._transaction():
            self._insert("architectures", [{"key": each.key, "body": each.to_json()} for each in architectures])

    def architecture(self, key: str) -> Architecture | None:
        """A kept architecture."""
        row = self._one("architectures", "key = ?", (key,))
        return None if row is None else Architecture.from_json(row["body"])

    def architecture_keys(self) -> list[str]:
        """Keys of the kept architectures, in the order in which they were last put."""
        return [row["key"] for row in self._rows("architectures", "1 = 1", (), "rowid")]

    def put_scores(self, scores: Iterable[tuple[ScoreKey, Score]]) -> None:
        """Keeps scores, all or none of them."""
        rows = []
        for key, score in scores:
            body = score.to_dict()
            about = {"version": SCORING_VERSION, "value": body["value"], "body": json.dumps(body)}
            rows.append({**_columns(key), **about})
        with self._transaction():
            self._insert("scores", rows)

    def scores(self) -> Iterator[tuple[ScoreKey, Any]]:
        """All scores of this release's version, as `Score.to_dict` gives them."""
        for row in self._rows("scores", "1 = 1", (), "proxy, architecture, settings, seed"):
            if row["version"] == SCORING_VERSION:
                key = ScoreKey(row["architecture"], row["proxy"], row["settings"], int(row["seed"]))
                yield key, self._decoded(row["body"])

    def __len__(self) -> int:
        with self._explained("read"):
            (count,) = self._connection.execute(
                "SELECT count(*) FROM scores WHERE version = ?", (SCORING_VERSION,)
            ).fetchone()
        return int(count)

    def _one(self, table: str, where: str, values: tuple[Any, ...]) -> dict[str, Any] | None:
        return next(self._rows(table, where, values, "1"), None)

    def _rows(self, table: str, where: str, values: tuple[Any, ...], order: str) -> Iterator[dict[str, Any]]:
        """Rows of a table by column, each checked against its digest."""
        with self._explained("read"):
            cursor = self._connection.execute(f"SELECT * FROM {table} WHERE {where} ORDER BY {order}", values)  # noqa: S608
            names = [column[0] for column in cursor.description]
            for values_of_row in cursor:
                row = dict(zip(names, values_of_row, strict=True))
                if not _is_intact(table, row):
                    raise CorruptStoreError(_damaged(self.path, f"a row of {table} does not fit its digest"))
                yield row

    def _insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Puts rows into a table, in place of those with their keys."""
        for row in rows:
            digest = _digest(*(row[name] for name in _DIGESTED[table]))
            marks = ", ".join("?" * (len(row) + 1))
            self._connection.execute(
                f"INSERT OR REPLACE INTO {table} ({', '.join(row)}, digest) VALUES ({marks})",  # noqa: S608
                (*row.values(), digest),
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Writes everything or nothing."""
        with self._explained("written"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _checked_version(self) -> int:
        """The version of the schema, of a file that has just that and is whole.

        Its tables are compared before anything is read of them: a view or a trigger of somebody's could run for ever.
        """
        connection = self._connection
        connection.text_factory = lambda text: text.decode(errors="replace")  # what it names may be damaged too
        connection.execute("BEGIN")  # another process may be at the first migration
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = _schema(connection)
        connection.execute("COMMIT")
        if version > len(_MIGRATIONS):
            raise StoreError(
                f"{self.path} has schema version {version}; this release reads up to {len(_MIGRATIONS)}. Update it"
            )
        if version < 0 or tables != _schema_of(version):
            raise CorruptStoreError(_damaged(self.path, "its tables are not those of a store"))
        damage = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
        connection.text_factory = str
        if damage != ["ok"]:
            raise CorruptStoreError(_damaged(self.path, "; ".join(damage)))
        return int(version)

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
        StoreError: There is no such file, or the target exists.
    """
    damaged, target = Path(damaged), Path(target)
    if not damaged.is_file():
        raise StoreError(f"{damaged} is not there")
    if target.exists():
        raise StoreError(f"{target} exists; recovery writes to a new file only")
    saved = dict.fromkeys(_DIGESTED, 0)
    with tempfile.TemporaryDirectory() as folder, Store(target) as store:
        copy = Path(folder) / FILE_NAME
        _copy_at_full_length(damaged, copy)
        with closing(sqlite3.connect(copy)) as source, store._transaction():
            for table in _DIGESTED:
                for row in _readable(source, table):
                    store._insert(table, [row])
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


def _readable(source: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    """Whole rows of a table up to its first damaged page, from either end."""
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
            if source.execute("SELECT 1 FROM sqlite_master WHERE type IN ('view', 'trigger')").fetchone():
                return  # somebody's view, which may have no end
            cursor = source.execute(f"SELECT * FROM {table} ORDER BY {order}")  # noqa: S608
            names = [column[0] for column in cursor.description]
            for values in cursor:
                row = dict(zip(names, values, strict=True))
                if values not in seen and _is_intact(table, row):
                    seen.add(values)
                    row.pop("digest", None)
                    yield {**row, "seed": str(row["seed"])} if table == "scores" else row
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
        lock = FileLock(folder / LOCK_NAME, timeout=0)
        lock.acquire()
    except Timeout:
        raise RunInUseError(f"{folder} is in use by another process; wait for it, or choose another folder") from None
    except OSError as error:
        raise StoreError(f"{folder} can't be used for a run: {error}. Choose a folder that you may write to") from error
    return lock


def is_in_use(folder: Path) -> bool:
    """Whether a process works in a run's folder just now."""
    return is_held(folder / LOCK_NAME)


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock just now."""
    from filelock import FileLock, Timeout

    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # where no lock can be taken nobody works
        return False


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


def _entry(kind: str, body: Any) -> dict[str, str]:
    """A row of the journal."""
    return {"time": datetime.now(UTC).isoformat(timespec="seconds"), "kind": kind, "body": json.dumps(body)}


def _columns(key: ScoreKey) -> dict[str, str]:
    return {**key._asdict(), "seed": str(key.seed)}


def _digest(*values: object) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()


def _is_intact(table: str, row: Mapping[str, Any]) -> bool:
    """Whether a row is as it was written; one of a release that kept no digests is taken as it is."""
    return "digest" not in row or row["digest"] == _digest(*(row[name] for name in _DIGESTED[table]))


def _migrate(connection: sqlite3.Connection) -> int:
    """Brings a file to the newest schema; another process may be doing the same."""
    while True:
        connection.execute("BEGIN IMMEDIATE")
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version < len(_MIGRATIONS):
                for statement in _MIGRATIONS[version].split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        if version >= len(_MIGRATIONS):
            return int(version)


def _empty(version: int) -> sqlite3.Connection:
    """A store in memory that holds nothing."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.create_function("digest", -1, _digest, deterministic=True)
    for migration in _MIGRATIONS[:version]:
        connection.executescript(migration)
    return connection


def _schema(connection: sqlite3.Connection) -> set[tuple[Any, ...]]:
    return set(connection.execute("SELECT type, name, sql FROM sqlite_master"))


@cache
def _schema_of(version: int) -> set[tuple[Any, ...]]:
    """The tables that a store of a version has."""
    with closing(_empty(version)) as connection:
        return _schema(connection)


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
