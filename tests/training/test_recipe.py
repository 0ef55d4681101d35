"""The recipe's limits, and its learning rate against a computation by hand."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas.errors import RecipeError
from zeroshot_nas.training.recipe import Recipe, get_recipe, list_recipes, recipe_table


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("epochs", [0, -1, 1.5, True, "3", 10**20]),
        ("batch_size", [0, 1, 32.0]),
        ("shift", [-1, 0.5]),
        ("momentum", [-0.1, 1.0, math.nan]),
        ("label_smoothing", [-0.1, 1, None]),
        ("validation_fraction", [-0.1, 1.0]),
        ("learning_rate_per_256", [-1, math.inf, math.nan, "fast", True]),
        ("weight_decay", [-1e-4]),
        ("warmup_epochs", [-1]),
        ("flip", [1, "yes"]),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, values):
    for value in values:
        with pytest.raises(RecipeError, match=rf"^{name} must be .*got {value!r}"):
            Recipe(**{name: value})


def test_learning_rate_against_a_computation_by_hand():
    recipe = Recipe(epochs=5, batch_size=64, learning_rate_per_256=0.4, warmup_epochs=1)
    rates = [recipe.learning_rate(step, steps_per_epoch=2) for step in range(10)]
    cosine = [0.1 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]
    assert rates == pytest.approx([0.05, 0.1, *cosine])
    assert cosine[0] == 0.1  # the peak
    assert cosine[4] == pytest.approx(0.05)  # half of it half-way


@given(
    epochs=st.integers(1, 50),
    steps_per_epoch=st.integers(1, 40),
    warmup_epochs=st.floats(0, 100),
)
def test_learning_rate_rises_to_the_peak_then_falls_and_stays_positive(epochs, steps_per_epoch, warmup_epochs):
    recipe = Recipe(epochs=epochs, warmup_epochs=warmup_epochs)
    rates = [recipe.learning_rate(step, steps_per_epoch) for step in range(epochs * steps_per_epoch)]
    assert max(rates) == pytest.approx(recipe.peak_learning_rate)
    assert min(rates) > 0
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert peak <= len(rates) / 2 + 1


def test_learning_rate_scales_with_the_batch():
    assert Recipe(batch_size=256, learning_rate_per_256=0.1).peak_learning_rate == pytest.approx(0.1)
    assert Recipe(batch_size=512, learning_rate_per_256=0.1).peak_learning_rate == pytest.approx(0.2)


@given(
    recipe=st.builds(
        Recipe,
        epochs=st.integers(1, 1000),
        batch_size=st.integers(2, 4096),
        weight_decay=st.floats(0, 1),
        shift=st.integers(0, 8),
        flip=st.booleans(),
    )
)
def test_recipe_survives_json(recipe):
    assert Recipe(**json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().epochs = 3


def test_the_table_shows_what_every_recipe_holds():
    (corner, *names), *rows = recipe_table()
    assert (corner, names) == ("recipe", list_recipes())
    assert [row[0] for row in rows] == [field.name for field in dataclasses.fields(Recipe)]
    for column, name in enumerate(names, start=1):
        shown = {row[0]: row[column] for row in rows}
        for key, value in get_recipe(name).to_dict().items():
            assert shown[key] == (value if isinstance(value, str) else "none" if value is None else json.dumps(value))


def test_the_recipe_for_photos_mirrors_and_shifts():
    photos, standard = get_recipe("photos"), get_recipe("standard")
    assert dataclasses.replace(photos, flip=False, shift=1, epochs=30) == standard
