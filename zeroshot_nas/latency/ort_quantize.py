"""ONNX Runtime's static quantisation to int8."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshot_nas.errors import ExportError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np


def quantize_int8(
    source: Path,
    target: Path,
    feeds: Iterable[Mapping[str, np.ndarray[Any, Any]]],
    *,
    symmetric: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Writes an int8 copy of an ONNX model: weights by channel, activations by tensor, in QDQ form.

    Args:
        source: The float model's file.
        target: Where to write.
        feeds: Inputs by name, a batch each, that the ranges of activations are measured on.
        symmetric: Whether activations are signed, with 0 for a zero point; weights then have all 8 bits. Otherwise
            they keep to 7: uint8 times int8 overflows 16 bits on processors without VNNI.
        overrides: Scales of tensors by name, as ONNX Runtime takes them.

    Raises:
        ExportError: ONNX Runtime can't quantise the model.
        MissingExtraError: The extra ``onnx`` is not installed.
    """
    try:
        import onnx  # noqa: F401  which the quantiser needs
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx") from error
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx") from error

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = iter(feeds)

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self.feeds, None)

    options: dict[str, Any] = {"ActivationSymmetric": symmetric, "WeightSymmetric": True}
    if overrides:
        options["TensorQuantOverrides"] = overrides
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # its advice to optimise the model first, which the exporter has done
    try:
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=None,
            per_channel=True,
            reduce_range=not symmetric,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options=options,
        )
    except Exception as error:  # the quantiser raises many kinds
        raise ExportError(f"ONNX Runtime could not quantise {source}: {type(error).__name__}: {error}") from error
    finally:
        logging.disable(disabled)
