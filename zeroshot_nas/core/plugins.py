"""A user's own file as a plug-in: its proxies, spaces, blocks and searchers register themselves when it is imported."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from zeroshot_nas.errors import PluginError


def load_plugin(file: str | Path) -> ModuleType:
    """Imports a Python file by its own name, from its own folder.

    The folder goes to the front of ``sys.path``, so that worker processes find the file too.

    Args:
        file: A ``.py`` file, whose name without ending is an identifier.

    Returns:
        The module.

    Raises:
        PluginError: It is no such file, its name is another module's, or it failed to load.
    """
    path = Path(file).resolve()
    name = path.stem
    if path.suffix != ".py" or not name.isidentifier() or not path.is_file():
        raise PluginError(f"a plug-in is a Python file such as my_proxy.py, got {str(file)!r}")
    sys.path.insert(0, str(path.parent))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a stranger's code: whatever it raises is said in one line
        raise PluginError(f"the plug-in {file} failed to load: {type(error).__name__}: {error}") from error
    if getattr(module, "__file__", None) is None or Path(str(module.__file__)).resolve() != path:
        raise PluginError(f"the plug-in {file} has the name of another module, {name!r}; rename the file")
    return module
