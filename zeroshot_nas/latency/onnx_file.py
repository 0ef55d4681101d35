"""An ONNX file, of this package or of anyone, as something to time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.errors import FileFormatError, LatencyError, MissingExtraError

if TYPE_CHECKING:
    import onnx

SUFFIX = ".onnx"

_NO_WEIGHTS = frozenset({"int32", "int64", "bool", "object"})
"""Types of shapes, axes and biases."""


@dataclass(frozen=True)
class OnnxFile:
    """A model's file.

    Attributes:
        path: The file.
        image_shape: Shape ``(C, H, W)`` of one image.
        dtype: Precision: the type that most of the weights are stored in, e.g. ``"float32"`` or ``"int8"``.
    """

    path: Path
    image_shape: Shape
    dtype: str


def is_onnx_file(path: str | Path) -> bool:
    """Whether a path is that of an ONNX file, by its name.

    Example:
        >>> is_onnx_file("runs/photos/model.int8.onnx"), is_onnx_file("runs/photos")
        (True, False)
    """
    return Path(path).suffix.lower() == SUFFIX


def read_onnx_file(path: Path, input_size: Sequence[int] | None = None, batch_size: int = 1) -> OnnxFile:
    """Reads what images a model takes, and in which precision it computes.

    Args:
        path: The file.
        input_size: Shape ``(C, H, W)`` of one image, where the file leaves it open.
        batch_size: Images that it is to take at once.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is no ONNX model, or is damaged.
        LatencyError: The model does not take such images.
        MissingExtraError: The extra ``onnx`` is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "onnx") from None
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected an exported {SUFFIX} file")
    try:
        graph = onnx.load_model_from_string(path.read_bytes()).graph
    except Exception as error:  # protobuf's own kinds
        raise FileFormatError(f"{path} is no ONNX model, or is damaged; export it again") from error
    if not graph.node:
        raise FileFormatError(f"{path} is no ONNX model, or is damaged: it has no nodes; export it again")
    constants = {each.name for each in graph.initializer}
    inputs = [each.type.tensor_type for each in graph.input if each.name not in constants]
    sizes = [each.dim_value or None for each in inputs[0].shape.dim] if len(inputs) == 1 else []
    if len(sizes) != 4:
        raise LatencyError(f"{path} has {len(inputs)} inputs; expected a model with one, images (N, C, H, W)")
    if sizes[0] not in (None, batch_size):
        raise LatencyError(f"{path} takes {sizes[0]} images at once, got batch_size {batch_size}")
    return OnnxFile(path, _image_shape(path, sizes[1:], input_size), _dtype(graph))


def _image_shape(path: Path, sizes: Sequence[int | None], given: Sequence[int] | None) -> Shape:
    """The file's shape of one image, its open sizes as given."""
    shape = tuple(given) if given is not None else tuple(size or 0 for size in sizes)
    if len(shape) != 3 or any(size not in (None, mine) for size, mine in zip(sizes, shape, strict=True)):
        raise LatencyError(f"{path} takes images {_written(sizes)}, got input_size {shape}")
    if min(shape) < 1:
        raise LatencyError(f"{path} takes images {_written(sizes)}, of any size; give input_size=(C, H, W)")
    return shape[0], shape[1], shape[2]


def _written(sizes: Sequence[int | None]) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in sizes)})"


def _dtype(graph: onnx.GraphProto) -> str:
    from onnx.helper import tensor_dtype_to_np_dtype

    values = [
        *graph.initializer,
        *(each.t for node in graph.node if node.op_type == "Constant" for each in node.attribute),
    ]
    counts: Counter[str] = Counter()
    for value in values:
        if value.data_type:
            counts[tensor_dtype_to_np_dtype(value.data_type).name] += math.prod(value.dims)
    weights = {name: count for name, count in counts.items() if name not in _NO_WEIGHTS}
    return max(weights, key=lambda name: weights[name]) if weights else "float32"
