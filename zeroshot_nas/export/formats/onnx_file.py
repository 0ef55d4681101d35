"""A trained network as an ONNX file that ONNX Runtime was seen to compute alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.core.files import write_atomically
from zeroshot_nas.errors import MissingExtraError
from zeroshot_nas.export.base import ExportedFile, ExportRequest, FormatInfo, register_format
from zeroshot_nas.latency.ort_session import ort_session

if TYPE_CHECKING:
    from torch import Tensor


def onnx_logits(file: Path, images: Tensor) -> Tensor:
    """Logits of an ONNX file in ONNX Runtime."""
    from zeroshot_nas.export.checks import run

    return run(ort_session(file), images)


@register_format(FormatInfo("onnx", "model.onnx", logits=onnx_logits))
def export_onnx(request: ExportRequest) -> ExportedFile:
    """Writes an ONNX file: batch norms folded, any number of images, normalisation inside, class names in its metadata.

    Raises:
        ExportError: It could not be exported, or ONNX Runtime computes something else; then no file is left.
        MissingExtraError: The extra ``onnx`` is not installed.
    """
    from zeroshot_nas.export import checks
    from zeroshot_nas.network.to_onnx import onnx_model
    from zeroshot_nas.training.checkpoint import input_size_of

    network, file = request.network, request.file
    model = onnx_model(network, input_size_of(network), dynamic_batch=True, opset=request.opset)
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx") from error
    onnx.helper.set_model_props(model, checks.metadata(network))
    images = checks.check_images(network, request.images)

    def write(draft: Path) -> None:
        draft.write_bytes(model.SerializeToString())
        largest, _ = checks.compare(network, images, onnx_logits(draft, images))
        checks.require_equal("the ONNX model in ONNX Runtime", largest)

    write_atomically(file, write)
    runtime = ort_session(file)
    largest, rms = checks.compare(network, images, checks.run(runtime, images))
    return ExportedFile(file, "onnx", file.stat().st_size / 1000, largest, rms, checks.latency_ms(runtime, images[0]))
