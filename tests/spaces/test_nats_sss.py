"""NATS-Bench's size space: widths, their notations, and the network that they give."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.counting import counted
from zeroshot_nas import Architecture, get_space
from zeroshot_nas.blocks.cells import BEST_CIFAR100
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError, UnknownNameError
from zeroshot_nas.testing import check_space

SPACE = get_space("nats_sss")
WIDTHS = st.tuples(*[st.integers(1, 8).map(lambda eighths: 8 * eighths)] * 5)


def text_of(widths):
    return ":".join(map(str, widths))


def expected_params(widths, classes):
    """By hand: 3x3 convolutions and batch norms of stem, cells and reductions, and what a change of width adds."""

    def cell(before, after):
        skip = 0 if before == after else before * after + 2 * after
        return 2 * 9 * before * after + 3 * 9 * after**2 + 5 * 2 * after + skip

    def reduction(before, after):
        return 9 * before * after + 9 * after**2 + 2 * 2 * after + before * after

    a, b, c, d, e = widths
    body = cell(a, a) + reduction(a, b) + cell(b, c) + reduction(c, d) + cell(d, e)
    return 27 * a + 2 * a + body + 2 * e + (e + 1) * classes


@given(WIDTHS)
def test_the_network_is_the_one_of_the_widths(widths):
    network = SPACE.from_string(text_of(widths))
    assert complexity(network).params == expected_params(widths, 10)
    assert SPACE.to_string(network) == text_of(widths) == SPACE.canonical(network)
    assert Architecture.from_json(network.to_json()) == network
    assert network.feature_shape == (widths[-1], 8, 8)


def test_the_built_networks_count():
    network = get_space("nats_sss", input_size=(3, 16, 16), num_classes=120).from_string("8:16:24:32:40")
    costs = complexity(network)
    assert counted(network) == (costs.params, costs.flops, costs.activations)
    assert costs.params == expected_params((8, 16, 24, 32, 40), 120)


def test_five_cells_of_the_benchmarks_widths_are_the_topology_spaces_network():
    sizes = get_space("nats_sss", num_cells=5)
    assert sizes.initial() == sizes.from_string("16:32:32:64:64")
    assert sizes.initial() == get_space("nasbench201").from_string(BEST_CIFAR100)


def test_the_index_is_the_order_of_the_strings():
    steps = [str(width) for width in range(8, 65, 8)]
    names = list(map(":".join, itertools.product(steps, repeat=5)))
    assert len(names) == SPACE.size() == 32_768
    for index in (0, 1, 8, 668, 4095, 20_001, 32_767):
        network = SPACE.from_string(names[index])
        assert SPACE.to_string(network, "index") == str(index)
        assert SPACE.from_string(str(index), notation="index") == network


@given(seed=st.integers(0, 2**32), mutations=st.integers(0, 4))
def test_moves(seed, mutations):
    rng = python_rng(seed)
    a, b = SPACE.sample(rng), SPACE.sample(rng)
    assert a in SPACE
    mutant, child = SPACE.mutate(a, rng, mutations), SPACE.crossover(a, b, rng)
    changed = sum(x != y for x, y in zip(SPACE.genotype(mutant), SPACE.genotype(a), strict=True))
    assert min(mutations, 1) <= changed <= mutations
    assert all(z in (x, y) for x, y, z in zip(*map(SPACE.genotype, (a, b, child)), strict=True))


def test_the_smallest_is_the_smallest():
    """Among all networks of the three least widths."""
    names = map(":".join, itertools.product(("8", "16", "24"), repeat=5))
    costs = [complexity(SPACE.from_string(name)) for name in names]
    for name in ("params", "flops", "layers", "activations"):
        assert min(getattr(each, name) for each in costs) == getattr(complexity(SPACE.smallest(name)), name)


def test_size_and_options():
    assert SPACE.size(9) == 32_768
    assert SPACE.size(SPACE.initial().layers - 1) == 0
    space = get_space("nats_sss", num_cells=2, input_size=(1, 10, 7), num_classes=3)
    check_space(space, samples=3)
    assert SPACE.initial() not in space
    assert get_space("resnet").initial() not in SPACE
    assert get_space("nasbench201").initial() not in SPACE
    assert "8:8:8:8:8" not in SPACE


@pytest.mark.parametrize(
    ("text", "code", "match"),
    [
        ("8:16:24:32", None, "expected five widths as in 8:16:24:32:40, got 4"),
        ("8:16:20:32:40", None, "position 5: the width of stage 2 must be one of 8, 16, .*, got '20'"),
        ("8:16:24:32:", None, "position 11: the width of stage 3"),
        ("8:16:24:32:72", "widths", "got '72'"),
        ("8: 16:24:32:40", None, "position 2: the width of reduction 1"),
        ("32768", "index", "0 to 32767, got '32768'"),
        ("x", "index", "0 to 32767"),
    ],
)
def test_malformed_strings_are_refused(text, code, match):
    with pytest.raises(ArchitectureError, match=match):
        SPACE.from_string(text, notation=code)


def test_unknown_notations_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'widths'"):
        SPACE.from_string("8:8:8:8:8", notation="width")
    with pytest.raises(UnknownNameError, match="unknown notation"):
        SPACE.to_string(SPACE.initial(), "arch_code")
    with pytest.raises(ArchitectureError, match="not in the space 'nats_sss'"):
        SPACE.to_string(get_space("nasbench201").initial())
