"""CET measured on modules: estimators against known spectra, a plain chain against its mean field, laws, failures."""

import copy
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import zeroshot_nas as zs
from zeroshot_nas.closed_form.cet.score import cet as closed_form
from zeroshot_nas.closed_form.cet.terms import GRADIENT_GAIN, LINEAR_LOSS, ConvColumns
from zeroshot_nas.core.score import Score
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.network.module import initialize
from zeroshot_nas.scoring.autograd_graph import AutogradGraph
from zeroshot_nas.scoring.measured_cet import _rank, _Sampler, measure_cet
from zeroshot_nas.scoring.passes import SharedPasses
from zeroshot_nas.scoring.proxy import READS, Batch
from zeroshot_nas.spaces.nasbench201 import NASBench201


def measure(module: nn.Module, batch: Batch) -> SimpleNamespace:
    """The pieces of a module by CET-G, and its convolutions one by one, without the stem."""
    found = measure_cet(module, batch)
    named = [
        SimpleNamespace(weights=count, **dict(zip(ConvColumns._fields, row, strict=True)))
        for count, row in zip(found.weights, np.transpose(found.layers).tolist(), strict=True)
        if not row[-1]  # no stem
    ]
    pieces = found.pieces
    return SimpleNamespace(layers=named, **vars(pieces), D=pieces.D, value=float(pieces.value("g")))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch_generator(seed))


def batch(images: int = 8, side: int = 16, seed: int = 0) -> Batch:
    return Batch(draw(images, 3, side, side, seed=seed), seed=seed)


def conv(inputs: int, outputs: int, kernel: int = 3, **options) -> nn.Sequential:
    padding = kernel // 2 * options.get("dilation", 1)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False, **options), nn.BatchNorm2d(outputs)
    )


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """Kaiming weights from a seed."""
    initialize(module, "kaiming", torch_generator(seed))
    return module


def head(width: int) -> list[nn.Module]:
    return [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]


class Sum(nn.Module):
    """The sum of parallel branches of one input, each after a factor."""

    def __init__(self, *branches: nn.Module, factors: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.factors = factors or (1.0,) * len(branches)

    def forward(self, x):
        return sum(factor * branch(x) for factor, branch in zip(self.factors, self.branches, strict=True))


def chain(depth: int, width: int, seed: int = 0, activation: bool = True) -> nn.Module:
    layers = [conv(3, width)]
    for _ in range(depth):
        layers += [nn.ReLU()] * activation + [conv(width, width)]
    return drawn(nn.Sequential(*layers, *(head(width) if activation else head(width)[1:])), seed)


@pytest.mark.parametrize(("columns", "images", "positions"), [(8, 4, 16), (64, 8, 16), (64, 4, 32)])
def test_ranks_from_few_samples_are_not_biased(columns, images, positions):
    """A spectrum 1, 1/2, 1/3, ...: the mean over draws, where the plain estimator is far below."""
    spectrum = 1 / torch.arange(1, columns + 1)
    expected = spectrum.sum() ** 2 / spectrum.square().sum()
    found, plain = [], []
    for seed in range(150):
        rows = draw(images, positions, 1, columns, seed=seed) * spectrum.sqrt()
        found.append(_rank(rows))
        second = rows.flatten(0, 2).T @ rows.flatten(0, 2)
        plain.append(float(second.trace() ** 2 / second.square().sum()))
    bias, plain_bias = (abs(sum(each) / 150 / expected - 1) for each in (found, plain))
    assert bias < 0.06
    assert bias < plain_bias / 2 or plain_bias < 0.06


def test_a_rank_is_that_of_one_group():
    rows = draw(8, 32, 1, 6)
    assert _rank(torch.cat([rows, rows], 2)) == pytest.approx(_rank(rows))
    assert _rank(draw(8, 32, 5, 1)) == 1


@pytest.mark.parametrize("sides", [(16, 16), (9, 9), (8, 15), (31,)])
def test_effective_positions(sides):
    sampler, zero = _Sampler(8, seed=0), torch.zeros(16)
    positions, white = math.prod(sides), draw(8, 16, *sides)
    assert 0.95 * positions < sampler.effective_positions(white, zero) <= positions
    flat = white.flatten(2).mean(2).view(8, 16, *[1] * len(sides)).expand_as(white)
    assert sampler.effective_positions(flat, zero) == pytest.approx(1)
    full = torch.fft.fftn(white[:, :4], dim=tuple(range(2, white.dim()))).abs().square()
    power = full.mean((0, 1)).double() / full.mean((0, 1)).double().sum()
    expected = torch.special.entr(power).sum().exp()
    which = torch.arange(32)
    assert sampler.effective_positions(white, zero) == pytest.approx(
        _entropy_of(white[which % 8, which % 16], sides), rel=1e-4
    )
    assert float(expected) == pytest.approx(0.97 * positions, rel=0.05)


def _entropy_of(maps, sides):
    full = torch.fft.fftn(maps, dim=tuple(range(1, 1 + len(sides)))).abs().square().mean(0).double()
    return float(torch.special.entr(full / full.sum()).sum().exp())


def test_a_plain_chain_against_its_mean_field():
    """White maps: the excess of channels e' = (1 + 0.5381 e) / 9 behind each layer, and a layer is one layer deep."""
    width, depth, side = 48, 8, 16
    found = [measure(chain(depth, width, seed), batch(16, side, seed)) for seed in range(3)]
    excess = width / 27
    for index in range(depth):
        excess *= 0.5381
        patch = sum(each.layers[index].patch_rank for each in found) / 3
        assert patch == pytest.approx(9 * width / (1 + excess), rel=0.2)
        excess = (1 + excess) / 9
        rank = sum(each.layers[index].output_rank for each in found) / 3
        assert rank == pytest.approx(width / (1 + excess), rel=0.3)  # one draw of weights
        assert all(each.layers[index].output_positions > 0.9 * side**2 for each in found)
    assert sum(each.D_f for each in found) / 3 == pytest.approx(depth, abs=1.0)
    assert sum(each.D_b for each in found) / 3 == pytest.approx(depth, abs=1.0)
    assert all(each.novelty == 1 for pieces in found for each in pieces.layers)


def test_the_value_is_the_pieces():
    pieces = measure(chain(3, 8), batch())
    layer = pieces.layers[0]
    assert (layer.weights, layer.out_channels, layer.positions) == (9 * 64, 8, 256)
    assert len(pieces.layers) == 3
    assert pytest.approx(sum(8 * each.patch_rank for each in pieces.layers)) == pieces.P
    assert pieces.W <= pieces.P
    assert pytest.approx(256 * pieces.W) == pieces.W_L2
    assert pieces.PF <= 256 * pieces.P
    assert max(pieces.D_f, pieces.D_b) == pieces.D
    capacity = math.log(1 + math.sqrt(pieces.W * pieces.W_L2))
    assert pieces.value == pytest.approx(capacity + math.log(0.5 + pieces.E_m) - max(0, pieces.D - 20) / 20)


def test_depth_beyond_twenty_costs():
    deep = measure(chain(28, 8), batch(8, 8))
    assert deep.D > 22
    assert deep.value < math.log(1 + math.sqrt(deep.W * deep.W_L2)) + math.log(0.5 + deep.E_m) - 0.1


def test_a_linear_network_has_no_depth():
    pieces = measure(chain(6, 32, activation=False), batch(16))
    assert abs(pieces.D_f) < 0.7
    assert abs(pieces.D_b) < 0.7


def test_a_skip_keeps_the_linear_part():
    def network(skips):
        blocks = []
        for _ in range(8):
            body = nn.Sequential(nn.ReLU(), conv(16, 16))
            blocks.append(Sum(nn.Identity(), body) if skips else body)
        return drawn(nn.Sequential(conv(3, 16), *blocks, *head(16)))

    with_skips, without = measure(network(True), batch()), measure(network(False), batch())
    assert with_skips.D_f < without.D_f / 2
    assert with_skips.D_b < without.D_b / 2


def parallel(*branches: nn.Module, factors: tuple[float, ...] = ()) -> nn.Module:
    return drawn(nn.Sequential(conv(3, 16), nn.ReLU(), Sum(*branches, factors=factors), *head(16)))


def test_two_parallel_convolutions_of_one_input_count_once():
    one = measure(parallel(conv(16, 16)), batch())
    two = measure(parallel(conv(16, 16), conv(16, 16)), batch())
    assert two.layers[0].novelty == 1
    assert two.layers[1].novelty < 0.02
    assert pytest.approx(one.P, rel=0.05) == two.P


def test_the_larger_of_two_counts_and_the_order_does_not_matter():
    for branches in ((conv(16, 16), conv(16, 16, 1)), (conv(16, 16, 1), conv(16, 16))):
        pieces = measure(parallel(*branches), batch())
        by_weights = {each.weights: each.novelty for each in pieces.layers}
        assert by_weights[9 * 256] == 1
        assert by_weights[256] < 0.05


def test_different_functions_of_one_input_are_new():
    """A convolution behind another reads something else."""
    second = nn.Sequential(conv(16, 16), nn.ReLU(), conv(16, 16))
    pieces = measure(parallel(conv(16, 16), second), batch())
    assert len(pieces.layers) == 3
    assert sum(each.novelty for each in pieces.layers) > 2.8


def test_a_dead_branch_is_no_part():
    live = parallel(conv(16, 16))
    dead = parallel(conv(16, 16), conv(16, 16), factors=(1.0, 0.0))
    dead.load_state_dict(live.state_dict(), strict=False)
    assert len(measure(dead, batch()).layers) == 1
    assert measure(dead, batch()).value == pytest.approx(measure(live, batch()).value, rel=1e-6)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 3.0, 100.0]))
def test_behind_a_norm_the_weights_scale_does_not_matter(seed, scale):
    module = chain(3, 8, seed)
    before = measure(module, batch(seed=seed))
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                part.weight *= scale
    after = measure(module, batch(seed=seed))
    assert after.value == pytest.approx(before.value, rel=1e-2)
    assert pytest.approx(before.P, rel=1e-2) == after.P


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_ranks_stay_in_their_bounds(seed):
    space = NASBench201(input_size=(3, 16, 16), num_cells=1, channels=8)
    cell = tuple(torch.randint(5, (6,), generator=torch_generator(seed)).tolist())
    try:
        pieces = measure(zs.build(space.network(cell), seed=seed), batch(4))
    except UndefinedScoreError:
        assert not any(place in (2, 3) for place in cell) or 0 in cell  # no path
        return
    for each in pieces.layers:
        assert 1 <= each.patch_rank <= each.weights / each.out_channels + 1e-6
        assert 0 <= each.novelty <= 1
        assert 1 <= each.output_rank <= each.out_channels
        assert 1 <= each.gradient_rank <= each.out_channels
        assert 1 - 1e-6 <= each.output_positions <= each.positions + 1e-6
        assert 1 - 1e-6 <= each.gradient_positions <= each.positions + 1e-6
    assert pieces.W <= pieces.P * (1 + 1e-9)
    assert math.isfinite(pieces.value)


def test_stem_gate_and_bare_shortcut_do_not_count():
    """A reduction block of NAS-Bench-201 and squeeze-and-excitation."""
    space = NASBench201(input_size=(3, 16, 16), num_cells=1, channels=8)
    pieces = measure(zs.build(space.network((1,) * 6)), batch())
    assert [each.weights for each in pieces.layers] == [9 * 8 * 16, 9 * 16 * 16, 9 * 16 * 32, 9 * 32 * 32]

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.down, self.up = conv(8, 8), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

        def forward(self, x):
            x = self.body(x)
            gate = self.up(functional.relu(self.down(x.mean((2, 3), keepdim=True))))
            return x * torch.sigmoid(gate)

    gated = measure(drawn(nn.Sequential(conv(3, 8), nn.ReLU(), Gated(), *head(8))), batch())
    assert [each.weights for each in gated.layers] == [9 * 64]
    assert pytest.approx(1, abs=0.5) == gated.D


def test_more_operations_measure_more():
    space = NASBench201(input_size=(3, 16, 16), num_cells=1, channels=8)
    cells = [(1, 0, 1, 1, 0, 1), (2, 0, 2, 1, 0, 2), (3, 0, 3, 1, 0, 3)]
    found = [measure(zs.build(space.network(cell)), batch()) for cell in cells]
    assert [each.P for each in found] == sorted(each.P for each in found)
    assert [each.E for each in found] == sorted(each.E for each in found)


@pytest.mark.parametrize(
    ("options", "most"), [({"groups": 8}, 9), ({"groups": 2}, 36), ({"dilation": 2}, 72), ({"kernel": 7}, 8 * 16)]
)
def test_grouped_dilated_and_cut_kernels(options, most):
    """A patch rank is that of one group; a 7x7 kernel on a 4x4 map has 16 inputs a channel."""
    layers = [conv(3, 8), nn.ReLU(), nn.AvgPool2d(2), conv(8, 8, **options), *head(8)]
    (layer,) = measure(drawn(nn.Sequential(*layers)), batch(8, 8)).layers
    assert most / 4 < layer.patch_rank <= most


def test_sequences_and_max_pooling():
    lines = nn.Sequential(
        *(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 8, 3), nn.BatchNorm1d(8), nn.ReLU())
    )
    assert measure(lines, Batch(draw(8, 3, 40))).layers[0].positions == 36
    pooled = drawn(nn.Sequential(conv(3, 16), nn.ReLU(), nn.MaxPool2d(2), conv(16, 16), *head(16)))
    average = drawn(nn.Sequential(conv(3, 16), nn.ReLU(), nn.AvgPool2d(2), conv(16, 16), *head(16)))
    assert measure(pooled, batch()).D_f > measure(average, batch()).D_f


class Mixed(nn.Module):
    """Ends in a concatenation of poolings, a scaled map, normalised groups and a product."""

    def __init__(self):
        super().__init__()
        self.body, self.groups = conv(8, 8), nn.GroupNorm(2, 8)

    def forward(self, x):
        y = functional.relu(self.body(x))
        pooled = [pool(y, 3, 1, 1) for pool in (functional.max_pool2d, functional.avg_pool2d)]
        return torch.cat([*pooled, 2 * self.groups(y), y * y], 1)


def test_what_the_last_feature_map_was_is_read_back():
    module = drawn(nn.Sequential(conv(3, 8), nn.ReLU(), Mixed(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    x = draw(4, 3, 8, 8).requires_grad_()
    logits, last = module(x), module[:3](x)
    graph = AutogradGraph(logits, x)
    assert graph.last.name().startswith("Cat")
    convolutions = [each for each in graph.sources if "Convolution" in each.name()]
    assert len(convolutions) == 2
    assert torch.allclose(graph.value(graph.last, {}), last, atol=1e-5)
    assert measure(module, Batch(draw(4, 3, 8, 8))).D > 0


@pytest.mark.parametrize(
    "activation",
    [
        *(
            kind(inplace=inplace)
            for kind in (nn.ReLU, nn.SiLU, nn.ReLU6, nn.Hardswish, nn.Mish)
            for inplace in (False, True)
        ),
        *(kind(inplace=inplace) for kind in (nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU) for inplace in (False, True)),
        *(
            nn.Hardsigmoid(),
            nn.Hardtanh(-0.5, 0.7),
            nn.GELU(),
            nn.GELU("tanh"),
            nn.Softplus(2),
            nn.Tanh(),
            nn.Sigmoid(),
        ),
        *(nn.LogSigmoid(), nn.PReLU()),
    ],
    ids=str,
)
def test_a_last_sum_of_activations_is_read_back(activation):
    """Nothing behind it has saved what they returned."""
    module = drawn(nn.Sequential(conv(3, 8), Sum(nn.Sequential(conv(8, 8), activation), conv(8, 8))))
    x = draw(4, 3, 8, 8).requires_grad_()
    graph = AutogradGraph(module(x).mean((2, 3)), x)
    assert graph.last.name().startswith("Add")
    assert torch.allclose(graph.value(graph.last, {}), module(x), atol=1e-5)


class ChannelsLastNorm(nn.Module):
    """A layer norm over the channels of images, as ConvNeXt has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_a_last_layer_norm_over_channels():
    """With one group, and one position, a group norm is the same function."""
    layers = [conv(3, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    values = []
    for norm in (ChannelsLastNorm(8), nn.GroupNorm(1, 8)):
        module = drawn(nn.Sequential(*copy.deepcopy(layers), norm, nn.Flatten(), nn.Linear(8, 10)))
        values.append(measure(module, batch()).value)
    assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.parametrize(
    "activation",
    [nn.SiLU(), nn.GELU(), nn.ReLU6(), nn.Hardswish(), nn.LeakyReLU(), nn.PReLU(), nn.Tanh()],
)
def test_other_activations(activation):
    """Their linear share is that of the function under a Gaussian."""
    z = draw(200_000).double()
    y = copy.deepcopy(activation).double()(z).detach()
    slope = (z * (y - y.mean())).mean()
    loss = -math.log(slope**2 / y.var())
    layers = [layer for _ in range(5) for layer in (copy.deepcopy(activation), conv(32, 32))]
    module = drawn(nn.Sequential(conv(3, 32), *layers, *head(32)))
    assert measure(module, batch(16)).D_f * LINEAR_LOSS == pytest.approx(5 * loss, abs=0.35)


def test_functions_count_like_modules_and_in_place_like_not():
    class Functional(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.parts = nn.ModuleList([module[0], module[2]])
            self.last = module[-1]

        def forward(self, x):
            for part in self.parts:
                x = functional.conv2d(x, part[0].weight, padding=1)
                x = functional.batch_norm(x, None, None, training=True)
                x = functional.relu_(x)
            return self.last(x.mean((2, 3)))

    module = chain(1, 8)
    assert measure(Functional(module), batch()).value == pytest.approx(measure(module, batch()).value, rel=1e-5)
    in_place = copy.deepcopy(module)
    for part in in_place.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = True
    assert measure(in_place, batch()) == measure(module, batch())


def test_without_batch_norm():
    layers = [nn.Conv2d(3, 16, 3, padding=1)]
    for _ in range(4):
        layers += [nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)]
    pieces = measure(drawn(nn.Sequential(*layers, *head(16))), batch())
    assert len(pieces.layers) == 4
    assert 0 < pieces.D_f < 6


def test_a_feature_map_has_a_random_classifier():
    body = nn.Sequential(*list(chain(2, 8))[:-3])
    pieces = measure(body, batch())
    assert len(pieces.layers) == 2
    assert pieces.D_f == pytest.approx(measure(chain(2, 8), batch()).D_f, abs=0.2)


def test_the_seed_alone_decides():
    module = chain(2, 8)
    state = torch.get_rng_state()
    first = measure(module, batch())
    torch.manual_seed(5)
    assert measure(module, batch()) == first
    torch.set_rng_state(state)
    assert measure(module, batch()._replace(seed=1)) != first


def test_the_module_stays_as_it_was():
    module = chain(2, 8)
    before = copy.deepcopy(module.state_dict())
    hooks = [(len(part._forward_hooks), len(part._backward_hooks)) for part in module.modules()]
    state = torch.get_rng_state()
    zs.score(module, "cet", input_size=(3, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert module.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert [(len(part._forward_hooks), len(part._backward_hooks)) for part in module.modules()] == hooks
    assert module.training


def test_a_score_by_the_shared_passes():
    """Alone, or with a proxy that runs before it in the same passes: the same number; no hook stays."""
    architecture = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,8,1,8,1)", (3, 8, 8))
    net = nn.Sequential(zs.build(architecture))  # as a module of somebody else
    alone = zs.score(net, "cet", input_size=(3, 8, 8), batch_size=8, repeats=2)
    assert alone.ok
    both = zs.score(net, ["az_trainability", "cet", "grad_norm"], input_size=(3, 8, 8), batch_size=8, repeats=2)
    assert both["cet"].value == alone.value
    other = zs.score(net, "grad_norm", input_size=(3, 8, 8), batch_size=8, repeats=2)
    assert both["grad_norm"].value == other.value


def test_twice_in_one_pass_is_once():
    module, given_batch = chain(2, 8), batch()._replace(shared=SharedPasses(True, READS))
    assert measure(module, given_batch) == measure(module, given_batch)


class Returns(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3), function

    def forward(self, x):
        return self.function(self.conv(x))


@pytest.mark.parametrize(
    ("module", "images", "error", "message"),
    [
        (chain(2, 8), draw(1, 3, 16, 16), ProxyError, "two or more"),
        (Returns(lambda y: (y, y)), draw(4, 3, 8, 8), ProxyError, "got tuple"),
        (Returns(lambda y: y.detach().mean((2, 3))), draw(4, 3, 8, 8), ProxyError, "gradient"),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 10)), draw(4, 3, 2, 2), UndefinedScoreError, "no convolution lies"),
        (parallel(conv(16, 16), factors=(0.0,)), draw(4, 3, 8, 8), UndefinedScoreError, "alive"),
        (chain(2, 8), torch.full((4, 3, 8, 8), 2.0), UndefinedScoreError, "variance of the images"),
        (chain(2, 8), draw(4, 3, 8, 8) * math.nan, UndefinedScoreError, "variance of the images"),
    ],
)
def test_what_has_no_score(module, images, error, message):
    with pytest.raises(error, match=message):
        measure(module, Batch(images))


def test_a_module_that_has_none_fails_with_its_reason():
    score = zs.score(parallel(conv(16, 16), factors=(0.0,)), "cet", input_size=(3, 8, 8))
    assert not score.ok
    assert "alive" in score.reason


def test_constants_are_those_of_a_relu():
    assert pytest.approx(0.3098, abs=2e-4) == LINEAR_LOSS
    assert pytest.approx(0.3828, abs=5e-4) == GRADIENT_GAIN


def test_a_network_of_ours_has_the_closed_form():
    """With its pieces; the same module in another's hands is measured."""
    architecture = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,1)", (3, 16, 16))
    module = zs.build(architecture)
    form, ours = zs.score(architecture, "cet"), zs.score(module, "cet")
    assert form.value == ours.value == closed_form(architecture)
    assert dict(form.details) == dict(ours.details) == dict(closed_form(architecture).details)
    assert form.standard_error == 0
    for variant in ("g", "p", "pf", "gm"):
        assert zs.score(architecture, f"cet:variant={variant}").value == closed_form(architecture, variant=variant)
    foreign = zs.score(nn.Sequential(module), "cet", input_size=(3, 16, 16))
    assert foreign.repeats == 4
    assert foreign.standard_error > 0
    assert foreign.details.keys() == form.details.keys()
    assert foreign.value == pytest.approx(form.value, abs=1)


def test_details_are_means_over_repeats_and_survive_json():
    module = chain(2, 8)
    one, two = (zs.score(module, "cet", input_size=(3, 8, 8), repeats=count) for count in (1, 2))
    assert two.details["P"] != one.details["P"]
    assert max(two.details["D_f"], two.details["D_b"]) <= two.details["D"] + 1e-9  # of a maximum the mean
    assert Score.from_dict(json.loads(json.dumps(two.to_dict()))) == two
    old = {name: value for name, value in two.to_dict().items() if name != "details"}
    assert Score.from_dict(old).details == {}
    assert hash(two) == hash(Score.from_dict(two.to_dict()))
    assert zs.score(module, "grad_norm", input_size=(3, 8, 8), repeats=1).details == {}


def test_a_stem_counts_as_a_stem():
    found = measure_cet(drawn(nn.Sequential(conv(3, 8), *head(8))), batch())
    assert found.layers.is_stem.tolist() == [1]
    assert found.pieces.W == 0 < found.pieces.U


@pytest.mark.parametrize("proxy", ["cet", "ceres"])
def test_complex_convolutions_are_refused(proxy):
    class Magnitude(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3, dtype=torch.complex64), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.conv(x.to(torch.complex64)).abs().mean((2, 3)))

    with pytest.raises(ProxyError, match="real numbers, and Magnitude has complex ones"):
        zs.score(Magnitude(), proxy, input_size=(3, 8, 8), repeats=1)
