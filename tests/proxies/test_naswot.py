"""NASWOT against a kernel counted bit by bit; its laws; where it is undefined."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas import Batch, get_proxy
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.proxies.naswot import naswot
from zeroshot_nas.scoring import relu_patterns
from zeroshot_nas.scoring.relu_patterns import differing_units, packed_units

SIZE = (3, 6, 6)


class Gated(nn.Module):
    """ReLUs as module, function and method; one behind a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
        self.inner = nn.Conv2d(5, 5, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.fc1, self.fc2 = nn.Linear(5, 7), nn.Linear(7, 4)

    def forward(self, x):
        x = self.relu(self.norm(self.conv(x)))
        x = F.relu(self.inner(x) + x)
        return self.fc2(self.fc1(x.mean((2, 3))).relu())

    def codes(self, x):
        """Bits of all units, one row an image, with numpy."""
        with torch.no_grad():
            first = self.norm(self.conv(x))
            second = self.inner(first.clamp(min=0)) + first.clamp(min=0)
            third = self.fc1(second.clamp(min=0).mean((2, 3)))
        return np.concatenate([each.flatten(1).numpy() > 0 for each in (first, second, third)], axis=1)


def log_determinant(codes):
    """Counts agreements of every pair of images, unit by unit."""
    kernel = np.array([[float(sum(a == b for a, b in zip(i, j, strict=True))) for j in codes] for i in codes])
    sign, value = np.linalg.slogdet(kernel)
    assert sign > 0
    return value


def of_values(x, **options):
    """The score of a network that is a ReLU."""
    return naswot(nn.ReLU(), Batch(torch.as_tensor(x)), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_log_determinant_of_the_agreements(dtype):
    torch.manual_seed(0)
    module, x = Gated().to(dtype), torch.randn(6, *SIZE, dtype=dtype)
    result = zs.score(module, "naswot", batch=Batch(x), init="keep")
    assert result.value == pytest.approx(log_determinant(module.codes(x)), rel=1e-12)


def test_two_images_by_hand():
    """Three units, one of which agrees: det [[3, 1], [1, 3]]."""
    x = [[1.0, 0.5, 0.0], [2.0, 0.0, 3.0]]
    assert of_values(x) == pytest.approx(math.log(8))
    assert of_values(x, normalise=True) == pytest.approx(math.log(1 - 1 / 9))


def test_zero_is_off():
    assert of_values([[0.0, 1.0, 1.0], [-1.0, -1.0, 1.0]]) == of_values([[-2.0, 1.0, 1.0], [0.0, 0.0, 1.0]])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(40, 80))
def test_laws(seed, images, units):
    """Order of images and of units, sizes and a swap of on and off don't matter; twice the units scale K by two."""
    rng = np.random.default_rng(seed)
    x = rng.choice([-1.0, 1.0], (images, units)) * rng.uniform(0.5, 2, (images, units))
    value = of_values(x)
    assert value == pytest.approx(log_determinant(x > 0), rel=1e-10)
    assert of_values(rng.permutation(x, axis=0)) == pytest.approx(value, rel=1e-10)
    assert of_values(rng.permutation(x, axis=1)) == pytest.approx(value, rel=1e-10)
    assert of_values(7 * x) == of_values(x)
    assert of_values(-x) == pytest.approx(value, rel=1e-10)
    twice = np.concatenate([x, x], axis=1)
    assert of_values(twice) == pytest.approx(value + images * math.log(2), rel=1e-10)
    assert of_values(twice, normalise=True) == pytest.approx(of_values(x, normalise=True), rel=1e-9)
    assert of_values(x, normalise=1.0) == pytest.approx(value - images * math.log(units), rel=1e-9)


def test_memory_layout_does_not_matter():
    x = torch.randn(5, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert of_values(x.contiguous(memory_format=torch.channels_last)) == pytest.approx(of_values(x), rel=1e-12)


def test_counts_are_exact_in_half_precision():
    x = torch.ones(2, 5000, dtype=torch.bfloat16)
    x[1, :3] = 0
    assert differing_units(packed_units([x])).tolist() == [[0, 3], [3, 0]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.lists(st.integers(1, 150), min_size=1, max_size=4))
def test_units_that_differ_are_counted_bit_by_bit(seed, images, widths):
    """Of several activations, whatever fills their last byte and word, in parts of any size, by NumPy 1 and 2."""
    rng = np.random.default_rng(seed)
    relus = [torch.from_numpy(rng.random((images, width)) < 0.5) for width in widths]
    codes = np.concatenate([relu.numpy() for relu in relus], axis=1)
    expected = (codes[:, None] != codes[None]).sum(2).tolist()
    packed = packed_units(relus)
    assert differing_units(packed).tolist() == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relu_patterns, "_CACHED", 1)
        assert differing_units(packed).tolist() == expected
        patch.delattr(np, "bitwise_count", raising=False)
        assert differing_units(packed).tolist() == expected


def test_normalised_scores_of_narrow_and_wide_networks_are_close():
    def network(width):
        return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU())

    plain = [zs.score(network(width), "naswot", input_size=SIZE).value for width in (8, 64)]
    normalised = [zs.score(network(width), "naswot:normalise=1", input_size=SIZE).value for width in (8, 64)]
    assert plain[1] - plain[0] == pytest.approx(16 * math.log(8), rel=0.1)
    assert abs(normalised[1] - normalised[0]) < 3


# Failures


def test_one_image_is_undefined():
    with pytest.raises(UndefinedScoreError, match="two or more"):
        of_values(torch.ones(1, 4))


def test_equal_images_are_named():
    x = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    x[4] = x[1] * 3
    with pytest.raises(UndefinedScoreError, match="images 1 and 4"):
        of_values(x)
    result = zs.score(nn.ReLU(), "naswot", batch=Batch(x), init="keep")
    assert result.state == "failed"
    assert "1 and 4" in result.reason


def test_a_dead_network_is_undefined():
    with pytest.raises(UndefinedScoreError, match="0 and 1"):
        of_values(-torch.ones(3, 8))


def test_too_few_units_are_undefined():
    """Four units give at most rank five."""
    codes = torch.tensor([[int(bit) for bit in f"{number:04b}"] for number in range(8)], dtype=torch.float32)
    with pytest.raises(UndefinedScoreError, match="4 activation units are too few to compare 8 images"):
        of_values(codes)


def test_not_a_number_is_undefined():
    with pytest.raises(UndefinedScoreError, match="not a number"):
        of_values([[1.0, math.nan], [0.0, 1.0]])


def test_a_module_without_relu_has_none():
    for module in (nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid())):
        with pytest.raises(ProxyError, match="reads ReLUs and their like, and the module calls none"):
            zs.score(module, "naswot", input_size=SIZE)


PATTERN_PROXIES = ["naswot", "swap", "swap_reg", "linear_regions", "l_swag"]
LIKE_RELU = [
    *(nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
    *(nn.Softplus, nn.Tanh, nn.Hardtanh, nn.Softsign),
]


@pytest.mark.parametrize("kind", LIKE_RELU)
def test_of_an_activation_of_another_kind_the_sign_of_its_input_is_read(kind):
    """One behind a convolution makes the patterns that a ReLU makes; as a function, a method and in place too."""
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 40, 3), torch.randn(4, *SIZE)
    relu = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(640, 4))
    batch = Batch(x)
    name = kind.__name__
    functions = {"softplus": F.softplus, "tanh": torch.Tensor.tanh_, "relu6": F.relu6}
    others = [nn.Sequential(conv, kind(), *relu[2:])]
    if "inplace" in kind.__init__.__code__.co_varnames:
        others.append(nn.Sequential(conv, kind(inplace=True), *relu[2:]))
    if name.lower() in functions:
        others.append(nn.Sequential(conv, Called(functions[name.lower()]), *relu[2:]))
    for proxy in PATTERN_PROXIES[:4]:
        expected = zs.score(relu, proxy, batch=batch, init="keep")
        assert expected.ok
        for other in others:
            if proxy == "swap_reg" and kind is nn.PReLU:
                continue  # it has one parameter more
            assert zs.score(other, proxy, batch=batch, init="keep").value == expected.value


class Called(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_a_threshold_is_on_above_its_own_level():
    x = torch.tensor([[0.5, 1.5, -2.0], [2.0, 0.5, 1.5]])
    for module in (nn.Threshold(1.0, 0.0), Called(lambda x: F.threshold(x, 1.0, 20.0))):
        assert zs.score(module, "naswot", batch=Batch(x), init="keep").value == of_values(x - 1)


@pytest.mark.parametrize("proxy", PATTERN_PROXIES)
def test_a_mobilenet_has_patterns(proxy):
    """A unit of MobileNetV2 and one of MobileNetV3: ReLU6, hardswish, and a hard sigmoid that does not count."""
    torch.manual_seed(0)
    for act in (nn.ReLU6, nn.Hardswish):
        unit = [nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), act(inplace=True), nn.Conv2d(16, 16, 3, groups=16), act()]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)]
        module = nn.Sequential(*unit, *head)
        assert zs.score(module, proxy, input_size=SIZE).ok
        gated = nn.Sequential(*unit, *head, nn.Hardsigmoid(), nn.Linear(5, 5))
        batch = Batch(torch.randn(4, *SIZE))
        if proxy == "naswot":
            assert len({zs.score(each, proxy, batch=batch, init="keep").value for each in (module, gated)}) == 1


def test_a_relu_whose_first_axis_is_not_the_images():
    class Turned(nn.Module):
        def forward(self, x):
            return torch.relu(x.T)

    with pytest.raises(ProxyError, match="first axis"):
        naswot(Turned(), Batch(torch.ones(2, 3)))


def test_a_wrong_option():
    with pytest.raises(ProxyError, match="naswot's normalise must be true or false, got 2"):
        get_proxy("naswot", normalise=2)
    with pytest.raises(ProxyError, match="no option 'normalize'"):
        get_proxy("naswot", normalize=True)
