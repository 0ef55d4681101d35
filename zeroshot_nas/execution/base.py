"""What executors share: names, errors, the run of many tasks, and how a task travels to another process.

The one surface is the standard library's ``concurrent.futures.Executor``, so that the executor of any other engine
fits: pass the object where a name is asked for.
"""

from __future__ import annotations

import inspect
import itertools
import os
import pickle
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

from zeroshot_nas.core.registry import Registry
from zeroshot_nas.errors import ClusterError, TaskTimeoutError, TransferError, WorkerDiedError

DEFAULT_IN_FLIGHT = 32
"""Tasks that `run_all` keeps submitted where it can't tell the number of workers."""

_FOREIGN_WORKER_FAILURES = {"distributed.scheduler.KilledWorker"}
"""Errors of other engines that mean a dead worker; by name, since the engines are optional."""

_IMPORTABLE = (
    "A worker imports functions and classes by their names: define them in a module that it can import, not in the "
    "script or notebook that is running"
)

P = ParamSpec("P")
T = TypeVar("T")


class SerialExecutor(Executor):
    """Runs each task in the caller's thread when it is submitted.

    Example:
        >>> SerialExecutor().submit(pow, 2, 5).result()
        32
    """

    def __init__(self) -> None:
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Runs ``fn(*args, **kwargs)`` now; the future it returns is done."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except KeyboardInterrupt:  # the user's, not the task's: this is the caller's thread
            raise
        except BaseException as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more tasks; there is nothing to wait for."""
        self._closed = True


def is_serial(executor: Executor) -> bool:
    """Whether tasks run in the caller's thread, so that they need not be sent anywhere.

    Example:
        >>> is_serial(SerialExecutor())
        True
    """
    return isinstance(executor, SerialExecutor)


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of one task.

    Attributes:
        value: What the function returned; None where it failed.
        error: What it raised, or why there is no answer (`WorkerDiedError`, `TaskTimeoutError`); None where it
            succeeded.
        attempts: How often the task was submitted.
    """

    value: T | None
    error: BaseException | None = None
    attempts: int = 1

    @property
    def ok(self) -> bool:
        return self.error is None


def run_all(
    executor: Executor,
    function: Callable[..., T],
    tasks: Iterable[tuple[Any, ...]],
    *,
    retries: int = 1,
    in_flight: int | None = None,
) -> Iterator[Outcome[T]]:
    """Runs a function on many tasks and yields the outcomes in the order of the tasks.

    A task whose worker died, or that ran out of time or memory, is submitted again, up to ``retries`` times; after
    that its outcome holds the error, and the run goes on. What the function itself raises is an outcome too and is
    not tried again. Leaving the iterator early cancels the tasks that have not begun.

    Args:
        executor: Where the tasks run.
        function: Called as ``function(*task)``.
        tasks: Argument tuples; read as the run gets to them, so they may be endless.
        retries: How often a task is submitted again after its worker failed.
        in_flight: Tasks submitted and not yet yielded, at most. By default two for each worker where the executor
            tells their number, one where it runs in the caller's thread, else 32.

    Raises:
        ValueError: ``retries`` is below 0 or ``in_flight`` below 1.
        WorkerDiedError: The executor takes no more tasks, as the standard library's process pool after a death.

    Example:
        >>> outcomes = run_all(SerialExecutor(), divmod, [(7, 2), (7, 0)])
        >>> [outcome.value if outcome.ok else type(outcome.error).__name__ for outcome in outcomes]
        [(3, 1), 'ZeroDivisionError']
    """
    if retries < 0:
        raise ValueError(f"retries is 0 or more, got {retries}")
    if in_flight is None:
        in_flight = _default_in_flight(executor)
    if in_flight < 1:
        raise ValueError(f"in_flight is 1 or more, got {in_flight}")
    return _outcomes(executor, function, iter(tasks), retries, in_flight)


def _outcomes(
    executor: Executor, function: Callable[..., T], tasks: Iterator[tuple[Any, ...]], retries: int, in_flight: int
) -> Iterator[Outcome[T]]:
    window: deque[tuple[tuple[Any, ...], Future[T]]] = deque()
    try:
        while True:
            for task in itertools.islice(tasks, in_flight - len(window)):
                window.append((task, _submit(executor, function, task)))
            if not window:
                return
            task, future = window[0]
            attempts = 1
            while (error := future.exception()) is not None and attempts <= retries and worker_failed(error):
                future = _submit(executor, function, task)
                window[0] = task, future
                attempts += 1
            window.popleft()
            yield Outcome(None if error is not None else future.result(), error, attempts)
    finally:
        for _, pending in window:
            pending.cancel()


def _submit(executor: Executor, function: Callable[..., T], task: tuple[Any, ...]) -> Future[T]:
    try:
        return executor.submit(function, *task)
    except BrokenExecutor as error:
        raise WorkerDiedError(
            f"the {type(executor).__name__} is broken and takes no more tasks ({error}); "
            "get_executor('process') replaces a worker that died and goes on"
        ) from error


def _default_in_flight(executor: Executor) -> int:
    if is_serial(executor):
        return 1
    workers = getattr(executor, "workers", None) or getattr(executor, "_max_workers", None)  # ours, standard library's
    return 2 * workers if isinstance(workers, int) else DEFAULT_IN_FLIGHT


def worker_failed(error: BaseException) -> bool:
    """Whether an error says that the worker failed, not the task's function: died, too slow, out of memory."""
    if isinstance(error, WorkerDiedError | TaskTimeoutError | BrokenExecutor | MemoryError):
        return True
    kinds = type(error).__mro__
    return any(f"{kind.__module__}.{kind.__qualname__}" in _FOREIGN_WORKER_FAILURES for kind in kinds)


EXECUTORS: Registry[Callable[..., AbstractContextManager[Executor]]] = Registry(
    "executor", package="zeroshot_nas.execution"
)

_Factory = TypeVar("_Factory", bound=Callable[..., AbstractContextManager[Executor]])


def register_executor(name: str) -> Callable[[_Factory], _Factory]:
    """Registers a class or function under a name that `get_executor` takes.

    It is called with those of ``workers``, ``time_limit`` and ``scheduler`` that the user gave, and refuses the others
    by not having them as parameters.
    """

    def register(factory: _Factory) -> _Factory:
        EXECUTORS.add(name, factory)
        return factory

    return register


register_executor("serial")(SerialExecutor)


def list_executors() -> list[str]:
    """Names of the registered executors.

    Example:
        >>> list_executors()
        ['dask', 'process', 'serial']
    """
    return list(EXECUTORS)


def get_executor(
    executor: str | Executor,
    *,
    workers: int | None = None,
    time_limit: float | None = None,
    scheduler: str | None = None,
) -> AbstractContextManager[Executor]:
    """An executor for a ``with`` statement, by name or as an object.

    Args:
        executor: ``"serial"``, ``"process"`` (worker processes on this machine), ``"dask"``, or any
            ``concurrent.futures.Executor``, which stays open: who made it shuts it down.
        workers: Number of processes; by default one for each core that this process may use.
        time_limit: Seconds that a task may take (``"process"`` only).
        scheduler: Address of a running Dask scheduler, such as ``"tcp://10.0.0.1:8786"`` (``"dask"`` only).

    Raises:
        UnknownNameError: No executor has that name.
        ValueError: An option is malformed, or the executor does not take it.
        MissingExtraError: The executor's package is not installed.

    Example:
        >>> with get_executor("serial") as executor:
        ...     list(executor.map(abs, [-1, 2]))
        [1, 2]
    """
    options = {"workers": workers, "time_limit": time_limit, "scheduler": scheduler}
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(executor, str):
        factory = EXECUTORS[executor]
        refused = sorted(set(given) - set(inspect.signature(factory).parameters))
        if refused:
            takers = [name for name in EXECUTORS if set(given) <= set(inspect.signature(EXECUTORS[name]).parameters)]
            raise ValueError(
                f"the executor {executor!r} takes no {' and no '.join(refused)}; "
                + (f"use {' or '.join(map(repr, takers))}" if takers else "leave it out")
            )
        return factory(**given)
    if not isinstance(executor, Executor):
        raise TypeError(
            f"expected one of {', '.join(EXECUTORS)} or a concurrent.futures.Executor, got {type(executor).__name__}"
        )
    if given:
        raise ValueError(f"an executor that is already made takes no {' and no '.join(sorted(given))}")
    return nullcontext(executor)


def check_workers(workers: int | None) -> int:
    """The number of worker processes: as given, or one for each core that this process may use.

    Raises:
        ValueError: It is not an integer of 1 or more.
    """
    if workers is None:
        return available_cores()
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers is an integer of 1 or more, got {workers!r}")
    return workers


def available_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return int(os.process_cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def packed(future: Future[Any], dumps: Callable[[Any], bytes], task: tuple[Any, ...]) -> bytes | None:
    """A task as a worker gets it; None, and the reason in its future, where it can't be pickled."""
    try:
        return dumps(task)
    except Exception as error:  # pickling runs the objects' own code, which may raise anything
        future.set_running_or_notify_cancel()
        future.set_exception(
            TransferError(f"the task can't be sent to a worker process: {type(error).__name__}: {error}")
        )
        return None


def call_packed(payload: bytes, started: Callable[[], object] | None = None) -> bytes:
    """Runs a pickled task in a worker; `unpack` reads the answer. It raises nothing that a task can cause.

    Args:
        payload: A pickled tuple of function, arguments and keyword arguments.
        started: Called between the reading of the task, which may import much, and its start.

    Example:
        >>> unpack(call_packed(pickle.dumps((pow, (2, 5), {}))))
        (32, None)
    """
    try:
        function, args, kwargs = pickle.loads(payload)  # noqa: S301  the parent wrote it
    except ClusterError as error:  # the task's own word: it is not for this worker
        return _pack_error(error)
    except BaseException as error:
        return _pack_error(TransferError(f"a worker can't read the task: {_described(error)}. {_IMPORTABLE}"))
    if started is not None:
        started()
    try:
        value = function(*args, **kwargs)
    except BaseException as error:
        return _pack_error(error)
    try:
        return pickle.dumps((value, None, ""))
    except Exception as error:
        kind = type(value).__qualname__
        return _pack_error(TransferError(f"a result of type {kind} can't be sent back: {_described(error)}"))


def unpack(answer: bytes) -> tuple[Any, BaseException | None]:
    """Value and error of a task from `call_packed`'s answer; the error's note has the worker's traceback."""
    try:
        value, error, trace = pickle.loads(answer)  # noqa: S301  a worker of ours wrote it
    except Exception as problem:
        return None, TransferError(f"a result came back that can't be read here: {_described(problem)}")
    if error is not None:
        error.add_note(f"\nTraceback in the worker:\n{trace}")
    return value, error


def _pack_error(error: BaseException) -> bytes:
    trace = "".join(traceback.format_exception(error))
    try:
        answer = pickle.dumps((None, error, trace))
        pickle.loads(answer)[1].add_note("")  # noqa: S301  many an exception pickles but does not come back as one
    except Exception as problem:
        described = TransferError(
            f"the task raised {_described(error)}; the exception itself can't be sent back ({_described(problem)})"
        )
        return pickle.dumps((None, described, trace))
    return answer


def _described(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()
