"""TE-NAS's trainability: the condition number of the neural tangent kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from zeroshot_nas.core.lazy import LazyModule, no_grad
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.batch_norm import running_statistics
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, register_proxy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

Statistics: TypeAlias = Literal["train", "eval"]


@register_proxy(
    ProxyInfo(
        "ntk_cond",
        reads=(),
        source="arXiv:2102.11535",
        direction="lower",
        needs_gradients=True,
        real_data=True,
        cost="many",
    )
)
def ntk_cond(network: nn.Module, batch: Batch, /, *, batch_norm: Statistics = "train") -> float:
    r"""Condition number of the neural tangent kernel (Chen et al., "TE-NAS", ICLR 2021, arXiv:2102.11535).

    .. math:: \lambda_{\max}(\Theta) / \lambda_{\min}(\Theta), \qquad \Theta_{ij} = g_i \cdot g_j

    with g_i the gradient of the sum of image i's logits for the weights. **Lower is better.** Weights are the
    parameters with "weight" in their name that train: those of convolutions, linear layers and norms, not their biases.
    It needs no labels; the paper takes real images.

    Args:
        network: A module that returns logits.
        batch: ``inputs`` (N, ...) of two images or more.
        batch_norm: ``"train"``: batch norms use the statistics of the whole batch, as in the authors' search, so an
            image's gradient reaches the weights by way of the other images too. ``"eval"``: they use their running
            statistics, and each image is run by itself.

    Raises:
        ProxyError: The module returns no logits or has no such weights.
        UndefinedScoreError: There is one image, a gradient is not finite, or the smallest eigenvalue is not above
            rounding (equal images, a dead network).

    Cost: a backward pass through the batch for every image with ``"train"``, a forward and a backward pass of one image
    for every image with ``"eval"``, several times as fast. Memory: as many gradients as images. Relative to the value,
    the error of float32 grows in proportion to it.

    Departures from the authors' code: a symmetric solver in double precision; a kernel that is singular is an error
    with its reason, not 100000 or a value made of rounding.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> score(net, "ntk_cond", input_size=(3, 8, 8), batch_size=4).value > 1
        True
    """
    images = len(batch.inputs)
    if images < 2:
        raise UndefinedScoreError("ntk_cond compares images; score on two or more")
    weights = [each for name, each in network.named_parameters() if "weight" in name and each.requires_grad]
    if not weights:
        raise ProxyError(
            f"ntk_cond needs parameters to train that are called weight; {type(network).__name__} has none"
        )
    gradients = _together(network, batch, weights) if batch_norm == "train" else _one_by_one(network, batch, weights)
    kernel = _kernel(gradients)
    if not torch.isfinite(kernel).all():
        raise UndefinedScoreError("the logits' gradient for the weights is not finite")
    eigenvalues = torch.linalg.eigvalsh(kernel)
    smallest, largest = eigenvalues[0].item(), eigenvalues[-1].item()
    if smallest <= images * torch.finfo(weights[0].dtype).eps * largest:
        if largest <= 0:
            raise UndefinedScoreError("the logits' gradient for the weights is 0: the network is dead")
        raise UndefinedScoreError(
            f"the kernel's smallest eigenvalue is not above rounding in {weights[0].dtype}: images are equal to the "
            "network, or too alike for this precision"
        )
    return float(largest / smallest)


def _together(network: nn.Module, batch: Batch, weights: Sequence[Tensor]) -> list[list[Tensor]]:
    """Each image's gradients, through the whole batch."""
    run = batch.passes(network)
    return [run.backward(each, weights) for each in run.logits.sum(1).unbind()]


def _one_by_one(network: nn.Module, batch: Batch, weights: Sequence[Tensor]) -> list[list[Tensor]]:
    """Each image's gradients, alone."""
    gradients = []
    with running_statistics(network), torch.enable_grad():
        for image in torch.split(batch.inputs, 1):
            logits = network(image.detach())  # nothing of it is shared, so it is not recorded
            if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
                got = f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
                raise ProxyError(f"expected logits (N, num_classes) from {type(network).__name__}, got {got}")
            found = torch.autograd.grad(logits.sum(), weights, allow_unused=True, materialize_grads=True)
            gradients.append(list(found))
    return gradients


@no_grad()
def _kernel(gradients: Sequence[Sequence[Tensor]]) -> Tensor:
    """Products of all pairs of images, summed over weights in float64."""
    kernel = torch.zeros(len(gradients), len(gradients), dtype=torch.float64, device=gradients[0][0].device)
    for of_weight in zip(*gradients, strict=True):
        if of_weight[0].dim() == 4 and of_weight[0].is_contiguous(memory_format=torch.channels_last):
            of_weight = tuple(each.permute(0, 2, 3, 1) for each in of_weight)  # as they lie in memory
        rows = torch.stack([each.flatten() for each in of_weight])
        kernel += rows @ rows.T
    return kernel
