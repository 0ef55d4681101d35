"""Every space as parameters of Optuna's trials: what is suggested, what is pruned, and that a seed settles it."""

import sys

import pytest

import zeroshot_nas as zs
from zeroshot_nas.errors import InfeasibleBudgetError, MissingExtraError, ProxyError, UndefinedScoreError
from zeroshot_nas.searching import optuna_objective
from zeroshot_nas.spaces.base import SPACES, register_space
from zeroshot_nas.spaces.resnet import resnet

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.ERROR)
DONE, PRUNED = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED

SAMPLERS = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=5),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=6),
}


def optimised(goal, sampler="tpe", trials=12, seed=0):
    study = optuna.create_study(directions=goal.directions, sampler=SAMPLERS[sampler](seed))
    study.optimize(goal, n_trials=trials)
    return study


def told(study):
    return [(trial.state, trial.params, trial.values) for trial in study.trials]


@pytest.mark.parametrize("space", zs.list_spaces())
def test_a_network_of_every_space_is_suggested_and_found_again(space):
    smallest = zs.get_space(space, input_size=(3, 16, 16)).smallest("params")
    budget = zs.Budget(params=4 * zs.cost(smallest).params)
    goal = zs.objective("flops", space, budget, input_size=(3, 16, 16))
    assert goal.directions == ["maximize"]
    study = optimised(goal, "random", 8)
    assert {trial.state for trial in study.trials} <= {DONE, PRUNED}
    done = [trial for trial in study.trials if trial.state == DONE]
    for trial in done:
        network = goal.architecture(trial)
        assert network in goal.space
        assert zs.cost(network).params <= budget.params
        assert trial.value == zs.score(network, "flops").value == trial.user_attrs["flops"]
        assert goal.space.text(network) == trial.user_attrs["architecture"]
    for trial in study.trials:
        if trial.state == PRUNED and "params" in trial.user_attrs:
            assert trial.user_attrs["params"] > budget.params


@pytest.mark.parametrize("space", ["resnet", "mobilenet", "vanilla", "inverted", "nasbench201", "nats_sss"])
def test_most_trials_of_a_tight_budget_are_worth_a_score(space):
    smallest = zs.get_space(space, input_size=(3, 16, 16)).smallest("params")
    goal = zs.objective(
        "params", space, zs.Budget(params=6 * zs.cost(smallest).params, layers=20), input_size=(3, 16, 16)
    )
    study = optimised(goal, "random", 40)
    assert sum(trial.state == DONE for trial in study.trials) >= 30


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_settles_the_study(sampler):
    objectives = ("cet", "flops") if sampler == "nsga2" else None
    studies = [
        optimised(
            zs.objective("cet", "resnet", zs.Budget(params=3e4, layers=9), input_size=(1, 8, 8), objectives=objectives),
            *(sampler, 20, seed),
        )
        for seed in (0, 0, 1)
    ]
    assert told(studies[0]) == told(studies[1]) != told(studies[2])


def test_score_against_flops():
    goal = zs.objective(None, "mobilenet", zs.Budget(params=5e4), input_size=(1, 8, 8), objectives=("flops", "cet"))
    assert goal.directions == ["minimize", "maximize"]
    study = optimised(goal, "nsga2", 20)
    for trial in study.best_trials:
        network = goal.architecture(trial)
        assert trial.values == [zs.cost(network).flops, zs.score(network, "cet").value]


def test_what_is_drawn_with_weights_is_scored_once(monkeypatch):
    calls = []
    score = optuna_objective.score
    monkeypatch.setattr(optuna_objective, "score", lambda *a, **k: calls.append(a) or score(*a, **k))
    goal = zs.objective("zen", "nasbench201", input_size=(3, 8, 8), repeats=2, seed=3)
    trial = optuna.trial.FixedTrial(dict.fromkeys(map(str, range(6)), 2))
    assert goal(trial) == goal(trial)
    assert len(calls) == 1
    network = goal.architecture(trial)
    assert goal(trial) == zs.score(network, "zen", repeats=2, seed=3).value


def test_a_reward_is_what_is_maximised():
    reward = "flops:target=100k:exponent=-0.07"
    goal = zs.objective("params", "nasbench201", input_size=(3, 8, 8), reward=reward)
    trial = optuna.trial.FixedTrial(dict.fromkeys(map(str, range(6)), 3))
    costs = zs.cost(goal.architecture(trial))
    assert goal(trial) == pytest.approx(costs.params * (costs.flops / 1e5) ** -0.07)


def never(network, batch, /):
    raise UndefinedScoreError("never defined")


def test_what_has_no_score_is_pruned():
    study = optimised(zs.objective(never, "nasbench201", input_size=(3, 8, 8), repeats=1), "random", 3)
    assert {trial.state for trial in study.trials} == {PRUNED}


def test_a_space_of_ones_own_is_suggested_too():
    if "mine" not in SPACES:
        register_space("mine")(
            lambda *, input_size, num_classes: resnet(input_size=input_size, num_classes=num_classes)
        )
    study = optimised(zs.objective("cet", "mine", zs.Budget(params=3e4, layers=9), input_size=(1, 8, 8)))
    assert any(trial.state == DONE for trial in study.trials)


def test_what_can_not_be_asked_is_refused():
    with pytest.raises(ProxyError, match="az_nas ranks a network among others"):
        zs.objective("az_nas", "resnet", zs.Budget(layers=8))
    with pytest.raises(InfeasibleBudgetError):
        zs.objective("cet", "resnet", zs.Budget(params=10))
    with pytest.raises(TypeError, match="layers"):
        zs.objective("cet", "resnet", layers=3)


def test_without_optuna_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    goal = zs.objective("cet", "nasbench201")
    trial = type("Trial", (), {"params": {}, "state": 1})()
    with pytest.raises(MissingExtraError, match=r"zeroshot-nas\[optuna\]"):
        goal(trial)
