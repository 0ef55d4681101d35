"""Names: taken twice, mistyped, found in a folder, found in another distribution."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from zeroshot_nas.core.registry import Registry
from zeroshot_nas.errors import UnknownNameError


def distribution(folder: Path, name: str, group: str, module: str, source: str) -> None:
    """An installed distribution with one module and one entry point, as pip would lay it out."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{module} = {module}\n")
    (folder / f"{module}.py").write_text(source)


@pytest.fixture
def colours(tmp_path, monkeypatch):
    """A registry over a package of two modules, one of which registers red."""
    package = tmp_path / "toy_colours"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from zeroshot_nas.core.registry import Registry\nCOLOURS = Registry('colour', package='toy_colours')\n"
    )
    (package / "warm.py").write_text("from toy_colours import COLOURS\nCOLOURS.add('red', 1)\n")
    (package / "cold.py").write_text("from toy_colours import COLOURS\nCOLOURS.add('blue', 2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    import toy_colours

    yield toy_colours.COLOURS
    for name in [name for name in sys.modules if name.startswith(("toy_colours", "toy_plugin"))]:
        del sys.modules[name]


def test_a_file_in_the_folder_is_found(colours):
    assert list(colours) == ["blue", "red"]
    assert colours["red"] == 1
    assert "blue" in colours
    assert "green" not in colours


def test_a_name_taken_twice_is_refused(colours):
    assert colours["red"] == 1
    with pytest.raises(ValueError, match="the colour 'red' is already registered, as 1"):
        colours.add("red", 3)
    assert colours["red"] == 1


def test_an_unknown_name_suggests_the_nearest(colours):
    with pytest.raises(UnknownNameError, match=r"unknown colour 'rad'\. Did you mean 'red'\? Known: blue, red"):
        colours["rad"]
    with pytest.raises(KeyError):
        colours["rad"]


def test_a_plug_in_of_another_distribution_is_found(colours, tmp_path):
    distribution(
        tmp_path,
        "toy-plugin",
        "toy_colours",
        "toy_plugin_works",
        "from toy_colours import COLOURS\nCOLOURS.add('green', 3)\n",
    )
    assert colours["green"] == 3
    assert list(colours) == ["blue", "green", "red"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('no paint')", "RuntimeError: no paint"),
        ("import a_module_that_is_not_there", "ModuleNotFoundError"),
        ("this is no python", "SyntaxError"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("from toy_colours import COLOURS\nCOLOURS.add('red', 9)", "ValueError: the colour 'red' is already"),
    ],
)
def test_a_broken_plug_in_is_named_and_skipped(colours, tmp_path, source, reason):
    distribution(tmp_path, "toy-broken-plugin", "toy_colours", "toy_plugin_broken", source)
    with pytest.warns(RuntimeWarning, match="colour plug-in 'toy_plugin_broken' of toy-broken-plugin") as caught:
        assert colours["red"] == 1
    assert reason in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert list(colours) == ["blue", "red"]


def test_looking_a_name_up_while_a_module_loads_does_not_recurse(colours, tmp_path):
    (tmp_path / "toy_colours" / "asks.py").write_text("from toy_colours import COLOURS\nassert 'pink' not in COLOURS\n")
    assert list(colours) == ["blue", "red"]


def test_registries_are_independent():
    first, second = (Registry(kind, package="zeroshot_nas.blocks") for kind in ("a", "b"))
    first.add("x", 1)
    assert "x" not in second


def test_a_block_of_another_distribution_works_end_to_end(tmp_path):
    """A plug-in block has its strings, JSON and costs from its one ``lower``; a process of its own keeps ours clean."""
    distribution(
        tmp_path,
        "toy-blocks",
        "zeroshot_nas.blocks",
        "toy_blocks",
        """
from dataclasses import dataclass
from zeroshot_nas.architecture.blockspec import BlockSpec, register_block
from zeroshot_nas.architecture.ops import Conv

@register_block("Plain{kernel_size}", plainnet_fields=("out_channels", "stride"), kernel_size=(1, 3))
@dataclass(frozen=True)
class Plain(BlockSpec):
    kernel_size: int = 3

    def first(self, in_channels):
        return (Conv(in_channels, self.out_channels, self.kernel_size, self.stride),)
""",
    )
    program = """
import zeroshot_nas as zs
net = zs.Architecture.from_string("Plain3(3,4,2)Plain1(4,5,1)", (3, 8, 8), num_classes=2)
assert net.to_string() == "Plain3(3,4,2)Plain1(4,5,1)"
assert zs.Architecture.from_json(net.to_json()) == net
costs = zs.cost(net)
assert (costs.params, costs.flops) == (3*4*9 + 4*5 + 5*2 + 2, (3*4*9 + 4*5) * 16 + 5*2), costs
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_threads_that_ask_at_once_all_find_the_names():
    """In a process of its own: discovery happens once."""
    script = """
import threading, zeroshot_nas as zs
from zeroshot_nas.scoring.proxy import get_proxy
found, start = [], threading.Barrier(8)
def ask(index):
    start.wait()
    first, second = (lambda: get_proxy("zen")), (lambda: zs.get_space("nasbench201"))
    found.append((first(), second()) if index % 2 else (second(), first()))
threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(found) == 8, found
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
