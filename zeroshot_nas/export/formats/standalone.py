"""A trained network as one Python file that needs torch alone."""

from __future__ import annotations

from zeroshot_nas.core.files import write_text
from zeroshot_nas.errors import ExportError
from zeroshot_nas.export.base import ExportedFile, ExportRequest, FormatInfo, register_format
from zeroshot_nas.export.source import run_alone, source


@register_format(FormatInfo("python", "model.py"))
def export_python(request: ExportRequest) -> ExportedFile:
    """Writes one Python file with the module's source and its weights, and checks it in a process without this package.

    Raises:
        ExportError: The network is none of ours, or the file does not run by itself, or computes something else; then
            no file is left.
    """
    from zeroshot_nas.export import checks
    from zeroshot_nas.training.checkpoint import TrainedNetwork

    network, file = request.network, request.file
    if not isinstance(network, TrainedNetwork):
        raise ExportError("a module of your own has no source that could be written; ask for the format onnx or torch")
    text, images = source(network, file.stem), checks.check_images(network, request.images)
    largest, rms = checks.compare(network, images, run_alone(text, images))
    checks.require_equal("the Python file", largest)
    write_text(file, text)
    return ExportedFile(file, "python", file.stat().st_size / 1000, largest, rms)
