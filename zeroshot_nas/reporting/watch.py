"""Following a run: its page is written anew while it goes on, and the browser reads it again by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from zeroshot_nas.errors import FileFormatError
from zeroshot_nas.reporting.base import Page, State
from zeroshot_nas.reporting.writing import page_file, page_kind, refuse_existing, write_page

INTERVAL = 2.0
"""Seconds between two looks at a run."""

_PATIENCE = 3
"""Looks in a row that find nobody at an unfinished run before it is taken for ended."""


def watch(
    run: str | Path,
    out: str | Path | None = None,
    *,
    force: bool = False,
    interval: float = INTERVAL,
    seen: Callable[[Page], None] | None = None,
) -> State:
    """Writes a run's page again and again while the run goes on; ends when it ends, or at Ctrl-C.

    The last page that is written does not load itself again.

    Args:
        run: As in `zeroshot_nas.report`.
        out: The page's file.
        force: Whether to replace a file that is there.
        interval: Seconds between two looks.
        seen: Called with every new page.

    Returns:
        The state that the run was left in.

    Raises:
        ValueError: The interval is not above 0.
        ReportError: There is no such run.
        OutputExistsError: The file exists, and ``force`` is not set.
    """
    if not interval > 0:
        raise ValueError(f"interval must be above 0 seconds, got {interval!r}")
    kind, file = page_kind(Path(run)), page_file(Path(run), out)
    refuse_existing(file, force)
    page, shown, idle = kind.page(Path(run)), None, 0
    try:
        while idle < _PATIENCE and page.state not in ("done", "interrupted", "failed"):
            idle = 0 if page.state == "running" else idle + 1
            if page != shown:
                write_page(page, file, interval)
                shown = page
                if seen is not None:
                    seen(page)
            time.sleep(interval)
            page = _latest(kind.page, Path(run), page)
    except KeyboardInterrupt:
        write_page(page, file)
        raise
    write_page(page, file)
    if seen is not None:
        seen(page)
    return page.state


def _latest(page_of: Callable[[Path], Page], run: Path, before: Page) -> Page:
    """The run's page now; the one before where a file of it is just being written."""
    try:
        return page_of(run)
    except (FileFormatError, FileNotFoundError):
        return before
