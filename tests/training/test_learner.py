"""What recipes ask for: moving averages, clipping, mixing, kornia's augmentations, teachers, patience, going on."""

import dataclasses
import json
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.errors import (
    DataError,
    FileFormatError,
    MissingExtraError,
    OutputExistsError,
    RecipeError,
    RunOptionsError,
    SettingsChangedError,
    UnknownNameError,
)
from zeroshot_nas.network.module import Residual, build
from zeroshot_nas.training import learner, trainer
from zeroshot_nas.training.augment import kornia_augmentation, mixup
from zeroshot_nas.training.averaging import MovingAverage
from zeroshot_nas.training.base import ImageData
from zeroshot_nas.training.checkpoint import load
from zeroshot_nas.training.distillation import Distillation
from zeroshot_nas.training.recipe import RECIPES, Recipe, get_recipe
from zeroshot_nas.training.trainer import train
from zeroshot_nas.training.weights import read_weights

NET = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,8,2,8,1)", (3, 8, 8), num_classes=2)
FULL = Recipe(
    epochs=4,
    batch_size=16,
    flip=True,
    mixup=0.2,
    random_erasing=0.5,
    auto_augment="cifar10",
    ema_decay=0.9,
    gradient_clip=1.0,
    zero_init_residual=True,
)


def _data(dtype=torch.float32, count=60):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 128, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    images[labels == 0, :, 3] += 100
    images[labels == 1, :, :, 3] += 100
    images = images if dtype == torch.uint8 else images.float() / 255
    half = count // 2
    return ImageData(images[:half], labels[:half], images[half:], labels[half:], ("row", "column"), "bars")


BARS = _data()


def _train(recipe=FULL, model=NET, data=BARS, **options):
    return train(model, data, recipe, progress=False, **options)


def _weights(result):
    return {name: value.clone() for name, value in result.network.state_dict().items()}


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class _Died(BaseException):
    """The process is gone, so to say."""


def _die_after(patch, epochs):
    """Lets a run die in the epoch after so many."""
    original = learner.Learner._train_epoch

    def train_epoch(self, epoch):
        if epoch == epochs + 1:
            raise _Died
        return original(self, epoch)

    patch.setattr(learner.Learner, "_train_epoch", train_epoch)


@pytest.mark.slow
@pytest.mark.parametrize("taught", [False, True])
def test_a_run_stopped_after_any_epoch_goes_on_to_the_same_weights(tmp_path, monkeypatch, taught):
    teacher = build(dataclasses.replace(NET), seed=9) if taught else None
    whole = _train(teacher=teacher)
    for stop in (1, 3):
        out = tmp_path / str(stop)
        with monkeypatch.context() as patch:
            _die_after(patch, stop)
            with pytest.raises(_Died):
                _train(teacher=teacher, out=out)
        torch.manual_seed(stop)
        resumed = _train(teacher=teacher, out=out, resume=True)
        assert _equal(_weights(resumed), _weights(whole))
        assert [r.train_loss for r in resumed.history] == [r.train_loss for r in whole.history]
        assert (resumed.best_epoch, resumed.test_accuracy) == (whole.best_epoch, whole.test_accuracy)
        again = _train(teacher=teacher, out=out, resume=True)  # a finished run stays as it is
        assert _equal(_weights(again), _weights(whole))


@pytest.mark.slow
def test_a_killed_process_goes_on(tmp_path):
    program = f"""
import sys; sys.path.insert(0, {str(__file__.rpartition("/")[0])!r})
from test_learner import *
train(NET, BARS, dataclasses.replace(FULL, epochs=60), out={str(tmp_path)!r}, progress=False, resume=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 120
    try:
        while not (tmp_path / "train.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    recipe = dataclasses.replace(FULL, epochs=60)
    resumed = _train(recipe, out=tmp_path, resume=True)
    assert _equal(_weights(resumed), _weights(_train(recipe)))
    assert len((tmp_path / "train.log").read_text().splitlines()) == 61


WIDER = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,8,2,8,1)", (3, 8, 8), num_classes=2)
PATIENT = dataclasses.replace(FULL, patience=1)

CHANGES = {
    "flip": ({"recipe": dataclasses.replace(FULL, flip=False)}, "flip: True in the run, False asked for"),
    "mixup": ({"recipe": dataclasses.replace(FULL, mixup=0.3)}, r"mixup: 0\.2 in the run, 0\.3 asked for"),
    "epochs": ({"recipe": dataclasses.replace(FULL, epochs=5)}, "epochs: 4 in the run, 5 asked for"),
    "seed": ({"seed": 1}, "seed: 0 in the run, 1 asked for"),
    "threads": ({"threads": 2}, "torch threads: 1 in the run, 2 asked for"),
    "architecture": (
        {"model": WIDER},
        r"block 1: 'SuperConv\(out_channels=8, .* in the run, 'SuperConv\(out_channels=16,",
    ),
    "weights": ({"model": build(NET, seed=3)}, "starting weights: '"),
    "teacher": ({"teacher": build(NET, seed=3)}, "teacher: None in the run, '"),
    "images": ({"data": dataclasses.replace(BARS, train_images=BARS.train_images / 2)}, "train images: '"),
    "labels": ({"data": dataclasses.replace(BARS, train_labels=1 - BARS.train_labels)}, "train labels: '"),
    "test images": ({"data": dataclasses.replace(BARS, test_images=BARS.test_images / 2)}, "test images: '"),
    "name": ({"data": dataclasses.replace(BARS, name="rods")}, "data: 'bars' in the run, 'rods' asked for"),
    "classes": (
        {"data": dataclasses.replace(BARS, class_names=("a", "b"))},
        r"class names: \['row', 'column'\] in the",
    ),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of a finished run, one that stopped early, and one that died in its third epoch."""
    folder = tmp_path_factory.mktemp("runs")
    _train(out=folder / "finished")
    with pytest.MonkeyPatch.context() as patch:
        falling = iter((0.9, 0.8))
        patch.setattr(learner, "accuracy", lambda *_: next(falling))
        assert _train(PATIENT, out=folder / "early").epochs == 2
    with pytest.MonkeyPatch.context() as patch:
        _die_after(patch, 2)
        with pytest.raises(_Died):
            _train(out=folder / "died")
    return folder


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_is_not_resumed_with_other_settings(runs, change):
    given, message = CHANGES[change]
    for name in ("finished", "died"):
        before = {file: file.read_bytes() for file in (runs / name).iterdir()}
        with pytest.raises(SettingsChangedError, match=message) as caught:
            _train(out=runs / name, resume=True, **given)
        assert str(caught.value).count("\n") == 0
        assert f"{runs / name} was begun with other settings" in str(caught.value)
        assert "force in place of resume" in str(caught.value)
        assert {file: file.read_bytes() for file in (runs / name).iterdir()} == before


def test_a_run_that_stopped_early_is_not_resumed_with_other_settings_but_with_its_own(runs):
    early = runs / "early"
    with pytest.raises(SettingsChangedError, match="flip: True in the run, False asked for"):
        _train(dataclasses.replace(PATIENT, flip=False), out=early, resume=True)
    assert _train(PATIENT, out=early, resume=True).epochs == 2


def test_of_many_differences_some_are_named(runs):
    other = Recipe(epochs=9, batch_size=4, flip=False)
    with pytest.raises(SettingsChangedError, match=r"asked for; and \d+ more\. Give the run's settings"):
        _train(other, out=runs / "finished", resume=True, seed=7)


def test_a_run_whose_state_is_lost_or_damaged_is_not_replaced_on_resume(tmp_path):
    _train(out=tmp_path)
    (tmp_path / "state.pt").write_bytes(b"nonsense")
    with pytest.raises(FileFormatError, match=r"state\.pt is damaged"):
        _train(out=tmp_path, resume=True)
    (tmp_path / "state.pt").unlink()
    before = (tmp_path / "best.safetensors").read_bytes()
    with pytest.raises(
        OutputExistsError, match=r"holds a run \(best\.safetensors, last\.safetensors, train\.json\) without state\.pt"
    ):
        _train(out=tmp_path, resume=True)
    assert (tmp_path / "best.safetensors").read_bytes() == before
    with pytest.raises(RunOptionsError, match="give one of them"):
        _train(out=tmp_path, resume=True, force=True)


def test_what_was_not_written_before_a_run_died_is_written_on_resume(tmp_path):
    """The state comes first, so a process may die between it and the others."""
    whole = _train(out=tmp_path)
    for name in ("best.safetensors", "last.safetensors", "train.log", "train.json"):
        (tmp_path / name).unlink()
    again = _train(out=tmp_path, resume=True)
    assert _equal(dict(load(tmp_path / "best.safetensors").state_dict()), _weights(whole))
    assert read_weights((tmp_path / "last.safetensors").read_bytes())[1]["epoch"] == FULL.epochs
    assert len((tmp_path / "train.log").read_text().splitlines()) == FULL.epochs + 1
    assert json.loads((tmp_path / "train.json").read_text())["test_accuracy"] == again.test_accuracy


def test_a_run_of_a_release_with_other_files_of_weights_goes_on_to_the_same_end(tmp_path, monkeypatch):
    whole = _train(out=tmp_path / "whole")
    _die_after(monkeypatch, 1)
    with pytest.raises(_Died):
        _train(out=tmp_path)
    monkeypatch.undo()
    for name in ("best", "last"):
        file = tmp_path / f"{name}.safetensors"
        tensors, about = read_weights(file.read_bytes())
        torch.save({**about, "state_dict": tensors}, file.with_suffix(".pt"))
        file.unlink()
    assert _equal(_weights(_train(out=tmp_path, resume=True)), _weights(whole))
    assert [file.name for file in tmp_path.glob("*.pt")] == ["state.pt"]
    assert _equal(dict(load(tmp_path).state_dict()), _weights(whole))


def test_force_leaves_nothing_of_the_run_it_replaces(tmp_path, monkeypatch):
    _train(out=tmp_path)
    _die_after(monkeypatch, 0)
    with pytest.raises(_Died):
        _train(out=tmp_path, force=True)
    assert [file.name for file in tmp_path.iterdir() if file.suffix in (".pt", ".safetensors")] == []


def test_resume_begins_a_run_where_there_is_none(tmp_path):
    assert _equal(_weights(_train(out=tmp_path / "new", resume=True)), _weights(_train()))
    with pytest.raises(RunOptionsError, match="resume=True needs out"):
        _train(resume=True)


def test_eight_bit_images_train_like_their_floats():
    recipe = Recipe(epochs=2, batch_size=16)
    small, large = _train(recipe, data=_data(torch.uint8)), _train(recipe)
    torch.testing.assert_close(small.network.mean, large.network.mean)
    torch.testing.assert_close(small.network.std, large.network.std)
    assert [r.train_loss for r in small.history] == pytest.approx([r.train_loss for r in large.history], rel=1e-3)


def test_patience_stops_when_nothing_gets_better(monkeypatch):
    values = iter([0.5, 0.7, 0.6, 0.6, 0.9, 0.9])
    monkeypatch.setattr(learner, "accuracy", lambda *_: next(values))
    result = _train(Recipe(epochs=6, batch_size=16, patience=2))
    assert (result.epochs, result.best_epoch, result.state) == (4, 2, "done")


def test_the_moving_average_is_what_is_kept():
    recipe = dataclasses.replace(FULL, epochs=1, validation_fraction=0.0)
    plain = _train(dataclasses.replace(recipe, ema_decay=0.0))
    averaged = _train(recipe)
    assert plain.history[0].train_loss == averaged.history[0].train_loss
    assert not _equal(_weights(plain), _weights(averaged))


def test_moving_average_by_hand():
    line = nn.Linear(1, 1, bias=False)
    line.weight.data.fill_(1.0)
    average, expected = MovingAverage(line, 0.2), 1.0
    for step, value in enumerate((3.0, -1.0, 5.0)):
        line.weight.data.fill_(value)
        average.update()
        decay = min(0.2, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert average.module.weight.item() == pytest.approx(expected)


def test_mixup_mixes_images_and_targets_by_one_share():
    images, targets = torch.arange(4.0).view(4, 1, 1, 1), torch.eye(4)
    mixed, classes = mixup(images, targets, 0.5, torch.Generator().manual_seed(3))
    torch.testing.assert_close(mixed.flatten(), (classes * torch.arange(4.0)).sum(1))
    assert mixup(images, targets, 0, torch.Generator())[0] is images
    assert not torch.equal(mixed, images)


def test_kornia_is_asked_only_when_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    images = torch.rand(2, 3, 8, 8)
    assert kornia_augmentation(None, 0)(images) is images
    with pytest.raises(MissingExtraError, match=r"kornia.*zeroshot-nas\[data\]"):
        kornia_augmentation(None, 0.5)


def test_kornia_erases_and_augments():
    images = torch.full((16, 3, 8, 8), 0.5)
    erased = kornia_augmentation(None, 1.0)(images)
    assert ((erased == 0).flatten(1).float().mean(1) > 0.01).all()
    torch.manual_seed(0)
    changed = kornia_augmentation("cifar10", 0)(torch.rand(16, 3, 8, 8))
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_gradients_are_clipped(monkeypatch):
    norms = []
    original = nn.utils.clip_grad_norm_
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda p, m: norms.append((original(p, m), m)))
    _train(Recipe(epochs=1, batch_size=16, gradient_clip=0.3))
    assert norms
    assert {limit for _, limit in norms} == {0.3}


def test_residual_branches_start_at_zero():
    network = build(NET)
    learner.zero_init_residual(network)
    (residual,) = (part for part in network.modules() if isinstance(part, Residual))
    assert residual.body[-1].weight.abs().sum() == 0
    assert residual.body[1].weight.abs().sum() > 0


@pytest.mark.filterwarnings("ignore::zeroshot_nas.errors.PrecisionWarning")
@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
def test_precisions_train(precision):
    assert _train(Recipe(epochs=2, batch_size=16, precision=precision)).test_accuracy >= 0.4


class _Foreign(nn.Module):
    """A teacher that is none of ours and knows rows from columns."""

    def __init__(self, classes=2):
        super().__init__()
        self.body = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.head = nn.Linear(5, classes)

    def forward(self, images):
        row = images[:, :, 3].mean((1, 2)) - images[:, :, :, 3].mean((1, 2))
        return torch.stack([20 * row, -20 * row], 1) + 0 * self.head(self.body(images).mean((2, 3)))[:, :1]


@pytest.mark.slow
def test_a_student_learns_from_a_teacher_alone():
    """The labels say nothing; the teacher tells the classes."""
    nothing = dataclasses.replace(BARS, train_labels=torch.arange(30) // 2 % 2)
    recipe = Recipe(epochs=20, batch_size=8, distill_logits=20.0, validation_fraction=0.0, shift=0)
    taught, untaught = _train(recipe, data=nothing, teacher=_Foreign()), _train(recipe, data=nothing)
    assert taught.test_accuracy > 0.9
    assert untaught.test_accuracy < 0.8


def test_projections_start_at_zero_and_are_trained(tmp_path):
    network = trainer._starting_network(NET, BARS, Recipe(), 0, None)
    images = BARS.train_images[:8]
    distillation = Distillation(_Foreign(), network, images, 2, 1.0, 1.0)
    assert [tuple(each.weight.shape[:2]) for each in distillation.projections] == [(5, 8)]
    logits = network(images)
    loss = distillation(images, logits)
    loss.backward()
    assert distillation.projections[0].weight.abs().sum() == 0
    assert distillation.projections[0].weight.grad.abs().sum() > 0
    target = _Foreign().requires_grad_(False)(images).softmax(1)
    features = nn.functional.smooth_l1_loss(torch.zeros(8, 5, 4, 4), distillation._taps[0][1].output)
    expected = -(target * logits.log_softmax(1)).sum(1).mean() + features
    torch.testing.assert_close(loss, expected)


def test_a_finished_run_teaches(tmp_path):
    _train(Recipe(epochs=3, batch_size=16), out=tmp_path)
    weights = _weights(_train(Recipe(epochs=1, batch_size=16), teacher=tmp_path))
    assert _equal(weights, _weights(_train(Recipe(epochs=1, batch_size=16), teacher=load(tmp_path))))


@pytest.mark.parametrize(
    ("teacher", "message"),
    [(_Foreign(3), "the teacher"), (nn.Conv2d(1, 2, 3), "does not take images"), (nn.Flatten(), r"logits \(N, 2\)")],
)
def test_a_teacher_that_does_not_fit_is_refused(teacher, message):
    if isinstance(teacher, _Foreign):
        teacher = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(DataError, match=message):
        _train(teacher=teacher)


def test_recipes_by_name():
    assert get_recipe("zennas", epochs=5, mixup=0.1) == dataclasses.replace(RECIPES["zennas"], epochs=5, mixup=0.1)
    assert get_recipe(FULL) is not None
    with pytest.raises(UnknownNameError, match="Did you mean 'zennas'"):
        get_recipe("zenas")
    with pytest.raises(RecipeError, match="Did you mean 'mixup'"):
        get_recipe("quick", mixups=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("mixup", -1), ("random_erasing", 1.5), ("auto_augment", "coco"), ("ema_decay", 1), ("gradient_clip", -1)),
        *(("precision", "float16"), ("patience", -1), ("zero_init_residual", 1), ("distill_logits", "a")),
    ],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(RecipeError, match=name):
        Recipe(**{name: value})


def test_patience_needs_a_validation_part():
    with pytest.raises(RecipeError, match="patience must be 0 without a validation part"):
        Recipe(patience=2, validation_fraction=0.0)
