"""Torch's operators as a counter of multiply-adds sees them: those that fvcore has no rule for, and what is free."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # fvcore scripts a loss of its own on import
    from fvcore.nn import jit_handles

_ELEMENTWISE = ("batch_norm", "group_norm", "layer_norm", "instance_norm", "adaptive_avg_pool", "avg_pool", "upsample")
"""Operators that fvcore gives a cost, but that the field's FLOPs (multiply-adds of linear maps) leave out."""

_FREE = frozenset(
    """
    _pack_padded_sequence _pad_packed_sequence _weight_norm _weight_norm_interface adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d addr
    affine_grid_generator alpha_dropout amax amin argsort avg_pool1d avg_pool2d avg_pool3d bernoulli bernoulli_
    bincount block_diag bucketize cartesian_prod celu celu_ channel_shuffle col2im complex constant_pad_nd
    cosine_similarity cross cummax cumprod cumsum dequantize diag diff dropout dstack embedding embedding_bag
    embedding_renorm empty_like exponential eye fake_quantize_per_channel_affine fake_quantize_per_tensor_affine
    feature_alpha_dropout feature_dropout fill flip fold fractional_max_pool2d fractional_max_pool3d ger glu
    hardshrink hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ histc hstack im2col index_add
    index_copy index_fill index_put index_select instance_norm isfinite isinf isnan kron linalg_matrix_norm
    linalg_norm linalg_vector_norm linspace log_sigmoid log_softmax lp_pool1d lp_pool2d lp_pool3d masked_scatter
    max max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices
    max_unpool2d max_unpool3d maximum mean median meshgrid min minimum mish mish_ mode multinomial
    native_channel_shuffle native_dropout new_ones norm norm_except_dim normal normal_ one_hot ones_like outer pad
    pad_sequence pairwise_distance pixel_shuffle pixel_unshuffle polar prelu quantize_per_tensor rand rand_like
    randn randn_like randperm reflection_pad1d reflection_pad2d reflection_pad3d relu6 relu6_ renorm repeat
    repeat_interleave replication_pad1d replication_pad2d replication_pad3d rms_norm roll rrelu rrelu_
    rrelu_with_noise rrelu_with_noise_ scatter scatter_add scatter_reduce searchsorted segment_reduce selu selu_
    softmax softmin softplus softshrink softsign sort sum take take_along_dim tanhshrink tile topk trace tril
    tril_indices triu triu_indices unflatten unfold uniform uniform_ unsafe_chunk unsafe_split
    unsafe_split_with_sizes upsample_bicubic2d upsample_linear1d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d upsample_trilinear3d var vstack where zero
    """.split()  # noqa: SIM905  read as a list of words
)
"""Operators that are no linear map, beside those of which torch says that they are views, pointwise or reductions."""


def is_elementwise(name: str) -> bool:
    """Whether fvcore's rule for an operator counts what is no linear map."""
    return name.startswith(_ELEMENTWISE)


@cache
def is_free(name: str) -> bool:
    """Whether an operator has no multiply-adds of a linear map.

    Args:
        name: As a traced graph has it.

    Example:
        >>> [is_free(f"aten::{name}") for name in ("clone", "reshape_as", "gelu_", "fft_fft2", "matmul")]
        [True, True, True, False, False]
    """
    plain = name.removeprefix("aten::")
    names = {plain, plain.removesuffix("_")}
    if names & _FREE:
        return True
    packets = [getattr(torch.ops.aten, each) for each in names if hasattr(torch.ops.aten, each)]
    overloads = [getattr(packet, overload) for packet in packets for overload in packet.overloads()]
    tags = {str(tag).rpartition(".")[2] for each in overloads for tag in each.tags}
    returns = [value for each in overloads for value in each._schema.returns]
    is_view = any(value.alias_info is not None and not value.alias_info.is_write for value in returns)
    return is_view or bool(tags & {"pointwise", "reduction"})


def _shape(value: Any) -> list[int]:
    """Of a tensor in a traced graph."""
    return list(jit_handles.get_shape(value))


def _attention(inputs: Sequence[Any], _: Sequence[Any]) -> int:
    """Queries with keys, and what comes of that with values, in every head."""
    query, key, value = map(_shape, inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent(inputs: Sequence[Any], _: Sequence[Any]) -> int:
    """Every weight at every step: input, hidden and projected ones of all layers and directions."""
    lists = [each for each in inputs if each.node().kind() == "prim::ListConstruct"]
    weights = [shape for shape in map(_shape, lists[-1].node().inputs()) if len(shape) > 1]
    return math.prod(_shape(inputs[0])[:-1]) * sum(map(math.prod, weights))


def _bilinear(inputs: Sequence[Any], _: Sequence[Any]) -> int:
    """Every weight for every pair of inputs."""
    return math.prod(_shape(inputs[0])[:-1]) * math.prod(_shape(inputs[2]))


def _batched_product(inputs: Sequence[Any], _: Sequence[Any]) -> int:
    return math.prod(_shape(inputs[1])) * _shape(inputs[2])[-1]


def _convolution_by_mode(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """A convolution of ``padding="same"`` or ``"valid"``: its weights at every position of the output."""
    batch, _, *positions = _shape(outputs[0])
    return batch * math.prod(positions) * math.prod(_shape(inputs[1]))


def _time_first_convolution(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """A ``conv_tbc``: its weights at every step of every sample."""
    return math.prod(_shape(outputs[0])[:2]) * math.prod(_shape(inputs[1]))


def _contraction(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """An ``inner`` or ``tensordot``: both factors' sizes hold what is summed over, the result's does not."""
    left, right, result = (math.prod(_shape(each)) for each in (*inputs[:2], outputs[0]))
    return math.isqrt(left * right * result)


def _dot(inputs: Sequence[Any], _: Sequence[Any]) -> int:
    return math.prod(_shape(inputs[0]))


ACTIVATIONS = "activations"
"""Name under which the outputs of linear maps are counted."""


def _with_outputs(rule: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Counter[str]]:
    """A rule of fvcore for a linear map, which counts its outputs too: one trace gives both."""

    def count(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
        flops = rule(inputs, outputs)  # a number, or numbers by name
        total = sum(flops.values()) if isinstance(flops, Counter) else flops
        return Counter({"linear map": total, ACTIVATIONS: math.prod(_shape(outputs[0]))})

    return count


RULES: dict[str, Callable[[Sequence[Any], Sequence[Any]], int | Counter[str]]] = {
    "aten::_convolution": _with_outputs(jit_handles.conv_flop_jit),
    "aten::_convolution_mode": _with_outputs(_convolution_by_mode),
    "aten::conv_tbc": _with_outputs(_time_first_convolution),
    **dict.fromkeys(("aten::inner", "aten::tensordot"), _contraction),
    "aten::addmm": _with_outputs(jit_handles.addmm_flop_jit),
    "aten::bmm": _with_outputs(jit_handles.bmm_flop_jit),
    "aten::einsum": _with_outputs(jit_handles.einsum_flop_jit),
    "aten::matmul": _with_outputs(jit_handles.matmul_flop_jit),
    "aten::linear": _with_outputs(jit_handles.linear_flop_jit),
    "aten::scaled_dot_product_attention": _attention,
    **dict.fromkeys(("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu"), _recurrent),
    "aten::bilinear": _bilinear,
    "aten::baddbmm": _batched_product,
    "aten::addbmm": _batched_product,
    **dict.fromkeys(("aten::mv", "aten::dot", "aten::vdot", "aten::linalg_vecdot"), _dot),
}
"""Multiply-adds of operators that fvcore has no rule for, and of linear maps with their outputs (activations):
``(inputs, outputs)`` of a traced graph to a number, or numbers by name."""
