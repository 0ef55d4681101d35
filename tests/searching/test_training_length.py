"""A search that is told of the training: a score that asks has its images and steps, and nothing else changes."""

import dataclasses
import math

import pytest
import torch

import zeroshot_nas as zs
from zeroshot_nas.errors import DataError, ProxyError, RecipeError
from zeroshot_nas.searching.training_length import asks_for_length, told

RECIPE = zs.Recipe(epochs=3, batch_size=50, validation_fraction=0.2)
BUDGET = zs.Budget(params=2e4, layers=6)
HOW = {"input_size": (1, 8, 8), "proposals": 60, "finalists": 5, "progress": False}


@pytest.fixture(scope="module")
def images():
    found = zs.load_data("digits", (1, 8, 8))
    return dataclasses.replace(found, train_images=found.train_images[:500], train_labels=found.train_labels[:500])


def search(**arguments):
    return zs.search(budget=BUDGET, **HOW, **arguments)


def test_the_score_is_told_what_the_training_learns_from_and_its_steps(images):
    proxy = told(zs.get_proxy("ceres"), images, RECIPE)
    network = zs.Architecture.from_string("SuperConvK3BNRELU(1,4,2,1)", (1, 8, 8))
    trained = zs.train(network, images, RECIPE, progress=False)
    learned = trained.images["train"]
    assert proxy.options == {"images": learned, "steps": 3 * math.ceil(learned / 50)}
    assert not asks_for_length(proxy)


def test_images_that_hold_some_out_themselves_are_counted_without_these(images):
    held_out = dataclasses.replace(images, held_out=torch.arange(30))
    assert told(zs.get_proxy("ceres"), held_out, RECIPE).options["images"] == 470
    without = dataclasses.replace(RECIPE, validation_fraction=0.0)
    assert told(zs.get_proxy("ceres"), held_out, without).options == {"images": 500, "steps": 30}


def test_a_search_that_is_told_is_the_one_that_says_it(images, tmp_path):
    result = search(data=images, recipe=RECIPE, out=tmp_path)
    key = told(zs.get_proxy("ceres"), images, RECIPE).key
    assert result.best.scores.keys() == {key}
    said = search(proxy=key).best
    assert (result.best.architecture, result.best.fitness) == (said.architecture, said.fitness)
    assert zs.resume(tmp_path, progress=False).best == result.best  # needs no data again
    front = search(data=images, recipe=RECIPE, objectives=("ceres", "flops"))
    assert [each.name for each in front.objectives] == [key, "flops"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"proxy": "cet"}, ProxyError, "cet does not ask how long the winner will be trained, as ceres does"),
        ({"proxy": "ceres:steps=50"}, ProxyError, "ceres:steps=50 says itself how long the training is"),
        ({"num_classes": 3}, DataError, "num_classes=3, but 'digits' has 10.*--classes 10"),
        ({"recipe": "qat"}, RecipeError, "trained"),
    ],
)
def test_data_without_a_use_or_of_another_kind_are_refused_before_anything_is_written(
    images, tmp_path, arguments, error, message
):
    with pytest.raises(error, match=message):
        search(**{"data": images, "out": tmp_path / "run", **arguments})
    assert not (tmp_path / "run").exists()


def test_trials_may_be_ranked_by_a_score_that_does_not_ask(images):
    tried = search(proxy="params", trials=2, data=images, recipe=zs.Recipe(epochs=2, batch_size=250))
    assert tried.trials.winner is not None
    assert tried.best.scores.keys() == {"params"}
