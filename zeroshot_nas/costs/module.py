"""Costs of any ``nn.Module``, counted by fvcore on one forward pass."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from zeroshot_nas.core.foreign import DrawWatch, copied, is_quantised, representative, unwrapped, without_checkpoints
from zeroshot_nas.core.seeding import plain_torch, saved_rng
from zeroshot_nas.costs.complexity import Costs
from zeroshot_nas.costs.operators import ACTIVATIONS, RULES, is_elementwise, is_free
from zeroshot_nas.errors import ArchitectureError, UncountedOperatorWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # fvcore scripts a loss of its own on import
    from fvcore.nn import FlopCountAnalysis


def module_costs(module: nn.Module, input_size: Sequence[int]) -> Costs:
    """Costs of a module on one image of ``input_size``.

    The module is traced on a copy in eval mode, so it comes back as it was. Attention counts its projections and both
    products, a recurrent layer every weight at every step (inputs, states, projections, all layers and directions).

    Args:
        module: Any module that takes one tensor ``(1, *input_size)``.
        input_size: Shape of one input without the batch axis: ``(C, H, W)``.

    Returns:
        Costs, with ``layers`` None: Zen-NAS's depth is not defined for a foreign module.

    Warns:
        UncountedOperatorWarning: Operators that the counter does not know are named.

    Raises:
        ArchitectureError: The module can't be traced on that input.

    Example:
        >>> module_costs(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU()), (3, 4, 4))
        Costs(params=216, flops=3456, layers=None, activations=128)
    """
    module = unwrapped(module)
    try:
        duplicate = _counted_copy(module)  # the tracer leaves hooks behind
    except ValueError as error:
        raise ArchitectureError(str(error)) from error
    flops, activations, uncounted = _trace(duplicate, input_size, type(module).__name__)
    if uncounted:
        names = ", ".join(f"{name} ({count}x)" for name, count in sorted(uncounted.items()))
        warnings.warn(f"no FLOPs are counted for: {names}", UncountedOperatorWarning, stacklevel=3)
    params = sum(parameter.numel() for parameter in duplicate.parameters())
    return Costs(params, flops, None, activations)


@contextmanager
def _separate_operators() -> Iterator[None]:
    """Attention by its parts: in eval mode torch has one operator for a whole layer, which tells no shapes."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _counted_copy(module: nn.Module) -> nn.Module:
    """A copy in eval mode whose shapes are the module's, and which can be run."""
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise ValueError(f"{type(module).__name__} is TorchScript; pass the module before scripting or tracing")
    duplicate = copied(module).eval()
    for name, part in list(duplicate.named_modules()):
        plain = _unquantised(part) if is_quantised(part) else None
        if plain is not None:
            parent, _, own_name = name.rpartition(".")
            setattr(duplicate.get_submodule(parent), own_name, plain)
    if any(tensor.is_meta for tensor in (*duplicate.parameters(), *duplicate.buffers())):
        duplicate.to_empty(device="cpu")  # values don't matter, and some modules make tensors on the CPU
    return duplicate


def _unquantised(part: Any) -> nn.Module | None:
    """A float layer of a quantised one's shape; None for a kind that has no weights of its own, or is unknown."""
    has_bias = part.bias() is not None if callable(getattr(part, "bias", None)) else True
    if hasattr(part, "in_features"):
        return nn.Linear(part.in_features, part.out_features, has_bias, device="meta", dtype=torch.float32)
    if hasattr(part, "kernel_size") and hasattr(part, "in_channels"):
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(part.kernel_size) - 1]
        sizes = part.in_channels, part.out_channels, part.kernel_size, part.stride, part.padding, part.dilation
        return conv(*sizes, part.groups, has_bias, device="meta")  # where nothing is drawn
    return nn.Identity() if type(part).__name__ in ("Quantize", "DeQuantize") else None


def _trace(module: nn.Module, input_size: Sequence[int], kind: str) -> tuple[int, int, Counter[str]]:
    parameter = representative(module)
    draws, restore = DrawWatch(), saved_rng()
    try:
        # no_grad after plain_torch, which leaves inference mode and with it turns gradients on
        with plain_torch(), torch.no_grad(), without_checkpoints(), _separate_operators(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's remarks on Python control flow
            image = torch.zeros((1, *input_size), dtype=parameter.dtype, device=parameter.device)
            with draws:
                module(image)
            counter = FlopCountAnalysis(module, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            counter.set_op_handle(**RULES)
            by_operator = counter.by_operator()
            unknown = counter.unsupported_ops()
    except Exception as error:  # a stranger's forward may raise anything; it is passed on, with its cause
        raise ArchitectureError(
            f"{kind} could not be traced on an input of shape {(1, *_listed(input_size))} "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}). Check input_size"
        ) from error
    finally:
        if draws.has_drawn:
            restore()
    activations = by_operator.pop(ACTIVATIONS, 0)
    flops = sum(count for name, count in by_operator.items() if not is_elementwise(name))
    uncounted = Counter({name: count for name, count in unknown.items() if not is_free(name)})
    return int(flops), int(activations), uncounted


def _listed(input_size: object) -> Sequence[object]:
    return input_size if isinstance(input_size, Sequence) else [input_size]
