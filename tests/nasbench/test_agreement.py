"""Statistics of rankings, against scipy, by hand, and by the laws that they keep."""

import csv
import gzip
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas.nasbench import agreement
from zeroshot_nas.nasbench.agreement import (
    bootstrap_interval,
    kendall,
    kendall_interval,
    ndcg,
    partial_kendall,
    regret,
    spearman,
    spearman_at_top,
    top_k_accuracy,
)

NAN = math.nan
SHARED = Path(__file__).parent.parent.parent / "../shared/data/nasbench"
"""Real tables, where they stand beside the checkout."""

CORRELATIONS = [kendall, spearman]
ALL = [kendall, spearman, spearman_at_top, ndcg, top_k_accuracy, regret]
NUMBERS = st.integers(-6, 6)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=30)


def columns(pairs):
    return tuple(np.array(pairs, dtype=float).T)


def close(a, b):
    return a == pytest.approx(b, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_scipys(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 12, 50)
    accuracy = scores + rng.integers(0, 20, 50)
    assert close(kendall(scores, accuracy), scipy.stats.kendalltau(scores, accuracy).statistic)
    assert close(spearman(scores, accuracy), scipy.stats.spearmanr(scores, accuracy).statistic)


def test_tau_b_by_hand():
    # 6 pairs: 4 agree, 1 disagrees (b, c), 1 is tied in score (a, b)
    assert close(kendall([1, 1, 2, 3], [10, 30, 20, 40]), (4 - 1) / math.sqrt((6 - 1) * 6))


def test_a_failure_is_worse_than_every_score():
    for function in ALL:
        assert close(function([NAN, -9e9, 3, 4], [10, 20, 30, 40]), function([1, 2, 3, 4], [10, 20, 30, 40]))
    assert kendall([NAN, NAN, 1], [1, 2, 3]) == kendall([0, 0, 1], [1, 2, 3])  # failures are tied
    assert kendall([NAN, -math.inf, 1], [1, 2, 3]) == kendall([0, 0, 1], [1, 2, 3])


@pytest.mark.parametrize("function", [kendall, spearman, lambda s, a: partial_kendall(s, a, [3, 1, 2])])
def test_a_constant_has_no_correlation(function):
    assert math.isnan(function([5, 5, 5], [1, 2, 3]))
    assert math.isnan(function([NAN] * 3, [1, 2, 3]))
    assert math.isnan(function([1, 2, 3], [7, 7, 7]))


def test_nothing_and_one_have_no_correlation():
    for function in ALL[:4]:
        assert math.isnan(function([], []))
        assert math.isnan(function([1], [2]))
    assert math.isnan(top_k_accuracy([], []))
    assert math.isnan(regret([], []))
    assert (top_k_accuracy([1], [2]), regret([1], [2])) == (2, 0)


def test_the_best_tenth_is_by_accuracy_with_its_ties():
    accuracy = [*range(18), 90, 95, 95]  # 21: the best three
    scores = [*range(100, 118), 3, 2, 1]
    assert close(spearman_at_top(scores, accuracy), spearman([3, 2, 1], [90, 95, 95]))
    assert math.isnan(spearman_at_top(range(20), range(20)))  # two architectures
    tied = [*range(7), 90, 90, 90]  # the tenth best of one, tied with two more
    assert math.isnan(spearman_at_top(range(10), tied))  # constant accuracy
    assert spearman_at_top([1, 5, 2, 4, 3], [10, 50, 20, 40, 30], share=1) == 1
    with pytest.raises(ValueError, match="share must be above 0 and at most 1, got 0"):
        spearman_at_top([1, 2], [1, 2], share=0)


def test_partial_tau_by_hand():
    scores, accuracy, control = [1, 2, 3, 4], [10, 30, 20, 40], [2, 1, 4, 3]
    # 6 pairs each: 5 to 1, 4 to 2, and of accuracy with control 3 to 3
    expected = (4 / 6 - 2 / 6 * 0) / math.sqrt((1 - (2 / 6) ** 2) * (1 - 0))
    assert close(partial_kendall(scores, accuracy, control), expected)


def test_partial_tau_without_a_meaning():
    assert math.isnan(partial_kendall([1, 2, 3, 4], [1, 3, 2, 4], [10, 20, 30, 40]))  # the control is the score
    assert math.isnan(partial_kendall([1, 3, 2, 4], [1, 2, 3, 4], [4, 3, 2, 1]))  # or the accuracy, backwards
    assert math.isnan(partial_kendall([1, 3, 2, 4], [1, 2, 3, 4], [7, 7, 7, 7]))


def test_partial_tau_sees_through_a_common_cause():
    rng = np.random.default_rng(0)
    size = rng.normal(size=2000)
    scores, accuracy = size + rng.normal(size=2000), size + rng.normal(size=2000)
    assert kendall(scores, accuracy) > 0.3
    assert partial_kendall(scores, accuracy, size) < 0.2


def test_ndcg_by_hand():
    gains = {10: 2**0 - 1, 20: 2**10 - 1, 30: 2**20 - 1}  # relevance 20 times the share of less accurate ones
    ideal = gains[30] + gains[20] / math.log2(3) + gains[10] / 2
    found = gains[20] + gains[30] / math.log2(3) + gains[10] / 2
    assert close(ndcg([1, 3, 2], [10, 20, 30]), found / ideal)
    assert close(ndcg([1, 3, 2], [10, 20, 30], k=1), gains[20] / gains[30])
    assert ndcg([1, 3, 2], [10, 20, 30], k=9) == ndcg([1, 3, 2], [10, 20, 30])
    tied = (gains[20] + gains[30]) / 2
    assert close(ndcg([1, 2, 2], [10, 20, 30]), (tied + tied / math.log2(3)) / ideal)
    assert ndcg([1, 2, 3], [7, 7, 7]) == 1  # every order is the true one


@pytest.mark.parametrize("k", [None, 7])
def test_ndcg_is_scikit_learns_with_these_gains(k):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    scores, accuracy = rng.integers(0, 9, 40), rng.integers(0, 30, 40)  # ties in both
    gains = 2 ** (20 * (scipy.stats.rankdata(accuracy) - 1) / 39) - 1
    assert close(ndcg(scores, accuracy, k), metrics.ndcg_score([gains], [scores], k=k))


def test_top_k_and_regret_by_hand():
    accuracy = [70, 80, 90, 60]
    assert top_k_accuracy([1, 3, 2, 0], accuracy) == 80
    assert top_k_accuracy([1, 3, 2, 0], accuracy, k=3) == 80
    assert top_k_accuracy([1, 3, 2, 0], accuracy, k=99) == 75
    assert (
        top_k_accuracy([9, 5, 5, 5], accuracy, k=2) == (70 + (80 + 90 + 60) / 3) / 2
    )  # over all ways to break the tie
    assert (regret([1, 3, 2, 0], accuracy), regret([1, 3, 2, 0], accuracy, k=2)) == (10, 5)


@pytest.mark.parametrize("function", [top_k_accuracy, regret, ndcg])
@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_k_is_a_count(function, k):
    with pytest.raises(ValueError, match="k must be a whole number of 1 or more"):
        function([1, 2], [1, 2], k=k)


@pytest.mark.parametrize("function", ALL)
def test_bad_input_is_refused(function):
    with pytest.raises(ValueError, match=r"one number an architecture on both sides, got shapes \(2,\) and \(3,\)"):
        function([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="got shapes"):
        function([[1, 2]], [[1, 2]])
    for gap in (NAN, math.inf):
        with pytest.raises(ValueError, match="accuracies must be finite numbers"):
            function([1, 2], [1, gap])


def test_inputs_stay_as_they_were():
    scores = np.array([NAN, 1.0, 2.0])
    for function in ALL:
        function(scores, [1, 2, 3])
    assert np.isnan(scores[0])


@given(PAIRS)
def test_only_the_order_of_the_scores_counts(pairs):
    scores, accuracy = columns(pairs)
    for function in ALL:
        assert close(function(np.exp(scores / 3) - 100, accuracy), function(scores, accuracy))


@given(PAIRS)
def test_only_the_order_of_the_accuracies_counts(pairs):
    scores, accuracy = columns(pairs)
    for function in (kendall, spearman, spearman_at_top, ndcg):
        assert close(function(scores, 50 + np.sinh(accuracy)), function(scores, accuracy))


@given(PAIRS, NUMBERS)
def test_order_reversed_and_sides_exchanged(pairs, seed):
    scores, accuracy = columns(pairs)
    for function in CORRELATIONS:
        assert close(function(-scores, accuracy), -function(scores, accuracy))
        assert close(function(accuracy, scores), function(scores, accuracy))
        assert close(function(scores, scores), NAN if len(set(scores)) == 1 else 1)


@given(PAIRS, st.integers(0, 99))
def test_it_does_not_matter_in_what_order_architectures_come(pairs, seed):
    scores, accuracy = columns(pairs)
    mixed = np.random.default_rng(seed).permutation(len(scores))
    for function in ALL:
        assert close(function(scores[mixed], accuracy[mixed]), function(scores, accuracy))
    control = np.arange(len(scores))
    assert close(
        partial_kendall(scores[mixed], accuracy[mixed], control[mixed]), partial_kendall(scores, accuracy, control)
    )


@given(PAIRS)
def test_ranges(pairs):
    scores, accuracy = columns(pairs)
    for function in (kendall, spearman, spearman_at_top, lambda s, a: partial_kendall(s, a, range(len(s)))):
        value = function(scores, accuracy)
        assert math.isnan(value) or -1 - 1e-9 <= value <= 1 + 1e-9
    assert ndcg(accuracy, accuracy) == pytest.approx(1)
    assert 0 <= ndcg(scores, accuracy) <= 1 + 1e-9
    assert min(accuracy) <= top_k_accuracy(scores, accuracy, 3) <= max(accuracy)
    assert regret(accuracy, accuracy) == 0 <= regret(scores, accuracy)


def test_bootstrap_is_a_function_of_its_seed():
    rng = np.random.default_rng(0)
    scores, accuracy = rng.normal(size=(2, 80))
    for interval in (kendall_interval, partial(bootstrap_interval, kendall)):
        first = interval(scores, accuracy, resamples=50, seed=3)
        assert first == interval(list(scores), accuracy, resamples=50, seed=3)
        assert first != interval(scores, accuracy, resamples=50, seed=4)


@given(PAIRS)
def test_tau_of_all_resamples_at_once_is_that_of_each(pairs):
    scores, accuracy = columns(pairs)
    scores[scores == 6] = NAN
    at_once = kendall_interval(scores, accuracy, resamples=20)
    each = bootstrap_interval(kendall, scores, accuracy, resamples=20)
    assert at_once == pytest.approx(each, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("count", "score_levels", "accuracy_levels"), [(501, 10_000, 10_000), (777, 9, 300), (1024, 2, 2)]
)
def test_resamples_of_many_are_scipys_bit_for_bit(count, score_levels, accuracy_levels):
    rng = np.random.default_rng(count)
    scores = rng.integers(score_levels, size=count) / 7
    accuracy = rng.integers(accuracy_levels, size=count) + scores
    scores[rng.integers(count, size=20)] = math.nan
    draws = [rng.integers(count, size=count) for _ in range(20)]
    draws.append(np.full(count, 5))  # a constant
    own, true = agreement.checked(scores, accuracy)
    values = agreement._resampled_tau_by_merging(own, true, iter(draws))
    expected = [kendall(scores[drawn], accuracy[drawn]) for drawn in draws]
    assert [repr(float(value)) for value in values] == [repr(value) for value in expected]
    at_once = kendall_interval(scores, accuracy, resamples=20)
    assert at_once == bootstrap_interval(kendall, scores, accuracy, resamples=20)


def test_bootstrap_has_the_width_that_theory_gives():
    numbers = np.random.default_rng(0).normal(size=400)
    for level, errors in ((0.95, 1.96), (0.68, 0.994)):
        low, high = bootstrap_interval(np.mean, numbers, level=level, resamples=2000)
        assert (high - low) / 2 == pytest.approx(errors * numbers.std() / 20, rel=0.1)
        assert (high + low) / 2 == pytest.approx(numbers.mean(), abs=0.01)


def test_bootstrap_covers_the_true_tau_as_often_as_it_says():
    true, inside = 2 / math.pi * math.asin(0.5), 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=60)
        accuracy = 0.5 * scores + math.sqrt(0.75) * rng.normal(size=60)
        low, high = kendall_interval(scores, accuracy, resamples=100, level=0.9)
        inside += low <= true <= high
    assert 30 <= inside <= 40


@pytest.mark.parametrize("interval", [kendall_interval, partial(bootstrap_interval, kendall)])
def test_bootstrap_leaves_out_what_is_undefined(interval):
    assert all(map(math.isnan, interval([1, 1, 1], [1, 2, 3], resamples=20)))
    assert all(map(math.isnan, interval([], [], resamples=20)))
    assert interval([1, 2], [1, 2], resamples=50) == (1, 1)  # half of the resamples are constant


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"level": 1}, "level must be between 0 and 1, got 1"),
        ({"resamples": 0}, "resamples must be a whole number of 1 or more, got 0"),
    ],
)
def test_bootstrap_refuses_bad_options(how, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(np.mean, [1, 2], **how)
    with pytest.raises(ValueError, match=message):
        kendall_interval([1, 2], [1, 2], **how)
    with pytest.raises(ValueError, match=r"one length, got lengths \[2, 3\]"):
        bootstrap_interval(kendall, [1, 2], [1, 2, 3])


@pytest.mark.skipif(not SHARED.exists(), reason="the real tables are not here")
@pytest.mark.parametrize("proxy", ["synflow", "nwot", "zen", "plain"])
def test_published_scores_have_their_published_correlations(proxy):
    def rows(name):
        opener = gzip.open if name.endswith(".gz") else open
        with opener(SHARED / name, "rt") as file:
            yield from csv.DictReader(file)

    accuracy = {row["index"]: float(row["c10_test_200"]) for row in rows("nb201_results.csv.gz")}
    scored = [row for row in rows("nb201_proxies.csv.gz") if row["dataset"] == "cifar10"]
    pairs = [float(row[proxy]) for row in scored], [accuracy[row["index"]] for row in scored]
    (known,) = (
        row
        for row in rows("reference_correlations.csv")
        if (row["target"], row["proxy"], row["n"]) == ("c10_test_200", proxy, "9445")
    )
    figures = {"kendall": kendall, "spearman": spearman, "spearman_top10pct": spearman_at_top}
    for column, function in figures.items():
        assert function(*pairs) == pytest.approx(float(known[column]), abs=2e-4), column
