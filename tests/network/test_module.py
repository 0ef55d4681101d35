"""Built networks: shapes, seeds, the residual switch, initialisation."""

import contextlib
import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from tests.strategies import architectures
from zeroshot_nas import Architecture, Network, build
from zeroshot_nas.core.seeding import preserved_rng, torch_generator
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.network.module import Gate, Residual, initialize, without_residual_links

SMALL = Architecture.from_string(
    "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,12,2,8,2)SuperResIDWE2K3(12,16,2,8,1)", (3, 9, 8), squeeze_excite=True
)


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.slow
@settings(max_examples=25)
@given(architectures(max_blocks=3), st.integers(2, 3))
def test_shapes(architecture, batch):
    network = build(architecture).eval()
    images = torch.zeros(batch, *architecture.input_size)
    with torch.no_grad():
        features = network.forward_features(images)
        logits = network.forward_head(features)
        assert torch.equal(network(images), logits)
    assert tuple(features.shape[1:]) == architecture.feature_shape
    assert logits.shape == (batch, architecture.num_classes)


def test_the_blocks_are_the_architectures():
    network = build(SMALL)
    assert isinstance(network, Network)
    assert network.architecture == SMALL
    assert len(network.blocks) == len(SMALL.blocks)
    shape = (3, 9, 8)
    x = torch.zeros(2, *shape)
    network.eval()
    for module, (_, channels, resolution) in zip(network.blocks, SMALL.inputs(), strict=True):
        assert tuple(x.shape[1:]) == (channels, *resolution)
        x = module(x)
    assert tuple(x.shape[1:]) == SMALL.feature_shape


def test_a_training_step_reaches_every_parameter():
    """No part is built but not used; gradients are finite."""
    network = build(SMALL)
    loss = network(torch.randn(4, 3, 9, 8, generator=torch_generator(0))).square().sum()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_the_same_seed_builds_the_same_network():
    assert torch.equal(weights(build(SMALL, seed=3)), weights(build(SMALL, seed=3)))
    assert not torch.equal(weights(build(SMALL, seed=3)), weights(build(SMALL, seed=4)))
    assert not torch.equal(weights(build(SMALL, init="gaussian")), weights(build(SMALL, init="kaiming")))


@pytest.mark.parametrize("init", ["kaiming", "gaussian", "keep"])
def test_building_leaves_the_global_random_state(init):
    with preserved_rng():
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        build(SMALL, init=init)
        assert torch.equal(torch.rand(3), expected)


def test_the_global_random_state_does_not_reach_the_weights():
    with preserved_rng():
        torch.manual_seed(1)
        first = weights(build(SMALL, seed=0))
        torch.manual_seed(2)
        assert torch.equal(weights(build(SMALL, seed=0)), first)


def test_state_dicts_and_copies_carry_the_network():
    network, other = build(SMALL, seed=1).eval(), build(SMALL, init="keep").eval()
    images = torch.randn(2, 3, 9, 8, generator=torch_generator(0))
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(other(images), network(images))
        assert torch.equal(copy.deepcopy(network)(images), network(images))


# The residual switch


def test_links_off_leaves_the_bodies_alone():
    """Off: each unit is its body; on: body plus shortcut. Weights are kaiming, so the two differ."""
    network = build(SMALL).eval()
    images = torch.randn(2, 3, 9, 8, generator=torch_generator(0))

    def flat(parts):
        for part in parts:
            yield from flat(part) if isinstance(part, torch.nn.Sequential) else [part]

    def by_hand(linked: bool) -> torch.Tensor:
        x = images
        for part in flat(network.blocks):
            main = part.body(x) if isinstance(part, Residual) else part(x)
            x = main + part.shortcut(x) if isinstance(part, Residual) and linked else main
        return x

    with torch.no_grad():
        with without_residual_links(network):
            off = network.forward_features(images)
        on = network.forward_features(images)
        assert torch.equal(off, by_hand(linked=False))
        assert torch.equal(on, by_hand(linked=True))
    assert not torch.allclose(on, off)


def test_links_come_back_as_they_were():
    network = build(SMALL)
    links = [part for part in network.modules() if isinstance(part, Residual)]
    assert len(links) == 4
    links[1].link = False
    with contextlib.suppress(KeyError), without_residual_links(network):
        assert not any(part.link for part in links)
        raise KeyError
    assert [part.link for part in links] == [True, False, True, True]


def test_the_switch_leaves_foreign_modules_alone():
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    x = torch.ones(1, 3, 2, 2)
    before = module(x)
    with without_residual_links(module):
        assert torch.equal(module(x), before)


def test_the_gate_multiplies():
    class Half(nn.Module):
        def forward(self, x):
            return torch.full((x.shape[0], x.shape[1], 1, 1), 0.5)

    x = torch.arange(8.0).reshape(1, 2, 2, 2)
    assert torch.equal(Gate(Half())(x), x / 2)


# Initialisation


def several() -> nn.Module:
    """Layers of every kind that is drawn, and one (the PReLU) that is not; more than 10,000 weights each."""
    return nn.ModuleDict(
        {
            "conv": nn.Conv2d(32, 64, 3),
            "grouped": nn.Conv2d(128, 256, 5, groups=32, bias=False),
            "conv1d": nn.Conv1d(64, 64, 3),
            "linear": nn.Linear(256, 64),
            "norm": nn.BatchNorm2d(8),
            "prelu": nn.PReLU(4),
        }
    )


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("gaussian", dict.fromkeys(("conv", "grouped", "conv1d", "linear"), 1.0)),
        (
            "kaiming",
            {
                "conv": math.sqrt(2 / (64 * 9)),
                "grouped": math.sqrt(2 / (256 / 32 * 25)),
                "conv1d": math.sqrt(2 / (64 * 3)),
                "linear": math.sqrt(1 / 256),
            },
        ),
    ],
)
def test_the_weights_statistics(init, expected):
    """Mean within 5 standard errors of 0, standard deviation within 5 of its own (sigma / sqrt(2 n)); a fixed seed."""
    module = several()
    initialize(module, init, torch_generator(0))
    for name, deviation in expected.items():
        drawn = module[name].weight.detach().double()
        count = drawn.numel()
        assert count > 10_000
        assert abs(drawn.mean().item()) < 5 * deviation / math.sqrt(count)
        assert abs(drawn.std().item() - deviation) < 5 * deviation / math.sqrt(2 * count)
        kurtosis = (drawn / deviation).pow(4).mean().item()
        assert kurtosis == pytest.approx(3, abs=5 * math.sqrt(96 / count))  # a normal's, not a uniform's 1.8


@pytest.mark.parametrize("init", ["gaussian", "kaiming"])
def test_biases_and_norms_are_reset_and_other_layers_kept(init):
    module = several()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(7.0)
        module["norm"].running_mean.fill_(7.0)
        module["norm"].running_var.fill_(7.0)
        module["norm"].num_batches_tracked.fill_(7)
    initialize(module, init, torch_generator(0))
    for name in ("conv", "conv1d", "linear"):
        assert not module[name].bias.any()
    norm = module["norm"]
    assert (norm.weight == 1).all()
    assert not norm.bias.any()
    assert not norm.running_mean.any()
    assert (norm.running_var == 1).all()
    assert norm.num_batches_tracked == 0
    assert (module["prelu"].weight == 7).all()


def test_keep_changes_nothing_and_draws_nothing():
    module, generator = several(), torch_generator(0)
    before, state = copy.deepcopy(module.state_dict()), generator.get_state()
    initialize(module, "keep", generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(generator.get_state(), state)


def test_the_draw_is_the_generators():
    """The same seed gives the same weights whatever stood there before; a module's own mode and grads do not matter."""
    first, second = several(), several().eval()
    second["conv"].weight.grad = torch.ones_like(second["conv"].weight)
    for module in (first, second):
        initialize(module, "gaussian", torch_generator(4))
    assert torch.equal(weights(first), weights(second))


@pytest.mark.parametrize("init", ["Gaussian", "", None, "xavier"])
def test_an_unknown_initialisation_is_refused(init):
    with pytest.raises(ValueError, match="init must be 'kaiming', 'gaussian' or 'keep'"):
        build(SMALL, init=init)


COMPUTED = {
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.3),
    "old spectral_norm": nn.utils.spectral_norm,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("compute", COMPUTED.values(), ids=COMPUTED)
def test_weights_that_are_computed_are_drawn_too(compute):
    layer = compute(nn.Conv2d(3, 8, 3))
    images, outputs = torch.randn(2, 3, 8, 8, generator=torch_generator(4)), []
    for seed in (0, 1, 0):
        initialize(layer, "gaussian", torch_generator(seed))
        with torch.no_grad():
            outputs.append(layer.eval()(images))
    assert not torch.allclose(outputs[0], outputs[1], rtol=0.1)
    assert torch.allclose(outputs[0], outputs[2], rtol=1e-2, atol=1e-2)


def test_a_weight_norm_takes_the_weight_that_a_plain_layer_has():
    plain, normed = nn.Conv2d(3, 8, 3), nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    for layer in (plain, normed):
        initialize(layer, "kaiming", torch_generator(5))
    assert torch.allclose(plain.weight, normed.weight, rtol=1e-5)


def test_a_parametrisation_without_an_inverse_is_refused():
    class Positive(nn.Module):
        def forward(self, x):
            return x.abs()

    layer = nn.Linear(3, 2)
    nn.utils.parametrize.register_parametrization(layer, "weight", Positive())
    with pytest.raises(ArchitectureError, match=r"takes no drawn values .*use init='keep'"):
        initialize(layer, "gaussian", torch_generator(0))
