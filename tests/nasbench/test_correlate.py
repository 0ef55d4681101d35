"""Proxies against the accuracies of a table: figures, resumption, executors, failures, bad input."""

import csv
import gzip
import inspect
import json
import math
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

import zeroshot_nas as zs
from zeroshot_nas.blocks.cells import BEST_CIFAR100
from zeroshot_nas.errors import (
    DataError,
    FileFormatError,
    OutputExistsError,
    ProxyError,
    RunInUseError,
    SettingsChangedError,
    UndefinedScoreError,
    UnknownNameError,
    WorkerDiedError,
)
from zeroshot_nas.execution import SerialExecutor
from zeroshot_nas.nasbench import correlate as asking
from zeroshot_nas.nasbench import scoring
from zeroshot_nas.nasbench.base import load_table
from zeroshot_nas.nasbench.convert import convert
from zeroshot_nas.nasbench.correlate import correlate
from zeroshot_nas.nasbench.correlation import Correlation
from zeroshot_nas.nasbench.equal_budget import EqualBudget, budget_bins, kendall_within, regret_under
from zeroshot_nas.nasbench.table import DATASET_IMAGES, BenchmarkTable
from zeroshot_nas.runs import evaluate as evaluating
from zeroshot_nas.runs.store import Store, open_run
from zeroshot_nas.spaces.base import get_space

RESULTS = Path(__file__).parent.parent.parent / "../shared/data/nasbench/nb201_results.csv.gz"
"""The trained results of NAS-Bench-201, where they stand beside the checkout."""

SMALL = {"space_options": {"num_cells": 1, "channels": 4}, "input_size": (3, 8, 8), "progress": False}
SPACE = get_space("nasbench201", input_size=(3, 8, 8), **SMALL["space_options"])

# 130000 and 100000 are the same network, the first with a convolution whose output goes nowhere; 301000 and 031000 too
CELLS = ("333333", "303101", "421211", "222222", "111111", "343212", "300300", "233343", "412303", "131311")
UNKNOWN_OPERATION = "|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|"

PROXIES = ("naswot", "synflow", "az_nas")
ACCURACY = (93.5, 91.0, 85.9, 90.1, 60.2, 92.8, 84.0, 93.1, 88.8, 87.0)
RUNS = [(value + 0.3, value - 0.3) for value in ACCURACY[:8]] + [(value,) for value in ACCURACY[8:]]


@pytest.fixture(autouse=True)
def plots(request, monkeypatch):
    """Plots take a second or two, and are drawn only where a test asks for them."""
    if "plots" not in inspect.signature(request.function).parameters:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


def table(cells=CELLS, accuracy=ACCURACY, runs=RUNS, **facts):
    known = {"name": "demo", "space": "nasbench201", "dataset": "cifar10", "code": "op_code", "source": "made up"}
    return BenchmarkTable(**{**known, **facts}, rows=list(cells), accuracy=np.array(accuracy), runs=runs)


def run(proxies=PROXIES, data=None, **how):
    return correlate(list(proxies), data or table(), **{**SMALL, "seed": 5, **how})


def outcome(found):
    """All of a correlation but wall times."""
    entries = tuple(replace(entry, milliseconds=None) for entry in found.proxies)
    return replace(found, proxies=entries), found.scores_csv()


@pytest.fixture(scope="module")
def unbroken():
    return outcome(run())


def drawing(task):
    """Whether a task takes weights, not an architecture's operations alone."""
    return any(proxy.info.name not in ("params", "flops", "layers", "az_complexity") for proxy in task.proxies)


def stopping(monkeypatch, error, after):
    """Makes the computation of scores raise an error at a certain call."""
    calls = []
    real = evaluating.compute

    def compute(jobs):
        if drawing(jobs[0]):
            calls.append(jobs[0])
            if len(calls) == after:
                raise error
        return real(jobs)

    monkeypatch.setattr(evaluating, "compute", compute)
    return calls


@pytest.mark.slow
def test_figures_follow_from_the_scores():
    found = run(["naswot", "ntk_cond"])
    lines = list(csv.DictReader(found.scores_csv().splitlines()))
    accuracy = [float(line["accuracy"]) for line in lines]
    assert [line["architecture"] for line in lines] == list(CELLS)
    assert accuracy == list(ACCURACY)
    for proxy, sign in (("naswot", 1), ("ntk_cond", -1), ("params", 1), ("flops", 1)):
        scores = [sign * float(line[proxy]) for line in lines]
        entry = found[proxy]
        best = sorted(range(len(scores)), key=lambda index: -scores[index])
        assert entry.kendall == pytest.approx(scipy.stats.kendalltau(scores, accuracy).statistic)
        assert entry.spearman == pytest.approx(scipy.stats.spearmanr(scores, accuracy).statistic)
        assert entry.kendall_interval[0] <= entry.kendall <= entry.kendall_interval[1]
        assert entry.top1_accuracy == accuracy[best[0]]
        assert entry.top10_accuracy == pytest.approx(np.mean(accuracy))
        assert entry.regret == pytest.approx(max(accuracy) - accuracy[best[0]])
        assert entry.milliseconds > 0
    assert (found["ntk_cond"].direction, found["naswot"].direction) == ("lower", "higher")
    assert found["params"].kendall_given_params is None  # it is the control
    assert found["naswot"].kendall_given_params is not None
    assert found["layers"].kendall is None  # a constant
    assert found["layers"].top1_accuracy == pytest.approx(np.mean(accuracy))  # as good as chance


@pytest.mark.slow
def test_figures_at_equal_budget_follow_from_the_scores_too():
    latency = {"c10_latency_s": np.arange(10.0), "c100_latency_s": np.ones(10), "latent": np.ones(10)}
    found = run(["naswot", "ntk_cond"], data=replace(table(), columns=latency))
    assert list(found.sweeps) == ["flops", "params", "c10_latency_s"]
    costs = {**{kind: found.scores[kind] for kind in ("flops", "params")}, "c10_latency_s": latency["c10_latency_s"]}
    for kind, values in costs.items():
        bins, exact = budget_bins(values)
        assert (found.sweeps[kind].exact, found.sweeps[kind].bins) == (exact, len(set(bins)))
        for proxy, sign in (("naswot", 1), ("ntk_cond", -1), ("params", 1), ("layers", 1)):
            scores = sign * np.array(found.scores[proxy])
            figures = found[proxy].equal_budget[kind]
            tau = kendall_within(scores, ACCURACY, bins)
            assert figures.kendall == (None if math.isnan(tau) else pytest.approx(tau))
            regrets = regret_under(scores, ACCURACY, values, found.sweeps[kind].budgets)
            assert figures.regrets == pytest.approx(tuple(regrets))
            assert figures.regret == pytest.approx(np.mean(regrets))
    assert found["layers"].equal_budget["flops"].regret == found.sweeps["flops"].random.regret  # a constant


def test_what_the_report_says_of_itself():
    found = run(["naswot"], batch_size=3, repeats=2)
    assert (found.population, found.sample, found.architectures, found.networks) == (10, 10, 10, 10)
    assert (found.space, found.space_options) == ("nasbench201", {"num_cells": 1, "channels": 4})
    assert (found.dataset, found.table, found.source) == ("cifar10", "demo", "made up")
    assert (found.seed, found.repeats, found.batch_size, found.device) == (5, 2, 3, None)
    assert (found.input_size, found.num_classes, found.best_accuracy) == ((3, 8, 8), 10, 93.5)
    assert (found.ceiling, found.ceiling_architectures) == (pytest.approx(1), 8)
    assert [entry.proxy for entry in found.proxies] == ["naswot", "params", "flops", "layers"]
    assert [entry.baseline for entry in found.proxies] == [False, True, True, True]
    assert (found["naswot"].init, found["naswot"].batch_size, found["params"].init) == ("kaiming", 3, None)
    with pytest.raises(KeyError, match="'zen' is not among naswot, params"):
        found["zen"]


@pytest.mark.slow
def test_own_batch_sizes_stand_where_none_is_given():
    found = run(["zen", "te_nas"], data=table().take(range(4)))
    assert (found["zen"].batch_size, found["zen"].init) == (2, "gaussian")
    assert (found["te_nas"].batch_size, found["te_nas"].init) == (None, "kaiming")  # its parts have 16 and 64


def test_no_runs_no_ceiling():
    found = run(["params"], data=table(runs=None))
    assert (found.ceiling, found.ceiling_architectures) == (None, 0)
    assert [entry.proxy for entry in found.proxies] == ["params", "flops", "layers"]


@pytest.mark.slow
def test_scores_are_those_of_score_and_score_pool(unbroken):
    _, text = unbroken
    networks = [SPACE.from_string(cell, notation="op_code") for cell in CELLS]
    pool = zs.score_pool(networks, [*PROXIES, "params"], seed=5, repeats=1)
    for line, scores in zip(csv.DictReader(text.splitlines()), pool, strict=True):
        for proxy in (*PROXIES, "params"):
            assert line[proxy] == ("" if math.isnan(scores[proxy].value) else str(scores[proxy].value))


def test_data_sets_decide_images_and_classes():
    for dataset, (shape, classes) in DATASET_IMAGES.items():
        if shape[1] < 64:
            found = correlate("params", table(dataset=dataset), progress=False)
            assert (found.input_size, found.num_classes) == (shape, classes)
    full = get_space("nasbench201", input_size=(3, 16, 16), num_classes=120)
    found = correlate("params", table(dataset="ImageNet16-120"), progress=False)
    assert found.scores["params"][0] == zs.cost(full.from_string("333333", notation="op_code")).params


@pytest.mark.slow
def test_a_space_by_object_or_name(unbroken):
    how = {"progress": False, "seed": 5}
    assert outcome(correlate(PROXIES, table(space=""), space=SPACE, **how)) == unbroken
    assert outcome(run(data=table(space=""), space="nasbench201")) == unbroken


@pytest.mark.slow
@pytest.mark.parametrize("code", ["arch", "naslib_code", "naslib_tuple"])
def test_other_notations(unbroken, code):
    own = {"naslib_tuple": "naslib"}.get(code, code)
    cells = [SPACE.to_string(SPACE.from_string(cell, notation="op_code"), notation=own) for cell in CELLS]
    found = run(data=table(cells, code=code))
    assert replace(outcome(found)[0], proxies=()) == replace(unbroken[0], proxies=())
    assert outcome(found)[0].proxies == unbroken[0].proxies


def test_a_space_with_one_notation():
    macro = BenchmarkTable(
        name="macro",
        space="nasbench_macro",
        dataset="cifar10",
        rows=["00000000", "11111111", "22222222", "21021010"],
        accuracy=np.array([80.0, 92.0, 93.0, 90.0]),
    )
    assert correlate("params", macro, progress=False)["params"].kendall == 1
    with pytest.raises(UnknownNameError, match=r"unknown notation 'op_code'. Known: arch"):
        correlate("params", replace(macro, code="op_code"), progress=False)


def test_isomorphic_cells_are_scored_once_and_counted_each(monkeypatch):
    calls = stopping(monkeypatch, None, after=0)
    cells = ["130000", "100100", "100000", "000100", "333333", "031000", "301000"]
    found = run(["naswot"], data=table(cells, (70, 65, 71, 66, 93, 80, 81), None))
    keys = [SPACE.canonical(SPACE.from_string(cell, notation="op_code")) for cell in cells]
    same = {key: [index for index, other in enumerate(keys) if other == key] for key in keys}
    assert found.networks == len(same) < len(cells)
    assert len(calls) == len(same)
    for members in same.values():
        assert len({str(found.scores["naswot"][index]) for index in members}) == 1
        params = [found.scores["params"][index] for index in members]
        scored = [task.architecture for task in calls if SPACE.canonical(task.architecture) == keys[members[0]]]
        assert zs.cost(scored[0]).params == min(params)  # the network without what goes nowhere
    assert len({found.scores["params"][index] for index in same[keys[0]]}) > 1


@pytest.mark.slow
def test_one_call_a_network_but_for_the_timed(monkeypatch):
    calls = stopping(monkeypatch, None, after=0)
    monkeypatch.setattr(scoring, "TIMED", 2)
    run()
    timed = [SPACE.from_string(cell, notation="op_code") for cell in (CELLS[0], CELLS[-1])]
    parts = ["az_expressivity", "az_progressivity", "az_trainability"]
    groups = [["naswot"], ["synflow"], parts]
    for network in timed:
        assert [[p.key for p in task.proxies] for task in calls if task.architecture == network] == groups
    others = [task for task in calls if task.architecture not in timed]
    assert len(others) == len({task.architecture for task in others}) == len(CELLS) - 2
    assert all([proxy.key for proxy in task.proxies] == ["naswot", "synflow", *parts] for task in others)


def test_a_sample_is_the_tables():
    found = run(["params"], sample=4)
    assert found.rows == tuple(table().sample(4, 5).rows)
    assert (found.population, found.sample) == (10, 4)
    assert run(["params"], sample=4, seed=6).rows != found.rows


@pytest.mark.slow
def test_all_proxies_that_have_a_score_here():
    found = correlate("all", table().take([0, 2, 5]), **SMALL)
    assert {"az_nas", "te_nas", "zen", "params", "ntk_cond"} <= {entry.proxy for entry in found.proxies}
    assert "chains" in found.left_out["entropy_deepmad"]
    assert {entry.proxy for entry in found.proxies} | set(found.left_out) == set(zs.list_proxies())
    assert all(entry.failed < 3 for entry in found.proxies)


def test_a_part_that_is_left_out_takes_its_aggregate_along(monkeypatch):
    monkeypatch.setattr(asking, "_unscoreable", lambda proxy, _: "no" if proxy.key == "az_complexity" else "")
    asked, left_out = asking._asked("all", SPACE.initial())
    assert left_out == {"az_complexity": "no", "az_nas": "its part az_complexity is left out"}
    assert not {"az_complexity", "az_nas"} & {proxy.key for proxy in asked}


# proxies of one's own, some of them bad


def steady(network, batch):
    return float(sum(parameter.numel() for parameter in network.parameters()))


def picky(network, batch):
    if "none" in network.architecture.blocks[1].cell:
        raise UndefinedScoreError("it has a hole")
    return steady(network, batch)


def hopeless(network, batch):
    raise UndefinedScoreError("never")


def test_failures_are_counted_with_their_reasons_and_rank_last():
    found = run([picky])
    holes = ["0" in cell for cell in CELLS]
    assert found["picky"].failed == sum(holes)
    assert found["picky"].failures == {"it has a hole": sum(holes)}
    assert [math.isnan(value) for value in found.scores["picky"]] == holes
    whole = [-1 if hole else value for hole, value in zip(holes, found.scores["params"], strict=True)]
    assert found["picky"].kendall == pytest.approx(scipy.stats.kendalltau(whole, ACCURACY).statistic)
    assert ",," in found.scores_csv()


@pytest.mark.slow
def test_a_proxy_that_always_fails_has_no_figures():
    entry = run([hopeless, "params"])["hopeless"]
    figures = (entry.kendall, entry.kendall_interval, entry.ndcg, entry.top1_accuracy, entry.regret)
    assert figures == (None,) * 5
    assert entry.equal_budget == {"flops": EqualBudget(), "params": EqualBudget()}
    assert (entry.failed, entry.failures, entry.milliseconds) == (10, {"never": 10}, None)


def test_an_aggregate_says_what_its_parts_failed_at():
    found = run(["az_nas"], data=table(["000000", *CELLS[:3]], (60, 93, 91, 85), None))
    assert (found["az_nas"].failed, math.isnan(found.scores["az_nas"][0])) == (1, True)
    failures = found["az_nas"].failures
    assert {reason.partition(":")[0] for reason in failures} == {
        "az_expressivity",
        "az_progressivity",
        "az_trainability",
    }
    assert set(failures.values()) == {1}


class Deadly(SerialExecutor):
    """Workers that die of one proxy on one network."""

    def submit(self, fn, /, *args, **kwargs):
        ((task,),) = args
        hit = task.architecture == SPACE.from_string(CELLS[3], notation="op_code")
        if hit and "steady" in [proxy.key for proxy in task.proxies]:
            future = Future()
            future.set_exception(WorkerDiedError.from_exit_code(-9))
            return future
        return super().submit(fn, *args, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("timed", [1, 8])
def test_a_worker_that_is_killed_costs_one_score_and_not_the_network(tmp_path, monkeypatch, timed):
    monkeypatch.setattr(scoring, "TIMED", timed)
    found = run([steady, "naswot"], executor=Deadly(), out=tmp_path)
    assert found["steady"].failed == 1
    assert "SIGKILL" in next(iter(found["steady"].failures))
    assert found["naswot"].failed == 0
    with Store(tmp_path / "run.db") as store:
        assert sum(key.proxy == "steady" for key, _ in store.scores()) == 9
    assert run([steady, "naswot"], out=tmp_path, resume=True)["steady"].failed == 0  # it lives the next time


def test_another_error_is_raised(monkeypatch):
    def broken(jobs):
        raise MemoryError("no room")

    monkeypatch.setattr(evaluating, "compute", broken)
    with pytest.raises(MemoryError, match="no room"):
        run(["naswot"])


def unwilling(network, batch):
    raise ProxyError("not with this module")


@pytest.mark.slow
def test_a_proxy_that_raises_costs_the_others_of_its_call_nothing(monkeypatch):
    monkeypatch.setattr(scoring, "TIMED", 1)
    found = run(["naswot", unwilling])
    assert (found["naswot"].failed, found["unwilling"].failed) == (0, 10)
    assert found["unwilling"].failures == {"not with this module": 10}
    assert list(found.scores["naswot"]) == list(run(["naswot"]).scores["naswot"])


# resuming


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 5, 20])
def test_stopped_anywhere_and_resumed(tmp_path, monkeypatch, unbroken, stop):
    with monkeypatch.context() as patch:
        calls = stopping(patch, SystemExit("power cut"), stop)
        with pytest.raises(SystemExit):
            run(out=tmp_path)
    assert len(calls) == stop
    assert not (tmp_path / "report.json").exists()
    resumed = run(out=tmp_path, resume=True)
    assert outcome(resumed) == unbroken
    assert Correlation.from_json((tmp_path / "report.json").read_text()) == resumed


@pytest.mark.slow
def test_a_finished_run_resumed_computes_nothing(tmp_path, monkeypatch, unbroken):
    first = run(out=tmp_path)
    stopping(monkeypatch, AssertionError("computed again"), 1)
    again = run(out=tmp_path, resume=True)
    assert outcome(again) == unbroken
    assert again["synflow"].milliseconds == first["synflow"].milliseconds


@pytest.mark.slow
def test_results_do_not_depend_on_the_executor(tmp_path, unbroken, plots, processes):
    assert outcome(run(executor=processes, out=tmp_path)) == unbroken
    files = {"run.db", "report.json", "report.md", "scores.csv", "scatter.png", "scatter.svg", "equal_budget.png"}
    assert files <= {file.name for file in tmp_path.iterdir()}


@pytest.mark.slow
def test_ctrl_c_leaves_a_report_of_what_there_is(tmp_path, monkeypatch, unbroken):
    monkeypatch.setattr(scoring, "TIMED", 2)
    with monkeypatch.context() as patch:
        stopping(patch, KeyboardInterrupt(), 8)  # three calls for the first network
        found = run(out=tmp_path)
    assert (found.state, found.architectures, found.sample) == ("interrupted", 5, 10)
    assert found.rows == CELLS[:5]
    assert json.loads((tmp_path / "report.json").read_text())["state"] == "interrupted"
    assert "5 of 10 (10 were asked for; the run was interrupted)" in (tmp_path / "report.md").read_text()
    assert outcome(run(out=tmp_path, resume=True)) == unbroken
    assert "interrupted" not in (tmp_path / "report.md").read_text()


def test_ctrl_c_before_there_is_anything_to_say(tmp_path, monkeypatch):
    stopping(monkeypatch, KeyboardInterrupt(), 4)
    with pytest.raises(KeyboardInterrupt):
        run(out=tmp_path)
    assert not (tmp_path / "report.json").exists()


@pytest.mark.slow
def test_a_shared_cache_spares_the_second_run_all_scores(tmp_path, monkeypatch, unbroken):
    run(cache=tmp_path / "scores.db")
    stopping(monkeypatch, AssertionError("computed again"), 1)
    assert outcome(run(cache=tmp_path / "scores.db")) == unbroken


def test_a_search_and_a_correlation_share_a_cache(tmp_path, monkeypatch):
    found = zs.search(
        SPACE, "naswot", proposals=12, repeats=1, seed=5, screen=None, cache=tmp_path / "scores.db", progress=False
    )
    rows = [SPACE.to_string(candidate.architecture) for candidate in found.history]
    leads = {}
    for row in rows:  # one of each kind, since only one is looked up
        leads.setdefault(SPACE.canonical(SPACE.from_string(row)), row)
    stopping(monkeypatch, AssertionError("computed again"), 1)
    data = table(leads.values(), range(len(leads)), None, code="arch")
    scores = run(["naswot"], data=data, cache=tmp_path / "scores.db").scores["naswot"]
    by_row = {row: candidate.fitness for row, candidate in zip(rows, found.history, strict=True)}
    assert [by_row[row] for row in leads.values()] == list(scores)
    assert zs.SearchSettings().max_repeats == asking.MAX_REPEATS


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of a run that died."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        stopping(patch, SystemExit("power cut"), 1)
        with pytest.raises(SystemExit):
            run(out=folder)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample": 9}, "sample: 10 in the run, 9 asked for"),
        ({"seed": 6}, "seed: 5 in the run, 6 asked for"),
        ({"proxies": ["naswot"]}, r"proxies: \['naswot', 'synflow', 'az_nas'\] in the run, \['naswot'\] asked for"),
        ({"space_options": {"num_cells": 1, "channels": 8}}, "'channels': 4} in the run"),
        ({"data": table(accuracy=ACCURACY[::-1])}, "table_digest: "),
    ],
)
def test_other_settings_are_refused_with_the_difference(begun, change, message):
    with pytest.raises(SettingsChangedError, match=message):
        run(**change, out=begun, resume=True)
    with pytest.raises(OutputExistsError, match="already holds a run; go on with it"):
        run(out=begun)


def test_a_run_in_use_is_refused(tmp_path):
    with open_run(tmp_path), pytest.raises(RunInUseError, match="in use"):
        run(out=tmp_path)


def test_a_folder_with_a_foreign_report_is_refused(tmp_path):
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(OutputExistsError, match="already holds a result"):
        run(out=tmp_path)


# bad input


@pytest.mark.parametrize(
    ("error", "message", "how"),
    [
        (UnknownNameError, "unknown proxy 'naswott'. Did you mean 'naswot'", {"proxies": ["naswott"]}),
        (ProxyError, "the proxies must differ, got naswot more than once", {"proxies": ["naswot", "naswot"]}),
        (ProxyError, "has no option 'x'", {"proxies": ["naswot:x=1"]}),
        (DataError, "needs 3 architectures or more, got sample=2", {"sample": 2}),
        (DataError, "sample must be a whole number of architectures, got 3.5", {"sample": 3.5}),
        (DataError, "needs 3 architectures or more, got a table of 2", {"data": table().take([0, 1])}),
        (DataError, "a sample of demo has 1 to 10 architectures, got n=11", {"sample": 11}),
        (ValueError, "a seed is an integer of 0 or more, got -1", {"seed": -1}),
        (ValueError, "repeats must be a whole number of 1 or more, got 0", {"repeats": 0}),
        (ValueError, "batch_size must be a whole number of 1 or more, got 0", {"batch_size": 0}),
        (ValueError, "takes no time_limit", {"time_limit": 3}),
        (ValueError, "the space has input_size .*, got .*3, 9, 9", {"space": SPACE, "input_size": (3, 9, 9)}),
        (ValueError, "the space has channels 4, got 8", {"space": SPACE, "space_options": {"channels": 8}}),
        (DataError, "does not say what space its architectures are of", {"data": table(space="")}),
        (UnknownNameError, "unknown search space 'nasbench202'", {"space": "nasbench202"}),
        (UnknownNameError, "unknown notation 'op_cod'", {"data": table(code="op_cod")}),
        (
            DataError,
            "of the data set 'mnist', whose images are not known here",
            {"data": table(dataset="mnist"), "input_size": (3, 8, 8)},
        ),
        (
            DataError,
            "row 2 of demo, '333373' in the code 'op_code', can't be read by the space .*: position 4 holds '7'",
            {"data": table(["333333", "333373", "111111"], (1, 2, 3), None)},
        ),
        (
            DataError,
            "row 3 of demo, .*unknown operation 'nor_conv_5x5' at position 1 of a cell. Did you mean 'nor_conv_",
            {
                "data": table(
                    [BEST_CIFAR100, "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", UNKNOWN_OPERATION],
                    (1, 2, 3),
                    None,
                    code="arch",
                )
            },
        ),
    ],
)
def test_bad_input_is_said_before_anything_is_written(tmp_path, error, message, how):
    with pytest.raises(error, match=message):
        run(**how, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resume_needs_a_folder():
    with pytest.raises(ValueError, match="resume=True needs out"):
        run(resume=True)


def test_the_row_is_counted_in_the_whole_table():
    cells = [*CELLS[:5], "999999"]
    with pytest.raises(DataError, match="row 6 of demo, '999999'"):
        run(["params"], data=table(cells, range(6), None), sample=5, seed=next(_seeds_with(cells, "999999")))


def _seeds_with(cells, row):
    data = table(cells, range(len(cells)), None)
    return (seed for seed in range(100) if row in data.sample(5, seed).rows)


# files


@pytest.mark.slow
def test_json_and_folder_give_everything_back(tmp_path):
    found = run([picky, "az_nas"], out=tmp_path)
    assert Correlation.from_json(found.to_json()) == found
    assert Correlation.from_json(found.to_json(indent=1)).scores == {}
    read = Correlation.read(tmp_path)
    assert read == found
    assert (read.rows, read.accuracy, read.scores_csv()) == (found.rows, found.accuracy, found.scores_csv())
    with Store(tmp_path / "run.db", read_only=True) as store:
        assert [entry.kind for entry in store.journal()] == ["start", "done"]
        assert store.fact("kind") == "correlation"
        kept = {(key.architecture, key.proxy) for key, _ in store.scores()}
    assert {proxy for _, proxy in kept} == {"picky", "params", "flops", "layers"} | set(
        zs.get_proxy("az_nas").info.parts
    )


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": "zeroshot_nas.correlation", "version": 9}', "null"],
)
def test_text_that_is_no_correlation(text):
    with pytest.raises(FileFormatError):
        Correlation.from_json(text)


def test_a_damaged_report_is_said(tmp_path):
    data = json.loads(run(["params"], out=tmp_path).to_json())
    for change in ({"input_size": [3]}, {"proxies": [{}]}, {"proxies": None}, {"novel": 1}):
        with pytest.raises(FileFormatError, match="not a valid correlation"):
            Correlation.from_json(json.dumps({**data, **change}))
    for text in ("", "architecture,accuracy\nx,y\n", "a,b\n1,2,3\n", "accuracy\n1\n"):
        (tmp_path / "scores.csv").write_text(text)
        with pytest.raises(FileFormatError, match="is damaged"):
            Correlation.read(tmp_path)


def test_a_table_by_its_file(tmp_path):
    path = convert(table(), tmp_path / "demo.csv")
    found = run(["params"], data=str(path))
    assert (found.table, found.population) == ("demo", 10)
    with pytest.raises(UnknownNameError, match="unknown benchmark table 'nasbench2001'"):
        run(["params"], data="nasbench2001")


@pytest.mark.slow
@pytest.mark.skipif(not RESULTS.exists(), reason="the real results are not here")
def test_real_results():
    options = {"accuracy_column": "c10_test_200", "space": "nasbench201", "dataset": "cifar10"}
    data = load_table(RESULTS, **options)
    counted = correlate("params", data, sample=400, progress=False)
    with gzip.open(RESULTS, "rt") as file:
        known = {row["arch"]: float(row["c10_params"]) for row in csv.DictReader(file)}
    assert [known[row] for row in counted.rows] == list(counted.scores["params"])
    assert 0.45 < counted["params"].kendall < 0.7  # 0.578 among all
    found = correlate(["naswot", "synflow"], data, sample=25, **SMALL)
    assert found.population == 15_625
    assert found["synflow"].kendall > 0.2
    assert found["params"].kendall > 0.2
