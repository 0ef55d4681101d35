"""REINFORCE: what it learns from, what it proposes, and what it refuses."""

import pytest

import zeroshot_nas as zs
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.searchers.base import Candidate, Problem
from zeroshot_nas.searchers.reinforce import Reinforce

SPACE = zs.get_space("resnet", input_size=(1, 8, 8))
BUDGET = zs.Budget(params=50_000, layers=10)


def candidate(architecture, fitness):
    return Candidate(architecture, complexity(architecture), {}, fitness)


def proposals_of(fitness, rounds=12, size=16, **options):
    """Networks that are proposed where each has the fitness that a function gives."""
    searcher = Reinforce(SPACE, python_rng(0), SPACE.initial(), networks_per_step=size, **options)
    searcher.begin(Problem(BUDGET, "params"))
    proposals = []
    for _ in range(rounds):
        asked = searcher.ask(size)
        proposals += asked
        searcher.tell([candidate(network, value) for network in asked if (value := fitness(network)) is not None])
    return proposals


def params(network):
    return float(complexity(network).params)


def test_the_start_comes_first():
    assert proposals_of(params, rounds=1)[0] == SPACE.initial()


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**60])
def test_a_scores_scale_changes_nothing(factor):
    assert proposals_of(lambda network: factor * params(network)) == proposals_of(params)


def test_a_score_far_out_moves_the_policy_no_further_than_the_limit():
    def with_outlier(height):
        return proposals_of(lambda network: height if network == SPACE.initial() else 0.0, rounds=3)

    assert with_outlier(1e6) == with_outlier(2.0**70 * 1e6)


@pytest.mark.slow
def test_it_learns_what_pays():
    def mean(networks):
        return sum(map(params, networks)) / len(networks)

    learned = proposals_of(params, rounds=75)
    against = proposals_of(lambda network: -params(network), rounds=75)
    assert 1.3 * mean(against[-160:]) < mean(against[:160])
    assert mean(learned[:160]) < mean(learned[-160:])


def test_without_rewards_it_stays_as_it_was():
    """Networks that failed, or are not scored yet, teach nothing."""
    searcher = Reinforce(SPACE, python_rng(0), SPACE.initial())
    searcher.begin(Problem(BUDGET, "params"))
    nothing = [searcher.ask(1) for _ in range(100)]
    assert [network for (network,) in nothing] == proposals_of(lambda network: None, rounds=1, size=100)
    failed = proposals_of(lambda network: float("nan"), rounds=10)
    assert failed == proposals_of(lambda network: None, rounds=10)


def test_equal_rewards_teach_nothing_but_entropy():
    assert proposals_of(lambda network: 7.0, entropy_bonus=0.0) == proposals_of(lambda network: None)


def test_the_budget_is_never_broken_whatever_pays():
    for sign in (1, -1):
        for network in proposals_of(lambda network, sign=sign: sign * params(network), rounds=40):
            assert not BUDGET.violations(complexity(network), network)


def test_a_tighter_limit_holds_from_then_on():
    searcher = Reinforce(SPACE, python_rng(0), SPACE.initial())
    for limit in (50_000, 10_000, 3_000):
        budget = zs.Budget(params=limit)
        searcher.begin(Problem(budget, "params"))
        proposals = searcher.ask(50)
        assert max(map(params, proposals)) <= limit
        searcher.tell([candidate(network, params(network)) for network in proposals])


def test_a_budget_that_nothing_keeps_to_ends_the_search():
    searcher = Reinforce(SPACE, python_rng(0), SPACE.initial())
    searcher.begin(Problem(zs.Budget(params=10), "params"))
    assert searcher.ask(3) == []


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["cet", "zen_closed_form"])
def test_it_keeps_up_with_evolution(proxy):
    best = {}
    for searcher in ("reinforce", "regularized_evolution", "random"):
        result = zs.search(SPACE, proxy, BUDGET, searcher=searcher, proposals=1500, finalists=1, progress=False)
        best[searcher] = result.best.fitness
        if searcher == "reinforce":
            assert result.counts.over_budget == 0
    assert best["reinforce"] > best["random"]
    assert best["reinforce"] >= 0.98 * best["regularized_evolution"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("learning_rate", value) for value in (0, -1, float("inf"), float("nan"))),
        *(("entropy_bonus", value) for value in (-0.1, float("inf"), float("nan"))),
        *(("networks_per_step", value) for value in (0, -3)),
        *(("baseline_decay", value) for value in (-0.1, 1, float("nan"))),
    ],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} must be"):
        Reinforce(SPACE, python_rng(0), SPACE.initial(), **{option: value})


def test_an_option_of_another_type_is_refused():
    with pytest.raises(ValueError, match="learning_rate must be a number, got 'fast'"):
        zs.search(SPACE, "params", searcher="reinforce", learning_rate="fast", progress=False)
