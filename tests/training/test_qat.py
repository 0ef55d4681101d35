"""Quantisation-aware training: from trained weights, repeatable, resumable, and to a file without calibration."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import zeroshot_nas as zs
from tests.training.test_trainer import BARS, _equal, _interrupt_at, _linear, _weights
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.errors import (
    DataError,
    FileFormatError,
    OutputExistsError,
    RecipeError,
    SettingsChangedError,
    UnfinishedRunWarning,
)
from zeroshot_nas.export.base import FORMATS, ExportedFile, FormatInfo, Origin
from zeroshot_nas.export.exporting import export_network
from zeroshot_nas.export.model_card import model_card
from zeroshot_nas.runs.resume import resume
from zeroshot_nas.training.checkpoint import QuantizedNetwork, TrainedNetwork, load, predict, read_result
from zeroshot_nas.training.qat import quantize_aware, rounding_recipe
from zeroshot_nas.training.recipe import Recipe, get_recipe
from zeroshot_nas.training.trainer import train

NET = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,8,2,8,1)", (1, 8, 8), 10)
FLOAT = Recipe(epochs=4, batch_size=64, shift=0, learning_rate_per_256=0.8, warmup_epochs=1)
SHORT = Recipe(epochs=2, batch_size=128, learning_rate_per_256=0.04, shift=0)
POWERS = pytest.mark.parametrize("power_of_two", [False, True])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on digits."""
    folder = tmp_path_factory.mktemp("runs") / "float"
    train(NET, "digits", FLOAT, out=folder, progress=False, seed=3)
    return folder


@pytest.fixture(scope="module")
def rounded(trained):
    """An int8 run that starts from it."""
    folder = trained.parent / "int8"
    quantize_aware(trained, recipe=SHORT, out=folder, progress=False)
    return folder


def qat(weights, **options):
    options = {"recipe": SHORT, "progress": False, **options}
    return quantize_aware(weights, **options)


@pytest.mark.slow
@POWERS
def test_it_starts_from_the_trained_weights_and_keeps_their_accuracy(trained, power_of_two):
    first = json.loads((trained / "train.json").read_text())
    result = qat(trained, power_of_two=power_of_two)
    assert isinstance(result.network, QuantizedNetwork)
    assert result.network.power_of_two is power_of_two
    assert ("values", f"rounded to int8{', scales powers of two' if power_of_two else ''}") in result.rows()
    assert result.recipe.quantization == ("int8_power_of_two" if power_of_two else "int8")
    assert result.history[0].train_loss < first["history"][-1]["train_loss"] * 1.2
    assert result.test_accuracy > first["test_accuracy"] - 0.03
    assert (result.seed, result.data) == (3, "digits"), "the run's"
    assert (load(trained).mean == result.network.mean).all()
    still = qat(trained, recipe=dataclasses.replace(SHORT, epochs=1, learning_rate_per_256=0))
    own = load(trained)
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in still.network.plain().state_dict().items())


def test_the_recipe_takes_from_the_run_what_belongs_to_the_data(trained):
    assert rounding_recipe(trained) == get_recipe("qat", shift=0, batch_size=64)
    assert rounding_recipe(trained, batch_size=32, shift=2) == get_recipe("qat", shift=2, batch_size=32)
    assert rounding_recipe(trained, Recipe(shift=1)) == Recipe(shift=1, quantization="int8")
    assert rounding_recipe(trained, "quick", power_of_two=True).quantization == "int8_power_of_two"
    with pytest.raises(RecipeError, match="power_of_two asks for 'int8_power_of_two', but quantization='int8' is set"):
        rounding_recipe(trained, power_of_two=True, quantization="int8")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_ranges(trained):
    torch.manual_seed(1)
    first = qat(trained, seed=1)
    torch.manual_seed(2)
    again, other = qat(trained, seed=1), qat(trained, seed=2)
    assert "ranges" in _weights(first)
    assert _equal(_weights(first), _weights(again))
    assert not _equal(_weights(first), _weights(other))


@pytest.mark.slow
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_run_that_was_stopped_ends_as_one_that_never_was(trained, monkeypatch, tmp_path, ema_decay):
    recipe = dataclasses.replace(SHORT, epochs=3, ema_decay=ema_decay)
    whole = qat(trained, recipe=recipe)
    with monkeypatch.context() as patch:
        _interrupt_at(patch, 15)
        assert qat(trained, recipe=recipe, out=tmp_path).state == "interrupted"
    result = resume(tmp_path, progress=False)
    assert result.state == "done"
    assert _equal(_weights(result), _weights(whole))
    assert result.confusion == whole.confusion
    again = qat(trained, recipe=recipe, out=tmp_path, resume=True)
    assert _equal(_weights(again), _weights(whole))


@pytest.mark.slow
def test_ranges_are_fixed_in_the_second_half(trained):
    one, two = (qat(trained, recipe=dataclasses.replace(SHORT, epochs=4, validation_fraction=0)) for _ in range(2))
    assert _equal(_weights(one), _weights(two))
    seen = []

    def look(event):
        seen.append(event.kind)

    qat(trained, callbacks=[look])
    assert seen.count("epoch") == 2


def test_a_run_is_loaded_and_predicts_with_rounded_values(rounded, trained):
    network = load(rounded)
    assert isinstance(network, QuantizedNetwork)
    images = zs.load_data("digits").test_images[:64]
    plain = predict(network.plain(), images)
    assert not torch.equal(predict(network, images), plain)
    assert (predict(network, images) - plain).abs().max() < 0.2
    assert load(rounded / "last.safetensors").ranges.shape == network.ranges.shape
    more = train(network, "digits", SHORT, progress=False)
    assert not isinstance(more.network, QuantizedNetwork), "another recipe goes on from its weights"


def test_a_teacher_and_images_of_ones_own_are_taken(tmp_path):
    tiny = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 6, 6), num_classes=2)
    train(tiny, BARS, Recipe(epochs=2, batch_size=16), out=tmp_path, progress=False)
    with pytest.raises(zs.errors.UnknownNameError, match="unknown data set 'bars'"):
        qat(tmp_path)
    recipe = dataclasses.replace(SHORT, batch_size=16)
    alone = qat(tmp_path, data=BARS, recipe=recipe)
    taught = qat(tmp_path, data=BARS, recipe=recipe, teacher=tmp_path)
    assert not _equal(_weights(alone), _weights(taught))


def test_the_runs_own_test_images_are_tested_on(tmp_path):
    """Images that were added since, or drawn otherwise, are no part of either run."""
    photos, weights = tmp_path / "photos", tmp_path / "run"
    for kind in ("cat", "dog"):
        (photos / kind).mkdir(parents=True)
        for index in range(20):
            shade = np.full((8, 8), 7 * index + (5 if kind == "cat" else 100), np.uint8)
            Image.fromarray(shade).save(photos / kind / f"{index}.png")
    architecture = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", (3, 8, 8), 2)
    train(architecture, f"folder:{photos}", Recipe(epochs=1, batch_size=8), out=weights, progress=False)
    shutil.copy(photos / "cat" / "0.png", photos / "cat" / "more.png")
    result = qat(weights, recipe=dataclasses.replace(SHORT, epochs=1), out=tmp_path / "int8")
    assert (tmp_path / "int8" / "split.json").read_text() == (weights / "split.json").read_text()
    assert sum(result.images.values()) == 40


@pytest.mark.parametrize(
    ("text", "size", "classes", "options"),
    [
        ("SuperConvK3BNRELU(3,8,2,1)SuperResIDWE2K3(8,8,1,8,1)", (3, 8, 8), 10, {"squeeze_excite": True}),
        ("SuperConvK3BNRELU(1,8,2,1)SuperResK1K3K1(8,8,1,8,1)", (1, 8, 8), 10, {}),
    ],
)
def test_colour_grey_and_squeeze_and_excitation(tmp_path, text, size, classes, options):
    architecture = Architecture.from_string(text, size, classes, **options)
    train(architecture, "digits", Recipe(epochs=1, batch_size=256), out=tmp_path, progress=False)
    result = qat(tmp_path, recipe=dataclasses.replace(SHORT, epochs=1))
    assert result.network.architecture == architecture
    assert result.state == "done"


@pytest.mark.slow
@POWERS
def test_the_file_needs_no_calibration_and_computes_what_the_run_does(trained, tmp_path, power_of_two):
    pytest.importorskip("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    result = qat(trained, out=tmp_path / "run", power_of_two=power_of_two)
    out = tmp_path / "files"
    (file,) = export_network(result.network, out, formats=("tflite",)).files  # no images at all
    assert file.ranges == "learned in training, without calibration images"
    assert file.max_difference < 0.03
    report = export_network(tmp_path / "run", formats=("tflite", "c"), int8=True)
    by_kind = {each.kind: each for each in report.files}
    assert (tmp_path / "run" / "model.tflite").read_bytes() == file.file.read_bytes()
    assert abs(by_kind["tflite int8"].accuracy - result.test_accuracy) <= (0 if power_of_two else 2.1 / 450)
    assert report.accuracy == result.test_accuracy
    assert by_kind["C array"].max_difference < 0.03
    assert json.loads((tmp_path / "run" / "export.json").read_text())["files"][0]["ranges"] == file.ranges
    details = Interpreter(model_path=str(file.file)).get_tensor_details()
    scales = np.concatenate([each["quantization_parameters"]["scales"] for each in details]).astype(np.float64)
    assert len(scales) > 20
    assert (np.frexp(scales)[0] == 0.5).all() == power_of_two
    before = export_network(trained, out, formats=("tflite",)).files[0]
    assert before.ranges == "of 256 calibration images"


def test_formats_that_round_by_themselves_get_the_weights_before(rounded, monkeypatch, tmp_path):
    assert {name for name in zs.list_export_formats() if FORMATS[name].takes_ranges} == {"tflite", "c"}
    asked = []

    def export(request):
        asked.append(request)
        return ExportedFile(request.file, "probe", 0, 0, 0)

    monkeypatch.setitem(FORMATS._entries, "onnx", FormatInfo("onnx", "probe", needs_images=True, export=export))
    export_network(rounded, tmp_path)
    (request,) = asked
    assert type(request.network) is TrainedNetwork
    assert len(request.images) == 256
    images = zs.load_data("digits").test_images[:8]
    with torch.no_grad():
        assert torch.equal(request.network(images), load(rounded).plain()(images))


def test_a_card_says_what_accuracy_is_of(rounded):
    card = model_card(load(rounded).plain(), Origin(read_result(rounded)), 1.0)
    assert "with values rounded to int8" in card
    assert "model-index" not in card


def test_what_can_not_be_rounded_is_said_before_anything_trains(trained, rounded, tmp_path):
    with pytest.raises(RecipeError, match="the network is quantised already; start from the run that it was made of"):
        qat(rounded)
    with pytest.raises(RecipeError, match=r"not trained yet \(train it, then zeroshot-nas qat RUN"):
        train(NET, "digits", "qat", progress=False)
    with pytest.raises(RecipeError, match="not trained yet"):
        train(zs.build(NET), "digits", "qat", progress=False)
    with pytest.raises(RecipeError, match="a Sequential is a module of your own, whose operators int8 files do not"):
        train(_linear(10, 8), "digits", "qat", progress=False)
    with pytest.raises(RecipeError, match="not trained yet"):
        zs.compare(NET, [], "digits", "qat", progress=False)
    with pytest.raises(RecipeError, match="not trained yet"):
        zs.search("resnet", budget=zs.Budget(params=1e4), trials=2, data="digits", recipe="qat", progress=False)
    with pytest.raises(RecipeError, match="precision must be float32 to be rounded, got 'bfloat16'"):
        get_recipe("qat", precision="bfloat16")
    with pytest.raises(RecipeError, match="quantization must be one of None, 'int8', 'int8_power_of_two', got 'int4'"):
        Recipe(quantization="int4")
    with pytest.raises(OutputExistsError, match="holds the weights to start from; give another folder"):
        qat(trained, out=trained, force=True)
    (tmp_path / "alone").mkdir()
    shutil.copy(trained / "best.safetensors", tmp_path / "alone")
    with pytest.raises(DataError, match=r"does not say what it was trained on; give the data \(--data\)"):
        qat(tmp_path / "alone")
    assert qat(tmp_path / "alone" / "best.safetensors", data="digits").seed == 0
    module = tmp_path / "module"
    train(_linear(10, 8), "digits", Recipe(epochs=1), out=module, progress=False)
    with pytest.raises(FileFormatError, match="weights of a 'Sequential', which no file can build"):
        qat(module)


def test_a_run_goes_on_with_its_own_options_alone(trained, rounded, tmp_path):
    with pytest.raises(SettingsChangedError, match="quantization: 'int8' in the run, 'int8_power_of_two' asked for"):
        qat(trained, out=rounded, resume=True, power_of_two=True)
    with pytest.raises(SettingsChangedError, match="epochs: 2 in the run, 3 asked for"):
        qat(trained, out=rounded, resume=True, recipe=dataclasses.replace(SHORT, epochs=3))
    copy = tmp_path / "copy"
    shutil.copytree(rounded, copy)
    content = bytearray((copy / "best.safetensors").read_bytes())
    content[-5] ^= 1
    (copy / "best.safetensors").write_bytes(content)
    with pytest.raises(FileFormatError, match="is damaged"):
        load(copy)
    content = bytearray((copy / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "state.pt").write_bytes(content)
    with pytest.raises(FileFormatError, match="is damaged"):
        qat(trained, out=copy, resume=True)


def test_an_unfinished_run_is_started_from_with_a_warning(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    told = json.loads((copy / "train.json").read_text())
    (copy / "train.json").write_text(json.dumps({**told, "state": "interrupted", "epochs": 2}))
    with pytest.warns(UnfinishedRunWarning, match="is interrupted, 2 of 4 epochs are done; its best weights so far"):
        qat(copy, recipe=dataclasses.replace(SHORT, epochs=1))
    (copy / "train.json").write_text("{")
    with pytest.raises(FileFormatError, match=r"train.json is damaged"):
        qat(copy)


def test_runs_of_earlier_releases_are_told_from_nothing_new():
    assert "quantization" not in Recipe().to_dict()
    assert Recipe(**get_recipe("qat").to_dict()) == get_recipe("qat")


@pytest.mark.slow
def test_the_command_line(run, trained, tmp_path):
    out = tmp_path / "q"
    code, printed, _ = run("qat", trained, "--epochs", 1, "--power-of-two", "--out", out, "--quiet", "--json")
    result = json.loads(printed)
    assert (code, result["recipe"]["quantization"], result["recipe"]["shift"]) == (0, "int8_power_of_two", 0)
    assert run("report", out, "--out", tmp_path / "r.html")[0] == 0
    assert "int8_power_of_two" in (tmp_path / "r.html").read_text()
    for words, said in (
        (("qat", out), "quantised already"),
        (("qat", tmp_path / "nope"), "is not there; expected a run's folder"),
        (("qat", trained, "--epochs", 0), "epochs must be a whole number of 1 or more, got 0"),
        (("qat", trained, "--out", out), "already holds a run"),
        (("qat", trained, "--out", out, "--resume"), "was begun with other settings"),
        (("train", trained, "--recipe", "qat", "--out", tmp_path / "t"), "not trained yet"),
    ):
        code, printed, error = run(*words)
        assert (code, printed, error.count("\n")) == (2, "", 1)
        assert said in error
    assert not (tmp_path / "t").exists()
