"""Full-integer files: they compute what the network does in both runtimes, and need the memory that is said."""

import dataclasses
import json
import re
import sys

import numpy as np
import pytest
import torch

import zeroshot_nas as zs
from tests.export.test_export import trained_network
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ExportError, MissingExtraError
from zeroshot_nas.export.exporting import export_network
from zeroshot_nas.export.formats.tflite_file import Interpreter
from zeroshot_nas.export.tflite_writer import tflite_bytes
from zeroshot_nas.micro.memory import memory
from zeroshot_nas.quantization.int8_network import quantize, ranges
from zeroshot_nas.quantization.program import float_program
from zeroshot_nas.training.base import ImageData
from zeroshot_nas.training.checkpoint import quantized

pytest.importorskip("ai_edge_litert")
micro = pytest.importorskip("tflite_micro").runtime

EVERYTHING = "SuperConvK3BNRELU(3,8,1,1)SuperResIDWE2K3(8,12,2,8,2)SuperResK3K3(12,16,2,8,1)"


def images_for(architecture, count=32):
    return torch.rand(count, *architecture.input_size, generator=torch.Generator().manual_seed(1))


def one_of(space):
    """A small network of a space, and its trained module."""
    architecture = zs.get_space(space).sample(python_rng(3))
    return Architecture(architecture.blocks, (3, 32, 32) if "transnas" not in space else (3, 64, 64), 5)


@pytest.mark.parametrize("space", ["resnet", "nasbench_macro", "vanilla"])  # every operation has a test of its own
def test_operators_compute_what_the_network_does(space):
    """In floating point, before anything is rounded."""
    architecture = one_of(space)
    network, images = trained_network(architecture), images_for(architecture, 4)
    *_, logits = float_program(network).run(images)
    with torch.no_grad():
        torch.testing.assert_close(logits.flatten(1), network(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("text", [EVERYTHING, "nasbench201"])
def test_both_runtimes_compute_what_the_network_does(text):
    """The arena is what is said, to the alignment of single allocations."""
    if text == EVERYTHING:
        architecture = Architecture.from_string(text, (3, 16, 16), 7, squeeze_excite=True)
    else:
        cell = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|skip_connect~2|"
        architecture = zs.get_space(text, input_size=(3, 16, 16)).from_string(cell)
    network, images = trained_network(architecture), images_for(architecture)
    content = tflite_bytes(quantize(network, images), "", {})
    runtime = Interpreter(content)
    logits = runtime.logits(images)
    with torch.no_grad():
        own = network(images)
    assert (logits - own).square().mean().sqrt() < 0.15 * own.std(), "eight bits are near enough"
    need = memory(architecture).peak_memory
    device = micro.Interpreter.from_bytes(content, arena_size=need + 64)
    with pytest.raises(RuntimeError):
        micro.Interpreter.from_bytes(content, arena_size=need - 512)
    scale = float(device.get_output_details(0)["quantization_parameters"]["scales"][0])
    zero_point = int(device.get_output_details(0)["quantization_parameters"]["zero_points"][0])
    for image, expected in zip(runtime.whole(images[:4]), logits, strict=False):
        device.set_input(image[None], 0)
        device.invoke()
        got = (device.get_output(0)[0].astype(np.float32) - zero_point) * scale
        assert np.abs(got - expected.numpy()).max() < 0.25 * own.std(), "runtimes round in different places"


@pytest.mark.parametrize("bits", [4, (4, 8)])
def test_weights_of_four_bits_run_in_both_runtimes(bits):
    """The file holds them packed, two a byte, and the runtimes compute what the network with them does."""
    plain = Architecture.from_string(EVERYTHING, (3, 16, 16), 7, squeeze_excite=True)
    limit = 1 if bits == 4 else 0.8 * zs.cost(plain)["weights"]
    architecture = zs.allocate_bits(plain, limit, (4,) if bits == 4 else bits)
    assert set(architecture.weight_bits) == {4} if bits == 4 else {4, 8}
    network, images = trained_network(architecture), images_for(architecture)
    content = tflite_bytes(quantize(network, images), "", {})
    with torch.no_grad():
        own = quantized(network, *ranges(network, images), False).eval()(images)
    runtime = Interpreter(content)
    logits = runtime.logits(images)
    assert (logits - own).square().mean().sqrt() < 0.1 * own.std(), "but for ties, of which few bits have many"
    need = memory(architecture)
    device = micro.Interpreter.from_bytes(content, arena_size=need.peak_memory + 64)
    with pytest.raises(RuntimeError):
        micro.Interpreter.from_bytes(content, arena_size=need.peak_memory - 512)
    device.set_input(runtime.whole(images[:1]), 0)
    device.invoke()
    scales = device.get_output_details(0)["quantization_parameters"]
    got = (device.get_output(0)[0].astype(np.float32) - int(scales["zero_points"][0])) * float(scales["scales"][0])
    assert np.abs(got - own[0].numpy()).max() < 0.25 * own.std()
    saved = len(tflite_bytes(quantize(trained_network(plain), images), "", {})) - len(content)
    assert abs(saved - (memory(plain).weights - need.weights)) < 500, "but for the alignment of buffers"


def test_weights_of_two_bits_are_trained_and_refused_by_the_file(tmp_path, data):
    plain = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,8,2,8,1)", (1, 8, 8), 3)
    architecture = zs.allocate_bits(plain, 1, (2,))
    recipe = zs.Recipe(epochs=1, batch_size=16, validation_fraction=0.0)
    zs.train(architecture, data, recipe, out=tmp_path / "float", progress=False)
    zs.quantize_aware(tmp_path / "float", data, zs.Recipe(epochs=1), out=tmp_path / "int", progress=False)
    network = zs.load(tmp_path / "int")
    assert network.architecture.weight_bits == architecture.weight_bits
    with pytest.raises(ExportError, match="5 layers have 2-bit weights, and TensorFlow Lite has none below 4 bits"):
        export_network(tmp_path / "int", formats=("tflite",), data=data)


def test_what_goes_in_is_an_images_bytes_less_128():
    architecture = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", (3, 4, 4), 3)
    runtime = Interpreter(tflite_bytes(quantize(trained_network(architecture), images_for(architecture)), "", {}))
    image = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4)
    expected = image.permute(0, 2, 3, 1).numpy().astype(int) - 128
    assert (runtime.whole(image.float() / 255) == expected).all()


def test_a_channel_without_weights_keeps_its_bias():
    """Its bias is large in units of the weights' scale, and must not wrap round."""
    architecture = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", (3, 8, 8), 3)
    network = trained_network(architecture)
    with torch.no_grad():
        network.blocks[0][0].weight[0] = 1e-12
        network.blocks[0][1].bias[0] = 3.0
    images = images_for(architecture)
    with torch.no_grad():
        own = network(images)
    logits = Interpreter(tflite_bytes(quantize(network, images), "", {})).logits(images)
    assert (logits - own).abs().max() < 0.1 * own.abs().max()


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(64, 1, 8, 8, generator=generator) * 255).to(torch.uint8)
    labels = torch.arange(64) % 3
    names = tuple(f"class {index}" for index in range(3))
    return ImageData(images, labels, images[:32], labels[:32], names, "made")


def test_files_are_written_and_compared(tmp_path, data):
    architecture = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,8,2,8,1)", (1, 8, 8), 3)
    report = export_network(trained_network(architecture), tmp_path, formats=("tflite", "c"), int8=True, data=data)
    assert [each.kind for each in report.files] == ["tflite int8", "C array"]
    written, array = report.files
    content = written.file.read_bytes()
    assert content[4:8] == b"TFL3"
    assert written.accuracy is not None
    assert written.latency_ms is not None
    assert written.rms_error < 0.1
    text = array.file.read_text()
    numbers = re.search(r"\{(.*)\}", text, re.DOTALL)[1]
    assert bytes(map(int, numbers.split(","))) == content
    assert f"model_size = {len(content)};" in text
    header = (tmp_path / "model.h").read_text()
    assert f"kTensorArenaSize = {memory(architecture).peak_memory};" in header
    assert '"class 0", "class 1", "class 2"' in header
    micro.Interpreter.from_bytes(content, arena_size=memory(architecture).peak_memory + 64)
    assert json.loads((tmp_path / "export.json").read_text())["files"][0]["kind"] == "tflite int8"


def test_what_can_not_be_exported_is_said(tmp_path, data):
    architecture = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 8, 8), 3)
    few = dataclasses.replace(data, train_images=data.train_images[:5], train_labels=data.train_labels[:5])
    with pytest.raises(ExportError, match="at least 16 calibration images, got 5"):
        export_network(trained_network(architecture), tmp_path, formats=("tflite",), data=few)
    with pytest.raises(ExportError, match="c is made of the tflite file; ask for the format 'tflite' too"):
        export_network(trained_network(architecture), tmp_path, formats=("c",), data=data)
    foreign = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    with pytest.raises(ExportError, match="a module of your own has no operators of TensorFlow Lite"):
        export_network(foreign, tmp_path, input_size=(1, 8, 8), formats=("tflite",), data=data)
    assert not list(tmp_path.glob("*.tflite"))


def test_the_extra_is_named_where_it_is_missing(monkeypatch, tmp_path, data):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    architecture = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 8, 8), 3)
    with pytest.raises(MissingExtraError, match=r"zeroshot-nas\[tflite\]"):
        export_network(trained_network(architecture), tmp_path, formats=("tflite",), data=data)
