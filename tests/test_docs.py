"""What is written down twice says the same."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", ["proxies", "layers", "timm", "equal_budget", "recipes", "tried"])
def test_the_written_pages_are_up_to_date(page):
    spec = importlib.util.spec_from_file_location("make_pages", DOCS / "make_pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    written = getattr(pages, f"{page}_page")()
    assert (DOCS / f"{page}.md").read_text(encoding="utf-8") == written, "run python docs/make_pages.py"


def test_the_citation_names_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
