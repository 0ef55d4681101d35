"""A page as HTML: one file, which loads nothing."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.core.provenance import own_version
from zeroshot_nas.errors import MissingExtraError
from zeroshot_nas.reporting.base import Page

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE = Path(__file__).parent / "template"


def render(page: Page, *, reload_seconds: float | None = None) -> str:
    """The page's HTML; all text in it is escaped, and its own policy lets no request out of the file.

    Args:
        page: What to show.
        reload_seconds: How often the page in a browser reads its file again; None: never.

    Raises:
        MissingExtraError: jinja2 or vl-convert-python is not installed.
    """
    scripts = [vega(), (TEMPLATE / "page.js").read_text(encoding="utf-8")]
    return _template().render(
        page=page,
        sections=[section for section in page.sections if section.parts],
        style=(TEMPLATE / "page.css").read_text(encoding="utf-8"),
        scripts=scripts,
        hashes=[_hash(script) for script in scripts],
        reload_seconds=reload_seconds,
        version=own_version(),
    )


@cache
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script.

    Raises:
        MissingExtraError: vl-convert-python is not installed.
    """
    try:
        from vl_convert import javascript_bundle
    except ImportError:
        raise MissingExtraError("vl-convert-python", "report") from None
    bundle: str = javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script")


@cache
def _template() -> Template:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise MissingExtraError("jinja2", "report") from None
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
