"""Augmentation against slow references that treat one image at a time."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas.training.augment import random_flip, random_shift


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def _images(count, channels, height, width):
    return torch.rand(count, channels, height, width, generator=_generator(9)) + 0.1  # no zeros: they are the padding


def _shifted(image, down, right):
    """One image moved by whole pixels, zeros moving in."""
    _, height, width = image.shape

    def pixel(channel, row, column):
        inside = 0 <= row - down < height and 0 <= column - right < width
        return channel[row - down][column - right] if inside else 0.0

    return torch.tensor(
        [[[pixel(each, row, column) for column in range(width)] for row in range(height)] for each in image.tolist()]
    )


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    pixels=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_shift_is_that_of_each_image_on_its_own(shape, pixels, seed):
    images = _images(*shape)
    result = random_shift(images, pixels, _generator(seed))
    corners = torch.randint(0, 2 * pixels + 1, (2, shape[0], 1), generator=_generator(seed))
    for index, image in enumerate(images):
        down, right = (pixels - int(corners[axis, index, 0]) for axis in (0, 1))
        assert torch.equal(result[index], _shifted(image, down, right))


def test_shifts_reach_every_place_and_differ_between_images():
    image = torch.zeros(1, 1, 5, 5)
    image[..., 2, 2] = 1
    places = random_shift(image.repeat(2000, 1, 1, 1), 2, _generator(0)).flatten(1).argmax(1)
    counts = places.bincount(minlength=25)
    assert counts.min() > 40  # 80 expected, deviation 9
    assert counts.max() < 120


def test_no_shift_changes_nothing_and_draws_nothing():
    images, generator = _images(2, 1, 3, 3), _generator(0)
    assert random_shift(images, 0, generator) is images
    assert torch.equal(generator.get_state(), _generator(0).get_state())


@given(seed=st.integers(0, 1000))
def test_flip_mirrors_some_images_and_leaves_the_others(seed):
    images = _images(6, 2, 3, 4)
    flipped = random_flip(images, _generator(seed))
    mirrored = torch.rand(6, generator=_generator(seed)) < 0.5
    for index, image in enumerate(images):
        assert torch.equal(flipped[index], image.flip(2) if mirrored[index] else image)


def test_half_of_the_images_are_flipped():
    images = torch.tensor([0.0, 1.0]).repeat(2000, 1, 1, 1)
    assert 900 < random_flip(images, _generator(0))[:, 0, 0, 0].sum() < 1100  # deviation 22
