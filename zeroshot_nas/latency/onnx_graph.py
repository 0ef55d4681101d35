"""The ONNX graph of an architecture with random weights, written down in milliseconds for timing.

It has the operators that `zeroshot_nas.network.to_onnx.onnx_model` gives for the built network; torch's exporter takes
seconds for each, and a search measures many.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from zeroshot_nas.architecture import ops
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.kernels import ADD, CONCATENATE, SCALE, Instruction, instructions
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.costs.complexity import check_buildable
from zeroshot_nas.errors import ArchitectureError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    import onnx
else:
    np = LazyModule("numpy")

INPUT_NAME = "images"
OPSET = 18
_IR_VERSION = 10
_NAME = re.compile(r"kernel(\d+)\D")


def onnx_graph(architecture: Architecture, *, batch_size: int = 1, seed: int = 0) -> onnx.ModelProto:
    """The inference graph of an architecture, batch norms folded, weights from N(0, 1 / fan_in).

    Every node is named for the kernel that it belongs to; `kernel_index` reads that, also where an engine has made a
    node of its own of it.

    Args:
        architecture: The network.
        batch_size: Images at once.
        seed: Seed of the weights.

    Raises:
        ArchitectureError: The network would not fit in memory.
        MissingExtraError: The extra ``onnx`` is not installed.

    Example:
        >>> model = onnx_graph(Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", input_size=(3, 8, 8)))
        >>> [node.op_type for node in model.graph.node]
        ['Conv', 'Relu', 'ReduceMean', 'Reshape', 'Gemm']
    """
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "onnx") from None
    check_buildable(architecture)
    writer = _Writer(batch_size, seed)
    tensors = [INPUT_NAME]
    for index, instruction in enumerate(instructions(architecture.lower(), architecture.input_size)):
        tensors.append(writer.write(index, instruction, [tensors[source] for source in instruction.sources]))
    helper, single = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        writer.nodes,
        "network",
        [helper.make_tensor_value_info(INPUT_NAME, single, [batch_size, *architecture.input_size])],
        [helper.make_tensor_value_info(tensors[-1], single, [batch_size, architecture.num_classes])],
        writer.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = _IR_VERSION
    return model


def kernel_index(node_name: str) -> int | None:
    """The number of the kernel that a node belongs to; None for a node that an engine has put in.

    Example:
        >>> kernel_index("kernel12_conv_nchwc"), kernel_index("ReorderOutput")
        (12, None)
    """
    match = _NAME.match(node_name)
    return int(match[1]) if match else None


class _Writer:
    """Nodes and weights so far."""

    def __init__(self, batch_size: int, seed: int) -> None:
        self.batch_size = batch_size
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def write(self, index: int, instruction: Instruction, inputs: list[str]) -> str:
        """Appends one kernel's nodes; returns the name of its output."""
        kind, name = instruction.kernel.kind, f"kernel{index}"
        if kind == ADD:
            tensor = inputs[0]
            for number, other in enumerate(inputs[1:]):
                tensor = self._node("Add", f"{name}_add{number}", [tensor, other])
        elif kind == SCALE:
            tensor = self._node("Mul", f"{name}_scale", inputs)
        elif kind == CONCATENATE:
            tensor = self._node("Concat", f"{name}_concatenate", inputs, axis=1)
        else:
            (tensor,) = inputs
        channels = instruction.kernel.in_channels
        for op in instruction.ops:
            tensor = self._op(op, name, tensor, channels, folded=isinstance(instruction.ops[0], ops.Conv))
        return tensor

    def _op(self, op: ops.Op, name: str, tensor: str, channels: int, folded: bool) -> str:
        if isinstance(op, ops.Conv):
            pads, strides = [op.padding] * 4, [op.stride] * 2
            weights = self._random(f"{name}_w", (op.out_channels, op.in_channels // op.groups, *[op.kernel_size] * 2))
            biases = self._constant(f"{name}_b", np.zeros(op.out_channels, np.float32))
            shape = {"kernel_shape": [op.kernel_size] * 2, "dilations": [op.dilation] * 2}
            inputs = [tensor, weights, biases]
            return self._node("Conv", f"{name}_conv", inputs, pads=pads, strides=strides, group=op.groups, **shape)
        if isinstance(op, ops.BatchNorm):
            return tensor if folded else self._batch_norm(op, name, tensor)
        if isinstance(op, ops.Activation):
            return self._node({"relu": "Relu", "sigmoid": "Sigmoid"}[op.kind], f"{name}_{op.kind}", [tensor])
        if isinstance(op, ops.GlobalPool):
            axes = self._constant(f"{name}_axes", np.array([2, 3]))
            return self._node("ReduceMean", f"{name}_pool", [tensor, axes], keepdims=1)
        if isinstance(op, ops.Pool):
            window = {"kernel_shape": [op.kernel_size] * 2, "strides": [op.stride] * 2, "pads": [op.padding] * 4}
            return self._node("MaxPool" if op.kind == "max" else "AveragePool", f"{name}_pool", [tensor], **window)
        if isinstance(op, ops.Zero):
            return self._zero(op, name, tensor)
        if isinstance(op, ops.Linear):
            flat = self._constant(f"{name}_shape", np.array([self.batch_size, op.in_features]))
            weights = self._random(f"{name}_w", (op.out_features, op.in_features))
            biases = self._constant(f"{name}_b", np.zeros(op.out_features, np.float32))
            flattened = self._node("Reshape", f"{name}_flat", [tensor, flat])
            return self._node("Gemm", f"{name}_linear", [flattened, weights, biases], transB=1)
        raise ArchitectureError(f"no ONNX operator is known for the operation {type(op).__name__}")

    def _batch_norm(self, op: ops.BatchNorm, name: str, tensor: str) -> str:
        ones, zeros = np.ones(op.channels, np.float32), np.zeros(op.channels, np.float32)
        parts = (("scale", ones), ("shift", zeros), ("mean", zeros), ("variance", ones))
        statistics = [self._constant(f"{name}_{part}", value) for part, value in parts]
        epsilon = ops.BATCH_NORM_EPSILON
        return self._node("BatchNormalization", f"{name}_norm", [tensor, *statistics], epsilon=epsilon)

    def _zero(self, op: ops.Zero, name: str, tensor: str) -> str:
        if op.stride > 1:
            starts, ends = np.array([0, 0]), np.array([np.iinfo(np.int64).max] * 2)
            bounds = (
                ("starts", starts),
                ("ends", ends),
                ("axes", np.array([2, 3])),
                ("steps", np.array([op.stride] * 2)),
            )
            tensor = self._node(
                "Slice", f"{name}_slice", [tensor, *(self._constant(f"{name}_{n}", v) for n, v in bounds)]
            )
        return self._node("Mul", f"{name}_zero", [tensor, self._constant(f"{name}_factor", np.array(0, np.float32))])

    def _node(self, operator: str, name: str, inputs: list[str], **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def _random(self, name: str, shape: tuple[int, ...]) -> str:
        deviation = 1 / math.sqrt(math.prod(shape[1:]))
        return self._constant(name, self.rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation))

    def _constant(self, name: str, value: np.ndarray[Any, Any]) -> str:
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(value, name))
        return name
