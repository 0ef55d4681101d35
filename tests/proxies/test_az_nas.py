"""AZ-NAS's four proxies against straightforward implementations, by laws, and where they are undefined."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas import Architecture, Batch
from zeroshot_nas.core.seeding import python_rng, torch_generator
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.proxy import get_proxy

NAMES = ["az_expressivity", "az_progressivity", "az_trainability"]
TWO = "SuperConvK3BNRELU(3,8,1,1)SuperConvK3BNRELU(8,16,2,1)"


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch_generator(seed)).double()


def signs(*shape: int, seed: int = 0) -> torch.Tensor:
    return draw(*shape, seed=seed).sign()


class Small(nn.Module):
    """Three feature maps of sizes 8, 8 and 4, the last of more channels than the batch may have positions."""

    def __init__(self, width: int = 12, spatial: int = 2) -> None:
        super().__init__()
        conv, norm = (nn.Conv1d, nn.BatchNorm1d) if spatial == 1 else (nn.Conv2d, nn.BatchNorm2d)
        self.first = nn.Sequential(conv(3, 5, 3, padding=1), norm(5), nn.ReLU())
        self.second = nn.Sequential(conv(5, 6, 3, padding=1, bias=False), norm(6), nn.ReLU())
        self.third = nn.Sequential(conv(6, width, 3, stride=2, padding=1), norm(width))
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        x = self.third(self.second(self.first(x)))
        return self.head(x.flatten(2).mean(2))


def build(module: nn.Module, seed: int = 0) -> nn.Module:
    module = module.double()
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=100 * seed + index) + (parameter.dim() == 1))
    return module


def feature_maps(module: Small, x: torch.Tensor) -> list[torch.Tensor]:
    first = module.first(x)
    second = module.second(first)
    return [first, second, module.third(second)]


def plain_entropy(features: torch.Tensor) -> float:
    """By numpy's covariance, a channel a variable."""
    variables = features.detach().transpose(0, 1).flatten(1)
    values = torch.linalg.eigvals(torch.cov(variables, correction=0)).real.clamp(min=0)
    p = values / values.sum()
    return -(p * torch.log(p + 1e-8)).sum().item()


def plain_jacobian(before: torch.Tensor, after: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The mean outer product, position by position; the block has a stride of 1 or 2 in each of two axes."""
    (gradient,) = torch.autograd.grad(after, before, noise, retain_graph=True)
    factor = before.shape[-1] // after.shape[-1]
    if factor > 1:
        gradient = nn.functional.pixel_unshuffle(gradient, factor)
    total = torch.zeros(gradient.shape[1], noise.shape[1]).double()
    for image in range(len(noise)):
        for row in range(noise.shape[2]):
            for column in range(noise.shape[3]):
                total += torch.outer(gradient[image, :, row, column], noise[image, :, row, column])
    return total / (len(noise) * noise.shape[2] * noise.shape[3])


@pytest.mark.parametrize(("images", "width"), [(4, 12), (1, 20), (2, 40)])
def test_expressivity_and_progressivity(images, width):
    """Also with fewer positions than channels, where the smaller Gram matrix is decomposed."""
    module, x = build(Small(width)), draw(images, 3, 8, 8)
    entropies = [plain_entropy(features) for features in feature_maps(module, x)]
    scores = zs.score(module, NAMES[:2], batch=Batch(x), init="keep")
    assert scores["az_expressivity"].value == pytest.approx(sum(entropies), rel=1e-10)
    least = min(entropies[1] - entropies[0], entropies[2] - entropies[1])
    assert scores["az_progressivity"].value == pytest.approx(least, rel=1e-9)


def test_trainability():
    module, x = build(Small()), draw(3, 3, 8, 8)
    maps = feature_maps(module, x)
    noise = [signs(*features.shape, seed=index) for index, features in enumerate(maps[1:])]
    expected = []
    for before, after, given_noise in zip(maps, maps[1:], noise, strict=False):
        largest = torch.linalg.svdvals(plain_jacobian(before, after, given_noise))[0].item()
        expected.append(-largest - 1 / (largest + 1e-6) + 2)
    batch = Batch(x, output_noise=tuple(each.to(torch.int8) for each in noise))
    result = zs.score(module, "az_trainability", batch=batch, init="keep")
    assert result.value == pytest.approx(sum(expected) / 2, rel=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_one_spatial_axis(name):
    """A sequence is an image of height 1: the same numbers."""
    lines = build(Small(spatial=1))
    images = Small()
    for part, other in zip(images.modules(), lines.modules(), strict=True):
        if isinstance(other, nn.Conv1d):
            part.kernel_size, part.padding, part.stride = (1, 3), (0, 1), (1, other.stride[0])
            part.weight = nn.Parameter(other.weight[:, :, None])
            part.bias = other.bias
    images = images.double()
    state = {key: value for key, value in lines.state_dict().items() if "weight" not in key or value.dim() != 3}
    images.load_state_dict(state, strict=False)
    x = draw(4, 3, 16)
    shapes = [(4, 6, 16), (4, 12, 8)]
    noise = tuple(signs(*shape, seed=index) for index, shape in enumerate(shapes))
    image_noise = tuple(each[:, :, None] for each in noise)
    line = zs.score(lines, name, batch=Batch(x, output_noise=noise), init="keep")
    image = zs.score(images, name, batch=Batch(x[:, :, None], output_noise=image_noise), init="keep")
    assert line.value == pytest.approx(image.value, rel=1e-10)


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 3.0, 1e4]), st.permutations(range(4)))
def test_invariances(seed, scale, order):
    """Entropies: the images' order and the features' scale don't matter. Trainability: the order together with the
    noise's, and the noise's sign."""
    module, x = build(Small(), seed), draw(4, 3, 8, 8, seed=seed)
    noise = tuple(signs(4, width, side, side, seed=seed + side) for width, side in ((6, 8), (12, 4)))
    before = zs.score(module, NAMES, batch=Batch(x, output_noise=noise), init="keep")
    order = list(order)
    moved = Batch(x[order], output_noise=tuple(-each[order] for each in noise))
    after = zs.score(module, NAMES, batch=moved, init="keep")
    for name in NAMES:
        assert after[name].value == pytest.approx(before[name].value, rel=1e-8, abs=1e-8)
    with torch.no_grad():
        module.third[1].weight.mul_(scale)
        module.third[1].bias.mul_(scale)
    scaled = zs.score(module, NAMES[:2], batch=Batch(x), init="keep")
    for name in NAMES[:2]:
        assert scaled[name].value == pytest.approx(before[name].value, rel=1e-7, abs=1e-7)


def test_an_entropy_is_largest_where_channels_are_white():
    """Two maps in a row: all directions alike, then one only."""

    class Given(nn.Module):
        def __init__(self):
            super().__init__()
            self.white = nn.Conv2d(2, 2, 1, bias=False)
            self.line = nn.Conv2d(2, 2, 1, bias=False)
            self.line.weight.data.fill_(1)
            self.white.weight.data = torch.eye(2)[:, :, None, None]

        def forward(self, x):
            return self.line(self.white(x)).flatten(1)

    x = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1]]).view(1, 2, 2, 2)
    scores = zs.score(Given(), NAMES[:2], batch=Batch(x), init="keep")
    assert scores["az_expressivity"].value == pytest.approx(math.log(2), abs=1e-7)
    assert scores["az_progressivity"].value == pytest.approx(-math.log(2), abs=1e-7)


def test_features_by_name():
    """Names with commas between, a tuple, and names that are numbers."""
    module, x = build(Small()), draw(2, 3, 8, 8)
    first, second, third = (plain_entropy(features) for features in feature_maps(module, x))
    batch = Batch(x)
    for features in ("second,third", ("second", "third")):
        result = zs.score(module, "az_expressivity", batch=batch, init="keep", features=features)
        assert result.value == pytest.approx(second + third, rel=1e-10)
    assert zs.score(module, "az_progressivity:features=first,third", batch=batch, init="keep").value == pytest.approx(
        third - first, rel=1e-8
    )
    numbered = nn.Sequential(module.first, module.second, module.third)
    result = zs.score(numbered, "az_expressivity:features=1", batch=batch, init="keep")
    assert result.value == pytest.approx(second, rel=1e-10)
    with pytest.raises(ProxyError, match=r"no module 'secnd' returned a tensor\. Did you mean 'second'"):
        zs.score(module, "az_expressivity:features=secnd", batch=batch, init="keep")


def test_drawn_noise_comes_from_the_seed():
    """The same score for the same seed, whatever the dtype and the layout; another one for another."""
    net = Architecture.from_string(TWO, (3, 8, 8))
    first, second, other = (zs.score(net, "az_trainability", seed=seed).value for seed in (0, 0, 1))
    assert first == second != other
    network, x = zs.build(net), draw(4, 3, 8, 8)
    single = zs.score(network, "az_trainability", batch=Batch(x.float(), seed=5), init="keep")
    double = zs.score(network.double(), "az_trainability", batch=Batch(x, seed=5), init="keep")
    assert single.value == pytest.approx(double.value, rel=1e-3)
    assert zs.score(network, "az_trainability", batch=Batch(x, seed=6), init="keep").value != double.value


def test_ours_has_a_feature_map_for_each_layer():
    net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,12,2,8,2)", (3, 8, 8))
    scores = zs.score(net, NAMES, repeats=2)
    assert all(score.ok for score in scores.values())
    assert scores["az_trainability"].value < 1e-5


def test_complexity():
    net = Architecture.from_string(TWO, (3, 8, 8))
    network = zs.build(net)
    module = nn.Sequential(network.blocks, network.head)
    assert zs.score(net, "az_complexity").value == zs.cost(net).flops
    assert zs.score(module, "az_complexity", input_size=(3, 8, 8), repeats=1).value == zs.cost(net).flops


# What a block is


def torch_modules(holder) -> list[type[nn.Module]]:
    return [kind for kind in vars(holder).values() if isinstance(kind, type) and kind.__module__ == holder.__name__]


KINDS = [
    nn.Identity,
    *(kind for holder in (nn.modules.activation, nn.modules.dropout) for kind in torch_modules(holder)),
    *(nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm2d, nn.GroupNorm, nn.LocalResponseNorm, nn.LayerNorm),
    *(nn.RMSNorm, nn.CrossMapLRN2d),
]
ARGUMENTS = {"Threshold": (0.0, 0.1), "GLU": (1,), "GroupNorm": (2, 4), "LayerNorm": ((8, 8),), "RMSNorm": ((8, 8),)}
ARGUMENTS |= dict.fromkeys(("BatchNorm2d", "SyncBatchNorm", "InstanceNorm2d"), (4,))
ARGUMENTS |= dict.fromkeys(("LocalResponseNorm", "CrossMapLRN2d"), (2,))
ARGUMENTS |= dict.fromkeys(("Softmin", "Softmax", "LogSoftmax"), (1,))
OUTSIDE = ("MultiheadAttention", "Softmax2d", "_DropoutNd", "Dropout1d", "Dropout3d")


class Swish(nn.Module):
    """Somebody's own activation."""

    def forward(self, x):
        return x * x.sigmoid()


@pytest.mark.parametrize("kind", [*(kind for kind in KINDS if kind.__name__ not in OUTSIDE), Swish])
def test_an_activation_a_norm_and_a_dropout_belong_to_the_block_before(kind):
    """As a member they make the maps that they make within the block."""
    member = kind(*ARGUMENTS.get(kind.__name__, ()))
    width = 2 if kind is nn.GLU else 4
    first, second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(width, 6, 3, padding=1)
    flat, x = build(nn.Sequential(first, member, second, nn.Tanh())).float(), draw(3, 3, 8, 8).float()
    names = list(Batch(x).passes(flat.eval()).forward.features)
    assert names == ["1", "3"]
    nested = nn.Sequential(Chain(first, member), Chain(second, nn.Tanh()))
    for name in NAMES:
        scores = [zs.score(each, name, batch=Batch(x, seed=3), init="keep") for each in (flat, nested)]
        assert (scores[0].state, scores[0].value) == (scores[1].state, pytest.approx(scores[1].value, nan_ok=True))


def test_identities_and_dropouts_change_nothing():
    def network(*between):
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Conv2d(3 + i, 4 + i, 3, padding=1), nn.BatchNorm2d(4 + i)) for i in range(3)]
        with_others = [member for layer in layers for member in (*layer, nn.ReLU(), *between)]
        return nn.Sequential(*between, *with_others)

    plain = zs.score(network(), NAMES, input_size=(3, 8, 8))
    for between in ((nn.Identity(),), (nn.Dropout2d(), nn.Identity()), (nn.AlphaDropout(0.3),)):
        scores = zs.score(network(*between), NAMES, input_size=(3, 8, 8))
        assert {name: score.value for name, score in scores.items()} == {
            name: score.value for name, score in plain.items()
        }


class Anyhow(nn.Module):
    """Two convolutions with one activation, named and kept in whatever way."""

    def __init__(self, act: nn.Module, other: nn.Module, keep_together: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        convs = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)]
        self.convs = nn.ModuleList(convs) if keep_together else nn.ModuleDict({"a": convs[0], "b": convs[1]})
        self.act, self.other = act, other

    def forward(self, x):
        first, second = self.convs if isinstance(self.convs, nn.ModuleList) else self.convs.values()
        return self.other(second(self.act(first(x))))


def test_one_activation_in_two_places_is_as_two():
    """In a Sequential, as an attribute, in any order of registration; a whole block too."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)]
    act = nn.ReLU()
    members = [member for conv in convs for member in (conv, act)]
    shared, apart = nn.Sequential(*members), nn.Sequential(*(nn.ReLU() if each is act else each for each in members))
    networks: list[tuple[nn.Module, nn.Module]] = [(shared, apart)]
    networks += [(Anyhow(act, act, as_list), Anyhow(nn.ReLU(), nn.ReLU(), as_list)) for as_list in (True, False)]
    block = nn.Sequential(convs[1], nn.ReLU())
    networks.append((nn.Sequential(convs[0], act, block, block), nn.Sequential(convs[0], act, block, *block)))
    for one, two in networks:
        scores = [zs.score(each, NAMES, input_size=(3, 8, 8), init="keep") for each in (one, two)]
        assert all(score.ok for score in scores[0].values())
        assert [score.value for score in scores[0].values()] == [score.value for score in scores[1].values()]
    maps = Batch(draw(2, 3, 8, 8).float()).passes(shared).forward
    assert list(maps.features) == ["1", "3", "5"]
    assert torch.equal(maps.outputs(["1"])["1"], maps.features["1"])
    assert not torch.equal(maps.outputs(["3"])["3"], maps.features["1"])


def test_a_member_that_runs_in_another_is_part_of_that():
    act = nn.ReLU()
    module = nn.Sequential(nn.Conv2d(3, 4, 3), act, Chain(nn.Conv2d(4, 4, 3), act, nn.Conv2d(4, 4, 1)), act)
    assert list(Batch(draw(2, 3, 8, 8).float()).passes(module).forward.features) == ["1", "3"]


# Where there is no score


def reason(module: nn.Module, name: str, batch: Batch, **options) -> str:
    result = zs.score(module.double(), name, batch=batch, init="keep", **options)
    assert result.state == "failed"
    return result.reason


class Chain(nn.Module):
    """Members one after the other, each a feature map."""

    def __init__(self, *members: nn.Module) -> None:
        super().__init__()
        for index, member in enumerate(members):
            self.add_module(f"m{index}", member)

    def forward(self, x):
        for member in self.children():
            x = member(x)
        return x


class Ignoring(nn.Module):
    """A feature map of its own."""

    def forward(self, x):
        return torch.ones_like(x) * torch.arange(8.0)


@pytest.mark.parametrize("name", NAMES)
def test_too_few_feature_maps(name):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    least = 1 if name == "az_expressivity" else 2
    assert f"{least} or more feature maps are needed, and the network has 0: none" in reason(
        flat, name, Batch(draw(2, 3, 8, 8))
    )
    one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    result = zs.score(one.double(), name, batch=Batch(draw(2, 3, 8, 8)), init="keep")
    assert result.ok == (name == "az_expressivity")


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_constant_feature_map(value):
    dead = Chain(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    nn.init.zeros_(dead.m1.weight)
    nn.init.constant_(dead.m1.bias, value)
    x = draw(2, 3, 8, 8)
    for name in NAMES[:2]:
        assert reason(dead, name, Batch(x)) == "the feature map m1 is constant"
    single = zs.score(dead.float(), "az_expressivity", batch=Batch(x.float()), init="keep")
    assert single.reason == "the feature map m1 is constant"
    assert "m1 does not depend on the one before it" in reason(dead, "az_trainability", Batch(x))


def test_one_position_of_one_image():
    module = Chain(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    x = draw(1, 3, 8, 8)
    assert "m1 is constant" in reason(module, "az_expressivity", Batch(x), features="m0,m1")


def test_numbers_that_are_not_finite():
    module = Chain(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    for name in NAMES[:2]:
        assert reason(module, name, Batch(draw(2, 3, 8, 8) * 1e308)) == "the feature map m0 is not finite"
    nn.init.constant_(module.m1.weight, 1e308)
    assert (
        reason(module, "az_trainability", Batch(draw(2, 3, 8, 8))) == "the gradient of the feature map m1 is not finite"
    )


def test_a_feature_map_that_does_not_depend_on_the_one_before():
    for other in (Ignoring(), nn.Sequential(Ignoring(), nn.Conv2d(4, 4, 1))):
        module = Chain(nn.Conv2d(3, 4, 3, padding=1), other)
        names = ("m0", "m1")
        assert "m1 does not depend on the one before" in reason(
            module, "az_trainability", Batch(draw(2, 3, 8, 8)), features=names
        )


def test_an_identity():
    module = Chain(nn.Conv2d(3, 4, 3), nn.Identity())
    text = reason(module, "az_trainability", Batch(draw(2, 3, 8, 8)), features="m0,m1")
    assert text == "what leads to the feature map m1 is the identity"


def test_other_axes():
    module = Chain(nn.Conv2d(3, 4, 1), nn.Flatten(2))
    text = reason(module, "az_trainability", Batch(draw(2, 3, 8, 8)), features="m0,m1")
    assert text == "the feature map m1 has sides (64,), and the one before it (8, 8)"


# Sides that no stride divides


def padded(x, side):
    return nn.functional.pad(x, (0, side - x.shape[3], 0, side - x.shape[2]))


RESIZING = {
    "halved, an odd side": (nn.Conv2d(4, 5, 3, 2, 1), 15, 2, lambda g: padded(g, 16), lambda n: n),
    "halved, three left": (nn.Conv2d(4, 5, 3, 2, 1), 3, 2, lambda g: padded(g, 4), lambda n: n),
    "in four": (nn.Conv2d(4, 5, 3, 4, 1), 13, 4, lambda g: padded(g, 16), lambda n: n),
    "pooled, the last left out": (nn.MaxPool2d(2), 7, 2, lambda g: g[:, :, :6, :6], lambda n: n),
    "no padding": (nn.Conv2d(4, 5, 3), 8, 1, lambda g: g[:, :, 1:7, 1:7], lambda n: n),
    "no padding, five taps": (nn.Conv2d(4, 5, 5), 12, 1, lambda g: g[:, :, 2:10, 2:10], lambda n: n),
    "no padding, halved": (nn.Conv2d(4, 5, 3, 2), 10, 2, lambda g: g[:, :, 1:9, 1:9], lambda n: n),
    "in three": (nn.Conv2d(4, 5, 3, 3, 1), 11, 3, lambda g: padded(g, 12), lambda n: n),
    "enlarged": (nn.ConvTranspose2d(4, 5, 2, 2), 4, 2, lambda g: g, lambda n: n),
    "enlarged, an odd side": (nn.ConvTranspose2d(4, 5, 3, 2, 1), 4, 2, lambda g: g, lambda n: padded(n, 8)),
}
"""What leads from one map to the next, the side of the first, the stride, and how both maps are made to fit."""


@pytest.mark.parametrize("case", RESIZING.values(), ids=RESIZING)
def test_sides_that_are_no_multiples(case):
    """The larger map is padded or cut, and its positions that share one of the smaller become channels."""
    resize, side, stride, fit_gradient, fit_noise = case
    module = build(Chain(nn.Conv2d(3, 4, 1), resize))
    x = draw(2, 3, side, side)
    before = module.m0(x)
    after = module.m1(before)
    noise = signs(*after.shape)
    (gradient,) = torch.autograd.grad(after, before, noise)
    enlarged = after.shape[2] > before.shape[2]
    rows = [
        (nn.functional.pixel_unshuffle(each, stride) if is_larger else each).movedim(1, -1).flatten(0, 2)
        for each, is_larger in ((fit_gradient(gradient), not enlarged), (fit_noise(noise), enlarged))
    ]
    largest = torch.linalg.svdvals(rows[0].T @ rows[1] / len(rows[1]))[0].item()
    batch = Batch(x, output_noise=(noise,))
    result = zs.score(module, "az_trainability", batch=batch, init="keep")
    assert result.value == pytest.approx(2 - largest - 1 / (largest + 1e-6), rel=1e-9)


@pytest.mark.parametrize("size", [(1, 15, 15), (1, 28, 28), (3, 13, 20)])
@pytest.mark.parametrize("name", zs.list_spaces())
def test_every_space_at_odd_sides_has_all_parts(name, size):
    space = zs.get_space(name, input_size=size, num_classes=3)
    least = min((space.sample(python_rng(7, index)) for index in range(3)), key=lambda net: zs.cost(net).flops)
    for scores in zs.score_pool([least], "az_nas", repeats=1, batch_size=2):
        assert {key: score.reason for key, score in scores.items() if not score.ok} == {}


def test_noise_that_does_not_fit():
    module, x = build(Small()), draw(2, 3, 8, 8)
    with pytest.raises(ProxyError, match="has 3 feature maps and needs one output_noise for each after the first"):
        zs.score(module, "az_trainability", batch=Batch(x, output_noise=(x,)), init="keep")
    wrong = (signs(2, 6, 8, 8), signs(2, 12, 8, 8))
    with pytest.raises(ProxyError, match=r"output_noise 1 must have the shape \(2, 12, 4, 4\), got \(2, 12, 8, 8\)"):
        zs.score(module, "az_trainability", batch=Batch(x, output_noise=wrong), init="keep")


def test_registered():
    infos = {name: get_proxy(name).info for name in [*NAMES, "az_complexity"]}
    assert {info.source for info in infos.values()} == {"arXiv:2403.19232"}
    assert [info.cost for info in infos.values()] == ["forward", "forward", "backward", "graph"]
    assert [info.needs_gradients for info in infos.values()] == [False, False, True, False]
    assert not any(info.needs_labels for info in infos.values())
