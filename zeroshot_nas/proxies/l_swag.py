"""L-SWAG: how little gradients vary, times how many patterns the activations show, in chosen layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, checked_log, register_proxy
from zeroshot_nas.scoring.relu_patterns import count_patterns, relu_units, unit_codes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

_Layer = TypeVar("_Layer")


@register_proxy(
    ProxyInfo(
        "l_swag",
        reads=("relus", "weight_gradients"),
        source="arXiv:2505.07300",
        needs_gradients=True,
        needs_labels=True,
        real_data=True,
        batches=2,
        cost="backward",
        grows_with_depth=True,
    )
)
def l_swag(network: nn.Module, batch: Batch, /, *, first_layer: float = 0, last_layer: float = 100) -> float:
    r"""L-SWAG (Casarin, Escalera and Lanz, CVPR 2025, arXiv:2505.07300); higher is better.

    .. math:: \Lambda \cdot \Psi, \qquad
        \Lambda = \sum_l \log \sum_{\theta \in W_l} \frac{1}{\sqrt{\mathrm{Var} |g_\theta|}}, \qquad
        \Psi = |\{ p_v \}|

    Lambda is ZiCo with 1 in place of the gradient's mean: g is the gradient of a batch's mean cross-entropy for a
    weight of a convolution or linear layer, and the variance (divided by n) runs over the batches, ``batch`` and all of
    ``batch.further``. Psi is SWAP-Score: how many different patterns p_v, on or off for each image of ``batch``, the
    units of the activations show, those that `naswot` reads. Both are taken over the layers between two percentiles of
    depth. The paper finds these for each search space, where gradients of a thousand random networks peak; the default
    is all layers.

    Like ZiCo, of two batches a layer's sum is mostly its few largest terms, where two gradients nearly meet. Unlike
    ZiCo it depends on the gradients' scale: where Lambda is below 0, more patterns count against the network.

    Args:
        network: A module with ReLUs or their like that returns logits.
        batch: ``inputs`` (N, C, H, W), ``targets`` (N,) and, in ``further``, one or more batches with both.
        first_layer: Where the chosen layers begin, in per cent of the depth. Layer i of n stands at 100 (i - 1/2) / n,
            counted in order of execution, convolutions and linear layers by themselves and activations by themselves.
        last_layer: Where they end.

    Raises:
        ProxyError: The percentiles are not in order or leave no layer or no activation, there is one batch only, a
            batch has no labels, or the module returns no logits, has no activation or no layer, or runs other layers
            for other batches.
        UndefinedScoreError: There is one image; no gradient differs between the batches, or one is not finite.

    The authors publish no code; this follows the paper's formulas, as summaries of it give them. Open there, and set
    here: what the variance runs over (batches, as in ZiCo's code), weights that do not vary (left out, as in ZiCo's
    code; a layer of such weights only adds 0), and whether patterns count once for all chosen layers (they do, as in
    SWAP-NAS).

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> score(net, "l_swag", input_size=(3, 8, 8)).ok
        True
    """
    if not 0 <= first_layer < last_layer <= 100:
        raise ProxyError(
            f"l_swag's first_layer and last_layer are percentiles, 0 to 100 and in order, got {first_layer:g} and "
            f"{last_layer:g}"
        )
    if not batch.further:
        raise ProxyError("l_swag compares batches: Batch(inputs, targets, further=(Batch(inputs, targets),))")
    if len(batch.inputs) < 2:
        raise UndefinedScoreError("the patterns of one image all but agree; score on more inputs")
    runs = [each.passes(network) for each in (batch, *batch.further)]
    weights = runs[0].weights
    if not weights or not all(run.same_layers(runs[0]) for run in runs):
        raise ProxyError(
            "l_swag sums over convolutions and linear layers, the same ones in the same order in every batch"
        )
    relus = _between(runs[0].forward.relus, first_layer, last_layer)
    by_layer = _between(list(zip(*(run.weight_gradients for run in runs), strict=True)), first_layer, last_layer)
    if not by_layer or not relus:
        where = f"from {first_layer:g} to {last_layer:g} per cent of its depth"
        raise ProxyError(f"l_swag needs a layer and an activation, and the module has none {where}")
    with torch.no_grad():
        sums = torch.stack([_inverse_deviations(gradients) for gradients in by_layer]).tolist()
        if not any(sums):
            raise UndefinedScoreError("no gradient differs between the batches: they are equal, or the network is dead")
        trainability = sum(checked_log(value, "a layer's sum of 1 / deviation") for value in sums if value)
        units = relu_units(relus, len(batch.inputs))
        return trainability * count_patterns(torch.cat([unit_codes(each) for each in units], dim=1))


def _between(layers: Sequence[_Layer], first: float, last: float) -> list[_Layer]:
    """Those that stand between two percentiles of depth."""
    return [layer for index, layer in enumerate(layers) if first <= 100 * (index + 0.5) / len(layers) <= last]


def _inverse_deviations(gradients: Sequence[Tensor]) -> Tensor:
    """Sum over one layer's weights, given its gradient in every batch; weights that do not deviate count nothing."""
    sizes = [gradient.abs() for gradient in gradients]
    pair = len(sizes) == 2  # of which the deviation needs no squares: those of small gradients would underflow
    deviation = (sizes[0] - sizes[1]).abs_() / 2 if pair else torch.stack(sizes).std(0, correction=0)
    return torch.where(deviation == 0, 0, 1 / deviation).sum()
