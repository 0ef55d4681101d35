"""`report`: the page of a run, as a file."""

from __future__ import annotations

from pathlib import Path

from zeroshot_nas.core.files import explained_writes, write_text
from zeroshot_nas.errors import OutputExistsError, ReportError
from zeroshot_nas.reporting.base import PAGES, Page, PageKind
from zeroshot_nas.reporting.render import render

FILE = "report.html"
"""Name of the page in a run's folder, unless another file is named."""


def report(run: str | Path, out: str | Path | None = None, *, force: bool = False) -> Path:
    """Writes the page of a run: one HTML file to open in a browser, which loads nothing from anywhere.

    A search, a study, a correlation, a training, a comparison, a family, its training, or a latency calibration (its
    table's file); one that is not at its end has a page of what it had so far, which says so. The same run gives the
    same page.

    Args:
        run: The run's folder, or a device table's file.
        out: The page's file; default: ``report.html`` in the folder, or beside the table.
        force: Whether to replace a file that is there.

    Returns:
        The page's file.

    Raises:
        ReportError: There is no such run.
        OutputExistsError: The file exists, and ``force`` is not set.
        FileFormatError: A file of the run is damaged.
        StoreError: The run's store can't be read.
        MissingExtraError: jinja2 or vl-convert-python is not installed.

    Example:
        >>> import tempfile, zeroshot_nas as zs
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = zs.search("resnet", budget=zs.Budget(params=1e4), input_size=(1, 8, 8), proposals=50,
        ...                       progress=False, out=folder)
        ...     zs.report(folder).name
        'report.html'
    """
    kind, file = page_kind(Path(run)), page_file(Path(run), out)
    refuse_existing(file, force)
    write_page(kind.page(Path(run)), file)
    return file


def page_kind(run: Path) -> PageKind:
    """The kind of run that a path is.

    Raises:
        ReportError: It is none.
    """
    for name in PAGES:
        if PAGES[name].holds(run):
            return PAGES[name]
    if not run.exists():
        raise ReportError(f"{run} is not there; expected a run's folder, or the file of a latency calibration")
    if (run / "config.json").is_file() and (run / "model.safetensors").is_file():
        raise ReportError(f"{run} is an export for the Hub, which keeps no run; report the run that it was made of")
    known = ", ".join(PAGES)
    raise ReportError(f"{run} holds no run that has a page; these have one: {known}. See `zeroshot-nas runs list`")


def page_file(run: Path, out: str | Path | None) -> Path:
    """Where the page goes.

    Raises:
        ReportError: ``out`` is a folder.
    """
    if out is None:
        return run / FILE if run.is_dir() else run.with_name(f"{run.stem}.html")
    if Path(out).is_dir():
        raise ReportError(f"{out} is a folder; name the page's file, e.g. {Path(out) / FILE}")
    return Path(out)


def refuse_existing(file: Path, force: bool) -> None:
    """Raises OutputExistsError where the file is there and may not be replaced."""
    if file.exists() and not force:
        raise OutputExistsError(f"{file} exists; choose another file (out, --out), or replace it (force=True, --force)")


def write_page(page: Page, file: Path, reload_seconds: float | None = None) -> None:
    """Writes a page's file, whole or not at all; its folder is made if it is not there."""
    text = render(page, reload_seconds=reload_seconds)
    with explained_writes(file.parent, ReportError, "name another file"):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
