"""Tables of figures and accuracies, and how one is gathered."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas.errors import DataError, FileFormatError
from zeroshot_nas.nasbench.table import BenchmarkTable, FigureTable, TableBuilder


def table(count=20, **facts):
    facts = {"name": "demo", "columns": {"params": range(count)}, "runs": [(1.0,)] * count} | facts
    return BenchmarkTable(rows=[f"{row:03d}" for row in range(count)], accuracy=np.arange(count) + 0.5, **facts)


def test_a_row_is_found_by_its_architecture():
    demo = table()
    assert len(demo) == 20
    assert demo.index("003") == 3
    assert demo.accuracy_of("003") == 3.5
    assert "003" in demo
    assert "3" not in demo
    with pytest.raises(
        DataError, match=r"demo has no architecture '3'; its 20 architectures are .* 'arch', such as '000'"
    ):
        demo.accuracy_of("3")


@given(st.integers(1, 20), st.integers(0, 2**40))
def test_a_sample_is_a_deterministic_part_and_nested(n, seed):
    demo = table()
    part = demo.sample(n, seed)
    assert part.rows == demo.sample(n, seed).rows
    assert len(set(part.rows)) == n
    assert part.rows == sorted(part.rows)
    assert set(part.rows) <= set(demo.sample(20, seed).rows)
    assert set(demo.sample(max(1, n - 1), seed).rows) <= set(part.rows)
    assert [demo.accuracy_of(row) for row in part.rows] == part.accuracy.tolist()
    assert part.columns["params"].tolist() == [int(row) for row in part.rows]
    assert len(part.runs) == n


def test_a_sample_is_the_same_on_every_machine():
    assert table().sample(4, seed=7).rows == ["001", "012", "013", "019"]


@pytest.mark.parametrize("n", [0, 21, -1, True, 1.0])
def test_a_sample_must_fit(n):
    with pytest.raises(DataError, match="1 to 20 architectures"):
        table().sample(n, 0)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"accuracy": [1.0, math.nan]}, "1 of 2 accuracies are no finite numbers, the first that of 'b'"),
        ({"accuracy": [1.0]}, "expected one number a row in accuracy, 2 in all, got shape"),
        ({"columns": {"x": [1.0]}}, "column 'x'"),
        ({"rows": ["a", "a"]}, "'a' occurs twice"),
        ({"rows": ["a", ""]}, "none of them empty"),
        ({"runs": [(1.0,)]}, "expected the runs of 2 rows, got those of 1"),
    ],
)
def test_a_table_that_does_not_hold_together_is_refused(facts, message):
    with pytest.raises(DataError, match=message):
        BenchmarkTable(**{"name": "demo", "rows": ["a", "b"], "accuracy": [1.0, 2.0]} | facts)


def test_tables_are_frozen_to_the_bottom():
    accuracy = np.array([1.0, 2.0])
    demo = BenchmarkTable(name="demo", rows=["a", "b"], accuracy=accuracy)
    accuracy[0] = 9
    assert demo.accuracy_of("a") == 1
    with pytest.raises(ValueError, match="read-only"):
        demo.accuracy[0] = 9


def test_columns_of_another_table_are_joined_by_architecture():
    demo = table(3, space="s")
    devices = FigureTable(name="d", space="s", rows=["002", "000"], columns={"ms": [2.0, 1.0]}, source="file")
    joined = demo.with_columns(devices, prefix="pi_")
    assert joined.columns["pi_ms"].tolist() == pytest.approx([1.0, math.nan, 2.0], nan_ok=True)
    assert joined.accuracy.tolist() == demo.accuracy.tolist()
    assert list(demo.columns) == ["params"]
    with pytest.raises(DataError, match="'pi_ms' already"):
        joined.with_columns(devices, prefix="pi_")
    with pytest.raises(DataError, match="got 's' and 'op_code' of d"):
        demo.with_columns(FigureTable(name="d", space="s", code="op_code", rows=["000"]))


def test_the_builder_fills_columns_that_come_late_or_stay_away():
    builder = TableBuilder("file", "accuracy")
    builder.add("a", 1.0, figures={"x": 1.0})
    builder.add("b", 2.0, figures={"y": 5.0})
    builder.add("a", 1.0)  # the same again
    built = builder.table(name="n", space="", dataset="", code="arch", source="s")
    assert built.rows == ["a", "b"]
    assert built.columns["x"].tolist() == pytest.approx([1, math.nan], nan_ok=True)
    assert built.columns["y"].tolist() == pytest.approx([math.nan, 5], nan_ok=True)
    with pytest.raises(FileFormatError, match=r"gives the accuracy 3 to 'a', an earlier row gave 1"):
        builder.add("a", 3.0)
