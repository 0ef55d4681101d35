"""int8 models by ONNX Runtime's static quantisation, with ordinary or power-of-two scales."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshot_nas.core.files import write_atomically
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ExportError
from zeroshot_nas.export.base import ExportedFile, ExportRequest, FormatInfo, register_format
from zeroshot_nas.latency.onnx_graph import INPUT_NAME
from zeroshot_nas.latency.ort_quantize import quantize_int8
from zeroshot_nas.latency.ort_session import ort_session

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
else:
    np = LazyModule("numpy")

CALIBRATION_IMAGES = 256
"""Images that the ranges of activations are measured on."""

_BATCH = 32


def _logits(file: Path, images: Tensor) -> Tensor:
    from zeroshot_nas.export.checks import run

    return run(ort_session(file), images)


@register_format(FormatInfo("int8", "model.int8.onnx", made_of="onnx", needs_images=True, logits=_logits))
def export_int8(request: ExportRequest) -> ExportedFile:
    """Writes an int8 copy of an ONNX file: weights by channel, activations by tensor, in QDQ form.

    Ordinary weights keep to 7 bits, since processors without VNNI would overflow otherwise. The first
    `CALIBRATION_IMAGES` of the request's images are used.

    Raises:
        ExportError: There are no calibration images, or ONNX Runtime can't quantise the model.
        MissingExtraError: The extra ``onnx`` is not installed.
    """
    return _export(request, "onnx int8", power_of_two=False)


@register_format(
    FormatInfo("int8_power_of_two", "model.int8.shift.onnx", made_of="onnx", needs_images=True, logits=_logits)
)
def export_int8_power_of_two(request: ExportRequest) -> ExportedFile:
    """Writes an int8 copy whose every scale is the next power of two that covers the same range, ``2^ceil(log2 s)``.

    Every zero point is 0, so that a device rescales by shifts alone, as in VTA's hardware-software blueprint
    (arXiv:1807.04188). What that costs is the ``rms_error`` of the two files. Errors are those of `export_int8`.
    """
    return _export(request, "onnx int8, power-of-two scales", power_of_two=True)


def _export(request: ExportRequest, kind: str, *, power_of_two: bool) -> ExportedFile:
    from zeroshot_nas.export import checks

    file, source, images = request.file, request.source, request.images
    if images is None or not len(images):
        raise ExportError("int8 needs calibration images, got none; give the images that the network was trained on")
    if source is None:
        raise ExportError("int8 is made of the ONNX model; give its file as source")
    images = images[:CALIBRATION_IMAGES]
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "model.onnx"
        _quantize(source, draft, images, symmetric=power_of_two)
        if power_of_two:
            _quantize(source, draft, images, symmetric=True, overrides=_power_of_two_scales(draft))
        content = draft.read_bytes()
    write_atomically(file, lambda path: path.write_bytes(content))
    runtime = ort_session(file)
    largest, error = checks.compare(request.network, images, checks.run(runtime, images))
    ranges = f"of {len(images)} calibration images"
    return ExportedFile(
        file, kind, len(content) / 1000, largest, error, checks.latency_ms(runtime, images[0]), ranges=ranges
    )


def scales(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Every scale of an int8 file, by the name of the tensor that it belongs to; biases are left out."""
    return {name: values[0] for name, values in _quantizers(file).items()}


def _quantize(
    source: Path, target: Path, images: Tensor, *, symmetric: bool, overrides: dict[str, Any] | None = None
) -> None:
    import torch

    feeds = ({INPUT_NAME: batch.numpy()} for batch in torch.split(images, _BATCH))
    quantize_int8(source, target, feeds, symmetric=symmetric, overrides=overrides)


def _quantizers(file: Path) -> dict[str, tuple[np.ndarray[Any, Any], Any, int]]:
    """Of every quantised tensor: scales, the numpy type it is stored in, and the axis of its channels."""
    import onnx

    model = onnx.load(str(file))
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            tensor = node.input[0].removesuffix("_QuantizeLinear_Input")  # so a model's output is renamed
            values = constants[node.input[1]]
            found[tensor] = (values, constants[node.input[2]].dtype, 1)
        elif node.op_type == "DequantizeLinear" and node.input[0] in constants:
            stored = constants[node.input[0]]
            if stored.dtype == np.int8:  # int32 is a bias, whose scale follows from the others
                tensor = node.input[0].removesuffix("_quantized")
                axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
                found[tensor] = (constants[node.input[1]], stored.dtype, axis)
    return found


def _power_of_two_scales(file: Path) -> dict[str, Any]:
    """The next power of two of every scale, as ONNX Runtime takes it."""
    from onnxruntime.quantization import QuantType

    chosen: dict[str, Any] = {}
    for tensor, (values, dtype, axis) in _quantizers(file).items():
        entries = []
        for scale in values.reshape(-1):
            power = np.float32(2.0 ** math.ceil(math.log2(float(scale))))
            entry = {"quant_type": QuantType.QInt8, "scale": np.array(power), "zero_point": np.array(0, dtype=dtype)}
            entries.append({**entry, "axis": axis} if values.ndim else entry)
        chosen[tensor] = entries
    return chosen
