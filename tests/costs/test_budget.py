"""Budgets: a looser one never rejects more, and malformed ones are refused."""

import contextlib
import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas import Budget, Costs, cost
from zeroshot_nas.errors import BudgetError, UnknownNameError

NAMES = ("params", "flops", "layers", "activations")
LIMITS = st.none() | st.integers(1, 100) | st.floats(0.5, 100)
BUDGETS = st.builds(Budget, **dict.fromkeys(NAMES, LIMITS))
COSTS = st.builds(Costs, **dict.fromkeys(NAMES, st.integers(0, 120)))


@given(BUDGETS, COSTS, st.data())
def test_a_looser_budget_never_rejects_more(budget, costs, data):
    name = data.draw(st.sampled_from(NAMES))
    limit = getattr(budget, name)
    looser = None if limit is None else data.draw(st.none() | st.floats(limit, 1e6))
    before = {violation.cost for violation in budget.violations(costs)}
    after = {violation.cost for violation in dataclasses.replace(budget, **{name: looser}).violations(costs)}
    assert after <= before


@given(BUDGETS, COSTS)
def test_violations_are_exactly_the_limits_exceeded(budget, costs):
    violations = budget.violations(costs)
    assert {violation.cost for violation in violations} == {
        name for name in NAMES if getattr(budget, name) is not None and getattr(costs, name) > getattr(budget, name)
    }
    for violation in violations:
        assert violation.value == getattr(costs, violation.cost)
        assert violation.limit == getattr(budget, violation.cost)
        assert violation.value > violation.limit


@given(COSTS)
def test_no_limit_rejects_nothing(costs):
    assert Budget().violations(costs) == ()
    assert Budget(**dict.fromkeys(NAMES, math.inf)).violations(costs) == ()


def test_a_limit_is_inclusive():
    costs = Costs(params=10, flops=20, layers=3, activations=40)
    assert Budget(params=10, flops=20, layers=3, activations=40).violations(costs) == ()
    (violation,) = Budget(params=10, flops=19, layers=3, activations=40).violations(costs)
    assert violation == ("flops", 20, 19)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [0, -1, -0.5, float("nan"), -math.inf, True, False, "1e6", [1], 1j], ids=repr)
def test_bad_limits(name, limit):
    with pytest.raises(BudgetError, match=rf"Budget\.{name} must be a number above 0"):
        Budget(**{name: limit})


def test_an_unknown_limit_is_refused():
    with pytest.raises(UnknownNameError, match=r"unknown cost 'parameters'\. Did you mean 'params'\?"):
        Budget(parameters=1e6)


def test_numpy_limits_are_numbers():
    assert Budget(params=np.float64(1e6)).limits() == {"params": 1e6}


def test_limits_names_what_is_set():
    assert Budget(params=1e6, layers=18).limits() == {"params": 1e6, "layers": 18}
    assert Budget().limits() == {}


def test_depth_of_a_module_that_is_not_ours():
    """Its layers are None: a depth limit on it is passed or refused in words, not by a comparison with None."""
    costs = cost(torch.nn.Conv2d(3, 8, 3), input_size=(3, 8, 8))
    assert costs.layers is None
    assert Budget(params=1).violations(costs)
    with contextlib.suppress(BudgetError):
        assert Budget(layers=5).violations(costs) == ()
