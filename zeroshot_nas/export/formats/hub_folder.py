"""A trained network as a folder for the Hugging Face Hub: weights, config, model card, and code that needs neither."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.core.files import write_atomically
from zeroshot_nas.errors import ExportError
from zeroshot_nas.export.base import ExportedFile, ExportRequest, FormatInfo, register_format
from zeroshot_nas.export.model_card import model_card
from zeroshot_nas.export.source import run_alone, source
from zeroshot_nas.training.weights import weights_bytes

if TYPE_CHECKING:
    from torch import Tensor


def _logits(file: Path, images: Tensor) -> Tensor:
    import torch

    from zeroshot_nas.training.checkpoint import load

    with torch.no_grad():
        logits: Tensor = load(file)(images)
        return logits


@register_format(FormatInfo("hub", "hub", logits=_logits, tells_origin=True))
def export_hub(request: ExportRequest) -> ExportedFile:
    """Writes a folder with ``model.safetensors``, ``config.json``, ``model.py`` and the model card ``README.md``.

    ``zeroshot_nas.load`` takes the folder. ``model.py`` builds the network without this package; it is run so, and
    both are compared with the network, before anything is written.

    Raises:
        ExportError: The network is none of ours, or the folder computes something else.
    """
    import torch

    from zeroshot_nas.export import checks
    from zeroshot_nas.training.checkpoint import HUB_CONFIG, HUB_WEIGHTS, TrainedNetwork, hub_config

    network, folder = request.network, request.file
    if not isinstance(network, TrainedNetwork):
        raise ExportError(
            "a module of your own has no architecture that a config could say; ask for the format onnx or torch"
        )
    images = checks.check_images(network, request.images)
    latency = checks.network_latency_ms(network, images[0])
    weights = weights_bytes({name: value.contiguous() for name, value in network.state_dict().items()})
    code = source(network, "model", HUB_WEIGHTS)
    files = {
        HUB_WEIGHTS: weights,
        "model.py": code.encode(),
        "README.md": model_card(network, request.origin, latency).encode(),
        HUB_CONFIG: (json.dumps(hub_config(network), indent=2) + "\n").encode(),
    }
    alone, _ = checks.compare(network, images, run_alone(code, images, {HUB_WEIGHTS: weights}))
    checks.require_equal("model.py with its weights", alone)
    with tempfile.TemporaryDirectory() as draft:
        for name, content in files.items():
            (Path(draft) / name).write_bytes(content)
        with torch.no_grad():
            largest, rms = checks.compare(network, images, _logits(Path(draft), images))
    checks.require_equal("the folder for the Hub", largest)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(folder / name, lambda path, content=content: path.write_bytes(content))  # type: ignore[misc]
    size = sum(map(len, files.values()))
    return ExportedFile(folder, "hub folder", size / 1000, max(largest, alone), rms, latency)
