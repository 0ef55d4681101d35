"""SynFlow: how much of a signal of ones flows through all paths of a network whose weights are made positive."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.batch_norm import batch_norms
from zeroshot_nas.scoring.passes import RecordedPass, check_differentiable
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, checked_log, register_proxy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

Variant: TypeAlias = Literal["paper", "bn", "zennas"]

_SCALES = (1e-100, 1e-200, 1e-280)
"""Scales of the input, and of the output's gradient, at which a flow outside of double precision is tried."""

_PROBE = 1e-6
"""A further factor on the input, to see whether the network's outputs follow it."""


@register_proxy(
    ProxyInfo(
        "synflow", reads=(), source="arXiv:2006.05467", needs_gradients=True, cost="backward", grows_with_depth=True
    )
)
def synflow(network: nn.Module, batch: Batch, /, *, variant: Variant = "paper") -> float:
    r"""SynFlow (Tanaka et al., NeurIPS 2020, arXiv:2006.05467), its logarithm; higher is better.

    .. math:: \log \sum_\theta \Big| \theta \, \frac{\partial R}{\partial \theta} \Big|, \quad
        R = \mathbf{1}^\top f_{|\theta|}(\mathbf{1})

    Every parameter and buffer is replaced by its absolute value, the input is one image of ones, and the sum runs over
    the weights of convolutions and linear layers. No data, no labels. The sum reaches 1e60 and more on common networks,
    so it is its natural logarithm that is reported, which ranks the same.

    It does not overflow with depth: where the network's precision does not hold the sum, it is computed in double
    precision, and where that does not hold it either, with input and biases scaled down, and the gradient too. A
    network of convolutions, ReLUs, sums and pools answers in proportion, so that the scale can be taken off the
    logarithm, and sums from 1e-550 to 1e550 are in reach.

    Args:
        network: Any module that returns a tensor; without a classifier, R is the sum of what it returns.
        batch: ``inputs`` (N, C, H, W); only their shape is read.
        variant: ``"paper"``: batch norms are passed by. ``"bn"``: they are kept, on the statistics of the one image, as
            ``synflow_bn`` of arXiv:2101.08134; in double precision, for many of these variances are nearly zero.
            ``"zennas"``: what the code of Zen-NAS (arXiv:2102.01063) computes: batch norms kept, each layer's sum
            divided by its output channels, no logarithm, and the result negated. By this variant the network with
            *less* flow is better, against the paper; it is here to be compared with.

    Raises:
        ProxyError: The module returns no tensor or runs no convolution or linear layer.
        UndefinedScoreError: Nothing flows; the sum is out of range and the module does not answer in proportion
            (sigmoid gates, clipped activations, norms); or a batch norm that is kept sees one value per channel.

    Departure from the authors' code: nothing is changed in place, and there is no overflow.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
        >>> with torch.no_grad():
        ...     _ = net[1].weight.fill_(-1 / 24)
        >>> score(net, "synflow", input_size=(3, 2, 2), init="keep").value == math.log(1.0)
        True
    """
    flow = _flow(network, batch, keep_batch_norm=variant != "paper")
    if variant != "zennas":
        return checked_log(sum(flow.sums), "the flow") - flow.log_scale
    per_channel = [flow_of_layer / len(weight) for flow_of_layer, weight in zip(flow.sums, flow.weights, strict=True)]
    log = checked_log(sum(per_channel), "the flow") - flow.log_scale
    if log > math.log(torch.finfo(torch.float64).max):
        raise UndefinedScoreError(f"the flow, e^{log:.1f}, overflows; use variant 'bn', its logarithm")
    return -math.exp(log)


@register_proxy(
    ProxyInfo(
        "logsynflow",
        never_negative=True,
        reads=(),
        source="arXiv:2207.05135",
        needs_gradients=True,
        cost="backward",
        grows_with_depth=True,
    )
)
def logsynflow(network: nn.Module, batch: Batch, /) -> float:
    r"""LogSynflow (Cavagnero et al., "FreeREA", WACV 2023, arXiv:2207.05135); higher is better.

    .. math:: \sum_\theta \Big| \theta \, \log \Big( 1 + \frac{\partial R}{\partial \theta} \Big) \Big|

    R as in `synflow`, batch norms passed by. The logarithm is of each gradient, and the sum is reported as it is. What
    is said of range there holds here.

    Args:
        network: Any module that returns a tensor.
        batch: ``inputs`` (N, C, H, W); only their shape is read.

    Raises:
        ProxyError: The module returns no tensor or runs no convolution or linear layer.
        UndefinedScoreError: Nothing flows, a gradient is -1 or less, or the gradients are out of range and the module
            does not answer in proportion.

    Departure from the authors' code: nothing is changed in place, and there is no overflow.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
        >>> with torch.no_grad():
        ...     _ = net[1].weight.fill_(-1 / 24)
        >>> score(net, "logsynflow", input_size=(3, 2, 2), init="keep").value  # log 2
        0.693147...
    """
    flow = _flow(network, batch, keep_batch_norm=False)
    with torch.no_grad():
        terms = []
        for weight, gradient in zip(flow.weights, flow.gradients, strict=True):
            if flow.log_scale == 0:
                logs = gradient.log1p()
            else:
                logs = torch.logaddexp(gradient.log() - flow.log_scale, gradient.new_zeros(()))
            terms.append((weight * logs).abs_().sum())
        total = torch.stack(terms).double().sum().item()
    if not math.isfinite(total):
        raise UndefinedScoreError("logsynflow has no logarithm of a gradient that is -1 or less")
    return total


class _Flow(NamedTuple):
    """The gradients of one image of ones.

    Attributes:
        weights: Absolute weights of the layers that ran.
        gradients: R's gradient for each, times e^log_scale.
        log_scale: How far input and output gradient were scaled.
        sums: Sum of |weight times gradient| for each.
        forward: The pass that they are of.
    """

    weights: list[Tensor]
    gradients: list[Tensor]
    log_scale: float
    sums: list[float]
    forward: RecordedPass

    @property
    def in_range(self) -> bool:
        """Whether the numbers are far enough from overflow, and from where small ones lose digits."""
        dtype = self.weights[0].dtype
        least = min(self.sums) if dtype != torch.float64 else sum(self.sums)
        return math.isfinite(sum(self.sums)) and least > 1e12 * torch.finfo(dtype).tiny


def _flow(network: nn.Module, batch: Batch, keep_batch_norm: bool) -> _Flow:
    """The flow at the first of the network's precision, double precision, and a scale, at which it is in range."""
    image = torch.ones_like(batch.inputs[:1])
    if image.dtype == torch.float32 and not keep_batch_norm:
        flow = _attempt(network, image, keep_batch_norm, 1.0)
        if flow.in_range:
            return flow
    image = image.double()
    flow = _attempt(network, image, keep_batch_norm, 1.0)
    if flow.in_range:
        return flow
    vanishes = sum(flow.sums) < 1
    for scale in _SCALES:
        scale = 1 / scale if vanishes else scale
        scaled = _attempt(network, image, keep_batch_norm, scale)
        if scaled.in_range:
            further = _run(network, image, keep_batch_norm, scale * _PROBE)
            if not (
                _proportional(flow.forward, scaled.forward, scale) and _proportional(scaled.forward, further, _PROBE)
            ):
                raise UndefinedScoreError(
                    f"the flow {'under' if vanishes else 'over'}flows, and the module's outputs are not proportional "
                    "to its input (sigmoid gates, clipped activations, norms), so that it can't be scaled"
                )
            return scaled
    if vanishes:
        raise UndefinedScoreError("the flow is zero, scaled or not: the network is dead")
    raise UndefinedScoreError("the flow overflows double precision, scaled or not")


def _attempt(network: nn.Module, image: Tensor, keep_batch_norm: bool, scale: float) -> _Flow:
    """The flow of an image times a scale, the gradient of the output being the same scale."""
    forward = _run(network, image, keep_batch_norm, scale)
    weights = list({id(layer.weight): layer.weight for layer in forward.layers}.values())
    if not weights:
        raise ProxyError("synflow sums over convolutions and linear layers, and the module has none")
    output = forward.output
    check_differentiable(network, output)
    found = torch.autograd.grad(output, weights, torch.full_like(output, scale), allow_unused=True)
    gradients = [
        torch.zeros_like(weight) if each is None else each for weight, each in zip(weights, found, strict=True)
    ]
    with torch.no_grad():
        weights = [weight.detach() for weight in weights]
        products = torch._foreach_mul(weights, gradients)
        torch._foreach_abs_(products)
        sums = torch.stack([each.sum() for each in products]).tolist()
    return _Flow(weights, gradients, 2 * math.log(scale), sums, forward)


def _run(network: nn.Module, image: Tensor, keep_batch_norm: bool, scale: float) -> RecordedPass:
    """A forward pass with absolute state, in the image's precision, image and biases times a scale."""
    own = _with_state()(network, _absolute(network, image.dtype, keep_batch_norm, scale))
    try:
        forward = RecordedPass(own, image * scale, frozenset({"layers"}), norms=keep_batch_norm)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UndefinedScoreError(
            "a batch norm sees one value per channel of the image (a gate, a small map); use variant 'paper'"
        ) from error
    if not isinstance(forward.output, torch.Tensor):
        raise ProxyError(f"expected a tensor from {type(network).__name__}, got {type(forward.output).__name__}")
    return forward


def _absolute(network: nn.Module, dtype: torch.dtype, keep_batch_norm: bool, scale: float) -> dict[str, Tensor]:
    """Absolute parameters and buffers by name, biases times a scale; of batch norms that are passed by only counts."""
    torchs = nn.modules.batchnorm._BatchNorm.forward
    passed_by = [] if keep_batch_norm else [norm for norm in batch_norms(network) if type(norm).forward is torchs]
    held = [each for norm in passed_by for each in (*norm.parameters(), *norm.buffers())]
    unread = {id(each) for each in held if each.is_floating_point()}
    parameters = {name: each for name, each in network.named_parameters() if id(each) not in unread}
    buffers = {name: each for name, each in network.named_buffers() if id(each) not in unread}
    state = parameters | buffers
    real = [name for name, each in state.items() if each.is_floating_point()]
    with torch.no_grad():
        state.update((name, state[name].clone()) for name in state.keys() - real)  # one may count in place
        absolute = torch._foreach_abs([state[name] for name in real]) if real else ()
        state.update(zip(real, absolute, strict=True))
        for name in buffers.keys() & real:
            state[name] = torch.where(buffers[name] == -math.inf, buffers[name], state[name])  # masks stay masks
        for name in real:
            state[name] = state[name].to(dtype)
            if scale != 1 and name.rpartition(".")[2] == "bias":
                state[name] *= scale
    for name in parameters.keys() & real:
        state[name].requires_grad_()
    return state


def _outputs(forward: RecordedPass) -> list[Tensor]:
    return [*(layer.output.detach() for layer in forward.layers), forward.output.detach()]


def _proportional(given: RecordedPass, scaled: RecordedPass, scale: float) -> bool:
    """Whether a pass's outputs are a scale times another's, as far as both are in range."""
    for before, after in zip(_outputs(given), _outputs(scaled), strict=True):
        size = before.abs().amax().item()
        expected = size * scale
        readable = min(size, expected) > 1e-305 and expected < math.inf
        if readable and not math.isclose(expected, after.abs().amax().item(), rel_tol=1e-9):
            return False
    return True


@cache
def _with_state() -> Callable[[nn.Module, dict[str, Tensor]], nn.Module]:
    """The class of a network that is run with other tensors in place of its parameters and buffers."""

    class WithState(nn.Module):  # here: to derive from a class of torch loads it
        def __init__(self, network: nn.Module, state: dict[str, Tensor]) -> None:
            super().__init__()
            self.network, self.state = network, state

        def forward(self, image: Tensor) -> Any:
            return torch.func.functional_call(self.network, self.state, (image,))

    return WithState
