"""L-SWAG against a straightforward implementation, by laws, and where it is undefined."""

import math

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
    """Three layers and two ReLUs."""
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4 * 4, 5)
    ).double()
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=100 * seed + index) / 3)
    return module


def batches(number: int, images: int = 3, seed: int = 0) -> Batch:
    found = [
        Batch(draw(images, 3, 8, 8, seed=seed + index), torch.arange(index, index + images) % 5)
        for index in range(number)
    ]
    return found[0]._replace(further=tuple(found[1:]))


def plain(module: nn.Sequential, batch: Batch, layers: list[int], relus: list[int]) -> float:
    """Weight by weight, unit by unit."""
    gradients = []
    for each in (batch, *batch.further):
        module.zero_grad()
        nn.functional.cross_entropy(module(each.inputs), each.targets).backward()
        gradients.append([module[index].weight.grad.abs().flatten().tolist() for index in (0, 2, 5)])
    trainability = 0.0
    for layer in layers:
        total = 0.0
        for sizes in zip(*(each[layer] for each in gradients), strict=True):
            mean = sum(sizes) / len(sizes)
            deviation = math.sqrt(sum((size - mean) ** 2 for size in sizes) / len(sizes))
            total += 1 / deviation if deviation else 0
        trainability += math.log(total)
    patterns = set()
    for relu in relus:
        units = module[: 2 + 2 * relu](batch.inputs).detach().flatten(1) > 0
        patterns |= {tuple(unit.tolist()) for unit in units.T}
    return trainability * len(patterns)


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize(
    ("options", "layers", "relus"),
    [
        ({}, [0, 1, 2], [0, 1]),
        ({"first_layer": 0, "last_layer": 30}, [0], [0]),
        ({"first_layer": 40, "last_layer": 100}, [1, 2], [1]),
        ({"first_layer": 20, "last_layer": 60.5}, [1], [0]),
    ],
)
def test_by_a_plain_implementation(number, options, layers, relus):
    """Layers stand at 17, 50 and 83 per cent, ReLUs at 25 and 75."""
    module, batch = build(), batches(number)
    result = zs.score(module, "l_swag", batch=batch, init="keep", **options)
    assert result.value == pytest.approx(plain(module, batch, layers, relus), rel=1e-9)


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.permutations(range(3)))
def test_invariances(seed, order):
    """The order of a batch's images does not matter."""
    module, batch, order = build(seed), batches(2, seed=seed), list(order)
    before = zs.score(module, "l_swag", batch=batch, init="keep").value
    moved = batch._replace(inputs=batch.inputs[order], targets=batch.targets[order])
    assert zs.score(module, "l_swag", batch=moved, init="keep").value == pytest.approx(before, rel=1e-8)


def test_the_same_batches_the_other_way_round():
    """Swapped, they have the same gradients; patterns are those of the first."""
    module, batch = build(), batches(2)
    first, (second,) = Batch(batch.inputs, batch.targets), batch.further
    swapped = second._replace(further=(first,))
    there, back = (zs.score(module, "l_swag", batch=each, init="keep").value for each in (batch, swapped))
    patterns = [zs.score(module, "swap", batch=each, init="keep").value for each in (batch, swapped)]
    assert there / patterns[0] == pytest.approx(back / patterns[1], rel=1e-10)


def test_of_an_architecture():
    net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,12,2,8,1)", (3, 8, 8))
    every, some, zico = zs.score(net, ["l_swag", "l_swag:first_layer=25:last_layer=75", "zico"], repeats=2).values()
    assert every.ok
    assert some.ok
    assert zico.ok
    assert every.value > some.value


# Where there is no score


def test_one_image():
    result = zs.score(build(), "l_swag", batch=batches(2, images=1), init="keep")
    assert result.reason == "the patterns of one image all but agree; score on more inputs"


def test_equal_batches_and_dead_networks():
    module, batch = build(), batches(1)
    text = "no gradient differs between the batches: they are equal, or the network is dead"
    assert zs.score(module, "l_swag", batch=batch._replace(further=(batch,)), init="keep").reason == text
    for index in (0, 2, 5):
        nn.init.zeros_(module[index].weight)
    nn.init.zeros_(module[0].bias)
    nn.init.zeros_(module[2].bias)
    assert zs.score(module, "l_swag", batch=batches(2), init="keep").reason == text


def test_numbers_that_are_not_finite():
    module, batch = build(), batches(2)
    broken = zs.score(module, "l_swag", batch=batch._replace(inputs=batch.inputs * math.inf), init="keep")
    assert broken.state == "failed"
    assert "not" in broken.reason


def test_what_it_can_not_be_computed_for():
    module = build()
    with pytest.raises(ProxyError, match="l_swag compares batches"):
        zs.score(module, "l_swag", batch=batches(1), init="keep")
    with pytest.raises(ProxyError, match="needs labels"):
        zs.score(module, "l_swag", batch=batches(2)._replace(targets=None), init="keep")
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).double()
    with pytest.raises(
        ProxyError, match="a layer and an activation, and the module has none from 0 to 100 per cent of its depth"
    ):
        zs.score(linear, "l_swag", batch=batches(2), init="keep")
    with pytest.raises(ProxyError, match="the module has none from 60 to 70 per cent"):
        zs.score(module, "l_swag:first_layer=60:last_layer=70", batch=batches(2), init="keep")


@pytest.mark.parametrize("percentiles", [(50, 50), (60, 40), (-1, 50), (0, 101), (0, math.nan)])
def test_wrong_percentiles(percentiles):
    first, last = percentiles
    with pytest.raises(ProxyError, match="l_swag's first_layer and last_layer are percentiles"):
        zs.score(build(), "l_swag", batch=batches(2), init="keep", first_layer=first, last_layer=last)


@pytest.mark.parametrize("percentile", ["a", True])
def test_percentiles_that_are_no_numbers(percentile):
    with pytest.raises(ProxyError, match=f"l_swag's first_layer must be a number, got {percentile!r}"):
        zs.score(build(), "l_swag", batch=batches(2), init="keep", first_layer=percentile)


def test_registered():
    info = get_proxy("l_swag").info
    assert (info.source, info.cost, info.batches) == ("arXiv:2505.07300", "backward", 2)
    assert (info.needs_gradients, info.needs_labels, info.real_data) == (True, True, True)
