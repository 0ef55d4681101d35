"""What is remembered of blocks is what they come to, whatever else was asked for before and stands beside them."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.chains import memo
from zeroshot_nas.chains.coding import Chains, mixed
from zeroshot_nas.chains.lowering import LOWERING
from zeroshot_nas.chains.memo import BlockMemo


def chains(name, seed, count, **options):
    space = zs.get_space(name, **options)
    return Chains.of([space.sample(random.Random(1000 * seed + place)) for place in range(count)])


def facts(blocks):
    """Whatever may tell two blocks apart."""
    columns = (blocks.code, blocks.channels[:, 0], *blocks.sides, blocks.is_first, blocks.sub_layers)
    return np.stack([np.asarray(column, float) for column in columns], axis=1)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["resnet", "vanilla", "inverted", "mobilenet"]), st.integers(0, 5)), max_size=8)
)
def test_the_same_whatever_was_before(asked):
    remembered = BlockMemo(facts)
    for name, seed in asked:
        blocks = LOWERING.blocks(chains(name, seed, 1 + seed))
        np.testing.assert_array_equal(remembered.rows(blocks), facts(blocks))


def test_in_few_slots(monkeypatch):
    """Blocks that fight for a slot take turns in it."""
    monkeypatch.setattr(memo, "SLOTS_LOG2", 2)
    monkeypatch.setattr(memo, "_SHIFT", np.uint64(62))
    remembered = BlockMemo(facts)
    for seed in (0, 1, 0, 2, 1, 0):
        blocks = LOWERING.blocks(chains("vanilla", seed, 9))
        np.testing.assert_array_equal(remembered.rows(blocks), facts(blocks))


def test_what_is_known_is_not_worked_out_again():
    worked_out = []
    remembered = BlockMemo(lambda blocks: (worked_out.append(len(blocks)), facts(blocks))[1])
    one, more = chains("resnet", 1, 5), chains("resnet", 1, 6)  # the first five are the same
    remembered.rows(LOWERING.blocks(one))
    first = sum(worked_out)
    assert first == len(np.unique(facts(LOWERING.blocks(one)), axis=0))
    remembered.rows(LOWERING.blocks(one))
    assert sum(worked_out) == first
    remembered.rows(LOWERING.blocks(more))
    assert sum(worked_out) == len(np.unique(facts(LOWERING.blocks(more)), axis=0))


@pytest.mark.parametrize("sides", [(32, 32), (32, 31), (16, 64)])
def test_another_resolution_is_another_place(sides):
    remembered = BlockMemo(facts)
    for size in ((3, 32, 32), (3, *sides)):
        blocks = LOWERING.blocks(chains("resnet", 3, 4, input_size=size))
        np.testing.assert_array_equal(remembered.rows(blocks), facts(blocks))


def test_networks_of_several_resolutions():
    space = zs.get_space("vanilla", resolutions=(20, 28, 32))
    blocks = LOWERING.blocks(Chains.of([space.sample(random.Random(seed)) for seed in range(12)]))
    assert len({*blocks.sides[0].tolist()}) > 3
    np.testing.assert_array_equal(BlockMemo(facts).rows(blocks), facts(blocks))


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=50))
def test_no_two_numbers_become_the_same(values):
    assert len({*mixed(np.array(values, np.uint64)).tolist()}) == len(values)
