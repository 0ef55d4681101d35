"""Saliency of the weights, from pruning: SNIP, GraSP, Fisher, and the plain norms of gradients and weights.

All but `l2_norm` read the gradient of the mean cross-entropy, so that together they cost one backward pass. Gradients
are those of the weights of convolutions and linear layers that ran; biases and batch norms count in none but
``grad_norm:variant=global``. Each layer is summed in the network's precision, the layers in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from zeroshot_nas.core.lazy import LazyModule, no_grad
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.autograd_graph import nodes_behind
from zeroshot_nas.scoring.passes import check_differentiable
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, register_proxy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

FisherVariant: TypeAlias = Literal["paper", "zerocost"]
GradNormVariant: TypeAlias = Literal["layers", "global"]


@register_proxy(
    ProxyInfo(
        "snip",
        never_negative=True,
        reads=("weight_gradients",),
        source="arXiv:1810.02340",
        needs_gradients=True,
        needs_labels=True,
        real_data=True,
        cost="backward",
    )
)
def snip(network: nn.Module, batch: Batch, /) -> float:
    r"""SNIP (Lee et al., ICLR 2019, arXiv:1810.02340), summed over the network; higher is better.

    .. math:: \sum_\theta |\theta \, \partial L / \partial \theta|

    How much the loss changes, to first order, as each weight is taken away. L is the mean cross-entropy of the batch.
    SNIP divides each weight's saliency by this sum to rank weights within one network; arXiv:2101.08134 compares
    networks by the sum itself.

    Args:
        network: A module that returns logits.
        batch: ``inputs`` (N, C, H, W) and ``targets`` (N,).

    Raises:
        ProxyError: There are no labels, no logits, or no convolution or linear layer.
        UndefinedScoreError: A gradient is not finite.

    Departure from the authors' code: no copy of the network with masks on its weights; the gradient for a mask of ones
    is the weight times its own gradient.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
        >>> with torch.no_grad():
        ...     _ = net[1].weight.zero_()
        >>> score(net, "snip", batch=Batch(torch.ones(1, 3, 2, 2), torch.zeros(1).long()), init="keep").value
        0.0
    """
    run = batch.passes(network)
    pairs = list(zip(run.weights, run.weight_gradients, strict=True))
    with torch.no_grad():
        return _total([(weight * gradient).abs_().sum() for weight, gradient in pairs], "snip")


@register_proxy(
    ProxyInfo(
        "plain",
        reads=("weight_gradients",),
        source="arXiv:2101.08134",
        needs_gradients=True,
        needs_labels=True,
        real_data=True,
        cost="backward",
    )
)
def plain(network: nn.Module, batch: Batch, /) -> float:
    r"""Weights times gradients, signs kept (Abdelfattah et al., ICLR 2021, arXiv:2101.08134); higher is better by name.

    .. math:: \sum_\theta \theta \, \partial L / \partial \theta

    As a ranking it is noise: the sign carries no promise, and terms cancel, most of all before batch norm, where a
    filter and its gradient are orthogonal. It is here to be compared with.

    Args:
        network: A module that returns logits.
        batch: ``inputs`` (N, C, H, W) and ``targets`` (N,).

    Raises:
        ProxyError: There are no labels, no logits, or no convolution or linear layer.
        UndefinedScoreError: A gradient is not finite.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> score(net, "plain", input_size=(3, 8, 8)).ok
        True
    """
    run = batch.passes(network)
    pairs = list(zip(run.weights, run.weight_gradients, strict=True))
    with torch.no_grad():
        return _total([(weight * gradient).sum() for weight, gradient in pairs], "plain")


@register_proxy(
    ProxyInfo(
        "grad_norm",
        never_negative=True,
        reads=("weight_gradients", "parameter_gradients"),
        source="arXiv:2101.08134",
        needs_gradients=True,
        needs_labels=True,
        real_data=True,
        cost="backward",
    )
)
def grad_norm(network: nn.Module, batch: Batch, /, *, variant: GradNormVariant = "layers") -> float:
    r"""Size of the loss's gradient (Abdelfattah et al., ICLR 2021, arXiv:2101.08134); higher is better.

    .. math:: \sum_l \| \partial L / \partial W_l \|_2

    Two quantities go by this name in the field, and they are far apart.

    Args:
        network: A module that returns logits.
        batch: ``inputs`` (N, C, H, W) and ``targets`` (N,).
        variant: ``"layers"``: the sum over convolutions and linear layers of each weight's norm. ``"global"``: one norm
            over all parameters, biases and batch norms too, as the code of Zen-NAS (arXiv:2102.01063) has it.

    Raises:
        ProxyError: There are no labels, no logits, or no convolution or linear layer.
        UndefinedScoreError: A gradient is not finite.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> score(net, "grad_norm", input_size=(3, 8, 8)).value > 0
        True
    """
    run = batch.passes(network)
    gradients = run.weight_gradients if variant == "layers" else run.parameter_gradients
    with torch.no_grad():
        norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
        if variant == "layers":
            return _total(norms, "grad_norm")
        return math.sqrt(_total([norm.double().square() for norm in norms], "grad_norm"))


@register_proxy(
    ProxyInfo(
        "fisher",
        never_negative=True,
        reads=("layers",),
        source="arXiv:1906.04113",
        needs_gradients=True,
        needs_labels=True,
        real_data=True,
        cost="backward",
    )
)
def fisher(network: nn.Module, batch: Batch, /, *, variant: FisherVariant = "paper") -> float:
    r"""Fisher potential (Turner et al., "BlockSwap", ICLR 2020, arXiv:1906.04113); higher is better.

    .. math:: \sum_l \sum_c \frac{1}{2N} \sum_n \Big( \sum_{ij} a_{ncij} \, \partial L / \partial a_{ncij} \Big)^2

    How much the loss changes, to second order, as each channel is taken away. The channels a are the outputs of
    convolutions and linear layers, before batch norm, and L is the mean loss of the batch, both as arXiv:2101.08134
    has them; a layer that runs twice counts twice.

    Args:
        network: A module that returns logits.
        batch: ``inputs`` (N, C, H, W) and ``targets`` (N,).
        variant: ``"paper"``: each channel once. ``"zerocost"``: each channel times the size of its filter, the value of
            the code of arXiv:2101.08134, which spreads a channel over its weights before it sums.

    Raises:
        ProxyError: There are no labels, no logits, no convolution or linear layer, or the module changes one's output
            in place.
        UndefinedScoreError: A gradient is not finite.

    Departure from the authors' code: channels are read from the layers themselves, where BlockSwap reads them after the
    activation of its own blocks, which other modules need not have.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> score(net, "fisher", input_size=(3, 8, 8)).value > 0
        True
    """
    run = batch.passes(network)
    calls = list(zip(run.forward.layers, run.output_gradients, strict=True))
    terms = []
    with torch.no_grad():
        for (weight, output), gradient in calls:
            effect = output * gradient
            if output.dim() == 4 and weight.dim() == 4:  # sums rows that lie side by side where channels come last
                effect = effect.permute(0, 2, 3, 1).flatten(1, 2).sum(1)
            elif positions := tuple(range(1, output.dim() - 1) if weight.dim() == 2 else range(2, output.dim())):
                effect = effect.sum(positions)
            size = weight[0].numel() if variant == "zerocost" else 1
            terms.append(effect.square_().sum() * (0.5 * size / len(effect)))
    return _total(terms, "fisher")


@register_proxy(
    ProxyInfo(
        "grasp",
        reads=(),
        source="arXiv:2002.07376",
        needs_gradients=True,
        needs_labels=True,
        real_data=True,
        cost="many",
    )
)
def grasp(network: nn.Module, batch: Batch, /) -> float:
    r"""GraSP (Wang et al., ICLR 2020, arXiv:2002.07376), summed over the network; higher is better by convention.

    .. math:: -\theta^\top H g, \quad g = \partial L / \partial \theta, \quad H = \partial^2 L / \partial \theta^2

    Half the change of the squared gradient norm, to first order, as all weights shrink together. As a ranking it is
    noise: GraSP compares weights of one network, where a low value marks a weight to keep; the sum over a network and
    its direction are a convention of arXiv:2101.08134, and codes disagree on the sign. It is here to be compared with.

    Args:
        network: A module that returns logits and can be differentiated twice.
        batch: ``inputs`` (N, C, H, W) and ``targets`` (N,).

    Raises:
        ProxyError: There are no labels, no logits, or no convolution or linear layer.
        UndefinedScoreError: A derivative is not finite.

    Departure from the authors' code: one batch and temperature 1. The first gradient is taken once, with the graph that
    the second needs, in place of once without and once with it.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> score(net, "grasp", input_size=(3, 8, 8)).ok
        True
    """
    run = batch.passes(network).differentiable_twice
    loss, weights = run.loss, run.weights
    if not weights:
        return _total([], "grasp")
    check_differentiable(network, loss)
    found = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    gradients = [each for each in found if each is not None and each.requires_grad]
    if any(node.name() == "torch::autograd::Error" for node in nodes_behind(gradients)):  # which autograd passes by
        raise ProxyError(
            "grasp differentiates twice, and the module calls a function marked @once_differentiable, which has no "
            "second derivative: call another function there, or use another proxy"
        )
    constants = [each.detach() for each in gradients]
    # the graph of the shared forward pass stays for other proxies
    products = torch.autograd.grad(gradients, weights, constants, retain_graph=True, allow_unused=True)
    with torch.no_grad():
        terms = [
            (weight * product).sum() for weight, product in zip(weights, products, strict=True) if product is not None
        ]
    return -_total(terms, "grasp")


@register_proxy(
    ProxyInfo(
        "l2_norm", never_negative=True, reads=(), source="arXiv:2101.08134", cost="weights", grows_with_depth=True
    )
)
@no_grad()
def l2_norm(network: nn.Module, batch: Batch, /) -> float:  # noqa: ARG001  a proxy takes both
    r"""Size of the weights (Abdelfattah et al., ICLR 2021, arXiv:2101.08134); higher is better.

    .. math:: \sum_l \| W_l \|_2

    Nothing runs: it measures the number of weights and how they are drawn, and is here as a baseline.

    Args:
        network: A module with `nn.Conv1d` to `nn.Conv3d` or `nn.Linear` layers; weights of functional calls are not
            seen.
        batch: Not read.

    Raises:
        ProxyError: The module has no such layer.
        UndefinedScoreError: A weight is not finite.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Linear(2, 1)
        >>> with torch.no_grad():
        ...     _ = net.weight.copy_(torch.tensor([[3.0, 4.0]]))
        >>> score(net, "l2_norm", input_size=(2,), init="keep").value
        5.0
    """
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    weights = [part.weight for part in network.modules() if isinstance(part, layers)]  # some made as they are read
    distinct = {id(weight): weight for weight in weights}.values()
    return _total(torch._foreach_norm(list(distinct)) if distinct else (), "l2_norm")


def _total(terms: Sequence[Tensor], proxy: str) -> float:
    """The layers' sum, in double precision."""
    if not terms:
        raise ProxyError(f"{proxy} sums over convolutions and linear layers, and the module has none")
    total = torch.stack(list(terms)).double().sum().item()
    if not math.isfinite(total):
        raise UndefinedScoreError(f"{proxy} is not finite ({total})")
    return total
