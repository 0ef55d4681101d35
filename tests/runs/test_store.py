"""The store: what goes in comes out, many read while one writes, and damage is named and survived."""

import json
import math
import random
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.errors import ArchitectureError, CorruptStoreError, RunInUseError, StoreError
from zeroshot_nas.runs import store as store_module
from zeroshot_nas.runs.store import ScoreKey, Store, canonical, open_run, recover, settings_difference

KEY = ScoreKey("a" * 32, "zen", canonical({"repeats": 4}), 0)
NET = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", (3, 8, 8))


def a_score(value=1.5, **changes):
    return zs.Score(**{"proxy": "zen", "value": value, "standard_error": 0.1, "repeats": 4, "seconds": 0.2, **changes})


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "run.db") as opened:
        yield opened


@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    error=st.none() | st.floats(0, 1e9),
    seed=st.integers(0, 2**128),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_scores_come_back_bit_for_bit(store, value, error, seed):
    key = KEY._replace(seed=seed)
    store.put_scores([(key, a_score(value, standard_error=error))])
    assert store.score(key) == a_score(value, standard_error=error)


def test_failed_scores_keep_their_reason_and_architectures_their_bits(store):
    failed = zs.Score("zen", math.nan, None, 0, 0.1, "failed", "dead")
    store.put_scores([(KEY, failed)])
    assert store.score(KEY).reason == "dead"
    store.put_architectures([NET, NET])
    assert store.architecture(NET.key) == NET
    assert store.architecture("missing") is None


def an_earlier_store(path, scores):
    """A store as releases before digests wrote it, with 64-bit seeds."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(store_module._MIGRATIONS[0])
        connection.execute("PRAGMA user_version = 1")
        connection.execute("INSERT INTO facts VALUES ('settings', '{}')")
        connection.execute("INSERT INTO journal (time, kind, body) VALUES ('now', 'start', '1')")
        connection.execute("INSERT INTO architectures VALUES (?, ?)", (NET.key, NET.to_json()))
        for key, body in scores:
            row = (*key, store_module.SCORING_VERSION, body["value"], json.dumps(body))
            connection.execute("INSERT INTO scores VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def contents(store):
    return list(store.journal()), list(store.scores()), store.fact("settings"), store.architecture(NET.key)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_store_of_an_earlier_release_is_read_and_brought_up_to_date(tmp_path, read_only):
    scores = [(KEY._replace(seed=seed), a_score(seed / 3).to_dict()) for seed in (0, 1, 2**62)]
    an_earlier_store(tmp_path / "run.db", scores)
    before = (tmp_path / "run.db").read_bytes()
    with Store(tmp_path / "run.db", read_only=read_only) as store:
        journal, found, fact, network = contents(store)
        assert (found, fact, network) == (sorted(scores, key=lambda pair: str(pair[0].seed)), {}, NET)
        assert [(entry.number, entry.kind, entry.body) for entry in journal] == [(1, "start", 1)]
        assert store.score(scores[-1][0]) == a_score(2**62 / 3)
        if not read_only:
            store.log("more", 2)
    assert ((tmp_path / "run.db").read_bytes() == before) is read_only
    with Store(tmp_path / "run.db") as store:
        assert [entry.number for entry in store.journal()] == [1] if read_only else [1, 2]


def test_details_come_back_and_an_older_score_has_none(store, tmp_path):
    detailed = a_score(1.5, details={"P": 3.25, "D": 0.5})
    store.put_scores([(KEY, detailed)])
    assert store.score(KEY) == detailed
    body = {name: value for name, value in detailed.to_dict().items() if name != "details"}
    an_earlier_store(tmp_path / "old.db", [(KEY, body)])
    with Store(tmp_path / "old.db") as old:
        assert old.score(KEY) == a_score(1.5)


def test_a_score_is_found_only_under_all_that_it_depends_on(store, monkeypatch):
    store.put_scores([(KEY, a_score())])
    for change in ({"architecture": "b"}, {"proxy": "phi"}, {"settings": "{}"}, {"seed": 1}):
        assert store.score(KEY._replace(**change)) is None
    monkeypatch.setattr(store_module, "SCORING_VERSION", 99)
    assert store.score(KEY) is None
    assert len(store) == 0


def test_the_journal_keeps_order_and_facts_their_last_value(store):
    for number in range(5):
        store.log("even" if number % 2 == 0 else "odd", number)
        store.set_fact("last", number)
    assert [entry.body for entry in store.journal()] == [0, 1, 2, 3, 4]
    assert [entry.body for entry in store.journal("odd")] == [1, 3]
    assert store.fact("last") == 4
    assert store.fact("none") is None


def test_many_read_while_one_writes(tmp_path):
    with Store(tmp_path / "run.db") as writer, Store(tmp_path / "run.db", read_only=True) as reader:
        writer.put_scores([(KEY, a_score())])
        assert reader.score(KEY) == a_score()
        with pytest.raises(StoreError, match=r"can't be written .*readonly"):
            reader.log("no", {})


def test_a_store_that_is_not_there_or_of_another_release(tmp_path):
    with pytest.raises(StoreError, match=r"run.db is not there"):
        Store(tmp_path / "run.db", read_only=True)
    Store(tmp_path / "run.db").close()
    connection = sqlite3.connect(tmp_path / "run.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="schema version 99; this release reads up to 2"):
        Store(tmp_path / "run.db")


def test_a_full_disk_is_said_and_what_was_there_stays(store):
    store.put_scores([(KEY, a_score())])
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreError, match=r"run.db can't be written \(database or disk is full\): make room"):
        store.log("filler", "x" * 1_000_000)
    assert store.score(KEY) == a_score()


def test_a_folder_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="can't be used for a run"):
        open_run(tmp_path / "file" / "run")


def test_a_second_process_is_refused(tmp_path):
    code = "import sys; from zeroshot_nas.runs.store import open_run; open_run(sys.argv[1])"
    with open_run(tmp_path):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
        assert "RunInUseError" in done.stderr
        with pytest.raises(RunInUseError, match="in use by another process"):
            open_run(tmp_path)
    open_run(tmp_path).__exit__()


def filled(path, scores=400):
    with Store(path) as store:
        store.set_fact("settings", {"seed": 0})
        for number in range(40):
            store.log("entry", {"number": number, "text": "x" * 200})
        store.put_scores([(KEY._replace(seed=seed), a_score(seed / 7)) for seed in range(scores)])
        store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


def test_a_truncated_file_is_named_and_its_healthy_part_recovered(tmp_path):
    path = tmp_path / "run.db"
    data = filled(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptStoreError, match=r"run.db is damaged .*runs recover"):
        Store(path)
    saved = recover(path, tmp_path / "saved.db")
    assert path.read_bytes() == data[: len(data) // 2], "the damaged file is left as it is"
    assert sum(saved.values()) > 0
    with Store(tmp_path / "saved.db") as store:
        for key, body in store.scores():
            assert body["value"] == key.seed / 7
    with pytest.raises(StoreError, match="exists; recovery writes to a new file only"):
        recover(path, tmp_path / "saved.db")


@pytest.mark.parametrize("seed", range(40))
def test_damage_anywhere_raises_no_error_but_ours(tmp_path, seed):
    path, rng = tmp_path / "run.db", random.Random(seed)
    data = bytearray(filled(path, scores=60))
    for _ in range(rng.choice([1, 20, 400])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    path.write_bytes(bytes(data))
    try:
        with Store(path) as store:
            list(store.journal())
            list(store.scores())
            store.fact("settings")
    except StoreError:
        recover(path, tmp_path / "saved.db")


def test_what_is_no_database_is_named(tmp_path):
    (tmp_path / "run.db").write_text("hello, this is a text file")
    with pytest.raises(CorruptStoreError, match="first bytes are not SQLite's"):
        Store(tmp_path / "run.db")


def test_differences_between_settings_are_listed():
    assert settings_difference({"a": 1, "b": [2]}, {"a": 1, "b": [3], "c": None}) == [
        "b: [2] in the run, [3] asked for"
    ]
    assert json.loads(canonical({"b": 1, "a": [1.5, None]})) == {"a": [1.5, None], "b": 1}


CROWD = """
import sys, time
from pathlib import Path
from zeroshot_nas.runs.store import Store
while not Path(sys.argv[1], "go").exists():
    time.sleep(0.001)
for number in range(20):
    with Store(Path(sys.argv[1], f"cache-{number}.db")) as store:
        store.log("hello", sys.argv[2])
"""


@pytest.mark.slow
def test_processes_may_begin_a_store_at_once(tmp_path):
    crowd = [
        subprocess.Popen([sys.executable, "-c", CROWD, tmp_path, str(number)], stderr=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    (tmp_path / "go").touch()
    assert [process.communicate()[1] for process in crowd] == [""] * 4
    for number in range(20):
        with Store(tmp_path / f"cache-{number}.db") as store:
            assert sorted(entry.body for entry in store.journal()) == ["0", "1", "2", "3"]


@pytest.mark.slow
def test_a_turned_bit_is_found_or_changes_nothing(tmp_path):
    path, rng = tmp_path / "run.db", random.Random(0)
    data = filled(path, scores=60)
    with Store(path) as store:
        store.put_architectures([NET])
        store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = contents(store)
    data, unnoticed = path.read_bytes(), 0
    for _ in range(400):
        place, flipped = rng.randrange(len(data)), bytearray(data)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(flipped))
        try:
            with Store(path, read_only=True) as store:
                after = contents(store)
        except (StoreError, ArchitectureError):
            continue
        unnoticed += 1
        assert after == before, f"byte {place}"
    assert unnoticed < 300, "most of a store is content"


@pytest.mark.parametrize("read_only", [True, False])
def test_a_view_in_place_of_a_table_is_refused_before_it_is_read(tmp_path, read_only):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i AS name, i AS body FROM n"
    with closing(sqlite3.connect(tmp_path / "run.db")) as connection:
        connection.execute(f"CREATE VIEW facts AS {endless}")
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(CorruptStoreError, match="its tables are not those of a store"):
        Store(tmp_path / "run.db", read_only=read_only)
    assert set(recover(tmp_path / "run.db", tmp_path / "saved.db").values()) == {0}


def test_another_programs_database_is_left_as_it_is(tmp_path):
    with closing(sqlite3.connect(tmp_path / "mine.db")) as connection:
        connection.execute("CREATE TABLE holidays (day TEXT)")
    before = (tmp_path / "mine.db").read_bytes()
    with pytest.raises(CorruptStoreError, match="its tables are not those of a store"):
        Store(tmp_path / "mine.db")
    assert (tmp_path / "mine.db").read_bytes() == before


@pytest.mark.parametrize("closed", [True, False])
def test_a_store_where_nothing_can_be_written_is_read(tmp_path, closed):
    """As on read-only media: SQLite can't have its ``-shm`` file there."""
    with Store(tmp_path / "run.db") as writer:
        writer.put_scores([(KEY, a_score())])
        if not closed:  # a copy of a run that was under way, with what SQLite had beside it
            (tmp_path / "copy").mkdir()
            for name in ("run.db", "run.db-wal"):
                (tmp_path / "copy" / name).write_bytes((tmp_path / name).read_bytes())
    folder = tmp_path if closed else tmp_path / "copy"
    (folder / "run.db-shm").mkdir()
    before = (folder / "run.db").read_bytes()
    with Store(folder / "run.db", read_only=True) as store:
        assert store.score(KEY) == a_score()
        with pytest.raises(StoreError, match="can't be written"):
            store.log("no", {})
    assert (folder / "run.db").read_bytes() == before


def test_an_empty_file_is_a_store_that_holds_nothing(tmp_path):
    (tmp_path / "run.db").touch()
    with Store(tmp_path / "run.db", read_only=True) as store:
        assert (list(store.journal()), store.fact("settings"), len(store)) == ([], None, 0)
    assert (tmp_path / "run.db").read_bytes() == b""


def test_recovery_of_nothing_leaves_nothing(tmp_path):
    with pytest.raises(StoreError, match=r"run.db is not there"):
        recover(tmp_path / "run.db", tmp_path / "saved.db")
    assert not (tmp_path / "saved.db").exists()


def test_recovery_leaves_out_rows_that_changed(tmp_path):
    with Store(tmp_path / "run.db") as store:
        store.put_scores([(KEY._replace(seed=seed), a_score(64.9)) for seed in range(3)])
    with closing(sqlite3.connect(tmp_path / "run.db", isolation_level=None)) as connection:
        connection.execute("UPDATE scores SET body = replace(body, '64.9', '74.9') WHERE seed = '1'")
    with Store(tmp_path / "run.db") as store, pytest.raises(CorruptStoreError, match="a row of scores does not fit"):
        store.score(KEY._replace(seed=1))
    assert recover(tmp_path / "run.db", tmp_path / "saved.db")["scores"] == 2
