"""The documentation: what its pages claim is run, the site is built strictly, and a browser opens every page of it."""

import importlib.util
import json
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock

import zeroshot_nas as zs
from tests.browser import Watched, chromium, needs_browser, overflow
from tests.pages import NOT_RUN, blocks
from zeroshot_nas.spaces.base import SPACES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
MADE = ["reference/cli.md", *(f"notebooks/{path.stem}.md" for path in NOTEBOOKS)]
"""Pages that are made when the site is built."""

PAGES = sorted({page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - {*MADE})
IS_RUN = {page: [each.body for each in blocks((DOCS / page).read_text()) if each.how not in NOT_RUN] for page in PAGES}
RUN = [page for page in PAGES if IS_RUN[page]]
ALONE = [page for page in RUN if re.search("--plugin|register_", "".join(IS_RUN[page]))]
"""Pages that register something, which the others are not to meet."""

TOGETHER = [*(page for page in RUN if page not in ALONE), "../README.md"]
"""All others, in one process: torch is loaded once."""


# what the pages say


@pytest.mark.parametrize("pages", [*([page] for page in ALONE), TOGETHER], ids=",".join)
def test_what_a_page_shows_is_what_is_printed(pages):
    command = [sys.executable, "-m", "tests.pages", *(str(DOCS / page) for page in pages)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"


def test_every_how_to_shows_something_that_is_run():
    assert {f"howto/{page.name}" for page in (DOCS / "howto").glob("*.md")} - {"howto/index.md"} <= set(RUN)


def test_the_reference_has_every_public_name_once():
    pages = (DOCS / "reference").glob("*.md")
    shown = re.findall(r"^::: zeroshot_nas\.(\w+)$", "\n".join(page.read_text() for page in pages), re.MULTILINE)
    names = [name for name in shown if name not in ("testing", "errors")]
    assert sorted(names) == sorted(zs.__all__), "name it in a page of docs/reference"


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert sorted(re.findall(r"[\w/]+\.md", menu)) == sorted([*PAGES, *MADE])


def test_the_spaces_are_all_in_the_page_of_spaces():
    page = (DOCS / "concepts" / "spaces.md").read_text()
    ours = [name for name in SPACES if SPACES[name].__module__.startswith("zeroshot_nas.")]  # other tests add some
    assert [name for name in ours if f"`{name}`" not in page] == []
    assert len(ours) >= 10


def test_links_from_the_changelog_and_the_rules_are_absolute_as_they_stand_in_two_places():
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        links = re.findall(r"\]\(([^)]+)\)", (ROOT / name).read_text())
        assert all(link.startswith("https://") for link in links), links


def test_the_readme_is_short_and_what_it_points_to_is_there():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 150
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []


# notebooks


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_showed(notebook, tmp_path):
    executed = _run_notebooks().executed(notebook, tmp_path)
    kept = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    assert [_kinds(cell) for cell in executed.cells] == [_kinds(cell) for cell in kept], "run make notebooks"
    bars = [output for cell in executed.cells for output in cell.get("outputs", []) if _is_bar(output)]
    assert bool(bars) == ("progress=False" not in notebook.read_text() and notebook.stem != "score_a_network")
    printed = [output.text for cell in executed.cells for output in cell.get("outputs", []) if "text" in output]
    assert not any("%|" in text for text in printed), "a bar was printed as text"


def test_there_are_three_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["correlate_a_proxy", "score_a_network", "search_and_train"]


def _run_notebooks():
    spec = importlib.util.spec_from_file_location("run_notebooks", DOCS / "run_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _is_bar(output):
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def _kinds(cell):
    """What a cell shows, as far as it is the same wherever and whenever it runs: prints, tables, pictures."""
    outputs = [each for each in cell.get("outputs", []) if not _is_bar(each) and each.get("name") != "stderr"]
    return {(each["output_type"], *sorted(each.get("data", {}))) for each in outputs}


# the site


@pytest.fixture(scope="session")
def site(tmp_path_factory, testrun_uid):
    """The folder of the built site; one worker builds it."""
    done = tmp_path_factory.getbasetemp().parent / f"site-{testrun_uid}"
    with FileLock(f"{done}.lock"):
        if not done.exists():
            command = [sys.executable, str(DOCS / "build_site.py")]
            built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
            assert built.returncode == 0, f"{built.stdout}\n{built.stderr[-3000:]}"
            done.touch()
    return ROOT / "site"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def home(site):
    """The address of the site on a server of ours."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    with chromium() as found:
        yield found


def addresses(site):
    return sorted(page.parent.relative_to(site).as_posix() + "/" for page in site.rglob("index.html"))


def test_the_site_has_every_page_and_names_no_other_host(site):
    built = set(addresses(site))
    for page in [*PAGES, *MADE]:
        where = page.removesuffix(".md").removesuffix("index")
        assert (where.strip("/") or ".") + "/" in built, page
    loaded = re.compile(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=\"?(https?:|//)")
    assert [page for page in built if loaded.search((site / page / "index.html").read_text())] == []


@needs_browser
def test_every_page_loads_without_a_fault(site, home, browser):
    watched = Watched(browser, home)
    for address in addresses(site):
        watched.page.goto(home + address.removeprefix("./"))
        assert watched.page.locator("h1").first.is_visible(), address
    assert watched.faults == []


@needs_browser
def test_the_search_finds_the_zen_score(home, browser):
    watched = Watched(browser, home)
    watched.page.goto(home)
    watched.page.get_by_role("button", name="Search").first.click()
    watched.page.get_by_role("combobox").fill("Zen-score")
    watched.page.locator("a[href*='h=Zen-score']:visible").first.click()
    watched.page.wait_for_url("**/?h=Zen-score*")
    assert "Zen-score" in watched.page.locator("article").inner_text()
    assert watched.faults == []


@needs_browser
def test_every_page_fits_a_phone_in_the_dark(site, home, browser):
    watched = Watched(browser, home, color_scheme="dark", viewport={"width": 400, "height": 800})
    for address in addresses(site):
        watched.page.goto(home + address.removeprefix("./"))
        assert overflow(watched.page) <= 0, address
    assert watched.faults == []


@needs_browser
def test_the_site_follows_the_system_into_light_and_dark(home, browser):
    for scheme in ("light", "dark"):
        watched = Watched(browser, home, color_scheme=scheme)
        watched.page.goto(home)
        background = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
        brightness = sum(watched.page.evaluate(background)) / 3
        assert (brightness > 127) == (scheme == "light")
        assert watched.faults == []
