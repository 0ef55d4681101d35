"""VKDNW against a straightforward implementation, with layers of every kind, and where it is undefined."""

import gc
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

import zeroshot_nas as zs
from tests import golden_nets
from tests.golden_nets import Golden
from tests.once import Once
from zeroshot_nas import Architecture, Batch
from zeroshot_nas.core.seeding import python_rng, torch_generator
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.proxies import vkdnw
from zeroshot_nas.scoring.proxy import get_proxy

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch_generator(seed)).double()


def build(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and running statistic at random."""
    module = module.double()
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter.copy_(draw(*parameter.shape, seed=100 * seed + index) / fan_in**0.5)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(draw(*buffer.shape, seed=7))
            elif name.endswith("running_var"):
                buffer.copy_(1 + draw(*buffer.shape, seed=8).abs())
    return module


def plain_jacobian(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """``(N, classes, tensors)``, one derivative at a time."""
    module, rows = module.eval(), []
    for image in x:
        for logit in module(image[None])[0]:
            found = torch.autograd.grad(logit, list(module.parameters()), retain_graph=True, allow_unused=True)
            rows.append(torch.stack([torch.zeros(()).double() if g is None else g.flatten()[0] for g in found]))
    return torch.stack(rows).view(len(x), -1, len(rows[0]))


def plain(jacobian: torch.Tensor, logits: torch.Tensor, variant: str = "paper") -> float:
    guard = 0.0
    p = logits.detach().softmax(1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    if variant == "authors":
        guard = 1e-10
        p = p * 0.9501953125 + float(torch.tensor(0.05, dtype=torch.float16) / p.shape[1])
        p[:, -1] -= p.sum(1) - 1  # a little less than 1 by then, as a proper factor needs; see the tolerance
        lower = torch.linalg.cholesky(torch.diag_embed(p) - (1 - 1e-13) * p[:, :, None] * p[:, None, :])
        middle = lower.mT @ lower
    fisher = (jacobian.mT @ middle @ jacobian).mean(0)
    deciles = torch.quantile(torch.linalg.svdvals(fisher), torch.arange(1, 10).double() / 10)
    t = deciles / (deciles.sum() + guard)
    return -torch.xlogy(t, t + guard).sum().item()


class Everything(nn.Module):
    """Strides, paddings, dilations, groups, with and without biases, linear on positions, activations in place."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 5, stride=2, padding=2)
        self.norm_a = nn.BatchNorm2d(6)
        self.b = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3, bias=False)
        self.norm_b = nn.BatchNorm2d(6, affine=False)
        self.c = nn.Conv2d(6, 8, (3, 1), stride=(1, 2), padding=(0, 3))
        self.d = nn.Conv2d(8, 8, 4, padding="same")
        self.e = nn.Conv2d(8, 8, 2, padding="valid")
        self.f = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.positions = nn.Linear(8, 7)
        self.g = nn.Conv1d(7, 7, 3, padding=1)
        self.head = nn.Sequential(nn.Linear(7, 9, bias=False), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 5))

    def forward(self, x):
        x = nn.functional.silu(self.norm_a(self.a(x)), inplace=True)
        x = x + self.norm_b(self.b(x))
        x = torch.tanh_(self.c(x))
        x = self.f(self.e(self.d(x).relu_()))
        x = self.positions(x.flatten(2).transpose(1, 2)).transpose(1, 2)
        return self.head(self.g(x).mean(2))


class Exotic(nn.Module):
    """Layers of other kinds, a weight used twice, one computed from another parameter, one unused, two paths."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.other = nn.Conv2d(3, 4, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.unused = nn.Linear(4, 4)
        self.activation = nn.PReLU()
        self.head = nn.Linear(4, 4)
        parametrize.register_parametrization(self.head, "weight", nn.Tanh())

    def forward(self, x):
        x = self.norm(self.a(x) + self.shift) + self.other(x)
        x = self.b(torch.tanh(self.b(x)))
        self.unused(x.mean((2, 3)))
        return self.head(self.activation(self.up(x)).mean((2, 3)))


@pytest.mark.parametrize("variant", ["paper", "authors"])
@pytest.mark.parametrize("kind", [Everything, Exotic])
def test_by_a_plain_implementation(kind, variant):
    module, x = build(kind()), draw(5, 3, 16, 16)
    jacobian = plain_jacobian(module, x)
    result = zs.score(module, "vkdnw", batch=Batch(x), init="keep", variant=variant)
    tolerance = 1e-8 if variant == "paper" else 1e-2
    assert result.value == pytest.approx(plain(jacobian, module(x), variant), rel=tolerance)


@pytest.mark.parametrize("kind", [Everything, Exotic])
def test_the_jacobian(kind, monkeypatch):
    """Each derivative, with the factor between the Jacobians set to the identity."""
    module, x = build(kind()).eval(), draw(3, 3, 16, 16)
    classes = module(x).shape[1]
    monkeypatch.setattr(vkdnw, "_factor", lambda logits, _: torch.eye(classes).double().expand(len(x), -1, -1))
    rows = vkdnw._rows(module, x, list(module.parameters()), "paper")
    expected = plain_jacobian(module, x)
    torch.testing.assert_close(rows.view(classes, 3, -1).transpose(0, 1), expected, rtol=1e-9, atol=1e-12)
    assert (expected != 0).any((0, 1)).sum() >= expected.shape[2] - 2  # all but the layer that is not used


COVARIANCES = {
    name: entry["debug64"]["vkdnw_entropy_p1_cov"]
    for name, entry in golden_nets.read_index()["nets"].items()
    if "vkdnw_entropy_p1_cov" in entry.get("debug64", {})
}
"""The data's second value, which is not in every copy of them."""


@pytest.mark.parametrize("name", COVARIANCES)
def test_the_jacobian_of_golden_networks(name, monkeypatch):
    """With the covariance of the authors' mixture, which sums to more than 1, so that it is not positive; to 1e-9."""
    golden = Golden(name)
    network, x = golden.build().eval(), golden.tensor("x")
    with torch.no_grad():
        p = network(x).softmax(1) * 0.9501953125 + 0.00499725341796875
    monkeypatch.setattr(vkdnw, "_factor", lambda logits, _: torch.eye(10).double().expand(len(x), -1, -1))
    rows = vkdnw._rows(network, x, list(network.parameters()), "paper")
    jacobian = rows.view(10, len(x), -1).transpose(0, 1)
    fisher = (jacobian.mT @ (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) @ jacobian).mean(0)
    deciles = torch.quantile(torch.linalg.svdvals(fisher), torch.arange(1, 10).double() / 10)
    t = deciles / (deciles.sum() + 1e-10)
    assert -(t * (t + 1e-10).log()).sum().item() == pytest.approx(COVARIANCES[name], rel=1e-9)


def test_the_factors():
    """Products of the factor are the softmax covariance; the authors' triangle is the covariance's own factor."""
    logits = draw(4, 6) * 3
    p = logits.softmax(1)
    covariance = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    factor = vkdnw._factor(logits, "paper")
    assert factor.shape == (4, 5, 6)
    torch.testing.assert_close(factor.mT @ factor, covariance, rtol=1e-12, atol=1e-15)
    lower = vkdnw._lower_factor(p)
    assert torch.equal(lower, lower.tril())
    torch.testing.assert_close(lower @ lower.mT, covariance, rtol=1e-12, atol=1e-15)


def test_the_entropy():
    """Equal eigenvalues give log 9, one of ten alone gives 0, and scale does not matter."""
    assert vkdnw._entropy(3 * torch.eye(20).double(), 0) == pytest.approx(math.log(9), rel=1e-12)
    one = torch.diag(torch.tensor([1.0, *[0.0] * 9]).double())
    assert vkdnw._entropy(one, 0) == pytest.approx(0, abs=1e-12)
    matrix = draw(12, 30)
    fisher = matrix @ matrix.T
    assert vkdnw._entropy(fisher * 1e-20, 0) == pytest.approx(vkdnw._entropy(fisher, 0), rel=1e-10)


@pytest.mark.parametrize("variant", ["paper", "authors"])
@pytest.mark.parametrize("kind", [Everything, Exotic])
def test_more_classes_than_features(kind, variant):
    """Backward passes for the features alone say as much as those for all classes."""
    module = kind()
    features = 9 if kind is Everything else 4
    module.head = nn.Sequential(*list(module.head)[:3]) if kind is Everything else nn.Identity()
    module = build(nn.Sequential(module, nn.Linear(features, 3 * features)))
    x = draw(5, 3, 16, 16)
    result = zs.score(module, "vkdnw", batch=Batch(x), init="keep", variant=variant)
    tolerance = 1e-8 if variant == "paper" else 1e-2
    assert result.value == pytest.approx(plain(plain_jacobian(module, x), module(x), variant), rel=tolerance)


def test_one_pass_for_each_feature():
    """Below a classifier of more classes than features."""
    module, seen = build(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 20))), []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            seen.append(gradient.abs().max() > 1e-12)
            return gradient

    class Tap(nn.Module):
        def forward(self, x):
            return Counted.apply(x)

    module.insert(1, Tap())
    vkdnw.vkdnw(module, Batch(draw(5, 6)))
    assert (len(seen), all(seen)) == (4, True)


@pytest.mark.slow
def test_nothing_stays():
    """The graph is freed as the score is returned."""
    zs.score(build(Everything()), "vkdnw", batch=Batch(draw(2, 3, 16, 16)), init="keep")
    assert not any(type(each) is vkdnw._FirstElements for each in gc.get_objects())


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.permutations(range(4)))
def test_invariances(seed, order):
    """The images' order, a constant added to all logits, and the labels don't matter."""
    module, x = build(Everything(), seed), draw(4, 3, 16, 16, seed=seed)
    before = zs.score(module, "vkdnw", batch=Batch(x), init="keep").value
    with torch.no_grad():
        module.head[3].bias += 3
    moved = Batch(x[list(order)], torch.zeros(4, dtype=torch.int64))
    assert zs.score(module, "vkdnw", batch=moved, init="keep").value == pytest.approx(before, rel=1e-7, abs=1e-9)


def test_images_do_not_mix():
    """The Fisher information of a batch is the mean of its halves': twice the same half gives that half's score."""
    module, x = build(Everything()), draw(3, 3, 16, 16)
    half = zs.score(module, "vkdnw", batch=Batch(x), init="keep").value
    assert zs.score(module, "vkdnw", batch=Batch(torch.cat([x, x])), init="keep").value == pytest.approx(half, rel=1e-9)


@pytest.mark.slow
def test_only_so_many_tensors():
    """The first 128; where the function itself is called on a module with frozen ones, those are passed by."""

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(70))

        def forward(self, x):
            for layer in self.layers:
                x = x + torch.tanh(layer(x)) / 4
            return x

    module, x = build(Deep()), draw(40, 5)
    jacobian = plain_jacobian(module, x)
    result = zs.score(module, "vkdnw:variant=paper", batch=Batch(x), init="keep")
    assert result.value == pytest.approx(plain(jacobian[:, :, :128], module(x)), rel=1e-9)
    module.layers[0].requires_grad_(False)
    value = vkdnw.vkdnw(module, Batch(x), variant="paper")
    assert value == pytest.approx(plain(jacobian[:, :, 2:130], module(x)), rel=1e-9)


def test_modes_and_flags_come_back():
    """Whatever happens: batch norms of the module are in the mode that the caller set."""
    module = build(Everything()).train()
    module.norm_b.eval()
    modes = [part.training for part in module.modules()]
    vkdnw.vkdnw(module, Batch(draw(2, 3, 16, 16)))
    with pytest.raises(RuntimeError):
        vkdnw.vkdnw(module, Batch(draw(2, 4, 16, 16)))
    assert [part.training for part in module.modules()] == modes
    assert all(each.requires_grad and each.grad is None for each in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())


def test_of_an_architecture():
    """Single precision agrees with double; the other proxies of a call keep their batch statistics."""
    net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,12,2,8,1)", (3, 8, 8))
    scores = zs.score(net, ["vkdnw", "az_expressivity"], seed=0)
    assert 0 < scores["vkdnw"].value < math.log(9)
    assert scores["az_expressivity"].value == zs.score(net, "az_expressivity", seed=0).value
    network, x = zs.build(net), draw(4, 3, 8, 8)
    single = zs.score(network, "vkdnw", batch=Batch(x.float()), init="keep").value
    assert zs.score(network.double(), "vkdnw", batch=Batch(x), init="keep").value == pytest.approx(single, rel=1e-4)


# Where there is no score


def test_a_dead_network():
    module = build(Everything())
    nn.init.zeros_(module.positions.weight)
    nn.init.zeros_(module.head[0].weight)
    result = zs.score(module, "vkdnw", batch=Batch(draw(4, 3, 16, 16)), init="keep")
    assert result.reason == "nine tenths of the Fisher information's spectrum are zero"


def test_numbers_that_are_not_finite():
    module = build(Everything())
    result = zs.score(module, "vkdnw", batch=Batch(draw(4, 3, 16, 16) * 1e308), init="keep")
    assert result.reason == "the logits are not finite"


def test_batch_norm_without_running_statistics():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(144, 3)
    )
    with pytest.raises(ProxyError, match="a batch norm of the module has no running statistics"):
        zs.score(module, "vkdnw", input_size=(3, 8, 8))


def test_what_is_no_classifier():
    with pytest.raises(ProxyError, match=r"expected logits \(N, num_classes\) from Conv2d, got shape \(16, 4, 6, 6\)"):
        zs.score(nn.Conv2d(3, 4, 3), "vkdnw", input_size=(3, 8, 8))
    with pytest.raises(ProxyError, match="vkdnw needs parameters to train, and Sequential has none"):
        zs.score(nn.Sequential(nn.Flatten()), "vkdnw", input_size=(3, 8, 8))
    with pytest.raises(ProxyError, match="vkdnw's variant must be 'paper' or 'authors', got 'code'"):
        zs.score(nn.Flatten(), "vkdnw:variant=code", input_size=(3, 8, 8))


def test_registered():
    info = get_proxy("vkdnw").info
    assert (info.source, info.cost, info.direction) == ("arXiv:2502.04975", "many", "higher")
    assert (info.needs_gradients, info.needs_labels, info.real_data) == (True, False, False)


# Where the paper's formula has no value, and many classes


@pytest.mark.parametrize(("name", "seed"), [("nasbench201", 1), ("nasbench201", 2), ("nasbench101", 2)])
def test_cells_have_the_authors_value(name, seed):
    """Logits that are all but certain leave the paper's F next to 0; the mixture with the uniform one does not."""
    cell = zs.get_space(name, input_size=(3, 16, 16), num_classes=10, channels=8).sample(python_rng(11, seed))
    scores = zs.score(cell, ["vkdnw", "vkdnw:variant=authors", "vkdnw:variant=paper"], repeats=1, batch_size=8)
    assert scores["vkdnw"].ok
    assert 0 < scores["vkdnw"].value < math.log(9)
    assert scores["vkdnw"].value == scores["vkdnw:variant=authors"].value


@pytest.mark.parametrize("classes", [100, 1000])
def test_probabilities_that_exceed_one_before_the_last_class(classes):
    p = (10 * draw(3, classes)).softmax(1) * 0.9501953125 + float(torch.tensor(0.05, dtype=torch.float16) / classes)
    assert (p[:, :-1].sum(1) > 1).any() == (classes > 250)
    lower = vkdnw._lower_factor(p)
    covariance = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    torch.testing.assert_close(lower @ lower.mT, covariance, rtol=0, atol=1e-2)
    module = build(nn.Sequential(nn.Flatten(), nn.Linear(48, 9), nn.Tanh(), nn.Linear(9, classes)))
    module[3].weight.data *= 10  # as sharp as the drawn ones: with 1000 classes each image's sum is above 1
    x = draw(2, 3, 4, 4)
    assert zs.score(module, "vkdnw", batch=Batch(x), init="keep").ok


class Normed(nn.Module):
    """Parameters of a group norm, a layer norm and a scale of its own among those of convolutions."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6)
        self.scale, self.layer_norm = nn.Parameter(torch.ones(6)), nn.LayerNorm(6)
        self.head = nn.Linear(6, classes)

    def forward(self, x):
        x = torch.tanh(self.norm(self.conv(x))).mean((2, 3))
        return self.head(self.layer_norm(x) * self.scale)


@pytest.mark.parametrize("classes", [3, 4, 30])
def test_parameters_of_any_kind_by_whichever_way_takes_fewer_passes(classes, monkeypatch):
    ways = []
    by_tensor, by_image = vkdnw._by_tensor, vkdnw._by_image
    monkeypatch.setattr(vkdnw, "_by_image", lambda *args: ways.append("image") or by_image(*args))
    module, x = build(Normed(classes)), draw(12, 3, 8, 8)
    result = zs.score(module, "vkdnw:variant=paper", batch=Batch(x), init="keep")
    assert result.value == pytest.approx(plain(plain_jacobian(module, x), module(x)), rel=1e-8)
    assert ways == (["image"] if classes < 7 else [])
    jacobian = by_tensor(module.eval(), x, list(module.parameters()))
    torch.testing.assert_close(jacobian, plain_jacobian(module, x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [Everything, Exotic])
def test_the_jacobian_a_pass_for_each_tensor(kind):
    module, x = build(kind()).eval(), draw(3, 3, 16, 16)
    jacobian = vkdnw._by_tensor(module, x, list(module.parameters()))
    torch.testing.assert_close(jacobian, plain_jacobian(module, x), rtol=1e-9, atol=1e-12)
    picked = vkdnw._by_tensor(module, x, list(module.parameters()), [7, 2])
    assert torch.equal(picked, jacobian[:, :, [7, 2]])


class Doubled(nn.Module):
    def __init__(self, once):
        super().__init__()
        self.once = once

    def forward(self, x):
        return Once.apply(x) if self.once else 2 * x


@pytest.mark.parametrize(("features", "once", "by_class"), [(140, False, 0), (140, True, 1), (20, False, 1)])
def test_more_classes_than_tensors_are_read(features, once, by_class, monkeypatch):
    """A pass for each tensor takes fewer, unless there are few features or no second derivative."""
    calls, read = [], vkdnw._by_class
    monkeypatch.setattr(vkdnw, "_by_class", lambda *args: calls.append(args) or read(*args))
    depthwise = nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=6)
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU6(inplace=True), depthwise, Doubled(once), nn.Tanh()]
    module = build(nn.Sequential(*layers, nn.Flatten(), nn.Linear(108, features), nn.Tanh(), nn.Linear(features, 150)))
    x = draw(3, 3, 8, 8)
    jacobian = plain_jacobian(module, x)
    result = zs.score(module, "vkdnw:variant=paper", batch=Batch(x), init="keep")
    assert result.value == pytest.approx(plain(jacobian, module(x)), rel=1e-8)
    assert len(calls) == by_class


def test_group_norm_in_single_precision():
    """Torch's kernel crashes where, channels last, it is asked for the weight's and bias's gradient alone."""
    for classes in (2, 20):
        layers = [nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, classes)]
        assert zs.score(nn.Sequential(*layers), "vkdnw", input_size=(3, 8, 8)).ok


def test_what_can_not_be_differentiated_twice():
    class OnOnePath(Normed):
        def forward(self, x):
            x = self.norm(self.conv(x))
            x = (Once.apply(torch.tanh(x)) / 4 + torch.tanh(x) / 2).mean((2, 3))
            return self.head(self.layer_norm(x) * self.scale)

    class InTheMiddle(Normed):
        def forward(self, x):
            x = Once.apply(torch.tanh(self.norm(self.conv(x)))).mean((2, 3)) / 2
            return self.head(self.layer_norm(x) * self.scale)

    x = draw(12, 3, 8, 8)
    values = [
        zs.score(build(kind(30)), "vkdnw", batch=Batch(x), init="keep").value
        for kind in (Normed, InTheMiddle, OnOnePath)
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-9)
    assert values[2] == pytest.approx(values[0], rel=1e-9)
