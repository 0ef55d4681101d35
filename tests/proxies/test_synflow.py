"""SynFlow and LogSynflow: by hand, against a plain implementation, and where floating point ends."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas import Architecture, Batch, build
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import ProxyError


def value(module, proxy="synflow", shape=(3, 8, 8), dtype=torch.float64, **options):
    """The score of a module as it is."""
    result = zs.score(module, proxy, batch=Batch(torch.zeros(2, *shape, dtype=dtype)), init="keep", **options)
    assert result.ok, result.reason
    return result.value


def failure(module, proxy="synflow", shape=(3, 8, 8), **options):
    """Why a module has no score."""
    inputs = torch.zeros(2, *shape, dtype=torch.float64)
    result = zs.score(module, proxy, batch=Batch(inputs), init="keep", **options)
    assert not result.ok
    return result.reason


def plain_flow(network, shape, keep_norms):
    """Weights and gradients, in place on a copy in double precision, as the papers' codes do it."""
    network = copy.deepcopy(network).double().eval()
    for part in network.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.train()
            if not keep_norms:
                part.forward = lambda x: x
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.abs_()
    network(torch.ones(1, *shape, dtype=torch.float64)).sum().backward()
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    return [(part.weight.detach(), part.weight.grad) for part in layers if part.weight.grad is not None]


class Small(nn.Module):
    """Convolutions with biases, grouped, strided, a residual link, a functional and an in-place activation."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)
        self.down, self.act = nn.Conv2d(8, 6, 3, stride=2), nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 5)
        with torch.no_grad():
            for index, tensor in enumerate(self.parameters()):
                tensor.normal_(generator=torch_generator(0, index)).mul_(0.5)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.norm(self.inner(x))
        return self.head(F.relu6(self.act(self.down(x)) * 1e-3).mean((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_against_a_plain_implementation(dtype):
    """All variants; to 1e-12 in double precision, to 1e-6 in single."""
    network = Small()
    flow = {keep: plain_flow(network, (3, 8, 8), keep) for keep in (False, True)}
    total = {keep: sum((w * g).abs().sum().item() for w, g in pairs) for keep, pairs in flow.items()}
    per_channel = sum((w * g).abs().flatten(1).sum(1).mean().item() for w, g in flow[True])
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    network.to(dtype)
    assert value(network, dtype=dtype) == pytest.approx(math.log(total[False]), rel=tolerance)
    assert value(network, dtype=dtype, variant="bn") == pytest.approx(math.log(total[True]), rel=tolerance)
    assert value(network, dtype=dtype, variant="zennas") == pytest.approx(-per_channel, rel=tolerance)
    logs = sum((w * (1 + g).log()).abs().sum().item() for w, g in flow[False])
    assert value(network, "logsynflow", dtype=dtype) == pytest.approx(logs, rel=tolerance)


OURS = [
    "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,12,2,8,2)SuperResIDWE2K3(12,16,2,8,1)",
    "SuperConvK3BNRELU(3,8,2,1)SuperResK1K5K1(8,16,2,8,3)SuperConvK1BNRELU(16,24,1,1)",
]


@pytest.mark.parametrize("squeeze_excite", [False, True])
@pytest.mark.parametrize("text", OURS)
@pytest.mark.parametrize("size", [(3, 9, 8), (3, 1, 1)], ids=["9x8", "1x1"])
def test_our_networks_against_a_plain_implementation(text, squeeze_excite, size):
    """On one position too, where batch norm itself would refuse one image."""
    network = build(Architecture.from_string(text, size, squeeze_excite=squeeze_excite)).double()
    flow = plain_flow(network, size, keep_norms=False)
    expected = math.log(sum((w * g).abs().sum().item() for w, g in flow))
    assert value(network, shape=size) == pytest.approx(expected, rel=1e-12)


def test_two_layers_on_paper():
    """R = [1, 1] |V| |W| [1, 2 ones]: every path counts once a layer, so the sum is 2 R = 2 (1*3 + 2*7)."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([[1.0, -2.0], [-3.0, 4.0]]))
        module[3].weight.copy_(torch.tensor([[-1.0, 2.0]]))
    assert value(module, shape=(2,)) == pytest.approx(math.log(2 * (1 * 3 + 2 * 7)), rel=1e-14)
    # gradients: first layer [[1, 1], [2, 2]], second layer [3, 7]
    expected = 3 * math.log(2) + 7 * math.log(3) + 1 * math.log(4) + 2 * math.log(8)
    assert value(module, "logsynflow", shape=(2,)) == pytest.approx(expected, rel=1e-14)


def test_without_a_classifier_all_outputs_count():
    conv = nn.Conv2d(3, 4, 3, bias=False).double()
    expected = math.log(conv.weight.abs().sum().item() * 36)
    assert value(conv) == pytest.approx(expected, rel=1e-12)
    assert value(nn.Sequential(conv, nn.Flatten())) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.floats(-8, 8), min_size=3, max_size=3))
@settings(max_examples=10)
def test_a_layer_times_s_adds_log_s(logs):
    """Without biases; the sign of a weight does not matter."""
    module = chain(3)
    before = value(module)
    with torch.no_grad():
        for conv, log in zip(convolutions(module), logs, strict=True):
            conv.weight.mul_(-math.exp(log))
    assert value(module) - before == pytest.approx(sum(logs), abs=1e-9)


# Where floating point ends


def convolutions(module):
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


def chain(depth, gain=1.0, bias=False, gate=None, after=20):
    """1x1 convolutions of 4 channels, ReLUs between, weights N(0, gain^2); a gate after so many."""
    parts = []
    for index in range(depth):
        conv = nn.Conv2d(3 if index == 0 else 4, 4, 1, bias=bias)
        with torch.no_grad():
            conv.weight.normal_(generator=torch_generator(1, index)).mul_(gain)
            if bias:
                conv.bias.normal_(generator=torch_generator(2, index))
        parts += [conv, nn.ReLU()]
        if index == after and gate is not None:
            parts.append(gate)
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()


def log_chain(module, position=0.0):
    """log R of a chain without biases, renormalised at every layer."""
    x, log = np.ones(3), position
    for conv in convolutions(module):
        x = np.abs(conv.weight.detach().numpy()[:, :, 0, 0]) @ x
        log += math.log(x.max())
        x /= x.max()
    return log + math.log(x.sum())


@pytest.mark.slow
@pytest.mark.parametrize("gain", [30.0, 200.0, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_two_hundred_layers(gain, dtype):
    """A chain's flow is its number of layers times R: 1e390, 1e560 and 1e-520, far past double precision."""
    module = chain(200, gain)
    expected = math.log(200) + log_chain(module)
    assert abs(expected) > 850
    module.to(dtype)
    assert value(module, dtype=dtype) == pytest.approx(expected, abs=1e-9 if dtype == torch.float64 else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("gain", [1.0, 30.0, 100.0])
def test_two_hundred_layers_with_biases(gain):
    """Against long double: forward and backward by hand."""
    if np.finfo(np.longdouble).maxexp < 16000:
        pytest.skip("long double is double here")
    module = chain(200, gain, bias=True)
    weights = [np.abs(conv.weight.detach().numpy()[:, :, 0, 0]).astype(np.longdouble) for conv in convolutions(module)]
    biases = [np.abs(conv.bias.detach().numpy()).astype(np.longdouble) for conv in convolutions(module)]
    inputs = [np.ones(3, np.longdouble)]
    for weight, bias in zip(weights, biases, strict=True):
        inputs.append(weight @ inputs[-1] + bias)
    gradient, flow, logs = np.ones(4, np.longdouble), np.longdouble(0), np.longdouble(0)
    for weight, x in zip(weights[::-1], inputs[-2::-1], strict=True):
        flow += (weight * np.outer(gradient, x)).sum()
        logs += (weight * np.log1p(np.outer(gradient, x))).sum()
        gradient = weight.T @ gradient
    assert value(module) == pytest.approx(float(np.log(flow)), rel=1e-12)
    assert value(module, "logsynflow") == pytest.approx(float(logs), rel=1e-12)


def test_a_deep_residual_network():
    """Convolutions with links: R = product of (1 + |W|), in logarithms."""

    class Residual(nn.Module):
        def __init__(self, depth):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1, bias=False) for _ in range(depth))

        def forward(self, x):
            for conv in self.convs:
                x = x + F.relu(conv(x))
            return x.mean((2, 3))

    module = Residual(200).double()
    with torch.no_grad():
        for conv in module.convs:
            conv.weight.copy_(50 * torch.eye(3)[:, :, None, None])
    # each channel is alone: R = 3 * 51^200, and a layer's share of it 50 / 51
    expected = math.log(3) + 200 * math.log(51) + math.log(200 * 50 / 51)
    assert expected > 750
    assert value(module) == pytest.approx(expected, rel=1e-12)


def gated(ops):
    """A module from matrices and names of activations, on one position."""
    parts = []
    for op in ops:
        if isinstance(op, str):
            parts.append({"relu6": nn.ReLU6(), "hardswish": nn.Hardswish(), "norm": nn.GroupNorm(1, 3)}[op])
            continue
        parts.append(nn.Conv2d(3, 3, 1, bias=False))
        with torch.no_grad():
            parts[-1].weight.copy_(torch.from_numpy(op)[:, :, None, None])
    return nn.Sequential(*parts, nn.Flatten()).double()


def gated_flow(ops):
    """The same in long double, forward and backward by hand: the logarithm of the flow."""
    x = np.ones(3, np.longdouble)
    seen = []
    for op in ops:
        seen.append(x)
        if not isinstance(op, str):
            x = op.astype(np.longdouble) @ x
        elif op == "relu6":
            x = np.clip(x, 0, 6)
        elif op == "hardswish":
            x = x * np.clip(x + 3, 0, 6) / 6
        else:
            x = (x - x.mean()) / np.sqrt(x.var() + np.longdouble(1e-5))
    gradient, flow = np.ones(3, np.longdouble), np.longdouble(0)
    for op, x in zip(ops[::-1], seen[::-1], strict=True):
        if not isinstance(op, str):
            flow += np.abs(op.astype(np.longdouble) * np.outer(gradient, x)).sum()
            gradient = op.T.astype(np.longdouble) @ gradient
        elif op == "relu6":
            gradient = gradient * ((x > 0) & (x < 6))
        elif op == "hardswish":
            gradient = gradient * np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + np.longdouble(0.5)))
        else:
            deviation = np.sqrt(x.var() + np.longdouble(1e-5))
            y = (x - x.mean()) / deviation
            gradient = (gradient - gradient.mean() - y * (gradient * y).mean()) / deviation
    return float(np.log(flow)) if flow > 0 else -math.inf


@pytest.mark.slow
@pytest.mark.skipif(np.finfo(np.longdouble).maxexp < 16000, reason="long double is double here")
@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.floats(-12, 12), st.sampled_from(["relu6", "hardswish", "norm", None])),
        min_size=1,
        max_size=4,
    )
)
def test_the_score_is_right_or_there_is_none(segments):
    """Runs of layers that grow or shrink by up to 1e12 each, with what does not scale between them; to 1e-6."""
    ops, draw = [], np.random.default_rng(0)
    for length, gain, name in segments:
        ops += [draw.uniform(0.1, 0.5, (3, 3)) * 10**gain for _ in range(length)] + [name] * (name is not None)
    inputs = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    result = zs.score(gated(ops), "synflow", batch=Batch(inputs), init="keep")
    expected = gated_flow(ops)
    if result.ok and expected > -25:  # below, what a norm leaves of a flow of zero is rounding
        assert result.value == pytest.approx(expected, rel=1e-6, abs=1e-6)
    elif not result.ok:
        assert any(reason in result.reason for reason in ("not proportional", "is zero", "overflows"))
    if all(name is None for _, _, name in segments) and abs(expected) < 550 * math.log(10):
        assert result.ok


@pytest.mark.slow
def test_gates_past_double_precision_are_refused():
    """A gate that is half open for small values and open for large ones: scaled down, another network."""

    class Gate(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(x.mean((2, 3), keepdim=True))

    reason = failure(chain(200, 100.0, gate=Gate()))
    assert reason.startswith("the flow overflows, and the module's outputs are not proportional to its input")
    assert value(chain(60, 100.0, gate=Gate())) > 300  # in range: as it is
    late = value(chain(200, 100.0, gate=Gate(), after=150))  # there it is open either way
    assert late == pytest.approx(math.log(200) + log_chain(chain(200, 100.0)), rel=1e-12)
    assert "the flow underflows" in failure(nn.Sequential(nn.Hardswish(), *chain(200, 1e-3)))


@pytest.mark.slow
def test_what_is_out_of_reach():
    assert failure(chain(200, 1e5)) == "the flow overflows double precision, scaled or not"
    assert failure(chain(200, 1e5), "logsynflow") == "the flow overflows double precision, scaled or not"
    assert failure(chain(50, 1e9), variant="zennas").endswith("overflows; use variant 'bn', its logarithm")


def test_logsynflow_past_double_precision():
    """Of a chain with positive weights: log(1 + g) is log g, and log g is R / W where R has one path a layer."""
    module = nn.Sequential(*(nn.Conv2d(1, 1, 1, bias=False) for _ in range(200)), nn.Flatten()).double()
    weights = 10.0 ** np.linspace(0, 4, 200)
    with torch.no_grad():
        for conv, weight in zip(module, weights, strict=False):
            conv.weight.fill_(weight)
    expected = (weights * (np.log(weights).sum() - np.log(weights))).sum()
    assert value(module, "logsynflow", shape=(1, 1, 1)) == pytest.approx(expected, rel=1e-12)


# What has no score


@pytest.mark.parametrize("proxy", ["synflow", "logsynflow"])
def test_a_dead_network(proxy):
    module = chain(3)
    with torch.no_grad():
        module[2].weight.zero_()
    assert failure(module, proxy) == "the flow is zero, scaled or not: the network is dead"


def test_a_layer_that_leads_nowhere_is_no_failure():
    """Its share is zero; single precision gives way to double, since it can't tell zero from too small."""

    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.used(x) + 0 * self.unused(x)

    module = Dead()
    expected = math.log(module.used.weight.abs().double().sum().item() * 64)
    assert value(module, dtype=torch.float32) == pytest.approx(expected, rel=1e-6)


def test_batch_norm_that_sees_one_value():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).double()
    assert value(module, shape=(3, 3, 3)) == pytest.approx(value(module[0], shape=(3, 3, 3)), rel=1e-12)
    assert "one value per channel of the image (a gate, a small map); use variant 'paper'" in failure(
        module, shape=(3, 3, 3), variant="bn"
    )


def test_an_activation_in_place_after_batch_norm_leaves_its_input():
    """A batch norm that is passed by returns a new tensor, as it does else."""

    class PreActivation(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1, bias=False)

        def forward(self, x):
            return x + self.conv(F.hardtanh(self.norm(x), 0, 0.25, inplace=True))

    module = PreActivation().double()
    flow = plain_flow(module, (3, 8, 8), keep_norms=False)  # there the input is changed: one path is lost, not counted
    assert value(module) == pytest.approx(math.log(sum((w * g).abs().sum().item() for w, g in flow)), rel=1e-12)


def test_options_and_modules_that_do_not_fit():
    inputs = torch.zeros(1, 3, 8, 8)
    conv = nn.Conv2d(3, 4, 3)
    with pytest.raises(ProxyError, match="synflow's variant must be 'paper', 'bn' or 'zennas', got 'log'"):
        zs.score(conv, "synflow", batch=Batch(inputs), variant="log")
    for proxy in ("synflow", "logsynflow"):
        with pytest.raises(ProxyError, match="the module has none"):
            zs.score(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), proxy, batch=Batch(inputs))

    class Tuple(nn.Conv2d):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(ProxyError, match="expected a tensor from Tuple, got tuple"):
        zs.score(Tuple(3, 4, 3), "synflow", batch=Batch(inputs))


def test_the_network_stays_as_it_is():
    """Called on the module itself: weights, buffers and hooks."""
    network = Small().double()
    before = copy.deepcopy(network.state_dict())
    for variant in ("paper", "bn", "zennas"):
        zs.get_proxy("synflow", variant=variant)(network.train(), Batch(torch.zeros(1, 3, 8, 8).double()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(part._forward_hooks for part in network.modules())
