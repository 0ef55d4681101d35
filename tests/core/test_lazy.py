"""A lazy module is imported by its first use, and is then the module's equal."""

import subprocess
import sys

import pytest

from zeroshot_nas.core.lazy import LazyModule, is_torch_module, no_grad


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


def test_a_module_of_torch_is_told_from_anything_else():
    import torch

    assert is_torch_module(torch.nn.Linear(1, 1))
    assert not is_torch_module(torch.nn.Linear)
    assert not is_torch_module(torch.ones(1))


def test_no_gradients_are_kept_inside_and_the_mode_comes_back_also_after_an_error():
    import torch

    @no_grad()
    def keeps(fail=False):
        """A function."""
        if fail:
            raise ValueError("asked to")
        return torch.is_grad_enabled()

    assert not keeps()
    assert not keeps()  # a decorator serves any number of calls
    with pytest.raises(ValueError, match="asked to"):
        keeps(fail=True)
    assert torch.is_grad_enabled()
    assert (keeps.__name__, keeps.__doc__) == ("keeps", "A function.")
