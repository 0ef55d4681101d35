"""ONNX Runtime on the CPU, on networks that are quantised to int8 first."""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ExportError
from zeroshot_nas.latency.base import Prepared, Target, failing, register_backend
from zeroshot_nas.latency.onnx_graph import INPUT_NAME
from zeroshot_nas.latency.ort_model import OrtModel, ort_model, ort_prepared
from zeroshot_nas.latency.ort_quantize import quantize_int8

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")


def _quantized(target: Target, image_shape: Shape, batch_size: int) -> OrtModel:
    """The int8 model that ``export --int8`` would write, its ranges measured on noise: they do not matter for time."""
    model = ort_model(target, image_shape, batch_size)
    assert isinstance(model.source, bytes), "files are timed as they are, by the backend onnxruntime"
    images = np.random.default_rng(0).standard_normal((batch_size, *image_shape), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        source, quantized = Path(folder) / "model.onnx", Path(folder) / "model.int8.onnx"
        source.write_bytes(model.source)
        try:
            quantize_int8(source, quantized, [{INPUT_NAME: images}])
        except ExportError as error:
            raise failing("onnxruntime_int8", error) from error
        return replace(model, source=quantized.read_bytes())


@register_backend("onnxruntime_int8", package="onnxruntime", extra="onnx", convert=_quantized, dtype="int8")
def onnxruntime_int8(
    model: OrtModel, image_shape: Shape, /, *, batch_size: int, threads: int
) -> AbstractContextManager[Prepared]:
    """ONNX Runtime's CPU provider on the int8 model of an architecture or a module, as ``export --int8`` makes it."""
    return ort_prepared(model, image_shape, batch_size, threads)
