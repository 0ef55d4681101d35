"""A run that is killed while it begins can be begun again, wherever the kill fell."""

import ast
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest

from zeroshot_nas.runs.options import RunOptions
from zeroshot_nas.runs.resume import kind_of
from zeroshot_nas.runs.session import RunSession
from zeroshot_nas.runs.store import Store

pytestmark = pytest.mark.slow

SCRIPT = """
import os, resource, signal, sqlite3, sys
from contextlib import ExitStack
from pathlib import Path
import filelock
from zeroshot_nas.errors import ZeroShotNASError
from zeroshot_nas.runs.options import RunOptions
from zeroshot_nas.runs.session import RunSession

def begin(folder):
    with ExitStack() as stack:
        call = {"space": "x" * 5000}
        RunSession(stack, RunOptions(out=folder), "search", {"seed": 0}, ("result.json",), {"call": call})

def killed(folder, prepare):
    pid = os.fork()
    if pid == 0:
        prepare()
        try:
            begin(folder)
        except BaseException as error:
            os._exit(3 if isinstance(error, ZeroShotNASError) else 4)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def kill_at_event(number):
    seen = 0
    def count(*_):
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
    def hook(event, arguments):
        if event.startswith(("open", "os.", "shutil.", "sqlite3.connect")):
            count()
    def connect(*arguments, _connect=sqlite3.connect, **options):
        connection = _connect(*arguments, **options)
        connection.set_trace_callback(count)
        return connection
    def prepare():
        sqlite3.connect = connect
        sys.addaudithook(hook)
    return prepare

def kill_at_byte(limit, signal_handler):
    def prepare():
        signal.signal(signal.SIGXFSZ, signal_handler)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return prepare

root = Path(sys.argv[1])
begin(root / "warm-up")
codes = {}
for number in range(1, 1000):
    code = codes[f"event-{number}"] = killed(root / f"event-{number}", kill_at_event(number))
    if code == 0:
        break
for limit in range(0, 400_000, 4096):  # a disk that is full at so many bytes a file, and a kill there
    for name, handler in (("full", signal.SIG_IGN), ("kill", signal.SIG_DFL)):
        codes[f"{name}-{limit}"] = killed(root / f"{name}-{limit}", kill_at_byte(limit, handler))
    if codes[f"full-{limit}"] == codes[f"kill-{limit}"] == 0:
        break
print(codes)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
def test_a_run_killed_at_any_file_operation_of_its_beginning_is_begun_again(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True, check=True)
    codes = ast.literal_eval(done.stdout)
    assert set(codes.values()) == {0, -signal.SIGKILL, -signal.SIGXFSZ, 3}, "killed, or stopped by an error of ours"
    kinds = {"event": 0, "full": 0, "kill": 0}
    for name in (name for name, code in codes.items() if code):
        kinds[name.partition("-")[0]] += 1
        folder = tmp_path / name
        with ExitStack() as stack:
            if kind_of(folder) is None:
                session = RunSession(
                    stack, RunOptions(out=folder), "search", {"seed": 1}, ("result.json",), {"call": 1}
                )
                assert session.store.fact("settings") == {"seed": 1}
            else:  # killed at its very end, where all of it was there
                store = stack.enter_context(Store(folder / "run.db"))
                assert (store.fact("settings"), set(store.fact("call"))) == ({"seed": 0}, {"space"})
                assert [entry.kind for entry in store.journal()] == ["start"]
    assert kinds["event"] > 20
    assert min(kinds.values()) > 2
