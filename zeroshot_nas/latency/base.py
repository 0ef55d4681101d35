"""Backends and measuring: what runs a network, and how long it takes here."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.core.registry import Registry
from zeroshot_nas.errors import LatencyError, MissingExtraError
from zeroshot_nas.latency.device_table import Fingerprint
from zeroshot_nas.latency.onnx_file import OnnxFile, read_onnx_file

if TYPE_CHECKING:
    from torch import nn

Target: TypeAlias = "Architecture | nn.Module"
"""A network that a backend makes ready to run."""

UNSTABLE_SPREAD = 0.2
"""Spread beyond which a measurement says that the machine was busy with something else."""

SESSIONS = 3
"""How often a network is prepared anew for one measurement: where its memory lies alone changes latency by percents."""

_WARM_UP_NS = 20_000_000
_WARM_UP_RUNS = 3
_WINDOW_NS = 10_000_000
"""Runs in a row that are judged together: within so short a time a machine is either disturbed or not."""

_LEAST_WINDOWS = 4
_GROUP_NS = 50_000
"""Runs are timed in groups that take about this long, so that the clock's resolution does not matter."""


@dataclass(frozen=True)
class Prepared:
    """A network ready to run.

    Attributes:
        run: Runs it once on the same images, and returns when it is done.
        kernel_seconds: Runs it so often and gives, for every run, the seconds of each kernel of
            `zeroshot_nas.architecture.kernels.kernels` in place, 0 for one that another took in; None where it can't.
    """

    run: Callable[[], object]
    kernel_seconds: Callable[[int], list[list[float]]] | None = None


class Backend(Protocol):
    """``(converted, image_shape, batch_size=, threads=)`` to a context in which the network can be run."""

    def __call__(
        self, converted: Any, image_shape: Shape, /, *, batch_size: int, threads: int
    ) -> AbstractContextManager[Prepared]: ...


@dataclass(frozen=True)
class BackendInfo:
    """A registered backend.

    Attributes:
        name: ``"onnxruntime"``.
        prepare: Makes a network ready to run.
        package: The distribution that it needs.
        extra: The extra of ours that brings it; None for a core dependency.
        device: Names what it runs on.
        convert: ``(target, image_shape, batch_size)`` to what ``prepare`` takes; done once for all its preparations.
        dtype: Precision that it runs networks in.
        takes_files: Whether it runs ONNX files, as they are.
    """

    name: str
    prepare: Backend
    package: str
    extra: str | None
    device: Callable[[], str]
    convert: Callable[[Any, Shape, int], Any] = lambda target, *_: target
    dtype: str = "float32"
    takes_files: bool = False

    @property
    def version(self) -> str:
        """Version of the engine.

        Raises:
            MissingExtraError: It is not installed.
        """
        try:
            return version(self.package)
        except PackageNotFoundError:
            raise MissingExtraError(self.package, self.extra or "latency") from None

    def fingerprint(self, *, batch_size: int = 1, threads: int = 1) -> Fingerprint:
        """What a latency that is measured here and now depends on.

        Raises:
            MissingExtraError: The engine is not installed.
        """
        cores, system = os.cpu_count() or 1, platform.system()
        return Fingerprint(self.device(), cores, system, self.name, self.version, batch_size, threads, self.dtype)

    @contextmanager
    def prepared(
        self, target: Target | OnnxFile, image_shape: Shape, *, batch_size: int = 1, threads: int = 1, sessions: int = 1
    ) -> Iterator[list[Prepared]]:
        """A network converted once, and made ready to run so often.

        Raises:
            LatencyError: It does not run there.
            MissingExtraError: The engine is not installed.
        """
        if isinstance(target, OnnxFile) and not self.takes_files:
            takers = [name for name in BACKENDS if BACKENDS[name].takes_files]
            raise LatencyError(
                f"{self.name} takes no files; {target.path} is timed as it is, by the backend {' or '.join(takers)}"
            )
        converted = self.convert(target, image_shape, batch_size)
        with ExitStack() as stack:
            yield [
                stack.enter_context(self.prepare(converted, image_shape, batch_size=batch_size, threads=threads))
                for _ in range(sessions)
            ]


BACKENDS: Registry[BackendInfo] = Registry("latency backend", package="zeroshot_nas.latency.backends")

_Backend = TypeVar("_Backend", bound=Backend)


def register_backend(
    name: str,
    *,
    package: str,
    extra: str | None = None,
    device: Callable[[], str] | None = None,
    convert: Callable[[Any, Shape, int], Any] = lambda target, *_: target,
    dtype: str = "float32",
    takes_files: bool = False,
) -> Callable[[_Backend], _Backend]:
    """Registers a function that makes a network ready to run on an engine.

    Args:
        name: What ``--backend`` takes.
        package: Distribution of the engine; its version is part of every record.
        extra: The extra of ours that brings it.
        device: Names what it runs on; default: the processor.
        convert: ``(target, image_shape, batch_size)`` to what the function takes, where that is slow to make.
        dtype: Precision that it runs networks in.
        takes_files: Whether ``convert`` takes an `OnnxFile` too, which is run as it is.
    """
    from zeroshot_nas.core.provenance import cpu_model

    def register(prepare: _Backend) -> _Backend:
        BACKENDS.add(name, BackendInfo(name, prepare, package, extra, device or cpu_model, convert, dtype, takes_files))
        return prepare

    return register


def list_backends() -> list[str]:
    """Names of the registered backends.

    Example:
        >>> list_backends()
        ['onnxruntime', 'onnxruntime_int8', 'torch', 'torch_channels_last', 'torch_cuda']
    """
    return list(BACKENDS)


@dataclass(frozen=True)
class Measurement:
    """How long one network takes for one batch.

    Attributes:
        latency_ms: Median run in milliseconds, in the quieter half of the time: what disturbs a machine only ever adds.
        spread: Range of the middle half of all runs over the median of all.
        fastest_ms: The fastest run.
        sessions_ms: The same of each fresh preparation.
        runs: How many runs were timed.
        backend: Name of the engine.
        backend_version: Its version.
        device: What it ran on.
        batch_size: Images a run.
        threads: Threads of the engine.
        dtype: Precision.
    """

    latency_ms: float
    spread: float
    fastest_ms: float
    sessions_ms: tuple[float, ...]
    runs: int
    backend: str
    backend_version: str
    device: str
    batch_size: int
    threads: int
    dtype: str = "float32"

    @property
    def is_stable(self) -> bool:
        """Whether the spread is within `UNSTABLE_SPREAD`."""
        return self.spread <= UNSTABLE_SPREAD

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        precision = "" if self.dtype == "float32" else f"{self.dtype}, "
        text = (
            f"{self.latency_ms:.4g} ms ± {self.spread / 2:.1%} on {self.backend} {self.backend_version}, {precision}"
            f"batch {self.batch_size}, {self.threads} thread{'s' * (self.threads != 1)}, {self.runs} runs"
        )
        return text if self.is_stable else f"{text}; unstable: the machine was busy, measure again when it is not"


def measure(
    target: Target | str | Path,
    backend: str = "onnxruntime",
    *,
    input_size: Sequence[int] | None = None,
    batch_size: int = 1,
    threads: int = 1,
    seconds: float = 0.6,
    sessions: int = SESSIONS,
) -> Measurement:
    """Times a network on this machine.

    It is prepared ``sessions`` times; each is warmed up, and then they take turns, so that what disturbs the machine
    meets all of them. Weights and images are random: latency does not depend on them.

    Args:
        target: An architecture, any ``nn.Module``, which is left as it was, or the path of an ONNX file of any origin.
        backend: A registered backend's name.
        input_size: Shape ``(C, H, W)`` of one image; needed for a module (an architecture has its own, and
            so has a file, unless it leaves it open).
        batch_size: Images a run.
        threads: Threads of the engine.
        seconds: How long to measure, without warm-up.
        sessions: How often to prepare the network anew.

    Returns:
        Median, spread, and with what they were measured.

    Raises:
        UnknownNameError: No backend has that name.
        MissingExtraError: The backend's engine is not installed.
        LatencyError: The network does not run there.
        FileNotFoundError: There is no such file.
        FileFormatError: The file is no ONNX model, or is damaged.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", input_size=(3, 8, 8))
        >>> measurement = measure(net, "torch", seconds=0.01)
        >>> measurement.latency_ms > 0, measurement.backend, measurement.threads
        (True, 'torch', 1)
    """
    info = BACKENDS[backend]
    check_counts(batch_size=batch_size, threads=threads, sessions=sessions)
    what = read_onnx_file(Path(target), input_size, batch_size) if isinstance(target, str | Path) else target
    shape = what.image_shape if isinstance(what, OnnxFile) else _image_shape(what, input_size)
    if not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
        raise ValueError(f"seconds must be a number above 0, got {seconds!r}")
    engine_version = info.version
    with info.prepared(what, shape, batch_size=batch_size, threads=threads, sessions=sessions) as prepared:
        timing = time_sessions(prepared, seconds)
    return Measurement(
        **timing._asdict(),
        backend=backend,
        backend_version=engine_version,
        device=info.device(),
        batch_size=batch_size,
        threads=threads,
        dtype=what.dtype if isinstance(what, OnnxFile) else info.dtype,
    )


class Timing(NamedTuple):
    """The numbers of a `Measurement`, which explains them."""

    latency_ms: float
    spread: float
    fastest_ms: float
    sessions_ms: tuple[float, ...]
    runs: int


def time_sessions(sessions: Sequence[Prepared], seconds: float) -> Timing:
    """Times preparations of one network, which take turns for so long."""
    windows = time_runs([each.run for each in sessions], seconds)
    every = sorted(value for session in windows for window in session for value in window)
    quartiles = statistics.quantiles(every, n=4)
    sessions_ms = tuple(quiet_median(session) * 1e3 for session in windows)
    return Timing(
        latency_ms=statistics.median(sessions_ms),
        spread=(quartiles[2] - quartiles[0]) / quartiles[1],
        fastest_ms=every[0] * 1e3,
        sessions_ms=sessions_ms,
        runs=len(every),
    )


def time_runs(functions: Sequence[Callable[[], object]], seconds: float) -> list[list[list[float]]]:
    """Seconds of a run, in windows, for each function; they take turns for so long, the clock's own time taken off."""
    slowest = max(warm_up(function) for function in functions)
    group = max(1, round(_GROUP_NS / slowest))
    times = max(1, round(_WINDOW_NS / (slowest * group)))
    overhead = _clock_overhead_ns()
    windows: list[list[list[float]]] = [[] for _ in functions]
    end = perf_counter_ns() + seconds * 1e9
    while len(windows[-1]) < _LEAST_WINDOWS or perf_counter_ns() < end:
        for function, found in zip(functions, windows, strict=True):
            found.append([_time_group(function, group, overhead) for _ in range(times)])
    return windows


def median_ms(function: Callable[[], object], seconds: float = 0.1) -> float:
    """Milliseconds of a call, measured as `measure` does but with one preparation."""
    return quiet_median(time_runs([function], seconds)[0]) * 1e3


def quiet_median(windows: Sequence[Sequence[float]]) -> float:
    """The median of the quieter half of the windows' medians.

    Example:
        >>> quiet_median([[1.0, 1.1, 5.0], [1.2], [3.0, 4.0], [9.0]])
        1.15
    """
    medians = sorted(statistics.median(window) for window in windows)
    return statistics.median(medians[: (len(medians) + 1) // 2])


def _time_group(function: Callable[[], object], group: int, overhead: float) -> float:
    start = perf_counter_ns()
    for _ in range(group):
        function()
    return max(1.0, perf_counter_ns() - start - overhead) / group / 1e9


def warm_up(function: Callable[[], object]) -> float:
    """Calls a function until caches, clocks and lazy set-up have settled; the nanoseconds of its last call."""
    start = last = perf_counter_ns()
    took, runs = 1, 0
    while runs < _WARM_UP_RUNS or last - start < _WARM_UP_NS:
        function()
        now = perf_counter_ns()
        took, last = now - last, now
        runs += 1
    return max(1, took)


def _clock_overhead_ns() -> float:
    readings = [perf_counter_ns() for _ in range(201)]
    return statistics.median(after - before for before, after in pairwise(readings))


def _image_shape(target: Target, input_size: Sequence[int] | None) -> Shape:
    if isinstance(target, Architecture):
        if input_size is not None and tuple(input_size) != target.input_size:
            raise LatencyError(f"the architecture has input_size {target.input_size}, got {tuple(input_size)}")
        return target.input_size
    if input_size is None or len(input_size) != 3:
        raise LatencyError(f"latency of a {type(target).__name__} needs input_size=(C, H, W), got {input_size!r}")
    channels, height, width = input_size
    return channels, height, width


def failing(backend: str, error: Exception) -> LatencyError:
    """What a backend raises where an engine refuses a network."""
    reason = str(error).strip().partition("\n")[0]
    return LatencyError(f"{backend} does not run this network ({type(error).__name__}: {reason})")
