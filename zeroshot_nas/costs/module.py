"""Costs of any ``nn.Module``, counted by fvcore on one forward pass."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn

from zeroshot_nas.costs.complexity import Costs
from zeroshot_nas.errors import ArchitectureError

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # fvcore scripts a loss of its own on import
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis

_ELEMENTWISE = ("batch_norm", "group_norm", "layer_norm", "instance_norm", "adaptive_avg_pool", "avg_pool", "upsample")
"""Operators that fvcore gives a cost, but that the field's FLOPs (multiply-adds of linear maps) leave out."""


_FREE = frozenset(
    """
    abs add add_ clamp clamp_ clamp_min constant_pad_nd copy_ div div_ elu elu_ exp feature_dropout fill_ gelu
    hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ leaky_relu leaky_relu_ log log_softmax max
    max_pool1d max_pool2d max_pool3d mean min mish mul mul_ neg pad pixel_shuffle pixel_unshuffle pow prelu repeat roll
    rsqrt rsub sigmoid sigmoid_ silu silu_ softmax softplus sqrt sub sub_ sum tanh var where
    """.split()  # noqa: SIM905  read as a list of words
)
"""Operators that are no linear map: fvcore lists them as unknown, though there is nothing to count."""


class UncountedOperatorWarning(UserWarning):
    """A module uses operators whose multiply-adds are not counted."""


def module_costs(module: nn.Module, input_size: Sequence[int]) -> Costs:
    """Costs of a module on one image of ``input_size``.

    The module is traced on a copy in eval mode, so it comes back as it was.

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
    flops, activations, uncounted = _trace(module, input_size)
    if uncounted:
        names = ", ".join(f"{name} ({count}x)" for name, count in sorted(uncounted.items()))
        warnings.warn(f"no FLOPs are counted for: {names}", UncountedOperatorWarning, stacklevel=3)
    params = sum(parameter.numel() for parameter in module.parameters())
    return Costs(params, flops, None, activations)


def _trace(module: nn.Module, input_size: Sequence[int]) -> tuple[int, int, Counter[str]]:
    parameter = next(module.parameters(), torch.zeros(0))
    image = torch.zeros((1, *input_size), dtype=parameter.dtype, device=parameter.device)
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's remarks on Python control flow
            counter = FlopCountAnalysis(module, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            by_operator = counter.by_operator()
            unknown = counter.unsupported_ops()
            activation_counter = ActivationCountAnalysis(module, image).unsupported_ops_warnings(False)
            activations = activation_counter.uncalled_modules_warnings(False).total()
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise ArchitectureError(
            f"{type(module).__name__} could not be traced on an input of shape (1, {', '.join(map(str, input_size))}): "
            f"{str(error).splitlines()[0]}. Check input_size"
        ) from error
    finally:
        for part, training in modes.items():
            part.training = training
    flops = sum(count for name, count in by_operator.items() if not name.startswith(_ELEMENTWISE))
    uncounted = Counter({name: count for name, count in unknown.items() if name.removeprefix("aten::") not in _FREE})
    return int(flops), int(activations), uncounted
