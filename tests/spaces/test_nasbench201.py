"""NAS-Bench-201: the network against the benchmark's tables, the notations of a cell, the moves."""

import csv
import gzip
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas import Architecture, get_space
from zeroshot_nas.architecture.architecture import head
from zeroshot_nas.architecture.blockspec import block_steps
from zeroshot_nas.architecture.ops import (
    Activation,
    BatchNorm,
    Conv,
    Edge,
    GlobalPool,
    Graph,
    Linear,
    Node,
    Op,
    Pool,
    Repeat,
    Residual,
    Zero,
    walk,
)
from zeroshot_nas.blocks.cells import (
    BEST_CIFAR100,
    NASBench201Cell,
    NASBench201Reduction,
    PreactivationResidual,
    cell_expression,
    cell_text,
    halving_windows,
    read_cell,
)
from zeroshot_nas.blocks.layers import Layers
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError, UnknownNameError
from zeroshot_nas.testing import check_space

DATA = Path(__file__).parent.parent / "data/nasbench_samples.json"
TABLE = Path(__file__).parent.parent.parent / "../shared/data/nasbench/nb201_results.csv.gz"
"""The whole table, where it stands beside the checkout."""

SPACE = get_space("nasbench201")
DATASETS = {"c10": (32, 10), "c100": (32, 100), "in16": (16, 120)}
"""Side of the images and number of classes."""

RELU = Activation()
CELLS = st.tuples(*[st.integers(0, 4)] * 6)


def samples(name: str) -> list[dict[str, Any]]:
    """Rows of one benchmark in the data file, by column."""
    entry = json.loads(DATA.read_text())[name]
    return [dict(zip(entry["columns"], row, strict=True)) for row in entry["rows"]]


def naslib_flops(architecture: Architecture, global_pool_is_counted: bool = True) -> int:
    """FLOPs as NASLib counts them, so that its figures can be compared.

    Besides our multiply-adds: two a batch-norm output, one a ReLU, the window's size a pooling output, and for global
    pooling of s x s positions (s + 1)^2 a channel, where a module does it.
    """
    steps = [step for each in architecture.inputs() for step in block_steps(*each).steps]
    width, classes = architecture.blocks[-1].out_channels, architecture.num_classes
    steps += walk(head(width, classes), architecture.feature_shape)[0]
    total = 0
    for step in steps:
        outputs = step.times * math.prod(step.output_shape)
        match step.op:
            case Conv():
                total += outputs * step.op.fan_in
            case BatchNorm():
                total += 2 * outputs
            case Activation():
                total += outputs
            case Pool():
                total += outputs * step.op.kernel_size**2
            case Linear():
                total += step.op.in_features * step.op.out_features
            case GlobalPool() if global_pool_is_counted:
                total += outputs * (step.input_shape[1] + 1) ** 2
    return total


def counted_params(ops: tuple[Op, ...]) -> int:
    """Parameters of operations, counted here once more."""
    total = 0
    for op in ops:
        match op:
            case Conv():
                total += op.in_channels // op.groups * op.out_channels * op.kernel_size**2
            case BatchNorm():
                total += 2 * op.channels
            case Linear():
                total += (op.in_features + 1) * op.out_features
            case Graph():
                total += sum(counted_params(edge.ops) for node in op.nodes for edge in node.edges)
            case Repeat():
                total += op.times * counted_params(op.body)
    return total


def network_params(architecture: Architecture) -> int:
    """Parameters of a network, counted on its operations."""
    total, channels = 0, architecture.input_size[0]
    for block in architecture.blocks:
        total += counted_params(block.lower(channels))
        channels = block.out_channels
    return total + counted_params(head(channels, architecture.num_classes))


@pytest.mark.parametrize("dataset", DATASETS)
def test_parameters_and_flops_are_the_tables(dataset):
    side, classes = DATASETS[dataset]
    space = get_space("nasbench201", input_size=(3, side, side), num_classes=classes)
    for row in samples("nasbench201"):
        network = space.from_string(row["arch"])
        assert complexity(network).params == network_params(network) == row[f"{dataset}_params"], row["arch"]
        assert naslib_flops(network) == round(row[f"{dataset}_flops_m"] * 1e6), row["arch"]


def test_notations_are_the_tables():
    for row in samples("nasbench201"):
        network = SPACE.from_string(row["arch"])
        naslib = str(tuple(map(int, row["naslib_code"])))
        codes = {**{code: row[code] for code in ("arch", "op_code", "naslib_code")}, "naslib": naslib}
        for code, text in {**codes, "index": str(row["index"])}.items():
            assert SPACE.to_string(network, code) == text
            assert SPACE.from_string(text, notation=code) == network
        assert SPACE.from_string(naslib) == network  # tells itself apart


@pytest.mark.slow
@pytest.mark.skipif(not TABLE.exists(), reason="the whole table is not beside the checkout")
def test_the_whole_table():
    """All 15,625 cells: index, notations, and the parameters of the three networks, whatever the resolution."""
    with gzip.open(TABLE, "rt") as file:
        rows = list(csv.DictReader(file))
    extra = [(64 + 1) * (classes - 10) for _, classes in DATASETS.values()]  # of the classifier
    for index, row in enumerate(rows):
        network = SPACE.from_string(row["arch"])
        params = network_params(network)
        assert [params + more for more in extra] == [int(row[f"{name}_params"]) for name in DATASETS], row["arch"]
        assert "".join(map(str, SPACE.genotype_of(network))) == row["op_code"]
        assert SPACE.from_string(row["naslib_code"], notation="naslib_code") == network
        assert SPACE.from_string(row["index"], notation="index") == network
        assert int(row["index"]) == index
    assert len(rows) == SPACE.size()


def test_6466_cells_are_unique_by_the_authors_reduction():
    assert len({cell_expression(cell) for cell in itertools.product(range(5), repeat=6)}) == 6466


@given(CELLS)
def test_canonical_joins_what_skips_and_dead_edges_join(cell):
    network = SPACE.network(cell)
    _, edge02, edge12, edge03, edge13, edge23 = cell
    dead = SPACE.network((0, *cell[1:]))  # what reads node 1 is dead
    assert SPACE.canonical(dead) == SPACE.canonical(SPACE.network((0, edge02, 0, edge03, 0, edge23)))
    skips = SPACE.network((1, *cell[1:]))  # node 1 is the input
    assert SPACE.canonical(skips) == SPACE.canonical(SPACE.network((1, edge12, edge02, edge13, edge03, edge23)))
    assert SPACE.canonical(network) == cell_expression(cell)


@given(CELLS)
def test_strings_and_json_round_trip(cell):
    network = SPACE.network(cell)
    for code in ("arch", "op_code", "naslib_code", "naslib", "index"):
        assert SPACE.from_string(SPACE.to_string(network, code), notation=code) == network
    assert read_cell(cell_text(cell)) == cell == SPACE.genotype(network)
    assert Architecture.from_json(network.to_json()) == network


@given(seed=st.integers(0, 2**32), mutations=st.integers(0, 4))
def test_moves(seed, mutations):
    rng = python_rng(seed)
    a, b = SPACE.sample(rng), SPACE.sample(rng)
    assert a in SPACE
    mutant, child = SPACE.mutate(a, rng, mutations), SPACE.crossover(a, b, rng)
    changed = sum(x != y for x, y in zip(SPACE.genotype(mutant), SPACE.genotype(a), strict=True))
    assert min(mutations, 1) <= changed <= mutations
    genes = list(zip(SPACE.genotype(a), SPACE.genotype(b), SPACE.genotype(child), strict=True))
    assert any(all(x == z for x, _, z in genes[:cut]) and all(y == z for _, y, z in genes[cut:]) for cut in range(1, 6))


def test_a_cell_is_its_graph():
    """Edges 01 none, 02 pooling, 12 3x3, 03 1x1, 13 skip, 23 none, where stride and channels change."""
    cell = NASBench201Cell(8, stride=2, cell=cell_text((0, 4, 3, 2, 1, 0)))
    zeros = Node((Edge(0, (Zero(2),)), Edge(0, (Zero(2),))), "concatenation")
    second = Node(
        (
            Edge(0, (RELU, Conv(4, 8, 1), BatchNorm(8), Pool("average", 3, 2))),
            Edge(1, (RELU, Conv(8, 8, 3), BatchNorm(8))),
        )
    )
    third = Node((Edge(0, (RELU, Conv(4, 8, 1, stride=2), BatchNorm(8))), Edge(1)))
    assert cell.lower(4) == (Graph((zeros, second, third)),)
    (graph,) = NASBench201Cell(4, cell=cell_text((1, 0, 0, 0, 0, 0))).lower(4)
    assert graph.nodes == (Node((Edge(0),)), Node((Edge(0, (Zero(),)),)), Node((Edge(0, (Zero(),)),)))
    skips = NASBench201Cell(8, cell=cell_text((1,) * 6))
    assert skips.first(4)[0].nodes[0] == Node((Edge(0, (Conv(4, 8, 1), BatchNorm(8))),))
    assert skips.following()[0].nodes[0] == Node((Edge(0),))


def test_the_reduction_is_a_graph_that_keeps_its_shortcut():
    body = (RELU, Conv(4, 8, 3, 2), BatchNorm(8), RELU, Conv(8, 8, 3), BatchNorm(8))
    shortcut = (Pool("average", 2, 2), Conv(4, 8, 1))
    block = NASBench201Reduction(8, stride=2, pool="2x2")
    assert block.lower(4) == (Graph((Node((Edge(0, body), Edge(0, shortcut))),)),)
    assert block.following()[0].nodes[0].edges[1] == Edge(0)
    assert NASBench201Reduction(8).lower(4)[0].nodes[0].edges[1] == Edge(0, (RELU, Conv(4, 8, 1), BatchNorm(8)))


def test_the_preactivation_residual():
    body = (RELU, Conv(4, 8, 3, 2), BatchNorm(8), RELU, Conv(8, 8, 3), BatchNorm(8))
    assert PreactivationResidual(8, stride=2).lower(4) == (Residual(body, (Conv(4, 8, 1, 2), BatchNorm(8))),)


def test_the_smallest_is_the_smallest():
    cells = [SPACE.network(cell) for cell in itertools.product((0, 1, 4), repeat=6)][::40]
    cells += [SPACE.network(tuple(3 if place == edge else 1 for place in range(6))) for edge in range(6)]
    for name in ("params", "flops", "layers", "activations"):
        least = getattr(complexity(SPACE.smallest(name)), name)
        assert all(getattr(complexity(cell), name) >= least for cell in cells)


@pytest.mark.parametrize("options", [{"num_cells": 1}, {"channels": 6}, {"input_size": (1, 9, 14), "num_classes": 3}])
def test_options_keep_the_contract(options):
    space = get_space("nasbench201", **options)
    check_space(space, samples=3)
    assert SPACE.initial() not in space
    assert space.initial() not in SPACE


def test_odd_sides_pool_wider_windows():
    assert halving_windows((9, 14), 3) == ("3x3", "3x3", "3x3")
    assert halving_windows((12, 20), 3) == ("2x2", "2x2", "3x3")
    assert get_space("nasbench201", input_size=(3, 9, 14)).initial().feature_shape == (64, 3, 4)


def test_size():
    assert SPACE.size() == SPACE.size(19) == 5**6
    assert SPACE.size(18) == 0
    assert SPACE.initial().layers == 19


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"position 0: expected '\|', got the end"),
        ("none~0|", r"position 0: expected '\|', got 'none~0"),
        ("|none~1|", r"position 1: expected 'OPERATION~0\|', got 'none~1"),
        ("|nor_conv_5x5~0|", "unknown operation 'nor_conv_5x5' at position 1 of a cell. Did you mean 'nor_conv_3x3'"),
        ("|none~0|+|none~0|", r"position 17: expected 'OPERATION~1\|', got the end"),
        ("|none~0|none~0|", r"position 8: expected '\+\|', got 'none~0"),
        (BEST_CIFAR100 + "+", "position 95: expected the end, got '\\+'"),
        (BEST_CIFAR100.replace("skip_connect~0", "skip_connect~9"), "position 50: expected 'OPERATION~0"),
        ("|" * 1_000_000, "position 1"),
        ("(1, 2, 3, 4, 0)", "expected 6 numbers, got 5"),
        ("(1, 2, 3, 5, 0, 1)", "position 10: expected 0 to 4, got 5"),
        ("(1, 2, 3, x, 0, 1)", "position 9: expected a whole number, got 'x'"),
        ("(1, 2", r"expected numbers in brackets, as in \(1, 0, 2\), got '\(1, 2'"),
    ],
)
def test_malformed_cells_are_refused(text, match):
    with pytest.raises(ArchitectureError, match=match):
        SPACE.from_string(text)


@pytest.mark.parametrize(
    ("text", "code", "match"),
    [
        ("42121", "op_code", "malformed op_code '42121': expected 6 digits, got 5"),
        ("421x11", "op_code", "position 3 holds 'x', expected one of 01234"),
        ("42121\u0661", "naslib_code", "position 5 holds"),
        ("15625", "index", "0 to 15624, got '15625'"),
        ("-1", "index", "0 to 15624"),
        ("1" * 100_000, "index", "0 to 15624"),
    ],
)
def test_malformed_codes_are_refused(text, code, match):
    with pytest.raises(ArchitectureError, match=match):
        SPACE.from_string(text, notation=code)


def test_unknown_notations_and_foreign_networks_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'op_code'"):
        SPACE.from_string("421211", notation="opcode")
    with pytest.raises(UnknownNameError, match="unknown notation"):
        SPACE.to_string(SPACE.initial(), "arch_code")
    resnet = get_space("resnet").initial()
    for move in (SPACE.to_string, SPACE.canonical, lambda each: SPACE.mutate(each, python_rng(0))):
        with pytest.raises(ArchitectureError, match="not in the space 'nasbench201'"):
            move(resnet)
    assert resnet not in SPACE
    assert "|none~0|" not in SPACE
    with pytest.raises(ArchitectureError, match="has no PlainNet form; use to_string of its search space"):
        SPACE.initial().to_string()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: NASBench201Cell(8, cell="x"), "malformed cell at position 0"),
        (lambda: NASBench201Cell(8, cell=3), "NASBench201Cell.cell must be a text, got 3"),
        (lambda: NASBench201Reduction(8, pool="4x4"), "one of 2x2, 3x3, got '4x4'"),
        (lambda: NASBench201Reduction(8, pool=2), "NASBench201Reduction.pool must be a text, got 2"),
        (lambda: Layers(8, layers="conv3-gelu"), "got 'gelu' in 'conv3-gelu'"),
        (lambda: Layers(8, layers=3), "Layers.layers must be a text, got 3"),
        (lambda: Layers(8, layers="bn-" * 50 + "bn"), "at most 100 characters"),
        (lambda: Layers(8, stride=2, layers="bn"), "a stride of 2 needs a convolution"),
        (lambda: Layers(8, layers="bn").lower(4), "keep 4 channels, not 8"),
        (lambda: NASBench201Cell(6, cell=cell_text((0,) * 6)).lower(4), "to a multiple, not 4 to 6"),
        (lambda: get_space("nasbench201", num_cells=0), "sub_layers must be a whole number"),
    ],
)
def test_bad_blocks_are_refused(make, match):
    with pytest.raises(ArchitectureError, match=match):
        make()


def test_a_chain_space_reads_and_writes_plainnet_strings():
    space = get_space("resnet", input_size=(1, 16, 16), squeeze_excite=True)
    network = space.sample(python_rng(1))
    assert space.from_string(space.to_string(network)) == network
    assert space.canonical(network) == network.to_string()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("SuperConvK3BNRELU(1,8,1,1)", "it has no body, only 1 blocks"),
        ("SuperConvK5BNRELU(1,8,1,1)SuperResK3K3(8,8,1,8,1)SuperConvK1BNRELU(8,8,1,1)", "its stem is SuperConv"),
        (
            "SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,8,1,8,1)SuperConvK1BNRELU(8,9,1,1)",
            "its last block is .* of 8 up to 2048",
        ),
        ("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,8,1,9,1)SuperConvK1BNRELU(8,8,1,1)", "its block 1 is .*squeeze"),
        ("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,8,2,8,1)SuperConvK1BNRELU(8,8,1,1)", r"strides \(2,\); expected"),
        ("SuperConvK3BNRELU(1,8", "malformed architecture string at position 0"),
    ],
)
def test_a_chain_space_says_why_a_network_is_not_in_it(text, match):
    with pytest.raises(ArchitectureError, match=match):
        get_space("resnet", input_size=(1, 16, 16)).from_string(text)


def test_a_chain_space_names_another_input_size():
    space = get_space("resnet", input_size=(1, 16, 16))
    with pytest.raises(
        ArchitectureError, match=r"it takes \(3, 32, 32\) and has 10 classes, the space's networks \(1, 16"
    ):
        space.to_string(get_space("resnet").initial())


@pytest.mark.parametrize("spaced", ["{}\n", "  {}", "{}\r\n\t"])
def test_space_around_a_text_does_not_matter(spaced):
    text = SPACE.to_string(SPACE.initial())
    assert SPACE.from_string(spaced.format(text)) == SPACE.initial()


@pytest.mark.parametrize("value", [(4, 0, 3, 1, 4, 3), None, 3])
def test_what_is_no_text_is_refused_in_one_line(value):
    with pytest.raises(ArchitectureError, match="an architecture of nasbench201 is text in one of the notations"):
        SPACE.from_string(value)
