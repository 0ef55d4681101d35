"""Phi-score: the gradient norm of a random network without normalisation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zeroshot_nas.core.lazy import LazyModule, no_grad
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.batch_norm import without_batch_norm
from zeroshot_nas.scoring.feature_map import feature_map
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, checked_log, register_proxy

if TYPE_CHECKING:
    from torch import nn
else:
    nn = LazyModule("torch.nn")


@register_proxy(
    ProxyInfo(
        "phi",
        source="arXiv:2102.01063",
        init="gaussian",
        batch_size=2,
        keeps_residual_links=False,
        grows_with_depth=True,
    )
)
@no_grad()
def phi(network: nn.Module, batch: Batch, /, *, alpha: float = 0.01) -> float:
    r"""Phi-score (Lin et al., "Zen-NAS", ICCV 2021, arXiv:2102.01063); higher is better.

    .. math:: \log E \|\nabla_x f(x)\|_F \approx \log E \|f(x + \alpha \epsilon) - f(x)\|_F - \log \alpha

    f is the feature map before pooling. It is Zen-score's ancestor: the score of a network without batch norm (any that
    the module has are passed by). Magnitudes grow with depth, so it is computed in double precision.

    Args:
        network: Any module.
        batch: ``inputs`` (N, C, H, W) and ``perturbation`` of the same shape.
        alpha: Size of the perturbation.

    Raises:
        ProxyError: The batch has no perturbation.
        UndefinedScoreError: The feature map does not move, or overflows.

    Example:
        >>> from zeroshot_nas import score
        >>> score(nn.Conv2d(3, 8, 3), "phi", input_size=(3, 8, 8)).ok
        True
    """
    if batch.perturbation is None:
        raise ProxyError("phi needs Batch(inputs, perturbation=noise of the same shape)")
    dtype = batch.inputs.dtype
    inputs, noise = batch.inputs.double(), batch.perturbation.double()
    network.double()
    try:
        with without_batch_norm():
            moved, features = feature_map(network, inputs + alpha * noise), feature_map(network, inputs)
    finally:
        network.to(dtype)
    return checked_log((moved - features).flatten(1).norm(dim=1).mean().item(), "the feature map's change") - math.log(
        alpha
    )
