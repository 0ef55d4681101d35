"""A trained network as an ONNX file that ONNX Runtime was seen to compute alike."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from zeroshot_nas.core.files import write_atomically
from zeroshot_nas.errors import MissingExtraError
from zeroshot_nas.export.base import (
    ExportedFile,
    check_images,
    compare,
    latency_ms,
    metadata,
    require_equal,
    run,
    session,
)
from zeroshot_nas.network.to_onnx import onnx_model
from zeroshot_nas.training.checkpoint import TrainedNetwork

OPSET = 18
"""Version of ONNX's operator set that files are written in."""


def export_onnx(network: TrainedNetwork, file: Path, images: Tensor | None = None, opset: int = OPSET) -> ExportedFile:
    """Writes an ONNX file: batch norms folded, any number of images, normalisation inside, class names in its metadata.

    Args:
        network: What to export, on the CPU.
        file: Where to write.
        images: Images in [0, 1] to check and time it with; None takes noise.
        opset: Version of ONNX's operator set.

    Raises:
        ExportError: It could not be exported, or ONNX Runtime computes something else; then no file is left.
        MissingExtraError: The extra ``onnx`` is not installed.
    """
    model = onnx_model(network, network.architecture.input_size, dynamic_batch=True, opset=opset)
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx") from error
    onnx.helper.set_model_props(model, metadata(network))
    checked = check_images(network, images)

    def write(draft: Path) -> None:
        onnx.save(model, str(draft))
        require_equal("the ONNX model in ONNX Runtime", compare(network, checked, run(session(draft), checked))[0])

    write_atomically(file, write)
    runtime = session(file)
    largest, rms = compare(network, checked, run(runtime, checked))
    return ExportedFile(file, "onnx", file.stat().st_size / 1000, largest, rms, latency_ms(runtime, checked[0]))
