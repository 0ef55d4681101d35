"""What each convolution adds to CET: the rows add up to the pieces, and say what is dead, redundant or not counted."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.closed_form.cet.explain import REDUNDANT, cet_explain
from zeroshot_nas.closed_form.cet.score import cet
from zeroshot_nas.costs.cost import cost
from zeroshot_nas.errors import UndefinedScoreError
from zeroshot_nas.spaces.nasbench201 import NASBench201

SPACE = NASBench201(num_cells=1)
NONE, SKIP, CONV1, CONV3, POOL = range(5)
"""Operations of NAS-Bench-201."""

CHAIN = "SuperConvK3BNRELU(3,16,1,1)SuperResIDWE2K3(16,32,2,16,2)SuperResK1K5K1(32,64,2,32,2)"


def states(rows, block):
    return [row.state for row in rows if row.block == block]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["resnet", "mobilenet", "nasbench201"]))
def test_the_rows_add_up_to_the_pieces(seed, name):
    net = zs.get_space(name, input_size=(3, 16, 16)).sample(random.Random(seed))
    try:
        details = cet(net).details
    except UndefinedScoreError:
        with pytest.raises(UndefinedScoreError):
            cet_explain(net)
        return
    rows = cet_explain(net)
    assert sum(row.effective_weights for row in rows) == pytest.approx(details["W"], rel=1e-9)
    assert sum(row.effective_uses for row in rows) == pytest.approx(details["U"], rel=1e-9)
    assert sum(row.log_term for row in rows) == pytest.approx(details["S"], rel=1e-9)
    assert sum(row.log_term for row in rows if row.state != "stem") == pytest.approx(details["E_m"], rel=1e-9)
    assert sum(row.share for row in rows) == pytest.approx(1, rel=1e-9)
    sides = [row.resolution[0] * row.resolution[1] * row.effective_weights for row in rows]
    assert sum(sides) == pytest.approx(details["W_L2"], rel=1e-9)
    for row in rows:
        counts = row.state in ("ok", "redundant", "stem")
        assert (row.patch_rank is not None) == counts
        assert (row.log_term > 0) == counts
        assert 0 <= row.effective_weights <= row.weights
        assert not counts or row.state == "stem" or (row.state == "redundant") == (row.novelty < REDUNDANT)
    assert [(row.block, row.sub_layer) for row in rows] == sorted((row.block, row.sub_layer) for row in rows)


def test_all_convolutions_of_a_chain_are_there():
    net = zs.Architecture.from_string(CHAIN, (3, 16, 16))
    rows = cet_explain(net)
    biases = 2 * sum(row.out_channels for row in rows)  # of the batch norms behind them
    assert sum(row.weights for row in rows) + biases + 64 * 10 + 10 == cost(net).params
    assert rows[0].state == "stem"
    assert rows[2].convolution == "3x3 32->32 dw /2"
    assert {row.block_type for row in rows} == {block.type_name for block in net.blocks}


def test_a_dead_edge_adds_a_dead_row_and_changes_nothing():
    """Nodes 0 to 3; edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3. Node 2 leads nowhere."""
    without = SPACE.network((CONV3, NONE, NONE, CONV3, CONV3, NONE))
    dead = SPACE.network((CONV3, CONV3, NONE, CONV3, CONV3, NONE))
    rows = cet_explain(dead)
    assert states(rows, 2).count("dead") == 1
    assert [row for row in rows if row.state != "dead"] == cet_explain(without)
    assert cet(dead) == cet(without)
    assert all(row.effective_uses == row.log_term == 0 for row in rows if row.state == "dead")


def test_an_edge_that_no_image_reaches_is_dead():
    rows = cet_explain(SPACE.network((NONE, CONV3, CONV3, CONV3, NONE, CONV3)))
    assert states(rows, 2).count("dead") == 1


def test_a_parallel_convolution_is_redundant():
    """Node 1 is the input itself, so that edges 0-3 and 1-3 read and write the same."""
    rows = cet_explain(SPACE.network((SKIP, NONE, NONE, CONV3, CONV1, NONE)))
    cell = [row for row in rows if row.block == 2]
    assert {row.kernel_size: row.state for row in cell} == {3: "ok", 1: "redundant"}
    (single,) = (row for row in cell if row.kernel_size == 1)
    assert single.novelty == pytest.approx(0, abs=1e-6)


def test_a_shortcut_without_batch_norm_does_not_count():
    rows = cet_explain(SPACE.network((CONV3,) * 6))
    reduction = [row for row in rows if row.block_type == "NASBench201Reduction"]
    assert [row.kernel_size for row in reduction if row.state == "not counted"] == [1, 1]
