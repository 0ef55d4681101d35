"""Worker processes: they survive what tasks do to them, and nothing survives the pool."""

import gc
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, wait

import pytest

from tests.execution import heavy_tasks, tasks
from tests.execution.tasks import PATIENCE, alive, wait_until
from zeroshot_nas.errors import TaskTimeoutError, TransferError, WorkerDiedError
from zeroshot_nas.execution import SerialExecutor, get_executor, run_all
from zeroshot_nas.execution.pool import WorkerPool

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests kill by POSIX signals")


@pytest.fixture(scope="module")
def pool():
    with WorkerPool(2) as pool:
        yield pool


def shown(outcomes):
    return [(each.value, repr(each.error), each.attempts) for each in outcomes]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_outcomes_do_not_depend_on_the_executor(workers):
    numbers = [(number,) for number in range(30)]
    serial = shown(run_all(SerialExecutor(), tasks.halve, numbers))
    with get_executor("process", workers=workers) as executor:
        assert shown(run_all(executor, tasks.halve, numbers)) == serial


def test_two_workers_run_at_once(pool, tmp_path):
    pairs = [(tmp_path, "a", "b"), (tmp_path, "b", "a")]
    assert [each.value for each in run_all(pool, tasks.meet, pairs)] == [True, True]


def test_processes_start_when_needed_and_are_kept():
    with WorkerPool(8) as pool:
        first = pool.submit(tasks.process_id).result(PATIENCE)
        assert first != os.getpid()
    with WorkerPool(1) as pool:
        assert len(set(pool.map(tasks.process_id, range(5)))) == 1


def test_a_killed_worker_costs_one_attempt_of_one_task(pool, tmp_path):
    outcomes = list(run_all(pool, tasks.die_the_first_time, [(tmp_path, number) for number in range(4)]))
    assert shown(outcomes) == [(number, "None", 2) for number in range(4)]


def test_a_task_that_kills_every_worker_is_a_counted_failure(pool):
    outcomes = list(run_all(pool, tasks.die, [(), (signal.SIGSEGV,)], retries=1))
    assert [each.attempts for each in outcomes] == [2, 2]
    assert all(isinstance(each.error, WorkerDiedError) for each in outcomes)
    assert "SIGKILL" in str(outcomes[0].error)
    assert "SIGSEGV" in str(outcomes[1].error)
    assert pool.submit(tasks.square, 3).result(PATIENCE) == 9


def test_a_worker_that_exits_is_a_death_with_its_code(pool):
    with pytest.raises(WorkerDiedError, match="exited with code 3"):
        pool.submit(os._exit, 3).result(PATIENCE)


def test_a_death_is_noticed_though_a_child_holds_the_pipes_open(pool):
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        pool.submit(tasks.fork_and_die).result(PATIENCE)


def test_a_worker_that_dies_idle_costs_nothing():
    with WorkerPool(1) as pool:
        process = pool.submit(tasks.process_id).result(PATIENCE)
        os.kill(process, signal.SIGKILL)
        assert wait_until(lambda: not alive(process))
        (outcome,) = run_all(pool, tasks.process_id, [()])
        assert outcome.ok
        assert outcome.attempts == 1
        assert outcome.value != process


@pytest.mark.slow
def test_a_task_past_its_limit_is_killed_with_what_it_started_and_the_next_one_runs(tmp_path):
    with WorkerPool(1, time_limit=1.0) as pool:
        with pytest.raises(TaskTimeoutError, match="limit of 1 s"):
            pool.submit(tasks.start_child_and_hang, tmp_path).result(PATIENCE)
        (child,) = [int(each.name) for each in tmp_path.iterdir()]
        assert wait_until(lambda: not alive(child))
        outcomes = list(run_all(pool, tasks.hang_the_first_time, [(tmp_path, "one"), (tmp_path, "two")]))
        assert shown(outcomes) == [("one", "None", 2), ("two", "None", 2)]


@pytest.mark.slow
def test_imports_do_not_count_towards_the_limit_and_torch_has_one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with WorkerPool(1, time_limit=1.0) as pool:
        assert pool.submit(heavy_tasks.threads).result(PATIENCE) == 1  # importing torch may take longer
        assert pool.submit(tasks.environment, "OMP_NUM_THREADS").result(PATIENCE) == "1"


def test_a_process_that_does_not_start_is_a_dead_worker(monkeypatch):
    with WorkerPool(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/no/such/python")
            with pytest.raises(WorkerDiedError, match=r"can't be started.*No such file"):
                pool.submit(tasks.square, 2).result(PATIENCE)
        with monkeypatch.context() as patch:
            patch.setattr("zeroshot_nas.execution.pool.START_SECONDS", 0.0)
            with pytest.raises(WorkerDiedError, match="did not begin"):
                pool.submit(tasks.square, 2).result(PATIENCE)
        assert pool.submit(tasks.square, 2).result(PATIENCE) == 4


def test_exceptions_of_the_task_come_back_as_themselves(pool):
    error = pool.submit(tasks.halve, 3).exception(PATIENCE)
    assert (type(error), str(error)) == (ValueError, "3 is odd")
    assert "in halve" in error.__notes__[0]
    assert isinstance(pool.submit(sys.exit, "stop").exception(PATIENCE), SystemExit)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ((lambda: None,), "can't be sent to a worker"),
        ((tasks.square, lambda: None), "can't be sent to a worker"),
        ((tasks.square, tasks.Unreadable()), "a worker can't read the task.*not a number.*import"),
        ((tasks.return_function,), "a result of type function can't be sent back"),
        ((tasks.return_unreadable,), "a result came back that can't be read here.*not a number"),
        ((tasks.raise_awkward,), r"raised .*AwkwardError: no reason \(3\)"),
    ],
    ids=["function", "argument", "unreadable argument", "result", "unreadable result", "exception"],
)
def test_what_cannot_travel_says_so_and_costs_no_worker(pool, task, message):
    before = {pool.submit(tasks.process_id).result(PATIENCE) for _ in range(8)}
    with pytest.raises(TransferError, match=message):
        pool.submit(*task).result(PATIENCE)
    assert {pool.submit(tasks.process_id).result(PATIENCE) for _ in range(8)} & before


def test_what_a_task_prints_or_reads_does_not_mix_with_answers(pool):
    assert pool.submit(tasks.print_much).result(PATIENCE) == ""


def test_large_arguments_and_results(pool):
    data = os.urandom(5_000_000)
    assert pool.submit(tasks.length, data).result(PATIENCE) == (len(data), data[::-1])


def test_arguments_are_taken_as_they_are_at_submission(pool):
    numbers = [1, 2]
    future = pool.submit(sum, numbers)
    numbers.append(100)
    assert future.result(PATIENCE) == 3


def test_shutdown_finishes_the_queue_and_leaves_no_process():
    pool = WorkerPool(2)
    futures = [pool.submit(tasks.numbered_process_id, number, 0.02) for number in range(10)]
    pool.shutdown()
    assert [future.result(0)[0] for future in futures] == list(range(10))
    assert not any(alive(future.result()[1]) for future in futures)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(tasks.square, 2)


def test_shutdown_can_drop_the_queue(tmp_path):
    pool = WorkerPool(1)
    running = pool.submit(tasks.meet, tmp_path, "a", "b")
    assert wait_until((tmp_path / "a").exists)
    waiting = [pool.submit(tasks.square, number) for number in range(3)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert not wait(waiting, PATIENCE).not_done
    with pytest.raises(CancelledError):
        waiting[0].result(0)
    (tmp_path / "b").touch()
    assert running.result(PATIENCE) is True
    pool.shutdown()


def test_a_future_cancelled_in_the_queue_does_not_run(tmp_path):
    with WorkerPool(1) as pool:
        pool.submit(tasks.meet, tmp_path, "a", "b")
        doomed = pool.submit(tasks.die_the_first_time, tmp_path, "doomed")
        assert doomed.cancel()
        (tmp_path / "b").touch()
    assert not (tmp_path / "doomed").exists()


def test_an_exception_in_the_with_block_does_not_wait_for_tasks(tmp_path):
    pool = WorkerPool(2)
    hanging = pool.submit(tasks.announce_and_hang, tmp_path)
    assert wait_until(lambda: list(tmp_path.iterdir()))
    with pytest.raises(ZeroDivisionError), pool:
        raise ZeroDivisionError
    (process,) = [int(each.name) for each in tmp_path.iterdir()]
    assert not alive(process)
    assert isinstance(hanging.exception(0), WorkerDiedError)


@pytest.mark.slow
def test_a_pool_that_is_forgotten_leaves_no_process():
    pool = WorkerPool(1)
    process = pool.submit(tasks.process_id).result(PATIENCE)
    del pool
    gc.collect()
    assert wait_until(lambda: not alive(process))


def run_script(folder, text, *arguments):
    """Starts a script of a user's, without a guard for its main part."""
    script = folder / "script.py"
    script.write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_script_needs_no_guard_but_its_own_functions_are_refused(tmp_path):
    process = run_script(
        tmp_path,
        """
from zeroshot_nas.execution import get_executor, run_all

print("main")

def mine(number):
    return number

with get_executor("process", workers=2) as executor:
    print([each.value for each in run_all(executor, abs, [(-1,), (-2,)])])
    print(executor.submit(mine, 1).exception())
""",
    )
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    main, values, refusal = out.splitlines()
    assert (main, values) == ("main", "[1, 2]")
    assert "not in the script or notebook" in refusal
    assert err == ""


def test_a_pool_left_open_does_not_hold_up_the_end_of_the_script(tmp_path):
    process = run_script(
        tmp_path,
        """
import time
from zeroshot_nas.execution.pool import WorkerPool
from tests.execution import tasks

pool = WorkerPool(2)
print(pool.submit(tasks.process_id).result(), flush=True)
pool.submit(time.sleep, tasks.PATIENCE)
pool.submit(time.sleep, tasks.PATIENCE)
""",
    )
    out, err = process.communicate(timeout=PATIENCE / 2)
    assert (process.returncode, err) == (0, "")
    assert wait_until(lambda: not alive(int(out)))


HANGING = """
import sys
from tests.execution import tasks
from zeroshot_nas.execution import get_executor, run_all

with get_executor("process", workers=2) as executor:
    list(run_all(executor, tasks.announce_and_hang, [(sys.argv[1],)] * 10))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent_in_the_middle_of_a_task(tmp_path, number):
    marks = tmp_path / "marks"
    marks.mkdir()
    process = run_script(tmp_path, HANGING, marks)
    assert wait_until(lambda: len(list(marks.iterdir())) == 2)
    workers = [int(each.name) for each in marks.iterdir()]
    start = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -number
    assert wait_until(lambda: not any(map(alive, workers)))
    assert time.monotonic() - start < PATIENCE / 2  # they did not sleep to the end
    assert err.count("Traceback") <= 1, err
