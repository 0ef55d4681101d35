"""Exported files read back: they say what the network says, and what is none of them is refused in a line."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

import zeroshot_nas as zs
from tests.export.test_export import trained_network
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import DataError, FileFormatError, MissingExtraError
from zeroshot_nas.export.base import FORMATS, list_export_formats
from zeroshot_nas.export.exported import load_onnx
from zeroshot_nas.export.exporting import export_network
from zeroshot_nas.training.base import ImageData
from zeroshot_nas.training.checkpoint import classify, load, pack, predict, torch_bytes

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZE = (3, 16, 16)
SPACES = ["resnet", "mobilenet"]
FILES = [name for name in list_export_formats() if name != "hub"]
"""All but the folder, which `load` takes."""
ONNX_FORMATS = [name for name in list_export_formats() if FORMATS[name].file.endswith(".onnx")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Of a space a run's folder with the files of all formats, and the network."""
    made = {}

    def of(space):
        if space not in made:
            folder = tmp_path_factory.mktemp(space)
            where = zs.get_space(space, input_size=SIZE, num_classes=4)
            network = trained_network(
                min((where.sample(python_rng(seed)) for seed in range(8)), key=lambda a: a.layers)
            )
            (folder / "best.pt").write_bytes(torch_bytes(pack(network, 1, None)))
            noise = torch.rand(32, *SIZE, generator=torch.Generator().manual_seed(0))
            labels = torch.arange(32) % 4
            data = ImageData(noise, labels, noise, labels, network.class_names, "noise")
            export_network(folder / "best.pt", formats=FILES, data=data)
            made[space] = folder, network
        return made[space]

    return of


@pytest.fixture
def photos(tmp_path):
    """Images of other sizes than the network's."""
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{index}.png" for index in range(3)]
    for file, size in zip(files, ((16, 16, 3), (40, 23, 3), (9, 30, 3)), strict=True):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(file)
    return files


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", ONNX_FORMATS)
def test_a_file_classifies_as_the_network_does(exported, photos, space, name):
    folder, network = exported(space)
    file = load_onnx(folder / FORMATS[name].file)
    assert (file.input_size, file.class_names) == (SIZE, network.class_names)
    images = torch.rand(5, *SIZE, generator=torch.Generator().manual_seed(1))
    own, got = predict(network, images), predict(file, images, batch_size=2)
    assert got.shape == (5, 4)
    torch.testing.assert_close(got.sum(1), torch.ones(5))
    torch.testing.assert_close(predict(file, (images * 255).byte()), predict(file, (images * 255).byte() / 255))
    says, own_says = dict(classify(file, photos)), dict(classify(network, photos))
    assert set(says) == set(own_says)
    if name == "onnx":
        torch.testing.assert_close(got, own, atol=1e-4, rtol=0)
        for image in photos:
            assert says[image] == pytest.approx(own_says[image], abs=1e-4)
    else:
        assert 0 < (got - own).abs().max() < 0.15
    for values in says.values():
        assert list(values.values()) == sorted(values.values(), reverse=True)


def test_the_folder_of_an_export_is_its_float_file(exported):
    folder, _ = exported("resnet")
    assert load_onnx(folder) == load_onnx(str(folder / "model.onnx"))
    with pytest.raises(FileNotFoundError, match=r"other\.onnx is not there; expected an exported \.onnx file"):
        load_onnx(folder / "other.onnx")


def test_images_of_another_size_are_refused(exported):
    folder, _ = exported("resnet")
    with pytest.raises(DataError, match=r"takes images \(N, 3, 16, 16\), got \(1, 3, 8, 8\)"):
        predict(load_onnx(folder), torch.zeros(1, 3, 8, 8))


@pytest.fixture
def model(exported):
    return onnx.load(str(exported("resnet")[0] / "model.onnx"))


def _saved(model, folder):
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


@pytest.mark.parametrize("key", ["class_names", "normalization_is_in_the_model", None])
def test_a_file_of_another_origin_is_refused(model, tmp_path, key):
    kept = [each for each in model.metadata_props if key not in (each.key, None)]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    with pytest.raises(
        FileFormatError, match=f"was not written by `export`: its metadata lack {key or 'class_names, '}"
    ):
        load_onnx(_saved(model, tmp_path))


@pytest.mark.parametrize("names", ["[", "[]", '["a"]', "4", "null", "[1, 2, 3, 4]", '{"a": 0}', "[" * 100_000])
def test_metadata_that_do_not_fit_are_refused(model, tmp_path, names):
    for each in model.metadata_props:
        if each.key == "class_names":
            each.value = names
    with pytest.raises(FileFormatError, match="is damaged: its metadata do not fit it"):
        load_onnx(_saved(model, tmp_path))


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "zeros"])
def test_a_damaged_file_is_refused_in_a_line(exported, tmp_path, damage):
    whole = (exported("resnet")[0] / "model.onnx").read_bytes()
    content = {"empty": b"", "text": b"no model at all\n" * 9, "cut": whole[: len(whole) // 2], "zeros": bytes(5_000)}
    file = tmp_path / "model.onnx"
    file.write_bytes(content[damage])
    with pytest.raises(FileFormatError, match=r"model\.onnx is no ONNX model, or is damaged: ") as caught:
        load_onnx(file)
    assert "\n" not in str(caught.value)


def test_a_missing_runtime_is_told(exported, monkeypatch):
    folder, _ = exported("resnet")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime .*zeroshot-nas\[onnx\]"):
        load_onnx(folder)


@pytest.mark.parametrize("name", FILES)
def test_load_takes_no_exported_file_and_says_what_does(exported, name):
    file = exported("resnet")[0] / FORMATS[name].file
    with pytest.raises(
        FileFormatError, match=r"expected (the|a) \.safetensors file of a training run.*(load_onnx|\.onnx ones)"
    ) as caught:
        load(file)
    assert "\n" not in str(caught.value)


def test_a_module_of_ones_own_is_read_back_too(tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(108, 2))
    export_network(module, tmp_path, input_size=(1, 8, 8))
    images = torch.rand(3, 1, 8, 8)
    file = load_onnx(tmp_path)
    assert file.class_names == ("0", "1")
    torch.testing.assert_close(file(images), module(images).detach(), atol=1e-5, rtol=1e-4)


def test_a_file_is_read_with_one_class_and_odd_names(tmp_path):
    net = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 8, 8), num_classes=1)
    network = trained_network(net)
    network.class_names = ('katze "ä" [x]',)
    export_network(network, tmp_path)
    assert load_onnx(tmp_path).class_names == network.class_names
