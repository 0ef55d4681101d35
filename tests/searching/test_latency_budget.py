"""Latency budgets: predictions guide, measurements decide, and no network over its budget comes back."""

import warnings
from itertools import pairwise
from types import SimpleNamespace

import pytest

from tests.latency.device import a_table, latency_ms
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import BudgetError, InfeasibleBudgetError, LatencyError, LatencyWarning, SettingsChangedError
from zeroshot_nas.latency.base import BACKENDS
from zeroshot_nas.latency.calibration_networks import calibration_networks
from zeroshot_nas.latency.device_table import DeviceTable
from zeroshot_nas.searchers.base import Candidate, SearchResult
from zeroshot_nas.searching import latency_budget as module
from zeroshot_nas.searching import trial_runs
from zeroshot_nas.searching.latency_budget import MAX_ROUNDS, MEASURED_A_ROUND
from zeroshot_nas.searching.loop import search
from zeroshot_nas.spaces.base import get_space

pytest.importorskip("sklearn")

OPTIONS = {"proposals": 400, "finalists": 30, "progress": False}


@pytest.fixture
def machine(monkeypatch):
    """A machine that is a formula, times a factor that predictions don't know; and how often it was asked."""
    state = SimpleNamespace(factor=1.0, asked=0, stop_at=None)

    def measure(architecture, backend, *, batch_size, threads):
        if state.asked == state.stop_at:
            raise KeyboardInterrupt
        state.asked += 1
        return SimpleNamespace(latency_ms=state.factor * latency_ms(architecture), spread=0.01, is_stable=True)

    monkeypatch.setattr(module, "measure", measure)
    return state


def resnets():
    """The table of all tests here, made when the first one asks for it."""
    return a_table("resnet", fingerprint=BACKENDS["torch"].fingerprint())


def run(limit=0.8, table=None, proxy="zen_closed_form", **options):
    budget = Budget(latency_ms=limit, layers=18)
    return search("resnet", proxy, budget, device_table=table or resnets(), **{**OPTIONS, **options})


def found(result):
    """What a result says but wall times."""
    return [(each.architecture, each.costs, each.fitness) for each in (result.best, *result.history)]


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_winner_keeps_its_budget_however_wrong_the_prediction_is(machine, factor, seed):
    machine.factor = factor
    result = run(seed=seed)
    latency = result.latency
    assert latency["measured_ms"] == factor * latency_ms(result.best.architecture) <= latency["limit_ms"] == 0.8
    assert (
        latency["predicted_ms"] == resnets().latency_ms(result.best.architecture) <= latency["prediction_limits_ms"][-1]
    )
    assert machine.asked == len(latency["measurements"])
    assert all(each["measured_ms"] > 0.8 for each in latency["measurements"][:-1])
    limits = latency["prediction_limits_ms"]
    assert limits == sorted(limits, reverse=True)
    assert (len(limits) > 1) == (factor > 1.1)
    assert result.seconds["measure"] >= 0
    assert SearchResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("factor", [0.5, 1.4])
def test_trials_are_of_networks_that_were_measured_within_it(machine, monkeypatch, factor):
    machine.factor = factor
    tried = []

    def trained(architecture, images, recipe, until, folder, seed, device):
        tried.append(architecture)
        return {"accuracy": 1 / complexity(architecture).params}, ""

    monkeypatch.setattr(trial_runs, "train_trial", trained)
    result = run(trials=4, data="digits")
    assert set(tried) == {each.architecture for each in result.trials.trials}
    measured = {each["architecture"]: each["measured_ms"] for each in result.latency["measurements"]}
    assert all(measured[each.key] == factor * latency_ms(each) <= 0.8 for each in tried)
    assert result.best.architecture == min(tried, key=lambda each: complexity(each).params)
    assert result.latency["measured_ms"] == factor * latency_ms(result.best.architecture)
    assert result.best.costs.latency_ms == resnets().latency_ms(result.best.architecture)
    assert any(not each.name.startswith("found") for each in result.trials.trials)


def test_of_those_that_keep_it_the_fittest_wins(machine):
    result = run()
    better = [each for each in result.history if each.fitness > result.best.fitness]
    measured = {each["architecture"]: each["measured_ms"] for each in result.latency["measurements"]}
    assert all(measured[each.architecture.key] > 0.8 for each in better)


def test_the_limit_is_divided_by_the_ratio_that_was_seen(machine):
    machine.factor = 2.0
    limits = run().latency["prediction_limits_ms"]
    assert limits[1] == pytest.approx(0.4, rel=0.1)


def test_every_round_asks_for_less_and_measures_few(machine):
    machine.factor = 1.02
    result = run(limit=0.8)
    limits = result.latency["prediction_limits_ms"]
    assert all(after <= 0.98 * before + 1e-12 for before, after in pairwise(limits))
    assert machine.asked <= len(limits) * MEASURED_A_ROUND


@pytest.mark.parametrize(("excess", "asked"), [(1.2, MEASURED_A_ROUND), (3.0, 2)])
def test_a_round_far_over_the_limit_is_given_up_early(monkeypatch, excess, asked):
    slow = SimpleNamespace(latency_ms=excess * 0.8, spread=0.01, is_stable=True)
    monkeypatch.setattr(module, "measure", lambda *_, **__: slow)
    networks = calibration_networks(get_space("resnet"), 2 * MEASURED_A_ROUND, max_flops=1e8)
    candidates = [Candidate(each, complexity(each).with_latency(0.7), {}, 1.0) for each in networks]
    budget = module.LatencyBudget(0.8, resnets(), here=True)
    assert budget.first_within(candidates) is None
    assert len(budget.of_round) == asked
    budget.tighten()
    assert budget.of_round == []
    assert budget.limits_ms[-1] == pytest.approx(0.7 / excess)


def test_a_search_that_cannot_keep_its_budget_says_so(machine, monkeypatch):
    def slow(architecture, backend, *, batch_size, threads):
        return SimpleNamespace(latency_ms=0.81, spread=0.01, is_stable=True)

    monkeypatch.setattr(module, "measure", slow)
    with pytest.raises(
        InfeasibleBudgetError, match=rf"within 0.8 ms on torch: .* of {MAX_ROUNDS} rounds .* at 0.81 ms"
    ):
        run(proposals=100)


def test_a_proxy_without_a_closed_form_keeps_it_too(machine):
    machine.factor = 1.5
    result = run(proxy="flops", proposals=150, screen=None)
    assert result.latency["measured_ms"] <= 0.8
    assert len(result.latency["prediction_limits_ms"]) > 1
    assert result.counts.proposed == 150 * len(result.latency["prediction_limits_ms"])


def test_a_proxy_by_forward_passes_keeps_it_too(machine):
    machine.factor = 1.5
    result = run(proxy="zen", finalists=10)
    assert result.latency["measured_ms"] <= 0.8
    assert len({each.architecture for each in result.history}) == len(result.history)


def test_the_same_table_and_measurements_give_the_same_result(machine):
    machine.factor = 1.3
    first, second = run(), run(executor="process", workers=2)
    assert found(first) == found(second)
    assert first.latency == second.latency


def test_an_impossible_budget_is_told_before_anything_is_proposed(machine):
    with pytest.raises(InfeasibleBudgetError, match=r"the smallest has .* latency_ms; the budget is 0.001"):
        run(limit=0.001)


@pytest.mark.parametrize("stop_at", [0, 1, 2])
@pytest.mark.parametrize("islands", [{}, {"islands": 2, "exchanges": 2}], ids=["one island", "legs"])
def test_a_killed_search_goes_on_with_what_was_measured(machine, tmp_path, stop_at, islands):
    machine.factor = 1.5
    whole = run(out=tmp_path / "whole", **islands)
    asked, machine.asked = machine.asked, 0
    machine.stop_at = stop_at
    with pytest.raises(InfeasibleBudgetError, match="stopped before any network was measured within"):
        run(out=tmp_path / "cut", **islands)
    machine.stop_at = None
    resumed = run(out=tmp_path / "cut", resume=True, **islands)
    assert machine.asked == asked
    assert found(resumed) == found(whole)
    assert (resumed.latency, resumed.counts) == (whole.latency, whole.counts)


def test_another_table_is_another_setting(machine, tmp_path):
    run(out=tmp_path)
    data = resnets().to_dict()
    data["overhead"]["factor"] *= 2
    with pytest.raises(SettingsChangedError, match="device_table"):
        run(out=tmp_path, resume=True, table=DeviceTable.from_dict(data))


def test_a_device_that_is_not_here_is_predicted_and_said(machine, tmp_path):
    data = resnets().to_dict()
    data["fingerprint"]["device"] = "Pixel 9"
    DeviceTable.from_dict(data).save(tmp_path / "pixel.json")
    with pytest.warns(LatencyWarning, match="the device table is of Pixel 9 .* predicted, not measured"):
        result = run(table=tmp_path / "pixel.json")
    assert machine.asked == 0
    assert result.latency["measured_ms"] is None
    assert result.best.costs.latency_ms == result.latency["predicted_ms"] <= 0.8


def test_what_a_table_was_not_measured_for_is_said(machine):
    with pytest.warns(LatencyWarning) as caught:
        search(
            "resnet",
            "zen_closed_form",
            Budget(latency_ms=resnets().largest_ms * 2, layers=18),
            device_table=resnets(),
            input_size=(3, 16, 16),
            **OPTIONS,
        )
    text = " ".join(str(each.message) for each in caught)
    assert "was measured on networks of resnet for (3, 32, 32), not of resnet for (3, 16, 16)" in text
    assert "are extrapolated; calibrate with a larger --max-flops" in text


def test_a_table_without_a_limit_and_a_limit_without_a_table_are_told(monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROSHOT_NAS_TABLES", str(tmp_path))
    with pytest.raises(BudgetError, match="a device table needs a limit on latency"):
        search("resnet", "zen", Budget(layers=5), device_table=resnets())
    with pytest.raises(LatencyError, match="no device table for onnxruntime and resnet at 3x32x32"):
        search("resnet", "zen", Budget(latency_ms=1.0, layers=5))


def test_without_a_limit_nothing_is_said_of_latency():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = search("resnet", "zen_closed_form", Budget(params=1e5, layers=9), **OPTIONS)
    assert result.latency is None
    assert "latency_ms" not in result.best.to_dict()["costs"]
    assert "device_table" not in result.settings
