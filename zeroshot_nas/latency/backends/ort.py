"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ExportError, MissingExtraError
from zeroshot_nas.latency.base import Prepared, Target, failing, register_backend
from zeroshot_nas.latency.kernels import kernels
from zeroshot_nas.latency.onnx_graph import kernel_index, onnx_graph
from zeroshot_nas.latency.ort_session import ort_session

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

_SUFFIX = "_kernel_time"


def _export(target: Target, image_shape: Shape, batch_size: int) -> Any:
    """A module as an ONNX model, which takes torch seconds; an architecture stays itself."""
    if isinstance(target, Architecture):
        return target
    from zeroshot_nas.network.to_onnx import onnx_model  # here: torch is needed for a module only

    try:
        return onnx_model(target, image_shape, batch_size=batch_size)
    except ExportError as error:
        raise failing("onnxruntime", error) from error


@register_backend("onnxruntime", package="onnxruntime", extra="onnx", convert=_export)
@contextmanager
def onnxruntime_cpu(target: Any, image_shape: Shape, /, *, batch_size: int, threads: int) -> Iterator[Prepared]:
    """ONNX Runtime's CPU provider with all its graph optimisations, on an architecture or an ONNX model."""
    graph = onnx_graph(target, batch_size=batch_size) if isinstance(target, Architecture) else target
    model = graph.SerializeToString()
    try:
        session = ort_session(model, threads=threads)
    except MissingExtraError:
        raise
    except Exception as error:  # the runtime raises its own kinds, with no common base
        raise failing("onnxruntime", error) from error
    (image,) = session.get_inputs()
    feed = {image.name: np.random.default_rng(0).standard_normal((batch_size, *image_shape), dtype=np.float32)}

    def kernel_seconds(runs: int) -> list[list[float]]:
        assert isinstance(target, Architecture), "kernels are those of an architecture"
        with tempfile.TemporaryDirectory() as folder:
            profiled = ort_session(model, threads=threads, profile=Path(folder) / "profile")
            for _ in range(runs):
                profiled.run(None, feed)
            events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
        return _seconds_by_kernel(events, runs, len(kernels(target)))

    yield Prepared(lambda: session.run(None, feed), kernel_seconds if isinstance(target, Architecture) else None)


def _seconds_by_kernel(events: Iterable[Any], runs: int, count: int) -> list[list[float]]:
    """The profiler's node times, run by run, given to the kernels that the nodes belong to.

    Where the runtime changes the layout of a tensor in between, a change out of its own layout counts to the kernel
    behind it, a change into it to the kernel before.
    """
    durations: defaultdict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            durations[event["name"].removesuffix(_SUFFIX)].append(event["dur"] / 1e6)
    owners = _owners(list(durations))
    found = [[0.0] * count for _ in range(runs)]
    for name, values in durations.items():
        if (owner := owners[name]) is not None:
            for run, value in zip(found, values, strict=True):
                run[owner] += value
    return found


def _owners(names: list[str]) -> dict[str, int | None]:
    """The kernel of each node, given in the order of their first run."""
    own = [kernel_index(name) for name in names]
    owners: dict[str, int | None] = {}
    for position, (name, kernel) in enumerate(zip(names, own, strict=True)):
        if kernel is None:
            near = own[position + 1 :] if name.startswith("ReorderOutput") else own[:position][::-1]
            kernel = next((each for each in near if each is not None), None)
        owners[name] = kernel
    return owners
