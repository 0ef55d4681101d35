"""Each proxy as its formula reads, on any module whose ReLUs, convolutions and linear layers are ``nn`` modules.

What `proxy_speed.py` compares with: hooks, one forward pass and one backward pass each, a copy where weights change,
torch's default memory layout. Batch norms are taken as the module has them; in train mode, save where a function says
otherwise. `PLAIN` holds the functions by proxy name: ``(module, batch) -> float``, and for AZ-NAS, whose blocks are to
be named, ``(module, batch, features) -> float``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

from zeroshot_nas import Batch


def outputs_of(
    module: nn.Module, parts: Sequence[nn.Module], inputs: Tensor
) -> tuple[Tensor, list[tuple[nn.Module, Tensor]]]:
    """The module's output, and some of its parts with theirs, in order of execution."""
    outputs: list[tuple[nn.Module, Tensor]] = []
    handles = [part.register_forward_hook(lambda part, _, output: outputs.append((part, output))) for part in parts]
    logits = module(inputs)
    for handle in handles:
        handle.remove()
    return logits, outputs


def layers_of(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]


def weights_of(module: nn.Module) -> list[Tensor]:
    return [layer.weight for layer in layers_of(module)]


def weight_gradients(module: nn.Module, inputs: Tensor, targets: Tensor) -> list[Tensor]:
    loss = F.cross_entropy(module(inputs), targets)
    return list(torch.autograd.grad(loss, weights_of(module)))


@torch.no_grad()
def plain_zen(module: nn.Module, batch: Batch, alpha: float = 0.01) -> float:
    """Zen-score as the paper has it: Frobenius norm, variance of the batch.

    A batch norm of momentum 1 keeps the batch's variance, so that to read it costs nothing further.
    """
    norms = {part: part.momentum for part in module.modules() if isinstance(part, nn.BatchNorm2d)}
    counts: list[int] = []
    handles = [norm.register_forward_hook(lambda _, __, output: counts.append(output[:, 0].numel())) for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    features = _last_feature_map(module, batch.inputs)
    for handle in handles:
        handle.remove()
    variances = [
        (norm.running_var.mean() * (count - 1) / count).item() for norm, count in zip(norms, counts, strict=True)
    ]
    moved = _last_feature_map(module, batch.inputs + alpha * batch.perturbation)
    for norm, momentum in norms.items():
        norm.momentum = momentum
    distance = (features - moved).flatten(1).norm(dim=1).mean().item()
    return math.log(distance) + sum(0.5 * math.log(variance) for variance in variances)


def _last_feature_map(module: nn.Module, inputs: Tensor) -> Tensor:
    parts = [part for part in module.modules() if not list(part.children())]
    _, outputs = outputs_of(module, parts, inputs)
    return [output for _, output in outputs if output.dim() == 4 and output.shape[-1] > 1][-1]


@torch.no_grad()
def plain_naswot(module: nn.Module, batch: Batch) -> float:
    """Log-determinant of the kernel of the samples' ReLU codes."""
    relus = [part for part in module.modules() if isinstance(part, nn.ReLU)]
    _, outputs = outputs_of(module, relus, batch.inputs)
    kernel = torch.zeros(len(batch.inputs), len(batch.inputs), dtype=torch.float64)
    for _, output in outputs:
        codes = (output.flatten(1) > 0).to(output.dtype)
        kernel += codes @ codes.T + (1 - codes) @ (1 - codes).T
    return torch.linalg.slogdet(kernel).logabsdet.item()


def plain_synflow(module: nn.Module, batch: Batch) -> float:
    """Sum of |W dR/dW| of absolute weights without batch norm, in float64; its logarithm is what `score` gives."""
    linear = copy.deepcopy(module).double()
    with torch.no_grad():
        for tensor in linear.state_dict().values():
            tensor.abs_()
    for part in linear.modules():
        for name, child in part.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(part, name, nn.Identity())
    ones = torch.ones(1, *batch.inputs.shape[1:], dtype=torch.float64)
    weights = weights_of(linear)
    gradients = torch.autograd.grad(linear(ones).sum(), weights)
    return sum((weight * gradient).abs().sum().item() for weight, gradient in zip(weights, gradients, strict=True))


def plain_snip(module: nn.Module, batch: Batch) -> float:
    """Sum of |W dL/dW|."""
    gradients = weight_gradients(module, batch.inputs, batch.targets)
    products = [(weight * gradient).abs().sum() for weight, gradient in zip(weights_of(module), gradients, strict=True)]
    return sum(product.item() for product in products)


def plain_grasp(module: nn.Module, batch: Batch) -> float:
    """Minus the sum of W H g, the Hessian-gradient product by a second backward pass."""
    weights = weights_of(module)
    loss = F.cross_entropy(module(batch.inputs), batch.targets)
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    product = sum((gradient.detach() * gradient).sum() for gradient in gradients)
    curvatures = torch.autograd.grad(product, weights)
    return -sum((weight * curvature).sum().item() for weight, curvature in zip(weights, curvatures, strict=True))


def plain_fisher(module: nn.Module, batch: Batch) -> float:
    """Squared products of activation and gradient of each channel, times the weights of its filter."""
    logits, outputs = outputs_of(module, layers_of(module), batch.inputs)
    loss = F.cross_entropy(logits, batch.targets)
    gradients = torch.autograd.grad(loss, [output for _, output in outputs])
    score = 0.0
    for (layer, output), gradient in zip(outputs, gradients, strict=True):
        product = output * gradient
        if product.dim() == 4:
            product = product.sum((2, 3))
        score += (0.5 * product.square().mean(0)).sum().item() * layer.weight[0].numel()
    return score


def plain_grad_norm(module: nn.Module, batch: Batch) -> float:
    """Sum over layers of the norm of the weights' gradient."""
    return sum(gradient.norm().item() for gradient in weight_gradients(module, batch.inputs, batch.targets))


@torch.no_grad()
def plain_l2_norm(module: nn.Module, batch: Batch) -> float:  # noqa: ARG001  reads the weights alone
    """Sum over layers of the weights' norm."""
    return sum(weight.norm().item() for weight in weights_of(module))


def plain_plain(module: nn.Module, batch: Batch) -> float:
    """Sum of W dL/dW, signed."""
    gradients = weight_gradients(module, batch.inputs, batch.targets)
    products = [(weight * gradient).sum() for weight, gradient in zip(weights_of(module), gradients, strict=True)]
    return sum(product.item() for product in products)


def plain_jacob_cov(module: nn.Module, batch: Batch, k: float = 1e-5) -> float:
    """Eigenvalues of the correlation of the samples' input gradients."""
    correlation = np.corrcoef(_input_gradients(module, batch.inputs))
    values = np.linalg.eigvalsh(correlation)
    return float(-np.sum(np.log(values + k) + 1 / (values + k)))


def plain_epe_nas(module: nn.Module, batch: Batch, k: float = 1e-5) -> float:
    """Correlation of the input gradients within each class; the branch for at most 100 classes."""
    gradients, labels = _input_gradients(module, batch.inputs), batch.targets.numpy()
    score = 0.0
    for label in np.unique(labels):
        correlation = np.atleast_2d(np.corrcoef(gradients[labels == label]))
        score += abs(float(np.log(np.abs(correlation) + k).sum()))
    return score


def _input_gradients(module: nn.Module, inputs: Tensor) -> np.ndarray:
    inputs = inputs.clone().requires_grad_()
    (gradients,) = torch.autograd.grad(module(inputs).sum(), inputs)
    return gradients.flatten(1).numpy()


def plain_zico(module: nn.Module, batch: Batch) -> float:
    """Log of mean over deviation of the gradients of two batches, summed within each layer."""
    batches = [batch, batch.further[0]]
    gradients = [weight_gradients(module, each.inputs, each.targets) for each in batches]
    score = 0.0
    for layer in zip(*gradients, strict=True):
        both = torch.stack(layer).flatten(1)
        mean, deviation = both.abs().mean(0), both.std(0, correction=0)
        moved = deviation != 0
        total = (mean[moved] / deviation[moved]).sum().item()
        if total > 0:
            score += math.log(total)
    return score


def plain_gradsign(module: nn.Module, batch: Batch) -> float:
    """How far the signs of the samples' gradients agree, each sample alone through the network."""
    signs = [torch.zeros_like(weight) for weight in weights_of(module)]
    for image, target in zip(batch.inputs, batch.targets, strict=True):
        gradients = weight_gradients(module, image[None], target[None])
        for sign, gradient in zip(signs, gradients, strict=True):
            sign += gradient.sign()
    return sum(sign.abs().sum().item() for sign in signs)


def plain_ntk_cond(module: nn.Module, batch: Batch) -> float:
    """Condition number of the products of the samples' gradients; batch norm scales are in, biases are not."""
    weights = [parameter for name, parameter in module.named_parameters() if "weight" in name]
    logits = module(batch.inputs)
    rows = []
    for sample in logits:
        gradients = torch.autograd.grad(sample.sum(), weights, retain_graph=True)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    jacobian = torch.stack(rows)
    values = torch.linalg.eigvalsh(jacobian @ jacobian.T)
    return (values[-1] / values[0]).item()


@torch.no_grad()
def plain_linear_regions(module: nn.Module, batch: Batch) -> float:
    """Number of samples that differ in the pattern of their ReLUs."""
    codes = _patterns(module, batch.inputs)
    return float(len({row.tobytes() for row in codes.numpy()}))


@torch.no_grad()
def plain_swap(module: nn.Module, batch: Batch) -> float:
    """Number of units that differ in their pattern over the samples."""
    return float(len(torch.unique(_patterns(module, batch.inputs).T, dim=0)))


def _patterns(module: nn.Module, inputs: Tensor) -> Tensor:
    relus = [part for part in module.modules() if isinstance(part, nn.ReLU)]
    _, outputs = outputs_of(module, relus, inputs)
    return torch.cat([(output > 0).flatten(1) for _, output in outputs if output.dim() == 4], dim=1)


@torch.no_grad()
def plain_meco(module: nn.Module, batch: Batch) -> float:
    """Least eigenvalue of the channels' correlation on the first sample, summed over modules and the output."""
    parts = [part for part in module.modules() if not list(part.children())]
    logits, outputs = outputs_of(module, parts, batch.inputs)
    score = 0.0
    for output in [*(output for _, output in outputs), logits]:
        channels = output[0].flatten(1) if output.dim() == 4 else output[0, :, None]
        if channels.shape[1] > 1:
            correlation = torch.corrcoef(channels).nan_to_num(0, 0, 0)
            score += torch.linalg.eigvalsh(correlation)[0].item()
    return score


def plain_vkdnw(module: nn.Module, batch: Batch, tensors: int = 128) -> float:
    """Entropy of the deciles of the Fisher matrix's spectrum, with the factor order of the authors' code; eval mode.

    Parameters: the first value of each of the first 128 tensors.
    """
    training = module.training
    module.eval()
    parameters = {name: value.detach() for name, value in list(module.named_parameters())[:tensors]}
    first = torch.stack([value.flatten()[0] for value in parameters.values()])

    def logits_of(first: Tensor, image: Tensor) -> Tensor:
        replaced = {
            name: torch.cat([first[index : index + 1], value.flatten()[1:]]).view_as(value)
            for index, (name, value) in enumerate(parameters.items())
        }
        return functional_call(module, replaced, (image[None],))[0]

    jacobian = vmap(jacrev(logits_of), (None, 0))(first, batch.inputs)
    with torch.no_grad():
        rows = _covariance_factor(module(batch.inputs)) @ jacobian
    module.train(training)
    fisher = (rows.mT @ rows).mean(0).numpy()
    deciles = np.quantile(np.linalg.svd(fisher, compute_uv=False), np.linspace(0.1, 0.9, 9))
    shares = deciles / (deciles.sum() + 1e-10)
    return float(-np.sum(shares * np.log(shares + 1e-10)))


def _covariance_factor(logits: Tensor) -> Tensor:
    """Lower triangular L with L L^T = diag(p) - p p^T; p is the softmax, smoothed with constants in half precision."""
    p = logits.softmax(1) * 0.9501953125 + 0.00499725341796875
    rest = (1 - p.cumsum(1)).clamp(min=0)
    before = rest + p
    rest[:, -1] = 0
    factor = torch.tril(-p[:, :, None] * (p / (before * rest)).sqrt()[:, None], -1)
    return factor + torch.diag_embed((p * rest / before).sqrt())


@torch.no_grad()
def plain_az_expressivity(module: nn.Module, batch: Batch, features: Sequence[str]) -> float:
    """Entropy of the spectrum of each feature map's channel covariance, summed."""
    return sum(_entropies(module, batch.inputs, features))


@torch.no_grad()
def plain_az_progressivity(module: nn.Module, batch: Batch, features: Sequence[str]) -> float:
    """Least step of that entropy from one feature map to the next."""
    entropies = _entropies(module, batch.inputs, features)
    return min(later - earlier for earlier, later in pairwise(entropies))


def _entropies(module: nn.Module, inputs: Tensor, features: Sequence[str]) -> list[float]:
    parts = dict(module.named_modules())
    _, outputs = outputs_of(module, [parts[name] for name in features], inputs)
    entropies = []
    for _, output in outputs:
        rows = output.permute(0, 2, 3, 1).flatten(0, 2)
        rows = rows - rows.mean(0)
        values = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).clamp(min=0)
        shares = values / values.sum()
        entropies.append(-(shares * (shares + 1e-8).log()).sum().item())
    return entropies


def plain_az_trainability(module: nn.Module, batch: Batch, features: Sequence[str]) -> float:
    """Largest singular value of each block's Jacobian, estimated with signs; `Batch.output_noise` from the second."""
    parts = dict(module.named_modules())
    _, outputs = outputs_of(module, [parts[name] for name in features], batch.inputs)
    scores = []
    for ((_, earlier), (_, later)), noise in zip(pairwise(outputs), batch.output_noise, strict=True):
        (pulled,) = torch.autograd.grad(later, earlier, noise, retain_graph=True)
        stride = pulled.shape[-1] // noise.shape[-1]
        if stride > 1:
            pulled = F.pixel_unshuffle(pulled, stride)
        pulled, signs = (each.permute(0, 2, 3, 1).flatten(0, 2) for each in (pulled, noise))
        largest = torch.linalg.svdvals(pulled.T @ signs / len(signs))[0].item()
        scores.append(-largest - 1 / (largest + 1e-6) + 2)
    return sum(scores) / len(scores)


PLAIN: dict[str, Callable[..., float]] = {
    "zen": plain_zen,
    "naswot": plain_naswot,
    "synflow": plain_synflow,
    "snip": plain_snip,
    "grasp": plain_grasp,
    "fisher": plain_fisher,
    "grad_norm": plain_grad_norm,
    "l2_norm": plain_l2_norm,
    "plain": plain_plain,
    "jacob_cov": plain_jacob_cov,
    "epe_nas": plain_epe_nas,
    "zico": plain_zico,
    "gradsign": plain_gradsign,
    "ntk_cond": plain_ntk_cond,
    "linear_regions": plain_linear_regions,
    "swap": plain_swap,
    "meco": plain_meco,
    "vkdnw": plain_vkdnw,
    "az_expressivity": plain_az_expressivity,
    "az_progressivity": plain_az_progressivity,
    "az_trainability": plain_az_trainability,
}
"""Every plain function by the name of its proxy."""
