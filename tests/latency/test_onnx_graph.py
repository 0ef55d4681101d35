"""The graph written down directly is the one that torch's exporter gives for the built network."""

from collections import Counter

import numpy as np
import pytest

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.kernels import kernels
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.latency.onnx_graph import kernel_index, onnx_graph
from zeroshot_nas.network.module import build
from zeroshot_nas.network.to_onnx import onnx_model
from zeroshot_nas.spaces.base import get_space

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def convolutions(model):
    found = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            weights = next(each for each in model.graph.initializer if each.name == node.input[1])
            found.append(
                (tuple(weights.dims), attributes["group"], *map(tuple, (attributes["strides"], attributes["pads"])))
            )
    return found


@pytest.mark.parametrize(
    ("text", "squeeze_excite"),
    [
        ("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,2)SuperResK1K5K1(16,16,1,8,1)", False),
        ("SuperConvK3BNRELU(3,8,2,1)SuperResIDWE2K3(8,16,2,8,1)", True),
    ],
)
def test_operators_and_convolutions_are_the_exporters(text, squeeze_excite):
    architecture = Architecture.from_string(text, (3, 16, 16), squeeze_excite=squeeze_excite)
    ours, exported = onnx_graph(architecture), onnx_model(build(architecture), (3, 16, 16))
    assert Counter(each.op_type for each in ours.graph.node) == Counter(each.op_type for each in exported.graph.node)
    assert Counter(convolutions(ours)) == Counter(convolutions(exported))


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "nasbench201", "nasbench101", "nasbench301", "transnas_micro"])
def test_every_space_runs(name):
    space = get_space(name, input_size=(3, 32, 32), num_classes=7)
    architecture = space.sample(python_rng(3))
    model = onnx_graph(architecture, batch_size=2, seed=1)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    (logits,) = session.run(None, {"images": images})
    assert logits.shape == (2, 7)
    assert np.isfinite(logits).all()
    owners = {kernel_index(node.name) for node in model.graph.node}
    assert None not in owners
    empty = {
        index for index, each in enumerate(kernels(architecture)) if each.kind == "activation" and not each.activation
    }
    assert owners == set(range(len(kernels(architecture)))) - empty


def test_the_weights_are_the_seeds():
    net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", (3, 8, 8))
    one, same, other = (onnx_graph(net, seed=seed).SerializeToString() for seed in (0, 0, 1))
    assert one == same != other


def test_a_network_that_would_not_fit_is_refused():
    net = Architecture.from_string("SuperConvK7BNRELU(3,2000000,1,1)SuperConvK7BNRELU(2000000,2000000,1,1)", (3, 8, 8))
    with pytest.raises(ArchitectureError, match="params; more than"):
        onnx_graph(net)
