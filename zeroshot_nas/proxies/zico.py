"""ZiCo: how large gradients are against how much they vary from batch to batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, checked_log, register_proxy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

Variant: TypeAlias = Literal["paper", "authors"]


@register_proxy(
    ProxyInfo(
        "zico",
        reads=("weight_gradients",),
        source="arXiv:2301.11300",
        needs_gradients=True,
        needs_labels=True,
        real_data=True,
        batches=2,
        cost="backward",
        grows_with_depth=True,
    )
)
def zico(network: nn.Module, batch: Batch, /, *, variant: Variant = "paper") -> float:
    r"""ZiCo (Li et al., ICLR 2023, arXiv:2301.11300); higher is better.

    .. math:: \sum_l \log \sum_{\theta \in W_l} \frac{E |g_\theta|}{\sqrt{\mathrm{Var} |g_\theta|}}

    g is the gradient of a batch's mean cross-entropy for a weight of a convolution or linear layer; mean and variance
    (divided by n) run over the batches: ``batch`` and all of ``batch.further``. The formula is undefined for a weight
    whose gradient is the same in every batch, most often zero: it is left out, as in the authors' code. So a dead layer
    adds 0. Of two batches that is the least a layer can add, since each live weight brings 1 or more to its sum.

    Of two batches the sum is mostly its few largest terms, where two gradients nearly meet: in float32 the score is
    good to about one per cent.

    Args:
        network: A module that returns logits.
        batch: ``inputs`` (N, C, H, W), ``targets`` (N,) and, in ``further``, one or more batches with both.
        variant: ``"paper"``: the formula. ``"authors"``: what their code computes, the variance of the signed gradient.

    Raises:
        ProxyError: There is one batch only, a batch has no labels, the module returns no logits, or it runs no
            convolution or linear layer, or other ones for other batches.
        UndefinedScoreError: No gradient differs between the batches, or one is not finite.

    Departure from the authors' code: each batch's gradient is its own; theirs is not cleared between batches, so that
    each holds the sum of those before.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> score(net, "zico", input_size=(3, 8, 8)).ok
        True
    """
    if not batch.further:
        raise ProxyError("zico compares batches: Batch(inputs, targets, further=(Batch(inputs, targets),))")
    runs = [each.passes(network) for each in (batch, *batch.further)]
    weights = runs[0].weights
    if not weights or not all(run.same_layers(runs[0]) for run in runs):
        raise ProxyError(
            "zico sums over convolutions and linear layers, the same ones in the same order in every batch"
        )
    gradients = [run.weight_gradients for run in runs]
    with torch.no_grad():
        sums = torch.stack([_mean_over_deviation(each, variant) for each in zip(*gradients, strict=True)]).tolist()
    if not any(sums):
        raise UndefinedScoreError("no gradient differs between the batches: they are equal, or the network is dead")
    return sum(checked_log(value, "a layer's sum of mean over deviation") for value in sums if value)


def _mean_over_deviation(gradients: Sequence[Tensor], variant: Variant) -> Tensor:
    """Sum over one layer's weights, given its gradient in every batch; weights that do not deviate count nothing."""
    sizes = [gradient.abs() for gradient in gradients]
    compared = sizes if variant == "paper" else gradients
    if len(compared) == 2:  # squares of small gradients would underflow; both halves cancel
        deviation, total = (compared[0] - compared[1]).abs_(), sizes[0] + sizes[1]
    else:
        deviation, total = torch.stack(list(compared)).std(0, correction=0), torch.stack(sizes).mean(0)
    return total.div_(deviation).masked_fill_(deviation == 0, 0).sum()
