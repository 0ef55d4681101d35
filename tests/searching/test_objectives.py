"""Searches of several objectives, and of rewards: what is asked for, what comes back, and that a run goes on."""

import itertools
import json
import math
import subprocess
import sys

import pytest

import zeroshot_nas as zs
from tests.latency.device import a_table
from zeroshot_nas.core.ranking import pareto_front
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import (
    BudgetError,
    ObjectiveError,
    ProxyError,
    SearcherError,
    SettingsChangedError,
    StoreError,
    UnknownNameError,
)
from zeroshot_nas.latency.base import BACKENDS
from zeroshot_nas.runs.inspect import best_so_far
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY, PROXIES, Proxy, ProxyInfo, get_proxy
from zeroshot_nas.searchers.base import SEARCHERS
from zeroshot_nas.searching import rounds
from zeroshot_nas.searching.objectives import check_reward, ranking

BUDGET = zs.Budget(params=40_000, layers=10)
HOW = {"input_size": (1, 8, 8), "proposals": 300, "finalists": 20, "repeats": 1, "progress": False}


def search(proxy=None, objectives=None, **options):
    how = {**HOW, **options}
    widths = {"max_width": 32} if how.get("searcher") == "exact" else {}  # it tabulates all of them
    if how.get("searcher") == "gradient":
        how["starts"] = 3
    space = zs.get_space("resnet", input_size=how.pop("input_size"), **widths)
    return zs.search(space, proxy, BUDGET, objectives=objectives, **how)


def outcome(result):
    history = [(each.architecture, each.costs, each.fitness) for each in result.history]
    front = [each.architecture for each in result.front]
    return result.best.architecture, history, result.counts, dict(result.failures), front


# what is asked for


@pytest.mark.parametrize(
    ("proxy", "names", "expected"),
    [
        (None, ("cet", "flops"), "cet flops"),
        (None, ("flops", "zen", "params"), "flops zen params"),
        (None, ("flops", "params"), f"{DEFAULT_SEARCH_PROXY} flops params"),
        ("zen", ("flops",), "zen flops"),
        ("zen", ("flops", "zen"), "flops zen"),
        ("zen:variant=zennas", ("flops", "zen:variant=zennas"), "flops zen:variant=zennas"),
        ("zen:variant=zennas", ("zen", "flops"), "zen:variant=zennas flops"),
        ("params", ("params", "flops"), "params flops"),
        ("params", ("flops", "layers"), "params flops layers"),
    ],
)
def test_one_objective_is_the_proxys_and_the_others_are_costs(proxy, names, expected):
    ranks, objectives = ranking(proxy, names)
    assert [each.name for each in objectives] == expected.split()
    assert [each.name for each in objectives if each.kind == "score"] == [ranks.key]
    assert all(each.direction == "lower" for each in objectives if each.kind == "cost")


def test_a_score_has_its_proxys_direction():
    assert [each.direction for each in ranking(None, ("ntk_cond", "flops"))[1]] == ["lower", "lower"]
    assert ranking(None, None) == (get_proxy(DEFAULT_SEARCH_PROXY), ())


@pytest.mark.parametrize(
    ("proxy", "names", "error", "message"),
    [
        (None, ("cet", "zen"), ObjectiveError, "cet and zen are proxies"),
        (None, ("cet", "zen", "flops"), ObjectiveError, "cet and zen are proxies"),
        ("cet", ("zen", "flops"), ObjectiveError, "name the proxy zen, and the proxy is cet"),
        (None, ("cet", "flosp"), UnknownNameError, "Did you mean 'flops'"),
        (None, ("cet", "depth_to_width"), ObjectiveError, "without a direction"),
        (None, ("cet",), ObjectiveError, "a proxy and one cost or more"),
        (None, (), ObjectiveError, "a proxy and one cost or more"),
        (None, ("cet", "flops", "flops"), ObjectiveError, "each once"),
        (None, ("cet", "cet", "flops"), ObjectiveError, "each once"),
        (None, ("cet", 3), ObjectiveError, "got 3; give a function as the proxy"),
        (None, ("zen:varient=zennas", "flops"), ProxyError, "Did you mean 'variant'"),
    ],
)
def test_contradictions_are_refused_in_a_line(proxy, names, error, message):
    with pytest.raises(error, match=message) as refused:
        search(proxy, names)
    assert "\n" not in str(refused.value)


def test_objectives_are_a_sequence_or_a_text():
    assert zs.SearchSettings(objectives="cet, flops").objectives == ("cet", "flops")
    assert zs.SearchSettings(objectives=["cet", "flops"]).objectives == ("cet", "flops")
    with pytest.raises(ObjectiveError, match="objectives are names"):
        zs.SearchSettings(objectives=3)


def test_the_strategy_follows_what_is_asked_for():
    assert zs.SearchSettings().searcher_name == "regularized_evolution"
    assert zs.SearchSettings(objectives="cet,flops").searcher_name == "nsga2"
    assert zs.SearchSettings(objectives="cet,flops", searcher="random").searcher_name == "random"
    assert search(objectives=("cet", "flops"), proposals=20).settings["searcher"] == "nsga2"


# fronts


@pytest.mark.filterwarnings("ignore::zeroshot_nas.errors.ProposalsWarning")
@pytest.mark.parametrize("searcher", zs.list_searchers())
@pytest.mark.parametrize(
    ("objectives", "options"),
    [
        (("cet", "flops", "activations"), {"proposals": 150}),
        (("flops", "zen"), {"proposals": 100, "finalists": 10}),
        (("naswot", "layers"), {"proposals": 12}),
        (("ntk_cond", "flops"), {"proposals": 8, "batch_size": 4}),
    ],
)
def test_the_front_is_of_the_objectives_and_comes_back_from_json(searcher, objectives, options):
    can_score = {"gradient": {"zen", "cet"}, "exact": {"zen"}}.get(searcher)
    if can_score and not can_score & set(objectives):
        with pytest.raises(SearcherError, match=f"{searcher} (climbs a|searches by|needs a sum)"):
            search(None, objectives, searcher=searcher, **options)
        return
    result = search(None, objectives, searcher=searcher, **options)
    assert [each.name for each in result.objectives] == list(objectives)
    alive = [each for each in result.history if math.isfinite(each.fitness)]
    points = [[each.minimised(candidate) for each in result.objectives] for candidate in alive]
    assert list(result.front) == [alive[place] for place in pareto_front(points)]
    assert result.best in result.front
    assert result.best.fitness == max(each.fitness for each in alive)
    assert not any(BUDGET.violations(each.costs) for each in result.history)
    again = zs.SearchResult.from_json(result.to_json())
    assert again == result
    assert again.front == result.front
    assert again.hypervolume() == result.hypervolume() > 0
    assert again.hypervolume().reference == result.hypervolume().reference


@pytest.mark.parametrize("searcher", ["nsga2", "random"])
@pytest.mark.parametrize("islands", [1, 3])
def test_the_screen_keeps_the_front_of_all_that_it_saw(searcher, islands):
    how = {"objectives": ("cet", "flops"), "searcher": searcher, "islands": islands, "proposals": 500}
    everything = search(finalists=500, **how)
    few = search(finalists=9, **how)
    assert len(everything.front) == len(everything.history) > 9, "no finalist is dominated"
    assert len(few.history) == 9
    values, kept = everything.front.values(), few.front.values()
    for end in (max(values, key=lambda each: each["cet"]), min(values, key=lambda each: each["flops"])):
        assert end in kept
    reference = everything.front.reference()
    assert few.hypervolume(reference) > 0.85 * everything.hypervolume(reference)


@pytest.mark.slow
def test_nsga2_finds_more_of_the_front_than_chance():
    volumes = {
        searcher: sum(
            search(
                None, ("cet", "flops", "params"), searcher=searcher, proposals=900, finalists=100, seed=seed
            ).hypervolume({"cet": 0, "flops": 4e6, "params": 40_000})
            for seed in range(2)
        )
        for searcher in ("nsga2", "random", "regularized_evolution")
    }
    assert volumes["nsga2"] > volumes["random"]
    assert volumes["nsga2"] > volumes["regularized_evolution"]


def test_same_seed_same_front_with_any_executor(processes):
    how = {"objectives": ("cet", "flops"), "islands": 2}
    first = search(**how)
    assert outcome(search(executor=processes, **how)) == outcome(first)
    assert outcome(search(seed=1, **how)) != outcome(first)


@pytest.mark.slow
def test_a_registered_cost_is_an_objective():
    script = """
import tests.costs.toys
import zeroshot_nas as zs
result = zs.search("resnet", None, zs.Budget(layers=10), objectives=("cet", "peak_width", "convolutions"),
                   input_size=(1, 8, 8), proposals=200, finalists=20, progress=False)
print([tuple(row.values())[1:] for row in result.front.values()][0] > (0, 0))
print(zs.SearchResult.from_json(result.to_json()).front == result.front, result.hypervolume() > 0)
"""
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert printed.split() == ["True", "True", "True"]


def test_a_run_that_was_stopped_goes_on_to_the_same_front(tmp_path, monkeypatch):
    how = {"objectives": ("zen", "flops"), "islands": 3, "finalists": 10}
    unbroken = search(**how)
    calls = []

    def dying(tasks, report=None):
        calls.append(len(tasks))
        if len(calls) == 3:
            raise SystemExit("power cut")
        return screen(tasks, report)

    screen = rounds.screen_islands
    monkeypatch.setattr(rounds, "screen_islands", dying)
    monkeypatch.setattr(rounds, "SIDE_BY_SIDE", 1)
    with pytest.raises(SystemExit):
        search(out=tmp_path, **how)
    monkeypatch.setattr(rounds, "screen_islands", screen)
    with pytest.raises(SettingsChangedError, match="objectives"):
        search(out=tmp_path, resume=True, **{**how, "objectives": ("zen", "params")})
    resumed = zs.resume(tmp_path, progress=False)
    assert outcome(resumed) == outcome(unbroken)
    assert zs.SearchResult.from_json((tmp_path / "result.json").read_text()).front == resumed.front


def test_settings_of_earlier_runs_are_what_they_were():
    settings = search("zen", proposals=20).settings
    assert "objectives" not in settings
    assert "reward" not in settings
    assert [each.name for each in search("zen", proposals=20).objectives] == ["fitness", "params", "flops"]


def test_a_study_searches_for_a_front():
    with zs.Study("resnet", "cet", BUDGET, objectives=("flops",), input_size=(1, 8, 8)) as study:
        for _ in range(12):
            study.evaluate(study.ask(10))
        result = study.result()
    assert [each.name for each in result.objectives] == ["cet", "flops"]
    assert result.settings["searcher"] == "nsga2"
    assert result.best in result.front
    with zs.Study("resnet", None, BUDGET, objectives=("flops",), input_size=(1, 8, 8)) as study:
        for candidate in study.ask(10):
            study.tell(candidate, -float(candidate.costs.layers))
        assert [each.name for each in study.result().objectives] == ["told", "flops"]


# latency


@pytest.fixture(scope="module")
def table():
    pytest.importorskip("sklearn")
    return a_table("resnet", fingerprint=BACKENDS["torch"].fingerprint())


def test_latency_is_predicted_where_it_is_an_objective_or_rewarded_without_a_limit(table):
    how = {"proposals": 200, "finalists": 20, "progress": False, "device_table": table}
    front = zs.search("resnet", "cet", BUDGET, objectives=("latency_ms",), **how)
    assert all(each.costs.latency_ms == table.latency_ms(each.architecture) for each in front.history)
    assert len(front.front) > 1
    assert front.latency is None
    assert front.settings["device_table"] == table.digest
    reward = zs.Reward("latency_ms", 0.5, exponent=-5, form="sum")
    soft = zs.search("resnet", "cet", BUDGET, reward=reward, **how)
    for each in soft.history:
        assert each.fitness == reward.of(each.scores["cet"].value, table.latency_ms(each.architecture))
    with pytest.raises(BudgetError, match="among the objectives, or rewarded"):
        zs.search("resnet", "cet", BUDGET, objectives=("flops",), **how)


# rewards


@pytest.mark.parametrize("searcher", zs.list_searchers())
@pytest.mark.parametrize(
    ("proxy", "reward"),
    [
        ("cet", "flops:target=200k:exponent=-3:form=sum"),
        ("zen", "params:exponent=-9:form=sum"),
        ("params", "flops:target=200k:exponent=-0.7"),
        ("layers", "activations:form=log:exponent=-2"),
    ],
)
def test_a_reward_is_what_every_strategy_maximises(searcher, proxy, reward):
    if searcher == "exact":
        with pytest.raises(SearcherError, match=r"rewarded by .* is no sum over blocks; set a budget in place"):
            search(proxy, searcher=searcher, reward=reward)
        return
    result = search(proxy, searcher=searcher, reward=reward)
    rewarded = zs.Reward.from_text(reward)
    assert result.settings["reward"] == rewarded.to_dict()
    for each in result.history:
        assert each.fitness == rewarded.of_costs(each.scores[proxy].value, each.costs)
        closed = each.scores.get(f"{proxy} in closed form")
        assert closed is None or closed.value == PROXIES[proxy].closed_form(each.architecture)
    assert result.best.fitness == max(each.fitness for each in result.history)
    assert zs.SearchResult.from_json(result.to_json()) == result


@pytest.mark.slow
def test_a_stronger_reward_gives_a_cheaper_network():
    flops = [
        search("cet", reward=zs.Reward("flops", 1e6, exponent=exponent, form="sum"), proposals=700).best.costs.flops
        for exponent in (-0.1, -1, -10)
    ]
    assert all(weaker > stronger for weaker, stronger in itertools.pairwise(flops))


def test_forward_passes_are_rewarded_and_leaders_told_apart():
    reward = zs.Reward("flops", 1e6, exponent=-0.5)
    result = search("swap", reward=reward, proposals=12, repeats=2, standard_error=0.5, max_repeats=16)
    assert {each.scores["swap"].repeats for each in result.history} > {2}
    assert all(each.fitness == reward.of_costs(each.scores["swap"].value, each.costs) for each in result.history)


@pytest.mark.parametrize("screen", [True, False])
def test_a_reward_that_no_network_has_is_said(table, screen):
    how = {"proposals": 20, "progress": False, "device_table": table, "screen": screen, "repeats": 1}
    proxy = "params" if screen else "swap"
    with pytest.raises(ProxyError, match=r"failed for all .*the reward log\(latency_ms\)\^-0.6 is undefined at"):
        zs.search("resnet", proxy, zs.Budget(layers=6, flops=4e6), reward="latency_ms:form=log:exponent=-0.6", **how)


@pytest.mark.parametrize("proxy", [name for name in zs.list_proxies() if not PROXIES[name].never_negative])
def test_a_factor_is_refused_where_scores_may_be_negative(proxy):
    with pytest.raises(ObjectiveError, match="take form='sum'"):
        check_reward(zs.Reward("flops", 1e6), get_proxy(proxy), ())
    check_reward(zs.Reward("flops", form="sum"), get_proxy(proxy), ())


NEVER_NEGATIVE = [name for name in zs.list_proxies() if PROXIES[name].never_negative and name != "supernet"]
"""But for what needs a run."""


@pytest.mark.parametrize("proxy", NEVER_NEGATIVE)
def test_scores_that_are_never_negative_are_not(proxy):
    check_reward(zs.Reward("flops", 1e6), get_proxy(proxy), ())
    space = zs.get_space("resnet", input_size=(3, 8, 8))
    for network in (space.initial(), space.smallest("params"), space.smallest("layers")):
        assert zs.score(network, proxy, repeats=1).value >= 0


def test_a_reward_stands_alone():
    with pytest.raises(ObjectiveError, match="give one"):
        search("params", ("params", "flops"), reward="flops:target=1M")
    with pytest.raises(ObjectiveError, match="tell the reward itself"):
        zs.Study("resnet", None, BUDGET, reward="flops:form=sum", input_size=(1, 8, 8))
    lower = Proxy(ProxyInfo("lower", lambda *_: 1.0, direction="lower", never_negative=True))
    with pytest.raises(ObjectiveError, match="is better where lower"):
        search(lower, reward="flops:target=1M")


def test_planners_are_told_of_the_reward():
    problems = []

    class Planner(SEARCHERS["random"]):
        def begin(self, problem):
            problems.append(problem)

    reward = zs.Reward("flops", 1e6, exponent=-2, form="sum")
    search("zen", reward=reward, searcher=Planner, proposals=10)
    net = zs.get_space("resnet", input_size=(1, 8, 8)).initial()
    expected = reward.of(PROXIES["zen"].closed_form(net), complexity(net).flops)
    for problem in problems:
        assert problem.closed_form(net) == expected
        assert problem.proxy == "zen rewarded by -2 log(flops / 1e+06)"
        assert problem.sign == 1


def test_a_rewarded_run_goes_on_and_names_its_best_so_far(tmp_path):
    how = {"reward": "flops:target=200k:exponent=-3:form=sum", "screen": False, "proposals": 40}
    result = search("cet", out=tmp_path, **how)
    (tmp_path / "result.json").unlink()
    best = best_so_far(tmp_path)
    assert zs.Architecture.from_dict(best["architecture"]) == result.best.architecture
    assert outcome(zs.resume(tmp_path, progress=False)) == outcome(result)
    with pytest.raises(SettingsChangedError, match="reward"):
        search("cet", out=tmp_path, resume=True, **{**how, "reward": None})


def test_a_run_that_rewards_latency_is_asked_for_its_best_by_itself(tmp_path, table):
    reward = zs.Reward("latency_ms", 0.5, form="sum")
    how = {"proposals": 20, "progress": False, "device_table": table, "out": tmp_path}
    zs.search("resnet", "cet", BUDGET, reward=reward, **how)
    with pytest.raises(StoreError, match="rewards latency"):
        best_so_far(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["settings"]["reward"]["cost"] == "latency_ms"
