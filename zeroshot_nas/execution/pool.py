"""Worker processes on this machine that outlive neither a hanging task nor the process that started them.

What the standard library's process pool lacks for hours of tasks: a worker that dies takes one task with it and not
the pool, a task has a time limit, and the caller's script is not imported again, so it needs no ``__main__`` guard.

Two libraries come near. pebble isolates deaths and limits time, but is under the LGPL, imports the caller's script
again, leaves grandchildren behind, and ends a task late when the process that started it is killed. loky has no time
limit, and a worker's death breaks its pool.

Each slot of the pool is a thread with a process of its own. They talk over the process's standard input and output in
frames: eight bytes of length, then that many of content. What a task prints goes to standard error.
"""

from __future__ import annotations

import math
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, BinaryIO, ParamSpec, TypeVar

from zeroshot_nas.errors import TaskTimeoutError, WorkerDiedError
from zeroshot_nas.execution.base import call_packed, check_workers, packed, register_executor, unpack

START_SECONDS = 300.0
"""How long a process may take to start and to import what its task needs; the task's own time limit begins then."""

_STOP_SECONDS = 5.0
_POLL_SECONDS = 1.0

_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

_BOOT = """
import os, pickle, sys
incoming = os.fdopen(os.dup(0), "rb")
sys.path[:] = pickle.load(incoming)
from zeroshot_nas.execution.pool import serve
serve(incoming)
"""

_LENGTH = struct.Struct("<Q")
_STARTED = b"started"
_GOODBYE = b""

P = ParamSpec("P")
T = TypeVar("T")

_Task = tuple[Future[Any], bytes]


@register_executor("process")
class WorkerPool(Executor):
    """Runs tasks in processes of their own, one torch thread each.

    A process that dies gives its task a `WorkerDiedError`, one that exceeds the time limit is killed and gives it a
    `TaskTimeoutError`; the next task gets a new process. Processes start when they are first needed, are kept, and end
    with the pool, or with the process that made it, whatever ends that.

    Functions, arguments and results are pickled: functions and classes must be importable by name, so those of the
    running script or a notebook are refused with a `TransferError`.

    Args:
        workers: Number of processes; by default one for each core that this process may use.
        time_limit: Seconds that a task may take; imports that its arguments need are not counted.

    Example:
        >>> with WorkerPool(2) as pool:
        ...     list(pool.map(abs, [-1, 2]))
        [1, 2]
    """

    def __init__(self, workers: int | None = None, *, time_limit: float | None = None) -> None:
        if time_limit is not None and not 0 < time_limit < math.inf:
            raise ValueError(f"time_limit is a number of seconds above 0, got {time_limit!r}")
        self.workers = check_workers(workers)
        self._time_limit = time_limit
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._slots: list[_Slot] = []
        self._lock = threading.Lock()
        self._closed = False
        # a pool that is forgotten ends its slots; at exit there is no need, since the processes see the end of input
        weakref.finalize(self, self._tasks.put, None).atexit = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queues ``fn(*args, **kwargs)``; what can't be pickled fails as the future's exception."""
        future: Future[T] = Future()
        payload = packed(future, pickle.dumps, (fn, args, kwargs))
        if payload is None:
            return future
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._tasks.put((future, payload))
            if len(self._slots) < self.workers:
                slot = _Slot(self._tasks, self._time_limit)
                self._slots.append(slot)
                slot.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more tasks and ends each process when there is none left.

        Args:
            wait: Whether to return only when all processes have ended.
            cancel_futures: Whether to drop the tasks that have not begun.
        """
        with self._lock:
            self._closed = True
            if cancel_futures:
                with suppress(queue.Empty):
                    while True:
                        task = self._tasks.get_nowait()
                        if task is not None and task[0].cancel():
                            task[0].set_running_or_notify_cancel()  # wakes who waits for it
            self._tasks.put(None)  # the slots hand it on to each other
        if wait:
            for slot in self._slots:
                slot.join()

    def kill_workers(self) -> None:
        """Ends the pool at once: drops the tasks that have not begun and kills the processes of the others."""
        self.shutdown(wait=False, cancel_futures=True)
        for slot in self._slots:
            slot.kill()
        self.shutdown()

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if kind is not None:  # Ctrl-C, mostly: nobody will read what still runs
            self.kill_workers()
        self.shutdown()


class _Slot(threading.Thread):
    """Runs tasks one after another in one process, and starts a new process where the last one ended."""

    def __init__(self, tasks: queue.SimpleQueue[_Task | None], time_limit: float | None) -> None:
        super().__init__(name="zeroshot_nas worker slot", daemon=True)
        self._tasks = tasks
        self._time_limit = time_limit
        self._worker: _Worker | None = None
        self._killed = False
        self._lock = threading.Lock()

    def run(self) -> None:
        while (task := self._tasks.get()) is not None:
            self._settle(*task)
            del task  # else the last result lives until the next task comes
        self._tasks.put(None)
        if self._worker is not None:
            self._worker.stop()

    def kill(self) -> None:
        with self._lock:
            self._killed = True
            if self._worker is not None:
                self._worker.kill()

    def _settle(self, future: Future[Any], payload: bytes) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            value, error = unpack(self._living_worker().ask(payload, self._time_limit))
        except Exception as problem:  # the process, not the task; whatever it is, the future must be told
            with self._lock:
                worker, self._worker = self._worker, None
            if worker is not None:
                worker.kill()
            value, error = None, problem
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def _living_worker(self) -> _Worker:
        with self._lock:
            if self._killed:
                raise WorkerDiedError("the pool was ended before the task could run")
            if self._worker is not None and not self._worker.alive:  # it died idle: no task's fault
                self._worker.kill()
                self._worker = None
            if self._worker is None:
                self._worker = _Worker()
            return self._worker


class _Worker:
    """One process, seen from the pool."""

    def __init__(self) -> None:
        warnings = [f"-W{option}" for option in sys.warnoptions]
        try:
            self._process = subprocess.Popen(  # noqa: S603  this very Python
                [sys.executable, "-P", *warnings, "-c", _BOOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **dict.fromkeys(_THREAD_LIMITS, "1")},
                process_group=0,  # Ctrl-C in a terminal passes it by, and a kill takes what the task has started along
            )
        except OSError as error:
            raise WorkerDiedError(f"a worker process can't be started: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        self._kill_lock, self._killed = threading.Lock(), False
        self._frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=_pump, args=(self._process.stdout, self._frames.put), daemon=True).start()
        with suppress(OSError):  # it died: `ask` finds out
            self._stdin.write(pickle.dumps(sys.path))
            self._stdin.flush()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, payload: bytes, time_limit: float | None) -> bytes:
        """Has the process run a task and returns its packed answer.

        Raises:
            WorkerDiedError: The process ended, or never began.
            TaskTimeoutError: The task ran longer than the limit.
        """
        with suppress(OSError):  # it died: the wait for an answer says how
            _write(self._stdin, payload)
        first = self._frame(START_SECONDS)
        if first is None:
            raise WorkerDiedError(f"a worker process did not begin its task within {START_SECONDS:g} s")
        if first != _STARTED:  # it could not read the task and says so
            return first
        answer = self._frame(time_limit)
        if answer is None:
            assert time_limit is not None
            raise TaskTimeoutError(time_limit)
        return answer

    def _frame(self, seconds: float | None) -> bytes | None:
        """The next frame from the process, or None when the time is over.

        Raises:
            WorkerDiedError: The process ended.
        """
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        while True:
            remaining = deadline - time.monotonic()
            try:
                frame = self._frames.get(timeout=max(0.0, min(remaining, _POLL_SECONDS)))
            except queue.Empty:
                # a child of a dead process may hold its output open, so the end of output alone is not enough
                if self.alive and remaining > 0:
                    continue
                if self.alive:
                    return None
                frame = None
            if frame is None:
                self.kill()
                raise WorkerDiedError.from_exit_code(self._process.returncode)
            return frame

    def stop(self) -> None:
        """Ends the process when it is idle."""
        with suppress(OSError):
            _write(self._stdin, _GOODBYE)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Ends the process and all that it started, and waits for the end."""
        with self._kill_lock:  # the pool may kill while the slot does
            if self._killed:  # its number may be another process's by now
                return
            self._killed = True
            if hasattr(os, "killpg"):  # not on Windows
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        with suppress(OSError):
            self._stdin.close()


def serve(incoming: BinaryIO) -> None:
    """What a worker process does: reads tasks, runs them in its main thread, writes answers. It does not return.

    Args:
        incoming: Where the frames of the pool come from.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pool's to handle
    sys.modules["__main__"] = types.ModuleType("__main__")  # a name of the caller's script must not find one of ours
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what tasks print must not mix with answers
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def receive(frame: bytes | None) -> None:
        if not frame:  # goodbye, or the pool's process is no more: end at once, in the middle of a task too
            os._exit(0)
        tasks.put(frame)

    def started() -> None:
        torch = sys.modules.get("torch")
        if torch is not None and torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        _write(outgoing, _STARTED)

    threading.Thread(target=_pump, args=(incoming, receive), daemon=True).start()
    while True:
        answer = call_packed(tasks.get(), started)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # closed by the task
                stream.flush()
        _write(outgoing, answer)


def _write(stream: BinaryIO | Any, frame: bytes) -> None:
    stream.write(_LENGTH.pack(len(frame)))
    stream.write(frame)
    stream.flush()


def _pump(stream: BinaryIO, receive: Callable[[bytes | None], object]) -> None:
    """Hands on each frame of a stream as it comes, and None at its end."""
    with stream:
        while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            frame = stream.read(length)
            if len(frame) < length:
                break
            receive(frame)
    receive(None)
