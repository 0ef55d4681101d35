"""Training: it learns, repeats itself, keeps the test part out of every choice, and survives being stopped."""

import dataclasses
import json
import math
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.cost import cost
from zeroshot_nas.errors import (
    ArchitectureError,
    DataError,
    FileFormatError,
    OutputExistsError,
    RunInUseError,
    SettingsChangedError,
    TrainingError,
    UnknownNameError,
)
from zeroshot_nas.network.module import build
from zeroshot_nas.runs.options import RunOptions
from zeroshot_nas.runs.resume import resume
from zeroshot_nas.training import learner, trainer
from zeroshot_nas.training.base import ImageData
from zeroshot_nas.training.checkpoint import load, predict
from zeroshot_nas.training.recipe import Recipe
from zeroshot_nas.training.result import wilson_interval
from zeroshot_nas.training.trainer import train
from zeroshot_nas.training.weights import read_weights

TINY = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 6, 6), num_classes=2)
QUICK = Recipe(epochs=3, batch_size=16)


def _bars(count=60):
    """Noisy images with a bright row (class 0) or a bright column (class 1)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, 6, 6, generator=generator) / 2
    labels = torch.arange(count) % 2
    images[labels == 0, :, 3] += 0.5
    images[labels == 1, :, :, 3] += 0.5
    half = count // 2
    return ImageData(images[:half], labels[:half], images[half:], labels[half:], ("row", "column"), "bars")


BARS = _bars()


def _linear(classes, side=6):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(side * side, classes))


def _train(model=TINY, data=BARS, recipe=QUICK, **options):
    return train(model, data, recipe, progress=False, **options)


def _weights(result):
    return {name: value.clone() for name, value in result.network.state_dict().items()}


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _interrupt_at(monkeypatch, call):
    """Presses Ctrl-C, so to say, at the given step of training."""
    calls = iter(range(1, 1000))
    original = learner.random_shift

    def shift(*arguments):
        if next(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(learner, "random_shift", shift)


def test_a_small_network_learns_digits():
    network = Architecture.from_string("SuperConvK3BNRELU(1,16,1,1)SuperResK3K3(16,32,2,16,1)", (1, 8, 8), 10)
    result = _train(network, "digits", Recipe(epochs=4, shift=0))
    assert result.test_accuracy > 0.9  # chance is 0.1; 0.97 measured
    assert result.validation_accuracy > 0.9
    assert (result.data, result.state, result.epochs, len(result.history)) == ("digits", "done", 4, 4)
    losses = [record.train_loss for record in result.history]
    assert losses[0] > losses[-1]
    assert result.params == cost(network).params == sum(p.numel() for p in result.network.parameters())


def test_data_are_fitted_to_the_network():
    network = Architecture.from_string("SuperConvK3BNRELU(3,8,2,1)", (3, 12, 12), 10)
    result = _train(network, "digits", Recipe(epochs=1, batch_size=256))
    assert result.network.mean.shape == (3, 1, 1)


def test_the_same_seed_gives_the_same_weights_whatever_the_global_random_state():
    torch.manual_seed(1)
    first = _train(seed=5)
    torch.manual_seed(2)
    random.seed(2)
    again, other = _train(seed=5), _train(seed=6)
    assert _equal(_weights(first), _weights(again))
    assert [r.train_loss for r in first.history] == [r.train_loss for r in again.history]
    assert not _equal(_weights(first), _weights(other))


def test_threads_are_those_asked_for_and_one_for_a_small_step(monkeypatch):
    seen, original = [], learner.Learner._train_epoch

    def look(self, epoch):
        seen.append(torch.get_num_threads())
        return original(self, epoch)

    monkeypatch.setattr(learner.Learner, "_train_epoch", look)
    before = torch.get_num_threads()
    for threads in (None, 1, 2):
        _train(recipe=Recipe(epochs=1, batch_size=16), threads=threads)
    assert seen == [1, 1, 2]
    assert torch.get_num_threads() == before


def test_the_global_random_state_is_left_as_it_was():
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(4)
    expected = random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(4)
    _train()
    assert (random.random(), np.random.random(), torch.rand(()).item()) == expected  # noqa: NPY002


def test_a_network_is_trained_on_a_copy_from_its_own_weights():
    network = build(TINY, seed=7).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    still = _train(network, recipe=Recipe(epochs=1, batch_size=16, learning_rate_per_256=0))
    assert torch.equal(still.network.head[1].weight, before["head.1.weight"])
    moved = _train(network)
    assert not torch.equal(moved.network.head[1].weight, before["head.1.weight"])
    assert _equal(dict(network.state_dict()), before)
    assert not network.training


def test_training_goes_on_from_a_trained_network():
    first = _train(recipe=Recipe(epochs=20, batch_size=8))
    more = _train(first.network, recipe=Recipe(epochs=1, batch_size=8, learning_rate_per_256=0.01))
    assert more.history[0].train_loss < first.history[0].train_loss


def test_images_are_normalised_by_the_training_part():
    result = _train()
    assert result.network.mean.item() == pytest.approx(BARS.train_images.mean().item())
    assert result.network.std.item() == pytest.approx(BARS.train_images.std(correction=0).item())


def test_a_channel_of_one_colour_trains():
    flat = dataclasses.replace(BARS, train_images=torch.zeros(30, 1, 6, 6), test_images=torch.zeros(30, 1, 6, 6))
    result = _train(data=flat)
    assert result.network.std.item() == 1
    assert result.test_accuracy == 0.5  # one answer for all


def test_the_test_part_has_no_say():
    """Other test images change the test accuracy and nothing else."""
    swapped = dataclasses.replace(BARS, test_labels=1 - BARS.test_labels)
    one, other = _train(), _train(data=swapped)
    assert _equal(_weights(one), _weights(other))
    assert one.best_epoch == other.best_epoch
    assert one.test_accuracy == pytest.approx(1 - other.test_accuracy)


def test_the_test_part_is_looked_at_once(monkeypatch):
    sizes = []
    monkeypatch.setattr(learner, "predict", lambda net, images: sizes.append(len(images)) or predict(net, images))
    _train(data=_bars(100), recipe=Recipe(epochs=4, batch_size=16, validation_fraction=0.2))
    assert sizes == [10, 10, 10, 10, 50]


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.2, 0.9, 0.5], 2), ([0.2, 0.9, 0.9], 3), ([0.9, 0.9, 0.1], 2), ([0.5, 0.4, 0.3], 1)],
)
def test_the_best_epoch_is_the_later_of_the_most_accurate(monkeypatch, tmp_path, accuracies, best):
    values = iter(accuracies)
    monkeypatch.setattr(learner, "accuracy", lambda *_: next(values))
    monkeypatch.setattr(trainer, "confusion", lambda *_: ((7, 8), (0, 15)))
    result = _train(out=tmp_path)
    assert (result.best_epoch, result.validation_accuracy, result.test_accuracy) == (
        best,
        accuracies[best - 1],
        22 / 30,
    )
    files = [tmp_path / name for name in ("best.safetensors", "last.safetensors")]
    kept = [read_weights(file.read_bytes())[1]["epoch"] for file in files]
    assert kept == [best, 3]


def test_without_a_validation_part_the_last_epoch_is_the_best():
    result = _train(recipe=Recipe(epochs=3, batch_size=16, validation_fraction=0))
    assert (result.best_epoch, result.validation_accuracy) == (3, None)
    assert [record.validation_accuracy for record in result.history] == [None] * 3


def test_learning_rate_follows_the_recipe():
    recipe = Recipe(epochs=4, batch_size=9, warmup_epochs=1)  # 27 images to train on: 3 steps an epoch
    history = _train(recipe=recipe).history
    assert [record.learning_rate for record in history] == [recipe.learning_rate(step, 3) for step in (2, 5, 8, 11)]


def test_a_last_batch_of_one_image_is_left_out():
    features = Architecture.from_string("SuperConvK3BNRELU(1,8,2,1)SuperConvK3BNRELU(8,8,4,1)", (1, 6, 6), 2)
    recipe = Recipe(epochs=2, batch_size=13, validation_fraction=0.1)  # 27 = 13 + 13 + 1; batch norm sees 1x1 pixels
    result = _train(features, recipe=recipe)
    assert result.history[-1].learning_rate == recipe.learning_rate(3, 2)


def test_only_weights_decay():
    network = build(TINY)
    decayed, free = learner._optimizer(network, None, Recipe(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(network.blocks[0][0].weight), id(network.head[1].weight)}
    assert len(decayed["params"]) + len(free["params"]) == len(list(network.parameters()))


def test_flips_are_part_of_the_recipe(monkeypatch):
    calls = []
    monkeypatch.setattr(learner, "random_flip", lambda images, _: calls.append(1) or images)
    _train(recipe=Recipe(epochs=1, batch_size=16))
    assert not calls
    _train(recipe=Recipe(epochs=1, batch_size=16, flip=True))
    assert calls


def test_files_hold_the_result_and_load_as_the_network(tmp_path):
    result = _train(out=tmp_path / "run", seed=3)
    assert sorted(p.name for p in result.weights.parent.iterdir()) == [
        *(".lock", "architecture.json", "best.safetensors", "call.json", "last.safetensors"),
        *("state.pt", "train.json", "train.log"),
    ]
    loaded = load(tmp_path / "run")
    assert torch.equal(predict(loaded, BARS.test_images), predict(result.network, BARS.test_images))
    accuracy = (predict(loaded, BARS.test_images).argmax(1) == BARS.test_labels).float().mean().item()
    assert accuracy == pytest.approx(result.test_accuracy)
    written = json.loads((tmp_path / "run" / "train.json").read_text())
    assert written == json.loads(json.dumps(result.to_dict()))
    assert Recipe(**written["recipe"]) == QUICK
    assert [record["epoch"] for record in written["history"]] == [1, 2, 3]
    assert (written["seed"], written["data"], written["state"]) == (3, "bars", "done")


def test_a_run_is_not_overwritten_unless_forced(tmp_path):
    _train(out=tmp_path)
    before = (tmp_path / "best.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match="force=True"):
        _train(out=tmp_path, seed=1)
    assert (tmp_path / "best.safetensors").read_bytes() == before
    result = _train(out=tmp_path, seed=1, force=True)
    assert _equal(dict(load(tmp_path).state_dict()), _weights(result))


def test_files_are_written_every_epoch_and_say_that_the_run_goes_on(monkeypatch, tmp_path):
    seen = []
    original = learner.EpochRecord

    def look(*arguments):
        file = tmp_path / "train.json"
        seen.append(json.loads(file.read_text()) if file.exists() else None)
        return original(*arguments)

    monkeypatch.setattr(learner, "EpochRecord", look)
    _train(out=tmp_path)
    assert seen[0] is None
    assert [(each["state"], each["epochs"], each["test_accuracy"]) for each in seen[1:]] == [
        ("running", 1, None),
        ("running", 2, None),
    ]


def test_ctrl_c_leaves_a_valid_run(monkeypatch, tmp_path):
    _interrupt_at(monkeypatch, call=5)  # 27 images in batches of 16: two steps an epoch, so in epoch 3
    result = _train(recipe=Recipe(epochs=50, batch_size=16), out=tmp_path)
    assert (result.state, result.epochs) == ("interrupted", 2)
    written = json.loads((tmp_path / "train.json").read_text())
    assert (written["state"], written["epochs"], written["test_accuracy"]) == ("interrupted", 2, None)
    assert math.isnan(result.test_accuracy)
    assert _equal(dict(load(tmp_path / "best.safetensors").state_dict()), _weights(result))
    assert load(tmp_path / "last.safetensors")(BARS.test_images).isfinite().all()


def test_an_interrupted_run_is_the_beginning_of_the_whole_one(monkeypatch):
    recipe = Recipe(epochs=4, batch_size=16)
    whole = _train(recipe=recipe).history
    _interrupt_at(monkeypatch, call=7)
    part = _train(recipe=recipe).history
    assert [record.train_loss for record in part] == [record.train_loss for record in whole[:3]]


def test_a_training_that_stops_at_an_epoch_of_its_recipe_goes_on_as_one_that_never_did(tmp_path, monkeypatch):
    unbroken = _train(seed=4, out=tmp_path / "unbroken")
    run = RunOptions(out=tmp_path / "parts", resume=True)
    trained, original = [], learner.Learner._train_epoch

    def counted(self, epoch):
        trained.append(epoch)
        return original(self, epoch)

    monkeypatch.setattr(learner.Learner, "_train_epoch", counted)
    with monkeypatch.context() as patches:
        patches.setattr(trainer, "confusion", None)  # the test images are not looked at
        accuracies = [trainer.train_until(epoch, TINY, BARS, QUICK, run, seed=4, device=None, threads=None)
                      for epoch in (1, 1, 2, 1)]  # fmt: skip
    assert trained == [1, 2], "what is there is not trained again"
    assert json.loads((tmp_path / "parts" / "train.json").read_text())["state"] == "running"
    best = [max(record.validation_accuracy for record in unbroken.history[:epoch]) for epoch in (1, 2)]
    assert accuracies == [best[0], best[0], best[1], best[0]]
    whole = resume(tmp_path / "parts", data=BARS, progress=False)
    assert (trained, whole.state, whole.test_accuracy) == ([1, 2, 3], "done", unbroken.test_accuracy)
    assert _equal(_weights(whole), _weights(unbroken))


@pytest.mark.slow
def test_a_training_up_to_an_epoch_stops_where_it_is_told_to(tmp_path):
    run = RunOptions(out=tmp_path, resume=True)
    how = {"seed": 0, "device": None, "threads": 1}
    with pytest.raises(KeyboardInterrupt):
        trainer.train_until(3, TINY, BARS, QUICK, run, **how, stops=lambda: True)
    assert json.loads((tmp_path / "train.json").read_text())["epochs"] == 1
    patient = dataclasses.replace(QUICK, epochs=40, patience=1, learning_rate_per_256=0.0)
    out = RunOptions(out=tmp_path / "patient", resume=True)
    accuracy = trainer.train_until(30, TINY, BARS, patient, out, **how)
    written = json.loads((tmp_path / "patient" / "train.json").read_text())
    assert accuracy == max(record["validation_accuracy"] for record in written["history"])
    assert trainer.train_until(30, TINY, BARS, patient, out, **how) == accuracy


def test_ctrl_c_before_the_first_epoch_is_passed_on(monkeypatch, tmp_path):
    _interrupt_at(monkeypatch, call=2)
    with pytest.raises(KeyboardInterrupt):
        _train(out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_killed_process_leaves_valid_files(tmp_path):
    program = f"""
import torch
from zeroshot_nas.training.trainer import Recipe, train
from zeroshot_nas.architecture.architecture import Architecture
net = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 8, 8), 10)
train(net, "digits", Recipe(epochs=10_000, batch_size=512), out={str(tmp_path)!r}, progress=False)
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "train.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)  # a few epochs, to be hit at any moment of one
    finally:
        process.kill()
        process.wait()
    written = json.loads((tmp_path / "train.json").read_text())
    assert (written["state"], written["epochs"] >= 1) == ("running", True)
    for name in ("best.safetensors", "last.safetensors"):
        assert load(tmp_path / name).class_names == tuple("0123456789")


@pytest.mark.parametrize("rate", [1e30, 1e38])
def test_a_loss_that_is_not_finite_stops_with_advice(rate):
    with pytest.raises(TrainingError, match=r"epoch \d.*lower the recipe's learning_rate_per_256, which is 1e\+3"):
        _train(recipe=Recipe(epochs=5, batch_size=8, learning_rate_per_256=rate, warmup_epochs=0))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data": "digit"}, UnknownNameError, "Did you mean 'digits'"),
        ({"data": "digits"}, DataError, r"num_classes=2, but 'digits' has 10 classes.*num_classes=10\)"),
        ({"model": 3}, ArchitectureError, "takes an Architecture or an nn.Module, got int"),
        ({"model": torch.nn.ReLU()}, ArchitectureError, "ReLU has nothing to train"),
        ({"model": torch.nn.Linear(2, 2)}, DataError, r"Linear does not take images \(2, 1, 6, 6\)"),
        (
            {"model": torch.nn.Conv2d(1, 2, 3)},
            DataError,
            r"Conv2d must return logits \(N, 2\) for images .*, got \(2, 2,",
        ),
        (
            {"model": _linear(3)},
            DataError,
            "Sequential has 3 outputs, but there are 2 classes; give it a last layer of 2",
        ),
        ({"model": _linear(2), "input_size": (1, 5, 5)}, DataError, "does not take images"),
        ({"input_size": (1, 5, 5)}, DataError, "an architecture has its own input_size"),
        ({"model": dataclasses.replace(TINY, num_classes=3)}, DataError, "num_classes=3, but 'bars' has 2"),
        ({"recipe": Recipe(validation_fraction=0.01)}, DataError, "30 training images.*leave 30.*and 0 to validate"),
        ({"recipe": Recipe(validation_fraction=0.99)}, DataError, "leave 1 to train on and 29"),
        ({"seed": -1}, ValueError, "a seed is an integer of 0 or more"),
        ({"threads": 0}, DataError, "threads must be a whole number of 1 or more, got 0"),
        ({"device": "gpu"}, DataError, "device 'gpu' can't be used: .*; expected cpu"),
        ({"data": "/"}, DataError, "'/' is no data set's name but a folder: give it as folder:/"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        _train(out=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_the_bar_shows_loss_validation_and_best_epoch(capsys):
    train(TINY, BARS, QUICK)
    error = capsys.readouterr().err
    assert "3/3" in error
    assert "best epoch" in error
    _train()
    assert capsys.readouterr() == ("", "")


def test_running_result_has_no_test_accuracy_in_json():
    result = dataclasses.replace(_train(), test_accuracy=math.nan)
    assert result.to_dict()["test_accuracy"] is None
    assert result.to_dict()["weights"] is None
    assert "network" not in result.to_dict()


def test_the_result_says_how_sure_it_is_and_what_is_taken_for_what(tmp_path):
    result = _train(out=tmp_path)
    said, labels = predict(result.network, BARS.test_images).argmax(1), BARS.test_labels
    expected = [[int(((labels == i) & (said == j)).sum()) for j in range(2)] for i in range(2)]
    assert [list(row) for row in result.confusion] == expected
    assert result.images == {"train": 27, "validation": 3, "test": 30}
    right = expected[0][0] + expected[1][1]
    assert result.test_accuracy == right / 30
    assert result.test_interval == wilson_interval(right, 30)
    assert result.class_accuracy == {name: expected[i][i] / 15 for i, name in enumerate(("row", "column"))}
    written = json.loads((tmp_path / "train.json").read_text())
    assert written["confusion"] == expected
    assert written["images"] == result.images
    assert written["class_accuracy"] == result.class_accuracy
    assert written["test_interval"] == list(result.test_interval)
    assert f"[ {', '.join(map(str, expected[0]))} ]" in (tmp_path / "train.json").read_text()  # a row, a line


@given(right=st.integers(0, 300), more=st.integers(0, 300))
def test_wilsons_interval_solves_its_equation(right, more):
    """Its bounds are where ``|p - q| = z sqrt(q (1 - q) / n)``, and mirror each other."""
    count = right + more or 1
    share, (low, high) = right / count, wilson_interval(right, count)
    assert 0 <= low <= share <= high <= 1
    for bound in (low, high):
        limit = 1.959963984540054 * math.sqrt(bound * (1 - bound) / count)
        assert abs(share - bound) == pytest.approx(limit, abs=1e-9)
    assert wilson_interval(count - right, count) == pytest.approx((1 - high, 1 - low))


def test_rows_show_classes_confusions_and_counts():
    result = dataclasses.replace(
        _train(), confusion=((8, 2, 0), (0, 0, 0), (5, 0, 5)), class_names=("cat", "dog", "owl"), test_accuracy=13 / 20,
        images={"train": 27, "validation": 3, "test": 20},
    )  # fmt: skip
    rows = dict(result.rows())
    assert rows["test accuracy"] == "65.00% of 20 images (95 % interval 43.3% to 81.9%)"
    assert rows["by class"] == "cat 80.0%, owl 50.0%"
    assert rows["most confused"] == "owl taken for cat (5), cat taken for dog (2)"
    assert rows["images"] == "27 to learn from, 3 to choose the epoch, 20 to test"
    assert math.isnan(result.class_accuracy["dog"])
    assert result.to_dict()["class_accuracy"]["dog"] is None
    many = dataclasses.replace(
        result, class_names=tuple(map(str, range(12))), confusion=tuple((0,) * i + (1,) * 12 for i in range(12))
    )
    assert many._by_class().endswith("… (12 classes, the worst first)")


def test_an_interrupted_run_in_a_folder_looks_at_the_test_images_once(monkeypatch, tmp_path):
    sizes = []
    monkeypatch.setattr(learner, "predict", lambda net, images: sizes.append(len(images)) or predict(net, images))
    with monkeypatch.context() as patch:
        _interrupt_at(patch, call=5)
        result = _train(out=tmp_path)
    rows = dict(result.rows())
    assert rows["state"] == f"interrupted after 2 of 3 epochs; go on with: zeroshot-nas resume {tmp_path}"
    assert rows["test accuracy"].startswith("not known: the 30 test images are looked at once")
    assert (result.confusion, result.to_dict()["test_interval"], 30 in sizes) == (None, None, False)
    assert _train(out=tmp_path, resume=True).state == "done"
    assert sizes.count(30) == 1


def test_two_trainings_in_one_folder_are_refused(monkeypatch, tmp_path):
    seen = []

    def again(*_):
        if not seen:
            with pytest.raises(RunInUseError, match="in use by another process") as caught:
                _train(out=tmp_path, force=True)
            seen.append(caught)
        return original(*_)

    original = learner.random_shift
    monkeypatch.setattr(learner, "random_shift", again)
    _train(out=tmp_path)
    assert seen
    assert _train(out=tmp_path, resume=True).state == "done"  # it is free again


@pytest.mark.parametrize("begun", [1, 2])
def test_a_run_goes_on_with_its_own_number_of_threads(monkeypatch, tmp_path, begun):
    whole = _train(threads=begun)
    with monkeypatch.context() as patch:
        _interrupt_at(patch, call=3)
        assert _train(out=tmp_path, threads=begun).state == "interrupted"
    with pytest.raises(SettingsChangedError, match=f"torch threads: {begun} in the run, 3 asked for"):
        _train(out=tmp_path, resume=True, threads=3)
    seen, original = [], learner.Learner._train_epoch
    monkeypatch.setattr(
        learner.Learner, "_train_epoch", lambda *args: seen.append(torch.get_num_threads()) or original(*args)
    )
    assert _equal(_weights(_train(out=tmp_path, resume=True)), _weights(whole))
    assert set(seen) == {begun}


def test_a_run_of_a_release_that_kept_no_threads_goes_on(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        _interrupt_at(patch, call=3)
        _train(out=tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    del state["settings"]["torch threads"]
    torch.save({**state, "settings": {**state["settings"], "threads": None}}, tmp_path / "state.pt")
    assert _train(out=tmp_path, resume=True).state == "done"


def test_images_that_the_data_hold_out_choose_the_best_epoch():
    result = _train(data=dataclasses.replace(BARS, held_out=torch.tensor([3, 4, 20])), recipe=QUICK)
    assert result.images == {"train": 27, "validation": 3, "test": 30}
    whole = _train(
        data=dataclasses.replace(BARS, held_out=torch.tensor([3, 4])), recipe=Recipe(1, 16, validation_fraction=0)
    )
    assert whole.images == {"train": 30, "validation": 0, "test": 30}
    for wrong in (
        torch.tensor([30]),
        torch.arange(30),
        torch.tensor([1, 1]),
        torch.tensor([1.0]),
        [1],
        torch.tensor([-1]),
    ):
        with pytest.raises(DataError, match="held_out must be"):
            dataclasses.replace(BARS, held_out=wrong)


class _Viewing(torch.nn.Module):
    """A module of anyone's: an activation in place, a view, a frozen part, dropout."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.SiLU(inplace=True))
        self.drop, self.head = torch.nn.Dropout(0.1), torch.nn.Linear(128, 2)
        self.scale = torch.nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x):
        return self.head(self.drop(self.scale * self.body(x)).view(len(x), -1))


def test_any_module_is_trained_on_a_copy_and_its_weights_load_into_one_like_it(monkeypatch, tmp_path):
    torch.manual_seed(0)
    module = _Viewing().eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    recipe = Recipe(epochs=8, batch_size=8, ema_decay=0.9, shift=0)
    result = _train(module, recipe=recipe, out=tmp_path)
    assert result.test_accuracy > 0.8
    assert result.params == sum(value.numel() for value in module.parameters()) - 1
    assert _equal(dict(module.state_dict()), before)
    assert not module.training
    assert torch.equal(result.network.module.scale, module.scale)
    assert _equal(_weights(_train(module, recipe=recipe)), _weights(result))
    with pytest.raises(FileFormatError, match=r"the weights of a '_Viewing', which no file can build.*module="):
        load(tmp_path)
    loaded = load(tmp_path, module=_Viewing())
    assert torch.equal(predict(loaded, BARS.test_images), predict(result.network, BARS.test_images))
    with pytest.raises(FileFormatError, match="do not fit together"):
        load(tmp_path, module=_linear(2))
    with monkeypatch.context() as patch:
        _interrupt_at(patch, call=10)
        assert _train(module, recipe=recipe, out=tmp_path / "part").state == "interrupted"
    with pytest.raises(SettingsChangedError, match="begun with a model that is an object"):
        resume(tmp_path / "part", data=BARS, progress=False)
    assert _equal(_weights(resume(tmp_path / "part", model=module, data=BARS, progress=False)), _weights(result))


def test_a_module_says_its_input_size_or_takes_that_of_the_data():
    recipe = Recipe(epochs=1, batch_size=256)
    assert _train(_linear(10, 8), data="digits", recipe=recipe).network.input_size == (1, 8, 8)
    assert _train(_linear(10, 5), data="digits", recipe=recipe, input_size=(1, 5, 5)).network.input_size == (1, 5, 5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_cuda(tmp_path):
    result = _train(device="cuda", out=tmp_path)
    assert result.network.mean.device.type == "cuda"
    assert load(tmp_path).mean.device.type == "cpu"
    torch.testing.assert_close(
        predict(load(tmp_path), BARS.test_images), predict(result.network, BARS.test_images), rtol=1e-3, atol=1e-3
    )
