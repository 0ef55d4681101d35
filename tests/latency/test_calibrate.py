"""Calibration: what is measured is kept, resumed and fitted; and the fit recovers a device that is a formula."""

import json
import warnings
from dataclasses import replace

import pytest
from scipy.stats import spearmanr

from tests.latency.device import FINGERPRINT, latency_ms, timed
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import (
    FileFormatError,
    LatencyError,
    LatencyWarning,
    OutputExistsError,
    RunInUseError,
    SettingsChangedError,
)
from zeroshot_nas.latency import calibrate as module
from zeroshot_nas.latency.base import BACKENDS, UNSTABLE_SPREAD
from zeroshot_nas.latency.calibrate import calibrate, find_table, is_here, table_file
from zeroshot_nas.latency.calibration_networks import calibration_networks
from zeroshot_nas.latency.device_table import DeviceTable, Fingerprint
from zeroshot_nas.latency.fit import fit_table
from zeroshot_nas.spaces.base import get_space

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn")


@pytest.fixture
def counted(monkeypatch):
    """A machine that is a formula, and how often it was asked."""
    asked = []

    def time(architecture, info, batch_size, threads):
        asked.append(architecture)
        found = timed(architecture)
        return {"latency_ms": found.latency_ms, "spread": found.spread, "kernels_ms": list(found.kernels_ms)}

    monkeypatch.setattr(module, "_time", time)
    return asked


def run(tmp_path, **options):
    defaults = {"networks": 10, "max_flops": 2e7, "out": tmp_path / "table.json", "progress": False}
    return calibrate(get_space("resnet"), "torch", **{**defaults, **options})


@pytest.mark.parametrize("space", ["resnet", "mobilenet"])
def test_the_fit_recovers_a_device_that_is_a_formula(space):
    where = get_space(space)
    networks = calibration_networks(where, 80, 1e8)
    table, seen = fit_table([timed(each) for each in networks], FINGERPRINT, where, {"networks": 80}), set(networks)
    unseen = [each for each in calibration_networks(where, 40, 1e8, seed=5) if each not in seen]
    predicted, truth = [table.latency_ms(each) for each in unseen], [latency_ms(each) for each in unseen]
    assert spearmanr(predicted, truth).statistic > 0.99
    errors = sorted(abs(p / t - 1) for p, t in zip(predicted, truth, strict=True))
    assert errors[len(errors) // 2] < 0.05
    assert table.details["median_error"] < 0.1
    assert table.largest_ms == max(latency_ms(each) for each in seen)


def test_a_table_needs_networks():
    networks = [timed(each) for each in calibration_networks(get_space("resnet"), 4, 1e7)]
    with pytest.raises(LatencyError, match="at least 8 networks, got 4"):
        fit_table(networks, FINGERPRINT, get_space("resnet"), {})


def test_networks_below_the_noise_make_a_table_that_can_be_read(tmp_path):
    """Where slower kernels seem to make faster networks, kernels count as they were measured."""
    networks = [timed(each) for each in calibration_networks(get_space("resnet"), 12, 1e7)]
    upside_down = [replace(each, latency_ms=10 - sum(each.kernels_ms)) for each in networks]
    table = fit_table(upside_down, FINGERPRINT, get_space("resnet"), {})
    assert table.overhead.factor == 1.0
    table.save(tmp_path / "table.json")
    assert DeviceTable.load(tmp_path / "table.json") == table


def test_a_calibration_measures_twice_and_writes_the_table(counted, tmp_path):
    table = run(tmp_path)
    assert len(counted) == 20
    assert DeviceTable.load(tmp_path / "table.json") == table
    assert list(tmp_path.iterdir()) == [tmp_path / "table.json"]
    assert table.fingerprint == BACKENDS["torch"].fingerprint()
    assert is_here(table.fingerprint)


def test_a_killed_calibration_goes_on_where_it_was(monkeypatch, counted, tmp_path):
    whole = run(tmp_path / "whole")
    counted.clear()
    time = module._time

    def killed(*arguments):
        if len(counted) == 7:
            raise KeyboardInterrupt
        return time(*arguments)

    monkeypatch.setattr(module, "_time", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    monkeypatch.setattr(module, "_time", time)
    log = tmp_path / "cut" / "table.json.measured"
    log.write_text(log.read_text() + '{"pass": 0, "ind')  # what a kill in the middle of a line leaves
    counted.clear()
    resumed = run(tmp_path / "cut")
    assert len(counted) == 13
    assert resumed.kernels == whole.kernels
    assert resumed.overhead == whole.overhead


def test_a_kill_while_a_calibration_is_resumed_loses_nothing(monkeypatch, counted, tmp_path):
    """Nothing of the log is written anew: its measurements stay where they are, byte for byte."""
    time = module._time

    def killed(*arguments):
        if len(counted) == 7:
            raise KeyboardInterrupt
        return time(*arguments)

    monkeypatch.setattr(module, "_time", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    log = tmp_path / "table.json.measured"
    whole, inode = log.read_bytes(), log.stat().st_ino
    for tail in (b"", b'{"pass": 0, "ind', b"\0" * 100, b'{"pass": 0}\n'):
        log.write_bytes(whole + tail)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
        assert (log.read_bytes(), log.stat().st_ino) == (whole, inode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.json.measured"]


def test_two_calibrations_of_a_table_do_not_mix(monkeypatch, counted, tmp_path):
    time = module._time

    def meanwhile(*arguments):
        if len(counted) in (0, 7, 19):  # the first, one in the middle, the last
            with pytest.raises(RunInUseError, match=r"table\.json is being measured by another process; wait"):
                run(tmp_path)
        return time(*arguments)

    monkeypatch.setattr(module, "_time", meanwhile)
    run(tmp_path)
    assert len(counted) == 20


@pytest.mark.parametrize("spread", [0.1, 1.737])
def test_an_unsteady_machine_is_told(monkeypatch, counted, tmp_path, spread):
    time = module._time
    monkeypatch.setattr(module, "_time", lambda *arguments: {**time(*arguments), "spread": spread})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(tmp_path)
    assert [each.category for each in caught] == ([LatencyWarning] if spread > UNSTABLE_SPREAD else [])
    assert all("spread over 174% of their median" in str(each.message) for each in caught)


def test_the_bar_counts_networks(counted, tmp_path, capsys):
    run(tmp_path, networks=24, progress=True)
    shown = capsys.readouterr().err
    assert "measuring torch, 1 of 2: 100%" in shown
    assert "measuring torch, 2 of 2: 100%" in shown
    assert "24/24" in shown
    assert "/48" not in shown


def test_a_log_of_other_settings_or_damage_is_told(counted, tmp_path):
    log = tmp_path / "table.json.measured"
    log.write_text(json.dumps({"seed": 5}) + "\n")
    with pytest.raises(SettingsChangedError, match=r"begun with other settings.* seed: 5 in the run, 0 asked for"):
        run(tmp_path)
    log.write_text("nonsense\n{}\n")
    with pytest.raises(FileFormatError, match="line 1, is damaged"):
        run(tmp_path)


def test_a_table_is_not_overwritten_without_force(counted, tmp_path):
    run(tmp_path)
    with pytest.raises(OutputExistsError, match="--force"):
        run(tmp_path)
    run(tmp_path, force=True)
    assert len(counted) == 40


def test_this_machines_table_is_found_and_anothers_refused(counted, monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROSHOT_NAS_TABLES", str(tmp_path))
    space = get_space("resnet")
    with pytest.raises(
        LatencyError, match=r"no device table for torch and resnet at 3x32x32; .* latency calibrate --backend"
    ):
        find_table(space, "torch")
    table = run(tmp_path, out=None)
    assert find_table(space, "torch") == table
    foreign = {**table.to_dict()}
    foreign["fingerprint"] = {**foreign["fingerprint"], "device": "another chip"}
    DeviceTable.from_dict(foreign).save(table_file("torch", "resnet", (3, 32, 32)))
    with pytest.raises(LatencyError, match=r"measured elsewhere \(device 'another chip' .*--force.*--device-table"):
        find_table(space, "torch")


def test_a_backend_that_is_not_here_is_elsewhere():
    assert not is_here(Fingerprint("Pixel 3", 8, "Android", "tflite", "2.1"))


@pytest.mark.filterwarnings("ignore::zeroshot_nas.errors.LatencyWarning")  # other work on the machine
def test_really_measured(tmp_path):
    table = calibrate(
        get_space("resnet", input_size=(3, 8, 8)),
        "torch",
        networks=8,
        max_flops=2e5,
        out=tmp_path / "t",
        progress=False,
    )
    assert table.details["networks"] == 8
    assert all(observed.latency_ms >= 0 for observed in table.kernels.values())
    assert 0 < table.latency_ms(get_space("resnet", input_size=(3, 8, 8)).smallest("flops")) < 1_000


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "nasbench201"])
def test_calibration_networks_are_distinct_deterministic_and_within_their_budget(name):
    space = get_space(name)
    once, again = (calibration_networks(space, 12, 2e8, seed=3) for _ in range(2))
    assert once == again
    assert len(set(once)) == 12
    assert all(each in space for each in once)
    assert calibration_networks(space, 12, 2e8, seed=4) != once


def test_calibration_networks_that_cannot_be_are_told():
    space = get_space("resnet")
    with pytest.raises(ValueError, match="max_flops must be at least"):
        calibration_networks(space, 5, 10.0)
    least = complexity(space.smallest("flops")).flops
    with pytest.raises(ValueError, match=r"only 1 different networks were found, asked for 2"):
        calibration_networks(space, 2, least)
