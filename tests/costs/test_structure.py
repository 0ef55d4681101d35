"""Shape bounds: by hand, each alone, and a looser one never rejects more."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zeroshot_nas as zs
from tests.strategies import architectures
from zeroshot_nas import Budget, Costs
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.costs.structure import StructureBounds, Violation, effectiveness
from zeroshot_nas.errors import BudgetError

NUMBERS = st.none() | st.floats(0.01, 20) | st.integers(1, 20)
BOUNDS = st.builds(StructureBounds, depth_to_width=NUMBERS, monotone_widths=st.booleans(), bottleneck_ratio=NUMBERS)

# 3x3 on 1 channel, 32 channels; bottleneck 32 -> 2 -> 16
NET = Architecture.from_string("SuperConvK3BNRELU(1,32,1,1)SuperResK3K3(32,16,2,2,1)", (1, 8, 8))


def names(violations):
    return {violation.cost for violation in violations}


def test_effectiveness_by_hand():
    """Fan-ins 9 | 288, 18: 1/9 after the first stage, 3 over their geometric mean at the end."""
    assert effectiveness(NET) == pytest.approx(max(1 / 9, 3 / (9 * 32 * 9 * 2 * 9) ** (1 / 3)), rel=1e-13)
    wide_end = Architecture.from_string("SuperConvK1BNRELU(1,512,1,2)SuperConvK7BNRELU(512,512,2,2)", (1, 8, 8))
    assert effectiveness(wide_end) == pytest.approx(2 / math.sqrt(1 * 512), rel=1e-13)  # the first stage is the worst
    same_stage = dataclasses.replace(wide_end, blocks=tuple(dataclasses.replace(b, stride=1) for b in wide_end.blocks))
    product = 1 * 512 * (512 * 49) ** 2
    assert effectiveness(same_stage) == pytest.approx(4 / product**0.25, rel=1e-13)


def test_effectiveness_leaves_out_shortcuts_and_gates():
    """Two inverted residuals, E2 K5, each 1x1, depthwise of fan-in 25, 1x1; projection and gate do not count."""
    net = Architecture.from_string("SuperResIDWE2K5(16,24,2,16,1)", (16, 8, 8))
    product = (16 * 25 * 32) * (16 * 25 * 48)
    assert effectiveness(net) == pytest.approx(6 / product ** (1 / 6), rel=1e-13)
    gated = dataclasses.replace(net, blocks=(dataclasses.replace(net.blocks[0], squeeze_excite=True),))
    assert effectiveness(gated) == effectiveness(net)


@given(architectures())
def test_effectiveness_is_positive_and_at_most_the_depth(architecture):
    assert 0 < effectiveness(architecture) <= 6 * architecture.layers  # fan-in is 1 or more


def test_each_bound_alone():
    value = effectiveness(NET)
    assert StructureBounds(depth_to_width=0.08).violations(NET) == (Violation("depth_to_width", value, 0.08),)
    assert StructureBounds(depth_to_width=value).violations(NET) == ()
    assert StructureBounds(monotone_widths=True).violations(NET) == (Violation("monotone_widths", 2.0, 1),)
    assert StructureBounds(bottleneck_ratio=7.9).violations(NET) == (Violation("bottleneck_ratio", 8.0, 7.9),)
    assert StructureBounds(bottleneck_ratio=8).violations(NET) == ()
    assert StructureBounds().violations(NET) == ()


def test_blocks_without_a_bottleneck_have_no_ratio():
    net = Architecture.from_string("SuperConvK3BNRELU(1,32,1,1)SuperConvK3BNRELU(32,32,1,1)", (1, 8, 8))
    assert StructureBounds(monotone_widths=True, bottleneck_ratio=0.001).violations(net) == ()


@given(BOUNDS, architectures(), st.data())
def test_a_looser_bound_never_rejects_more(bounds, architecture, data):
    name = data.draw(st.sampled_from(["depth_to_width", "monotone_widths", "bottleneck_ratio"]))
    bound = getattr(bounds, name)
    if name == "monotone_widths":
        looser = False
    else:
        looser = None if bound is None else data.draw(st.none() | st.floats(bound, 1e6))
    after = dataclasses.replace(bounds, **{name: looser}).violations(architecture)
    assert names(after) <= names(bounds.violations(architecture))


@given(BOUNDS, architectures())
def test_bounds_do_not_depend_on_each_other(bounds, architecture):
    """All together find what each finds alone; a violation names a value above its limit."""
    none = StructureBounds()
    alone = [
        dataclasses.replace(none, **{field.name: getattr(bounds, field.name)}).violations(architecture)
        for field in dataclasses.fields(bounds)
    ]
    together = bounds.violations(architecture)
    assert together == sum(alone, ())
    for violation in together:
        assert violation.value > violation.limit
        assert violation.limit == bounds.limits()[violation.cost]


@given(BOUNDS, architectures())
def test_violations_by_definition(bounds, architecture):
    widths = [block.out_channels for block in architecture.blocks]
    ratio = bounds.bottleneck_ratio
    expected = {
        "depth_to_width": bounds.depth_to_width is not None and effectiveness(architecture) > bounds.depth_to_width,
        "monotone_widths": bounds.monotone_widths and widths != sorted(widths),
        "bottleneck_ratio": ratio is not None
        and any(
            block.out_channels / block.bottleneck_channels > ratio
            for block in architecture.blocks
            if hasattr(block, "bottleneck_channels")
        ),
    }
    assert names(bounds.violations(architecture)) == {name for name, broken in expected.items() if broken}


@pytest.mark.parametrize("name", ["depth_to_width", "bottleneck_ratio"])
@pytest.mark.parametrize("bound", [0, -1, math.nan, True, False, "0.3", [1]], ids=repr)
def test_bad_bounds(name, bound):
    with pytest.raises(BudgetError, match=rf"StructureBounds\.{name} must be a number above 0"):
        StructureBounds(**{name: bound})


def test_monotone_widths_is_a_truth_value():
    with pytest.raises(BudgetError, match=r"StructureBounds\.monotone_widths must be True or False, got 1"):
        StructureBounds(monotone_widths=1)


def test_limits_are_json():
    bounds = StructureBounds(depth_to_width=0.3, monotone_widths=True)
    assert StructureBounds(**json.loads(json.dumps(bounds.limits()))) == bounds
    assert StructureBounds().limits() == {}


def test_a_budget_checks_shape_where_it_has_the_architecture():
    budget = Budget(params=100, structure=StructureBounds(monotone_widths=True))
    costs = complexity(NET)
    assert names(budget.violations(costs)) == {"params"}
    assert names(budget.violations(costs, NET)) == {"params", "monotone_widths"}
    assert names(Budget(params=100).violations(costs, NET)) == {"params"}


def test_shape_is_no_limit_on_a_cost():
    budget = Budget(params=100, structure=StructureBounds(depth_to_width=0.3))
    assert budget.limits() == {"params": 100}
    assert json.loads(json.dumps(budget.limits())) == {"params": 100}
    assert dataclasses.replace(budget, params=5).violations(Costs(6, 0, 1, 0)) == (Violation("params", 6, 5),)


def test_equal_budgets_stay_equal_after_use():
    first, second = Budget(params=1), Budget(params=1)
    first.violations(complexity(NET))
    assert first == second
    assert hash(first) == hash(second)
    assert dataclasses.asdict(first) == dataclasses.asdict(second)


def test_changing_the_returned_limits_changes_no_budget():
    budget = Budget(params=1)
    budget.limits()["params"] = 10**9
    assert budget.limits() == {"params": 1}


@pytest.mark.parametrize("bounds", [0.3, True, {"depth_to_width": 0.3}], ids=repr)
def test_structure_is_structure_bounds(bounds):
    with pytest.raises(BudgetError, match=r"Budget\.structure must be StructureBounds"):
        Budget(structure=bounds)


def test_the_limit_on_structure_is_known_by_its_former_name():
    bounds = StructureBounds(monotone_widths=True)
    assert zs.ShapeBounds is StructureBounds
    assert Budget(params=9, shape=bounds) == Budget(params=9, structure=bounds)
    assert Budget(structure=bounds).shape == bounds
    with pytest.raises(BudgetError, match="give structure alone"):
        Budget(structure=bounds, shape=bounds)
