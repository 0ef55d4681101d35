"""NAS-Bench-Macro: parameters and FLOPs against the benchmark's table, the digits, the moves."""

import csv
import gzip
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.counting import counted
from tests.spaces.test_nasbench201 import samples
from zeroshot_nas import Architecture, get_space
from zeroshot_nas.architecture.ops import Activation, BatchNorm, Conv, Repeat, Residual
from zeroshot_nas.blocks.mobilenet_v2 import MobileNetV2, Shortcut
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.testing import check_space

TABLE = Path(__file__).parent.parent.parent / "../shared/data/nasbench/nbmacro_results.csv.gz"
"""The whole table, where it stands beside the checkout."""

SPACE = get_space("nasbench_macro")
DIGITS = st.text("012", min_size=8, max_size=8)
RELU = Activation()


def test_parameters_and_flops_are_the_tables():
    for row in samples("nasbench_macro"):
        costs = complexity(SPACE.from_string(row["arch"]))
        assert (costs.params, costs.flops) == (row["params"], row["flops"]), row["arch"]


@pytest.mark.skipif(not TABLE.exists(), reason="the whole table is not beside the checkout")
def test_the_whole_table():
    with gzip.open(TABLE, "rt") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        costs = complexity(SPACE.from_string(row["arch"]))
        assert (costs.params, costs.flops) == (int(row["params"]), int(row["flops"])), row["arch"]
    assert len(rows) == SPACE.size() == 6561


@pytest.mark.parametrize("digits", ["00000000", "12012100", "22222222"])
def test_the_built_networks_count(digits):
    network = SPACE.from_string(digits)
    costs = complexity(network)
    assert counted(network) == (costs.params, costs.flops, costs.activations)


def test_blocks():
    body = (
        *(Conv(4, 12, 1), BatchNorm(12), RELU),
        *(Conv(12, 12, 5, 2, groups=12), BatchNorm(12), RELU),
        *(Conv(12, 8, 1), BatchNorm(8)),
    )
    assert MobileNetV2(8, stride=2, expansion=3, kernel_size=5).lower(4) == body
    (link,) = MobileNetV2(4, expansion=6).lower(4)
    assert isinstance(link, Residual)
    assert link.shortcut == ()
    assert link.body[0] == Conv(4, 24, 1)
    assert Shortcut(8, stride=2).lower(4) == (Conv(4, 8, 1, 2), BatchNorm(8))
    assert Shortcut(4, sub_layers=3).lower(4) == (Repeat((), 2),)


@given(DIGITS)
def test_strings_round_trip(digits):
    network = SPACE.from_string(digits)
    assert SPACE.to_string(network) == digits
    assert Architecture.from_json(network.to_json()) == network
    assert network in SPACE


@given(DIGITS)
def test_networks_of_one_key_cost_the_same(digits):
    """The key is a network of its own, with the identities moved; params and FLOPs are those of the blocks left."""
    network = SPACE.from_string(digits)
    key = SPACE.canonical(network)
    same = SPACE.from_string(key)
    assert SPACE.canonical(same) == key
    assert complexity(same) == complexity(network)
    blocks = [
        [block for block in each.blocks if (block.stride, type(block)) != (1, Shortcut)] for each in (network, same)
    ]
    assert blocks[0] == blocks[1]


@pytest.mark.slow
def test_3969_networks_are_unique():
    texts = map("".join, itertools.product("012", repeat=8))
    assert len({SPACE.canonical(SPACE.from_string(text)) for text in texts}) == 9 * 21 * 21 == 3969


@given(seed=st.integers(0, 2**32), mutations=st.integers(0, 4))
def test_moves(seed, mutations):
    rng = python_rng(seed)
    a, b = SPACE.sample(rng), SPACE.sample(rng)
    mutant, child = SPACE.mutate(a, rng, mutations), SPACE.crossover(a, b, rng)
    assert {a, mutant, child} == {each for each in (a, mutant, child) if each in SPACE}
    assert sum(x != y for x, y in zip(mutant.blocks, a.blocks, strict=True)) <= mutations
    assert all(z in (x, y) for x, y, z in zip(a.blocks, b.blocks, child.blocks, strict=True))


def test_the_smallest_is_the_smallest():
    some = ["".join(each) for each in itertools.product("012", repeat=8)][::7]
    costs = [complexity(SPACE.from_string(text)) for text in some]
    for name in ("params", "flops", "layers", "activations"):
        smallest = SPACE.smallest(name)
        assert SPACE.to_string(smallest) == "00000000"
        assert min(getattr(each, name) for each in costs) >= getattr(complexity(smallest), name)


def test_size_and_other_inputs():
    assert SPACE.size(10) == 6561
    assert SPACE.size(9) == 0
    space = get_space("nasbench_macro", input_size=(1, 9, 14), num_classes=3)
    check_space(space, samples=3)
    assert SPACE.initial() not in space
    assert get_space("mobilenet").initial() not in SPACE


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("0201210", "expected 8 digits, got 7 characters"),
        ("02013100", "malformed architecture '02013100': position 4 holds '3', expected one of 012"),
        ("02012 10", "position 5 holds ' '"),
        ("0" * 1_000_000, "got 1000000 characters"),
    ],
)
def test_malformed_strings_are_refused(text, match):
    with pytest.raises(ArchitectureError, match=match):
        SPACE.from_string(text)
