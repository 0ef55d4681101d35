"""A trained network as torch.export's file."""

from __future__ import annotations

import io

from zeroshot_nas.core.files import write_atomically
from zeroshot_nas.core.seeding import preserved_rng
from zeroshot_nas.errors import ExportError
from zeroshot_nas.export.base import ExportedFile, ExportRequest, FormatInfo, register_format


@register_format(FormatInfo("torch", "model.pt2"))
def export_torch(request: ExportRequest) -> ExportedFile:
    """Writes torch.export's file, for any number of images; its extra files hold the metadata of the ONNX file.

    Raises:
        ExportError: It can't be exported, or computes something else than the network.
    """
    import torch

    from zeroshot_nas.export import checks

    network, file = request.network, request.file
    images = checks.check_images(network, request.images)
    shapes = ({0: torch.export.Dim("batch")},)
    try:
        with torch.no_grad(), preserved_rng():
            program = torch.export.export(network, (images[:2].clone(),), dynamic_shapes=shapes)  # it keeps them
    except Exception as error:  # a stranger's forward may raise anything
        said = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"the network could not be exported for any number of images ({type(error).__name__}: {said}); len(x) in a "
            "forward fixes it, x.shape[0] does not"
        ) from error
    content = io.BytesIO()  # torch's own writer to a file ends the process where the disk is full
    about = {f"{name}.json": text for name, text in checks.metadata(network).items()}
    torch.export.save(program, content, extra_files=about)
    write_atomically(file, lambda draft: draft.write_bytes(content.getvalue()))
    with torch.no_grad():
        largest, rms = checks.compare(network, images, torch.export.load(file).module()(images))
    checks.require_equal("torch.export's file", largest)
    return ExportedFile(file, "torch.export", file.stat().st_size / 1000, largest, rms)
