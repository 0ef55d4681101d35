"""A headless Chromium for tests of pages, driven by Playwright: the system's browser, or one that it downloaded.

``CHROMIUM`` names another one. A test that is marked ``browser`` is skipped where there is none (`needs_browser`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]


def find_chromium() -> str | None:
    """The browser's program; None where there is none."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, filter(None, names))), None)


def why_not() -> str:
    """What is missing for a browser, and how to get it; nothing where all is there."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    if find_chromium() is None:
        return "no Chromium: apt install chromium, or name one in CHROMIUM"
    return ""


def needs_browser(test: Any) -> Any:
    """Marks a test that opens a page, and skips it where there is no browser."""
    return pytest.mark.browser(pytest.mark.skipif(bool(why_not()), reason=why_not())(test))


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of Playwright, closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=SWITCHES)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page, with all that goes wrong on it and every request to another host.

    Args:
        browser: What `chromium` gives.
        home: How the addresses that it may ask for begin.
        options: Of a browser's context: ``color_scheme="dark"``, ``viewport={"width": 400, "height": 800}``.
    """

    def __init__(self, browser: Any, home: str, **options: Any) -> None:
        self.faults: list[str] = []
        self.page = browser.new_context(**options).new_page()
        self.page.on("pageerror", lambda error: self.faults.append(f"{self.page.url}: {error}"))
        self.page.on("console", self._hear)
        self.page.on("response", self._see)
        self.page.on("request", lambda request: self._ask(request.url, home))

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{self.page.url}: {message.type}: {message.text}")

    def _see(self, response: Any) -> None:
        if response.status >= 400:
            self.faults.append(f"{self.page.url}: {response.status} for {response.url}")

    def _ask(self, url: str, home: str) -> None:
        if not url.startswith((home, "data:", "blob:", "about:")):
            self.faults.append(f"{self.page.url} asks another host for {url}")


def overflow(page: Any) -> int:
    """By how many pixels a page is wider than its window: a reader would have to scroll sideways."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def file_url(path: Path) -> str:
    """The address of a file."""
    return path.resolve().as_uri()
