"""Costs of any ``nn.Module``, counted by fvcore on one forward pass."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn

from zeroshot_nas.core.seeding import preserved_rng
from zeroshot_nas.costs.complexity import Costs
from zeroshot_nas.errors import ArchitectureError, UncountedOperatorWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # fvcore scripts a loss of its own on import
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis

_ELEMENTWISE = ("batch_norm", "group_norm", "layer_norm", "instance_norm", "adaptive_avg_pool", "avg_pool", "upsample")
"""Operators that fvcore gives a cost, but that the field's FLOPs (multiply-adds of linear maps) leave out."""


_FREE = frozenset(
    """
    abs adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d add add_ amax amin avg_pool1d avg_pool2d avg_pool3d
    celu celu_ channel_shuffle clamp clamp_ clamp_min clamp_max constant_pad_nd copy_ cumsum div div_ elu elu_ exp
    feature_dropout fill_ flip gelu glu hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ leaky_relu
    leaky_relu_ linalg_vector_norm log log_sigmoid log_softmax max max_pool1d max_pool2d max_pool3d maximum mean min
    minimum mish mul mul_ native_channel_shuffle neg norm pad pixel_shuffle pixel_unshuffle pow prelu reciprocal relu6
    relu6_ repeat rms_norm roll rsqrt rsub selu selu_ sigmoid sigmoid_ silu silu_ softmax softplus sqrt square std sub
    sub_ sum tanh threshold threshold_ upsample_bicubic2d upsample_nearest2d var where
    """.split()  # noqa: SIM905  read as a list of words
)
"""Operators that are no linear map: fvcore lists them as unknown, though there is nothing to count."""


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
    try:
        with torch.no_grad(), preserved_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's remarks on Python control flow
            module = copy.deepcopy(module).eval()  # the tracer leaves hooks behind
            counter = FlopCountAnalysis(module, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            by_operator = counter.by_operator()
            unknown = counter.unsupported_ops()
            activation_counter = ActivationCountAnalysis(module, image).unsupported_ops_warnings(False)
            activations = activation_counter.uncalled_modules_warnings(False).total()
    except Exception as error:  # a stranger's forward may raise anything; it is passed on, with its cause
        raise ArchitectureError(
            f"{type(module).__name__} could not be traced on an input of shape {tuple(image.shape)} "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}). Check input_size"
        ) from error
    flops = sum(count for name, count in by_operator.items() if not name.startswith(_ELEMENTWISE))
    uncounted = Counter({name: count for name, count in unknown.items() if name.removeprefix("aten::") not in _FREE})
    return int(flops), int(activations), uncounted
