"""One rule for what a feature map is, wherever one is looked for."""

import pytest
import torch
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.autograd_graph import AutogradGraph
from zeroshot_nas.scoring.feature_map import feature_map, is_feature_map
from zeroshot_nas.training.distillation import _probe

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((2, 8, 4, 4), torch.float32, True),
        ((2, 8, 1, 2), torch.float64, True),
        ((2, 8, 1, 1), torch.float32, False),  # pooled
        ((2, 8), torch.float32, False),  # logits
        ((2, 8, 4), torch.float32, False),  # other axes
        ((2, 8, 4, 4), torch.bool, False),
    ],
)
def test_a_feature_map_has_the_inputs_axes_and_more_than_one_position(shape, dtype, expected):
    x = torch.zeros(shape, dtype=dtype)
    assert is_feature_map(x, axes=4) is expected
    assert is_feature_map(x) is (expected or shape == (2, 8, 4))


class Net(nn.Module):
    """The last feature map is the sum's; what follows is pooled, and a mask that is no number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.body = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 5)

    def forward(self, x):
        x = self.conv(x)
        self.sum = x + self.body(x)
        _ = self.sum > 0
        return self.fc(self.pool(self.sum).flatten(1))


def test_all_that_look_for_it_find_the_same_one():
    network = Net()
    assert feature_map(network, IMAGES) is network.sum
    images = IMAGES.clone().requires_grad_()
    logits = network(images)
    assert AutogradGraph(logits, images).last is network.sum.grad_fn
    assert list(zs.Batch(IMAGES).passes(network).forward.features) == ["conv", "body"]  # of modules, not of sums
    assert _probe(network, IMAGES)[1] == [(network.body, 4)]


def test_our_own_network_has_it_before_its_head():
    network = zs.build(zs.Architecture.from_string("SuperConvK3BNRELU(3,8,2,1)", (3, 8, 8)))
    assert torch.equal(feature_map(network, IMAGES), network.forward_features(IMAGES))


def test_without_spatial_axes_it_is_the_output():
    network = nn.Linear(6, 3)
    inputs = torch.ones(2, 6)
    assert torch.equal(feature_map(network, inputs), network(inputs))


def test_where_there_is_none_and_no_output_either():
    class Nothing(nn.Module):
        def forward(self, x):
            return {"logits": x.mean((2, 3))}

    with pytest.raises(ProxyError, match="returns dict and computes no feature map"):
        feature_map(Nothing(), IMAGES)
