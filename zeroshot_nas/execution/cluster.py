"""Dask distributed as an executor: a running scheduler, or a cluster on this machine."""

from __future__ import annotations

import importlib
import logging
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from contextlib import ExitStack
from functools import partial
from typing import Any, ParamSpec, TypeVar

from zeroshot_nas.core.garbage import paused_garbage_collection
from zeroshot_nas.errors import ClusterError, ClusterWarning, MissingExtraError, WorkerDiedError
from zeroshot_nas.execution.base import call_packed, check_workers, packed, register_executor, unpack

CONNECT_SECONDS = 10
"""How long a scheduler may take to answer."""

_SCHEMES = ("tcp", "tls", "ws", "wss", "ucx")

P = ParamSpec("P")
T = TypeVar("T")


@register_executor("dask")
class DaskExecutor(Executor):
    """Runs tasks on a Dask cluster: one that is running, or one of processes on this machine that ends with this.

    Dask gives a task to another worker when one dies, and gives up after the fourth death
    (``distributed.scheduler.allowed-failures`` of its configuration); the task then fails with a `WorkerDiedError`.
    Functions of the running script are sent along; all else must be importable by the workers. Each worker of a cluster
    made here is a process with one thread and an equal part of the memory.

    A script that lets this start its cluster needs the guard ``if __name__ == "__main__":``, since Dask's processes
    import it again. There is no time limit on tasks: Dask can't end one that runs.

    **Whoever reaches the scheduler's port can run code** as the user of the scheduler, of every worker, and of this
    process: tasks and results are pickles, and Dask asks nobody who they are. A cluster that is made here listens on
    127.0.0.1, which other users of this machine can reach. Keep a scheduler in a network of people whom you trust, or
    demand certificates: start it and its workers with ``--protocol tls --tls-ca-file ca.pem --tls-cert me.pem
    --tls-key me.pem``, and name the same files to this process in Dask's configuration, as ``scheduler`` a
    ``tls://`` address::

        DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true
        DASK_DISTRIBUTED__COMM__TLS__CA_FILE=ca.pem
        DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT=me.pem
        DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY=me.pem

    Then only who holds a key that ``ca.pem`` signed is let in, and nothing travels in the clear.

    Args:
        workers: Processes of a cluster to start; by default one for each core that this process may use.
        scheduler: Address of a running scheduler, such as ``"tcp://10.0.0.1:8786"``; it keeps running.

    Raises:
        MissingExtraError: ``distributed`` is not installed.
        ClusterError: The scheduler does not answer, or the cluster does not start.

    Warns:
        ClusterWarning: The scheduler has no workers yet.
    """

    def __init__(self, workers: int | None = None, *, scheduler: str | None = None) -> None:
        if scheduler is not None and workers is not None:
            raise ValueError("a running cluster has its own workers; give workers or scheduler, not both")
        distributed = _imported("distributed")
        self._dumps: Callable[[object], bytes] = _imported("cloudpickle").dumps  # sends functions of a script by value
        if scheduler is not None and scheduler.split("://")[0] not in _SCHEMES:
            raise ValueError(f"a scheduler's address looks like 'tcp://10.0.0.1:8786', got {scheduler!r}")
        count = check_workers(workers)
        # a client that failed before is closed when it is collected: within the lock of this one's start, for ever
        with paused_garbage_collection(), ExitStack() as resources:
            try:
                target = scheduler or resources.enter_context(_local_cluster(distributed, count))
                client = distributed.Client(target, timeout=CONNECT_SECONDS, set_as_default=False)
                self._client = resources.enter_context(client)
            except (OSError, RuntimeError, TypeError) as error:  # the last where certificates are missing
                reason = f"{type(error).__name__}: {error}"
                if scheduler is not None:
                    raise ClusterError(f"no Dask scheduler answers at {scheduler}: {reason}") from error
                raise ClusterError(
                    f"a Dask cluster can't be started: {reason}. Does the script have the guard "
                    "if __name__ == '__main__'? Dask's processes import it again"
                ) from error
            self._resources = resources.pop_all()
        self._executor: Executor = self._client.get_executor(pure=False)
        self._pending: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._closed = False

        if not self.workers:
            warnings.warn(
                f"the Dask scheduler at {scheduler} has no workers; tasks wait for some (dask worker {scheduler})",
                ClusterWarning,
                stacklevel=2,
            )

    @property
    def workers(self) -> int:
        """Threads of all workers that the cluster has now."""
        return sum(self._client.nthreads().values())

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Sends ``fn(*args, **kwargs)`` to the cluster; what can't be pickled fails as the future's exception."""
        future: Future[T] = Future()
        payload = packed(future, self._dumps, (fn, args, kwargs))
        if payload is None:
            return future
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._client.status in ("closing", "closed"):  # Dask would take the task and never answer
                raise ClusterError("the connection to the Dask scheduler is lost; it takes no more tasks")
            self._pending.add(future)
        # packed, so that Dask neither looks for its own collections in the arguments nor reads options of its own
        remote = self._executor.submit(call_packed, payload)
        future.add_done_callback(partial(self._forget, remote))
        remote.add_done_callback(partial(_settle, future))
        return future

    def _forget(self, remote: Future[bytes], future: Future[Any]) -> None:
        with self._lock:
            self._pending.discard(future)
        if future.cancelled():
            remote.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more tasks, and closes what it opened when those that it has are done.

        Args:
            wait: Whether to return only then.
            cancel_futures: Whether to drop the tasks that are not done.
        """
        with self._lock:
            pending = set(self._pending)
            self._closed = True
        if cancel_futures:
            for future in pending:
                future.cancel()
        if wait:
            self._close(pending)
        else:
            threading.Thread(target=self._close, args=(pending,), name="zeroshot_nas cluster shutdown").start()

    def _close(self, pending: set[Future[Any]]) -> None:
        wait_for(pending)
        self._resources.close()

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        self.shutdown(cancel_futures=kind is not None)  # Ctrl-C, mostly: nobody will read what still runs


def _settle(future: Future[Any], remote: Future[bytes]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    value: Any = None
    error: BaseException | None
    if remote.cancelled():
        error = WorkerDiedError("the Dask cluster dropped the task: its scheduler ended or was restarted")
    elif (problem := remote.exception()) is None:
        value, error = unpack(remote.result())
    elif type(problem).__name__ == "KilledWorker":
        # Dask's own text has the task's number and the worker's port, so that no two failures would be counted as one
        deaths = getattr(problem, "allowed_failures", 3) + 1
        error = WorkerDiedError(f"Dask gave up on the task: {deaths} different workers died while they ran it")
        error.__cause__ = problem
    else:  # Dask's own; what the task raises comes back packed
        error = problem
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _local_cluster(distributed: Any, workers: int) -> Any:
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        memory_limit="auto",
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},  # else its port is open to all
        silence_logs=logging.ERROR,  # deaths are counted in the outcomes
    )


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError("distributed", "cluster") from error
