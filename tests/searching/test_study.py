"""Study: what its caller's loop finds is what the search finds, with every space, proxy, executor and store."""

import json
import math
import random
import statistics
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas import cli
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import (
    ArchitectureError,
    InfeasibleBudgetError,
    OutputExistsError,
    ProxyError,
    SettingsChangedError,
    StoreError,
)
from zeroshot_nas.runs.inspect import best_so_far, export, summary
from zeroshot_nas.searching.study import PATIENCE

from .test_every_space import SMALL

pytestmark = pytest.mark.slow

CHAIN = "SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,8,1,8,1)SuperResK3K3(8,8,2,8,1)SuperConvK1BNRELU(8,8,1,1)"
BUDGET = zs.Budget(params=30_000, layers=12)
SPACE = {"input_size": (1, 8, 8), "num_classes": 3}
SCORES = {"batch_size": 4, "repeats": 1, "seed": 3}


def small(name):
    return zs.get_space(name, input_size=(1, 16, 16), num_classes=3, **SMALL.get(name, {}))


def outcome(result):
    """What does not depend on the clock."""
    history = [(each.architecture, each.string, each.costs, each.fitness) for each in result.history]
    return result.best.architecture, history, result.counts, dict(result.failures)


def driven(study, proposals):
    """A random search as a caller writes it."""
    rng = python_rng(3, 0)
    with study:
        while study.counts.proposed < proposals:
            n = min(8, proposals - study.counts.proposed)
            study.evaluate(study.admit([study.space.sample(rng) for _ in range(n)]))
        return study.result()


@pytest.mark.parametrize(
    ("space", "proxy"), [*((space, "naswot") for space in zs.list_spaces()), ("resnet", "az_nas"), ("resnet", "zen")]
)
def test_a_random_loop_of_ones_own_is_the_random_search(space, proxy):
    budget = zs.Budget(layers=30)
    scores = {"screen": False, "progress": False, **SCORES}
    searched = zs.search(small(space), proxy, budget, searcher="random", proposals=10, **scores)
    found = driven(zs.Study(small(space), proxy, budget, **SCORES), 10)
    assert outcome(found) == outcome(searched)
    assert {**found.settings, "searcher": "random"} == searched.settings | {"islands": None}


@pytest.mark.parametrize("searcher", zs.list_searchers())
def test_asking_for_generations_is_the_search(searcher):
    """A strategy that learns is told of the same networks in the same order."""
    how = {"searcher": searcher, **SCORES}
    space = zs.get_space("resnet", max_width=64, **SPACE)
    if searcher == "gradient":
        how["starts"] = 3
    if searcher == "reinforce":
        how["entropy_bonus"] = 0.0  # it falls until the last proposal, whose number a study does not know
    searched = zs.search(space, "zen", BUDGET, proposals=64, screen=False, progress=False, **how)
    with zs.Study(space, "zen", BUDGET, **how) as study:
        while study.counts.proposed < 64 and not study._proposer.exhausted:
            study.evaluate(study._proposer.ask(8))
        assert outcome(study.result()) == outcome(searched)


@settings(deadline=None, max_examples=12)
@given(n=st.integers(1, 12), seed=st.integers(0, 99), params=st.integers(10_000, 40_000))
def test_what_is_asked_for_is_new_within_the_budget_and_counted(n, seed, params):
    with zs.Study("resnet", None, zs.Budget(params=params), seed=seed, **SPACE) as study:
        asked = []
        for _ in range(3):
            asked += [study.tell(candidate, candidate.costs.flops) for candidate in study.ask(n)]
        counts = study.counts
        assert len(asked) == len({each.architecture for each in asked}) == 3 * n
        assert all(each.costs.params <= params and not study.violations(each) for each in asked)
        assert counts.proposed == counts.over_budget + counts.duplicate + 3 * n
        assert study.admit(asked) == []
        assert study.counts.duplicate == counts.duplicate + 3 * n


def test_a_small_space_gives_what_it_has():
    with zs.Study(small("transnas_macro"), "params", zs.Budget(layers=10), seed=1, searcher="random") as study:
        asked = study.ask(1_000)
        assert 0 < len(asked) == len({each.architecture for each in asked}) < 1_000
        assert study.counts.proposed > PATIENCE
        assert study.ask() == []


def test_a_network_over_the_budget_is_turned_away():
    with zs.Study("resnet", "params", zs.Budget(params=5_000), **SPACE) as study:
        large, small = CHAIN.replace("8,", "64,"), CHAIN
        admitted = study.admit([large, small, zs.Architecture.from_string(small, (1, 8, 8), 3)])
        assert [each.architecture.blocks[0].out_channels for each in admitted] == [8]
        assert (study.counts.over_budget, study.counts.duplicate) == (1, 1)
        assert [violation.cost for violation in study.violations(large)] == ["params"]


def test_a_fitness_of_the_callers_own_leads_and_teaches():
    with zs.Study("resnet", None, BUDGET, searcher="regularized_evolution", **SPACE) as study:
        for _ in range(300):
            (candidate,) = study.ask()
            told = study.tell(candidate, -abs(candidate.costs.flops - 1_200_000))
            assert told.fitness == told.scores["told"].value
        near = [abs(each.costs.flops - 1_200_000) for each in study.history]
        assert study.best.fitness == -min(near) == max(each.fitness for each in study.history)
        assert statistics.median(near[200:]) < statistics.median(near[:10])
        result = study.result()
        assert result.best == study.best.written_by(study.space)
        assert zs.SearchResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("executor", ["serial", "process"])
@pytest.mark.parametrize("proxy", ["naswot", "cet", "az_nas"])
def test_a_loop_that_was_stopped_goes_on_from_its_store(tmp_path, proxy, executor):
    whole = driven(zs.Study("resnet", proxy, BUDGET, **SPACE, **SCORES), 24)
    driven(zs.Study("resnet", proxy, BUDGET, out=tmp_path, **SPACE, **SCORES), 12)
    with pytest.raises(OutputExistsError):
        zs.Study("resnet", proxy, BUDGET, out=tmp_path, **SPACE, **SCORES)
    how = {"out": tmp_path, "resume": True, "executor": executor, **({} if executor == "serial" else {"workers": 1})}
    resumed = driven(zs.Study("resnet", proxy, BUDGET, **how, **SPACE, **SCORES), 24)
    assert outcome(resumed) == outcome(whole)
    assert outcome(driven(zs.resume(tmp_path), 24)) == outcome(whole)
    with pytest.raises(SettingsChangedError, match="seed"):
        zs.Study("resnet", proxy, BUDGET, **{**how, **SPACE, **SCORES, "seed": 4})


def test_told_values_are_kept_and_come_again(tmp_path):
    def begin(**where):
        return zs.Study("resnet", None, BUDGET, out=tmp_path, seed=5, **SPACE, **where)

    with begin() as study:
        told = [study.tell(candidate, place) for place, candidate in enumerate(study.ask(4))]
    with begin(resume=True) as study:
        asked = study.ask(6)
        assert [each.fitness for each in asked] == [0, 1, 2, 3, -math.inf, -math.inf]
        assert [each.architecture for each in asked[:4]] == [each.architecture for each in told]
        for place, candidate in enumerate(asked):
            study.tell(candidate, candidate.fitness if place < 4 else 10 + place)
        study.result()
    assert best_so_far(tmp_path)["score"]["value"] == 15
    assert json.loads((tmp_path / "best.json").read_text())["fitness"] == 15
    assert zs.resume(tmp_path).ask(6)[5].fitness == 15


def test_a_studys_folder_is_a_run(tmp_path, monkeypatch, capsys):
    driven(zs.Study("resnet", "cet", BUDGET, out=tmp_path / "s", **SPACE, seed=3), 12)
    assert (summary(tmp_path / "s")["kind"], summary(tmp_path / "s")["state"]) == ("study", "done")
    assert export(tmp_path / "s", "csv").count("\n") > 4

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["zeroshot-nas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, capsys.readouterr()

    code, printed = run("runs", "list", tmp_path)
    assert code == 0
    assert "study" in printed.out
    for command in ("show", "best"):
        assert run("runs", command, tmp_path / "s")[0] == 0
    assert run("score", tmp_path / "s" / "best.json", "--proxy", "cet")[0] == 0
    code, printed = run("resume", tmp_path / "s")
    assert code == 2
    assert "which its own program drives" in printed.err


def test_bad_input_is_refused_by_name(tmp_path):
    for name, value in (("proposals", 9), ("screen", False), ("finalists", 9), ("islands", 2)):
        with pytest.raises(TypeError, match=f"a Study takes no {name}"):
            zs.Study("resnet", **{name: value})
        with pytest.raises(TypeError, match=f"a Study takes no {name}"):
            zs.Study("resnet", settings=zs.SearchSettings(**{name: value}))
    with pytest.raises(TypeError, match="forse"):
        zs.Study("resnet", forse=True)
    with pytest.raises(InfeasibleBudgetError):
        zs.Study("resnet", budget=zs.Budget(params=3), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with zs.Study("resnet", "cet", BUDGET, **SPACE) as study:
        assert study.best is None
        assert study.evaluate([]) == []
        (candidate,) = study.ask()
        with pytest.raises(ProxyError, match="make it with proxy=None"):
            study.tell(candidate, 1.0)
        with pytest.raises(InfeasibleBudgetError, match="none of 1 proposed"):
            study.result()
        with pytest.raises(ArchitectureError, match="expected an Architecture"):
            study.admit([3])
        with pytest.raises(ArchitectureError, match="not in the space"):
            study.admit(["SuperConvK3BNRELU(1,8,1,1)"])
        with pytest.raises(ArchitectureError, match="classes"):
            study.admit([zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)")])
    with zs.Study("resnet", None, BUDGET, **SPACE) as study:
        (candidate,) = study.ask()
        with pytest.raises(ProxyError, match="tell its candidates"):
            study.evaluate([candidate])
        for fitness in (math.nan, math.inf):
            with pytest.raises(ValueError, match="a finite number"):
                study.tell(candidate, fitness)
        study.tell(candidate, 1)
        assert "1 scored, best 1.0" in repr(study)
    with pytest.raises(StoreError):
        zs.resume(tmp_path)


def test_the_global_random_state_is_left_as_found():
    random.seed(1)
    before = random.getstate()
    driven(zs.Study("resnet", "naswot", BUDGET, **SPACE, **SCORES), 8)
    assert random.getstate() == before
