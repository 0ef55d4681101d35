"""NAS-Bench-101: networks against published counts and hashes, the number of cells, the notations, the moves."""

import itertools
import json

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.counting import counted
from tests.spaces.test_nasbench201 import naslib_flops, samples
from zeroshot_nas import Architecture, build, get_space
from zeroshot_nas.architecture.ops import Activation, BatchNorm, Conv, Edge, Graph, Node, Pool
from zeroshot_nas.blocks.nasbench101 import (
    OPERATIONS,
    NASBench101Cell,
    Spec,
    prune,
    read_spec,
    spec_text,
    vertex_channels,
)
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError, UnknownNameError
from zeroshot_nas.spaces.nasbench101 import MATRICES, MAX_EDGES, module_hash
from zeroshot_nas.testing import check_space

SPACE = get_space("nasbench101")
RELU = Activation()
SEEDS = st.integers(0, 2**32)


def matrix_of(*rows):
    return tuple(tuple(map(int, row)) for row in rows)


def test_parameters_and_flops_are_naslibs():
    """Cells of 3 to 7 vertices once pruned, with and without channels that are left out."""
    for row in samples("nasbench101"):
        network = SPACE.from_string(row["naslib"])
        assert complexity(network).params == row["params"], row["naslib"]
        assert naslib_flops(network, global_pool_is_counted=False) == row["naslib_flops"], row["naslib"]


def test_parameters_and_hash_are_the_benchmarks():
    for row in samples("nasbench101_records"):
        network = SPACE.from_string(row["record"])
        assert complexity(network).params == row["params"], row["record"]
        assert SPACE.to_string(network, "record") == row["record"]
        assert SPACE.canonical(network) == (row["hash"] or SPACE.canonical(SPACE.initial()))


@pytest.mark.parametrize("seed", range(4))
def test_the_built_networks_count(seed):
    space = get_space("nasbench101", channels=7, num_cells=2)
    network = space.sample(python_rng(seed))
    costs = complexity(network)
    assert counted(network) == (costs.params, costs.flops, costs.activations)


@pytest.mark.parametrize(
    ("rows", "channels", "expected"),
    [
        (("01", "00"), (5, 1), (5, 1)),
        (("0100", "0010", "0001", "0000"), (16, 8), (16, 8, 8, 8)),
        (("01100", "00010", "00010", "00001", "00000"), (8, 16), (8, 16, 16, 16, 16)),
        (("0110", "0001", "0001", "0000"), (8, 15), (8, 8, 7, 15)),
        (("01110", "00001", "00001", "00001", "00000"), (8, 8), (8, 3, 3, 2, 8)),
        (("01000", "00110", "00001", "00001", "00000"), (8, 9), (8, 5, 5, 4, 9)),
        (("01010", "00101", "00010", "00001", "00000"), (8, 15), (8, 8, 7, 7, 15)),
    ],
)
def test_vertex_channels_are_those_of_the_authors_tests(rows, channels, expected):
    assert vertex_channels(matrix_of(*rows), *channels) == expected


def test_a_cell_is_its_graph():
    """Input to a 3x3 and to the output; the 3x3 to a pooling, and both to the output."""
    block = NASBench101Cell(8, cell="0101001100010000 input,conv3x3-bn-relu,maxpool3x3,output")
    nodes = (
        Node((Edge(0, (Conv(4, 4, 1), BatchNorm(4), RELU, Conv(4, 4, 3), BatchNorm(4), RELU)),)),
        Node((Edge(1, (Pool("max", 3),)),)),
        Node((Edge(1), Edge(2)), "concatenation"),
        Node((Edge(3), Edge(0, (Conv(4, 8, 1), BatchNorm(8), RELU)))),
    )
    assert block.lower(4) == (Graph(nodes),)
    strided = NASBench101Cell(8, stride=2, cell=block.cell, pool="2x2")
    assert strided.first(4) == (Pool("max", 2, 2), Graph(nodes))
    assert NASBench101Cell(8, cell="0100 input,output").lower(4) == (
        Graph((Node((Edge(0, (Conv(4, 8, 1), BatchNorm(8), RELU)),)),)),
    )


@pytest.mark.parametrize("first", OPERATIONS)
def test_a_channel_too_many_is_left_out(first):
    """Vertex 1 has 8 channels, its reader vertex 2 has 7: the reader sees the first 7."""
    cell = f"0101000101000100000100000 input,{first},conv3x3-bn-relu,maxpool3x3,output"
    assert vertex_channels(read_spec(cell).matrix, 4, 15) == (4, 8, 7, 7, 15)
    network = build(Architecture((NASBench101Cell(15, cell=cell),), (4, 6, 6)))
    network.train()
    image = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    found = network.forward_features(image)
    kept = found[:, :8]  # vertex 1, whole, at the front of the output
    convolutions = [part for part in network.modules() if isinstance(part, torch.nn.Conv2d)]
    normalised = torch.nn.functional.batch_norm
    reader = next(each for each in convolutions if (each.in_channels, each.out_channels) == (7, 7))
    projection = next(each for each in convolutions[::-1] if (each.in_channels, each.out_channels) == (4, 7))

    def conv_bn_relu(each, x):
        return normalised(each(x), None, None, training=True).relu()

    second = conv_bn_relu(reader, kept[:, :7])
    third = torch.nn.functional.max_pool2d(second + conv_bn_relu(projection, image), 3, 1, 1)
    torch.testing.assert_close(found, torch.cat([kept, third], 1))


def test_the_number_of_cells():
    """Matrices with every vertex on a path, by enumeration; networks, by Burnside's lemma over their symmetries."""
    unique = 0
    for size in MATRICES:
        pairs = list(itertools.combinations(range(size), 2))
        codes = np.arange(1 << len(pairs))
        codes = codes[sum((codes >> place) & 1 for place in range(len(pairs))) <= MAX_EDGES]
        bit = {pair: (codes >> place) & 1 for place, pair in enumerate(pairs)}
        kept = np.ones(len(codes), bool)
        for vertex in range(size):
            if vertex < size - 1:
                kept &= sum(bit[vertex, target] for target in range(vertex + 1, size)) > 0
            if vertex > 0:
                kept &= sum(bit[source, vertex] for source in range(vertex)) > 0
        codes = codes[kept]
        assert len(codes) == MATRICES[size]
        least, fixed, symmetries = np.full(len(codes), 1 << len(pairs)), np.zeros_like(codes), np.zeros_like(codes)
        for inner in itertools.permutations(range(1, size - 1)):
            order = (0, *inner, size - 1)
            renamed, ordered = np.zeros_like(codes), np.ones(len(codes), bool)
            for place, (u, v) in enumerate(pairs):
                edge = (codes >> place) & 1
                if order[u] < order[v]:
                    renamed |= edge << pairs.index((order[u], order[v]))
                else:
                    ordered &= edge == 0
            least = np.where(ordered & (renamed < least), renamed, least)
            same = ordered & (renamed == codes)
            cycles = len(list(networkx.simple_cycles(networkx.DiGraph(list(enumerate(order)))))) - 2
            symmetries += same
            fixed += same * len(OPERATIONS) ** cycles
        _, first = np.unique(least, return_index=True)
        unique += int((fixed[first] // symmetries[first]).sum())
    assert unique == 423_624
    assert SPACE.size() == SPACE.size(10) == 1_293_208
    assert SPACE.size(9) == 0


def graph_of(spec):
    graph = networkx.DiGraph()
    graph.add_nodes_from((vertex, {"operation": name}) for vertex, name in enumerate(spec.operations))
    graph.add_edges_from((u, v) for u, row in enumerate(spec.matrix) for v, bit in enumerate(row) if bit)
    return graph


@given(seed=SEEDS)
def test_keys_are_equal_exactly_where_cells_are_isomorphic(seed):
    rng = python_rng(seed)
    space = get_space("nasbench101", channels=4, num_cells=1)
    a = space.sample(rng)
    b = space.mutate(a, rng, mutations=rng.randrange(1, 3))
    one, other = space.genotype(a), space.genotype(b)
    isomorphic = networkx.is_isomorphic(
        graph_of(one), graph_of(other), node_match=lambda x, y: x["operation"] == y["operation"]
    )
    assert (space.canonical(a) == space.canonical(b)) == isomorphic


@given(seed=SEEDS)
def test_keys_do_not_depend_on_the_order_of_vertices(seed):
    rng = python_rng(seed)
    spec = SPACE.genotype(SPACE.sample(rng))
    labels = [-1, *map(OPERATIONS.index, spec.operations[1:-1]), -2]
    order = list(range(len(labels)))
    rng.shuffle(order)
    shuffled = tuple(tuple(spec.matrix[u][v] for v in order) for u in order)
    assert module_hash(shuffled, [labels[vertex] for vertex in order]) == module_hash(spec.matrix, labels)


@given(seed=SEEDS, mutations=st.integers(0, 4))
def test_moves_and_notations(seed, mutations):
    rng = python_rng(seed)
    a, b = SPACE.sample(rng), SPACE.sample(rng)
    mutant, child = SPACE.mutate(a, rng, mutations), SPACE.crossover(a, b, rng)
    for network in (a, mutant, child):
        assert network in SPACE
        assert Architecture.from_json(network.to_json()) == network
        for code in ("json", "record", "naslib"):
            text = SPACE.to_string(network, code)
            assert SPACE.from_string(text) == SPACE.from_string(text, notation=code) == network
    if mutations == 1:
        assert mutant != a
    if mutations == 0:
        assert mutant == a


@given(seed=SEEDS)
def test_pruning_keeps_what_is_on_a_path(seed):
    """Against networkx's ancestors and descendants; and a pruned cell stays as it is."""
    rng = python_rng(seed)
    size = rng.randrange(2, 8)
    matrix = [[int(v > u and rng.random() < 0.4) for v in range(size)] for u in range(size)]
    operations = ("input", *(rng.choice(OPERATIONS) for _ in range(size - 2)), "output")
    graph = graph_of(Spec(matrix, operations))
    kept = (networkx.descendants(graph, 0) | {0}) & (networkx.ancestors(graph, size - 1) | {size - 1})
    if 0 not in kept:
        with pytest.raises(ArchitectureError, match="no path from input to output"):
            prune(matrix, operations)
        return
    spec = prune(matrix, operations)
    assert spec.operations == tuple(operations[vertex] for vertex in sorted(kept))
    assert prune(*spec) == spec == read_spec(spec_text(spec))


def test_the_moves_reach_every_size():
    """From a cell of two vertices to one of seven and back, and children differ from both parents at times."""
    rng = python_rng(0)
    network, sizes, mixed = SPACE.from_string("0100 input,output"), set(), 0
    for _ in range(300):
        before, network = network, SPACE.mutate(network, rng)
        sizes.add(len(SPACE.genotype(network).operations))
        mixed += SPACE.crossover(before, SPACE.sample(rng), rng) not in (before, network)
    assert sizes == set(MATRICES)
    assert mixed > 100


def test_the_smallest_is_the_smallest():
    """Among all cells of up to five vertices and some larger ones; 227,274 parameters is the benchmark's least."""
    assert complexity(SPACE.smallest("params")).params == 227_274
    space, rng = get_space("nasbench101", channels=10, num_cells=1), python_rng(0)
    costs = [complexity(space.sample(rng)) for _ in range(400)]
    for name in ("params", "flops", "layers", "activations"):
        assert min(getattr(each, name) for each in costs) >= getattr(complexity(space.smallest(name)), name)


def test_options():
    space = get_space("nasbench101", input_size=(1, 9, 14), num_classes=3, num_cells=2, channels=9)
    check_space(space, samples=3)
    assert SPACE.initial() not in space
    assert get_space("nasbench201").initial() not in SPACE
    with pytest.raises(ArchitectureError, match="at least 4 channels, got 3"):
        get_space("nasbench101", channels=3)
    outside = NASBench101Cell(
        512, 2, 3, f"{'01111110' + '00000001' * 6 + '0' * 8} input,{','.join(OPERATIONS * 2)},output"
    )
    assert Architecture((*SPACE.initial().blocks[:-1], outside)) not in SPACE


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "malformed cell '': expected the matrix by rows"),
        ("0100 input, output", "malformed cell"),
        ("010 input,output", "2 operations need 4 matrix digits, got 3"),
        ("0110 input,output", "row 1, column 0 of a cell's matrix holds 1; expected 0 or 1 above the diagonal"),
        ("0100 output,output", "unknown operation 'output' at vertex 0. Known: input"),
        ("010001000 input,maxpool3x4,output", "'maxpool3x4' at vertex 1. Did you mean 'maxpool3x3'"),
        ("000001000 input,maxpool3x3,output", "no path from input to output"),
        ("[[[0, 1], [0, 2]], ['input', 'output']]", "malformed cell, no JSON"),
        ('[[[0, 1], [0, 2]], ["input", "output"]]', "row 1, column 1 of a cell's matrix holds 2"),
        ('[[[0, 1]], ["input", "output"]]', "needs a 2x2 matrix"),
        ('[[[0, 1], [0]], ["input", "output"]]', "needs a 2x2 matrix"),
        ('[[[0, "1"], [0, 0]], ["input", "output"]]', "row 0, column 1"),
        ('[[0, 1], ["input", "output"]]', r"expected \[matrix, operations\]"),
        ('[[[0, 1], [0, 0]], ["input", 7]]', "unknown operation '7' at vertex 1"),
        ("[" * 1_000, "malformed cell, no JSON"),
        ("[" * 1_000_000, "at most 2,000 characters"),
        ("(0, 1, 0, 0, 0)", "expected n x n \\+ n numbers, 56 for seven vertices, got 5"),
        ("(0, 1, 0, 0, 0, 5)", "position 16: operations are 0 to 4, got 5"),
        ("(0, 1, 0, 0, 0, 2)", "unknown operation 'maxpool3x3' at vertex 1. Known: output"),
        ("(0)", "got 1"),
    ],
)
def test_malformed_strings_are_refused(text, match):
    with pytest.raises(ArchitectureError, match=match):
        SPACE.from_string(text)


def test_cells_beyond_the_bounds_are_refused():
    eight = [[int(v == u + 1) for v in range(8)] for u in range(8)]
    with pytest.raises(ArchitectureError, match="at most 7 vertices, got 8"):
        SPACE.from_string(json.dumps([eight, ["input", *["maxpool3x3"] * 6, "output"]]))
    full = [[int(v > u) for v in range(5)] for u in range(5)]
    with pytest.raises(ArchitectureError, match="at most 9 edges, got 10"):
        SPACE.from_string(json.dumps([full, ["input", *["maxpool3x3"] * 3, "output"]]))
    eight[0][1], eight[0][2] = 0, 1  # vertex 1 is off the path: the bounds hold for what is left
    network = SPACE.from_string(json.dumps([eight, ["input", *["maxpool3x3"] * 6, "output"]]))
    assert len(SPACE.genotype(network).operations) == 7


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: NASBench101Cell(8, cell="001001000 input,maxpool3x3,output"), "off the paths"),
        (lambda: NASBench101Cell(8, cell="0110000000010000 input,maxpool3x3,maxpool3x3,output"), "off the paths"),
        (lambda: NASBench101Cell(8, cell=5), "NASBench101Cell.cell must be a text, got 5"),
        (lambda: NASBench101Cell(8, pool="x"), "one of 2x2, 3x3, got 'x'"),
        (
            lambda: NASBench101Cell(1, cell="0110000100010000 input,maxpool3x3,maxpool3x3,output").lower(4),
            "share 1 out",
        ),
    ],
)
def test_bad_blocks_are_refused(make, match):
    with pytest.raises(ArchitectureError, match=match):
        make()


def test_unknown_notations_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'naslib'"):
        SPACE.from_string("0100 input,output", notation="nas_lib")
    with pytest.raises(UnknownNameError, match="unknown notation"):
        SPACE.to_string(SPACE.initial(), "arch_code")
    with pytest.raises(ArchitectureError, match="not in the space 'nasbench101'"):
        SPACE.canonical(get_space("resnet").initial())
