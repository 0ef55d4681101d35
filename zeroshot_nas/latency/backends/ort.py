"""ONNX Runtime on the CPU."""

from __future__ import annotations

from contextlib import AbstractContextManager

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.latency.base import Prepared, register_backend
from zeroshot_nas.latency.ort_model import OrtModel, ort_model, ort_prepared


@register_backend("onnxruntime", package="onnxruntime", extra="onnx", convert=ort_model, takes_files=True)
def onnxruntime_cpu(
    model: OrtModel, image_shape: Shape, /, *, batch_size: int, threads: int
) -> AbstractContextManager[Prepared]:
    """ONNX Runtime's CPU provider with all its graph optimisations, on an architecture, a module or an ONNX file."""
    return ort_prepared(model, image_shape, batch_size, threads)
