"""Imports go down only; what needs no torch loads none."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import zeroshot_nas

ROOT = Path(zeroshot_nas.__file__).parent
PACKAGE = ROOT.name

LEVELS = {
    "errors": 1.0,
    "ranking": 1.0,
    "statistics": 1.0,
    "seeding": 1.0,
    "files": 1.0,
    "detailed": 1.0,
    "provenance": 1.0,
    "registry": 1.5,  # reads errors
    "ops": 2.0,
    "architecture": 2.5,  # reads ops
    "blocks": 3.0,
    "genotypes": 4.9,  # moves of spaces
    "costs": 4.0,
    "meanfield": 4.0,
    "network": 4.5,  # refuses what costs calls too large
    "onnx_model": 4.6,
    "onnx_graph": 4.6,
    "inheritance": 4.7,  # grows networks
    "probes": 4.7,  # reads networks
    "passes": 4.7,  # runs networks
    "autograd_graph": 4.7,  # reads tensors
    "patterns": 4.7,  # reads tensors
    "perturbation": 4.7,  # refuses what costs calls too large
    "spaces": 5.0,
    "proxies": 5.0,
    "execution": 6.0,
    "store": 6.0,
    "book": 6.5,  # reads stores
    "runs": 6.5,  # reads stores
    "latency": 6.8,  # reads spaces and stores
    "searchers": 7.0,
    "training": 7.0,
    "export": 7.5,  # reads trained networks
    "report": 8.0,
    "nasbench": 8.5,  # writes reports
    "__init__": 9.0,
    "testing": 9.2,
    "cli": 9.5,
    "__main__": 10.0,
}
"""Level of every top-level name; a module imports from lower levels only."""

TYING = {
    "searchers.loop",
    "searchers.rounds",
    "searchers.screening",
    "proxies.scoring",
    "proxies.pool",
    "training.trainer",
    "latency.calibrate",
    "training.learner",
    "export.exporting",
    "nasbench.correlate",
    "nasbench.scoring",
}
"""The modules that tie a package together and may import their siblings."""

STACKS = {"costs", "meanfield"}
"""Packages whose modules are one stack and import each other."""


def imported_names(tree: ast.Module, module: str, is_package: bool) -> Iterator[str]:
    """Dotted names inside the package that a module imports when it runs; those for type checkers do not count."""
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = f"{PACKAGE}.{module}".split(".")
                kept = parts[: len(parts) - node.level + is_package]
                base = ".".join([*kept, base] if base else kept)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def violations(source: str, module: str, is_package: bool = False, siblings: frozenset[str] = frozenset()) -> list[str]:
    """What is wrong with a module's imports, one sentence each.

    Args:
        source: The module's text.
        module: Its name below the package: ``"costs.budget"``.
        is_package: Whether it is an ``__init__``.
        siblings: Names of the modules in its package.
    """
    top = module.split(".")[0]
    level = LEVELS.get(top)
    if level is None:
        return [f"{module}: {top!r} has no level; add it to the list"]
    found = []
    for name in sorted(set(imported_names(ast.parse(source), module, is_package))):
        first, *rest = name.split(".")
        if first != PACKAGE:
            continue
        target = rest[0] if rest and rest[0] in LEVELS else "__init__"
        if rest and (ROOT / rest[0]).exists() and rest[0] not in LEVELS:
            found.append(f"{module} imports {name}, which has no level")
        elif target != top and LEVELS[target] >= level:
            found.append(f"{module} (level {level:g}) imports {name} (level {LEVELS[target]:g}); imports go down only")
        elif target == top and not is_package and top not in STACKS and module not in TYING:
            own = module.split(".")[1:]
            if own and len(rest) > 1 and rest[1] in siblings and rest[1] not in ("base", own[0]):
                found.append(f"{module} imports its sibling {name}; inside a package only base.py is shared")
    return found


def modules() -> list[tuple[str, Path, frozenset[str]]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        siblings = frozenset(sibling.stem for sibling in path.parent.iterdir()) if len(parts) > 1 else frozenset()
        found.append((name, path, siblings - {"__init__", "__pycache__"}))
    return found


@pytest.mark.parametrize(("module", "path", "siblings"), [pytest.param(*entry, id=entry[0]) for entry in modules()])
def test_imports_go_down_only(module, path, siblings):
    assert violations(path.read_text(), module, path.stem == "__init__", siblings) == []


def test_the_scan_finds_the_modules():
    names = {name for name, _, _ in modules()}
    assert {"__init__", "errors", "blocks", "blocks.conv", "costs.module", "proxies.scoring"} <= names


@pytest.mark.parametrize(
    ("source", "module", "culprit"),
    [
        ("from zeroshot_nas.proxies.zen import zen", "costs.budget", "zeroshot_nas.proxies.zen"),
        ("import zeroshot_nas.searchers", "store", "zeroshot_nas.searchers"),
        ("from zeroshot_nas import network", "ops", "zeroshot_nas.network"),
        ("def f():\n    from zeroshot_nas.cli import main", "report", "zeroshot_nas.cli"),  # a late import too
        (
            "from zeroshot_nas import score",
            "searchers.loop",
            "zeroshot_nas.score",
        ),  # the public names are the top level
        ("from ..network import build", "blocks.conv", "zeroshot_nas.network"),  # relative ones too
        ("from .. import network", "blocks.conv", "zeroshot_nas.network"),
        ("from zeroshot_nas.spaces import base", "proxies.zen", "zeroshot_nas.spaces"),  # the same line
        ("from zeroshot_nas.proxies.zen import zen", "proxies.zico", "zeroshot_nas.proxies.zen"),  # a sibling
        ("from .zen import zen", "proxies.zico", "zeroshot_nas.proxies.zen"),
        ("import ast", "novelty", "novelty"),  # a module that nobody gave a level
    ],
)
def test_an_upward_import_is_caught_and_named(source, module, culprit):
    (message,) = violations(source, module, siblings=frozenset({"base", "zen", "zico"}))
    assert module in message
    assert culprit in message


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import torch\nfrom zeroshot_nas import ops", "network"),
        ("from zeroshot_nas.costs.complexity import Costs", "network"),
        ("from zeroshot_nas.proxies.base import Proxy", "proxies.zen"),
        ("from .base import Proxy", "proxies.zen"),
        ("from zeroshot_nas.proxies.zen import zen", "proxies.scoring"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from zeroshot_nas.searchers import loop",
            "errors",
        ),
        ("from zeroshot_nas import score", "cli"),
    ],
)
def test_a_downward_import_passes(source, module):
    assert violations(source, module, siblings=frozenset({"base", "zen", "scoring"})) == []


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
import importlib, importlib.util, pkgutil, sys
import zeroshot_nas as zs
for name in ("architecture", "ops", "costs.complexity", "costs.budget", "blocks", "meanfield", "spaces"):
    if importlib.util.find_spec(f"zeroshot_nas.{name}") is None:
        assert name in ("meanfield", "spaces"), name
        continue
    module = importlib.import_module(f"zeroshot_nas.{name}")
    for inner in pkgutil.iter_modules(getattr(module, "__path__", []), prefix=f"{module.__name__}."):
        importlib.import_module(inner.name)
net = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResIDWE2K3(8,16,2,8,1)")
assert zs.Budget(params=1e6).violations(zs.cost(net)) == ()
assert len(net.key) == 32
assert "torch" not in sys.modules, "torch was loaded"
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
