"""Zen-score: how far a small change of the image moves the feature map of a random network."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import nn

from zeroshot_nas.errors import ProxyError
from zeroshot_nas.probes import BatchNormVariances, feature_map
from zeroshot_nas.proxies.base import Batch, checked_log, register_proxy

Variant: TypeAlias = Literal["paper", "l1", "zennas"]


@register_proxy(
    "zen",
    source="arXiv:2102.01063",
    init="gaussian",
    keeps_residual_links=False,
    needs_batch_norm=True,
)
@torch.no_grad()
def zen(network: nn.Module, batch: Batch, /, *, variant: Variant = "paper", alpha: float = 0.01) -> float:
    r"""Zen-score (Lin et al., "Zen-NAS", ICCV 2021, arXiv:2102.01063); higher is better.

    .. math:: \log E \|f(x) - f(x + \alpha \epsilon)\| + \sum_l \tfrac12 \log \bar\sigma^2_l

    f is the feature map before pooling, x and epsilon are Gaussian, and the sum over batch norms adds back the scale
    that each takes away: the variance of its input over batch and positions, averaged over channels, in the pass of x.
    For architectures of ours residual links are removed, as the paper does; a foreign module keeps its own.

    Args:
        network: A module whose batch norms use batch statistics.
        batch: ``inputs`` (N, C, H, W) and ``perturbation`` of the same shape.
        variant: ``"paper"``: mean over images of the Frobenius norm, the batch's own variance. ``"l1"``: the sum of
            absolute differences in place of the norm. ``"zennas"``: what the authors' code computes: the L1 sum, and in
            place of the variance the running variance of a fresh batch norm after the passes of x and of the perturbed
            x, 0.81 + 0.09 v_1 + 0.1 v_2 with unbiased variances.
        alpha: Size of the perturbation. The score is not divided by it (nor is the authors').

    Returns:
        The score of this draw of weights and images.

    Raises:
        ProxyError: The batch has no perturbation, or the variant is unknown.
        UndefinedScoreError: The feature map does not move, a batch norm sees a constant, or numbers are not finite.

    Departure from the authors' code: the variance is read where it occurs, not from a running buffer that drifts with
    every repeat (their repeat 1 is ``"zennas"``).

    Example:
        >>> from zeroshot_nas import Architecture, score
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)", input_size=(3, 8, 8))
        >>> score(net, "zen", seed=0).ok
        True
    """
    if variant not in ("paper", "l1", "zennas"):
        raise ProxyError(f"zen has the variants 'paper', 'l1' and 'zennas', got {variant!r}")
    if batch.perturbation is None:
        raise ProxyError("zen needs Batch(inputs, perturbation=noise of the same shape)")
    reference = variant == "zennas"
    with BatchNormVariances(network, unbiased=reference) as clean:
        features = feature_map(network, batch.inputs)
    with BatchNormVariances(network, unbiased=reference) as perturbed:
        moved = feature_map(network, batch.inputs + alpha * batch.perturbation)
    difference = (features - moved).flatten(1).double()
    distance = difference.norm(dim=1) if variant == "paper" else difference.abs().sum(dim=1)
    variances = clean.means
    if reference:
        variances = [
            0.81 + 0.09 * first + 0.1 * second for first, second in zip(clean.means, perturbed.means, strict=True)
        ]
    return checked_log(distance.mean().item(), "the feature map's change") + sum(
        0.5 * checked_log(variance, f"the input variance of batch norm {index}")
        for index, variance in enumerate(variances)
    )
