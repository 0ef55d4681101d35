"""Trials of a search: they decide by validation accuracy, go on where they were, and are the same however computed."""

import json
import signal
import sys
from dataclasses import replace

import pytest
import torch

import zeroshot_nas as zs
from tests.searching.test_every_space import SMALL
from zeroshot_nas import cli
from zeroshot_nas.errors import SettingsChangedError, TrainingError
from zeroshot_nas.searching import rounds, trial_runs
from zeroshot_nas.searching.signature import signature
from zeroshot_nas.training import learner, trainer
from zeroshot_nas.training.base import load_data

pytestmark = pytest.mark.slow

BUDGET = zs.Budget(params=5_000, flops=4e5, layers=10)
RECIPE = zs.Recipe(epochs=9, batch_size=256, warmup_epochs=1)
TIGHT = {"nasbench_macro": 400_000}
"""Parameters, of a space whose smallest network has more than others are held to: hand-made ones fill any budget."""


def search(data="digits", recipe=RECIPE, space="resnet", **how):
    how = {"input_size": (1, 8, 8), "trials": 4, "finalists": 30, "proposals": 400, "proxy": "cet", **how}
    return zs.search(space, how.pop("proxy"), BUDGET, seed=3, data=data, recipe=recipe, progress=False, **how)


def outcome(result):
    history = [(each.architecture, each.string, each.costs, each.fitness) for each in (result.best, *result.history)]
    return history, result.trials, result.state


@pytest.fixture(scope="module")
def unbroken():
    return search()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    search(out=folder)
    return folder


def dying_at(monkeypatch, call, die):
    calls, real = [], learner.Learner._train_epoch

    def dying(self, epoch):
        calls.append(epoch)
        if len(calls) == call:
            die()
        return real(self, epoch)

    monkeypatch.setattr(learner.Learner, "_train_epoch", dying)
    return calls


def power_cut():
    raise SystemExit("power cut")


def test_the_most_accurate_is_the_best_and_the_better_half_goes_on(unbroken):
    table = unbroken.trials
    assert [(each.networks, each.until) for each in table.rounds] == [(4, 1), (2, 3)]
    assert table.epochs == 8 <= table.recipe_epochs == 9
    for number, each in enumerate(table.rounds, start=1):
        played = [trial for trial in table.trials if len(trial.accuracies) >= number]
        assert len(played) == each.networks
        gone_on = [trial.accuracies[number - 1] for trial in played if trial.dropped != number]
        dropped = [trial.accuracies[number - 1] for trial in played if trial.dropped == number]
        assert min(gone_on) >= max(dropped)
    assert unbroken.best.architecture == table.winner.architecture
    assert zs.Architecture.from_string(unbroken.best.string, (1, 8, 8)) == table.winner.architecture
    assert {trial.name.split("-")[0] for trial in table.trials} > {"found"}
    assert not any(BUDGET.violations(trial.costs, trial.architecture) for trial in table.trials)
    assert zs.SearchResult.from_json(unbroken.to_json()) == unbroken


def test_score_and_place_are_those_of_the_search_without_trials(unbroken):
    plain = zs.search("resnet", "cet", BUDGET, proposals=400, finalists=30, input_size=(1, 8, 8), seed=3,
                      progress=False)  # fmt: skip
    assert plain.trials is None
    assert [each.fitness for each in unbroken.history[:30]] == [each.fitness for each in plain.history]
    ranked = sorted(unbroken.history, key=lambda each: -each.fitness)
    for trial in unbroken.trials.trials:
        assert trial.score == zs.score(trial.architecture, "cet").value
        fitter = sum(each.fitness > trial.score for each in ranked)
        if trial.name.startswith("found-"):
            assert ranked[trial.place - 1].architecture == trial.architecture
            assert trial.name == f"found-{trial.place}"
        else:
            assert trial.place == fitter + 1
    assert unbroken.trials.trials[0].architecture == plain.best.architecture


def test_beside_the_finalists_those_stay_that_are_the_best_of_their_kind_of_all_that_were_screened():
    how = {"trials": 2, "recipe": replace(RECIPE, epochs=2, warmup_epochs=1), "space": "vanilla", "proposals": 1_000}
    few, everything = (search(finalists=count, **how) for count in (3, 1_000))
    best_of = {}
    for each in everything.history:  # fittest first
        best_of.setdefault(signature(each.architecture), each.fitness)
    fittest = [each.fitness for each in everything.history]
    expected = {*fittest[:3], *list(best_of.values())[:8]}
    assert len(best_of) >= 8
    assert [each.fitness for each in few.history] == sorted(expected, reverse=True)


def test_the_winner_goes_on_to_the_training_that_it_would_have_had_alone(finished, unbroken, tmp_path):
    winner = unbroken.trials.winner
    folder = finished / trial_runs.FOLDER / winner.name
    before = json.loads((folder / "train.json").read_text())
    assert (before["epochs"], before["test_accuracy"]) == (3, None)
    whole = zs.resume(folder, progress=False)
    alone = zs.train(winner.architecture, "digits", RECIPE, seed=3, threads=1, progress=False)
    assert (whole.state, whole.epochs, whole.test_accuracy) == ("done", 9, alone.test_accuracy)
    accuracies = [record.validation_accuracy for record in alone.history]
    assert winner.accuracies == (accuracies[0], max(accuracies[:3]))
    ours, theirs = whole.network.state_dict(), alone.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert outcome(search(out=finished, resume=True)) == outcome(unbroken), "decided as before"


def test_the_test_images_have_no_part_in_it(monkeypatch, unbroken):
    monkeypatch.setattr(trainer, "confusion", None)
    data = load_data("digits")
    shuffled = zs.ImageData(data.train_images, data.train_labels, data.test_images.flip(0), data.test_labels,
                            data.class_names, data.name)  # fmt: skip
    assert outcome(search(shuffled)) == outcome(unbroken)


@pytest.mark.parametrize("call", [1, 3, 6, 8])
def test_killed_in_any_trial_and_resumed(tmp_path, monkeypatch, unbroken, call):
    calls = dying_at(monkeypatch, call, power_cut)
    with pytest.raises(SystemExit):
        search(out=tmp_path)
    assert not (tmp_path / "result.json").exists()
    assert outcome(zs.resume(tmp_path, progress=False)) == outcome(unbroken)
    assert len(calls) == 8 + 1, "nothing was trained twice but the epoch that was cut"
    assert outcome(zs.resume(tmp_path, progress=False)) == outcome(unbroken)
    assert len(calls) == 8 + 1


def test_a_finished_run_reads_no_images(finished, monkeypatch, unbroken):
    monkeypatch.setattr(trial_runs, "load_data", None)
    assert outcome(search(out=finished, resume=True)) == outcome(unbroken)
    assert zs.SearchResult.from_json((finished / "result.json").read_text()).trials == unbroken.trials


def test_ctrl_c_keeps_what_is_done(tmp_path, monkeypatch, unbroken):
    calls = dying_at(monkeypatch, 7, lambda: signal.raise_signal(signal.SIGINT))
    stopped = search(out=tmp_path)
    assert stopped.state == "interrupted"
    assert stopped.trials.winner is None
    first = {trial.name: trial.accuracies[0] for trial in unbroken.trials.trials}
    assert {trial.name: trial.accuracies[0] for trial in stopped.trials.trials} == first
    by_network = {trial.architecture: trial for trial in stopped.trials.trials}
    assert by_network[stopped.best.architecture].accuracies[0] == max(first.values())
    assert outcome(zs.resume(tmp_path, progress=False)) == outcome(unbroken)
    assert len(calls) == 9


def test_ctrl_c_before_the_first_trial_keeps_the_ranking(tmp_path, monkeypatch, unbroken):
    with monkeypatch.context() as patches:
        patches.setattr(rounds.Search, "ranked_with", lambda *_: signal.raise_signal(signal.SIGINT))
        stopped = search(out=tmp_path)
    assert (stopped.state, stopped.trials) == ("interrupted", None)
    assert stopped.best.fitness == max(each.fitness for each in stopped.history)
    assert outcome(zs.resume(tmp_path, progress=False)) == outcome(unbroken)


def test_results_do_not_depend_on_the_executor(tmp_path, unbroken, processes):
    assert outcome(search(out=tmp_path, executor=processes)) == outcome(unbroken)


def test_what_can_not_be_trained_is_dropped_with_its_reason(monkeypatch, unbroken):
    real = learner.Learner._train_epoch
    victim = unbroken.trials.winner.architecture

    def diverging(self, epoch):
        rate, loss = real(self, epoch)
        return rate, float("nan") if self.network.architecture == victim else loss

    monkeypatch.setattr(learner.Learner, "_train_epoch", diverging)
    table = search().trials
    (failed,) = (trial for trial in table.trials if trial.failure)
    assert (failed.architecture, failed.dropped, failed.accuracies) == (victim, 1, ())
    assert "loss became nan" in failed.failure
    assert table.winner.architecture != victim
    monkeypatch.setattr(learner.Learner, "_train_epoch", lambda self, epoch: (0.1, float("nan")))
    with pytest.raises(TrainingError, match=r"none of the trials could be trained; \S+: the loss became nan"):
        search()


def test_other_trials_are_another_run(finished):
    with pytest.raises(SettingsChangedError, match=r"trials: .*'count': 4.* in the run, .*'count': 3.* asked for"):
        search(out=finished, resume=True, trials=3)


def test_a_replaced_run_leaves_no_trials_behind(tmp_path):
    search(out=tmp_path, trials=2, recipe=zs.Recipe(epochs=2, batch_size=512, warmup_epochs=1))
    assert (tmp_path / trial_runs.FOLDER).is_dir()
    zs.search("resnet", "cet", BUDGET, proposals=50, input_size=(1, 8, 8), out=tmp_path, force=True, progress=False)
    assert not (tmp_path / trial_runs.FOLDER).exists()


@pytest.mark.parametrize("name", zs.list_spaces())
def test_every_space_has_trials(tmp_path, name):
    space = zs.get_space(name, input_size=(1, 8, 8), **SMALL.get(name, {}))
    budget = zs.Budget(layers=30, params=TIGHT.get(name, 30_000))
    result = zs.search(space, "params", budget, proposals=6, trials=2, data="digits", out=tmp_path,
                       recipe=zs.Recipe(epochs=2, batch_size=1024, warmup_epochs=1), progress=False)  # fmt: skip
    assert len(result.trials.trials) == 2
    assert result.trials.winner.architecture == result.best.architecture
    assert zs.SearchResult.from_json((tmp_path / "result.json").read_text()) == result


def test_an_aggregate_ranks_hand_made_networks_among_all(tmp_path):
    space, recipe = zs.get_space("resnet", input_size=(1, 8, 8), max_width=16), zs.Recipe(2, 512, warmup_epochs=1)
    result = search(proxy="az_nas", space=space, trials=2, recipe=recipe, repeats=1, input_size=None)
    plain = {each.architecture: each for each in result.history}
    assert result.best.architecture not in plain or result.best == plain[result.best.architecture]
    assert all(trial.score is not None for trial in result.trials.trials)


def test_a_study_has_no_trials():
    with pytest.raises(TypeError, match="takes no option 'trials'"):
        zs.Study("resnet", "cet", BUDGET, input_size=(1, 8, 8), trials=4)


def test_the_command_line(tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["zeroshot-nas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    asked = ["--input", "1x8x8", "--max-params", "3k", "--max-layers", "8", "--proposals", "100", "--finalists", "9"]
    tried = ["--trials", "3", "--data", "digits", "--recipe", "quick"]
    code, printed, error = run("search", *asked, *tried, "--out", tmp_path / "run")
    assert code == 0
    trials = zs.SearchResult.from_json((tmp_path / "run" / "result.json").read_text()).trials
    assert f"trials: {trials.plan()}" in error, "said beforehand"
    assert trials.plan() in printed
    assert all(trial.name in printed for trial in trials.trials)
    assert f"zeroshot-nas resume {tmp_path / 'run' / 'trials' / trials.winner.name}" in printed
    for row in trials.rows():
        assert row[1] in run("runs", "show", tmp_path / "run")[1]
    assert run("resume", tmp_path / "run", "--quiet")[0] == 0
    assert run("search", "--out", tmp_path / "run", "--resume", "--trials", "3", "--quiet")[0] == 0
    assert "'count': 2" in run("search", "--out", tmp_path / "run", "--resume", "--trials", "2", "--quiet")[2]
    assert "trials need data" in run("search", *asked, "--trials", "3")[2]
    assert f"training, unfinished, {trials.rounds[-1].until} epochs" in run("runs", "list", tmp_path / "run")[1]
    resumed = ("search", "--out", tmp_path / "run", "--resume", "--quiet")
    code, _, error = run(*resumed, "--epochs", "9")
    assert (code, "'epochs': 9" in error, error.count("\n")) == (2, True, 1)
    changed = ("--epochs", "3", "--set", "batch_size=64", "--set", "warmup_epochs=1")
    code, _, error = run("search", *asked, *tried, *changed, "--out", tmp_path / "changed")
    assert code == 0
    assert "one full training has 3" in error
    recipes = [json.loads(file.read_text())["recipe"] for file in tmp_path.glob("changed/trials/*/train.json")]
    assert recipes
    quick = zs.get_recipe("quick", epochs=3, batch_size=64, warmup_epochs=1).to_dict()
    assert all(recipe == quick for recipe in recipes)
    for option, value in (("--epochs", "3"), ("--set", "batch_size=64")):
        code, _, error = run("search", *asked, option, value)
        assert (code, f"{option} is what trials train by, and there are none" in error) == (2, True)
    code, _, error = run("search", *asked, *tried, "--set", "batchsize=64")
    assert (code, "Did you mean 'batch_size'" in error, error.count("\n")) == (2, True, 1)
