"""ONNX models of an older operator set, for devices whose runtime is old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from onnx import NodeProto, TensorProto
    from onnx.defs import OpSchema
else:
    onnx = LazyModule("onnx")

OLDEST_OPSET = 13
"""The oldest operator set that models are written in: the first with scales by channel, which int8 needs."""


def lower_opset(model: onnx.ModelProto, opset: int) -> None:
    """Rewrites a model in place for an older operator set.

    An operator keeps its meaning where its older form takes what it is given; axes that became an input are made an
    attribute again, and attributes that the older form lacks are left out where they say nothing. onnx's own converter
    has no way down for most operators. Whether the model computes the same is for the caller to check.

    Args:
        model: A model of a later operator set.
        opset: The version wanted.

    Raises:
        ExportError: An operator has no form in that operator set.
    """
    if opset < OLDEST_OPSET:
        raise ExportError(f"ONNX opset {opset} is too old; expected {OLDEST_OPSET} or later")
    (entry,) = (each for each in model.opset_import if each.domain in ("", "ai.onnx"))
    constants = {each.name: each for each in model.graph.initializer}
    for node in model.graph.node:
        if node.domain in ("", "ai.onnx"):
            _lower(node, entry.version, opset, constants)
        del node.metadata_props[:]  # later than the file's version, and of the exporter alone
    used = {name for node in model.graph.node for name in node.input}
    kept = [each for each in model.graph.initializer if each.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    entry.version = opset
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import))
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the model has no form in ONNX opset {opset}: {str(error).splitlines()[0]}") from error


def _lower(node: NodeProto, current: int, opset: int, constants: Mapping[str, TensorProto]) -> None:
    try:
        new, old = (onnx.defs.get_schema(node.op_type, max_inclusive_version=version) for version in (current, opset))
    except onnx.defs.SchemaError as error:
        raise ExportError(f"{node.op_type} is not in ONNX opset {opset}; choose a later one") from error
    if new.since_version == old.since_version:
        return
    if len(node.input) == 2 and "axes" in old.attributes and node.input[1] in constants:
        axes = onnx.numpy_helper.to_array(constants[node.input[1]]).tolist()
        node.attribute.append(onnx.helper.make_attribute("axes", axes))
        del node.input[1:]
    kept = [each for each in node.attribute if each.name in old.attributes]
    lost = [each for each in node.attribute if each.name not in old.attributes and not _says_nothing(each, new)]
    if (
        node.op_type == "Reshape"
        and node.input[1] in constants
        and onnx.numpy_helper.to_array(constants[node.input[1]]).all()
    ):
        lost = [each for each in lost if each.name != "allowzero"]  # there is no 0 to allow
    if lost or len(node.input) > old.max_input or len(node.output) > old.max_output:
        raise ExportError(f"{node.op_type} as it is used here has no form in ONNX opset {opset}; choose a later one")
    del node.attribute[:]
    node.attribute.extend(kept)


def _says_nothing(attribute: onnx.AttributeProto, schema: OpSchema) -> bool:
    """Whether an attribute has the value that it has where it is missing."""
    default = schema.attributes[attribute.name].default_value
    return (
        bool(onnx.helper.get_attribute_value(attribute) == onnx.helper.get_attribute_value(default))
        if default.name
        else False
    )
