"""Runs of every kind go on from their folder alone, and say what a file can't hold."""

import sys

import pytest

import zeroshot_nas as zs
from zeroshot_nas import cli
from zeroshot_nas.errors import OutputExistsError, RunOptionsError, SettingsChangedError, StoreError
from zeroshot_nas.latency.calibrate import calibrate
from zeroshot_nas.runs import evaluate as evaluating
from zeroshot_nas.runs.options import RunOptions, run_options
from zeroshot_nas.runs.store import FILE_NAME, Store

CELLS = [
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
    "|nor_conv_1x1~0|+|none~0|avg_pool_3x3~1|+|nor_conv_1x1~0|none~1|none~2|",
    "|skip_connect~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|none~2|",
    "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|none~2|",
    "|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_1x1~2|",
]
SEARCH = {"proposals": 40, "finalists": 4, "batch_size": 4, "repeats": 1, "progress": False}


def died(monkeypatch, place, begin):
    """Begins a run that dies when it computes for the n-th time."""
    calls = []

    def dying(jobs):
        calls.append(jobs)
        if len(calls) == place:
            raise SystemExit("power cut")
        return compute(jobs)

    compute = evaluating.compute
    with monkeypatch.context() as patch:
        patch.setattr(evaluating, "compute", dying)
        with pytest.raises(SystemExit):
            begin()


def outcome(result):
    """What does not depend on the clock."""
    history = [(each.architecture, each.fitness) for each in result.history]
    return result.best.architecture, history, result.counts, result.settings


@pytest.mark.parametrize("searcher", ["evolution", "random"])
@pytest.mark.parametrize("screen", [True, False])
def test_a_search(tmp_path, monkeypatch, searcher, screen):
    def begin(**where):
        budget = zs.Budget(params=3e4, structure=zs.StructureBounds(monotone_widths=True))
        options = {"max_width": 64, "width_step": 4}
        space = zs.get_space("resnet", input_size=(1, 8, 8), num_classes=3, **options)
        return zs.search(space, "zen", budget, searcher=searcher, screen=screen, seed=3, **SEARCH, **where)

    whole = begin()
    died(monkeypatch, 3, lambda: begin(out=tmp_path))
    resumed = zs.resume(tmp_path, progress=False)
    assert outcome(resumed) == outcome(whole)
    assert outcome(zs.resume(tmp_path, progress=False)) == outcome(resumed)  # a finished one gives its result


def test_a_search_whose_budget_was_written_by_an_earlier_release(tmp_path):
    bounds = zs.StructureBounds(monotone_widths=True)
    first = zs.search("resnet", "cet", zs.Budget(2e4, structure=bounds), input_size=(1, 8, 8), out=tmp_path, **SEARCH)
    with Store(tmp_path / FILE_NAME) as store:
        for name in ("settings", "call"):
            fact = store.fact(name)
            fact["budget"]["shape"] = fact["budget"].pop("structure")
            store.set_fact(name, fact)
    assert outcome(zs.resume(tmp_path, progress=False)) == outcome(first)


@pytest.mark.parametrize("space", zs.list_spaces())
def test_a_search_of_every_space(tmp_path, space):
    first = zs.search(space, "params", input_size=(3, 16, 16), out=tmp_path, **SEARCH)
    assert outcome(zs.resume(tmp_path, progress=False)) == outcome(first)


@pytest.mark.usefixtures("no_plots")
def test_a_correlation(tmp_path, monkeypatch):
    table = tmp_path / "cells.csv"
    table.write_text("cell,top1\n" + "".join(f"{cell},{80 + place}\n" for place, cell in enumerate(CELLS)))

    def begin(**where):
        return zs.correlate(
            ["naswot", "params"],
            zs.load_table(table, space="nasbench201", dataset="cifar10", arch_column="cell", accuracy_column="top1"),
            space_options={"num_cells": 1, "channels": 4},
            input_size=(3, 8, 8),
            batch_size=4,
            progress=False,
            **where,
        )

    whole = begin()
    died(monkeypatch, 3, lambda: begin(out=tmp_path / "run"))
    resumed = zs.resume(tmp_path / "run", progress=False)
    assert resumed.scores == whole.scores
    assert [entry.kendall for entry in resumed.proxies] == [entry.kendall for entry in whole.proxies]


def test_a_training(tmp_path):
    architecture = zs.Architecture.from_string("SuperConvK3BNRELU(1,8,2,1)", (1, 8, 8), num_classes=10)
    recipe = zs.Recipe(epochs=2, batch_size=256)
    first = zs.train(architecture, "digits", recipe, out=tmp_path, seed=4, progress=False)
    again = zs.resume(tmp_path, progress=False)
    assert (again.test_accuracy, again.recipe, again.seed, again.epochs) == (first.test_accuracy, recipe, 4, 2)


def test_the_command_line_goes_on_with_any_of_them(tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["zeroshot-nas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        assert (stop.value.code, captured.err) == (0, "")
        return captured.out

    net = "SuperConvK3BNRELU(1,8,2,1)"
    small = ["--input", "1x8x8", "--proposals", 40, "--finalists", 4, "--quiet"]
    printed = run("search", *small, "--max-params", "20k", "--out", tmp_path / "search")
    assert run("resume", tmp_path / "search", "--quiet").splitlines()[:6] == printed.splitlines()[:6]
    options = ["--data", "digits", "--epochs", 1, "--input", "1x8x8", "--new-head", "--quiet"]
    printed = run("train", net, *options, "--out", tmp_path / "training")
    assert run("resume", tmp_path / "training", "--quiet").splitlines()[0] == printed.splitlines()[0]


def test_what_a_file_can_t_hold_is_asked_for_by_name(tmp_path):
    def mine(network, batch, /):
        return float(sum(weight.numel() for weight in network.parameters()))

    arguments = {"input_size": (1, 8, 8), "out": tmp_path, **SEARCH}
    first = zs.search("resnet", mine, zs.Budget(params=3e4), **arguments)
    with pytest.raises(SettingsChangedError, match=r"a proxy that is an object .* resume\(folder, proxy=\.\.\.\)"):
        zs.resume(tmp_path, progress=False)
    assert outcome(zs.resume(tmp_path, proxy=mine, progress=False)) == outcome(first)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(StoreError, match="holds no run that could go on"):
        zs.resume(tmp_path)


def test_run_options_refuse_what_contradicts_itself():
    with pytest.raises(RunOptionsError, match="resume=True needs out"):
        RunOptions(resume=True)
    with pytest.raises(RunOptionsError, match="force=True needs out"):
        RunOptions(force=True)
    with pytest.raises(RunOptionsError, match="give one of them"):
        RunOptions(out="x", resume=True, force=True)


def test_an_unknown_option_is_refused_by_name():
    with pytest.raises(TypeError, match=r"takes no option 'ressume'\. Did you mean 'resume'\?"):
        run_options(None, {"ressume": True}, "correlate")
    with pytest.raises(TypeError, match=r"search takes no option 'propsals'\. Did you mean 'proposals'\?"):
        zs.search("resnet", propsals=3)


def test_force_replaces_a_run(tmp_path):
    arguments = {"input_size": (1, 8, 8), "out": tmp_path, **SEARCH}
    zs.search("resnet", "params", seed=1, **arguments)
    second = zs.search("resnet", "params", seed=2, force=True, **arguments)
    assert zs.SearchResult.from_json((tmp_path / "result.json").read_text()).settings["seed"] == 2
    assert second.settings["seed"] == 2


def test_settings_and_run_options_as_objects_are_as_keywords(tmp_path):
    settings = zs.SearchSettings(proposals=40, finalists=4, seed=2, searcher_options={"population_size": 8})
    one = zs.search("resnet", "params", None, settings, zs.RunOptions(progress=False), input_size=(1, 8, 8))
    other = zs.search(
        "resnet",
        "params",
        input_size=(1, 8, 8),
        proposals=40,
        finalists=4,
        seed=2,
        population_size=8,
        progress=False,
    )
    assert outcome(one) == outcome(other)


def test_a_training_and_a_calibration_take_run_options_too(tmp_path):
    architecture = zs.Architecture.from_string("SuperConvK3BNRELU(1,8,2,1)", (1, 8, 8), num_classes=10)
    recipe = zs.Recipe(epochs=1, batch_size=256)
    run = zs.RunOptions(out=tmp_path / "run", progress=False)
    first = zs.train(architecture, "digits", recipe, run)
    with pytest.raises(OutputExistsError):
        zs.train(architecture, "digits", recipe, run)
    again = zs.train(architecture, "digits", recipe, run, force=True)
    assert again.test_accuracy == first.test_accuracy
    for call in (
        lambda **options: zs.train(architecture, "digits", recipe, **options),
        lambda **options: calibrate(zs.get_space("resnet"), "torch", **options),
    ):
        for options in ({"executor": "process"}, {"forse": True}, {"run": zs.RunOptions(cache="x.db")}):
            with pytest.raises(TypeError, match="takes no option"):
                call(**options)
