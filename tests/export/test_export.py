"""Exported files compute what the network does, say what they take, and need nothing of this package."""

import dataclasses
import errno
import inspect
import json
import pathlib
import random
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.errors import DataError, ExportError, FileFormatError
from zeroshot_nas.export import exporting
from zeroshot_nas.export.base import FORMATS, ExportedFile, FormatInfo, list_export_formats, register_format
from zeroshot_nas.export.exporting import export_network
from zeroshot_nas.export.formats import onnx_file, quantization
from zeroshot_nas.export.source import source
from zeroshot_nas.network import module
from zeroshot_nas.network.module import build
from zeroshot_nas.network.onnx_opset import lower_opset
from zeroshot_nas.network.to_onnx import onnx_model
from zeroshot_nas.spaces.base import get_space
from zeroshot_nas.training.base import ImageData
from zeroshot_nas.training.checkpoint import TrainedNetwork, load
from zeroshot_nas.training.recipe import Recipe
from zeroshot_nas.training.trainer import train

pytestmark = pytest.mark.slow

NET = Architecture.from_string(
    "SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,16,2,8,2)SuperConvK1BNRELU(16,24,1,1)", (1, 8, 8)
)

TINY = Architecture.from_string("SuperConvK3BNRELU(1,8,2,1)", (1, 8, 8))
"""Where it is not the network that matters: torch's exporter takes its time for every layer."""


def trained_network(architecture, seed=0):
    """Weights that no training made, but batch norms that saw data."""
    network = build(architecture, seed=seed)
    network(torch.rand(16, *architecture.input_size))
    channels = architecture.input_size[0]
    names = [f"class {index}" for index in range(architecture.num_classes)]
    ready = TrainedNetwork(architecture, [0.4] * channels, [0.3] * channels, names)
    ready.load_state_dict(network.state_dict())
    return ready.eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(NET, "digits", Recipe(epochs=3, batch_size=32, learning_rate_per_256=0.8), out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def report(run):
    return export_network(run, formats=("onnx", "torch", "python"), int8=True, power_of_two=True)


def test_every_file_agrees_with_the_network(report, run):
    kinds = [each.kind for each in report.files]
    assert kinds == ["onnx", "onnx int8", "onnx int8, power-of-two scales", "torch.export", "python"]
    for each in report.files:
        assert each.file.exists()
        assert each.size_kb == each.file.stat().st_size / 1000
        if "int8" not in each.kind:
            assert each.max_difference < 1e-4
    floats, int8, shift = report.files[:3]
    assert floats.accuracy == pytest.approx(report.accuracy)
    assert int8.accuracy > report.accuracy - 0.03
    assert shift.accuracy > report.accuracy - 0.05
    assert 0 < int8.rms_error < 0.2
    assert 0 < shift.rms_error < 0.3
    assert int8.latency_ms > 0
    written = json.loads((run / "export.json").read_text())
    assert written == json.loads(json.dumps(report.to_dict()))
    assert written["opset"] == 18


def test_the_report_says_size_latency_and_accuracy_before_and_after(report, run):
    state = load(run).state_dict()
    assert report.size_kb == sum(value.numel() * value.element_size() for value in state.values()) / 1000
    assert report.latency_ms > 0
    before, after = json.loads((run / "export.json").read_text())["network"], report.files[1]
    assert before == {"size_kb": report.size_kb, "latency_ms": report.latency_ms, "accuracy": report.accuracy}
    assert None not in (after.size_kb, after.latency_ms, after.accuracy)


@pytest.fixture
def copy(run, tmp_path):
    """A folder with the run's weights and result."""
    for name in ("best.safetensors", "train.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    return tmp_path


def _change_result(folder, **changes):
    file = folder / "train.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_run_that_is_not_at_its_end_is_exported_with_a_warning(copy):
    _change_result(copy, state="running", epochs=2)
    with pytest.warns(exporting.UnfinishedRunWarning, match="is running, 2 of 3 epochs are done; its best"):
        export_network(copy, formats=["torch"])


def test_data_that_are_gone_matter_where_they_are_needed(copy):
    _change_result(copy, data=f"folder:{copy / 'photos'}")
    assert export_network(copy, formats=["torch"]).accuracy is None
    with pytest.raises(DataError, match="photos is no folder"):
        export_network(copy, int8=True)
    _change_result(copy, data="pictures of my own")
    with pytest.raises(DataError, match="int8 needs images to calibrate with"):
        export_network(copy, int8=True)


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_damaged_result_is_named(copy, text):
    (copy / "train.json").write_text(text)
    with pytest.raises(FileFormatError, match=r"train\.json is damaged; resume"):
        export_network(copy)


def test_the_onnx_file_takes_any_batch_and_says_what_it_is(report):
    file = report.files[0].file
    model = onnx.load(str(file))
    onnx.checker.check_model(model)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["class_names"]) == list("0123456789")
    assert json.loads(about["normalization"])["mean"] == pytest.approx(load(file.parent).mean.flatten().tolist())
    assert Architecture.from_json(about["architecture"]) == NET
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    session = onnxruntime.InferenceSession(str(file))
    for count in (1, 5):
        images = torch.rand(count, 1, 8, 8)
        (logits,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(logits, load(file.parent)(images).detach().numpy(), atol=1e-4)


def test_int8_weights_are_int8_and_power_of_two_scales_are(report):
    files = {each.kind: each.file for each in report.files}
    scales = quantization.scales(files["onnx int8, power-of-two scales"])
    assert len(scales) > 10
    for values in scales.values():
        exponents = np.log2(values.astype(np.float64))
        assert np.array_equal(exponents, np.round(exponents))
    ordinary = quantization.scales(files["onnx int8"])
    assert any((np.log2(values) % 1 != 0).any() for values in ordinary.values())
    for kind in ("onnx int8", "onnx int8, power-of-two scales"):
        model = onnx.load(str(files[kind]))
        zeros = [onnx.numpy_helper.to_array(each) for each in model.graph.initializer if "zero_point" in each.name]
        assert kind == "onnx int8" or all((each == 0).all() for each in zeros)
        stored = [each.data_type for each in model.graph.initializer if each.name.endswith("weight_quantized")]
        assert stored == [onnx.TensorProto.INT8] * len(stored)


KINDS = {
    "resnet": {"input_size": (3, 8, 8)},
    "mobilenet": {"input_size": (1, 8, 8), "squeeze_excite": True},
    "nasbench201": {"num_cells": 1},
    "nasbench_macro": {},
    "nasbench301": {"num_cells": 2, "channels": 4},
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """A network of every kind, and what it was exported to."""
    space = get_space(request.param, **{"input_size": (3, 32, 32), **KINDS[request.param]})
    rng = random.Random(1)
    network = trained_network(space.from_string("01020012") if request.param == "nasbench_macro" else space.sample(rng))
    formats = ("onnx",) if request.param == "nasbench301" else ("onnx", "torch", "python")
    return network, export_network(network, tmp_path_factory.mktemp(request.param), formats=formats, opset=18)


def test_networks_of_every_kind_are_exported(kind):
    for file in kind[1].files:
        assert file.max_difference < 1e-4


def test_the_python_file_runs_where_the_package_is_not(report, tmp_path):
    file = report.files[-1].file
    program = f"""
import sys
sys.modules["zeroshot_nas"] = None
sys.path.insert(0, {str(file.parent)!r})
import torch, model
torch.manual_seed(0)
images = torch.rand(3, 1, 8, 8)
print(model.load()(images).tolist(), model.CLASS_NAMES)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    torch.manual_seed(0)
    expected = load(file.parent)(torch.rand(3, 1, 8, 8)).tolist()
    assert done.stdout.strip() == f"{expected} {list('0123456789')}"


def test_the_same_network_gives_the_same_source():
    network = trained_network(NET)
    assert source(network) == source(network)
    assert "zeroshot_nas" not in source(network)


def test_torchs_file_keeps_the_metadata(report):
    extra = {"class_names.json": ""}
    torch.export.load(report.files[3].file, extra_files=extra)
    assert json.loads(extra["class_names.json"]) == list("0123456789")


def test_a_model_that_computes_something_else_is_refused_and_leaves_no_file(monkeypatch, tmp_path):
    network = trained_network(TINY)
    right = onnx_file.onnx_logits
    monkeypatch.setattr(onnx_file, "onnx_logits", lambda *_: right(*_) + 1)
    with pytest.raises(
        ExportError, match=r"the ONNX model in ONNX Runtime differs from the network by .*at most 0\.0001"
    ):
        export_network(network, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_network_and_the_random_state_are_left_as_they_were(tmp_path):
    network = trained_network(TINY)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)
    export_network(network, tmp_path, formats=("onnx", "torch", "python"))
    assert torch.rand(()) == expected
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_bad_requests(run, tmp_path):
    network = trained_network(NET)
    with pytest.raises(ExportError, match="unknown format 'coreml'; expected some of hub, onnx"):
        export_network(network, tmp_path, formats=["coreml"])
    with pytest.raises(ExportError, match="int8 is made of the onnx file; ask for the format 'onnx' too"):
        export_network(network, tmp_path, formats=["torch"], int8=True)
    with pytest.raises(ExportError, match="give the folder to write to"):
        export_network(network)
    with pytest.raises(DataError, match="int8 needs images to calibrate with"):
        export_network(network, tmp_path, int8=True)
    with pytest.raises(DataError, match="are not the network's: expected class 0"):
        export_network(network, tmp_path, data="digits")
    with pytest.raises(FileNotFoundError):
        export_network(tmp_path / "nowhere")
    (tmp_path / "bad.pt").write_bytes(b"nonsense")
    with pytest.raises(FileFormatError, match=r"bad\.pt is not a checkpoint"):
        export_network(tmp_path / "bad.pt")


def test_data_of_the_users_own_calibrate(tmp_path):
    images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
    data = ImageData(images, labels, images, labels, tuple(f"class {n}" for n in range(10)), "noise")
    report = export_network(trained_network(TINY), tmp_path, int8=True, data=data)
    assert report.accuracy is not None
    assert [each.kind for each in report.files] == ["onnx", "onnx int8"]
    assert dataclasses.is_dataclass(exporting.ExportReport)


@pytest.fixture
def weights_format():
    """A format as a plug-in has it: the weights alone."""

    @register_format(FormatInfo("weights", "model.weights.pt", made_of="onnx"))
    def export_weights(request):
        assert request.source.name == "model.onnx"
        torch.save(request.network.state_dict(), request.file)
        return ExportedFile(request.file, "weights", request.file.stat().st_size / 1000, 0.0, 0.0)

    yield
    del FORMATS._entries["weights"]


def test_a_new_format_is_a_function_with_a_decorator(weights_format, tmp_path):
    assert list_export_formats()[:5] == ["hub", "onnx", "int8", "int8_power_of_two", "weights"]
    report = export_network(trained_network(TINY), tmp_path, formats=["python", "weights", "onnx"])
    assert [each.kind for each in report.files] == ["python", "onnx", "weights"]
    assert (tmp_path / "model.weights.pt").exists()
    with pytest.raises(ExportError, match="weights is made of the onnx file; ask for the format 'onnx' too"):
        export_network(trained_network(TINY), tmp_path, formats=["weights"])
    with pytest.raises(ExportError, match=r"Did you mean 'weights'\?"):
        export_network(trained_network(TINY), tmp_path, formats=["weight"])


def test_int8_can_be_asked_for_as_a_format(run, tmp_path):
    report = export_network(run, tmp_path, formats=["onnx", "int8"])
    assert [each.kind for each in report.files] == ["onnx", "onnx int8"]


def test_the_python_file_has_the_sources_of_the_package():
    text = source(trained_network(get_space("nasbench201", num_cells=1).sample(random.Random(1))))
    for part in (module.Graph, module.Zero, module.Linear, module.Residual):
        assert inspect.getsource(part) in text


def test_models_of_older_opsets_compute_the_same(kind):
    network, report = kind
    images, newest = torch.rand(3, *network.architecture.input_size), onnx.load(str(report.files[0].file))
    assert [entry.version for entry in newest.opset_import if entry.domain == ""] == [18]
    for opset, ir_version in ((17, 8), (16, 8), (15, 8), (14, 7), (13, 7)):
        model = onnx.ModelProto.FromString(newest.SerializeToString())
        lower_opset(model, opset)  # it checks the model
        assert [entry.version for entry in model.opset_import if entry.domain == ""] == [opset]
        assert model.ir_version == ir_version
        (logits,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": images.numpy()})
        np.testing.assert_allclose(logits, network(images).detach().numpy(), atol=1e-4, rtol=1e-4)


def test_a_newer_opset_is_torchs_own(tmp_path):
    report = export_network(trained_network(TINY), tmp_path, opset=21)
    (version,) = (entry.version for entry in onnx.load(str(report.files[0].file)).opset_import if entry.domain == "")
    assert (report.opset, version) == (21, 21)


def test_an_opset_that_cannot_be_had_is_refused_by_name(run, tmp_path):
    with pytest.raises(ExportError, match="ONNX opset 12 is too old; expected 13 or later"):
        export_network(run, tmp_path, opset=12)
    spread = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.GroupNorm(1, 2), torch.nn.Mish())
    with pytest.raises(ExportError, match=r"Mish is not in ONNX opset 13; choose a later one"):
        onnx_model(spread, (1, 8, 8), opset=13)


def test_int8_of_an_older_opset(run, tmp_path):
    report = export_network(run, tmp_path, int8=True, opset=13)
    versions = [onnx.load(str(each.file)).opset_import[0].version for each in report.files]
    assert versions == [13, 13]
    assert report.files[1].accuracy > report.accuracy - 0.03


def test_no_code_of_the_current_folder_or_the_environment_is_run(tmp_path, monkeypatch):
    for name in ("torch", "random", "zlib", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w'); raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = export_network(trained_network(TINY), tmp_path / "out", formats=["python"])
    assert report.files[0].max_difference < 1e-4
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("form", ["onnx", "torch", "python"])
def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch, form):
    network, text, content = trained_network(NET), pathlib.Path.write_text, pathlib.Path.write_bytes

    def full(self, *arguments, **options):
        if self.parent == tmp_path:
            raise OSError(errno.ENOSPC, "No space left on device")
        return (text if isinstance(arguments[0], str) else content)(self, *arguments, **options)

    (tmp_path / FORMATS[form].file).write_bytes(b"old")
    monkeypatch.setattr(pathlib.Path, "write_text", full)
    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(ExportError, match=r"can't be written to \(no space left on device\); make room"):
        export_network(network, tmp_path, formats=[form])
    assert [file.name for file in tmp_path.iterdir()] == [FORMATS[form].file]
    assert (tmp_path / FORMATS[form].file).read_bytes() == b"old"


class _Own(torch.nn.Module):
    """A module of anyone's."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.Hardswish()
        )
        self.head = torch.nn.Linear(4 * 64, 10)

    def forward(self, x):
        return self.head(self.body(x).view(x.shape[0], -1))


class _Fixed(_Own):
    def forward(self, x):
        return self.head(self.body(x).view(len(x), -1))


def test_any_module_is_exported(tmp_path):
    module, images = _Own(), torch.rand(3, 1, 8, 8)
    report = export_network(module, tmp_path, formats=["onnx", "torch"], int8=True, data="digits")
    assert [each.kind for each in report.files] == ["onnx", "onnx int8", "torch.export"]
    assert report.accuracy == pytest.approx(report.files[0].accuracy)
    assert module.training
    (logits,) = onnxruntime.InferenceSession(str(tmp_path / "model.onnx")).run(None, {"images": images.numpy()})
    np.testing.assert_allclose(logits, module.eval()(images).detach().numpy(), atol=1e-4)
    about = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "model.onnx")).metadata_props}
    assert json.loads(about["class_names"]) == list("0123456789")
    assert json.loads(about["normalization"]) == {"mean": [0.0], "std": [1.0]}
    assert "cropped at the centre" in about["resize"]
    assert "architecture" not in about
    plain = build(NET).eval()
    export_network(plain, tmp_path / "plain", formats=["python"])
    assert (tmp_path / "plain" / "model.py").exists()


def test_a_trained_module_is_exported_with_its_normalisation(tmp_path):
    trained = train(_Own(), "digits", Recipe(epochs=1, batch_size=256), progress=False)
    report = export_network(trained.network, tmp_path, data="digits")
    assert report.accuracy == pytest.approx(trained.test_accuracy)
    assert report.files[0].accuracy == pytest.approx(trained.test_accuracy)


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (3, {}, TypeError, "takes a run's folder, its file of weights or an nn.Module, got int"),
        (_Own(), {}, ExportError, r"a _Own does not say what images it takes; give input_size"),
        (
            _Own(),
            {"input_size": (1, 9, 9)},
            ExportError,
            r"gives no logits .* for images \(2, 1, 9, 9\).*Check input_size",
        ),
        (_Own(), {"input_size": (1, 8, 8), "formats": ["python"]}, ExportError, "has no source that could be written"),
        (
            _Fixed(),
            {"input_size": (1, 8, 8)},
            ExportError,
            r"_Fixed fixes the number of images|TrainedModule fixes.*shape\[0\]",
        ),
        (
            _Fixed(),
            {"input_size": (1, 8, 8), "formats": ["torch"]},
            ExportError,
            r"any number of images.*x\.shape\[0\]",
        ),
        (torch.nn.Identity(), {"input_size": (1, 8, 8)}, DataError, r"must return logits \(N, 1\)"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, model, options, error, message):
    with pytest.raises(error, match=message):
        export_network(model, tmp_path, **options)


def test_a_run_on_a_users_folder_is_exported_from_anywhere_and_leaves_it_alone(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    for name, colour in (("cat", 20), ("dog", 220)):
        (photos / name).mkdir(parents=True)
        for index in range(6):
            Image.new("L", (9, 9), colour + index).save(photos / name / f"{index}.png")
    before = sorted(photos.rglob("*"))
    monkeypatch.chdir(tmp_path)
    net = Architecture.from_string("SuperConvK3BNRELU(1,8,2,1)", (1, 8, 8), 2)
    result = train(net, "folder:photos", Recipe(epochs=2, batch_size=4), out=tmp_path / "run", progress=False)
    assert json.loads((tmp_path / "run" / "train.json").read_text())["data"] == f"folder:{photos}"
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert sorted(len(split[part]) for part in ("train", "test")) == [2, 10]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = train(
        net, f"folder:{photos}", Recipe(epochs=2, batch_size=4), out=tmp_path / "run", resume=True, progress=False
    )
    assert again.test_accuracy == result.test_accuracy
    for index in range(6, 12):
        Image.new("L", (9, 9), 20 + index).save(photos / "cat" / f"new{index}.png")
    report = export_network(tmp_path / "run", int8=True)
    assert report.accuracy == result.test_accuracy
    assert set(before) == {each for each in photos.rglob("*") if "new" not in each.name}
    resumed = train(
        net, f"folder:{photos}", Recipe(epochs=2, batch_size=4), out=tmp_path / "run", resume=True, progress=False
    )
    assert resumed.images == result.images
