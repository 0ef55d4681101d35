"""Measuring: medians of the quiet half, every backend, kernels in place, and what can't be run."""

import sys
import types
from itertools import pairwise

import pytest
import torch
from torch import nn

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.kernels import ADD, kernels
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import LatencyError, MissingExtraError, UnknownNameError
from zeroshot_nas.latency import base
from zeroshot_nas.latency.base import BACKENDS, Measurement, list_backends, measure, quiet_median, time_runs
from zeroshot_nas.spaces.base import get_space

HERE = ["torch", "torch_channels_last", "onnxruntime", "onnxruntime_int8"]
NET = Architecture.from_string(
    "SuperConvK3BNRELU(3,8,1,1)SuperResIDWE2K3(8,16,2,8,1)", (3, 16, 16), squeeze_excite=True
)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when a test says so, by 10 ns a reading."""
    state = types.SimpleNamespace(now=0)

    def read():
        state.now += 10
        return state.now

    monkeypatch.setattr(base, "perf_counter_ns", read)
    return state


def test_a_runs_time_is_without_the_clocks_own(clock):
    def run():
        clock.now += 200_000

    (windows,) = time_runs([run], 0.1)
    assert [value for window in windows for value in window] == pytest.approx([200e-6] * sum(map(len, windows)))
    assert len(windows) >= base._LEAST_WINDOWS


def test_functions_take_turns_and_short_runs_are_timed_in_groups(clock):
    calls = []

    def run(name, nanoseconds):
        calls.append(name)
        clock.now += nanoseconds

    windows = time_runs([lambda: run("a", 1_000), lambda: run("b", 2_000)], 0.2)
    medians = [quiet_median(each) for each in windows]
    assert medians == [pytest.approx(1e-6, rel=0.02), pytest.approx(2e-6, rel=0.02)]
    changes = sum(before != after for before, after in pairwise(calls))
    assert changes >= 2 * base._LEAST_WINDOWS - 1


def test_what_disturbs_up_to_half_of_the_time_does_not_matter(clock):
    runs = iter(range(10**9))

    def run():
        clock.now += 900_000 if next(runs) // 100 % 2 else 300_000

    (windows,) = time_runs([run], 1.0)
    assert quiet_median(windows) == pytest.approx(300e-6, rel=0.01)


@pytest.mark.parametrize("backend", HERE)
def test_a_measurement_says_with_what_it_was_made(backend):
    found = measure(NET, backend, seconds=0.01, batch_size=2, threads=1, sessions=2)
    assert found.latency_ms > 0
    assert found.fastest_ms <= found.latency_ms
    assert (found.backend, found.batch_size, found.threads, len(found.sessions_ms)) == (backend, 2, 1, 2)
    assert found.backend_version == BACKENDS[backend].version
    assert found.to_dict()["device"] == found.device != ""
    assert found.dtype == BACKENDS[backend].dtype == BACKENDS[backend].fingerprint().dtype


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("space", ["mobilenet", "resnet", "nasbench201", "nasbench101"])
def test_kernels_are_timed_in_place(backend, space):
    net = NET if space == "mobilenet" else get_space(space).sample(python_rng(1))
    with BACKENDS[backend].prepared(net, net.input_size) as (prepared,):
        found = prepared.kernel_seconds(3)
    expected = kernels(net)
    assert [len(each) for each in found] == [len(expected)] * 3
    for run in found:
        for kernel, seconds in zip(expected, run, strict=True):
            assert seconds >= 0
            if kernel.kind in ("conv", "depthwise") and kernel.height > 1:
                assert seconds > 0
    if backend == "onnxruntime" and space == "mobilenet":  # sums are taken in by convolutions
        assert all(seconds == 0 for kernel, seconds in zip(expected, found[0], strict=True) if kernel.kind == ADD)


@pytest.mark.parametrize("backend", HERE)
def test_a_module_is_measured_and_left_alone(backend):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    found = measure(module, backend, input_size=(3, 8, 8), seconds=0.01, sessions=2)
    assert found.latency_ms > 0
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("backend", HERE)
def test_what_does_not_run_is_refused_with_its_cause(backend):
    with pytest.raises(LatencyError, match=r"does not run this network \(\w+: .*\)"):
        measure(nn.Conv2d(3, 4, 3), backend, input_size=(4, 8, 8), seconds=0.01)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number of 1 or more, got 0"),
        ({"threads": True}, ValueError, "threads must be"),
        ({"sessions": 1.5}, ValueError, "sessions must be"),
        ({"seconds": 0}, ValueError, "seconds must be a number above 0"),
        ({"input_size": (3, 8, 8)}, LatencyError, r"has input_size \(3, 16, 16\), got \(3, 8, 8\)"),
        ({"backend": "torchh"}, UnknownNameError, "Did you mean 'torch'"),
    ],
)
def test_bad_settings_are_told(options, error, message):
    with pytest.raises(error, match=message):
        measure(NET, **options)


def test_a_module_needs_its_input_size():
    with pytest.raises(LatencyError, match=r"latency of a Conv2d needs input_size=\(C, H, W\)"):
        measure(nn.Conv2d(3, 4, 3), "torch")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_cuda_device_is_told():
    with pytest.raises(LatencyError, match="needs a CUDA device, and torch sees none"):
        measure(NET, "torch_cuda")


def test_a_missing_engine_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime .*zeroshot-nas\[onnx\]"):
        measure(NET, "onnxruntime")


def test_an_unstable_machine_is_said():
    steady = Measurement(1.0, 0.05, 0.9, (1.0,), 10, "torch", "2", "a chip", 1, 2)
    assert steady.is_stable
    assert str(steady) == "1 ms ± 2.5% on torch 2, batch 1, 2 threads, 10 runs"
    shaken = Measurement(1.0, 0.5, 0.9, (1.0,), 10, "torch", "2", "a chip", 1, 1)
    assert not shaken.is_stable
    assert "unstable: the machine was busy" in str(shaken)


def test_the_backends_are_registered():
    assert set(HERE) < set(list_backends())
