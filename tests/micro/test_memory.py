"""Peak RAM: laws, a block by hand, the order by brute force, and the runtime itself."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from tests.strategies import architectures
from zeroshot_nas.architecture.ops import Activation, BatchNorm, Conv, Edge, Graph, Node, Pool, Residual
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.resources.memory import parse_bytes
from zeroshot_nas.errors import BudgetError, InfeasibleBudgetError, UnknownNameError
from zeroshot_nas.micro.memory import memory, peak_memory, weight_bytes
from zeroshot_nas.micro.operators import OPERATORS, Operator, network_operators, operators
from zeroshot_nas.micro.order import aligned, best_order, live_sums, tensor_sizes
from zeroshot_nas.micro.plan import best_plan, buffers_of, runtime_plan

NET = zs.Architecture.from_string(
    "SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,16,1,16,1)SuperResK3K3(16,32,2,32,1)", (3, 32, 32)
)


@st.composite
def graphs(draw, most=6):
    """Operators in an order that can be run, each reading one or two before it; all of them are needed."""
    count = draw(st.integers(1, most))
    found = []
    for step in range(count):
        sources = draw(st.lists(st.integers(0, step), min_size=1, max_size=2, unique=True))
        found.append(Operator("ADD", tuple(sources), (16 * draw(st.integers(1, 9)), 1, 1), step))
    unread = set(range(1, count + 1)) - {source for each in found for source in each.inputs} - {count}
    last = found[-1]
    found[-1] = last._replace(inputs=tuple({*last.inputs, *unread}))
    return found, (16 * draw(st.integers(1, 9)), 1, 1)


def _orders(found):
    """Every order in which operators can be run, with their inputs numbered in it."""
    for order in itertools.permutations(range(len(found))):
        places = {0: 0, **{index + 1: place for place, index in enumerate(order, start=1)}}
        renamed = [found[i]._replace(inputs=tuple(places[source] for source in found[i].inputs)) for i in order]
        if order[-1] == len(found) - 1 and all(max(each.inputs) <= place for place, each in enumerate(renamed)):
            yield renamed


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_the_order_is_the_best_of_all(graph):
    found, shape = graph
    ordered = best_order(found, shape)
    assert ordered.peak == ordered.bound == min(max(live_sums(each, shape)) for each in _orders(found))
    assert ordered.peak == max(live_sums(ordered.operators, shape))
    assert sorted(each.instruction for each in ordered.operators) == list(range(len(found)))


@settings(max_examples=60, deadline=None)
@given(graphs(12))
def test_a_plan_overlaps_nowhere_and_holds_what_lives(graph):
    found, shape = graph
    buffers = buffers_of(found, shape)
    for plan in (runtime_plan(buffers), best_plan(found, shape)):
        assert plan.size >= max(live_sums(found, shape))
        for (a, at), (b, bt) in itertools.combinations(zip(buffers, plan.offsets, strict=True), 2):
            apart = a.last < b.first or b.last < a.first or at + a.size <= bt or bt + b.size <= at
            assert apart, f"{a} at {at} overlaps {b} at {bt}"
        assert max(at + a.size for a, at in zip(buffers, plan.offsets, strict=True)) <= plan.size


@settings(max_examples=40, deadline=None)
@given(architectures())
def test_the_peak_holds_what_any_operator_reads_and_gives(architecture):
    found, shape = network_operators(architecture), architecture.input_size
    sizes = tensor_sizes(found, shape)
    peak = memory(architecture).tensors
    for step, operator in enumerate(found):
        assert peak >= sizes[step + 1] + sum(sizes[source] for source in {*operator.inputs})
    assert peak <= max(live_sums(found, shape))
    assert {operator.code for operator in found} <= set(OPERATORS)


@settings(max_examples=40, deadline=None)
@given(architectures())
def test_blocks_give_what_the_whole_does(architecture):
    """The memoised sums, block by block, against the whole network's operators."""
    need, whole = memory(architecture), best_order(network_operators(architecture), architecture.input_size)
    assert (need.tensors, need.tensors_bound) == (whole.peak, whole.bound)
    assert need.peak_memory == peak_memory(architecture) >= need.tensors + need.bookkeeping
    assert need.weights == weight_bytes(architecture) >= zs.cost(architecture).params / 4
    assert need.unplanned >= need.tensors
    assert zs.cost(architecture).peak_memory == need.peak_memory
    assert zs.cost(architecture)["weights"] == need.weights


@pytest.mark.parametrize("name", zs.list_spaces())
def test_blocks_give_what_the_whole_does_in_every_space(name):
    space, rng = zs.get_space(name), python_rng(0)
    architecture = space.sample(rng)
    whole = best_order(network_operators(architecture), architecture.input_size)
    assert memory(architecture).tensors == whole.peak
    assert math.isfinite(zs.cost(architecture)["peak_memory"])


@settings(max_examples=40, deadline=None)
@given(architectures(), st.data())
def test_a_wider_block_or_image_never_needs_less(architecture, data):
    index = data.draw(st.integers(0, len(architecture.blocks) - 1))
    block = architecture.blocks[index]
    wider = replace(block, out_channels=2 * block.out_channels)
    blocks = (*architecture.blocks[:index], wider, *architecture.blocks[index + 1 :])
    channels, height, width = architecture.input_size
    for larger in (
        zs.Architecture(blocks, architecture.input_size, architecture.num_classes),
        replace(architecture, input_size=(channels, 2 * height, 2 * width)),
    ):
        assert memory(larger).tensors >= memory(architecture).tensors


def test_a_residual_block_by_hand():
    """At the sum three feature maps live: the link's, the body's, the result."""
    assert memory(NET).tensors == 3 * 16 * 32 * 32
    found = operators([(Residual((Conv(8, 8, 3), BatchNorm(8), Activation(), Conv(8, 8, 3))), Activation())], (8, 4, 4))
    assert [each.code for each in found] == ["CONV_2D", "CONV_2D", "ADD"]
    assert [each.relu for each in found] == [True, False, True]
    assert list(live_sums(found, (8, 4, 4))) == [2 * 128, 3 * 128, 3 * 128]
    assert list(live_sums(found, (8, 4, 4), value_bytes=4)) == [8 * 128, 12 * 128, 12 * 128]


def test_the_wide_branch_is_run_first():
    """Its intermediate is large; the other branch's output would have to wait beside it."""
    wide, narrow = (Conv(4, 64, 3), Conv(64, 8, 3)), (Conv(4, 8, 3),)
    graph = Graph((Node((Edge(0, narrow), Edge(0, wide))),))
    shape = (4, 8, 8)
    found = operators([(graph,)], shape)
    ordered = best_order(found, shape)
    assert max(live_sums(found, shape)) == 64 * (8 + 64 + 8)
    assert ordered.peak == 64 * (4 + 64 + 8)
    assert [each.shape[0] for each in ordered.operators] == [64, 8, 8, 8]


def test_strides_by_hand():
    """A dense convolution reads a padded copy, a depthwise one has a last row of zeros; no padding stands as it is."""

    def lowered(*ops, side=8):
        return [(each.code, each.kernel_size, each.same) for each in operators([ops], (4, side, side))]

    assert lowered(Conv(4, 8, 3, stride=2)) == [("PAD", 1, False), ("CONV_2D", 3, False)]
    assert lowered(Conv(4, 8, 3, stride=2), side=7) == [("CONV_2D", 3, True)]
    assert lowered(Conv(4, 4, 3, stride=2, groups=4)) == [("DEPTHWISE_CONV_2D", 4, True)]
    assert lowered(Conv(4, 8, 1, stride=2)) == [("CONV_2D", 1, False)]
    assert lowered(Pool("max", 3, 2)) == [("MAX_POOL_2D", 3, True), ("MAX_POOL_2D", 1, False)]
    assert lowered(Pool("average", 2, 2)) == [("AVERAGE_POOL_2D", 2, False)]


def test_weights_by_hand():
    """Of each convolution weights, a 32-bit bias, two scales of 4 and two zero points of 8 bytes a channel."""
    net = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", (3, 8, 8), num_classes=5)
    assert weight_bytes(net) == (3 + 3 * 28) + (8 * 27 + 8 * 28) + (8 * 5 + 5 * 4 + 24)


@pytest.mark.parametrize(
    ("text", "value"),
    [("256kB", 256e3), ("256 KiB", 2**18), ("1.5MB", 1.5e6), ("1MiB", 2**20), ("512", 512), ("9B", 9)],
)
def test_units_say_how_many_bytes(text, value):
    assert parse_bytes(text) == value
    assert zs.Budget(peak_memory=text).peak_memory == value


@pytest.mark.parametrize("text", ["256k", "256K", "256KB", "1M", "1mb", "256kb", "kB", "-1kB", "1e3", "", "many"])
def test_units_that_are_unknown_or_ambiguous_are_refused(text):
    with pytest.raises(BudgetError, match=r"weights must be a number of bytes with kB \(1,000\), KiB \(1,024\)"):
        zs.Budget(weights=text)


def test_a_budget_below_the_smallest_network_names_both_numbers():
    with pytest.raises(InfeasibleBudgetError, match=r"smallest has \d+,\d+ bytes of peak memory; the budget is 2,000"):
        zs.search("resnet", "cet", zs.Budget(peak_memory="2kB"), proposals=10, progress=False)


def test_a_search_keeps_to_the_memory_of_a_board():
    board = zs.get_board("STM32F746")
    assert board.limits()["peak_memory"] < board.ram
    assert board.limits()["weights"] < board.flash
    budget = zs.Budget(**{**board.limits(), "peak_memory": 60_000})
    result = zs.search("resnet", "cet", budget, proposals=300, progress=False)
    assert all(each.costs["peak_memory"] <= 60_000 for each in result.history)
    assert result.counts.over_budget > 0


def test_boards_leave_room_and_unknown_ones_are_suggested():
    for name in zs.list_boards():
        board = zs.get_board(name)
        assert 0 < board.limits()["peak_memory"] < board.ram
        assert 0 < board.limits()["weights"] < board.flash
        assert board.source
    with pytest.raises(UnknownNameError, match=r"unknown board 'stm32f747'\. Did you mean 'stm32f7"):
        zs.get_board("stm32f747")


def test_sizes_are_rounded_up_as_the_runtime_does():
    assert [aligned(size) for size in (0, 1, 16, 17)] == [0, 16, 16, 32]
