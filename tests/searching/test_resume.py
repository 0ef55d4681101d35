"""A run that was stopped and resumed, however often, ends as one that never was."""

import os
import pickle
import random
import signal
import subprocess
import sys
import time

import pytest

import zeroshot_nas as zs
from zeroshot_nas.errors import OutputExistsError, RunInUseError, SettingsChangedError
from zeroshot_nas.runs import evaluate as evaluating
from zeroshot_nas.runs.store import open_run
from zeroshot_nas.searchers.base import SEARCHERS, Problem
from zeroshot_nas.searching import rounds
from zeroshot_nas.searching.screening import IslandTask, screen_islands

pytestmark = pytest.mark.slow

BUDGET = zs.Budget(params=50_000, layers=8)
SCREENED = {"proposals": 600, "islands": 3, "finalists": 12}
RANKED = {"proposals": 40, "screen": None}


def search(settings, **how):
    return zs.search("resnet", "zen", BUDGET, input_size=(1, 8, 8), progress=False, seed=5, **settings, **how)


def outcome(result):
    """All of a result but wall times."""
    history = [
        (
            each.architecture,
            each.costs,
            each.fitness,
            [(s.proxy, s.value, s.repeats, s.state) for s in each.scores.values()],
        )
        for each in result.history
    ]
    return result.best.architecture, result.best.fitness, history, result.counts, result.failures


@pytest.fixture(scope="module")
def unbroken():
    return {name: outcome(search(settings)) for name, settings in (("screened", SCREENED), ("ranked", RANKED))}


@pytest.mark.parametrize(("name", "settings"), [("screened", SCREENED), ("ranked", RANKED)])
@pytest.mark.parametrize("stop", [1, 7, 12])
def test_stopped_anywhere_and_resumed(tmp_path, monkeypatch, unbroken, name, settings, stop):
    calls = []

    def dying(jobs):
        calls.append(jobs)
        if len(calls) == stop:
            raise SystemExit("power cut")
        return compute(jobs)

    compute = evaluating.compute
    monkeypatch.setattr(evaluating, "compute", dying)
    with pytest.raises(SystemExit):
        search(settings, out=tmp_path)
    monkeypatch.setattr(evaluating, "compute", compute)
    assert not (tmp_path / "result.json").exists()
    resumed = search(settings, out=tmp_path, resume=True)
    assert outcome(resumed) == unbroken[name]
    assert zs.SearchResult.from_json((tmp_path / "result.json").read_text()) == resumed


def test_finished_islands_are_not_done_again(tmp_path, monkeypatch, unbroken):
    done = []
    real = rounds.screen_islands

    def dying(tasks, report=None):
        done.append(tasks[0].index)
        if len(done) == 3:
            raise SystemExit("power cut")
        return real(tasks, report)

    monkeypatch.setattr(rounds, "screen_islands", dying)
    monkeypatch.setattr(rounds, "SIDE_BY_SIDE", 1)
    with pytest.raises(SystemExit):
        search(SCREENED, out=tmp_path)
    assert outcome(search(SCREENED, out=tmp_path, resume=True)) == unbroken["screened"]
    assert done == [0, 1, 2, 2]


def test_an_island_needs_no_torch():
    """What is sent to a worker, and what runs there, loads neither torch nor the proxies."""
    space = zs.get_space("resnet", input_size=(1, 8, 8))
    proxy = zs.get_proxy("zen:variant=zennas")
    problem = Problem(BUDGET, proxy.key, proxy.bound_closed_form(), proxy.sign, proposals=200)
    task = IslandTask(space, SEARCHERS["regularized_evolution"], {}, space.initial(), problem, 5, 0, 3)
    code = """
import pickle, sys
from zeroshot_nas.searching.screening import screen_islands
(island,) = screen_islands([pickle.loads(sys.stdin.buffer.read())])
assert "torch" not in sys.modules
print(island.kept[0][0])
"""
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(task), capture_output=True, check=True)
    assert float(done.stdout) == screen_islands([task])[0].kept[0][0]


def test_a_finished_run_resumed_computes_nothing(tmp_path, monkeypatch, unbroken):
    search(SCREENED, out=tmp_path)
    monkeypatch.setattr(evaluating, "compute", None)
    assert outcome(search(SCREENED, out=tmp_path, resume=True)) == unbroken["screened"]


def test_killed_at_random_moments(tmp_path, unbroken):
    code = f"""
import zeroshot_nas as zs
zs.search("resnet", "zen", zs.Budget(params=50_000, layers=8), input_size=(1, 8, 8), progress=False, seed=5,
          out={str(tmp_path)!r}, resume=True, **{SCREENED!r})
"""

    def written():
        """When the store was last written to."""
        try:
            return [file.stat().st_mtime_ns for file in sorted(tmp_path.glob("run.db*"))]
        except FileNotFoundError:  # one was removed meanwhile
            return []

    rng, kills = random.Random(0), 0
    for _ in range(6):
        before = written()
        process = subprocess.Popen([sys.executable, "-c", code])
        while process.poll() is None and written() == before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.4))
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills
    assert outcome(search(SCREENED, out=tmp_path, resume=True)) == unbroken["screened"]


@pytest.mark.parametrize(("name", "settings"), [("screened", SCREENED), ("ranked", RANKED)])
def test_results_do_not_depend_on_the_executor(tmp_path, unbroken, name, settings):
    assert outcome(search(settings, executor="process", workers=2)) == unbroken[name]


def test_a_worker_that_is_killed_costs_its_candidate_and_not_the_run(tmp_path):
    result = zs.search(
        "resnet",
        deadly,
        BUDGET,
        input_size=(1, 8, 8),
        progress=False,
        proposals=8,
        executor="process",
        workers=2,
        repeats=1,
    )
    assert 0 < result.counts.failed < result.counts.failed + result.counts.ranked
    assert all("SIGKILL" in reason for reason in result.failures)


def deadly(network, batch):
    """Kills its process where the first block is wide."""
    width = network.architecture.blocks[0].out_channels
    if width > 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return float(width)


def test_a_score_that_hangs_is_a_failure_with_its_reason():
    result = zs.search(
        "resnet",
        sleepy,
        BUDGET,
        input_size=(1, 8, 8),
        progress=False,
        proposals=8,
        executor="process",
        workers=2,
        time_limit=4,
        repeats=1,
    )
    assert result.counts.failed
    assert all("limit of 4 s" in reason for reason in result.failures)


def sleepy(network, batch):
    if network.architecture.blocks[0].out_channels > 8:
        time.sleep(60)
    return 1.0


def test_a_shared_cache_spares_the_second_run_all_scores(tmp_path, monkeypatch, unbroken):
    search(SCREENED, cache=tmp_path / "scores.db")
    monkeypatch.setattr(evaluating, "compute", None)
    assert outcome(search(SCREENED, cache=tmp_path / "scores.db")) == unbroken["screened"]


def test_another_setting_is_refused_with_the_difference(tmp_path):
    search(SCREENED, out=tmp_path)
    with pytest.raises(SettingsChangedError, match=r"finalists: 12 in the run, 13 asked for"):
        search({**SCREENED, "finalists": 13}, out=tmp_path, resume=True)
    narrow = zs.get_space("resnet", input_size=(1, 8, 8), max_width=64)
    with pytest.raises(SettingsChangedError, match=r"'max_width': 2048.* in the run, .*'max_width': 64.* asked for"):
        zs.search(narrow, "zen", BUDGET, progress=False, seed=5, **SCREENED, out=tmp_path, resume=True)
    with pytest.raises(OutputExistsError, match="already holds a run; go on with it"):
        search(SCREENED, out=tmp_path)
    with pytest.raises(ValueError, match="resume=True needs out"):
        search(SCREENED, resume=True)


def test_a_run_in_use_is_refused(tmp_path):
    with open_run(tmp_path), pytest.raises(RunInUseError, match="in use"):
        search(SCREENED, out=tmp_path)


def test_bad_options_are_said_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="population_size must be 1 or more"):
        search(SCREENED, out=tmp_path / "run", population_size=0)
    with pytest.raises(ValueError, match="islands must be at most the proposals"):
        search({"proposals": 5, "islands": 6}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
