"""The layers of the package, read from its imports.

    python -m tests.layers      # prints floors, arrows and modules

A package imports from lower floors only. Inside a package modules import each other without a cycle, and a plug-in
(a module that registers something) is imported by none of its siblings.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import zeroshot_nas

ROOT = Path(zeroshot_nas.__file__).parent
PACKAGE = ROOT.name

FLOORS = (
    ("errors",),
    ("core",),
    ("architecture", "execution", "callbacks"),
    ("chains", "blocks", "micro"),
    ("closed_form",),
    ("costs", "quantization"),
    ("network", "spaces"),
    ("bounds",),
    ("scoring", "searchers", "references"),
    ("runs", "plots"),
    ("latency", "training"),
    ("proxies", "searching", "nasbench", "export", "comparing", "pruning"),
    ("families",),
    ("runs.resume", "reporting"),
    ("__init__",),
    ("testing",),
    ("cli",),
    ("__main__",),
)
"""The lowest first; a name imports from lower floors only. A module may stand above the rest of its package."""

FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def room_of(name: str) -> str:
    """The name in `FLOORS` that a dotted name belongs to: its own, or its package's."""
    return name if name in FLOOR_OF else name.split(".")[0]


PLUGIN_PACKAGES = (
    *("blocks", "callbacks", "execution", "proxies", "references", "searchers", "spaces"),
    *("costs.resources", "export.formats", "latency.backends", "nasbench.readers"),
    *("reporting.kinds", "training.datasets"),
)
"""Packages that a registry scans."""


@dataclass(frozen=True)
class Module:
    """One file of the package.

    Attributes:
        name: Dotted name below the package; that of the package for an ``__init__``.
        is_package: Whether it is an ``__init__``.
        tree: Its syntax tree.
    """

    name: str
    is_package: bool
    tree: ast.Module

    @property
    def top(self) -> str:
        """The name that has a floor."""
        return room_of(self.name)


@cache
def modules() -> tuple[Module, ...]:
    """Every file of the package, by path; read once."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package and len(parts) > 1 else parts)
        found.append(Module(name, is_package, ast.parse(path.read_text())))
    return tuple(found)


def imported_names(module: Module) -> Iterator[str]:
    """Dotted names inside the package that a module imports when it runs; those for type checkers do not count."""
    skipped = {
        id(inner)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(module.tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = f"{PACKAGE}.{module.name}".split(".")
                kept = parts[: len(parts) - node.level + module.is_package]
                base = ".".join([*kept, base] if base else kept)
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == PACKAGE:
                yield rest or "__init__"


def target_of(name: str, known: Mapping[str, Module]) -> str:
    """The module that an imported name is, or is part of: ``costs.budget.Budget`` is part of ``costs.budget``."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in known:
            return prefix
    return "__init__"  # a public name of the whole


def is_plugin(module: Module) -> bool:
    """Whether a module of a scanned package registers something when it is imported."""
    if module.is_package or not any(module.name.startswith(f"{package}.") for package in PLUGIN_PACKAGES):
        return False
    looped = [inner for statement in module.tree.body if isinstance(statement, ast.For) for inner in statement.body]
    for statement in (*module.tree.body, *looped):
        decorators = getattr(statement, "decorator_list", [])
        calls = [*decorators, *([statement.value] if isinstance(statement, ast.Expr) else [])]
        for call in calls:
            called = call.func if isinstance(call, ast.Call) else call
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            if name.startswith("register") or name == "add":
                return True
    return False


def violations(module: Module, known: Mapping[str, Module]) -> list[str]:
    """What is wrong with a module's imports, one sentence each."""
    floor = FLOOR_OF.get(module.top)
    if floor is None:
        return [f"{module.name}: {module.top!r} has no floor; add it to FLOORS"]
    found = []
    for name in sorted(set(imported_names(module))):
        target = target_of(name, known)
        top = room_of(target)
        if top == module.top:
            sibling = known.get(target)
            if sibling is not None and target != module.name and is_plugin(sibling):
                found.append(f"{module.name} imports the plug-in {target}; plug-ins are reached through their registry")
        elif FLOOR_OF.get(top, len(FLOORS)) >= floor:
            found.append(f"{module.name} (floor {floor}) imports {name} (floor {FLOOR_OF.get(top)}); imports go down")
    return found


def arrows(known: Mapping[str, Module]) -> dict[str, set[str]]:
    """Which modules each module imports."""
    return {
        name: {target_of(imported, known) for imported in imported_names(module)} - {name}
        for name, module in known.items()
    }


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """The names along one cycle, or nothing."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for target in sorted(graph.get(name, ())):
            found = visit(target)
            if found:
                return found
        done.add(path.pop())
        return []

    for name in sorted(graph):
        found = visit(name)
        if found:
            return found
    return []


def main() -> None:
    known = {module.name: module for module in modules()}
    graph = arrows(known)
    tops = {module.top for module in known.values()}
    between = {
        (room_of(name), room_of(target))
        for name, targets in graph.items()
        for target in targets
        if room_of(name) != room_of(target)
    }
    for floor, names in reversed(list(enumerate(FLOORS))):
        print(f"{floor:3}  " + "  ".join(name for name in names if name in tops))
    upward = [f"{a} -> {b}" for a, b in sorted(between) if FLOOR_OF.get(b, 99) >= FLOOR_OF.get(a, -1)]
    print(
        f"\n{len(tops)} rooms, {len(FLOORS)} floors, {len(between)} arrows between rooms, {len(upward)} upward {upward}"
    )
    print(
        f"{len(known)} modules, {sum(map(len, graph.values()))} arrows between modules, cycle: {cycle(graph) or 'none'}"
    )


if __name__ == "__main__":
    main()
