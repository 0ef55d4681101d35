"""TransNAS-Bench-101: networks against published counts, the notations, the rule of the macro space."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.counting import counted
from tests.spaces.test_nasbench201 import naslib_flops, samples
from zeroshot_nas import Architecture, get_space
from zeroshot_nas.blocks.cells import NASBench201Cell, PreactivationResidual, cell_expression, cell_text
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError, UnknownNameError
from zeroshot_nas.testing import check_space

MICRO, MACRO = get_space("transnas_micro"), get_space("transnas_macro")
CELLS = st.tuples(*[st.integers(0, 3)] * 6)


@pytest.mark.parametrize("name", ["transnas_micro", "transnas_macro"])
def test_parameters_and_flops_are_naslibs(name):
    """NASLib builds the classifier of scenes with 63 outputs, where the authors' configuration has 47."""
    space = get_space(name, input_size=(3, 256, 256), num_classes=63)
    for row in samples(name):
        network = space.from_string(row["naslib"])
        assert complexity(network).params == row["params"], row["naslib"]
        assert naslib_flops(network) == row["naslib_flops"], row["naslib"]
        assert space.to_string(network, "naslib") == row["naslib"]


@pytest.mark.parametrize(("space", "text"), [(MICRO, "64-41414-1_02_333"), (MACRO, "64-1234-basic")])
def test_the_authors_examples(space, text):
    network = space.from_string(text)
    costs = complexity(network)
    assert space.to_string(network) == text
    assert counted(network) == (costs.params, costs.flops, costs.activations)


def test_skeletons():
    """Two first convolutions of stride 2, then two blocks a module; types 2 and 4 double, 3 and 4 halve."""
    body = MICRO.initial().blocks[2:]
    assert [(block.out_channels, block.stride, block.sub_layers) for block in body] == [
        (128, 2, 2),
        (128, 1, 2),
        (256, 2, 2),
        (256, 1, 2),
        (512, 2, 2),
    ]
    assert all(isinstance(block, NASBench201Cell) for block in body)
    network = get_space("transnas_macro", input_size=(3, 256, 256)).from_string("64-1234-basic")
    assert network.blocks[2:] == tuple(
        PreactivationResidual(width, stride, 2) for width, stride in ((64, 1), (128, 1), (128, 2), (256, 2))
    )
    assert [(block.out_channels, block.stride) for block in network.blocks[:2]] == [(32, 2), (64, 2)]
    assert network.feature_shape == (256, 16, 16)


@given(CELLS)
def test_micro_strings_round_trip(cell):
    network = MICRO.network(cell)
    for code in ("transnas", "naslib"):
        text = MICRO.to_string(network, code)
        assert MICRO.from_string(text) == MICRO.from_string(text, notation=code) == network
    assert MICRO.genotype(network) == cell
    assert Architecture.from_json(network.to_json()) == network
    topology = get_space("nasbench201")
    assert MICRO.canonical(network) == topology.canonical(topology.network(cell))


@given(seed=st.integers(0, 2**32), mutations=st.integers(0, 4))
def test_micro_moves(seed, mutations):
    rng = python_rng(seed)
    a, b = MICRO.sample(rng), MICRO.sample(rng)
    mutant, child = MICRO.mutate(a, rng, mutations), MICRO.crossover(a, b, rng)
    assert all(each in MICRO for each in (a, mutant, child))
    changed = sum(x != y for x, y in zip(MICRO.genotype(mutant), MICRO.genotype(a), strict=True))
    assert min(mutations, 1) <= changed <= mutations


@given(seed=st.integers(0, 2**32), mutations=st.integers(0, 4))
def test_macro_moves(seed, mutations):
    rng = python_rng(seed)
    a, b = MACRO.sample(rng), MACRO.sample(rng)
    mutant, child = MACRO.mutate(a, rng, mutations), MACRO.crossover(a, b, rng)
    assert all(each in MACRO for each in (a, mutant, child))
    for each in (a, mutant, child):
        for code in ("transnas", "naslib"):
            assert MACRO.from_string(MACRO.to_string(each, code)) == each
        assert Architecture.from_json(each.to_json()) == each
    assert abs(len(mutant.blocks) - len(a.blocks)) <= mutations
    if mutations == 1:
        assert mutant != a


def test_the_macro_space_has_the_benchmarks_size():
    def allowed(modules):
        strided, doubled = sum(m in (3, 4) for m in modules), sum(m in (2, 4) for m in modules)
        return 1 <= strided <= 4 and 1 <= doubled <= 3

    counts = {length: sum(map(allowed, itertools.product((1, 2, 3, 4), repeat=length))) for length in range(4, 7)}
    assert MACRO.size() == sum(counts.values()) == 3256
    assert [MACRO.size(layers) for layers in (9, 10, 12, 14)] == [0, counts[4], counts[4] + counts[5], 3256]
    assert MICRO.size() == MICRO.size(12) == 4096
    assert MICRO.size(11) == 0
    assert len({cell_expression(cell) for cell in itertools.product(range(4), repeat=6)}) == 1236


def test_the_smallest_are_the_smallest():
    cells = [complexity(MICRO.network(cell)) for cell in itertools.product(range(4), repeat=6) if sum(cell) < 3]
    rng = python_rng(0)
    skeletons = [complexity(MACRO.sample(rng)) for _ in range(300)]
    for name in ("params", "flops", "layers", "activations"):
        for space, costs in ((MICRO, cells), (MACRO, skeletons)):
            least = getattr(complexity(space.smallest(name)), name)
            assert least <= min(getattr(each, name) for each in costs)
    assert MACRO.to_string(MACRO.smallest("params")) == "64-1114-basic"
    assert len(MACRO.smallest("layers").blocks) == 2 + 4


@pytest.mark.slow
def test_options():
    for name in ("transnas_micro", "transnas_macro"):
        space = get_space(name, input_size=(1, 9, 14), num_classes=3, channels=8)
        check_space(space, samples=3)
        assert get_space(name).initial() not in space
        assert space.to_string(space.initial()).startswith("8-")
        assert get_space("nasbench201").initial() not in space
    pooled = NASBench201Cell(512, 2, 2, cell_text((4, 0, 0, 0, 0, 0)))
    assert Architecture((*MICRO.initial().blocks[:-1], pooled)) not in MICRO


@pytest.mark.parametrize(
    ("space", "text", "match"),
    [
        (MICRO, "64-41414", "malformed name '64-41414': expected channels, skeleton and cell"),
        (MICRO, "32-41414-1_02_333", "the space has 64 channels, the name 32 at position 0"),
        (MICRO, "64-4141-1_02_333", "skeleton of a cell's network is 41414, got '4141'"),
        (MICRO, "64-41414-1_02_33", "malformed cell '1_02_33' at position 9"),
        (MICRO, "64-41414-1_02_334", "position 5 holds '4', expected one of 0123"),
        (MICRO, "64-41414-basic", "at position 9"),
        (MICRO, "(1, 0, 0, 2, 1, 4)", "position 16: expected 0 to 3, got 4"),
        (MACRO, "64-1234-1_02_333", "expected 'basic' at position 8, got '1_02_333'"),
        (MACRO, "64-1254-basic", "malformed skeleton '1254': position 2 holds '5'"),
        (MACRO, "64-123-basic", "'123' is not in the space: it has 3 modules, not 4 to 6"),
        (MACRO, f"64-{'1' * 100_000}-basic", "it has 100,000 modules"),
        (MACRO, "64-1111-basic", "0 modules halve the resolution"),
        (MACRO, "64-333331-basic", r"5 modules halve the resolution \(types 3 and 4\), not 1 to 4"),
        (MACRO, "64-3111-basic", "0 modules double the channels"),
        (MACRO, "64-22242-basic", "5 modules double the channels"),
        (MACRO, "(1, 2, 3, 4, 5, 0)", "module types are 1 to 4"),
        (MACRO, "(1, 2, 3, 0, 4, 0)", "module types are 1 to 4"),
        (MACRO, "()", "expected a whole number"),
    ],
)
def test_malformed_strings_are_refused(space, text, match):
    with pytest.raises(ArchitectureError, match=match):
        space.from_string(text)


@pytest.mark.parametrize("space", [MICRO, MACRO])
def test_unknown_notations_and_foreign_networks_are_refused(space):
    with pytest.raises(UnknownNameError, match="Did you mean 'naslib'"):
        space.from_string("(1, 2, 3, 3, 3, 3)", notation="nas_lib")
    with pytest.raises(UnknownNameError, match="unknown notation"):
        space.to_string(space.initial(), "arch_code")
    with pytest.raises(ArchitectureError, match="not in the space"):
        space.to_string(get_space("resnet").initial())
