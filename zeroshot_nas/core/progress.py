"""Progress bars: a notebook's own in a notebook, a line of text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def in_notebook() -> bool:
    """Whether the caller is a cell of a notebook."""
    ipython = sys.modules.get("IPython")  # loaded by a notebook's kernel, and not for this question
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def progress_bar(items: Iterable[Any] | None = None, *, what: str, unit: str, shown: bool, **options: Any) -> Any:
    """A bar of tqdm, which a loop goes through or updates.

    Args:
        items: What the loop goes through; None where it calls ``update``.
        what: What is done, in front of the bar.
        unit: What is counted, as ``"net"``.
        shown: Whether it is shown.
        options: ``total`` and ``initial`` of tqdm.

    Example:
        >>> list(progress_bar("ab", what="reading", unit="letter", shown=False))
        ['a', 'b']
    """
    if in_notebook():
        from tqdm.auto import tqdm  # the notebook's bar where ipywidgets is there, else a warning that names it
    else:
        from tqdm import tqdm  # which spares a process without a notebook asyncio
    return tqdm(items, desc=what, unit=unit, disable=not shown, **options)


def note(bar: Any, line: str) -> None:
    """Writes a line above a bar: in a notebook as a cell's output, elsewhere to the standard error."""
    bar.write(line, file=sys.stdout if in_notebook() else sys.stderr)
