"""Input-gradient correlations against numpy; their laws; where they are undefined."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas import Batch
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.proxies.jacobian import epe_nas, jacob_cov

K = 1e-5
SIZE = (3, 6, 6)


class Squares(nn.Module):
    """Half the squares as logits, so that an image is its own gradient."""

    def forward(self, x):
        return x.square().flatten(1) / 2


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)
    ).double()


def gradients_of(module, x):
    """Finite differences of the sum of all logits, pixel by pixel."""
    rows = np.zeros((len(x), x[0].numel()))
    with torch.no_grad():
        for image in range(len(x)):
            for pixel in range(rows.shape[1]):
                step = torch.zeros_like(x)
                step[image].view(-1)[pixel] = 1e-6
                rows[image, pixel] = (module(x + step).sum() - module(x - step).sum()).item() / 2e-6
    return rows


def plain_jacob_cov(rows):
    values = np.linalg.eigvals(np.corrcoef(rows)).real
    return -sum(math.log(value + K) + 1 / (value + K) for value in values)


def plain_epe_nas(rows, labels, pairwise=False):
    sums, counts = {}, {}
    for label in set(labels):
        members = rows[labels == label]
        counts[label] = len(members)
        sums[label] = np.log(np.abs(np.atleast_2d(np.corrcoef(members))) + K).sum()
    if not pairwise:
        return sum(abs(value) for value in sums.values())
    means = [sums[label] / counts[label] for label in sums if counts[label] > 1]
    return sum(abs(one - other) for one in means for other in means) / len(means)


def of_rows(proxy, rows, labels=None, **options):
    targets = None if labels is None else torch.as_tensor(labels)
    return proxy(Squares(), Batch(torch.as_tensor(rows), targets), **options)


def test_the_gradient_goes_through_the_batch_statistics():
    module = network()
    x, y = torch.randn(5, *SIZE, dtype=torch.float64), torch.tensor([0, 1, 0, 2, 1])
    rows = gradients_of(module, x)
    scores = zs.score(module, ["jacob_cov", "epe_nas"], batch=Batch(x, y), init="keep")
    assert scores["jacob_cov"].value == pytest.approx(plain_jacob_cov(rows), rel=1e-5)
    assert scores["epe_nas"].value == pytest.approx(plain_epe_nas(rows, y.numpy()), rel=1e-5)


def test_uncorrelated_rows_score_highest():
    rows = [[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]]
    best = -2 * (math.log(1 + K) + 1 / (1 + K))
    assert of_rows(jacob_cov, rows) == pytest.approx(best)
    assert of_rows(jacob_cov, [rows[0], [1.0, -2.0, 1.0, 0.0]]) < best


def test_equal_images_cost_much_but_stay_finite():
    """All correlations 1: one eigenvalue N, the others 0."""
    rows = [[1.0, 2.0, 4.0]] * 3
    expected = -(math.log(3 + K) + 1 / (3 + K)) - 2 * (math.log(K) + 1 / K)
    assert of_rows(jacob_cov, rows) == pytest.approx(expected)


def test_classes_by_hand():
    """Class 0 has two rows that correlate by -0.5, class 1 one row."""
    rows, labels = [[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [3.0, 1.0, 2.0]], [0, 0, 1]
    expected = abs(2 * math.log(1 + K) + 2 * math.log(0.5 + K)) + math.log(1 + K)
    assert of_rows(epe_nas, rows, labels) == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(20, 40))
def test_laws(seed, images, pixels):
    """As numpy has it; scale and shift of a row, order of images and of pixels, and names of classes don't matter."""
    rng = np.random.default_rng(seed)
    rows, labels = rng.normal(size=(images, pixels)), rng.integers(0, 3, images)
    labels[0] = labels[-1]
    order, pixel_order = rng.permutation(images), rng.permutation(pixels)
    moved = rows * rng.uniform(0.5, 2, (images, 1)) + rng.normal(size=(images, 1))
    value = of_rows(jacob_cov, rows)
    assert value == pytest.approx(plain_jacob_cov(rows), rel=1e-9)
    for other in (moved, rows[order], rows[:, pixel_order]):
        assert of_rows(jacob_cov, other) == pytest.approx(value, rel=1e-9)
    value = of_rows(epe_nas, rows, labels)
    assert value == pytest.approx(plain_epe_nas(rows, labels), rel=1e-9)
    assert of_rows(epe_nas, moved, labels) == pytest.approx(value, rel=1e-7)
    assert of_rows(epe_nas, rows[order], labels[order]) == pytest.approx(value, rel=1e-9)
    assert of_rows(epe_nas, rows, 7 - labels) == pytest.approx(value, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_pairs_of_classes(seed):
    """Classes of one image are dropped."""
    rng = np.random.default_rng(seed)
    rows, labels = rng.normal(size=(9, 12)), np.array([0, 0, 1, 1, 1, 2, 2, 3, 4])
    expected = plain_epe_nas(rows, labels, pairwise=True)
    assert of_rows(epe_nas, rows, labels, pairwise=True) == pytest.approx(expected, rel=1e-9)
    assert of_rows(epe_nas, rows[:7], labels[:7], pairwise=1.0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("classes", "pairwise"), [(100, False), (101, True)])
def test_above_100_classes_they_are_compared_in_pairs(classes, pairwise):
    rows = np.random.default_rng(0).normal(size=(2 * classes, 20))
    labels = np.arange(2 * classes) % classes
    value = of_rows(epe_nas, rows, labels)
    assert value == of_rows(epe_nas, rows, labels, pairwise=pairwise)
    assert value != of_rows(epe_nas, rows, labels, pairwise=not pairwise)


def test_labels_are_drawn_where_none_are_given():
    first, second = (zs.score(network(), "epe_nas", input_size=SIZE, seed=seed).value for seed in (0, 1))
    assert first != second


def test_both_read_the_same_backward_pass(monkeypatch):
    calls = []
    original = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or original(*a, **k))
    batch = Batch(torch.randn(4, *SIZE, dtype=torch.float64), torch.tensor([0, 0, 1, 1]))
    zs.score(network(), ["jacob_cov", "epe_nas"], batch=batch, init="keep")
    assert len(calls) == 1


# Failures


@pytest.mark.parametrize("proxy", [jacob_cov, epe_nas])
@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([[1.0, 2.0]], "two or more"),
        ([[1.0, 2.0], [3.0, 3.0]], "same for all pixels"),
        ([[1.0, 2.0], [0.0, 0.0]], "same for all pixels"),
        ([[1.0, 2.0], [0.1, 0.1 + 1e-17]], "same for all pixels"),
        ([[1.0, 2.0], [math.nan, 0.0]], "not finite"),
        ([[1.0, 2.0], [math.inf, 0.0]], "not finite"),
    ],
)
def test_undefined_rows(proxy, rows, reason):
    with pytest.raises(UndefinedScoreError, match=reason):
        of_rows(proxy, rows, [0] * len(rows))


def test_a_dead_network_is_a_failure():
    module = network()
    nn.init.constant_(module[1].bias, -100)
    result = zs.score(module, "jacob_cov", batch=Batch(torch.randn(4, *SIZE, dtype=torch.float64)), init="keep")
    assert result.state == "failed"
    assert "same for all pixels" in result.reason


def test_classes_that_can_not_be_compared():
    rows = np.random.default_rng(0).normal(size=(4, 8))
    with pytest.raises(UndefinedScoreError, match="no class has two images"):
        of_rows(epe_nas, rows, [0, 1, 2, 3])
    with pytest.raises(UndefinedScoreError, match="less than two classes"):
        of_rows(epe_nas, rows, [0, 0, 1, 2], pairwise=True)


def test_wrong_arguments():
    rows = torch.randn(4, 8)
    with pytest.raises(ProxyError, match="got none"):
        epe_nas(Squares(), Batch(rows))
    with pytest.raises(ProxyError, match=r"shape \(3,\)"):
        of_rows(epe_nas, rows, [0, 0, 1])
    with pytest.raises(ProxyError, match="epe_nas's pairwise must be true, false or none, got 'paper'"):
        zs.score(Squares(), "epe_nas", batch=Batch(rows, torch.tensor([0, 0, 1, 1])), pairwise="paper")
    with pytest.raises(ProxyError, match="expected logits"):
        zs.score(nn.Sequential(nn.Conv2d(3, 4, 3)), "jacob_cov", input_size=SIZE)
