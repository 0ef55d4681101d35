"""Zen-score: how far a small change of the image moves the feature map of a random network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.closed_form.zen import ZEN, Variant, zen_closed_form
from zeroshot_nas.core.lazy import no_grad
from zeroshot_nas.errors import ProxyError, ZeroShotNASError
from zeroshot_nas.scoring.batch_norm import BatchNormVariances
from zeroshot_nas.scoring.feature_map import feature_map
from zeroshot_nas.scoring.perturbed_pass import perturbed_pass
from zeroshot_nas.scoring.proxy import PROXIES, Batch, ProxyInfo, checked_log, register_proxy

if TYPE_CHECKING:
    from torch import Tensor, nn


def zen_of_architecture(
    architecture: Architecture, batch: Batch, weights: Tensor, /, *, variant: Variant = "paper", alpha: float = 0.01
) -> float:
    """`zen` of an architecture with the given weights, by `perturbed_pass`: the same number, several times as fast.

    Args:
        architecture: What to score, without residual links.
        batch: ``inputs`` (N, C, H, W) and ``perturbation`` of the same shape.
        weights: Numbers from N(0, 1), at least `count_weights`.
        variant: As in `zen`.
        alpha: As in `zen`.
    """
    if batch.perturbation is None:
        raise ProxyError("zen needs Batch(inputs, perturbation=noise of the same shape)")
    both = perturbed_pass(architecture, batch.inputs, batch.inputs + alpha * batch.perturbation, weights)
    variances = both.variances
    if variant == "zennas":
        unbiased = [count / (count - 1) for count in both.counts]
        variances = [(v * factor, moved * factor) for (v, moved), factor in zip(variances, unbiased, strict=True)]
    return _assemble(both.features[0] - both.features[1], variances, variant)


def zen_pool_closed_form(
    architectures: Sequence[Architecture], /, *, variant: Variant = "paper", alpha: float = 0.01
) -> Sequence[float | ZeroShotNASError]:
    """`zeroshot_nas.closed_form.zen_pool`, which is imported, and numpy with it, when there is one to compute."""
    from zeroshot_nas.closed_form.zen_pool import zen_closed_form_pool

    return zen_closed_form_pool(architectures, variant=variant, alpha=alpha)


PROXIES.add(
    "zen_closed_form",
    ProxyInfo(
        "zen_closed_form",
        closed_form=zen_closed_form,
        closed_form_pool=zen_pool_closed_form,
        block_sum=ZEN,
        source="arXiv:2102.01063",
        cost="graph",
        grows_with_depth=True,
    ),
)


@register_proxy(
    ProxyInfo(
        "zen",
        source="arXiv:2102.01063",
        init="gaussian",
        batch_size=2,
        reads=(),
        keeps_residual_links=False,
        needs_batch_norm=True,
        grows_with_depth=True,
        closed_form=zen_closed_form,
        closed_form_pool=zen_pool_closed_form,
        block_sum=ZEN,
        of_architecture=zen_of_architecture,
    )
)
@no_grad()
def zen(network: nn.Module, batch: Batch, /, *, variant: Variant = "paper", alpha: float = 0.01) -> float:
    r"""Zen-score (Lin et al., "Zen-NAS", ICCV 2021, arXiv:2102.01063); higher is better.

    .. math:: \log E \|f(x) - f(x + \alpha \epsilon)\| + \sum_l \tfrac12 \log \bar\sigma^2_l

    f is the feature map before pooling, x and epsilon are Gaussian, and the sum over batch norms adds back the scale
    that each takes away: the variance of its input over batch and positions, averaged over channels, in the pass of x.
    For architectures of ours residual links are removed, as the paper does; a foreign module keeps its own. A batch
    norm whose input is constant adds nothing but in ``"zennas"``: no image reaches its branch, as behind a node of
    zeros in a cell, and none of f depends on it.

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
        ProxyError: The batch has no perturbation.
        UndefinedScoreError: The feature map does not move, every batch norm sees a constant, or numbers are not finite.

    Departure from the authors' code: the variance is read where it occurs, not from a running buffer that drifts with
    every repeat (their repeat 1 is ``"zennas"``).

    Example:
        >>> from zeroshot_nas import Architecture, score
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)", input_size=(3, 8, 8))
        >>> score(net, "zen", seed=0).ok
        True
    """
    if batch.perturbation is None:
        raise ProxyError("zen needs Batch(inputs, perturbation=noise of the same shape)")
    near = batch.inputs + alpha * batch.perturbation  # before a pass, which may write into its images
    with BatchNormVariances(network, unbiased=variant == "zennas") as clean:
        features = feature_map(network, batch.inputs)
    with BatchNormVariances(network, unbiased=variant == "zennas") as perturbed:
        moved = feature_map(network, near)
    variances = list(zip(clean.means, perturbed.means, strict=True))
    if variant != "zennas":
        variances = [each for each in variances if each[0] != 0] or variances
    return _assemble(features - moved, variances, variant)


def _assemble(difference: Tensor, variances: list[tuple[float, float]], variant: Variant) -> float:
    """The score from the feature maps' difference and the variances of both passes."""
    difference = difference.flatten(1).double()
    distance = difference.norm(dim=1) if variant == "paper" else difference.abs().sum(dim=1)
    used = (
        [0.81 + 0.09 * v + 0.1 * moved for v, moved in variances] if variant == "zennas" else [v for v, _ in variances]
    )
    return checked_log(distance.mean().item(), "the feature map's change") + sum(
        0.5 * checked_log(variance, f"the input variance of batch norm {index}") for index, variance in enumerate(used)
    )
