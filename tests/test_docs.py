"""What is written down twice says the same."""

import importlib.util
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def test_the_page_of_proxies_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_pages", DOCS / "make_pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    assert (DOCS / "proxies.md").read_text(encoding="utf-8") == pages.proxies_page(), "run python docs/make_pages.py"


def test_the_citation_names_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
