"""ONNX files, ours and others', are timed as they are; the record names their precision."""

import sys

import numpy as np
import pytest

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.errors import FileFormatError, LatencyError, MissingExtraError
from zeroshot_nas.latency.base import BACKENDS, list_backends, measure
from zeroshot_nas.latency.onnx_file import read_onnx_file
from zeroshot_nas.latency.onnx_graph import onnx_graph

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper  # noqa: E402  behind the skip

NET = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,1)", (3, 8, 8), num_classes=4)


def a_model(shape=("n", 3, 8, 8), dtype=np.float32, inputs=1):
    """One convolution, weights of a type."""
    single = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    names = [f"images{index}" for index in range(inputs)]
    weights = numpy_helper.from_array(np.ones((2, 3, 1, 1), dtype), "weights")
    graph = helper.make_graph(
        [helper.make_node("Conv", [names[0], "weights"], ["logits"])],
        "network",
        [helper.make_tensor_value_info(name, single, shape) for name in names],
        [helper.make_tensor_value_info("logits", single, None)],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    return model


def saved(model, folder):
    file = folder / "a.onnx"
    file.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return file


@pytest.mark.parametrize(("backend", "dtype"), [("onnxruntime", "float32"), ("onnxruntime_int8", "int8")])
def test_a_file_is_timed_as_it_is(tmp_path, backend, dtype):
    file = saved(BACKENDS[backend].convert(NET, NET.input_size, 2).source, tmp_path)
    for path in (file, str(file)):
        timed = measure(path, batch_size=2, seconds=0.01, sessions=2)
        assert timed.latency_ms > 0
        assert (timed.backend, timed.batch_size, timed.dtype, timed.to_dict()["dtype"]) == (
            "onnxruntime",
            2,
            dtype,
            dtype,
        )
        assert ("int8" in str(timed)) == (dtype == "int8")
    assert read_onnx_file(file, batch_size=2).image_shape == NET.input_size


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_the_precision_is_that_of_the_weights(tmp_path, dtype):
    file = saved(a_model(dtype=dtype), tmp_path)
    assert read_onnx_file(file).dtype == np.dtype(dtype).name
    if dtype is np.float32:
        assert measure(file, batch_size=3, seconds=0.01, sessions=1).dtype == "float32"


def test_what_the_file_leaves_open_is_given(tmp_path):
    file = saved(a_model(("n", 3, "h", "w")), tmp_path)
    assert read_onnx_file(file, (3, 5, 6)).image_shape == (3, 5, 6)
    with pytest.raises(LatencyError, match=r"takes images \(3, \?, \?\), of any size; give input_size=\(C, H, W\)"):
        measure(file)
    for given in ((4, 5, 6), (3, 5)):
        with pytest.raises(LatencyError, match=r"takes images \(3, \?, \?\), got input_size"):
            measure(file, input_size=given)


@pytest.mark.parametrize("backend", [name for name in list_backends() if name != "onnxruntime"])
def test_other_backends_take_no_file(tmp_path, backend, monkeypatch):
    file = saved(a_model(), tmp_path)
    with pytest.raises(LatencyError, match=f"{backend} takes no files; .* by the backend onnxruntime"):
        measure(file, backend)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (a_model(inputs=2), "has 2 inputs; expected a model with one"),
        (a_model((2, 3)), "has 1 inputs|expected a model with one"),
        (a_model((4, 3, 8, 8)), "takes 4 images at once, got batch_size 1"),
        (a_model(("n", 5, 8, 8)), r"onnxruntime does not run this network \(\w+: "),
    ],
)
def test_what_can_not_be_timed_is_told(tmp_path, model, message):
    with pytest.raises(LatencyError, match=message) as caught:
        measure(saved(model, tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no model\n" * 9, bytes(3_000), onnx_graph(NET).SerializeToString()[:-999]])
def test_a_damaged_file_is_told(tmp_path, content):
    with pytest.raises(FileFormatError, match=r"a\.onnx is no ONNX model, or is damaged") as caught:
        measure(saved(content, tmp_path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"b\.onnx is not there"):
        measure(tmp_path / "b.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_told(tmp_path, monkeypatch, package):
    file = saved(a_model(), tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package} .*zeroshot-nas\[onnx\]"):
        measure(file)
