"""Imports go down only, plug-ins never import each other, and what needs no torch loads none."""

import ast
import subprocess
import sys

import pytest

import zeroshot_nas
from tests.layers import FLOOR_OF, Module, arrows, cycle, is_plugin, modules, target_of, violations

MODULES = {module.name: module for module in modules()}


def parsed(source, name, is_package=False):
    return Module(name, is_package, ast.parse(source))


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_only(name):
    assert violations(MODULES[name], MODULES) == []


@pytest.mark.slow
def test_no_imports_go_round_in_a_circle():
    assert cycle(arrows(MODULES)) == []


def test_the_root_holds_what_belongs_there_alone():
    """What has no folder is the errors, the contract checks and the two ways in."""
    assert {name for name in MODULES if "." not in name and not MODULES[name].is_package} == {
        *("errors", "testing", "__main__"),
    }


def test_the_scan_finds_the_modules_and_the_plugins():
    assert {"__init__", "errors", "blocks", "blocks.conv", "costs.module", "scoring.engine"} <= set(MODULES)
    plugins = {name for name in MODULES if is_plugin(MODULES[name])}
    assert {"blocks.conv", "proxies.zen", "spaces.resnet", "searchers.evolution", "execution.pool"} <= plugins
    assert {"training.datasets.digits", "latency.backends.ort", "nasbench.readers.npz"} <= plugins
    assert not {"spaces.base", "blocks.base", "searchers.base", "spaces.genotypes"} & plugins


@pytest.mark.parametrize(
    ("source", "module", "culprit"),
    [
        ("from zeroshot_nas.proxies.zen import zen", "costs.budget", "proxies.zen"),
        ("import zeroshot_nas.searchers", "core.files", "searchers"),
        ("from zeroshot_nas import network", "architecture.ops", "network"),
        ("def f():\n    from zeroshot_nas.cli import main", "plots.base", "cli"),  # a late import too
        ("from zeroshot_nas import score", "searching.loop", "score"),  # the public names are the top level
        ("from ..network.module import build", "blocks.conv", "network.module"),  # relative ones too
        ("from .. import network", "blocks.conv", "network"),
        ("from zeroshot_nas.searchers.base import Searcher", "scoring.engine", "searchers.base"),  # the same floor
        ("from zeroshot_nas.proxies.zen import zen", "proxies.zico", "proxies.zen"),  # a plug-in of its package
        ("from .zen import zen", "proxies.zico", "proxies.zen"),
        ("from zeroshot_nas.spaces import resnet", "spaces.base", "spaces.resnet"),  # also from the engine below it
        ("import ast", "novelty", "novelty"),  # a module that nobody gave a floor
    ],
)
def test_an_upward_import_is_caught_and_named(source, module, culprit):
    (message,) = violations(parsed(source, module), MODULES)
    assert module in message
    assert culprit in message


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import torch\nfrom zeroshot_nas.architecture import ops", "network.module"),
        ("from zeroshot_nas.costs.complexity import Costs", "network.module"),
        ("from zeroshot_nas.scoring.proxy import Proxy", "proxies.zen"),
        ("from zeroshot_nas.scoring.proxy import Proxy", "scoring.engine"),  # engines import each other, below
        ("from .proxy import Proxy", "scoring.engine"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from zeroshot_nas.searching import loop",
            "errors",
        ),
        ("from zeroshot_nas import score", "cli.score"),
    ],
)
def test_a_downward_import_passes(source, module):
    assert violations(parsed(source, module), MODULES) == []


def test_a_circle_is_found_and_named():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_an_imported_name_is_part_of_the_longest_module_that_there_is():
    assert target_of("costs.budget.Budget", MODULES) == "costs.budget"
    assert target_of("costs.nonsense", MODULES) == "costs"
    assert target_of("score", MODULES) == "__init__"
    assert FLOOR_OF["costs"] > FLOOR_OF["architecture"]


@pytest.mark.parametrize("name", zeroshot_nas.__all__)
def test_every_public_name_resolves(name):
    assert getattr(zeroshot_nas, name) is not None
    assert name in dir(zeroshot_nas)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        zeroshot_nas.nonsense  # noqa: B018


def test_closed_forms_load_no_torch():
    """Architectures, costs, budgets and spaces start without torch; one process imports them all."""
    program = """
import importlib, pkgutil, sys
import zeroshot_nas as zs
for name in ("core", "architecture", "costs.complexity", "costs.budget", "blocks", "closed_form", "spaces"):
    module = importlib.import_module(f"zeroshot_nas.{name}")
    for inner in pkgutil.walk_packages(getattr(module, "__path__", []), prefix=f"{module.__name__}."):
        importlib.import_module(inner.name)
net = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResIDWE2K3(8,16,2,8,1)")
assert zs.Budget(params=1e6).violations(zs.cost(net)) == ()
assert len(net.key) == 32
assert "torch" not in sys.modules, "torch was loaded"
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
