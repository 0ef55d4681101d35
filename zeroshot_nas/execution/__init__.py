"""Where tasks run: in the caller's thread, in worker processes, or on a Dask cluster, all as one ``Executor``."""

from zeroshot_nas.execution.base import Outcome as Outcome
from zeroshot_nas.execution.base import SerialExecutor as SerialExecutor
from zeroshot_nas.execution.base import get_executor as get_executor
from zeroshot_nas.execution.base import is_serial as is_serial
from zeroshot_nas.execution.base import list_executors as list_executors
from zeroshot_nas.execution.base import register_executor as register_executor
from zeroshot_nas.execution.base import run_all as run_all
from zeroshot_nas.execution.base import worker_failed as worker_failed
