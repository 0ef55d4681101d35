"""The run of many tasks: order, retries, laziness, cancellation; executors by name."""

import itertools
import multiprocessing
import pickle
import random
import re
import threading
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from tests.execution import tasks
from zeroshot_nas.errors import TaskTimeoutError, UnknownNameError, WorkerDiedError, ZeroShotNASError
from zeroshot_nas.execution import (
    Outcome,
    SerialExecutor,
    get_executor,
    is_serial,
    list_executors,
    run_all,
    worker_failed,
)
from zeroshot_nas.execution.base import call_packed, unpack


class ScriptedExecutor(Executor):
    """Answers each submission with the next of a list: an exception, or what the function gives where it is None."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.submitted = []

    def submit(self, fn, /, *args, **kwargs):
        self.submitted.append(args)
        future = Future()
        error = self.answers.pop(0) if self.answers else None
        if error is None:
            future.set_result(fn(*args, **kwargs))
        else:
            future.set_exception(error)
        return future


class DeafExecutor(Executor):
    """Takes tasks and never runs them."""

    def __init__(self):
        self.futures = []

    def submit(self, fn, /, *args, **kwargs):
        self.futures.append(Future())
        return self.futures[-1]


def shown(outcomes):
    return [(each.value, repr(each.error), each.attempts) for each in outcomes]


@pytest.mark.parametrize("in_flight", [None, 1, 3, 100])
def test_outcomes_come_in_the_order_of_the_tasks_whatever_finishes_first(in_flight):
    rng = random.Random(0)
    naps = [(number, rng.random() / 50) for number in range(40)]
    with ThreadPoolExecutor(4) as executor:
        outcomes = list(run_all(executor, tasks.napping_square, naps, in_flight=in_flight))
    assert outcomes == [Outcome(number**2) for number in range(40)]


def test_a_slow_first_task_does_not_hold_up_the_others():
    release = threading.Event()

    def work(number):
        if number == 0:
            assert release.wait(tasks.PATIENCE)
        if number == 3:
            release.set()
        return number

    with ThreadPoolExecutor(2) as executor:
        values = [each.value for each in run_all(executor, work, [(number,) for number in range(6)], in_flight=4)]
    assert values == list(range(6))


def test_running_out_of_memory_is_tried_again_and_then_a_failure_of_the_worker():
    calls = []

    def hungry(number):
        calls.append(number)
        if number == 1 or calls.count(number) == 1:
            raise MemoryError
        return number

    outcomes = list(run_all(SerialExecutor(), hungry, [(0,), (1,), (2,)]))
    assert [outcome.value for outcome in outcomes] == [0, None, 2]
    assert [outcome.attempts for outcome in outcomes] == [2, 2, 2]
    assert worker_failed(outcomes[1].error)


def test_errors_of_the_function_are_outcomes_and_are_not_retried():
    with ThreadPoolExecutor(1) as executor:
        outcomes = list(run_all(executor, tasks.halve, [(2,), (3,), (4,)], retries=5))
    assert shown(outcomes) == [(1, "None", 1), (None, "ValueError('3 is odd')", 1), (2, "None", 1)]
    assert [each.ok for each in outcomes] == [True, False, True]


def killed_worker():
    return type("KilledWorker", (Exception,), {"__module__": "distributed.scheduler"})("gone")


@pytest.mark.parametrize(
    "failure", [WorkerDiedError("gone"), TaskTimeoutError(1.0), BrokenExecutor("gone"), killed_worker()], ids=repr
)
def test_a_task_whose_worker_failed_is_submitted_again(failure):
    once = ScriptedExecutor(failure)
    assert list(run_all(once, tasks.square, [(2,), (3,)], in_flight=1)) == [Outcome(4, attempts=2), Outcome(9)]
    assert once.submitted == [(2,), (2,), (3,)]
    thrice = ScriptedExecutor(failure, failure, failure)
    assert list(run_all(thrice, tasks.square, [(2,), (3,)], in_flight=1, retries=2)) == [
        Outcome(None, failure, attempts=3),
        Outcome(9),
    ]
    never = ScriptedExecutor(failure)
    assert list(run_all(never, tasks.square, [(2,)], retries=0)) == [Outcome(None, failure)]


def test_tasks_are_read_as_the_run_gets_to_them():
    read = itertools.count()
    endless = ((next(read),) for _ in itertools.repeat(None))
    outcomes = run_all(ScriptedExecutor(), tasks.square, endless, in_flight=3)
    assert [next(outcomes).value for _ in range(4)] == [0, 1, 4, 9]
    assert next(read) == 6  # the fourth was yielded with two more submitted
    outcomes.close()


@pytest.mark.parametrize(
    ("executor", "expected"),
    [(SerialExecutor(), 1), (ThreadPoolExecutor(3), 6), (ScriptedExecutor(), 32)],
    ids=["serial", "threads", "unknown"],
)
def test_tasks_in_flight_follow_the_number_of_workers(executor, expected):
    read = []

    def source():
        for number in range(100):
            read.append(number)
            yield (number,)

    with executor:
        outcomes = run_all(executor, tasks.square, source())
        next(outcomes)
        outcomes.close()
    assert len(read) == expected


@pytest.mark.parametrize("end", [None, KeyboardInterrupt])
def test_leaving_early_cancels_what_has_not_begun(end):
    executor = DeafExecutor()

    def source():
        yield from [(0,), (1,), (2,)]
        executor.futures[0].set_result(0)
        if end is not None:
            raise end

    outcomes = run_all(executor, tasks.square, source(), in_flight=4)
    if end is None:
        next(outcomes)
        outcomes.close()
        assert [future.cancelled() for future in executor.futures] == [False, True, True]
    else:
        with pytest.raises(end):
            next(outcomes)
        assert all(future.cancelled() for future in executor.futures[1:])


def test_the_standard_pool_that_breaks_ends_the_run_with_a_clear_error():
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawning) as executor:
        outcomes = run_all(executor, tasks.die, [(), ()])
        with pytest.raises(WorkerDiedError, match=r"ProcessPoolExecutor is broken.*get_executor"):
            next(outcomes)


@pytest.mark.parametrize("options", [{"retries": -1}, {"in_flight": 0}])
def test_a_run_that_makes_no_sense_is_refused_at_once(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        run_all(SerialExecutor(), tasks.square, [], **options)


def test_no_tasks_no_outcomes():
    assert list(run_all(SerialExecutor(), tasks.square, [])) == []


def test_the_serial_executor_keeps_the_caller_in_charge():
    def interrupt():
        raise KeyboardInterrupt

    with SerialExecutor() as executor:
        assert executor.submit(threading.get_ident).result() == threading.get_ident()
        with pytest.raises(KeyboardInterrupt):
            executor.submit(interrupt)
        assert isinstance(executor.submit(exit).exception(), SystemExit)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(tasks.square, 2)


def test_executors_by_name():
    assert {"serial", "process", "dask"} <= set(list_executors())
    with get_executor("serial") as executor:
        assert is_serial(executor)
    with pytest.raises(UnknownNameError, match="Did you mean 'process'"):
        get_executor("proces")
    with pytest.raises(TypeError, match=r"concurrent\.futures\.Executor, got int"):
        get_executor(3)


def test_an_executor_that_is_passed_stays_open():
    with ThreadPoolExecutor(1) as mine:
        with get_executor(mine) as executor:
            assert executor is mine
            assert not is_serial(executor)
        assert mine.submit(tasks.square, 3).result() == 9
        with pytest.raises(ValueError, match="already made takes no workers"):
            get_executor(mine, workers=2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("serial", {"time_limit": 1.0}, "takes no time_limit; use 'process'"),
        ("serial", {"workers": 2}, "takes no workers; use 'dask' or 'process'"),
        ("process", {"scheduler": "tcp://a:1", "time_limit": 2}, "takes no scheduler; leave it out"),
        ("dask", {"time_limit": 1.0}, "takes no time_limit; use 'process'"),
        ("process", {"workers": 0}, "workers is an integer of 1 or more, got 0"),
        ("process", {"workers": 1.5}, "workers is an integer of 1 or more, got 1.5"),
        ("process", {"time_limit": 0}, "time_limit is a number of seconds above 0, got 0"),
        ("process", {"time_limit": float("nan")}, "time_limit is a number of seconds above 0, got nan"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        get_executor(name, **options)


@pytest.mark.parametrize("error", [WorkerDiedError.from_exit_code(-11), TaskTimeoutError(2.5)], ids=repr)
def test_errors_travel(error):
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (type(error), str(error))
    assert isinstance(error, ZeroShotNASError)
    assert isinstance(error, RuntimeError | TimeoutError)


@pytest.mark.parametrize(
    ("code", "words"), [(3, "code 3"), (-11, "SIGSEGV"), (-9, "SIGKILL.*memory"), (-40, "signal 40")]
)
def test_a_death_says_how(code, words):
    assert re.search(words, str(WorkerDiedError.from_exit_code(code)))


def test_the_traceback_comes_along():
    _, error = unpack(call_packed(pickle.dumps((tasks.halve, (3,), {}))))
    assert isinstance(error, ValueError)
    assert str(error) == "3 is odd"
    assert "in halve" in error.__notes__[0]
