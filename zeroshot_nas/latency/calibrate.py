"""Measuring this machine once: networks such as a search visits, whole and kernel by kernel, into a device table."""

from __future__ import annotations

import json
import os
import statistics
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.core.progress import progress_bar
from zeroshot_nas.core.provenance import provenance
from zeroshot_nas.core.text import read_json
from zeroshot_nas.errors import (
    FileFormatError,
    LatencyError,
    LatencyWarning,
    OutputExistsError,
    RunInUseError,
    SettingsChangedError,
)
from zeroshot_nas.latency.base import BACKENDS, UNSTABLE_SPREAD, BackendInfo, time_sessions, warm_up
from zeroshot_nas.latency.calibration_networks import calibration_networks
from zeroshot_nas.latency.device_table import DeviceTable, Fingerprint
from zeroshot_nas.latency.fit import LEAST_NETWORKS, Timed, fit_table
from zeroshot_nas.runs.options import RunOptions, run_options
from zeroshot_nas.runs.store import settings_difference
from zeroshot_nas.spaces.base import SearchSpace

DEFAULT_NETWORKS = 160
"""Networks that are measured unless their number is given."""

DEFAULT_MAX_FLOPS = 3e8
"""FLOPs (multiply-adds) of the largest network that is measured."""

FOLDER_VARIABLE = "ZEROSHOT_NAS_TABLES"
"""Environment variable that names another folder for device tables."""

PASSES = 2
"""How often each network is measured, far apart in time; the quieter counts."""

_SECONDS = 0.15
_SESSIONS = 2
_KERNEL_RUNS = (12, 60)
_WARM_UP_PROFILED = 2
_MEASURED = {"pass", "index", "latency_ms", "spread", "kernels_ms", "seconds"}


def table_file(backend: str, space: str, input_size: Shape, *, batch_size: int = 1, threads: int = 1) -> Path:
    """Where a device table is kept unless a file is named: in the user's cache folder."""
    base = os.environ.get(FOLDER_VARIABLE)
    folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zeroshot_nas"
    size = "x".join(map(str, input_size))
    return folder / f"latency-{backend}-{space}-{size}-batch{batch_size}-threads{threads}.json"


def measured_log(table: Path) -> Path:
    """Where measurements for a table are kept until it is made."""
    return table.with_name(f"{table.name}.measured")


def lock_of(table: Path) -> Path:
    """What a process holds that measures for a table."""
    return table.with_name(f".{table.name}.lock")


def find_table(space: SearchSpace, backend: str) -> DeviceTable:
    """This machine's table for a space, at batch 1 and one thread, as ``calibrate`` left it.

    Raises:
        LatencyError: There is none, or it is that of another machine or engine.
    """
    info = BACKENDS[backend]
    file = table_file(backend, space.name, space.input_size)
    size = "x".join(map(str, space.input_size))
    again = f"zeroshot-nas latency calibrate --backend {backend} --space {space.name} --input {size}"
    if not file.exists():
        raise LatencyError(
            f"no device table for {backend} and {space.name} at {size}; measure this machine once with: {again}"
        )
    table = DeviceTable.load(file)
    if differences := table.fingerprint.differences(info.fingerprint()):
        raise LatencyError(
            f"{file} was measured elsewhere ({'; '.join(differences)}); measure this machine again with: {again} "
            f"--force; or predict for that device with: --device-table {file}"
        )
    return table


def is_here(fingerprint: Fingerprint) -> bool:
    """Whether a fingerprint is this machine's, so that what it predicts can be measured."""
    if fingerprint.backend not in BACKENDS:
        return False
    info = BACKENDS[fingerprint.backend]
    try:
        here = info.fingerprint(batch_size=fingerprint.batch_size, threads=fingerprint.threads)
    except (LatencyError, ImportError):  # no such device or engine here
        return False
    return not fingerprint.differences(here)


def calibrate(
    space: SearchSpace,
    backend: str = "onnxruntime",
    run: RunOptions | None = None,
    *,
    threads: int = 1,
    batch_size: int = 1,
    networks: int = DEFAULT_NETWORKS,
    max_flops: float = DEFAULT_MAX_FLOPS,
    seed: int = 0,
    **options: Any,
) -> DeviceTable:
    """Measures this machine and fits a device table for a space; minutes, once.

    Every network is measured whole, and kernel by kernel in its place, where caches and memory are as in a real run.
    Each measurement is kept as soon as it is made, so that a run that was killed goes on where it was.

    Args:
        space: Whose networks are to be predicted.
        backend: A registered backend's name.
        run: The table's file as ``out`` (default: `table_file`), whether to replace a table that is there (``force``),
            and whether to show a bar (``progress``).
        threads: Threads of the engine.
        batch_size: Images a run.
        networks: How many to measure.
        max_flops: FLOPs (multiply-adds) of the largest; beyond it predictions are extrapolated.
        seed: Seed of the choice of networks.
        options: ``out``, ``force``, ``progress`` one by one, which win over ``run``.

    Returns:
        The table, which is also written to ``out``.

    Raises:
        TypeError: An option is none of these.
        ValueError: A number is out of range, or there are too few such networks.
        LatencyError: A network does not run on the backend, or it can't time kernels.
        MissingExtraError: The engine or scikit-learn is not installed.
        OutputExistsError: ``out`` exists, and ``force`` is not set.
        SettingsChangedError: Measurements that were begun with other settings lie beside ``out``.
        RunInUseError: Another process measures for the same table.
    """
    info = BACKENDS[backend]
    check_counts(threads=threads, batch_size=batch_size)
    check_counts(LEAST_NETWORKS, networks=networks)
    fingerprint = info.fingerprint(batch_size=batch_size, threads=threads)
    where = table_file(backend, space.name, space.input_size, batch_size=batch_size, threads=threads)
    if run is None or run.out is None:
        options["out"] = options.get("out") or where
    run = run_options(run, options, "calibrate", takes=("out", "force", "progress"))
    file = run.folder
    assert file is not None, "filled in"
    if file.exists() and not run.force:
        raise OutputExistsError(f"{file} exists; choose another file with --out, or overwrite it with --force")
    chosen = calibration_networks(space, networks, max_flops, seed)
    settings = {"fingerprint": asdict(fingerprint), "space": space.name, "networks": networks, "max_flops": max_flops}
    settings |= {"input_size": list(space.input_size), "num_classes": space.num_classes, "seed": seed}
    if space.input_sizes != (space.input_size,):
        settings["input_sizes"] = [list(size) for size in space.input_sizes]
    with _locked(file):
        log = _Log(measured_log(file), settings)
        for round_ in range(PASSES):
            what = f"measuring {backend}, {round_ + 1} of {PASSES}"
            for index, architecture in enumerate(progress_bar(chosen, what=what, unit="net", shown=run.progress)):
                if (round_, index) not in log.entries:
                    start = perf_counter()
                    measured = _time(architecture, info, batch_size, threads)
                    log.add(round_, index, {**measured, "seconds": perf_counter() - start})
        timed = [_quieter(architecture, log.entries, index) for index, architecture in enumerate(chosen)]
        spread = statistics.median(each.spread for each in timed)
        seconds = sum(entry["seconds"] for entry in log.entries.values())
        details = {**settings, "median_spread": spread, "seconds": seconds, **provenance()}
        table = fit_table(timed, fingerprint, space, details)
        table.save(file)
        log.file.unlink()
    if spread > UNSTABLE_SPREAD:
        warnings.warn(
            f"the machine was busy with something else while it was measured: half of a network's runs spread over "
            f"{spread:.0%} of their median, and predictions of {file} are as unsure; calibrate again with --force when "
            "it is not",
            LatencyWarning,
            stacklevel=2,
        )
    return table


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Keeps other processes from measuring for the same table.

    Raises:
        RunInUseError: One does so now.
    """
    from filelock import FileLock, Timeout

    file.parent.mkdir(parents=True, exist_ok=True)
    lock_file = lock_of(file)
    lock = FileLock(lock_file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunInUseError(
            f"{file} is being measured by another process; wait for it, or choose another file with --out"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # on Windows an open file can't be removed
            lock_file.unlink()
        lock.release()


def _time(architecture: Architecture, info: BackendInfo, batch_size: int, threads: int) -> dict[str, Any]:
    """One network measured whole and kernel by kernel."""
    how = {"batch_size": batch_size, "threads": threads}
    with info.prepared(architecture, architecture.input_size, **how, sessions=_SESSIONS) as sessions:
        first = sessions[0]
        if first.kernel_seconds is None:
            raise LatencyError(f"the backend {info.name} can't time kernels, so no table can be made for it")
        whole = time_sessions(sessions, _SECONDS)
        warm_up(first.run)
        least, most = _KERNEL_RUNS
        runs = min(most, max(least, round(_SECONDS * 1e3 / whole.latency_ms)))
        found = first.kernel_seconds(runs + _WARM_UP_PROFILED)[_WARM_UP_PROFILED:]
    quiet = sorted(found, key=sum)[: max(1, len(found) // 4)]
    kernels_ms = [1e3 * statistics.fmean(values) for values in zip(*quiet, strict=True)]
    return {"latency_ms": whole.latency_ms, "spread": whole.spread, "kernels_ms": kernels_ms}


def _quieter(architecture: Architecture, entries: dict[tuple[int, int], dict[str, Any]], index: int) -> Timed:
    """The less disturbed of a network's measurements: of the whole, and of its kernels."""
    passes: Sequence[dict[str, Any]] = [entries[round_, index] for round_ in range(PASSES)]
    whole = min(passes, key=lambda entry: float(entry["latency_ms"]))
    parts = min((entry["kernels_ms"] for entry in passes), key=sum)
    return Timed(architecture, whole["latency_ms"], whole["spread"], tuple(parts))


class _Log:
    """Measurements so far, a JSON line each, behind a line of settings.

    Raises:
        SettingsChangedError: The file was begun with other settings.
        FileFormatError: A line other than the last, which a kill may have cut, can't be read.
    """

    def __init__(self, file: Path, settings: dict[str, Any]) -> None:
        self.file = file
        self.entries: dict[tuple[int, int], dict[str, Any]] = {}
        lines = _whole_lines(file)
        if lines:
            if difference := settings_difference(lines[0], json.loads(json.dumps(settings))):
                raise SettingsChangedError(
                    f"{file} holds measurements begun with other settings; delete it, or go on with them. "
                    f"{'; '.join(difference)}"
                )
            self.entries = {(entry["pass"], entry["index"]): entry for entry in lines[1:]}
        else:
            self._append(settings)

    def add(self, round_: int, index: int, measured: dict[str, Any]) -> None:
        """Keeps one measurement."""
        entry = {"pass": round_, "index": index, **measured}
        self._append(entry)
        self.entries[round_, index] = entry

    def _append(self, line: dict[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def _whole_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a log; what a kill left of the last one is cut off, and nothing else of the file is touched."""
    if not file.exists():
        return []
    found: list[dict[str, Any]] = []
    end, content = 0, file.read_bytes()
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        last = end + len(line) == len(content)
        try:
            entry = read_json(line)
            if not line.endswith(b"\n") or not isinstance(entry, dict) or (found and _MEASURED - set(entry)):
                raise ValueError("no line of a log")
        except ValueError:
            if last:
                os.truncate(file, end)
                break
            raise FileFormatError(f"{file}, line {number}, is damaged; delete the file to measure anew") from None
        found.append(entry)
        end += len(line)
    return found
