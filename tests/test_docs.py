"""Pages that a script writes are what the script would write now."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_of_proxies_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_pages", DOCS / "make_pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    assert (DOCS / "proxies.md").read_text(encoding="utf-8") == pages.proxies_page(), "run python docs/make_pages.py"
