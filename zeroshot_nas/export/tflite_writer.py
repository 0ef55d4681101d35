"""A network in whole numbers as a TensorFlow Lite file, by the format's own schema."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zeroshot_nas.errors import ExportError, MissingExtraError
from zeroshot_nas.micro.operators import Operator
from zeroshot_nas.micro.plan import best_plan

if TYPE_CHECKING:
    import numpy as np

    from zeroshot_nas.quantization.int8_network import Int8Network

SCHEMA_VERSION = 3
"""Of the format."""

_FILE_ID = b"TFL3"

_PLAN = "OfflineMemoryAllocation"
"""Metadata that TensorFlow Lite Micro takes the places of tensors from."""

_VERSIONS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "LOGISTIC": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MUL": 2,
    "PAD": 2,
    "RELU": 2,
}
"""The versions of the operators that take int8."""


def tflite_bytes(network: Int8Network, description: str, metadata: Mapping[str, str]) -> bytes:
    """The file: full integer, int8 in and out, for one image ``(1, H, W, C)``, with a plan of the arena.

    Args:
        network: What to write.
        description: One line that says what it is.
        metadata: Texts by name, as metadata of the file.

    Raises:
        ExportError: Weights have 2 bits, which no interpreter reads.
        MissingExtraError: The extra ``tflite`` is not installed.
    """
    if narrow := sum(operator.weight_bits < 4 for operator in network.operators):
        raise ExportError(
            f"{narrow} layers have 2-bit weights, and TensorFlow Lite has none below 4 bits; search with bits 4 and 8"
        )
    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise MissingExtraError("ai-edge-litert", "tflite") from error
    model = _Writer(schema, network).model(description, metadata)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), _FILE_ID)
    return bytes(builder.Output())


class _Writer:
    """Buffers and tensors so far."""

    def __init__(self, schema: Any, network: Int8Network) -> None:
        import numpy as np

        self.np, self.schema, self.network = np, schema, network
        self.buffers = [schema.BufferT()]  # the first is empty, for tensors that are computed
        self.tensors: list[Any] = []
        self.codes: list[str] = []

    def model(self, description: str, metadata: Mapping[str, str]) -> Any:
        schema, network = self.schema, self.network
        names = [self._activation("images", network.input_shape, network.scales[0])]
        operators = []
        for index, operator in enumerate(network.operators):
            inputs = [names[source] for source in operator.inputs] + self._constants(index, operator)
            last = index == len(network.operators) - 1
            name = "logits" if last else f"{operator.code.lower()}{index}"
            shape = network.scales[index + 1]
            names.append(self._activation(name, operator.shape, shape, flat=operator.code == "FULLY_CONNECTED"))
            operators.append(self._operator(operator, inputs, names[-1]))
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "main", self.tensors, operators
        graph.inputs, graph.outputs = [names[0]], [names[-1]]
        model = schema.ModelT()
        model.version, model.description = SCHEMA_VERSION, description
        model.operatorCodes = [self._code(code) for code in self.codes]
        model.subgraphs, model.buffers = [graph], self.buffers
        texts = {name: self.np.frombuffer(text.encode(), self.np.uint8) for name, text in metadata.items()}
        entries = {_PLAN: self._plan(names), **texts}
        model.metadata = [self._metadata(name, content) for name, content in entries.items()]
        return model

    def _plan(self, names: Sequence[int]) -> np.ndarray[Any, Any]:
        """Where in the arena each tensor begins; -1 for those that are constant."""
        plan = best_plan(self.network.operators, self.network.input_shape)
        offsets = self.np.full(len(self.tensors), -1, self.np.int32)
        offsets[list(names)] = plan.offsets[: len(names)]
        version, graph = 1, 0
        return self.np.concatenate([self.np.array([version, graph, len(offsets)], self.np.int32), offsets])

    def _code(self, code: str) -> Any:
        entry = self.schema.OperatorCodeT()
        entry.builtinCode = getattr(self.schema.BuiltinOperator, code)
        entry.deprecatedBuiltinCode, entry.version = min(entry.builtinCode, 127), _VERSIONS[code]
        return entry

    def _metadata(self, name: str, content: np.ndarray[Any, Any]) -> Any:
        entry = self.schema.MetadataT()
        entry.name, entry.buffer = name, self._buffer(content)
        return entry

    def _buffer(self, values: np.ndarray[Any, Any]) -> int:
        buffer = self.schema.BufferT()
        buffer.data = values.reshape(-1).view(self.np.uint8)
        self.buffers.append(buffer)
        return len(self.buffers) - 1

    def _tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: str,
        buffer: int,
        scales: Sequence[float] | np.ndarray[Any, Any] | None = None,
        zero_point: int = 0,
        axis: int = 0,
    ) -> int:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), buffer
        tensor.type = getattr(self.schema.TensorType, kind)
        if scales is not None:
            quantization = self.schema.QuantizationParametersT()
            quantization.scale = self.np.asarray(scales, self.np.float32)
            quantization.zeroPoint = self.np.full(len(quantization.scale), zero_point, self.np.int64)
            quantization.quantizedDimension = axis
            tensor.quantization = quantization
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _activation(self, name: str, shape: tuple[int, int, int], scale: tuple[float, int], flat: bool = False) -> int:
        sizes = (1, math.prod(shape)) if flat else (1, *shape[1:], shape[0])
        return self._tensor(name, sizes, "INT8", 0, [scale[0]], scale[1])

    def _constants(self, index: int, operator: Operator) -> list[int]:
        """The tensors that an operator reads and that never change."""
        np, name, weights = self.np, f"{operator.code.lower()}{index}", self.network.weights[index]
        if weights is not None:
            kind = "INT8" if operator.weight_bits == 8 else "INT4"
            values = self._buffer(weights.values if kind == "INT8" else packed(weights.values))
            biases = self._buffer(weights.biases)
            scale = self.network.scales[operator.inputs[0]][0]
            return [
                self._tensor(f"{name}_w", weights.values.shape, kind, values, weights.scales, axis=weights.axis),
                self._tensor(f"{name}_b", weights.biases.shape, "INT32", biases, weights.scales * np.float32(scale)),
            ]
        if operator.code == "MEAN":
            return [self._tensor(f"{name}_axes", (2,), "INT32", self._buffer(np.array([1, 2], np.int32)))]
        if operator.code == "PAD":
            pads = np.array([0, 0, *operator.pads, 0, 0], np.int32)
            return [self._tensor(f"{name}_pads", (4, 2), "INT32", self._buffer(pads))]
        return []

    def _operator(self, operator: Operator, inputs: list[int], output: int) -> Any:
        schema = self.schema
        if operator.code not in self.codes:
            self.codes.append(operator.code)
        entry = schema.OperatorT()
        entry.opcodeIndex, entry.inputs, entry.outputs = self.codes.index(operator.code), inputs, [output]
        kind = _OPTIONS.get(operator.code)
        options: Any = None
        if kind is not None:
            options = getattr(schema, f"{kind}T")()
            entry.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            entry.builtinOptions = options
        activation = schema.ActivationFunctionType.RELU if operator.relu else schema.ActivationFunctionType.NONE
        if hasattr(options, "fusedActivationFunction"):
            options.fusedActivationFunction = activation
        if hasattr(options, "strideW"):
            options.strideW = options.strideH = operator.stride
            options.padding = schema.Padding.SAME if operator.same else schema.Padding.VALID
        if hasattr(options, "dilationWFactor"):
            options.dilationWFactor = options.dilationHFactor = operator.dilation
        if hasattr(options, "filterWidth"):
            options.filterWidth = options.filterHeight = operator.kernel_size
        if operator.code == "DEPTHWISE_CONV_2D":
            options.depthMultiplier = operator.shape[0] // self._channels(operator.inputs[0])
        if operator.code == "CONCATENATION":
            options.axis = 3
        if operator.code == "MEAN":
            options.keepDims = True
        return entry

    def _channels(self, tensor: int) -> int:
        shape = self.network.operators[tensor - 1].shape if tensor else self.network.input_shape
        return shape[0]


def packed(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values of 4 bits, two a byte, the first in its lower half.

    Example:
        >>> import numpy as np
        >>> [hex(byte) for byte in packed(np.array([1, -1, 7], np.int8))]
        ['0xf1', '0x7']
    """
    import numpy as np

    halves = np.pad(values.reshape(-1), (0, values.size % 2)).astype(np.uint8) & 15
    return halves[::2] | halves[1::2] << 4


_OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
}
"""What the schema calls the options of an operator."""
