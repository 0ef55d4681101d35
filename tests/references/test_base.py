"""Hand-made networks by name, at any budget."""

import inspect
from dataclasses import replace
from types import NoneType
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError, BudgetError, InfeasibleBudgetError, UnknownNameError
from zeroshot_nas.references.base import REFERENCES, read_reference, reference_table

SIZES = [(3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 13, 20), (3, 96, 96)]


def choices(annotation):
    """The values of a Literal, or of the Literals of a union."""
    flat = (choices(each) if get_args(each) else [each] for each in get_args(annotation))
    return [value for values in flat for value in values if value is not NoneType]


def settings_of(name):
    """One set of options for each value that a family's options can take, the others at their defaults."""
    for option, annotation in REFERENCES[name].options.items():
        values = [True, False] if annotation is bool else choices(annotation)
        yield from ({option: value} for value in values or {"strides": ("112", "222")}.get(option, ()))


CASES = [
    *((name, {}, size) for name in zs.list_references() for size in SIZES),
    *((name, options, SIZES[0]) for name in zs.list_references() for options in settings_of(name)),
]


@pytest.mark.parametrize(("name", "options", "size"), CASES)
def test_a_budget_is_kept_and_filled(name, options, size):
    published = zs.reference(name, None, size, 7, **options)
    assert (published.input_size, published.num_classes) == (size, 7)
    costs = zs.cost(published)
    for limit in ("params", "flops", "activations"):
        for factor, least in ((1, 0.99), (0.3, 0.15), (3, 2.4)):
            bound = factor * getattr(costs, limit)
            network = zs.reference(name, zs.Budget(**{limit: bound}), size, 7, **options)
            assert least * getattr(costs, limit) <= getattr(zs.cost(network), limit) <= bound
            assert [(b.type_name, b.stride, b.sub_layers) for b in network.blocks] == [
                (b.type_name, b.stride, b.sub_layers) for b in published.blocks
            ]


@given(name=st.sampled_from(zs.list_references()), params=st.integers(20_000, 2_000_000), flops=st.floats(5e6, 100e6))
def test_several_limits_are_kept_and_one_is_filled(name, params, flops):
    budget = zs.Budget(params=params, flops=flops)
    costs = zs.cost(zs.reference(name, budget))
    assert not budget.violations(costs)
    assert max(costs.params / params, costs.flops / flops) > 0.75


def test_limits_that_the_widths_do_not_change_leave_the_published_ones():
    published = zs.reference("resnet20")
    assert zs.reference("resnet20", zs.Budget()) == zs.reference("resnet20", zs.Budget(layers=10)) == published
    with pytest.raises(InfeasibleBudgetError, match=r"no resnet20 fits the budget: .*layers 10, the limit is 9"):
        zs.reference("resnet20", zs.Budget(layers=9, params=1e6))


def test_bounds_on_the_structure_narrow_a_network():
    limits, bounds = zs.Budget(params=100e3, flops=4e6), zs.StructureBounds(bottleneck_ratio=2.0)
    options = {"strides": "222", "block": "bottleneck"}
    wide = zs.reference("resnet8", limits, **options)
    assert bounds.violations(wide)  # 93 over 46
    budget = replace(limits, structure=bounds)
    narrow = zs.reference("resnet8", budget, **options)
    assert not budget.violations(zs.cost(narrow), narrow)
    assert zs.cost(wide).flops > zs.cost(narrow).flops > 3.5e6
    with pytest.raises(InfeasibleBudgetError, match="depth_to_width"):
        zs.reference("resnet8", replace(limits, structure=zs.StructureBounds(depth_to_width=0.001)))


def test_what_does_not_fit_is_said():
    with pytest.raises(InfeasibleBudgetError, match=r"no resnet8 fits .* params [\d,]+, the limit is 100"):
        zs.reference("resnet8", zs.Budget(params=100))
    with pytest.raises(BudgetError, match="latency"):
        zs.reference("resnet8", zs.Budget(latency_ms=1.0))


def test_latency_is_kept_where_something_predicts_it():
    def costs(architecture):
        counted = complexity(architecture)
        return counted.with_latency(counted.flops / 1e6)

    network = zs.reference("resnet8", zs.Budget(latency_ms=4.0), costs=costs)
    assert network == zs.reference("resnet8", zs.Budget(flops=4e6))


def test_wrong_names_and_options_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet20'"):
        zs.reference("resnet20x")
    for options, message in (
        ({"kernels": 5}, r"no option 'kernels'\. Did you mean 'kernel'\?"),
        ({"kernel": 4}, "kernel of 'resnet8' must be 3, 5 or 7, got 4"),
        ({"block": "basics"}, "Did you mean 'basic'"),
        ({"strides": "12"}, "three digits"),
        ({"strides": 122}, "strides of 'resnet8' must be text"),
    ):
        with pytest.raises(ArchitectureError, match=message):
            zs.reference("resnet8", **options)
    with pytest.raises(ArchitectureError, match="input_size"):
        zs.reference("resnet8", None, (32, 32))


def test_text_says_what_arguments_say():
    budget = zs.Budget(params=100e3, flops=4e6)
    wanted = zs.reference("resnet14", budget, (1, 28, 28), 5, strides="222", kernel=5, last=True)
    text = "resnet14:strides=222:kernel=5:last=true"
    assert zs.reference(text, budget, (1, 28, 28), 5) == wanted
    assert read_reference(f"reference:{text}:params=100k:flops=4M", (1, 28, 28), 5) == wanted
    assert read_reference("reference:mobilenet_v2:depth=0.5") == zs.reference("mobilenet_v2", depth=0.5)
    for wrong, message in (("resnet8:222", "option=value"), ("resnet8:params=many", "params of .* must be a number")):
        with pytest.raises(ArchitectureError, match=message):
            read_reference(f"reference:{wrong}")


def test_every_family_has_defaults_and_is_in_the_table():
    assert [name for name, *_ in reference_table()[1:]] == zs.list_references()
    for name in zs.list_references():
        parameters = inspect.signature(REFERENCES[name].function).parameters.values()
        assert all(each.default is not each.empty for each in parameters if each.kind is each.KEYWORD_ONLY)
        assert REFERENCES[name].source
