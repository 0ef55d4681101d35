"""The closed form of CET: laws of the mean field, chains on paper, many networks side by side."""

import math
import pickle
import random
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from tests.strategies import architectures
from zeroshot_nas.architecture.ops import Activation, Conv, Edge, Graph, Node, Zero
from zeroshot_nas.blocks.cells import NASBench201Cell, cell_text
from zeroshot_nas.closed_form.cet import score as score_module
from zeroshot_nas.closed_form.cet.explain import cet_explain
from zeroshot_nas.closed_form.cet.plan import Plan
from zeroshot_nas.closed_form.cet.propagation import LINEAR_SHARE, rectified_correlation
from zeroshot_nas.closed_form.cet.score import cet, cet_pool, cet_terms, cet_terms_pool
from zeroshot_nas.closed_form.cet.spectra import (
    MEAN,
    UNIT,
    covariance,
    dots,
    effective_modes,
    spectrum,
    strided,
    stuffed,
    times,
    white,
    window,
)
from zeroshot_nas.closed_form.cet.terms import VARIANTS, CetTerms
from zeroshot_nas.closed_form.cet.tracing import placed_sub_layer, trace
from zeroshot_nas.errors import ProxyError, UndefinedScoreError, ZeroShotNASError
from zeroshot_nas.spaces.nasbench201 import NASBench201

SPACE = NASBench201()
SPACES = ["resnet", "mobilenet", "nasbench201", "nasbench101", "nasbench301", "nasbench_macro", "transnas_micro"]


def plain(depth: int, width: int = 64, side: int = 32) -> zs.Architecture:
    text = f"SuperConvK3BNRELU(3,{width},1,1)SuperConvK3BNRELU({width},{width},1,{depth})"
    return zs.Architecture.from_string(text, (3, side, side))


@given(st.lists(st.floats(0, 10), min_size=len(UNIT), max_size=len(UNIT)))
def test_spectrum_and_covariance_are_inverse(values):
    spectra = np.array(values)
    assert np.allclose(spectrum(covariance(spectra)), spectra, atol=1e-9)
    assert covariance(spectra)[0] == pytest.approx(spectra @ MEAN)


@pytest.mark.parametrize("torus", [16, 8, 4, 2, 1])
def test_a_white_map_spreads_over_its_torus(torus):
    assert effective_modes(white(torus)) == pytest.approx(torus**2)
    if torus > 1:
        assert np.allclose(spectrum(strided(covariance(white(torus)), 2, (torus, torus // 2))), white(torus // 2))
    assert np.allclose(spectrum(strided(covariance(white(torus)), 2, (torus, torus))), white(torus))


def test_stuffing_spreads_the_energy():
    assert stuffed(covariance(white(8)), 2, 16)[0] == pytest.approx(1 / 4)
    for torus in (16, 8, 4, 2, 1):  # maps whose torus is as large as the stuffed one's
        assert np.allclose(spectrum(stuffed(covariance(white(torus)), 2, torus)) * 4, white(torus))
    assert np.allclose(spectrum(stuffed(covariance(white(8)), 2, 16)) * 4, white(16))


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
def test_a_window_counts_pairs_of_taps(kernel):
    assert window(kernel).sum() == pytest.approx(kernel**2)
    assert window(kernel, 2).sum() == pytest.approx(kernel**2)


def test_the_rectified_correlation_is_that_of_samples():
    rng = np.random.default_rng(0)
    first, other = rng.standard_normal((2, 400_000))
    for rho in (0.0, 0.5, 0.9):
        pair = np.maximum([first, rho * first + math.sqrt(1 - rho**2) * other], 0)
        assert rectified_correlation(np.array([rho]))[0] == pytest.approx(np.corrcoef(pair)[0, 1], abs=0.005)
    assert np.maximum(first, 0).var() * LINEAR_SHARE == pytest.approx(0.25, abs=0.002)


@pytest.mark.parametrize("depth", [1, 5, 20])
def test_a_plain_chain_is_as_deep_as_it_is(depth):
    """The last ReLU has only the head behind it."""
    terms = cet_terms(plain(depth))
    assert terms.D_f == pytest.approx(depth)
    assert terms.D_b == pytest.approx(depth)


def test_a_plain_chain_on_paper():
    """Stem 3x3 from 3 to c: e = c/27; ReLU: 0.538 e; then each layer e' = (1 + e) / 9, inputs 9 c / (1 + e)."""
    width, excess, expected = 64, 64 / 27, 0.0
    for _ in range(3):
        excess *= LINEAR_SHARE**2
        expected += width * 9 * width / (1 + excess)
        excess = (1 + excess) / 9
    assert pytest.approx(expected) == cet_terms(plain(3)).P


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SPACES))
def test_every_space_has_a_score_or_a_reason(seed, name):
    space = zs.get_space(name, input_size=(3, 32, 32))
    (terms,) = cet_terms_pool([space.sample(random.Random(seed))])
    if isinstance(terms, UndefinedScoreError):
        assert "no path" in str(terms) or "no convolution" in str(terms)
        return
    assert all(math.isfinite(value) for value in vars(terms).values())
    assert 0 <= terms.W <= terms.P * (1 + 1e-9)
    assert 0 <= terms.E_m <= terms.S
    assert all(math.isfinite(terms.value(variant)) for variant in VARIANTS)


@st.composite
def networks(draw: st.DrawFn) -> zs.Architecture:
    """A network of any registered space, or any blocks in a row, with other sizes and classes."""
    if draw(st.booleans()):
        return draw(architectures())
    name, size = draw(st.sampled_from(zs.list_spaces())), draw(st.sampled_from([(3, 32, 32), (1, 28, 28), (3, 20, 14)]))
    space = zs.get_space(name, input_size=size, num_classes=draw(st.sampled_from([10, 100])))
    return space.sample(random.Random(draw(st.integers(0, 10**6))))


def outcome(score: float | ZeroShotNASError) -> tuple[float, dict[str, float]] | tuple[type, str]:
    """All that can be seen of a score."""
    return (type(score), str(score)) if isinstance(score, ZeroShotNASError) else (float(score), dict(score.details))


def alone(network: zs.Architecture, variant: str = "u") -> tuple[float, dict[str, float]] | tuple[type, str]:
    try:
        return outcome(cet(network, variant=variant))
    except ZeroShotNASError as error:
        return outcome(error)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(networks(), min_size=1, max_size=6), st.sampled_from(VARIANTS), st.integers(1, 4), st.randoms())
def test_side_by_side_is_as_alone_to_the_last_bit(nets, variant, chunk, rng):
    """Whatever stands beside a network, in any order, with duplicates, and however many run at once."""
    nets = rng.sample([*nets, *nets], 2 * len(nets))
    with mock.patch.object(score_module, "CHUNK", chunk):
        scores = cet_pool(nets, variant=variant)
        proxy = zs.get_proxy("cet", variant=variant).closed_forms(nets)
    expected = [alone(net, variant) for net in nets]
    assert list(map(outcome, scores)) == expected
    assert list(map(outcome, proxy)) == expected
    terms = [terms.details for terms in cet_terms_pool(nets) if isinstance(terms, CetTerms)]
    assert terms == [details for value, details in expected if isinstance(value, float)]


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("nasbench201", {"num_cells": 1}, 150),
        ("nasbench101", {}, 12),
        ("nasbench301", {}, 6),
        ("transnas_micro", {}, 40),
    ],
)
def test_many_side_by_side_are_as_alone_to_the_last_bit(name, options, count):
    """Enough rows that products and sums over whole arrays would go through other kernels than for one network."""
    space, rng = zs.get_space(name, input_size=(3, 32, 32), **options), random.Random(2)
    nets = [space.sample(rng) for _ in range(count)]
    assert list(map(outcome, cet_pool(nets))) == list(map(alone, nets))


def test_a_pool_of_none_is_empty():
    assert cet_pool([]) == cet_terms_pool([]) == []


def test_a_pool_leaves_no_traceback_that_holds_it():
    (error,) = cet_pool([SPACE.from_string("000000", notation="op_code")])
    assert isinstance(error, UndefinedScoreError)
    assert error.__traceback__ is None


def test_an_unknown_variant_is_every_networks_error():
    nets = [plain(1), SPACE.from_string("333333", notation="op_code"), SPACE.from_string("000000", notation="op_code")]
    scores = cet_pool(nets, variant="x")
    assert list(map(outcome, scores)) == [alone(net, "x") for net in nets]
    assert [type(score) for score in scores] == [ProxyError, ProxyError, UndefinedScoreError]


@pytest.mark.parametrize("rows", [1, 2, 7, 16, 100])
def test_a_product_has_the_same_bits_in_any_company(rows):
    rng = np.random.default_rng(rows)
    first, second, matrix = rng.random((rows, 2, 45)), rng.random((rows, 1, 45)), rng.random((45, 45))
    inner, product, modes = dots(first, second), times(first, matrix), effective_modes(first)
    for row in range(rows):
        assert (dots(first[row : row + 1], second[row : row + 1]) == inner[row]).all()
        assert (dots(first[row, 1], second[row, 0]) == inner[row, 1]).all()
        assert (times(first[row : row + 1], matrix) == product[row]).all()
        assert (effective_modes(first[row : row + 1]) == modes[row]).all()
    assert np.allclose(inner, (first * second).sum(-1))
    assert np.allclose(product, first @ matrix)


def plan_of(*digits: int, width: int = 8) -> Plan:
    cell = NASBench201Cell(out_channels=width, cell=cell_text(digits))
    return placed_sub_layer(cell, None, (8, 8)).plan


@given(st.lists(st.integers(0, 4), min_size=4, max_size=4), st.integers(1, 4), st.integers(1, 64))
def test_what_is_dead_changes_no_plan(digits, direct, width):
    """Edges are 01, 02, 12, 03, 13, 23: without 01 nothing comes through node 1, without 23 node 2 leads nowhere."""
    to_1, to_2, from_1, between = digits
    assert plan_of(0, to_2, between, direct, from_1, 3) is plan_of(0, to_2, 0, direct, 0, 3, width=width)
    assert plan_of(to_1, to_2, between, direct, from_1, 0) is plan_of(to_1, 0, 0, direct, from_1, 0, width=width)


def test_cells_with_their_inner_nodes_swapped_share_a_plan():
    assert plan_of(3, 4, 0, 1, 2, 3) is plan_of(4, 3, 0, 1, 3, 2)
    assert plan_of(3, 4, 0, 1, 2, 3) is not plan_of(3, 4, 0, 1, 3, 2)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=6, max_size=6), st.sampled_from([(8, 8), (6, 4), (2, 2)]))
def test_a_shared_plan_is_that_of_the_cell_itself(digits, resolution):
    """Traced one channel wide and scaled, or traced as it is."""
    cell = NASBench201Cell(out_channels=8, sub_layers=2, cell=cell_text(digits))
    net = zs.Architecture((*plain(1, width=8).blocks[:1], cell), (3, *resolution))
    (found,) = cet_terms_pool([net])
    if isinstance(found, CetTerms):
        rows = cet_explain(net)
        assert sum(row.effective_uses for row in rows) == pytest.approx(found.U, rel=1e-9)
        assert sum(row.effective_weights for row in rows) == pytest.approx(found.W, rel=1e-9)


def test_a_skip_lets_signal_through():
    chain, residual = (SPACE.from_string(code, notation="op_code") for code in ("303003", "303103"))
    assert cet_terms(residual).D_f < cet_terms(chain).D_f


def test_pooling_makes_patches_redundant():
    plain_cell, pooled = (SPACE.from_string(code, notation="op_code") for code in ("103003", "403003"))
    assert cet_terms(pooled).P < cet_terms(plain_cell).P


def test_what_has_no_score():
    with pytest.raises(UndefinedScoreError, match="no path leads from the input"):
        cet(SPACE.from_string("000000", notation="op_code"))
    with pytest.raises(UndefinedScoreError, match="full and for depthwise"):
        trace((Conv(8, 8, 3, groups=2),), (8, 4, 4))
    with pytest.raises(UndefinedScoreError, match="no rule for"):
        trace((Activation("sigmoid"),), (8, 4, 4))
    with pytest.raises(UndefinedScoreError, match="no path"):
        trace((Graph((Node((Edge(0, (Zero(),)),)),)),), (8, 4, 4))
    with pytest.raises(ProxyError, match="variants u, g, p, pf, gm"):
        cet(plain(1), variant="x")


def test_a_score_keeps_its_terms_in_a_pickle():
    score = cet(plain(1))
    again = pickle.loads(pickle.dumps(score))
    assert again == score
    assert again.details == score.details


def test_no_torch_is_loaded():
    code = "import sys; import zeroshot_nas.closed_form.cet.score; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
