"""Any ``nn.Module`` as an ONNX model, for deployment and for timing."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import nn

from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.core.foreign import representative
from zeroshot_nas.core.seeding import preserved_rng
from zeroshot_nas.errors import ExportError, MissingExtraError

if TYPE_CHECKING:
    import onnx

INPUT_NAME = "images"
"""Name of the model's one input, ``(N, C, H, W)``."""

OUTPUT_NAME = "logits"
"""Name of the model's first output."""

_EXPORTED_OPSET = 18
"""The oldest operator set that torch's exporter knows; older ones are made of it."""


def onnx_model(
    module: nn.Module,
    input_size: Sequence[int],
    *,
    batch_size: int = 1,
    dynamic_batch: bool = False,
    opset: int | None = None,
) -> onnx.ModelProto:
    """Exports a module in eval mode, its batch norms folded into the convolutions before them.

    torch's exporter runs on a copy: the module comes back as it was, and so does the global random state. Nothing is
    printed. Whether the model computes what the module does is for the caller to check.

    Args:
        module: Any module that takes one tensor ``(N, *input_size)``.
        input_size: Shape ``(C, H, W)`` of one image.
        batch_size: Images that the model takes at once.
        dynamic_batch: Let the model take any number of images; ``batch_size`` is then without effect.
        opset: Version of ONNX's operator set, 13 or later; None is torch's own choice.

    Returns:
        The model, with the input ``"images"`` and the output ``"logits"``.

    Raises:
        ExportError: The module can't be exported for that input, or not in that opset.
        MissingExtraError: The extra ``onnx`` is not installed.

    Example:
        >>> model = onnx_model(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()), (3, 6, 6))
        >>> [node.op_type for node in model.graph.node]
        ['Conv', 'Relu']
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "onnx")
    check_counts(batch_size=batch_size)
    tensor = representative(module)
    # a batch of one would be taken for a constant
    images = torch.zeros((2 if dynamic_batch else batch_size, *input_size), dtype=tensor.dtype, device=tensor.device)
    try:
        with torch.no_grad(), preserved_rng(), _silence():
            program = torch.onnx.export(
                copy.deepcopy(module).eval(),
                (images,),
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch")},) if dynamic_batch else None,
                opset_version=None if opset is None else max(opset, _EXPORTED_OPSET),
                verbose=False,
            )
    except Exception as error:  # a stranger's forward may raise anything; it is passed on, with its cause
        raise ExportError(
            f"{type(module).__name__} could not be exported for an input of shape {tuple(images.shape)} "
            f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0]}). Check input_size"
            + ("" if opset is None else f" and opset {opset}")
        ) from error
    assert program is not None, "the exporter by dynamo gives a program"
    model: onnx.ModelProto = program.model_proto
    if dynamic_batch and not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise ExportError(
            f"{type(module).__name__} fixes the number of images when it is exported, as len(x) in its forward does; "
            "write x.shape[0]"
        )
    if opset is not None and opset < _opset(model):
        from zeroshot_nas.network.onnx_opset import lower_opset

        lower_opset(model, opset)
    if opset is not None and (got := _opset(model)) != opset:
        raise ExportError(f"asked for ONNX opset {opset}, but torch exported opset {got}; choose that one or leave it")
    return model


def _opset(model: onnx.ModelProto) -> int:
    return max(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


@contextmanager
def _silence() -> Iterator[None]:
    """The exporter's remarks on itself are for its developers."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
