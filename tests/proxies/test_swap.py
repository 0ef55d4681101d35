"""Pattern counts against Python sets of tuples; their laws; where they are undefined."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas import Batch
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.proxies.swap import DEFAULT_MU, layer_swap, linear_regions, swap, swap_reg
from zeroshot_nas.scoring import relu_patterns
from zeroshot_nas.scoring.relu_patterns import count_images, count_patterns, unit_codes

SIZE = (3, 6, 6)


class Several(nn.Module):
    """Two ReLUs on feature maps, one behind a linear layer, which does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.fc1, self.fc2 = nn.Linear(6, 50), nn.Linear(50, 3)

    def maps(self, x):
        first = F.relu(self.norm(self.conv1(x)))
        return first, F.relu(self.conv2(first))

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(self.maps(x)[1].mean((2, 3)))))

    def signs(self, x):
        with torch.no_grad():
            return np.concatenate([each.flatten(1).numpy() > 0 for each in self.maps(x)], axis=1)


def of_values(x, proxy=swap):
    """The score of a network that is a ReLU, for values ``(N, units)``."""
    return proxy(nn.ReLU(), Batch(torch.as_tensor(x)[:, :, None]))


def on_and_off(seed, images, units, chance=0.5):
    return (np.random.default_rng(seed).random((images, units)) < chance).astype(np.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_are_the_numbers_of_different_columns_and_rows(dtype):
    torch.manual_seed(0)
    module, x = Several().to(dtype), torch.randn(7, *SIZE, dtype=dtype)
    x[3] = x[5]
    signs = module.signs(x)
    scores = zs.score(module, ["swap", "linear_regions"], batch=Batch(x), init="keep")
    assert scores["swap"].value == len({tuple(column) for column in signs.T}) > 20
    assert scores["linear_regions"].value == len({tuple(row) for row in signs}) == 6


def test_by_hand():
    x = [[1.0, 0.0, 2.0, 0.0, 0.1], [-1.0, 0.0, 1.0, 3.0, 0.0]]
    assert of_values(x) == 4  # 10, 00, 11, 01; the first and the last unit agree
    assert of_values(x, linear_regions) == 2
    assert of_values([x[0], x[0]], linear_regions) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 140), st.integers(1, 60), st.sampled_from([0.02, 0.5]))
def test_any_number_of_images(seed, images, units, chance):
    """Also where a pattern takes several words, and where images or units are equal."""
    x = on_and_off(seed, images, units, chance)
    assert of_values(x) == len({tuple(column) for column in x.T})
    assert of_values(x, linear_regions) == len({tuple(row) for row in x})


@pytest.mark.parametrize("images", [2, 16, 22, 23, 24, 25, 48, 49, 61, 62, 63, 64, 124, 125])
def test_every_bit_counts(images):
    """Patterns of a single bit each, beside all on and all off: at the edges of words and their parts."""
    x = np.concatenate([np.eye(images), np.ones((images, 1)), np.zeros((images, 1))], axis=1).astype(np.float32)
    assert of_values(x) == images + 2
    assert of_values(np.concatenate([x, x], axis=1)) == images + 2


def test_table_and_sorting_agree(monkeypatch):
    codes = unit_codes(torch.from_numpy(on_and_off(0, 16, 5000)))
    marked = count_patterns(codes)
    monkeypatch.setattr(relu_patterns, "_TABLE", 0)
    assert count_patterns(codes) == marked > 4000


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_laws(seed, images):
    """Order does not matter; an image twice tells no more units apart; there are 2^N patterns at most."""
    rng = np.random.default_rng(seed)
    x = on_and_off(seed, images, 300)
    count = of_values(x)
    assert count <= 2**images
    assert of_values(rng.permutation(x, axis=0)) == count
    assert of_values(rng.permutation(x, axis=1)) == count
    assert of_values(5 * x) == count
    assert of_values(np.concatenate([x, x[:1]])) == count
    assert of_values(x[:, :150]) <= count
    regions = of_values(x, linear_regions)
    assert of_values(np.concatenate([x, x[:1]]), linear_regions) == regions <= images
    assert of_values(x[:, :2], linear_regions) <= min(regions, 4)


def test_images_are_compared_over_all_relus():
    first = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    second = torch.tensor([[1.0], [0.0], [0.0], [1.0]])
    assert count_images([first, first]) == 2
    assert count_images([first, second]) == 4
    assert count_images([first[:1], second[:1]]) == 1


def test_memory_layout_does_not_matter():
    x = torch.randn(5, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    for proxy in (swap, linear_regions):
        assert proxy(nn.ReLU(), Batch(x.contiguous(memory_format=torch.channels_last))) == proxy(nn.ReLU(), Batch(x))


def test_one_layer():
    x = torch.randn(6, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert layer_swap(x.relu()) == swap(nn.ReLU(), Batch(x))
    assert layer_swap(x.relu().bfloat16()) == layer_swap(x.relu())


def test_a_sequence_has_spatial_axes_too():
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU())
    assert 1 < zs.score(net, "swap", input_size=(2, 20), repeats=1).value <= 54


def test_size_weighs_in():
    torch.manual_seed(0)
    module, batch = Several(), Batch(torch.randn(7, *SIZE))
    thousands = sum(parameter.numel() for parameter in module.parameters()) / 1000
    plain = swap(module, batch)
    assert swap_reg(module, batch, mu=thousands) == plain
    assert swap_reg(module, batch, mu=2 * thousands) == pytest.approx(plain * math.exp(-1 / 4))
    assert swap_reg(module, batch, mu=1.5 * thousands, sigma=thousands**2) == pytest.approx(plain * math.exp(-1 / 4))
    expected = plain * math.exp(-((thousands - DEFAULT_MU) ** 2) / DEFAULT_MU**2)
    assert swap_reg(module, batch) == pytest.approx(expected)


# Failures


@pytest.mark.parametrize("proxy", [swap, swap_reg, linear_regions])
def test_one_image_is_undefined(proxy):
    with pytest.raises(UndefinedScoreError, match="two or more"):
        of_values([[1.0, 0.0]], proxy)


@pytest.mark.parametrize("proxy", [swap, linear_regions])
def test_not_a_number_is_undefined(proxy):
    with pytest.raises(UndefinedScoreError, match="not a number"):
        of_values([[1.0, math.nan], [0.0, 1.0]], proxy)


@pytest.mark.parametrize("name", ["swap", "swap_reg", "linear_regions"])
def test_a_module_without_relus_on_feature_maps_has_none(name):
    module = nn.Sequential(nn.Conv2d(3, 4, 6), nn.Flatten(), nn.ReLU())
    with pytest.raises(ProxyError, match="none on a feature map"):
        zs.score(module, name, input_size=SIZE)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mu": 0}, "mu must be a number above 0, got 0"),
        ({"mu": "large"}, "mu must be a number, got 'large'"),
        ({"mu": 10, "sigma": -1}, "sigma must be a number above 0, got -1"),
        ({"mu": 10, "sigma": "wide"}, "sigma must be a number or none, got 'wide'"),
        ({"mu": math.inf}, "mu must be a number above 0, got inf"),
        ({"mu": True}, "mu must be a number, got True"),
    ],
)
def test_wrong_sizes(options, reason):
    with pytest.raises(ProxyError, match=f"swap_reg's {reason}"):
        zs.score(Several(), "swap_reg", input_size=SIZE, **options)


def test_a_size_that_is_far_off_is_a_failure_and_not_zero():
    result = zs.score(Several(), "swap_reg", input_size=SIZE, mu=0.001)
    assert result.state == "failed"
    assert "set mu" in result.reason
