"""A trained network as a full-integer TensorFlow Lite file, and as the C array that firmware holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshot_nas.core.files import write_atomically, write_text
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ExportError, MissingExtraError
from zeroshot_nas.export.base import ExportedFile, ExportRequest, FormatInfo, register_format
from zeroshot_nas.micro.memory import memory
from zeroshot_nas.micro.operators import network_operators

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
else:
    np = LazyModule("numpy")

CALIBRATION_IMAGES = 256
"""Images of the request that ranges are measured on, at most."""

LEAST_CALIBRATION_IMAGES = 16
"""Fewer say too little of the ranges."""

LEARNED = "learned in training, without calibration images"
"""Where a network that was trained with rounded values has its ranges from."""

_BYTES_A_LINE = 20


class Interpreter:
    """A file in LiteRT, the runtime of TensorFlow Lite.

    Args:
        content: The file's bytes.

    Raises:
        MissingExtraError: The extra ``tflite`` is not installed.
    """

    def __init__(self, content: bytes) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter as LiteRT
        except ImportError as error:
            raise MissingExtraError("ai-edge-litert", "tflite") from error
        self._runtime = LiteRT(model_content=content, num_threads=1)
        (self._input,), (self._output,) = self._runtime.get_input_details(), self._runtime.get_output_details()
        self._size = 0

    def whole(self, images: Tensor) -> np.ndarray[Any, Any]:
        """Images ``(N, C, H, W)`` in [0, 1] as the file takes them: int8 ``(N, H, W, C)``, their bytes less 128."""
        values = np.rint(images.permute(0, 2, 3, 1).numpy() * 255) - 128
        whole: np.ndarray[Any, Any] = np.clip(values, -128, 127).astype(np.int8)
        return whole

    def logits(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """Logits ``(N, classes)``."""
        import torch

        outputs = []
        for batch in torch.split(images, batch_size):
            self.set(self.whole(batch))
            self._runtime.invoke()
            outputs.append(self._real(self._runtime.get_tensor(self._output["index"])))
        return torch.from_numpy(np.concatenate(outputs))

    def set(self, values: np.ndarray[Any, Any]) -> None:
        """Takes the images of the next run."""
        if len(values) != self._size:
            self._runtime.resize_tensor_input(self._input["index"], values.shape)
            self._runtime.allocate_tensors()
            self._size = len(values)
        self._runtime.set_tensor(self._input["index"], values)

    def median_ms(self, image: Tensor) -> float:
        """Median milliseconds for one image."""
        from zeroshot_nas.latency.base import median_ms

        self.set(self.whole(image[None]))
        return median_ms(self._runtime.invoke)

    def _real(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        scale, zero_point = self._output["quantization"]
        real: np.ndarray[Any, Any] = (values.astype(np.float32) - zero_point) * np.float32(scale)
        return real


def _logits(file: Path, images: Tensor) -> Tensor:
    return Interpreter(file.read_bytes()).logits(images)


@register_format(
    FormatInfo("tflite", "model.tflite", needs_images=True, takes_ranges=True, logits=_logits, is_int8=True)
)
def export_tflite(request: ExportRequest) -> ExportedFile:
    """Writes a full-integer file: int8 in and out, weights by channel, with a plan of the arena for microcontrollers.

    It has the operators of `zeroshot_nas.micro.operators.OPERATORS` alone, in the order that needs the least RAM. What
    goes in is an image's bytes less 128. Ranges are those that a network learned (`quantize_aware`), or of the first
    `CALIBRATION_IMAGES` of the request's images.

    Raises:
        ExportError: The network is none of ours, or there are too few calibration images.
        MissingExtraError: The extra ``tflite`` is not installed.
    """
    from zeroshot_nas.export import checks
    from zeroshot_nas.export.tflite_writer import tflite_bytes
    from zeroshot_nas.quantization.int8_network import quantize, with_ranges
    from zeroshot_nas.training.checkpoint import QuantizedNetwork, TrainedNetwork

    network, images = request.network, request.images
    if not isinstance(network, TrainedNetwork):
        raise ExportError(
            "a module of your own has no operators of TensorFlow Lite that are known; ask for the format onnx or torch"
        )
    if isinstance(network, QuantizedNetwork):
        lows, highs = network.ranges
        quantized, ranges = with_ranges(network, lows, highs, network.power_of_two), LEARNED
        images = checks.check_images(network, images)
    else:
        images = _calibration_images(images)
        quantized, ranges = quantize(network, images), f"of {len(images)} calibration images"
    about = {**checks.metadata(network), "input": "int8 (1, H, W, C), an image's bytes less 128"}
    content = tflite_bytes(quantized, "made by zeroshot-nas", about)
    runtime = Interpreter(content)
    largest, rms = checks.compare(network, images, runtime.logits(images))
    latency = runtime.median_ms(images[0])
    write_atomically(request.file, lambda draft: draft.write_bytes(content))
    return ExportedFile(request.file, "tflite int8", len(content) / 1000, largest, rms, latency, ranges=ranges)


def _calibration_images(images: Tensor | None) -> Tensor:
    """Those that ranges are measured on.

    Raises:
        ExportError: There are too few.
    """
    count = 0 if images is None else len(images)
    if images is None or count < LEAST_CALIBRATION_IMAGES:
        raise ExportError(
            f"int8 needs at least {LEAST_CALIBRATION_IMAGES} calibration images, got {count}; give more of the images "
            "that the network was trained on"
        )
    return images[:CALIBRATION_IMAGES]


@register_format(FormatInfo("c", "model.cc", made_of="tflite", takes_ranges=True, is_int8=True))
def export_c(request: ExportRequest) -> ExportedFile:
    """Writes the TensorFlow Lite file as a C array, and beside it a header with the size of its arena.

    Raises:
        ExportError: The request has no TensorFlow Lite file.
    """
    from zeroshot_nas.export import checks
    from zeroshot_nas.training.checkpoint import TrainedNetwork

    network, source, file = request.network, request.source, request.file
    assert isinstance(network, TrainedNetwork), "the format that it is made of refuses others"
    if source is None:
        raise ExportError("the C array is made of the tflite file; give its file as source")
    content = source.read_bytes()
    images = checks.check_images(network, request.images)
    largest, rms = checks.compare(network, images, Interpreter(content).logits(images))
    lines = (", ".join(map(str, content[i : i + _BYTES_A_LINE])) for i in range(0, len(content), _BYTES_A_LINE))
    body = ",\n    ".join(lines)
    header = file.with_suffix(".h")
    write_text(
        file,
        f'#include "{header.name}"\n\n'
        f"alignas(16) const unsigned char model_data[] = {{\n    {body}}};\n"
        f"const unsigned int model_size = {len(content)};\n",
    )
    need = memory(network.architecture)
    codes = sorted({operator.code for operator in network_operators(network.architecture)})
    names = ", ".join(json.dumps(name) for name in network.class_names)
    write_text(
        header,
        "#pragma once\n\n"
        "// Made by zeroshot-nas. Input: int8 (1, H, W, C), an image's bytes less 128. Output: int8 logits.\n"
        f"// Operators: {', '.join(codes)}.\n"
        "// The arena is what a 64-bit machine needs; a 32-bit one needs less.\n\n"
        "extern const unsigned char model_data[];\n"
        "extern const unsigned int model_size;\n"
        f"constexpr int kTensorArenaSize = {need.peak_memory};\n"
        f"constexpr int kOperatorCount = {len(codes)};\n"
        f"constexpr const char* kClassNames[] = {{{names}}};\n",
    )
    return ExportedFile(file, "C array", file.stat().st_size / 1000, largest, rms)
