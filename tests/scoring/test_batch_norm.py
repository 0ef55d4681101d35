"""Batch norms of any module: which statistics they use, what they see, and that all is as before afterwards."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zeroshot_nas.scoring.batch_norm import (
    BatchNormVariances,
    batch_norms,
    batch_statistics,
    running_statistics,
    without_batch_norm,
)

X = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1


def network():
    return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.5))


@pytest.mark.parametrize("statistics", [batch_statistics, running_statistics])
def test_modes_momenta_and_running_statistics_are_as_before(statistics):
    module = network()
    module[0].eval()
    before = [(part.training, getattr(part, "momentum", None)) for part in module.modules()]
    running = [module[2].running_mean.clone(), module[2].running_var.clone()]
    with statistics(module):
        module(X)
    assert [(part.training, getattr(part, "momentum", None)) for part in module.modules()] == before
    assert all(map(torch.equal, running, [module[2].running_mean, module[2].running_var]))


def test_the_batchs_statistics_and_no_dropout():
    module = network()
    with batch_statistics(module):
        assert torch.equal(module(X), module(X))
        normed = module[0](X)
    assert normed.mean((0, 2, 3)).abs().max() < 1e-5
    with running_statistics(module):
        assert torch.allclose(module[0](X), X, atol=1e-4)  # mean 0, variance 1


def test_without_batch_norm_a_module_and_a_function_pass_their_input_by():
    with without_batch_norm():
        for output in (nn.BatchNorm2d(3)(X), F.batch_norm(X, None, None, training=True), nn.BatchNorm2d(3)(X[:1])):
            assert torch.equal(output, X[: len(output)])
            assert output.data_ptr() != X.data_ptr()
        assert nn.BatchNorm2d(3)(X[:1, :, :1, :1]).shape == (1, 3, 1, 1)  # one value a channel has no variance


@pytest.mark.parametrize("unbiased", [True, False])
def test_variances_are_those_of_the_inputs(unbiased):
    module = network()
    with batch_statistics(module), BatchNormVariances(module, unbiased=unbiased) as variances:
        module(X)
    with batch_statistics(module):
        inputs = [X, module[1](module[0](X))]
    expected = [x.double().transpose(0, 1).flatten(1).var(1, correction=int(unbiased)).mean().item() for x in inputs]
    assert variances.means == pytest.approx(expected, rel=1e-5)
    assert all(not norm._forward_hooks and not norm._forward_pre_hooks for norm in batch_norms(module))
