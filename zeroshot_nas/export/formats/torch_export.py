"""A trained network as torch.export's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.core.files import write_atomically
from zeroshot_nas.core.seeding import preserved_rng
from zeroshot_nas.export.base import ExportedFile, ExportRequest, FormatInfo, register_format

if TYPE_CHECKING:
    import torch


@register_format(FormatInfo("torch", "model.pt2"))
def export_torch(request: ExportRequest) -> ExportedFile:
    """Writes torch.export's file, for any number of images; its extra files hold the metadata of the ONNX file.

    Raises:
        ExportError: It computes something else than the network.
    """
    import torch

    from zeroshot_nas.export import checks

    network, file = request.network, request.file
    images = checks.check_images(network, request.images)
    with torch.no_grad(), preserved_rng():
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(network, (images[:2].clone(),), dynamic_shapes=shapes)  # it keeps them
    write_atomically(file, lambda draft: _save(program, draft, checks.metadata(network)))
    with torch.no_grad():
        largest, error = checks.compare(network, images, torch.export.load(file).module()(images))
    checks.require_equal("torch.export's file", largest)
    return ExportedFile(file, "torch.export", file.stat().st_size / 1000, largest, error)


def _save(program: torch.export.ExportedProgram, draft: Path, about: dict[str, str]) -> None:
    import torch

    with draft.open("wb") as file:  # torch warns of paths that don't end in .pt2
        torch.export.save(program, file, extra_files={f"{name}.json": text for name, text in about.items()})
