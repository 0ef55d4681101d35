"""Dask: the same values as in the caller's thread, and dead workers are survived."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from tests.execution import tasks
from tests.execution.tasks import PATIENCE
from zeroshot_nas.errors import ClusterError, ClusterWarning, MissingExtraError, TransferError, WorkerDiedError
from zeroshot_nas.execution import SerialExecutor, get_executor, run_all
from zeroshot_nas.execution.cluster import DaskExecutor, _settle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("distributed")
    with get_executor("dask", workers=3) as executor:
        yield executor


def shown(outcomes):
    return [(each.value, repr(each.error), each.attempts) for each in outcomes]


def test_outcomes_do_not_depend_on_the_executor(cluster):
    assert cluster.workers == 3
    numbers = [(number,) for number in range(20)]
    assert shown(run_all(cluster, tasks.halve, numbers)) == shown(run_all(SerialExecutor(), tasks.halve, numbers))


def test_two_workers_run_at_once(cluster, tmp_path):
    pairs = [(tmp_path, "a", "b"), (tmp_path, "b", "a")]
    assert [each.value for each in run_all(cluster, tasks.meet, pairs)] == [True, True]


def test_equal_tasks_run_each(cluster):
    """Dask would run equal calls once."""
    futures = [cluster.submit(os.urandom, 8) for _ in range(3)]
    assert len({future.result(PATIENCE) for future in futures}) == 3


def test_keywords_reach_the_function_not_dask(cluster):
    assert cluster.submit(dict, key=1, workers=2, retries=3).result(PATIENCE) == {"key": 1, "workers": 2, "retries": 3}


def test_functions_without_a_name_are_sent_along(cluster):
    offset = 5
    assert cluster.submit(lambda number: number + offset, 1).result(PATIENCE) == 6


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ((tasks.square, sys._getframe()), "can't be sent to a worker"),
        ((sys._getframe,), "a result of type frame can't be sent back"),
        ((tasks.raise_awkward,), r"raised .*AwkwardError: no reason \(3\)"),
    ],
    ids=["argument", "result", "exception"],
)
def test_what_cannot_travel_says_so(cluster, task, message):
    with pytest.raises(TransferError, match=message):
        cluster.submit(*task).result(PATIENCE)


def test_a_running_cluster_is_used_and_left_running(cluster):
    address = cluster._client.scheduler.address
    with get_executor("dask", scheduler=address) as guest:
        assert guest.workers == 3
        assert [each.value for each in run_all(guest, tasks.square, [(2,), (3,)])] == [4, 9]
    with pytest.raises(RuntimeError, match="after shutdown"):
        guest.submit(tasks.square, 2)
    assert cluster.submit(tasks.square, 2).result(PATIENCE) == 4


def test_cancelled_tasks_do_not_hold_up_the_end(cluster):
    guest = DaskExecutor(scheduler=cluster._client.scheduler.address)
    futures = [guest.submit(tasks.napping_square, 2, 0.1) for _ in range(12)]
    assert futures[-1].cancel()
    guest.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)


def test_killed_workers_are_survived(cluster, tmp_path):
    suicides = list(run_all(cluster, tasks.die_the_first_time, [(tmp_path, number) for number in range(3)]))
    assert [each.value for each in suicides] == [0, 1, 2]
    values = []
    for outcome in run_all(cluster, tasks.numbered_process_id, [(number, 0.02) for number in range(60)]):
        number, process = outcome.value
        values.append(number)
        if number in (10, 30):
            os.kill(process, signal.SIGKILL)
    assert values == list(range(60))


def test_a_task_that_kills_every_worker_is_a_counted_failure(cluster):
    (outcome,) = run_all(cluster, tasks.die, [()], retries=0)
    assert isinstance(outcome.error, WorkerDiedError)
    assert "4 different workers" in str(outcome.error)
    assert cluster.submit(tasks.square, 2).result(PATIENCE) == 4


def test_deaths_under_tasks_are_one_kind_of_failure():
    """A run counts failures by their text, so it holds no task's number and no worker's port."""
    distributed = pytest.importorskip("distributed")
    texts = set()
    for task, port in (("call_packed-1", 4001), ("call_packed-2", 4002)):
        worker = SimpleNamespace(address=f"tcp://127.0.0.1:{port}")
        remote, future = Future(), Future()
        remote.set_exception(distributed.scheduler.KilledWorker(task, worker, 3))
        _settle(future, remote)
        assert isinstance(future.exception(), WorkerDiedError)
        texts.add(str(future.exception()))
    assert texts == {"Dask gave up on the task: 4 different workers died while they ran it"}


@pytest.fixture
def scheduler(request, tmp_path):
    """A scheduler of its own, with options of the command line; its address."""
    pytest.importorskip("distributed")
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    file, options = tmp_path / "scheduler.json", getattr(request, "param", [])
    command += ["--dashboard-address", "127.0.0.1:0", "--no-dashboard", "--scheduler-file", str(file), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    deadline = time.monotonic() + PATIENCE
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield json.loads(file.read_text())["address"]
    process.terminate()
    process.wait()


def test_a_scheduler_without_workers_is_told(scheduler):
    with pytest.warns(ClusterWarning, match=rf"scheduler at {scheduler} has no workers; tasks wait"):
        executor = get_executor("dask", scheduler=scheduler)
    with executor:
        pass


@pytest.fixture
def certificates(tmp_path):
    """A certificate of one's own that signs itself, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "ca.pem"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "me.pem").write_text((tmp_path / "ca.pem").read_text() + (tmp_path / "key.pem").read_text())


TLS = ["--protocol", "tls", "--tls-ca-file", "ca.pem", "--tls-cert", "me.pem", "--tls-key", "me.pem"]


@pytest.mark.filterwarnings("ignore::zeroshot_nas.errors.ClusterWarning")
@pytest.mark.parametrize("scheduler", [TLS], indirect=True)
def test_with_certificates_nobody_else_is_let_in(certificates, scheduler, tmp_path, monkeypatch):
    """The settings that the docs of `DaskExecutor` give."""
    dask = pytest.importorskip("dask")
    assert scheduler.startswith("tls://")
    monkeypatch.setattr("zeroshot_nas.execution.cluster.CONNECT_SECONDS", 2)
    for address in (scheduler, scheduler.replace("tls://", "tcp://")):
        with pytest.raises(ClusterError, match="no Dask scheduler answers at"):
            get_executor("dask", scheduler=address)
    for name, value in re.findall(r"(DASK_DISTRIBUTED__\w+)=(\S+)", DaskExecutor.__doc__):
        monkeypatch.setenv(name, value if value == "true" else str(tmp_path / value))
    merged = dask.config.merge(dask.config.global_config, dask.config.collect_env())
    with dask.config.set(merged), get_executor("dask", scheduler=scheduler) as executor:
        assert executor.workers == 0


def test_a_scheduler_that_does_not_answer(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("zeroshot_nas.execution.cluster.CONNECT_SECONDS", 0.5)
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        get_executor("dask", scheduler="tcp://127.0.0.1:1")
    with pytest.raises(ValueError, match="looks like 'tcp://"):
        get_executor("dask", scheduler="localhost:8786")
    with pytest.raises(ValueError, match="workers or scheduler"):
        get_executor("dask", scheduler="tcp://127.0.0.1:1", workers=2)


def test_without_dask_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r'pip install "zeroshot-nas\[cluster\]"'):
        get_executor("dask")
