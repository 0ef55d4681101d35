"""GradSign: on how many weights the gradients of single images agree in sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.passes import Passes
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, register_proxy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")


@register_proxy(
    ProxyInfo(
        "gradsign",
        never_negative=True,
        reads=("weight_gradients",),
        source="arXiv:2110.08616",
        needs_gradients=True,
        needs_labels=True,
        real_data=True,
        cost="many",
    )
)
def gradsign(network: nn.Module, batch: Batch, /) -> float:
    r"""GradSign (Zhang and Jia, ICLR 2022, arXiv:2110.08616); higher is better.

    .. math:: \sum_\theta \Big| \sum_n \mathrm{sign} \, \frac{\partial L_n}{\partial \theta} \Big|

    L_n is the cross-entropy of image n, which goes through the network alone, so that a batch norm takes the statistics
    of that image. The sum runs over the weights of convolutions and linear layers; a gradient of exactly zero has sign
    0. The score is a whole number, for the most part that of the weights. In float32 signs of gradients near zero are
    rounding, a few in 1e5 on common networks.

    It costs a forward and a backward pass an image. Running the images together with statistics and gradients by image
    was measured: twice as fast on tiny networks, half as slow again on depthwise ones.

    Args:
        network: A module that returns logits.
        batch: ``inputs`` (N, C, H, W) and ``targets`` (N,).

    Raises:
        ProxyError: There are no labels, no logits, or no convolution or linear layer.
        UndefinedScoreError: A batch norm sees one value per channel of an image, or a gradient is not finite.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> images, labels = torch.ones(3, 3, 2, 2), torch.tensor([0, 0, 1])  # two against one, on 24 weights
        >>> score(net, "gradsign", batch=Batch(images, labels)).value
        24.0
    """
    if batch.targets is None:
        raise ProxyError("gradsign needs labels: Batch(inputs, targets)")
    agreement: list[Tensor] = []
    weights: list[Tensor] = []
    sums: list[Tensor] = []
    try:
        for image, target in zip(torch.split(batch.inputs, 1), torch.split(batch.targets, 1), strict=True):
            if weights and all(weight.is_leaf for weight in weights):
                loss = nn.functional.cross_entropy(network(image), target)
                found = list(torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True))
            else:  # recorded: which weights there are, or what a module makes of its parameters this time
                run = Passes(network, image, target, differentiable=True, reads=frozenset())
                weights = run.weights
                if not weights:
                    raise ProxyError("gradsign sums over convolutions and linear layers, and the module has none")
                found = run.backward(run.loss, weights)
            sums += [gradient.sum() for gradient in found]
            signs = [gradient.sign() for gradient in found]
            agreement = [total.add_(sign) for total, sign in zip(agreement, signs, strict=True)] if agreement else signs
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UndefinedScoreError(
            "a batch norm sees one value per channel of an image (a gate, a small map)"
        ) from error
    if not torch.stack(sums).isfinite().all():  # a NaN has sign 0
        raise UndefinedScoreError("a gradient is not finite")
    return torch.stack([each.abs_().sum(dtype=torch.float64) for each in agreement]).sum().item()
