"""Chains as numbers: what is written comes back, alone and in company."""

import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.architecture.blockspec import BLOCKS
from zeroshot_nas.chains.coding import Chains, decoded, encoded, field_of, has_code, with_field
from zeroshot_nas.chains.editing import inserted, removed

CHAINS = ["resnet", "mobilenet", "vanilla", "inverted", "nasbench_macro"]
ROWS = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=6), min_size=1, max_size=5)


def networks(name: str, seed: int, count: int, size=(3, 32, 32), **options) -> list[zs.Architecture]:
    space, rng = zs.get_space(name, input_size=size, **options), random.Random(seed)
    return [space.sample(rng) for _ in range(count)]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(CHAINS), st.integers(0, 10**6), st.integers(1, 6))
def test_networks_come_back(name, seed, count):
    made = networks(name, seed, count)
    chains = Chains.of(made)
    assert list(chains) == made
    assert list(chains[1:]) == made[1:]
    assert list(pickle.loads(pickle.dumps(chains))) == made
    assert chains.layers.tolist() == [network.layers for network in made]
    assert list(chains.joined(Chains.of(made[:1]))) == [*made, made[0]]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(CHAINS), st.integers(0, 10**6), st.integers(2, 6))
def test_digests_tell_networks_apart_and_no_more(name, seed, count):
    made = networks(name, seed, count)
    together = Chains.of(made).digests.tolist()
    assert together == [Chains.of([network]).digests[0] for network in made]
    assert len(set(together)) == len(set(made))


@given(st.integers(1, 65_535), st.integers(1, 65_535), st.integers(1, 4), st.integers(1, 900), st.booleans())
def test_fields_of_a_block(out, bottleneck, stride, sub_layers, gate):
    block = BLOCKS["SuperResK3K3"](
        out_channels=out, bottleneck_channels=bottleneck, stride=stride, sub_layers=sub_layers, squeeze_excite=gate
    )
    code = encoded(block)
    assert decoded(code) == block
    codes = np.array([code])
    assert field_of(codes, "out_channels") == out
    assert decoded(int(with_field(codes, "stride", 1)[0])).stride == 1


@pytest.mark.parametrize("name", zs.list_blocks())
def test_every_block_has_a_code_or_none(name):
    fields = BLOCKS[name].free_fields
    if not set(fields) <= {"out_channels", "bottleneck_channels", "stride", "sub_layers", "squeeze_excite"}:
        pytest.skip("its other fields have no usual value")
    block = BLOCKS[name](out_channels=16)
    assert decoded(encoded(block)) == block
    assert encoded(BLOCKS[name](out_channels=70_000)) is None


def test_cells_have_none():
    space = zs.get_space("nasbench201")
    assert not has_code(space.initial())


@given(ROWS, st.data())
def test_a_block_more_and_a_block_less(rows, data):
    width = max(map(len, rows))
    codes = np.array([row + [0] * (width - len(row)) for row in rows])
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True))
    places = [data.draw(st.integers(0, len(rows[row]))) for row in chosen]
    more = inserted(codes.copy(), np.array(chosen, int), np.array(places, int), np.full(len(chosen), 100))
    for row, place in zip(chosen, places, strict=True):
        rows[row].insert(place, 100)
    assert [list(filter(None, row)) for row in more.tolist()] == rows
    less = removed(more.copy(), np.array(chosen, int), np.array(places, int))
    assert less[:, :width].tolist() == codes.tolist()
