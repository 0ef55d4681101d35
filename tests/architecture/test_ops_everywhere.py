"""Every operation has a rule or a named refusal in every place that reads operations.

Who adds an operation gives it an example here; what then fails names the places that must know it.
"""

import inspect
import math
from dataclasses import dataclass

import numpy as np
import onnxruntime
import pytest
import torch

from tests.counting import counted
from zeroshot_nas.architecture import ops
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec, block_steps, register_block
from zeroshot_nas.architecture.kernels import kernels
from zeroshot_nas.architecture.ops import (
    COMPOSITES,
    OPS,
    Activation,
    BatchNorm,
    Conv,
    Edge,
    Gate,
    GlobalPool,
    Graph,
    Linear,
    Node,
    Pool,
    Repeat,
    Residual,
    Zero,
)
from zeroshot_nas.closed_form.cet.score import cet
from zeroshot_nas.closed_form.entropy import entropy_deepmad, entropy_maedet
from zeroshot_nas.closed_form.topology import nn_degree, nn_mass
from zeroshot_nas.closed_form.zen import zen_closed_form
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError, UndefinedScoreError, ZeroShotNASError
from zeroshot_nas.export.source import source
from zeroshot_nas.latency.onnx_graph import onnx_graph
from zeroshot_nas.micro.memory import memory
from zeroshot_nas.network.inheritance import inherit
from zeroshot_nas.network.module import build
from zeroshot_nas.quantization.program import float_program
from zeroshot_nas.scoring.perturbed_pass import count_weights, gaussian_weights, is_chain, perturbed_pass
from zeroshot_nas.training.checkpoint import TrainedNetwork

WIDTH, SIDE = 8, 6
UNIT = (Conv(WIDTH, WIDTH, 3), BatchNorm(WIDTH))
STEM = (Residual(UNIT), Activation())


@dataclass(frozen=True, slots=True)
class Swirl:
    """An operation that nobody knows."""

    def output_shape(self, shape):
        return shape


EXAMPLES = {
    Conv: {"full": UNIT, "depthwise": (Conv(WIDTH, WIDTH, 3, groups=WIDTH), BatchNorm(WIDTH))},
    BatchNorm: {"": (BatchNorm(WIDTH),)},
    Activation: {"relu": (Activation(),), "sigmoid": (Activation("sigmoid"),)},
    Pool: {"average": (Pool(),), "max": (Pool("max"),), "2x2": (Pool("average", 2, 2),)},
    Zero: {"": (Residual((Zero(),)),), "stride": (Residual((Zero(2),), (Pool("average", 2, 2),)),)},
    GlobalPool: {"in the head": UNIT},
    Linear: {"in the head": UNIT},
    Gate: {"": (Gate((GlobalPool(), Conv(WIDTH, 4, 1), Activation(), Conv(4, WIDTH, 1), Activation("sigmoid"))),)},
    Residual: {"identity": (Residual(UNIT),), "projection": (Residual(UNIT, UNIT),)},
    Repeat: {"": (Repeat((*UNIT, Activation()), 2),)},
    Graph: {
        "sum": (Graph((Node((Edge(0), Edge(0, (Activation(), *UNIT)))),)),),
        "concatenation": (Graph((Node((Edge(0), Edge(0)), "concatenation"),)), Conv(2 * WIDTH, WIDTH, 1)),
    },
    Swirl: {"": (Swirl(),)},
}
"""Operations of each class as they stand in a block, behind a residual unit and before a ReLU."""


@pytest.fixture
def architecture_of(monkeypatch):
    """Makes the architecture of a tuple of operations."""
    monkeypatch.setattr(BLOCKS, "_entries", {name: BLOCKS[name] for name in BLOCKS})

    def make(example):
        @register_block("OpsTest", plainnet_fields=None)
        @dataclass(frozen=True)
        class OpsTest(BlockSpec):
            def first(self, in_channels):
                return (Conv(in_channels, WIDTH, 3), BatchNorm(WIDTH), Activation(), *STEM, *example, Activation())

        return Architecture((OpsTest(WIDTH),), (3, SIDE, SIDE), num_classes=4)

    return make


def _images(architecture, count=2):
    return torch.rand(count, *architecture.input_size, generator=torch.Generator().manual_seed(0))


def shapes(architecture):
    steps, resolution = block_steps(architecture.blocks[0], 3, (SIDE, SIDE))
    assert steps
    assert architecture.feature_shape == (WIDTH, *resolution)


def network(architecture):
    features = build(architecture).forward_features(_images(architecture))
    assert tuple(features.shape[1:]) == architecture.feature_shape


def costs(architecture):
    found = complexity(architecture)
    assert (found.params, found.flops, found.activations) == counted(architecture)


def latency_kernels(architecture):
    convs = sum(isinstance(part, torch.nn.Conv2d) for part in build(architecture).modules())
    assert sum(each.kind in ("conv", "depthwise") for each in kernels(architecture)) == convs


def onnx(architecture):
    session = onnxruntime.InferenceSession(onnx_graph(architecture).SerializeToString())
    (logits,) = session.run(None, {"images": _images(architecture, 1).numpy()})
    assert logits.shape == (1, architecture.num_classes)


def python_file(architecture):
    trained = TrainedNetwork(architecture, [0.4] * 3, [0.3] * 3, list("abcd")).eval()
    trained.load_state_dict(build(architecture).state_dict())
    space = {}
    exec(source(trained), space)
    with torch.no_grad():
        np.testing.assert_allclose(space["load"]()(_images(architecture)), trained(_images(architecture)), atol=1e-5)


def inheritance(architecture):
    parent = build(architecture).eval()
    child = inherit(parent, architecture)
    torch.testing.assert_close(child(_images(architecture)), parent(_images(architecture)))


def zen_pass(architecture):
    """Its caller asks `is_chain` first, and takes the built network where it says no."""
    if not is_chain(architecture):
        raise ArchitectureError(f"no chain: {architecture.lower()}")
    images = _images(architecture)
    passed = perturbed_pass(architecture, images, images + 0.01, gaussian_weights(0, 0, count_weights(architecture)))
    assert passed.features.isfinite().all()


def _finite(function):
    def place(architecture):
        assert math.isfinite(function(architecture))

    return place


def microcontroller(architecture):
    """Its operators compute what the network does."""
    trained = TrainedNetwork(architecture, [0.4] * 3, [0.3] * 3, list("abcd")).eval()
    trained.load_state_dict(build(architecture).state_dict())
    *_, logits = float_program(trained).run(_images(architecture))
    with torch.no_grad():
        torch.testing.assert_close(logits.flatten(1), trained(_images(architecture)), rtol=1e-3, atol=1e-4)
    assert memory(architecture).tensors >= SIDE**2


PLACES = {
    "shapes": shapes,
    "network": network,
    "costs": costs,
    "latency kernels": latency_kernels,
    "onnx graph": onnx,
    "python file": python_file,
    "microcontroller": microcontroller,
    "inheritance": inheritance,
    "zen's pass": zen_pass,
    "zen": _finite(zen_closed_form),
    "cet": _finite(cet),
    "entropy_maedet": _finite(entropy_maedet),
    "entropy_deepmad": _finite(entropy_deepmad),
    "nn_mass": _finite(nn_mass),
    "nn_degree": _finite(nn_degree),
}

REFUSED = {
    "inheritance": {"Graph"},
    "zen's pass": {"Pool", "Zero", "Graph"},
    "zen": {"Pool", "Zero", "Graph", "Activation sigmoid"},
    "cet": {"Activation sigmoid"},
    "entropy_maedet": {"Graph"},
    "entropy_deepmad": {"Graph"},
    "nn_mass": {"Graph"},
    "nn_degree": {"Graph"},
}
"""Where an operation, or one example of it, is refused on purpose; all else has a rule."""

CASES = [(cls, name) for cls, examples in EXAMPLES.items() for name in examples]


def _id(case):
    return f"{case[0].__name__} {case[1]}".strip()


def _expect_examples():
    """Every operation class of the module is in its lists, and has an example above."""
    defined = {each for _, each in inspect.getmembers(ops, inspect.isclass) if hasattr(each, "output_shape")}
    defined.remove(ops.Step)
    assert defined == {*OPS, *COMPOSITES} == {vars(ops)[name] for name in ops.Op.split(" | ")}
    assert defined == set(EXAMPLES) - {Swirl}


def test_every_operation_is_listed_and_has_an_example(monkeypatch):
    _expect_examples()
    monkeypatch.setattr(ops, "Swirl", Swirl, raising=False)  # as if someone had added it
    with pytest.raises(AssertionError):
        _expect_examples()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", CASES, ids=_id)
def test_an_operation_has_a_rule_or_a_named_refusal(architecture_of, case, place):
    cls, name = case
    architecture = architecture_of(EXAMPLES[cls][name])
    if cls is Swirl and place != "shapes":
        with pytest.raises(ZeroShotNASError, match="Swirl"):
            PLACES[place](architecture)
    elif {cls.__name__, _id(case)} & REFUSED.get(place, set()):
        with pytest.raises((ArchitectureError, UndefinedScoreError)):
            PLACES[place](architecture)
    else:
        PLACES[place](architecture)
