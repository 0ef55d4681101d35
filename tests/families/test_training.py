"""Training of families: who begins with whose weights, resumed as unbroken, files that other commands take."""

import json
from dataclasses import replace

import pytest
import torch

import zeroshot_nas as zs
from zeroshot_nas.errors import ArchitectureError, DataError, FileFormatError, RecipeError, SettingsChangedError
from zeroshot_nas.families import training
from zeroshot_nas.families.training import begun_with, tuning_recipe

pytestmark = pytest.mark.slow

RECIPE = zs.Recipe(epochs=2, batch_size=512, validation_fraction=0.0)


@pytest.fixture(scope="module")
def family():
    budgets = [zs.Budget(params=limit) for limit in (4e3, 2e3, 1e3)]
    how = {"input_size": (1, 8, 8), "proposals": 60, "progress": False}
    return zs.family("vanilla", "ceres", budgets, nested=True, **how)


@pytest.fixture(scope="module")
def free(family):
    """One whose members do not contain one another."""
    return replace(family, members=(family.members[1], family.members[0]))


def train(family, **options):
    return zs.train_family(family, "digits", RECIPE, **{"share": 0.5, "progress": False, **options})


@pytest.mark.parametrize(
    ("way", "begun"),
    [
        ("slice", ["scratch", "sliced from 4k-params", "sliced from 2k-params"]),
        ("grow", ["grown from 2k-params", "grown from 1k-params", "scratch"]),
        ("scratch", ["scratch"] * 3),
    ],
)
def test_every_member_begins_as_its_way_says(family, way, begun, tmp_path):
    trained = train(family, way=way, out=tmp_path / "run")
    assert [each.begun for each in trained.members] == begun
    assert [each.epochs for each in trained.members] == [2 if each == "scratch" else 1 for each in begun]
    for each in trained.members:
        network = zs.load(tmp_path / "run" / "members" / each.name)
        assert network.architecture == family[each.name].architecture
        assert each.params == family[each.name].candidate.costs.params
        assert 0 <= each.accuracy.low <= each.accuracy.value <= each.accuracy.high <= 1
    assert zs.TrainedFamily.from_json((tmp_path / "run" / "trained.json").read_text()) == trained
    assert (tmp_path / "run" / "trained.png").exists()


def test_weights_are_the_neighbours(family):
    large, small = (family.members[place].architecture for place in (0, 1))
    parent = zs.build(large).eval()
    images = torch.rand(4, 1, 8, 8)
    same = zs.shrink(parent, small)(images)
    assert torch.equal(begun_with(parent, small)(images), same)
    child = zs.build(small).eval()
    assert torch.allclose(begun_with(child, large)(images), child(images), atol=1e-4)


class _StoppedError(Exception):
    pass


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("after", [1, 2])
def test_a_resumed_training_is_as_one_that_never_stopped(after, family, tmp_path, monkeypatch):
    whole, done = training.train, []

    def stop(*arguments, **options):
        if len(done) == after:
            raise _StoppedError
        done.append(arguments)
        return whole(*arguments, **options)

    unbroken = train(family, distill=True)
    monkeypatch.setattr(training, "train", stop)
    with pytest.raises(_StoppedError):
        train(family, distill=True, out=tmp_path / "run")
    monkeypatch.undo()
    assert zs.resume(tmp_path / "run", progress=False) == unbroken
    with pytest.raises(SettingsChangedError):
        train(family, out=tmp_path / "run", resume=True, seed=3)


def test_a_family_without_nesting_trains_from_scratch_alone(free):
    with pytest.raises(ArchitectureError, match=r"does not contain .* so that neither can inherit"):
        train(free)
    assert [each.begun for each in train(free, way="scratch").members] == ["scratch"] * 2


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"way": "sideways"}, ValueError, "way must be one of slice, grow, scratch"),
        ({"share": 0}, ValueError, "share must be a number above 0"),
        ({"share": 1.5}, ValueError, "at most 1"),
        ({"share": "half"}, ValueError, "share must be a number"),
        ({"way": "grow", "distill": True}, ValueError, "none can learn from it"),
        ({"executor": "process"}, TypeError, "no option 'executor'"),
    ],
)
def test_what_can_not_be_asked_for_is_refused(family, options, error, says):
    with pytest.raises(error, match=says):
        train(family, **options)


def test_recipes_data_and_folders_that_do_not_suit_are_refused(family, tmp_path):
    with pytest.raises(RecipeError):
        zs.train_family(family, "digits", "qat", progress=False)
    with pytest.raises(FileNotFoundError):
        train(tmp_path)
    (tmp_path / "family.json").write_text("{}")
    with pytest.raises(FileFormatError):
        train(tmp_path)
    with pytest.raises(TypeError, match="expected a Family"):
        train(3)
    budgets = [zs.Budget(params=2e3)]
    other = zs.family("vanilla", "ceres", budgets, input_size=(1, 8, 8), num_classes=3, proposals=20, progress=False)
    with pytest.raises(DataError, match="num_classes=10"):
        train(other)


def test_a_tuning_recipe_has_a_share_of_the_epochs():
    assert tuning_recipe(zs.Recipe(epochs=3), 0.1).epochs == 1
    assert tuning_recipe(zs.Recipe(epochs=3), 1) == zs.Recipe(epochs=3)


def test_results_read_as_tables(family):
    trained = train(family)
    assert trained["2k-params"] is trained.members[1]
    assert "<table>" in trained._repr_html_()
    assert list(trained.to_pandas()["name"]) == [each.name for each in trained.members]
    assert "each for itself would be 6" in dict(trained.rows())["trained"]
    for text in ("{", "{}", json.dumps({**trained.to_dict(), "members": []})):
        with pytest.raises(FileFormatError):
            zs.TrainedFamily.from_json(text)
