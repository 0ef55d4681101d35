import contextlib
import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zeroshot_nas.errors import DataError, FileFormatError
from zeroshot_nas.nasbench.base import load_table
from zeroshot_nas.nasbench.convert import convert
from zeroshot_nas.nasbench.table import BenchmarkTable

CSV = """op_code,note,accuracy,params,spare,run_a,run_b
001234,first,91.5,129306,,91,92
421211,"a, b",10,73306,1.5e3,10,
"""


def write(path, text):
    path.write_text(text)
    return path


def read(tmp_path, text, **options):
    return load_table(write(tmp_path / "table.csv", text), **options)


def test_codes_stay_text_and_numbers_become_columns(tmp_path):
    table = read(
        tmp_path, CSV, arch_column="op_code", run_columns=["run_a", "run_b"], space="nasbench201", dataset="cifar10"
    )
    assert table.rows == ["001234", "421211"]
    assert table.accuracy.tolist() == [91.5, 10.0]
    assert table.runs == [(91.0, 92.0), (10.0,)]
    assert {name: values.tolist() for name, values in table.columns.items()} == {
        "params": [129306, 73306],
        "spare": pytest.approx([math.nan, 1500], nan_ok=True),
    }
    assert (table.code, table.space, table.dataset, table.name) == ("op_code", "nasbench201", "cifar10", "table.csv")


def test_a_compressed_file_and_windows_text_are_read_alike(tmp_path):
    plain = read(tmp_path, CSV, arch_column="op_code")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(("\ufeff" + CSV.replace("\n", "\r\n")).encode()))
    packed = load_table(tmp_path / "t.csv.gz", arch_column="op_code")
    assert (packed.rows, packed.accuracy.tolist()) == (plain.rows, plain.accuracy.tolist())


def test_a_column_of_codes_is_no_column_of_numbers(tmp_path):
    table = read(tmp_path, "arch,naslib_code,accuracy,x\na,123456,1,0\nb,000000,2,0.5\n")
    assert list(table.columns) == ["x"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (CSV, {}, r"no column 'arch'\. Columns: op_code, note"),
        (CSV, {"arch_column": "opcode"}, r"no column 'opcode'\. Did you mean 'op_code'\?"),
        (CSV, {"arch_column": "op_code", "accuracy_column": "acuracy"}, r"Did you mean 'accuracy'\?"),
        (CSV, {"arch_column": "op_code", "run_columns": ["run_c"]}, r"no column 'run_c'"),
        (
            CSV,
            {"arch_column": "op_code", "run_columns": ["note"]},
            r"row 1 \(line 2\), column 'note': no number: 'first'",
        ),
        ("arch,accuracy\na,1\nb\n", {}, r"row 2 \(line 3\) has 1 fields, the header has 2"),
        ("arch,accuracy\na,1,5\n", {}, r"row 1 \(line 2\) has 3 fields, the header has 2"),
        (
            "arch,accuracy\na,1\n\nb,2\na,3\n",
            {},
            r"row 3 \(line 5\), column 'accuracy': '3' gives the accuracy 3 to 'a', an earlier row gave 1",
        ),
        ("arch,accuracy\n,1\n", {}, r"row 1 \(line 2\), column 'accuracy': '1' has an empty architecture"),
        ("arch,accuracy,accuracy\na,1,2\n", {}, "two columns are named 'accuracy'"),
        ("", {}, "empty; expected a line of column names"),
        ("arch,accuracy\n", {}, "no row has a accuracy in column 'accuracy'"),
        ('arch,accuracy\n"a,1\n', {}, "line 2 is damaged"),
        ("arch,accuracy\na," + "1" * 140_000 + "\n", {}, "line 2 is damaged: field larger"),
        ("arch,accuracy\na," + "1" * (1 << 20) + "\n", {}, "line 2 is longer than"),
    ],
)
def test_a_spoilt_table_is_told_with_row_and_column(tmp_path, text, options, message):
    with pytest.raises(FileFormatError, match=message):
        read(tmp_path, text, **options)


GAPS = "arch,accuracy\na,91\nb,\nc,n/a\nd,93%\ne,nan\nf,inf\n"


def test_gaps_in_the_accuracy_are_refused_with_their_number(tmp_path):
    with pytest.raises(FileFormatError) as caught:
        read(tmp_path, GAPS)
    assert str(caught.value).endswith(
        "5 of 6 rows have no accuracy in column 'accuracy', the first: row 2 (line 3), column 'accuracy': empty; "
        "row 3 (line 4), column 'accuracy': 'n/a'; row 4 (line 5), column 'accuracy': '93%'. "
        "Give skip_missing=True to leave them out"
    )
    table = read(tmp_path, GAPS, skip_missing=True)
    assert table.rows == ["a"]
    assert table.source.endswith("5 rows without it left out")


def test_the_same_row_twice_is_one(tmp_path):
    assert read(tmp_path, "arch,accuracy\na,1\na,1.0\n").rows == ["a"]


def test_bytes_that_are_no_text_are_told(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"arch,accuracy\na,1\n\xff\xfe,2\n")
    with pytest.raises(FileFormatError, match="damaged or cut short after line"):
        load_table(tmp_path / "t.csv")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(CSV.encode() * 50)[:-9])
    with pytest.raises(FileFormatError, match="cut short"):
        load_table(tmp_path / "t.csv.gz", arch_column="op_code")


numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(min_size=1, max_size=12)


@st.composite
def tables(draw):
    rows = draw(st.lists(texts, min_size=1, max_size=8, unique=True))
    column = st.lists(numbers | st.just(math.nan), min_size=len(rows), max_size=len(rows))
    count = st.lists(numbers, max_size=3).map(tuple)
    return BenchmarkTable(
        name=draw(texts),
        space=draw(st.text()),
        dataset=draw(st.text()),
        code=draw(texts),
        source=draw(st.text()),
        rows=rows,
        accuracy=draw(st.lists(numbers, min_size=len(rows), max_size=len(rows))),
        runs=draw(st.none() | st.lists(count.filter(len), min_size=len(rows), max_size=len(rows))),
        columns=draw(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), column, max_size=3)),
    )


@given(tables(), st.sampled_from(["npz", "csv"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_converted_table_comes_back_bit_for_bit(tmp_path, table, suffix):
    if suffix == "csv" and {"arch", "accuracy"} & set(table.columns):
        with pytest.raises(DataError, match="can't be told from ours"):
            convert(table, tmp_path / f"t.{suffix}")
        return
    found = load_table(convert(table, tmp_path / f"t.{suffix}"))
    assert found.rows == table.rows
    assert (found.name, found.space, found.dataset, found.code) == (table.name, table.space, table.dataset, table.code)
    assert found.source == table.source
    assert found.accuracy.tobytes() == table.accuracy.tobytes()
    assert found.runs == table.runs
    assert list(found.columns) == list(table.columns)
    for name, values in table.columns.items():
        np.testing.assert_array_equal(found.columns[name], values)


DEMO = BenchmarkTable(
    name="demo",
    space="nasbench201",
    dataset="cifar10",
    rows=["a", "b"],
    accuracy=[1.5, 2.5],
    columns={"x": [1, math.nan]},
)


def test_a_converted_file_is_small_and_the_same_each_time(tmp_path):
    convert(DEMO, tmp_path / "a.npz")
    convert(DEMO, str(tmp_path / "b.npz"))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    with pytest.raises(DataError, match=r"written as \.npz or \.csv, got 'a\.txt'"):
        convert(DEMO, tmp_path / "a.txt")
    with pytest.raises(DataError, match="is of the data set 'cifar10', got dataset='cifar100'"):
        load_table(tmp_path / "a.npz", dataset="cifar100")
    with pytest.raises(DataError, match="is of the data set 'cifar10', got dataset='cifar100'"):
        load_table(convert(DEMO, tmp_path / "a.csv"), dataset="cifar100")
    with pytest.raises(DataError, match="hold no choice of accuracies; leave split out"):
        load_table(tmp_path / "a.npz", split="test")


def test_no_pickle_in_an_npz_is_read(tmp_path):
    np.savez(tmp_path / "t.npz", meta=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FileFormatError, match=r"t\.npz: no table, or damaged"):
        load_table(tmp_path / "t.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": None}, "expected an array 'accuracy'"),
        ({"accuracy": np.array([1.0])}, "expected 2 rows in 'accuracy', got 1"),
        ({"accuracy": np.array([1.0, math.nan])}, "1 of 2 rows have no accuracy"),
        ({"accuracy": np.array(["1", "2"])}, "expected an array 'accuracy' of kind 'f'"),
        ({"rows": np.frombuffer(b"aa", np.uint8)}, "an earlier row gave"),
        ({"rows": np.frombuffer(b"abc", np.uint8)}, "rows are damaged"),
        ({"rows": np.frombuffer(b"\xffb", np.uint8)}, "rows are damaged"),
        ({"lengths": np.array([0, 2], np.uint32)}, "empty architecture"),
        ({"lengths": np.array([2**32 - 1, 3], np.uint32)}, "rows are damaged"),
        ({"runs": np.zeros((3, 1))}, "expected 2 rows in 'runs', got 3"),
        ({"meta": np.frombuffer(b"{", np.uint8)}, "no JSON"),
        ({"meta": np.frombuffer(b"{}", np.uint8)}, "not a table of this package"),
        (
            {"meta": np.frombuffer(json.dumps({"format": "zeroshot_nas.table", "version": 9}).encode(), np.uint8)},
            "a table of this package of version 9; this release reads version 1",
        ),
        (
            {"meta": np.frombuffer(json.dumps({"format": "zeroshot_nas.table", "version": 1}).encode(), np.uint8)},
            "expected name, space",
        ),
    ],
)
def test_a_spoilt_npz_is_told(tmp_path, change, message):
    convert(DEMO, tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz") as content:
        arrays = {name: content[name] for name in content.files} | change
    np.savez(tmp_path / "t.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(FileFormatError, match=message):
        load_table(tmp_path / "t.npz")


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_npz_or_csv_is_a_format_error_and_nothing_else(tmp_path, data):
    suffix = data.draw(st.sampled_from(["npz", "csv"]))
    path = convert(DEMO, tmp_path / f"t.{suffix}")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path.write_bytes(content)
    with contextlib.suppress(FileFormatError):
        load_table(path, format=suffix)
