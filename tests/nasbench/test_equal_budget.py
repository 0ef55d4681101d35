"""Figures at equal budget: by hand, against double loops and all ways to break ties, and by the laws that they keep."""

import itertools
import math
import statistics
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas.nasbench.agreement import kendall, kendall_interval
from zeroshot_nas.nasbench.agreement import regret as plain_regret
from zeroshot_nas.nasbench.equal_budget import (
    BINS,
    BUDGETS,
    CHOICES,
    EqualBudget,
    budget_bins,
    budgets_of,
    equal_budgets,
    kendall_within,
    regret_under,
)

NAN = math.nan
NUMBERS = st.integers(-5, 5)
NETWORKS = st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(0, 3)), min_size=2, max_size=24)
"""Score, accuracy, cost; with ties in each."""


def columns(networks):
    return tuple(np.array(networks, dtype=float).T)


def close(a, b):
    return a == pytest.approx(b, abs=1e-9, nan_ok=True)


def naive_tau(scores, accuracy, bins):
    """The definition, pair by pair."""
    agreeing = apart_scores = apart_accuracy = 0
    for i, j in itertools.combinations(range(len(scores)), 2):
        if bins[i] == bins[j]:
            by_score, by_accuracy = np.sign(scores[i] - scores[j]), np.sign(accuracy[i] - accuracy[j])
            agreeing += by_score * by_accuracy
            apart_scores += by_score != 0
            apart_accuracy += by_accuracy != 0
    return agreeing / math.sqrt(apart_scores * apart_accuracy) if apart_scores and apart_accuracy else NAN


def naive_regret(scores, accuracy, costs, budget, k):
    """The definition, over all choices of the k first that break ties in some way."""
    inside = [place for place in range(len(scores)) if costs[place] <= budget]
    if not inside:
        return NAN
    least = sorted((scores[place] for place in inside), reverse=True)[: min(k, len(inside))][-1]
    sure = [place for place in inside if scores[place] > least]
    tied = [place for place in inside if scores[place] == least]
    ways = itertools.combinations(tied, min(k, len(inside)) - len(sure))
    bests = [max(accuracy[place] for place in (*sure, *way)) for way in ways]
    return max(accuracy[place] for place in inside) - statistics.fmean(bests)


# bins and budgets


def test_bins_are_exact_groups_where_many_networks_share_a_cost():
    rng = np.random.default_rng(0)
    params = np.array([129_306, 157_306, 802_426])[rng.integers(3, size=50)]
    labels, exact = budget_bins(params)
    assert exact
    assert labels.tolist() == np.searchsorted([129_306, 157_306, 802_426], params).tolist()
    for size in (60, 300, 15_625):  # as many operations of two kinds on six edges: NAS-Bench-201's 28 costs
        cells = rng.integers(5, size=(size, 6))
        labels, exact = budget_bins((cells == 3).sum(1) * 243_040 + (cells == 2).sum(1) * 28_000)
        assert exact
        assert labels.max() < 28


@pytest.mark.parametrize(("size", "bins"), [(4, 2), (25, 2), (30, 3), (199, 19), (200, 20), (5_000, 20)])
def test_else_they_are_quantiles_of_ten_networks_or_more(size, bins):
    labels, exact = budget_bins(np.random.default_rng(size).permutation(size))
    assert not exact
    sizes = np.bincount(labels)
    assert len(sizes) == bins <= BINS
    assert sizes.max() - sizes.min() <= 1
    assert size < 20 or sizes.min() >= 10


def test_one_cost_that_many_have_does_not_make_all_bins_exact():
    costs = [5.0] * 40 + list(np.linspace(6, 9, 60))  # six of ten have no equal
    labels, exact = budget_bins(costs)
    assert not exact
    assert len(set(labels[:40])) == 1
    assert len(set(labels[40:])) > 4


@given(NETWORKS, st.integers(1, 9))
def test_equal_costs_are_never_parted_and_bins_ascend(networks, number):
    costs = columns(networks)[2]
    for labels, _ in (budget_bins(costs), budget_bins(costs, number)):
        order = np.argsort(costs, kind="stable")
        assert (np.diff(labels[order]) >= 0).all()
        assert set(labels) == set(range(labels.max() + 1))
        for one, other in itertools.pairwise(order):
            assert costs[one] != costs[other] or labels[one] == labels[other]
    assert labels.max() < number


def test_the_last_budget_is_the_largest_cost_and_each_is_some_networks():
    costs = np.random.default_rng(0).normal(size=777)
    budgets = budgets_of(costs)
    assert len(budgets) == BUDGETS
    assert budgets[-1] == costs.max()
    assert set(budgets) <= set(costs)
    inside = np.array([(costs <= budget).mean() for budget in budgets])
    assert np.abs(inside - np.arange(1, BUDGETS + 1) / BUDGETS).max() < 1 / 777
    assert budgets_of([3, 3, 3]).tolist() == [3]


# tau within bins


def test_tau_within_bins_by_hand():
    # first bin: 2 agree, 1 disagrees; second: 1 agrees of 3, one tied in score, one in accuracy
    scores, accuracy = [1, 2, 3, 50, 50, 60], [10, 30, 20, 5, 8, 8]
    assert close(kendall_within(scores, accuracy, [0, 0, 0, 1, 1, 1]), (2 - 1 + 1) / math.sqrt(5 * 5))
    assert kendall_within(scores, accuracy, ["a", "a", "a", "b", "b", "b"]) == kendall_within(
        scores, accuracy, [0, 0, 0, 1, 1, 1]
    )


@given(NETWORKS)
def test_tau_within_bins_is_the_double_loops(networks):
    scores, accuracy, bins = columns(networks)
    assert close(kendall_within(scores, accuracy, bins), naive_tau(scores, accuracy, bins))


@given(NETWORKS)
def test_with_one_bin_it_is_plain_tau(networks):
    scores, accuracy, _ = columns(networks)
    assert close(kendall_within(scores, accuracy, np.zeros(len(scores))), kendall(scores, accuracy))


@given(NETWORKS)
def test_only_the_order_within_a_bin_counts(networks):
    scores, accuracy, bins = columns(networks)
    plain = kendall_within(scores, accuracy, bins)
    assert close(kendall_within(np.exp(scores / 3) - 100, accuracy, bins), plain)
    assert close(kendall_within(scores + 100 * bins, accuracy - 50 * bins, bins), plain)  # bins apart, in any order
    assert close(kendall_within(-scores, accuracy, bins), -plain)
    assert close(kendall_within(accuracy, scores, bins), plain)


@given(NETWORKS)
def test_a_perfect_score_and_a_constant_one(networks):
    _, accuracy, bins = columns(networks)
    some_differ = any(len(set(accuracy[bins == each])) > 1 for each in bins)
    assert close(kendall_within(accuracy, accuracy, bins), 1 if some_differ else NAN)
    assert math.isnan(kendall_within(np.ones(len(bins)), accuracy, bins))
    assert math.isnan(kendall_within(bins, accuracy, bins))  # size alone says nothing at equal size


def test_failures_are_worse_than_every_score():
    assert kendall_within([NAN, -9e9, 3, 4], [1, 2, 3, 4], [0, 0, 0, 0]) == 1
    assert close(kendall_within([NAN, NAN, 1], [1, 2, 3], [0, 0, 0]), kendall([0, 0, 1], [1, 2, 3]))


def test_many_networks_in_one_bin_are_counted_in_parts():
    rng = np.random.default_rng(0)
    scores, accuracy = rng.integers(90, size=(2, 3_000))
    assert close(kendall_within(scores, accuracy, np.zeros(3_000)), kendall(scores, accuracy))


# regret


@given(NETWORKS, st.integers(1, 6), st.integers(0, 3))
def test_regret_is_that_of_all_ways_to_break_ties(networks, k, budget):
    scores, accuracy, costs = columns(networks[:12])
    (found,) = regret_under(scores, accuracy, costs, [budget], k)
    assert close(found, naive_regret(scores, accuracy, costs, budget, k))


@given(NETWORKS, st.integers(1, 6))
def test_regret_follows_the_order_of_the_score_alone(networks, k):
    scores, accuracy, costs = columns(networks)
    budgets = budgets_of(costs)
    found = regret_under(scores, accuracy, costs, budgets, k)
    assert (found >= 0).all()
    assert close(regret_under(np.exp(scores / 3) - 100, accuracy, costs, budgets, k), found)
    assert close(regret_under(scores, accuracy, np.exp(costs), np.exp(budgets), k), found)
    assert close(regret_under(scores, 3 * accuracy - 7, costs, budgets, k), 3 * found)
    assert (regret_under(scores, accuracy, costs, budgets, k + 1) <= found + 1e-9).all()


@given(NETWORKS, st.integers(1, 6))
def test_a_perfect_choice_lacks_nothing(networks, k):
    _, accuracy, costs = columns(networks)
    assert (regret_under(accuracy, accuracy, costs, budgets_of(costs), k) == 0).all()


@given(NETWORKS)
def test_without_a_budget_it_is_plain_regret(networks):
    scores, accuracy, costs = columns(networks)
    assert close(regret_under(scores, accuracy, costs, [costs.max()])[0], plain_regret(scores, accuracy))


@pytest.mark.parametrize("k", [1, 3, CHOICES])
def test_a_constant_score_is_a_random_choice(k):
    rng = np.random.default_rng(k)
    accuracy, costs = rng.normal(size=40), rng.normal(size=40)
    found = regret_under(np.zeros(40), accuracy, costs, [np.median(costs), costs.max()], k)
    for regret, inside in zip(found, (np.flatnonzero(costs <= np.median(costs)), np.arange(40)), strict=True):
        draws = [accuracy[rng.choice(inside, k, replace=False)].max() for _ in range(4_000)]
        assert regret == pytest.approx(accuracy[inside].max() - np.mean(draws), abs=0.05)


def test_long_ties_behind_the_first_choices_are_shared():
    rng = np.random.default_rng(3)
    accuracy = rng.normal(size=900)
    scores = np.where(np.arange(900) < 3, 2.0, 1.0)  # three choices for sure, two of 897
    (found,) = regret_under(scores, accuracy, np.zeros(900), [0], 5)
    draws = [max(accuracy[:3].max(), accuracy[3 + rng.choice(897, 2, replace=False)].max()) for _ in range(20_000)]
    assert found == pytest.approx(accuracy.max() - np.mean(draws), abs=0.02)


def test_nobody_within_the_budget():
    assert math.isnan(regret_under([1, 2], [1, 2], [5, 6], [4])[0])


# all of it, with intervals


def test_figures_are_those_of_the_functions():
    rng = np.random.default_rng(1)
    accuracy, flops, params = rng.normal(size=(3, 260))
    scores = {"good": accuracy + rng.normal(size=260), "tied": np.round(accuracy + rng.normal(size=260))}
    sweeps, figures = equal_budgets(scores, accuracy, {"flops": flops, "params": params}, resamples=60)
    assert list(sweeps) == ["flops", "params"]
    for kind, costs in (("flops", flops), ("params", params)):
        sweep = sweeps[kind]
        assert (sweep.networks, sweep.exact, sweep.bins) == (260, False, 20)
        assert sweep.pairs == sum(size * (size - 1) // 2 for size in np.bincount(budget_bins(costs)[0]))
        for proxy, values in scores.items():
            each = figures[proxy][kind]
            assert close(each.kendall, kendall_within(values, accuracy, budget_bins(costs)[0]))
            assert each.kendall_interval[0] < each.kendall < each.kendall_interval[1]
            for k, mean, interval, several in (
                (1, each.regret, each.regret_interval, each.regrets),
                (CHOICES, each.regret_of_five, each.regret_of_five_interval, each.regrets_of_five),
            ):
                assert close(several, tuple(regret_under(values, accuracy, costs, sweep.budgets, k)))
                assert close(mean, np.mean(several))
                assert 0 <= interval[0] < interval[1]
        random = sweep.random
        assert close(random.regrets, tuple(regret_under(np.zeros(260), accuracy, costs, sweep.budgets)))
        assert (random.kendall, random.kendall_interval, random.regret_interval) == (0, None, None)
        assert figures["good"][kind].regret < random.regret


def test_the_interval_of_tau_is_the_bootstraps():
    rng = np.random.default_rng(2)
    accuracy = rng.integers(9, size=80).astype(float)
    scores = accuracy + rng.integers(9, size=80)
    _, figures = equal_budgets({"a": scores}, accuracy, {"flops": np.ones(80)}, resamples=200, seed=7)
    expected = kendall_interval(scores, accuracy, resamples=200, seed=7)  # one bin, the same draws
    assert figures["a"]["flops"].kendall_interval == pytest.approx(expected, abs=1e-9)


def test_the_interval_of_regret_is_that_of_the_networks_drawn():
    rng = np.random.default_rng(4)
    accuracy, costs = rng.normal(size=(2, 90))
    scores = np.round(accuracy + rng.normal(size=90))
    _, figures = equal_budgets({"a": scores}, accuracy, {"flops": costs}, resamples=50, seed=3)
    draws = np.random.default_rng(3)
    means = {1: [], CHOICES: []}
    for _ in range(50):
        drawn = np.unique(draws.integers(90, size=90))
        for k, values in means.items():
            values.append(np.nanmean(regret_under(scores[drawn], accuracy[drawn], costs[drawn], budgets_of(costs), k)))
    each = figures["a"]["flops"]
    for k, interval in ((1, each.regret_interval), (CHOICES, each.regret_of_five_interval)):
        assert interval == pytest.approx(tuple(np.quantile(means[k], [0.025, 0.975])))


def test_what_has_no_figures():
    accuracy, costs = [1.0, 2, 3, 4, 5], [1, 1, 2, 2, 2]
    scores = {"dead": [NAN] * 5, "constant": [7.0] * 5, "size": costs}
    sweeps, figures = equal_budgets(scores, accuracy, {"flops": costs}, resamples=30)
    assert figures["dead"]["flops"] == EqualBudget()
    for proxy in ("constant", "size"):
        assert (figures[proxy]["flops"].kendall, figures[proxy]["flops"].kendall_interval) == (None, None)
    assert close(figures["constant"]["flops"].regrets, sweeps["flops"].random.regrets)
    assert close(figures["constant"]["flops"].regrets_of_five, sweeps["flops"].random.regrets_of_five)


def test_networks_without_a_cost_are_left_out_of_its_figures():
    rng = np.random.default_rng(5)
    accuracy, latency = rng.normal(size=(2, 50))
    gaps = np.where(np.arange(50) < 9, NAN, latency)
    gaps[9] = math.inf
    sweeps, figures = equal_budgets({"a": accuracy}, accuracy, {"latency_ms": gaps, "none": [NAN] * 50}, resamples=20)
    assert list(sweeps) == list(figures["a"]) == ["latency_ms"]
    assert sweeps["latency_ms"].networks == 40
    other = equal_budgets({"a": accuracy[10:]}, accuracy[10:], {"latency_ms": latency[10:]}, resamples=20)
    assert (sweeps, figures) == other


def test_the_same_seed_gives_the_same_figures():
    rng = np.random.default_rng(6)
    accuracy, costs, scores = rng.normal(size=(3, 70))
    first, again, other = (
        equal_budgets({"a": scores}, accuracy, {"flops": costs}, resamples=40, seed=seed)[1]["a"]["flops"]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first.kendall_interval != other.kendall_interval
    assert first.regrets == other.regrets


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: budget_bins([1, NAN]), "costs must be one finite number a network"),
        (lambda: budget_bins([[1, 2]]), "costs must be one finite number a network"),
        (lambda: budget_bins([1, 2], bins=0), "bins must be a whole number of 1 or more, got 0"),
        (lambda: kendall_within([1, 2], [1, 2, 3], [0, 0]), "one number an architecture on both sides"),
        (lambda: kendall_within([1, 2], [1, 2], [0]), r"one bin a network, 2 in all, got shape \(1,\)"),
        (lambda: kendall_within([1, 2], [1, NAN], [0, 0]), "accuracies must be finite"),
        (lambda: regret_under([1, 2], [1, 2], [1, 2], [2], k=0), "k must be a whole number of 1 or more, got 0"),
        (lambda: regret_under([1, 2], [1, 2], [1], [2]), "one number an architecture on both sides"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_a_whole_benchmark_takes_seconds():
    rng = np.random.default_rng(0)
    cells = rng.integers(5, size=(15_625, 6))
    params = (cells == 3).sum(1) * 243_040.0 + (cells == 2).sum(1) * 28_000
    accuracy = params / 1e5 + rng.normal(size=15_625)
    scores = {f"proxy {place}": accuracy + rng.normal(size=15_625) for place in range(12)}
    start = time.process_time()
    sweeps, figures = equal_budgets(
        scores, accuracy, {"flops": rng.normal(size=15_625), "params": params}, resamples=200
    )
    assert time.process_time() - start < 30  # some five on an idle core
    assert (sweeps["params"].exact, sweeps["flops"].exact, len(figures)) == (True, False, 12)
