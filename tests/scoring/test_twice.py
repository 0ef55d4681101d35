"""What torch differentiates once, twice: values and gradients are torch's, and the second derivative is right."""

import pytest
import torch
from torch import nn

import zeroshot_nas as zs
from tests.once import Once
from zeroshot_nas import Batch
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.twice import hardsigmoid


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch_generator(seed), dtype=torch.float64)


def test_hardsigmoid_is_torchs_and_has_a_second_derivative():
    x = (4 * draw(200)).float().requires_grad_()
    given = draw(200, seed=1).float()
    results = [function(x) for function in (hardsigmoid, nn.functional.hardsigmoid)]
    assert torch.equal(*results)
    slopes = [torch.autograd.grad(result, x, given, create_graph=True)[0] for result in results]
    assert torch.equal(*slopes)
    y = (4 * draw(40)).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: hardsigmoid(x.sin() * x), y)
    assert torch.autograd.gradcheck(lambda x: hardsigmoid(x.sin() * x), y)


class Formula(nn.Module):
    def forward(self, x):
        return nn.functional.relu6(x + 3) / 6


@pytest.mark.parametrize("make", [nn.Hardsigmoid, lambda: nn.Hardsigmoid(inplace=True)], ids=["new", "in place"])
@pytest.mark.parametrize("proxy", ["grasp", "snip", "vkdnw:variant=paper"])
def test_a_network_of_hardsigmoids_has_the_value_of_their_formula(make, proxy):
    """Of 150 classes, so that vkdnw differentiates twice; a gate, which multiplies, and one behind a convolution."""

    class Gated(nn.Module):
        def __init__(self, activation):
            super().__init__()
            self.conv, self.first, self.gate, self.last = (
                nn.Conv2d(3, 6, 3),
                activation(),
                nn.Conv2d(6, 6, 1),
                activation(),
            )
            self.head = nn.Linear(216, 150)

        def forward(self, x):
            x = self.first(3 * self.conv(x))
            return self.head((x * self.last(4 * self.gate(x))).flatten(1))

    batch = Batch(draw(4, 3, 8, 8), torch.tensor([3, 1, 149, 0]))
    networks = [Gated(make).double(), Gated(Formula).double()]
    networks[1].load_state_dict(networks[0].state_dict())
    values = [zs.score(network, proxy, batch=batch, init="keep").value for network in networks]
    assert values[0] == pytest.approx(values[1], rel=1e-6)  # torch takes a sixth in single precision
    assert values[0] != 0


class Doubled(nn.Module):
    def forward(self, x):
        return Once.apply(x.tanh())


def test_who_has_no_second_derivative_is_named():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Doubled(), nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(
        ProxyError, match=r"calls a function marked @once_differentiable, which has no second"
    ) as caught:
        zs.score(network, "grasp", input_size=(3, 8, 8))
    assert "Check input_size" not in str(caught.value)

    class Bare(nn.Module):
        def forward(self, x):
            return torch.ops.aten.hardsigmoid(x)

    network[1] = Bare()
    with pytest.raises(ProxyError, match=r"torch has no second derivative of hardsigmoid, which the module calls"):
        zs.score(network, "grasp", input_size=(3, 8, 8))
