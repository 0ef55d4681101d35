"""Settings that every test shares."""

import os
import signal
import sys
from functools import cache

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: threads cost more than they give; read when torch loads

# a shell that runs the tests in the background has them ignore Ctrl-C, which some of them send
signal.signal(signal.SIGINT, signal.default_int_handler)

# pytest --hypothesis-profile thorough tries other examples each time, and more of them
settings.register_profile("default", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=250, deadline=None)
settings.load_profile("default")


def pytest_runtest_setup():
    """torch's exporter reads the sources of its 500 translations anew for every model; here once a process."""
    scripts = getattr(sys.modules.get("torch.onnx._internal.exporter._registration"), "onnxscript_apis", None)
    if scripts is not None and not hasattr(scripts.get_torchlib_ops, "cache_info"):
        scripts.get_torchlib_ops = cache(scripts.get_torchlib_ops)


@pytest.fixture(scope="session")
def processes():
    """Two worker processes, started once: that takes longer than most of what is done in them."""
    from zeroshot_nas.execution import get_executor

    with get_executor("process", workers=2) as executor:
        yield executor


@pytest.fixture
def no_plots(monkeypatch):
    """As where matplotlib is not installed: to draw takes most of the time of a small run that has a report."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line in this process; gives exit code, output and error output."""
    from zeroshot_nas import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["zeroshot-nas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call
