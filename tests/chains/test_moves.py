"""Moves of many networks: each is what it is alone, and how many are asked for at a time does not matter."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.core.seeding import uniform
from zeroshot_nas.searchers.base import SEARCHERS
from zeroshot_nas.searchers.pool import joined

SPACES = [name for name in zs.list_spaces() if name != "transnas_macro"]


def space_of(name):
    return zs.get_space(name, input_size=(3, 32, 32))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(SPACES), st.integers(0, 10**6), st.integers(1, 5))
def test_many_samples_are_so_many_samples(name, seed, count):
    space, one, many = space_of(name), random.Random(seed), random.Random(seed)
    assert list(space.sample_all(many, count)) == [space.sample(one) for _ in range(count)]
    assert one.random() == many.random()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(SPACES), st.integers(0, 10**6), st.lists(st.integers(1, 3), min_size=2, max_size=6))
def test_a_mutant_is_its_parents_and_its_seeds(name, seed, mutations):
    space, rng = space_of(name), random.Random(seed)
    parents = [space.sample(rng) for _ in mutations]
    seeds = [rng.getrandbits(64) for _ in mutations]
    together = list(space.mutate_all(parents, seeds, mutations))
    each = zip(parents, seeds, mutations, strict=True)
    alone = [space.mutate_all([parent], [own], [count])[0] for parent, own, count in each]
    assert together == alone
    assert all(mutant in space for mutant in together)
    first, rest = (
        space.mutate_all(parents[:1], seeds[:1], mutations[:1]),
        space.mutate_all(parents[1:], seeds[1:], mutations[1:]),
    )
    assert list(joined(first, rest)) == together


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["regularized_evolution", "evolution", "random", "nsga2"]),
    st.sampled_from(["resnet", "vanilla", "nasbench201"]),
    st.integers(0, 10**6),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
)
def test_how_many_are_asked_for_at_a_time_does_not_matter(strategy, name, seed, sizes):
    space = space_of(name)
    one, many = (SEARCHERS[strategy](space, random.Random(seed), space.initial()) for _ in range(2))
    asked = [network for size in sizes for network in one.ask(size)]
    assert list(many.ask(sum(sizes))) == asked


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5), st.integers(0, 9), st.integers(1, 9))
def test_streams_are_their_seeds(seeds, start, count):
    numbers = uniform(seeds, start, count)
    assert numbers.shape == (len(seeds), count)
    assert ((numbers >= 0) & (numbers < 1)).all()
    for row, seed in zip(numbers, seeds, strict=True):
        assert row.tolist() == [uniform([seed], start + place, 1)[0, 0] for place in range(count)]


def test_streams_are_even():
    numbers = uniform(range(20_000), 0, 20)
    assert numbers.mean() == pytest.approx(0.5, abs=0.005)
    assert numbers.var() == pytest.approx(1 / 12, abs=0.002)
    assert abs((numbers[:, 0] * numbers[:, 1]).mean() - 0.25) < 0.005
