"""A model in ONNX Runtime on the CPU: ready to run, and timed kernel by kernel with the runtime's profiler."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.kernels import kernels
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ExportError, LatencyError, MissingExtraError
from zeroshot_nas.latency.base import Prepared, failing
from zeroshot_nas.latency.onnx_file import OnnxFile
from zeroshot_nas.latency.onnx_graph import kernel_index, onnx_graph
from zeroshot_nas.latency.ort_session import ort_session

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

_SUFFIX = "_kernel_time"
_INPUT_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
}


@dataclass(frozen=True)
class OrtModel:
    """What ONNX Runtime is given.

    Attributes:
        source: The model, or its file.
        kernels: How many kernels its nodes are named for, as `onnx_graph` names them; None where they are not.
    """

    source: bytes | Path
    kernels: int | None = None


def ort_model(target: Any, image_shape: Shape, batch_size: int) -> OrtModel:
    """An architecture, a file or a module as ONNX Runtime takes it; of a module that takes torch seconds.

    Raises:
        LatencyError: The module can't be exported.
        MissingExtraError: The extra ``onnx`` is not installed.
    """
    if isinstance(target, Architecture):
        graph = onnx_graph(target, batch_size=batch_size)
        return OrtModel(graph.SerializeToString(), len(kernels(target)))
    if isinstance(target, OnnxFile):
        return OrtModel(target.path)
    from zeroshot_nas.network.to_onnx import onnx_model  # here: torch is needed for a module only

    try:
        return OrtModel(onnx_model(target, image_shape, batch_size=batch_size).SerializeToString())
    except ExportError as error:
        raise failing("onnxruntime", error) from error


@contextmanager
def ort_prepared(model: OrtModel, image_shape: Shape, batch_size: int, threads: int) -> Iterator[Prepared]:
    """A model in a session of its own, ready to run on random images.

    Raises:
        LatencyError: ONNX Runtime refuses it.
        MissingExtraError: The extra ``onnx`` is not installed.
    """
    try:
        session = ort_session(model.source, threads=threads)
        (image,) = session.get_inputs()
        if image.type not in _INPUT_TYPES:
            raise LatencyError(f"expected a model of images in {', '.join(_INPUT_TYPES.values())}, got {image.type}")
        images = np.random.default_rng(0).standard_normal((batch_size, *image_shape), dtype=np.float32)
        # pixels that are whole numbers have no sign
        feed = {image.name: np.abs(images).astype(_INPUT_TYPES[image.type])}
        session.run(None, feed)
    except (MissingExtraError, LatencyError):
        raise
    except Exception as error:  # the runtime raises its own kinds, with no common base
        raise failing("onnxruntime", error) from error

    def kernel_seconds(runs: int) -> list[list[float]]:
        assert model.kernels is not None, "its nodes are named for kernels"
        with tempfile.TemporaryDirectory() as folder:
            profiled = ort_session(model.source, threads=threads, profile=Path(folder) / "profile")
            for _ in range(runs):
                profiled.run(None, feed)
            events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
        return _seconds_by_kernel(events, runs, model.kernels)

    yield Prepared(lambda: session.run(None, feed), None if model.kernels is None else kernel_seconds)


def _seconds_by_kernel(events: Iterable[Any], runs: int, count: int) -> list[list[float]]:
    """The profiler's node times, run by run, given to the kernels that the nodes belong to.

    Where the runtime changes a tensor in between, a change out of its own layout or out of int8 counts to the kernel
    behind it, a change into them to the kernel before.
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
    """The kernel of each node, given in the order of their first run; None for what stands before the first."""
    own = [None if _serves_next(name) else kernel_index(name) for name in names]
    owners: dict[str, int | None] = {}
    for position, (name, kernel) in enumerate(zip(names, own, strict=True)):
        if kernel is None:
            before, behind = own[:position][::-1], own[position + 1 :]
            near = [*behind, *before] if _serves_next(name) else before
            kernel = next((each for each in near if each is not None), None)
        owners[name] = kernel
    return owners


def _serves_next(name: str) -> bool:
    """Whether a node, which the runtime has put in, makes what the next one reads."""
    return name.startswith(("ReorderOutput", "Transpose")) or "_DequantizeLinear" in name
