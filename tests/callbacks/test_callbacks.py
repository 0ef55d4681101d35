"""What callbacks are told of every kind of run, and what the writers make of it."""

import csv
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.callbacks.base import Event
from zeroshot_nas.callbacks.csv_file import CsvWriter
from zeroshot_nas.callbacks.tensorboard import TensorBoardWriter
from zeroshot_nas.errors import (
    CallbackError,
    CallbackWarning,
    MissingExtraError,
    ProxyError,
    RunOptionsError,
    UndefinedScoreError,
    UnknownNameError,
)

from ..runs.test_resume import CELLS

pytestmark = pytest.mark.slow

SMALL = {"input_size": (1, 8, 8), "progress": False}
NET = zs.Architecture.from_string("SuperConvK3BNRELU(1,8,2,1)", (1, 8, 8))


def screened(**run):
    budget = zs.Budget(params=2e4, layers=8)
    return zs.search("resnet", "zen", budget, proposals=90, islands=3, finalists=5, repeats=2, **SMALL, **run)


def unscreened(**run):
    return zs.search("nasbench201", "naswot", zs.Budget(params=1e6), proposals=9, repeats=1, **SMALL, **run)


def tried(**run):
    recipe = zs.Recipe(epochs=3, warmup_epochs=0, batch_size=512)
    return zs.search(
        *("resnet", "params", zs.Budget(params=4e3, layers=6)),
        **{"proposals": 40, "trials": 2, "data": "digits", "recipe": recipe, **SMALL, **run},
    )


def correlated(**run):
    accuracy = [80.0 + place for place in range(len(CELLS))]
    named = {"name": "cells", "space": "nasbench201", "dataset": "cifar10", "code": "arch"}
    table = zs.BenchmarkTable(rows=CELLS, accuracy=accuracy, **named)
    space = {"num_cells": 1, "channels": 4}
    return zs.correlate(
        ["naswot", "zen", "cet"], table, space_options=space, input_size=(3, 8, 8), progress=False, **run
    )


def trained(**run):
    return zs.train(NET, "digits", zs.Recipe(epochs=3, batch_size=512, warmup_epochs=0), progress=False, **run)


RUNS = {"screened": screened, "unscreened": unscreened, "tried": tried, "correlated": correlated, "trained": trained}


class Log(list):
    """Keeps events; those after ``until`` stop the run as Ctrl-C does."""

    def __init__(self, until=None):
        self.until = until

    def __call__(self, event):
        self.append(event)
        if len(self) == self.until:
            raise KeyboardInterrupt

    def plain(self):
        """What does not change from run to run."""
        drop = ("seconds",)
        events = [replace(event, known=False, folder=None) for event in self if event.kind != "begin"]
        return [replace(each, values={k: v for k, v in each.values.items() if k not in drop}) for each in events]


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("name", RUNS)
def test_a_stopped_and_resumed_run_tells_what_one_tells_that_never_was(name, tmp_path):
    whole = Log()
    RUNS[name](out=tmp_path / "whole", callbacks=[whole])
    assert (whole[0].kind, whole[-1].kind, whole[-1].about["state"]) == ("begin", "end", "done")
    assert [event.kind for event in whole].count("end") == 1
    assert not any(event.known for event in whole)
    first = Log(until=len(whole) - 2)
    try:
        RUNS[name](out=tmp_path / "run", callbacks=[first])
    except KeyboardInterrupt:
        assert name != "trained"
    assert first[-1].kind == "end"
    assert first[-1].about["state"] == "interrupted"
    again = Log()
    RUNS[name](out=tmp_path / "run", resume=True, callbacks=[again])
    assert again.plain() == whole.plain()
    middle = [event for event in again if event.kind not in ("begin", "end")]
    known = [event.known for event in middle]
    assert known == sorted(known, reverse=True)
    assert sum(known) >= len(whole) - 4
    finished = Log()
    RUNS[name](out=tmp_path / "run", resume=True, callbacks=[finished])
    assert finished.plain() == whole.plain()
    assert all(event.known for event in finished if event.kind not in ("begin", "end"))


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("name", ["screened", "unscreened", "tried", "correlated"])
def test_events_are_told_here_in_an_order_that_no_executor_changes(name, processes):
    here, elsewhere = Log(), Log()
    RUNS[name](callbacks=[here])
    RUNS[name](callbacks=[elsewhere], executor=processes)
    assert elsewhere.plain() == here.plain()
    assert len(here) > 4


@pytest.mark.parametrize("name", ["screened", "trained"])
def test_a_callback_that_fails_is_warned_of_once_and_loses_nothing(name, tmp_path):
    alone, beside = Log(), Log()
    calls = []

    def broken(event):
        calls.append(event)
        if event.kind not in ("begin", "end"):
            raise OSError("the disk is full")

    expected = RUNS[name](callbacks=[alone])
    with pytest.warns(
        CallbackWarning, match=r"broken failed and is told no more \(event .*\): OSError: the disk is full"
    ):
        found = RUNS[name](out=tmp_path, callbacks=[broken, beside])
    assert len(calls) == 2
    assert beside.plain() == alone.plain()
    for what in ("best", "network"):
        if hasattr(found, what):
            assert getattr(found, what).architecture == getattr(expected, what).architecture
    assert getattr(found, "confusion", None) == getattr(expected, "confusion", None)


def failing(network, batch, /):
    raise UndefinedScoreError("never defined")


def test_the_end_of_a_run_that_failed_says_why():
    log = Log()
    with pytest.raises(ProxyError, match="never defined"):
        zs.search("resnet", failing, zs.Budget(params=1e5, layers=9), proposals=4, callbacks=[log], **SMALL)
    assert (log[0].kind, log[-1].kind, log[-1].about["state"]) == ("begin", "end", "failed")
    assert "never defined" in log[-1].about["error"]


def test_a_study_tells_what_is_told_to_it(tmp_path):
    log = Log()
    with zs.Study("resnet", None, zs.Budget(params=1e4), input_size=(1, 8, 8), out=tmp_path, callbacks=[log]) as study:
        for candidate in study.ask(3):
            study.tell(candidate, -candidate.costs.flops)
        best = study.result().best
    assert [event.kind for event in log] == ["begin", "score", "score", "score", "end"]
    assert log[-2].values["best"] == best.fitness
    assert log[-1].values["flops"] == best.costs.flops


NUMBERS = st.dictionaries(st.sampled_from(["a", "b", "c:d=1"]), st.floats(allow_nan=False, allow_infinity=False))
TEXTS = st.dictionaries(st.sampled_from(["name", "text"]), st.text(st.characters(exclude_categories=["C"]), max_size=5))
EVENTS = st.builds(
    Event, st.just("search"), st.sampled_from(["score", "epoch"]), st.integers(0, 9), values=NUMBERS, about=TEXTS
)


def rows_of(file):
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


@given(st.lists(EVENTS, max_size=6))
def test_a_csv_file_holds_every_number_and_text_of_its_kind(tmp_path_factory, events):
    folder = tmp_path_factory.mktemp("csv")
    writer = CsvWriter(folder)
    for event in (Event("search", "begin"), *events):
        writer(event)
    for kind in ("score", "epoch"):
        told = [event for event in events if event.kind == kind]
        file = folder / f"{kind}.csv"
        rows = rows_of(file) if file.exists() else []
        assert len(rows) == len(told)
        for row, event in zip(rows, told, strict=True):
            assert int(row.pop("step")) == event.step
            assert {name: float(row[name]) for name in event.values} == event.values
            assert {name: text for name, text in row.items() if text and name not in event.values} == {
                name: text for name, text in event.about.items() if text
            }


def test_files_of_a_resumed_run_are_those_of_one_that_was_never_stopped(tmp_path):
    trained(out=tmp_path / "whole", callbacks=["csv"])
    trained(out=tmp_path / "run", callbacks=["csv", Log(until=2)])
    trained(out=tmp_path / "run", callbacks=["csv"], resume=True)
    columns = ("step", "train_loss", "validation_accuracy")
    whole, run = (rows_of(tmp_path / each / "log" / "epoch.csv") for each in ("whole", "run"))
    assert [[row[name] for name in columns] for row in run] == [[row[name] for name in columns] for row in whole]
    assert len(run) == 3
    (end,) = rows_of(tmp_path / "run" / "log" / "end.csv")
    assert (end["epochs"], int(end["params"]) > 0) == ("3", True), "a whole number stays one"
    trained(out=tmp_path / "run", callbacks=["csv:folder=" + str(tmp_path / "else")], resume=True)
    assert (tmp_path / "else" / "epoch.csv").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_every_number_back(tmp_path):
    log = Log()
    for resume in (False, True):  # begun anew, not told twice
        log.clear()
        trained(out=tmp_path, callbacks=["tensorboard", log], resume=resume)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(tmp_path / "log"))
    read.Reload()
    for event in log:
        for name, value in event.values.items():
            points = {point.step: point.value for point in read.Scalars(f"{event.kind}/{name}")}
            assert points[event.step] == pytest.approx(value)
    assert [point.step for point in read.Scalars("epoch/train_loss")] == [1, 2, 3]


def test_what_can_not_be_called_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    for callbacks, error, said in (
        (["csvv"], UnknownNameError, "unknown callback 'csvv'. Did you mean 'csv'?"),
        (["csv:foldr=a"], CallbackError, "no option 'foldr'. Did you mean 'folder'?"),
        ([3], CallbackError, "a callback is called with every event, or a name; got int"),
        ("csv", RunOptionsError, "callbacks is a list"),
    ):
        for name in RUNS:
            with pytest.raises(error) as caught:
                RUNS[name](out=tmp_path / "run", callbacks=callbacks)
            assert said in str(caught.value)
    assert not (tmp_path / "run").exists()
    for name in ("csv", "tensorboard"):
        with pytest.raises(CallbackError, match="give the run a folder"):
            trained(callbacks=[name])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"zeroshot-nas\[tensorboard\]"):
        TensorBoardWriter(tmp_path)


def test_the_example_logs_to_trackers_that_are_named(tmp_path, monkeypatch):
    seen = []
    run = types.SimpleNamespace(config={}, log=seen.append, finish=lambda exit_code: seen.append({"exit": exit_code}))
    fake = types.SimpleNamespace(init=lambda **how: seen.append(how) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    if "wandb" not in zs.list_callbacks():
        from zeroshot_nas.core.plugins import load_plugin

        monkeypatch.setattr(sys, "path", list(sys.path))
        load_plugin(Path(__file__).parents[2] / "examples" / "add_a_callback.py")
    result = trained(out=tmp_path, callbacks=["wandb:project=digits"])
    assert seen[0]["project"] == "digits"
    assert run.config["settings" if "settings" in run.config else "seed"] is not None
    assert seen[-2]["end/test_accuracy"] == result.test_accuracy
    assert seen[-1] == {"exit": 0}
    assert [entry["epoch/step"] for entry in seen if "epoch/step" in entry] == [1, 2, 3]
