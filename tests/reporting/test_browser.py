"""Pages of runs in a browser: they draw, nothing is wrong on the console, no request leaves them, any width is read."""

import itertools
import warnings

import pytest

import zeroshot_nas as zs
from tests.browser import Watched, chromium, file_url, needs_browser, overflow
from tests.reporting.runs import KINDS, search

pytest.importorskip("jinja2")
pytest.importorskip("vl_convert")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

CONTRAST = """() => {
  const part = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const rgb = part(getComputedStyle(each).backgroundColor);
      if (rgb.length < 4 || rgb[3] === 1) return rgb;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const each of document.querySelectorAll("p, h1, h2, h3, dt, dd span, td, th, button, li, code, .badge")) {
    if (!each.innerText || !each.offsetParent) continue;
    const [a, b] = [light(part(getComputedStyle(each).color)), light(ground(each))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const text = `${each.tagName}.${each.className} ${ratio.toFixed(2)}: ${each.innerText.slice(0, 30)}`;
    if (ratio < 4.5) faint.push(text);
  }
  return [...new Set(faint)];
}"""
"""Texts whose contrast is below what WCAG asks for at level AA."""

DRAWN = "[...document.querySelectorAll('.part:not([hidden]) .chart')].every(chart => chart.dataset.drawn)"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def pages(runs):
    """The page of a run of each kind."""
    return lambda kind: zs.report(runs(kind), force=True)


def opened(browser, file, **options):
    watched = Watched(browser, file_url(file), **options)
    watched.page.goto(file_url(file))
    return watched


def check_all_tabs(watched):
    """Every tab opens, and everything in it is drawn and fits."""
    page = watched.page
    tabs = page.get_by_role("tab")
    count = tabs.count()
    for place in range(max(1, count)):
        if count:
            tabs.nth(place).click()
        page.wait_for_function(
            "[...document.querySelectorAll('.part:not([hidden]) .chart')].every(c => c.dataset.drawn)"
        )
        charts = page.locator(".part:not([hidden]) .chart")
        for chart in range(charts.count()):
            assert charts.nth(chart).locator("svg.marks").bounding_box()["height"] > 50
            assert charts.nth(chart).locator("svg.marks [role=graphics-symbol], svg.marks path").count()
        assert page.locator(".part:visible").count() == 1
        assert overflow(page) <= 0
    assert watched.faults == []


@needs_browser
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_every_kind_is_drawn_on_any_screen(browser, pages, kind):
    file = pages(kind)
    for scheme, width in (("light", 1280), ("dark", 400)):
        watched = opened(browser, file, color_scheme=scheme, viewport={"width": width, "height": 800})
        check_all_tabs(watched)
        assert watched.page.evaluate(CONTRAST) == []
        ground = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(ground.split("(")[1].split(",")[0]) < 100) == (scheme == "dark")
        levels = watched.page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
        assert levels[0] == 1 == levels.count(1)
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        watched.page.context.close()


@needs_browser
@pytest.mark.parametrize("space", zs.list_spaces())
def test_a_search_of_every_space_is_drawn(browser, tmp_path, space):
    search(tmp_path / "run", space, proposals=8, budget=zs.Budget(flops=1e9, layers=60))
    watched = opened(browser, zs.report(tmp_path / "run"), viewport={"width": 400, "height": 800})
    check_all_tabs(watched)
    watched.page.context.close()


@needs_browser
@pytest.mark.parametrize("searcher", zs.list_searchers())
def test_a_search_by_every_strategy_is_drawn(browser, tmp_path, searcher):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        budget = zs.Budget(params=4e3, layers=4) if searcher == "exact" else None
        search(tmp_path / "run", proxy="params", searcher=searcher, budget=budget)
    watched = opened(browser, zs.report(tmp_path / "run"))
    check_all_tabs(watched)
    watched.page.context.close()


@needs_browser
def test_marks_say_what_they_are_where_the_pointer_is(browser, pages):
    watched = opened(browser, pages("front"))
    page = watched.page
    page.get_by_role("tab", name="Networks").click()
    page.wait_for_selector(".chart svg.marks")
    page.locator(".chart svg.marks path[aria-roledescription=point]").last.hover(force=True)
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert {"score", "parameters", "FLOPs", "layers"} <= set(tip.locator(".key").all_inner_texts())
    assert watched.faults == []


@needs_browser
def test_the_wheel_zooms_and_a_double_click_goes_back(browser, pages):
    watched = opened(browser, pages("training"))
    page = watched.page
    page.wait_for_selector(".chart svg.marks")
    axis = page.locator(".chart").first.locator("svg.marks .role-axis-label text")
    before = axis.all_inner_texts()
    page.locator(".chart").first.locator("svg.marks").hover()
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(150)
    assert axis.all_inner_texts() == before  # without Ctrl the page scrolls
    page.locator(".chart").first.locator("svg.marks").hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    page.wait_for_timeout(300)
    assert axis.all_inner_texts() != before
    page.locator(".chart").first.locator("svg.marks").dblclick()
    page.wait_for_timeout(300)
    assert axis.all_inner_texts() == before
    assert watched.faults == []


@needs_browser
def test_tabs_are_for_the_keyboard_too_and_an_address_opens_one(browser, pages):
    watched = opened(browser, pages("training"))
    page = watched.page
    page.get_by_role("tab", name="Curves").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("[role=tab][aria-selected=true]").inner_text() == "Classes"
    page.keyboard.press("End")
    assert page.locator("[role=tab][aria-selected=true]").inner_text() == "Recipe"
    assert page.url.endswith("#recipe")
    page.reload()
    assert page.locator("[role=tab][aria-selected=true]").inner_text() == "Recipe"
    page.goto(file_url(pages("training")) + "#no-such-tab")
    assert page.locator("[role=tab]").count() == 5
    assert watched.faults == []


@needs_browser
def test_a_proxy_is_chosen_and_colours_follow_the_system(browser, pages):
    watched = opened(browser, pages("correlation"))
    page = watched.page
    page.get_by_role("tab", name="Scatter").click()
    choice = page.locator(".part:not([hidden]) select")
    choice.wait_for()
    marks = page.locator(".part:not([hidden]) svg.marks path[aria-roledescription=point]")
    before = [each.get_attribute("transform") for each in marks.all()]
    choice.select_option(index=1)
    page.wait_for_timeout(200)
    assert [each.get_attribute("transform") for each in marks.all()] != before
    fill = marks.first.get_attribute("fill")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "before => document.querySelector('.part:not([hidden]) svg.marks path[aria-roledescription=point]')"
        "?.getAttribute('fill') !== before",
        arg=fill,
    )
    assert watched.faults == []


@needs_browser
def test_names_of_classes_run_no_code(browser, pages):
    watched = opened(browser, pages("training"))
    watched.page.on("dialog", lambda dialog: watched.faults.append(dialog.message))
    check_all_tabs(watched)
    watched.page.get_by_role("tab", name="Confusion").click()
    watched.page.locator(".part:not([hidden]) svg.marks .mark-rect.role-mark path").first.hover(force=True)
    watched.page.wait_for_timeout(150)
    assert watched.page.locator("img").count() == 0
    assert watched.faults == []
