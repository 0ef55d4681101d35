"""MeCo against a straightforward implementation, by laws, and where it is undefined."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas import Architecture, Batch
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.proxy import get_proxy


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch_generator(seed)).double()


def build(seed: int = 0) -> nn.Sequential:
    """Widths from 1 to 40 on 64 and 16 positions, so that channels are more and fewer than positions."""
    module = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 1, 1),
        nn.Conv2d(1, 15, 3, stride=2, padding=1),
        nn.Conv2d(15, 16, 1),
        nn.Conv2d(16, 40, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(40, 10),
    ).double()
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=100 * seed + index))
    return module


def plain(outputs: list[torch.Tensor], channels: int | None = None) -> float:
    """Sum of the smallest eigenvalues of correlations, undefined ones put to 0."""
    total = 0.0
    for output in outputs:
        first = output[0].detach().reshape(len(output[0]), -1)
        chosen = first[:channels]
        correlation = torch.nan_to_num(torch.corrcoef(chosen), nan=0.0, posinf=0.0, neginf=0.0).reshape(
            len(chosen), len(chosen)
        )
        smallest = torch.linalg.eigvals(correlation).real.min().item()
        total += smallest * len(first) / len(chosen)
    return total


def outputs(module: nn.Sequential, x: torch.Tensor) -> list[torch.Tensor]:
    """Of every module, and of the network once more."""
    found = []
    for part in module:
        x = part(x)
        found.append(x)
    return [*found, x]


@pytest.mark.filterwarnings("ignore:cov()")
@pytest.mark.parametrize("images", [2, 3])
def test_by_a_plain_implementation(images):
    module, x = build(), draw(images, 3, 8, 8)
    expected = outputs(module, x)
    assert zs.score(module, "meco", batch=Batch(x), init="keep").value == pytest.approx(plain(expected), rel=1e-10)
    for channels in (4, 8):
        result = zs.score(module, "meco:variant=opt", batch=Batch(x), init="keep", channels=channels)
        assert result.value == pytest.approx(plain(expected, channels), rel=1e-10)


def test_two_channels_by_hand():
    """Correlation r: the smaller eigenvalue is 1 - |r|, for the one module and for the network."""
    module = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False)).double()
    module[0].weight.data = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)[:, :, None, None]
    x = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1]]).view(1, 2, 2, 2).double()
    result = zs.score(module, "meco", batch=Batch(x), init="keep")
    assert result.value == pytest.approx(2 * (1 - 0.6), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_constant_channel_makes_it_zero(dtype):
    """Its correlations are undefined and put to 0: a row of zeros. Others in the network count on."""
    module = nn.Sequential(nn.Conv2d(6, 6, 1), nn.Conv2d(6, 5, 1)).to(dtype)
    batch = Batch(draw(1, 6, 8, 8).to(dtype))
    before = zs.score(module, "meco", batch=batch, init="keep").value
    with torch.no_grad():
        module[1].weight[2] = 0
        module[1].bias[2] = 0.3
    after = zs.score(module, "meco", batch=batch, init="keep").value
    alone = zs.score(nn.Sequential(module[0]), "meco", batch=batch, init="keep").value
    assert 0 < after < before
    assert after == pytest.approx(alone / 2, rel=1e-9)  # of that, the network's output is one half


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.integers(0, 7), st.integers(0, 7))
def test_invariances(seed, scale, rows, columns):
    """Channels may be scaled, shifted, negated and permuted, and positions permuted."""
    module, x = nn.Sequential(nn.Conv2d(5, 5, 1)).double(), draw(1, 5, 8, 8, seed=seed + 1)
    with torch.no_grad():
        module[0].weight.copy_(draw(5, 5, 1, 1, seed=seed))
        before = zs.score(module, "meco", batch=Batch(x), init="keep").value
        module[0].weight[1] *= -scale
        module[0].bias[1] += scale
        module[0].weight.copy_(module[0].weight.roll(1, 0))
        module[0].bias.copy_(module[0].bias.roll(1, 0))
    moved = x.roll((rows, columns), (2, 3))
    after = zs.score(module, "meco", batch=Batch(moved), init="keep").value
    assert after == pytest.approx(before, rel=1e-7, abs=1e-9)
    assert -1e-9 <= after <= 2


def test_only_the_first_image_is_read():
    """Without batch norm the others don't matter."""
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()).double()
    x = draw(3, 3, 8, 8)
    one = zs.score(module, "meco", batch=Batch(x[:1]), init="keep")
    three = zs.score(module, "meco", batch=Batch(x), init="keep")
    assert one.value == pytest.approx(three.value, rel=1e-12)


def test_fewer_channels_than_the_variant_takes():
    """All are taken, with no factor."""
    module, x = nn.Sequential(nn.Conv2d(3, 5, 3)).double(), draw(1, 3, 8, 8)
    plain_value = zs.score(module, "meco", batch=Batch(x), init="keep").value
    assert zs.score(module, "meco:variant=opt:channels=8", batch=Batch(x), init="keep").value == plain_value


def test_modules_with_children_do_not_count_again():
    module, x = nn.Sequential(nn.Sequential(nn.Conv2d(3, 5, 3)), nn.ReLU()).double(), draw(1, 3, 8, 8)
    flat = nn.Sequential(module[0][0], module[1])
    values = [zs.score(each, "meco", batch=Batch(x), init="keep").value for each in (module, flat)]
    assert values[0] == values[1]


def test_of_an_architecture():
    net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,12,2,8,1)", (3, 16, 16))
    scores = zs.score(net, ["meco", "meco:variant=opt"])
    assert all(score.ok and score.value > 0 for score in scores.values())


# Where there is no score


def test_a_dead_network():
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    nn.init.zeros_(module[0].weight)
    result = zs.score(module, "meco", batch=Batch(draw(2, 3, 8, 8).float()), init="keep")
    assert result.reason == "no channel of any feature map varies over positions"


def test_without_feature_maps():
    result = zs.score(nn.Sequential(nn.Linear(6, 8), nn.ReLU()), "meco", input_size=(6,))
    assert result.reason == "no channel of any feature map varies over positions"


def test_numbers_that_are_not_finite():
    module = nn.Sequential(nn.Conv2d(3, 5, 3)).double()
    result = zs.score(module, "meco", batch=Batch(draw(1, 3, 8, 8) * 1e308), init="keep")
    assert result.reason == "a feature map is not finite"


def test_one_image_and_one_position():
    """Batch norm has no statistics there; the reason says what to do."""
    net = Architecture.from_string("SuperConvK3BNRELU(3,8,8,1)", (3, 8, 8))
    result = zs.score(net, "meco")
    assert result.state == "failed"
    assert "score on more inputs" in result.reason
    assert zs.score(net, "meco", batch_size=2).state == "failed"  # no positions to correlate over
    deeper = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperConvK3BNRELU(8,8,8,1)", (3, 8, 8))
    assert zs.score(deeper, "meco", batch_size=2).ok


def test_wrong_options():
    module = nn.Conv2d(3, 5, 3)
    with pytest.raises(ProxyError, match="meco's variant must be 'paper' or 'opt', got 'fast'"):
        zs.score(module, "meco:variant=fast", input_size=(3, 8, 8))
    with pytest.raises(ProxyError, match="meco's channels must be a whole number of 1 or more, got 0"):
        zs.score(module, "meco", input_size=(3, 8, 8), channels=0)
    for channels in (2.5, True, "8"):
        with pytest.raises(ProxyError, match=f"meco's channels must be a whole number, got {channels!r}"):
            zs.score(module, "meco", input_size=(3, 8, 8), channels=channels)


def test_registered():
    info = get_proxy("meco").info
    assert (info.batch_size, info.cost, info.direction) == (1, "forward", "higher")
    assert not info.needs_gradients
    assert not info.needs_labels
