"""The int8 backend runs what ``export --int8`` ships, and its nodes are our kernels."""

from collections import Counter

import pytest
import torch
from torch import nn

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.kernels import ADD, CONV, DEPTHWISE, LINEAR, kernels
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.latency.base import BACKENDS
from zeroshot_nas.latency.ort_model import _owners, _seconds_by_kernel
from zeroshot_nas.spaces.base import get_space

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

INT8 = BACKENDS["onnxruntime_int8"]


def a_net(space):
    where = get_space(space, input_size=(3, 16, 16))
    return min((where.sample(python_rng(seed)) for seed in range(8)), key=lambda net: net.layers)


def quantised(model):
    """Operators that read weights, by the type and the number of scales of these."""
    graph = onnx.load_model_from_string(model).graph
    constants = {each.name: each for each in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found = Counter()
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            stored, scale = (constants[name] for name in makers[node.input[1]].input[:2])
            found[node.op_type, onnx.helper.tensor_dtype_to_np_dtype(stored.data_type).name, tuple(scale.dims)] += 1
    return found


@pytest.mark.parametrize("space", ["resnet", "mobilenet"])
def test_its_model_is_quantised_as_an_exported_file(space, tmp_path):
    from tests.export.test_export import trained_network
    from zeroshot_nas.export.exporting import export_network
    from zeroshot_nas.training.base import ImageData

    net = a_net(space)
    noise, labels = torch.rand(4, *net.input_size), torch.zeros(4, dtype=torch.long)
    network = trained_network(net)
    data = ImageData(noise, labels, noise, labels, network.class_names, "noise")
    export_network(network, tmp_path, int8=True, data=data)
    shipped = quantised((tmp_path / "model.int8.onnx").read_bytes())
    timed = quantised(INT8.convert(net, net.input_size, 1).source)
    assert timed == shipped
    weighted = [each for each in kernels(net) if each.kind in (CONV, DEPTHWISE, LINEAR)]
    assert timed.total() == len(weighted)
    assert {dtype for _, dtype, _ in timed} == {"int8"}
    assert Counter(scales[0] for kind, _, scales in timed.elements() if kind == "Conv") == Counter(
        each.out_channels for each in weighted if each.kind != LINEAR
    )


@pytest.mark.parametrize("space", ["resnet", "mobilenet"])
def test_every_kernel_of_int8_takes_time(space):
    net = a_net(space)
    with INT8.prepared(net, net.input_size) as (prepared,):
        found = prepared.kernel_seconds(6)
    assert all(len(run) == len(kernels(net)) for run in found)
    for kernel, *seconds in zip(kernels(net), *found, strict=True):
        assert (max(seconds) > 0) or kernel.kind == ADD


def test_two_conversions_are_one_model():
    net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", (3, 8, 8))
    assert INT8.convert(net, net.input_size, 1) == INT8.convert(net, net.input_size, 1)
    assert INT8.convert(nn.Conv2d(3, 4, 3), (3, 8, 8), 2).kernels is None


def test_what_turns_int8_into_float_is_for_the_kernel_behind():
    names = [
        "images_QuantizeLinear",
        "kernel0_conv_token_1",
        "Transpose_token_7",
        "kernel0_relu_DequantizeLinear",
        "kernel1_pool",
        "kernel1_pool_QuantizeLinear",
        "ReorderInput",
        "kernel2_linear",
        "kernel2_linear_DequantizeLinear",
    ]
    assert list(_owners(names).values()) == [None, 0, 1, 1, 1, 1, 1, 2, 2]
    events = [{"cat": "Node", "name": f"{name}_kernel_time", "dur": 10**index} for index, name in enumerate(names)]
    assert _seconds_by_kernel(events, 1, 3) == [[pytest.approx(value / 1e6) for value in (10, 1_111_100, 110_000_000)]]
