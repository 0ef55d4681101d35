"""NAS-Bench-301: DARTS networks against published counts, the notations, the moves."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.counting import counted
from tests.spaces.test_nasbench201 import naslib_flops, samples
from zeroshot_nas import Architecture, build, get_space
from zeroshot_nas.architecture.ops import Activation, BatchNorm, Conv, Edge, Graph, Node, Pool
from zeroshot_nas.blocks.darts import OPERATIONS, DARTSNetwork, Genotype, genotype_text, make_genotype, read_genotype
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError, UnknownNameError
from zeroshot_nas.testing import check_space

SPACE = get_space("nasbench301")
SMALL = get_space("nasbench301", input_size=(3, 8, 8), num_cells=3, channels=2)
SEEDS = st.integers(0, 2**32)
RELU = Activation()
SECOND_ORDER = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)
"""DARTS's cells of the second order, as its authors and NAS-Bench-301's example write them."""


def test_the_published_size_of_the_darts_network():
    """20 cells of 36 channels: the authors' training log says 3.349342MB, their unit for a million parameters."""
    space = get_space("nasbench301", num_cells=20, channels=36)
    network = space.from_string(SECOND_ORDER)
    assert network == space.initial()
    assert complexity(network).params == 3_349_342


def naslib_differences(genotype: Genotype) -> tuple[int, int]:
    """What NASLib's network has less in parameters and FLOPs than ours (8 cells of 32 channels).

    Its cells come from the search phase: batch norms in operations have no weights (two parameters a channel less, and
    one FLOP a value instead of two), and such a norm stands behind every pooling (one FLOP a value more).
    """
    params = flops = 0
    normal = [(32, 32)] * 2 + [(64, 16)] * 2 + [(128, 8)] * 2
    for cell, places in ((genotype.normal, normal), (genotype.reduce, [(64, 16), (128, 8)])):
        for source, operation in cell:
            name = OPERATIONS[operation]
            skips_with_stride = name == "skip_connect" and cell is genotype.reduce and source < 2
            norms = {"sep": 2, "dil": 1}.get(name[:3], int(skips_with_stride))
            for channels, side in places:
                params += 2 * channels * norms
                flops += channels * side**2 * (-1 if "pool" in name else norms)
    return params, flops


def test_parameters_and_flops_are_naslibs():
    for row in samples("nasbench301"):
        network = SPACE.from_string(row["naslib"])
        params, flops = naslib_differences(SPACE.genotype(network))
        assert complexity(network).params - params == row["params"], row["naslib"]
        assert naslib_flops(network) - flops == row["naslib_flops"], row["naslib"]


@pytest.mark.parametrize("seed", range(3))
def test_the_built_networks_count(seed):
    network = SMALL.sample(python_rng(seed))
    costs = complexity(network)
    assert counted(network) == (costs.params, costs.flops, costs.activations)


def test_cells_are_their_graphs():
    """One normal and one reduction cell, written out: inputs projected, nodes summed, outputs concatenated."""
    pairs = [(0, 2), (1, 1), (0, 6), (2, 0), (1, 3), (2, 2), (0, 2), (4, 2)]
    text = genotype_text(make_genotype(pairs, pairs))
    (graph,) = DARTSNetwork(8, stride=2, genotype=text, cells=2).lower(6)
    assert isinstance(graph, Graph)

    def project(source, before, after, stride=1):
        return Node((Edge(source, (RELU, Conv(before, after, 1, stride), BatchNorm(after))),))

    def depthwise(channels, kernel_size, stride=1, dilation=1):
        spatial = Conv(channels, channels, kernel_size, stride, groups=channels, dilation=dilation)
        return RELU, spatial, Conv(channels, channels, 1), BatchNorm(channels)

    normal = (
        *(project(0, 6, 1), project(0, 6, 1)),
        Node((Edge(1), Edge(2, (Pool("average", 3),)))),
        Node((Edge(1, depthwise(1, 5, dilation=2)), Edge(3, (Pool("max", 3),)))),
        Node((Edge(2, depthwise(1, 3) + depthwise(1, 3)), Edge(3))),
        Node((Edge(1), Edge(5))),
        Node((Edge(3), Edge(4), Edge(5), Edge(6)), "concatenation"),
    )
    reduction = (
        *(project(0, 6, 2), project(7, 4, 2)),
        Node((Edge(8, (RELU, Conv(2, 2, 1, 2), BatchNorm(2))), Edge(9, (Pool("average", 3, 2),)))),
        Node((Edge(8, depthwise(2, 5, 2, dilation=2)), Edge(10, (Pool("max", 3),)))),
        Node((Edge(9, depthwise(2, 3, 2) + depthwise(2, 3)), Edge(10))),
        Node((Edge(8, (RELU, Conv(2, 2, 1, 2), BatchNorm(2))), Edge(12))),
        Node((Edge(10), Edge(11), Edge(12), Edge(13)), "concatenation"),
    )
    assert graph.nodes == normal + reduction


def test_reductions_are_at_a_third_and_two_thirds():
    for cells in (2, 3, 5, 8, 20):
        (graph,) = DARTSNetwork(64, stride=4, cells=cells).lower(12)
        widths = [node.edges[0].ops[1].out_channels for node in graph.nodes[::7]]
        expected = [4 * 2 ** ((index >= cells // 3) + (index >= 2 * cells // 3)) for index in range(cells)]
        assert widths == expected
        strides = [node.edges[0].ops[1].stride for node in graph.nodes[::7]]
        assert strides == [1 + (index - 1 in (cells // 3, 2 * cells // 3)) for index in range(cells)]


@pytest.mark.parametrize(("stride", "cells"), [(1, 1), (2, 1), (3, 2), (4, 2), (6, 3), (7, 1)])
def test_other_strides_and_widths_keep_the_blocks_promise(stride, cells):
    network = Architecture((DARTSNetwork(13, stride=stride, cells=cells),), (3, 11, 7))
    assert network.feature_shape == (13, math.ceil(11 / stride), math.ceil(7 / stride))
    costs = complexity(network)
    assert counted(network) == (costs.params, costs.flops, costs.activations)


@given(st.sampled_from([3, 5, 7]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
def test_dilated_convolutions(kernel_size, stride, dilation, height, width):
    """The shape is that of any convolution of the stride, and of torch's with that padding."""
    conv = Conv(2, 3, kernel_size, stride, dilation=dilation)
    shape = (3, math.ceil(height / stride), math.ceil(width / stride))
    assert conv.output_shape((2, height, width)) == shape
    module = nn.Conv2d(2, 3, kernel_size, stride, conv.padding, dilation)
    assert module(torch.zeros(1, 2, height, width)).shape[1:] == shape


def test_the_builder_passes_dilation_on():
    dilated = "dil_conv_5x5"
    cell = [(source, OPERATIONS.index(dilated)) for source in (0, 1)] * 4
    network = build(SMALL.network(make_genotype(cell, cell)))
    found = {
        (part.kernel_size, part.dilation, part.padding) for part in network.modules() if isinstance(part, nn.Conv2d)
    }
    assert ((5, 5), (2, 2), (4, 4)) in found
    assert not [each for each in found if each[0] == (5, 5) and each[1] != (2, 2)]


@given(seed=SEEDS, mutations=st.integers(0, 4))
def test_moves_and_notations(seed, mutations):
    rng = python_rng(seed)
    a, b = SMALL.sample(rng), SMALL.sample(rng)
    mutant, child = SMALL.mutate(a, rng, mutations), SMALL.crossover(a, b, rng)
    for network in (a, mutant, child):
        assert network in SMALL
        assert Architecture.from_json(network.to_json()) == network
        for code in ("genotype", "naslib"):
            text = SMALL.to_string(network, code)
            assert SMALL.from_string(text) == SMALL.from_string(text, notation=code) == network
    if mutations == 1:
        assert mutant != a
    edges = [list(itertools.chain(*SMALL.genotype(each))) for each in (a, b, child)]
    nodes = [[each[place : place + 2] for place in range(0, 16, 2)] for each in edges]
    assert any(nodes[2] == nodes[0][:cut] + nodes[1][cut:] for cut in range(1, 8))


@pytest.mark.slow
@given(seed=SEEDS)
def test_keys_do_not_depend_on_the_order_of_nodes(seed):
    """Nodes renamed in an order that keeps sources first; the network computes the same, its channels permuted."""
    rng = python_rng(seed)
    network = SMALL.sample(rng)
    key = SMALL.canonical(network)
    cells = []
    for cell in SMALL.genotype(network):
        order: list[int] = []
        while len(order) < 4:
            ready = [
                n
                for n in range(2, 6)
                if n not in order and {s for s, _ in cell[2 * n - 4 : 2 * n - 2]} <= {0, 1, *order}
            ]
            order.append(rng.choice(ready))
        place = {0: 0, 1: 1, **{node: new for new, node in enumerate(order, start=2)}}
        cells.append([(place[s], o) for n in order for s, o in cell[2 * n - 4 : 2 * n - 2]])
    renamed = SMALL.network(make_genotype(*cells))
    assert SMALL.canonical(renamed) == key
    assert complexity(renamed) == complexity(network)
    assert SMALL.canonical(SMALL.from_string(key)) == key


def test_edges_may_stand_in_any_order():
    text = SPACE.to_string(SPACE.initial())
    assert SPACE.from_string(SECOND_ORDER) == SPACE.from_string(text) == SPACE.initial()
    listed = SECOND_ORDER.replace("[2, 3, 4, 5]", "range(2, 6)").replace("[", "(").replace("]", ")")
    assert SPACE.from_string(listed) == SPACE.initial()
    normal, reduce = (str([tuple(edge) for edge in cell]) for cell in SPACE.genotype(SPACE.initial()))
    assert SPACE.from_string(f"[{normal}, {reduce}]") == SPACE.initial()


def test_the_smallest_is_the_smallest():
    rng = python_rng(0)
    costs = [complexity(SMALL.sample(rng)) for _ in range(50)]
    for name in ("params", "flops", "layers", "activations"):
        assert min(getattr(each, name) for each in costs) >= getattr(complexity(SMALL.smallest(name)), name)


def test_size_and_options():
    assert SPACE.size() == (180 * 7**8) ** 2
    assert SPACE.size(2) == SPACE.size()
    assert SPACE.size(1) == 0
    space = get_space("nasbench301", input_size=(1, 9, 14), num_classes=3, num_cells=2, channels=3)
    check_space(space, samples=3)
    assert SPACE.initial() not in space
    assert get_space("nasbench201").initial() not in SPACE
    with pytest.raises(ArchitectureError, match="a stride of 4 takes 2 to 1,000 cells, got 1"):
        get_space("nasbench301", num_cells=1)


CELL = "[" + ", ".join(["('skip_connect', 0), ('max_pool_3x3', 1)"] * 4) + "]"
CONCAT = "[2, 3, 4, 5]"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "malformed genotype at position"),
        ("Genotype(", "malformed genotype at position"),
        ("Cells()", r"expected Genotype\(normal=..., ...\), got 'Cells"),
        ("__import__('os').system('true')", "expected Genotype"),
        ("Genotype(normal=[])", "has normal, normal_concat, reduce and reduce_concat, got normal"),
        ("Genotype(**{})", "unexpected '\\*\\*'"),
        (f"Genotype({CELL}, {CONCAT}, {CELL}, {CONCAT}, 1)", "has normal, normal_concat"),
        (f"Genotype({CELL}, {CONCAT}, {CELL}, {CONCAT}, normal=1)", "unexpected 'normal'"),
        (f"Genotype({CELL}, [2, 3], {CELL}, {CONCAT})", r"normal_concat must be \[2, 3, 4, 5\], got \[2, 3\]"),
        (f"Genotype({CELL}, range(0, 10**9), {CELL}, {CONCAT})", "normal_concat must be a list of literals"),
        (f"Genotype({CELL}, {CONCAT}, open('x'), {CONCAT})", "reduce must be a list of literals"),
        (f"Genotype(3, {CONCAT}, {CELL}, {CONCAT})", "normal must be a list of .* pairs, got 3"),
        (f"Genotype([3], {CONCAT}, {CELL}, {CONCAT})", r"normal\[0\] must be an \('operation', source\) pair, got 3"),
        (f"Genotype([], {CONCAT}, {CELL}, {CONCAT})", "normal must have 8 edges"),
        (
            f"Genotype({CELL.replace('skip', 'skp')}, {CONCAT}, {CELL}, {CONCAT})",
            r"unknown operation 'skp_connect' in normal\[0\]. Did you mean 'skip_connect'",
        ),
        (
            f"Genotype({CELL.replace(', 1)', ', 2)', 1)}, {CONCAT}, {CELL}, {CONCAT})",
            r"source in normal\[1\] must be a number from 0 to 1, got '2'",
        ),
        (f"Genotype({CELL.replace(', 1)', ', 0)')}, {CONCAT}, {CELL}, {CONCAT})", "must read two sources, got one"),
        (f"Genotype({CELL.replace(', 1)', ', True)')}, {CONCAT}, {CELL}, {CONCAT})", "from 0 to 1, got 'True'"),
        ("Genotype(" + "(" * 4_000, "malformed genotype"),
        ("Genotype(\0)", "malformed genotype"),
        ("x" * 1_000_000, "at most 5,000 characters"),
        ("(1, 2", "malformed NASLib tuple at position"),
        ("(1, x)", "malformed NASLib tuple"),
        ("(1,)", "has a normal and a reduction cell"),
        ("(1, 2)", "normal must have 8 edges, got 1"),
        ("([1] * 8, 2)", "malformed NASLib tuple"),
        (f"({[1] * 8}, {[1] * 8})", r"normal\[0\] must be a pair of numbers, got 1"),
        (f"({[(0, 7)] * 8}, {[(0, 7)] * 8})", r"operation in normal\[0\] must be a number from 0 to 6, got '7'"),
        ("[" * 3_000, "at most 2,000 characters"),
        ("[" * 1_500, "malformed NASLib tuple"),
    ],
)
def test_malformed_strings_are_refused(text, match):
    with pytest.raises(ArchitectureError, match=match):
        SPACE.from_string(text)


def test_unknown_notations_and_foreign_networks_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'genotype'"):
        SPACE.from_string(SECOND_ORDER, notation="genotypes")
    with pytest.raises(UnknownNameError, match="unknown notation"):
        SPACE.to_string(SPACE.initial(), "arch_code")
    with pytest.raises(ArchitectureError, match="not in the space 'nasbench301'"):
        SPACE.canonical(get_space("resnet").initial())
    with pytest.raises(ArchitectureError, match=r"DARTSNetwork\.genotype must be a text, got 3"):
        DARTSNetwork(16, genotype=3)
    assert read_genotype(DARTSNetwork.genotype) == SPACE.genotype(SPACE.initial())
