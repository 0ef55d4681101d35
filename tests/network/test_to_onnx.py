"""Exported models compute what the modules do, and leave them alone."""

import copy
import logging
import random
import sys

import numpy as np
import pytest
import torch
from torch import nn

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.errors import ExportError, MissingExtraError
from zeroshot_nas.network.module import build
from zeroshot_nas.network.to_onnx import onnx_model

onnxruntime = pytest.importorskip("onnxruntime")

TEXT = "SuperConvK3BNRELU(3,8,1,1)SuperResIDWE2K3(8,16,2,8,1)"


def trained_network() -> nn.Module:
    """A network whose running statistics differ from fresh ones, so that folding has something to fold."""
    network = build(Architecture.from_string(TEXT, (3, 8, 8), squeeze_excite=True))
    generator = torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.5, 2.0, generator=generator)
    return network


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})[0]


@pytest.fixture(scope="module")
def exported():
    """One export for several tests: it takes seconds."""
    network = trained_network().train()
    before = copy.deepcopy(network.state_dict())
    states = random.getstate(), torch.get_rng_state()
    model = onnx_model(network, (3, 8, 8), dynamic_batch=True)
    return network, before, states, (random.getstate(), torch.get_rng_state()), model


@pytest.mark.slow
def test_the_model_computes_what_the_network_does_for_any_batch(exported):
    network, _, _, _, model = exported
    network = copy.deepcopy(network).eval()
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected = network(images).numpy()
        np.testing.assert_allclose(run(model, images), expected, rtol=1e-4, atol=1e-5)


def test_batch_norms_are_folded(exported):
    assert "BatchNormalization" not in {node.op_type for node in exported[-1].graph.node}


def test_the_module_and_the_random_state_are_left_as_found(exported):
    network, before, states, states_after, _ = exported
    assert network.training
    assert all(part.training for part in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    assert states[0] == states_after[0]
    assert torch.equal(states[1], states_after[1])


def test_a_fixed_batch_size_is_in_the_models_input(caplog, capfd):
    disabled = logging.root.manager.disable
    model = onnx_model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), (3, 6, 6), batch_size=4, opset=18)
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [4, 3, 6, 6]
    assert [entry.version for entry in model.opset_import] == [18]
    assert run(model, torch.zeros(4, 3, 6, 6)).shape == (4, 64)
    assert logging.root.manager.disable == disabled
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr() == ("", "")


def test_what_does_not_run_is_refused_with_its_cause():
    with pytest.raises(ExportError, match=r"Conv2d could not be exported .*\(1, 4, 6, 6\).*Check input_size"):
        onnx_model(nn.Conv2d(3, 4, 3), (4, 6, 6))


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True])
def test_a_batch_size_that_is_none_is_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        onnx_model(nn.Conv2d(3, 4, 3), (3, 6, 6), batch_size=batch_size)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"onnxscript .*zeroshot-nas\[onnx\]"):
        onnx_model(nn.Conv2d(3, 4, 3), (3, 6, 6))
