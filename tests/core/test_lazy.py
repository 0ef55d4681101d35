"""A lazy module is imported by its first use, and is then the module's equal."""

import subprocess
import sys

import pytest

from zeroshot_nas.core.lazy import LazyModule


def test_a_module_is_imported_by_the_first_attribute_and_not_before():
    program = """
import sys
from zeroshot_nas.core.lazy import LazyModule
colours = LazyModule("colorsys")
assert "colorsys" not in sys.modules
assert colours.rgb_to_hsv is sys.modules["colorsys"].rgb_to_hsv
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_attribute_is_the_modules_own_also_after_it_changed(monkeypatch):
    import colorsys

    lazy = LazyModule("colorsys")
    assert lazy.hsv_to_rgb is colorsys.hsv_to_rgb
    monkeypatch.setattr(colorsys, "hsv_to_rgb", "another")
    assert lazy.hsv_to_rgb == "another"


def test_an_attribute_that_the_module_lacks_is_named_with_the_module():
    with pytest.raises(AttributeError, match="'colorsys' has no attribute 'nonsense'"):
        LazyModule("colorsys").nonsense  # noqa: B018


def test_a_module_that_is_not_installed_is_an_import_error():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        LazyModule("no_such_module").anything  # noqa: B018


def test_a_module_inside_a_package_is_meant_by_its_dotted_name():
    import xml.dom.minidom

    assert LazyModule("xml.dom.minidom").parseString is xml.dom.minidom.parseString
