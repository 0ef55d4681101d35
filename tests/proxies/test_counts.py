"""Counts as proxies, of architectures and of any module."""

import pytest
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas import Architecture, Batch
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.proxy import get_proxy

NET = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,4,2)", (3, 8, 8))


@pytest.mark.parametrize("name", ["params", "flops", "layers"])
def test_of_an_architecture_it_is_read_off(name):
    """Exactly, once, and the same for the built network."""
    result = zs.score(NET, name)
    assert result.value == getattr(zs.cost(NET), name)
    assert (result.standard_error, result.repeats) == (0, 1)
    assert zs.score(zs.build(NET), name).value == result.value


@pytest.mark.parametrize("squeeze_excite", [False, True])
def test_module_and_architecture_agree(squeeze_excite):
    """A network of ours counted as if it were a stranger's."""
    text = "SuperConvK3BNRELU(3,8,1,1)SuperResK1K3K1(8,16,2,4,2)SuperResIDWE2K5(16,24,2,8,1)"
    architecture = Architecture.from_string(text, (3, 9, 7), squeeze_excite=squeeze_excite)
    network = zs.build(architecture)
    module = nn.Sequential(network.blocks, network.head)
    for name in ("params", "flops"):
        counted = zs.score(module, name, input_size=(3, 9, 7), repeats=1)
        assert counted.value == zs.score(architecture, name).value


def test_a_module_by_hand():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 6 * 6, 5), nn.Linear(5, 2)
    )
    values = zs.score(module, ["params", "flops", "layers"], input_size=(3, 8, 8), repeats=1)
    assert values["params"].value == 108 + 8 + 144 * 5 + 5 + 10 + 2
    assert values["flops"].value == 108 * 36 + 144 * 5 + 10
    assert values["layers"].value == 3


def test_frozen_and_shared_parameters():
    """What the owner froze counts, and what two layers share counts once."""
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    module[0].requires_grad_(False)
    assert zs.score(module, "params", input_size=(4, 4, 4), repeats=1).value == 40
    module[1].weight = module[0].weight
    assert zs.score(module, "params", input_size=(4, 4, 4), repeats=1).value == 24


def test_a_module_that_does_not_run():
    """In a list the others are not lost."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(10, 2))
    with pytest.raises(ProxyError, match="flops: Sequential could not be traced"):
        zs.score(module, "flops", input_size=(3, 4, 4))
    both = zs.score(module, ["params", "flops"], input_size=(3, 4, 4), repeats=1)
    assert both["params"].value == 22
    assert "could not be traced" in both["flops"].reason


@pytest.mark.parametrize(("name", "grows"), [("params", False), ("flops", False), ("layers", True)])
def test_registered(name, grows):
    info = get_proxy(name).info
    assert (info.cost, info.exact, info.direction, info.grows_with_depth) == ("graph", True, "higher", grows)
    assert (info.needs_labels, info.needs_gradients, info.needs_batch_norm) == (False, False, False)


def test_no_image_is_read():
    """The shape is enough."""
    module = nn.Conv2d(3, 4, 3)
    batch = Batch(next(module.parameters()).new_full((2, 3, 5, 5), float("nan")))
    assert zs.score(module, "flops", batch=batch).value == 108 * 9
