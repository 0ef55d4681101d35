"""Exported files are checked, timed and described with these."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from zeroshot_nas.core.seeding import one_torch_thread, torch_generator
from zeroshot_nas.errors import ExportError
from zeroshot_nas.latency.base import median_ms
from zeroshot_nas.training.checkpoint import Trained, TrainedModule, input_size_of
from zeroshot_nas.training.images import FITTING

if TYPE_CHECKING:
    import onnxruntime

MAX_DIFFERENCE = 1e-4
"""Largest difference of logits between a network and its float export, over the largest logit where that is above 1."""

DESCRIBED = frozenset({"class_names", "normalization_is_in_the_model"})
"""Of the metadata what tells a file of ours from another's."""

_CHECKED = 16


def metadata(network: Trained) -> dict[str, str]:
    """What a user of the file needs to know, as texts."""
    about = {
        "input": f"float32 (N, {', '.join(map(str, input_size_of(network)))}), values in [0, 1]",
        "resize": f"an image file of another size is {FITTING}",
        "normalization": json.dumps({"mean": network.mean.flatten().tolist(), "std": network.std.flatten().tolist()}),
        "normalization_is_in_the_model": "true",
        "class_names": json.dumps(list(network.class_names)),
    }
    return about if isinstance(network, TrainedModule) else {**about, "architecture": network.architecture.to_json()}


def check_images(network: Trained, images: Tensor | None) -> Tensor:
    """Images to compare with: some of those given, or noise."""
    if images is not None:
        return images[:_CHECKED]
    return torch.rand(_CHECKED, *input_size_of(network), generator=torch_generator(0))


@torch.no_grad()
def compare(network: Trained, images: Tensor, logits: Tensor) -> tuple[float, float]:
    """Largest difference from the network's logits, and the root mean square of it, both as `ExportedFile` says."""
    own = network(images)
    difference = (own - logits).abs()
    largest = difference.max() / own.abs().max().clamp(min=1)
    return largest.item(), (difference.square().mean().sqrt() / own.square().mean().sqrt()).item()


def require_equal(what: str, largest: float) -> None:
    """Refuses an export that does not compute what the network does.

    Raises:
        ExportError: The difference is above `MAX_DIFFERENCE`, or not a number.
    """
    if not largest <= MAX_DIFFERENCE:
        raise ExportError(f"{what} differs from the network by {largest:.2g}; expected at most {MAX_DIFFERENCE:g}")


def run(model: onnxruntime.InferenceSession, images: Tensor, batch_size: int = 256) -> Tensor:
    """Logits of a session."""
    name = model.get_inputs()[0].name
    outputs = [model.run(None, {name: batch.numpy()})[0] for batch in torch.split(images, batch_size)]
    return torch.from_numpy(np.concatenate(outputs))


def latency_ms(model: onnxruntime.InferenceSession, image: Tensor) -> float:
    """Median milliseconds for one image."""
    feed = {model.get_inputs()[0].name: image[None].numpy()}
    return median_ms(lambda: model.run(None, feed))


def network_latency_ms(network: Trained, image: Tensor) -> float:
    """Median milliseconds of the network itself for one image, in torch on one thread."""
    batch = image[None]
    with torch.inference_mode(), one_torch_thread():
        return median_ms(lambda: network(batch))


def network_size_kb(network: Trained) -> float:
    """Size of the network's weights and buffers in 1,000 bytes."""
    tensors: list[Tensor] = list(network.state_dict().values())
    return sum(each.numel() * each.element_size() for each in tensors) / 1000
