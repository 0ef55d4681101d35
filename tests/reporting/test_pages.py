"""Pages of runs: what stands in them is what the run has, nothing in them is taken for HTML, and none is left out."""

import contextlib
import json
import re
import shutil
import sqlite3
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zeroshot_nas as zs
from tests.reporting.runs import (
    HOSTILE,
    KINDS,
    calibration,
    comparison,
    correlation,
    device_table,
    family,
    family_training,
    search,
    space_named,
    training,
)
from tests.strategies import architectures
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import FileFormatError, MissingExtraError, OutputExistsError, ReportError
from zeroshot_nas.reporting.base import (
    PAGES,
    Bar,
    Chart,
    Code,
    Drawing,
    Facts,
    Note,
    Page,
    Section,
    Table,
    Tile,
    register_page,
)
from zeroshot_nas.reporting.charts import chart, thinned
from zeroshot_nas.reporting.network import network_section, placed
from zeroshot_nas.reporting.render import render, vega
from zeroshot_nas.reporting.words import short
from zeroshot_nas.reporting.writing import page_kind
from zeroshot_nas.runs.store import FILE_NAME, Store, lock_folder

pytest.importorskip("jinja2")
pytest.importorskip("vl_convert")
pytestmark = pytest.mark.filterwarnings("ignore::zeroshot_nas.errors.LatencyWarning")


class Seen(HTMLParser):
    """The elements of a page, its text, and the JSON of its charts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.attributes, self.charts, self._script = [], [], [], [], None
        self.feed(text.replace(vega(), ""))  # a megabyte of other people's

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._script = dict(attrs).get("type", "code") if tag == "script" else None

    def handle_endtag(self, tag):
        self._script = None if tag == "script" else self._script

    def handle_data(self, data):
        if self._script == "application/json":
            self.charts.append(json.loads(data))
        elif self._script is None:
            self.texts.append(data)


def text_of(page):
    return "\n".join(Seen(render(page)).texts)


def parts_of(page, kind):
    return [part for section in page.sections for part in section.parts if isinstance(part, kind)]


# Laws


@given(architectures())
def test_shares_of_blocks_are_the_networks_costs(network):
    """What the table of blocks says adds up; the drawing has a box a block and is XML."""
    section = network_section(network, proxy="params")
    drawing = next(part for part in section.parts if isinstance(part, Drawing))
    svg = ElementTree.fromstring(drawing.svg)
    boxes = [each for each in svg.iter("g") if each.get("class") == "block"]
    assert len(boxes) == len(network.blocks) + 1 == len(placed(network))
    table = next(part for part in section.parts if isinstance(part, Table))
    assert len(table.rows) == len(boxes)
    costs = complexity(network)
    by_score = [float(row[-1].text.split(" · ")[0]) for row in table.rows]
    assert sum(by_score) == pytest.approx(costs.params, rel=1e-3)
    assert all(0 <= cell.share <= 1 for row in table.rows for cell in row if isinstance(cell, Bar))


TEXTS = st.text(min_size=1, max_size=40) | st.sampled_from(HOSTILE)


def page_of(one, other):
    """A page with these texts wherever a text can stand."""
    parts = [
        Facts([(one, other)], one),
        Table([one], [[other], [Bar(0.5, one)]], other, note=one),
        Chart(one, chart([{"x": 1, "y": 2.0, "group": one}], [{"mark": "point"}]), other, one),
        Code(one, other),
        Note(other, "good", one),
    ]
    return Page(one, other, "stopped", [Tile(one, other, one, 0.5)], [Section(one, parts)], other, one, 0.5, [one])


@given(TEXTS, TEXTS)
def test_no_text_is_taken_for_html(one, other):
    """Every text of a run may be a stranger's; each comes out of the page as it went in, and makes no element."""
    seen, plain = Seen(render(page_of(one, other))), Seen(render(page_of("a", "b")))
    assert seen.tags == plain.tags
    assert [name for name, _ in seen.attributes if name != "title"] == [
        name for name, _ in plain.attributes if name != "title"
    ]
    assert seen.charts[0]["data"]["values"][0]["group"] == one
    if "\r" not in one + other and "\0" not in one + other:
        assert one in seen.texts
        assert other in seen.texts


@given(st.lists(st.integers()), st.integers(2, 20))
def test_thinned_rows_keep_their_order_and_both_ends(rows, most):
    few = thinned(rows, most)
    assert len(few) == min(most, len(rows))
    assert not rows or (few[0], few[-1]) == (rows[0], rows[-1])
    places = iter(rows)
    assert all(each in places for each in few)


@given(st.floats(1, 1e12))
def test_a_short_number_is_the_number_to_three_digits(value):
    digits, unit = re.fullmatch(r"([\d.e+]+)([kMG]?)", short(value)).groups()
    assert float(digits) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[unit] == pytest.approx(value, rel=6e-3)


# Every kind of run


@pytest.fixture(params=KINDS)
def run(request, runs):
    return request.param, runs(request.param)


def test_every_run_has_a_page_which_is_the_same_each_time(run, tmp_path):
    kind, path = run
    file = zs.report(path, tmp_path / "new" / "page.html")
    text = file.read_text(encoding="utf-8")
    seen = Seen(text)
    assert zs.report(path, file, force=True).read_text(encoding="utf-8") == text
    assert 0.8e6 < len(text) < 2e6
    for name, value in seen.attributes:  # nothing that a browser would fetch
        assert name not in ("src", "srcset", "action", "background") or value.startswith("data:")
        assert name != "href" or value == "data:,"
    assert "default-src 'none'" in text
    assert ("done" if kind != "calibration begun" else "stopped") in "\n".join(seen.texts)
    page = page_kind(path).page(path)
    assert all(part.alt for part in parts_of(page, Chart))
    assert len(seen.charts) == len(parts_of(page, Chart))
    assert all(part.svg.startswith("<svg") and "<title>" in part.svg for part in parts_of(page, Drawing))


def test_what_a_page_says_is_what_the_run_has(run):
    kind, path = run
    page = page_kind(path).page(path)
    sections = [section.name for section in page.sections if section.parts]
    tiles = {tile.label: tile.value for tile in page.tiles}
    if (file := path / "result.json").exists():
        result = zs.SearchResult.from_json(file.read_text())
        key, score = next(iter(result.best.scores.items()))
        assert tiles[f"score by {key}"] == f"{score.value:.5g}"
        assert tiles["params"] == short(result.best.costs.params)
        assert {"Winner", "Networks", "History", "Counts", "Settings"} <= set(sections)
        assert any(result.best.string in part.text for part in parts_of(page, Code))
        assert ("Trials" in sections) == (result.trials is not None)
        assert ("Latency" in sections) == (result.latency is not None)
        proved = [part for part in parts_of(page, Note) if part.title.startswith("Certificate")]
        assert bool(proved) == bool(result.certificate)
        assert kind != "exact" or proved[0].title == "Certificate: the optimum"
    if kind == "latency":  # its table is there, so that blocks have their share of latency
        assert any("latency" in part.head for part in parts_of(page, Table))
    if kind == "training":
        known = json.loads((path / "train.json").read_text())
        assert tiles["test accuracy"] == f"{known['test_accuracy']:.2%}"
        assert {"Curves", "Classes", "Confusion", "Network", "Recipe"} <= set(sections)
        matrix = next(part for part in parts_of(page, Chart) if part.title == "Confusion matrix")
        assert sum(row["images"] for row in matrix.spec["data"]["values"]) == known["images"]["test"]
    if kind == "correlation":
        found = zs.Correlation.read(path)
        assert {"Agreement", "Equal budget", "Scatter"} <= set(sections)
        dots = next(part for part in parts_of(page, Chart) if part.title == "Agreement with accuracy")
        taus = {row["name"]: row["tau"] for row in dots.spec["data"]["values"]}
        assert taus == {each.proxy: pytest.approx(each.kendall) for each in found.proxies if each.kendall is not None}
    if kind == "comparison":
        found = zs.Comparison.from_json((path / "comparison.json").read_text())
        first = found.networks[0]
        assert tiles[first.name] == f"{first.accuracy.value:.2%}"
        assert tiles["trainings"] == "6"
        assert {"Accuracy", "Trainings", "Network", "Settings"} <= set(sections)
        (table,) = [part for part in parts_of(page, Table) if part.title == "Networks"]
        assert [row[0] for row in table.rows] == [each.name for each in found.by_accuracy()]
        assert all(verdict in note.text for note in parts_of(page, Note) for verdict in found.verdicts())
    if kind == "family":
        found = zs.Family.from_json((path / "family.json").read_text())
        assert {"Members", "Network", "Settings"} <= set(sections)
        (drawn,) = parts_of(page, Chart)
        assert [(row["name"], row["score"]) for row in drawn.spec["data"]["values"] if row["group"] == "family"] == [
            (each.name, pytest.approx(each.score)) for each in found.members
        ]
        assert {row["group"] for row in drawn.spec["data"]["values"]} == {"family", "without nesting"}
        assert tiles["nesting costs"] == f"{sum(found.nesting_costs().values()) / len(found.members):+.2%}"
    if kind == "family training":
        found = json.loads((path / "trained.json").read_text())
        (drawn,) = parts_of(page, Chart)
        values = {row["name"]: row["value"] for row in drawn.spec["data"]["values"]}
        assert values == {each["name"]: pytest.approx(each["accuracy"][0]) for each in found["members"]}
        assert all(tiles[name] == f"{value:.2%}" for name, value in values.items())
        assert (tiles["trained"], tiles["epochs"]) == ("2", "3")
    if kind == "calibration":
        assert {"Fit", "Kernels", "Settings"} <= set(sections)
        assert len(parts_of(page, Chart)) == 2
    if kind == "calibration begun":
        assert tiles["measurements"] == "5"
        assert page.progress == 5 / 16


def test_latencies_of_blocks_and_of_the_network_as_a_whole_add_up():
    table = device_table()
    for network in (search_space_network(seed) for seed in range(5)):
        whole = sum(table.latency_by_block(network)) + table.overhead.per_network_ms
        assert whole == pytest.approx(table.latency_ms(network))


def search_space_network(seed):
    from zeroshot_nas.core.seeding import python_rng

    return space_named("resnet").sample(python_rng(seed))


def test_names_of_classes_are_text(tmp_path):
    training(tmp_path / "run", epochs=1)
    seen = Seen(zs.report(tmp_path / "run").read_text(encoding="utf-8"))
    assert seen.tags.count("script") == 2 + len(seen.charts)
    assert "img" not in seen.tags
    assert HOSTILE[0] in "\n".join(seen.texts)


def test_many_classes_are_shown_in_part(tmp_path):
    training(tmp_path / "run", epochs=1)
    file = tmp_path / "run" / "train.json"
    known = json.loads(file.read_text())
    names = [f"class {index}" for index in range(100)]
    confusion = [[3 if i == j else int((i + 1) % 100 == j) for j in range(100)] for i in range(100)]
    file.write_text(json.dumps({**known, "class_names": names, "confusion": confusion}))
    page = page_kind(tmp_path / "run").page(tmp_path / "run")
    by_class = next(part for part in parts_of(page, Chart) if part.title == "Accuracy by class")
    assert len(by_class.spec["data"]["values"]) == 60
    assert "60 worst of 100" in by_class.note
    matrix = next(part for part in parts_of(page, Chart) if part.title == "Confusion matrix")
    assert len(matrix.spec["data"]["values"]) == 200  # empty cells are left out


# Runs that are not at their end


def unfinished(folder, **how):
    """A search as a kill leaves it: its result and its last word are gone."""
    search(folder, **how)
    for name in ("result.json", "best.json"):
        (folder / name).unlink()
    store = Store(folder / FILE_NAME)
    store.log("progress", {"done": 12, "best": 3.5})
    store.close()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"proxy": "zen", "proposals": 100},
        {"proxy": "naswot", "proposals": 5},
        {"proxy": "az_nas", "proposals": 4, "screen": False},
        {"reward": "params:target=9k:form=sum:exponent=-1"},
        {"objectives": ("cet", "flops")},
    ],
    ids=str,
)
def test_a_killed_search_has_a_page_of_what_it_had(tmp_path, how):
    unfinished(tmp_path / "run", **how)
    page = page_kind(tmp_path / "run").page(tmp_path / "run")
    assert page.state == "stopped"
    assert f"zeroshot-nas resume {tmp_path / 'run'}" in page.remark
    assert {"Winner", "Networks", "History"} <= {section.name for section in page.sections if section.parts}
    assert "killed" in text_of(page)


def test_a_run_that_somebody_is_at_is_running(tmp_path):
    unfinished(tmp_path / "run")
    with lock_folder(tmp_path / "run"):
        assert page_kind(tmp_path / "run").page(tmp_path / "run").state == "running"
    assert page_kind(tmp_path / "run").page(tmp_path / "run").state == "stopped"


def test_a_search_that_kept_nothing_yet_shows_its_progress(tmp_path):
    unfinished(tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / FILE_NAME) as connection:
        for table in ("scores", "architectures"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("DELETE FROM journal WHERE kind = 'island'")
    connection.close()
    page = page_kind(tmp_path / "run").page(tmp_path / "run")
    assert page.tiles[0].value == "12"
    assert page.progress == 12 / 30
    assert "Progress" in [section.name for section in page.sections]


def test_a_failed_search_says_why(tmp_path):
    def broken(network, batch):
        raise zs.errors.UndefinedScoreError("no such <number>")

    with pytest.raises(zs.errors.ProxyError):
        search(tmp_path / "run", proxy=broken, proposals=3)
    page = page_kind(tmp_path / "run").page(tmp_path / "run")
    assert page.state == "failed"
    assert "no such <number>" in page.remark
    assert "no such <number>" in text_of(page)


@pytest.mark.slow
def test_a_correlation_without_its_report_shows_how_far_each_proxy_is(tmp_path):
    path = tmp_path / "run"
    correlation(path, ["cet"])
    (path / "report.json").unlink()
    page = page_kind(path).page(path)
    (table,) = [part for part in parts_of(page, Table) if part.title == "So far"]
    assert {row[0] for row in table.rows} == {"cet", "params", "flops", "layers"}
    assert all(0 < row[1].share <= 1 for row in table.rows)


@pytest.mark.slow
def test_a_killed_comparison_shows_the_trainings_that_are_done(tmp_path):
    """As a kill during the last training leaves it: the journal has the others."""
    path = tmp_path / "run"
    comparison(path)
    (path / "comparison.json").unlink()
    with contextlib.closing(sqlite3.connect(path / FILE_NAME)) as connection, connection:
        connection.execute("DELETE FROM journal WHERE number > (SELECT max(number) - 2 FROM journal)")
    page = page_kind(path).page(path)
    assert (page.state, page.progress) == ("stopped", 5 / 6)
    (table,) = [part for part in parts_of(page, Table) if part.title == "Trainings"]
    assert len(table.rows) == 5
    with contextlib.closing(sqlite3.connect(path / FILE_NAME)) as connection, connection:
        connection.execute("DELETE FROM journal WHERE kind = 'training'")
    page = page_kind(path).page(path)
    assert page.progress == 0
    assert "resnet8" in text_of(page)


@pytest.mark.slow
def test_a_killed_family_shows_the_members_that_are_done(tmp_path):
    path = tmp_path / "run"
    found = family(path)
    (path / "family.json").unlink()
    whole = page_kind(path).page(path)
    (table,) = [part for part in parts_of(whole, Table) if part.title == "Members"]
    assert [row[0] for row in table.rows] == [each.name for each in found.members]
    shutil.rmtree(path / "nested")
    page = page_kind(path).page(path)
    assert page.progress == 1 / 2
    shutil.rmtree(path / "searches")
    page = page_kind(path).page(path)
    assert page.progress == 0
    assert render(page)


@pytest.mark.slow
def test_a_killed_training_of_a_family_shows_the_members_that_are_trained(tmp_path):
    path = tmp_path / "run"
    family_training(path)
    (path / "trained.json").unlink()
    with contextlib.closing(sqlite3.connect(path / FILE_NAME)) as connection, connection:
        connection.execute("DELETE FROM journal WHERE number > (SELECT max(number) - 2 FROM journal)")
    page = page_kind(path).page(path)
    assert (page.state, page.progress) == ("stopped", 1 / 2)
    with contextlib.closing(sqlite3.connect(path / FILE_NAME)) as connection, connection:
        connection.execute("DELETE FROM journal WHERE kind = 'training'")
    page = page_kind(path).page(path)
    assert page.progress == 0
    assert render(page)


def test_an_unfinished_training_shows_its_curves_and_no_test_accuracy(tmp_path):
    training(tmp_path / "run", epochs=2)
    file = tmp_path / "run" / "train.json"
    known = json.loads(file.read_text())
    known |= {
        "state": "running",
        "test_accuracy": None,
        "test_interval": None,
        "class_accuracy": None,
        "confusion": None,
    }
    for state in ("running", "interrupted"):
        file.write_text(json.dumps({**known, "state": state}))
        page = page_kind(tmp_path / "run").page(tmp_path / "run")
        assert page.state == {"running": "stopped"}.get(state, state)
        assert [section.name for section in page.sections if section.parts] == ["Curves", "Network", "Recipe"]
        assert page.tiles[0].value == "–"
        assert render(page)


# Plug-ins and bad input


def test_a_new_kind_of_run_is_a_function_with_a_decorator(tmp_path, monkeypatch):
    list(PAGES)  # looked for before the one below is added
    monkeypatch.setattr(PAGES, "_entries", dict(PAGES._entries))

    @register_page("herd", holds=lambda path: (path / "herd.txt").is_file())
    def herd_page(folder):
        return Page("a herd", "herd", "done", [Tile("members", "5")], [])

    (tmp_path / "herd.txt").touch()
    assert "a herd" in zs.report(tmp_path).read_text(encoding="utf-8")


def test_what_has_no_page_is_said(tmp_path):
    with pytest.raises(ReportError, match="is not there; expected a run's folder"):
        zs.report(tmp_path / "none")
    with pytest.raises(ReportError, match="holds no run that has a page; these have one: calibration, comparison"):
        zs.report(tmp_path)
    (tmp_path / "notes.json").write_text("[1, 2]")
    with pytest.raises(ReportError, match="holds no run"):
        zs.report(tmp_path / "notes.json")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(ReportError, match="is an export for the Hub"):
        zs.report(tmp_path)


def test_a_damaged_run_is_a_damaged_file(tmp_path):
    training(tmp_path / "run", epochs=1)
    for text in ("{", "[]", "{}", '{"state": "done"}', '{"recipe": {"epochs": 0}, "epochs": "x"}'):
        (tmp_path / "run" / "train.json").write_text(text)
        with pytest.raises(FileFormatError, match="is no training's"):
            zs.report(tmp_path / "run")
    training(tmp_path / "other", epochs=1)
    (tmp_path / "other" / "architecture.json").write_text("{")
    with pytest.raises(FileFormatError, match=r"architecture\.json can't be read: not JSON"):
        zs.report(tmp_path / "other")
    search(tmp_path / "search")
    (tmp_path / "search" / "result.json").write_bytes(b"\xff\xfe")
    with pytest.raises(FileFormatError, match=r"result\.json can't be read"):
        zs.report(tmp_path / "search")


def test_the_working_folder_is_a_run_too(tmp_path, monkeypatch):
    training(tmp_path / "run", epochs=1)
    monkeypatch.chdir(tmp_path / "run")
    assert zs.report(".") == Path("report.html")
    assert "Training on three" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReportError, match="holds no run"):
        zs.report(".")


def test_a_page_that_exists_is_kept_unless_told(tmp_path):
    path = calibration(tmp_path / "run")
    file = zs.report(path)
    assert file == path.with_suffix(".html")
    file.write_text("mine")
    with pytest.raises(OutputExistsError, match="--force"):
        zs.report(path)
    assert file.read_text() == "mine"
    assert zs.report(path, force=True).read_text(encoding="utf-8") != "mine"
    with pytest.raises(ReportError, match="is a folder"):
        zs.report(path, tmp_path)
    (tmp_path / "a file").touch()
    with pytest.raises(ReportError, match="can't be written to"):
        zs.report(path, tmp_path / "a file" / "page.html")


@pytest.mark.slow
@pytest.mark.parametrize(("module", "package"), [("jinja2", "jinja2"), ("vl_convert", "vl-convert-python")])
def test_without_the_extra_it_is_named(tmp_path, monkeypatch, module, package):
    from zeroshot_nas.reporting import render as rendering

    path = calibration(tmp_path / "run")
    monkeypatch.setitem(sys.modules, module, None)
    rendering.vega.cache_clear()
    rendering._template.cache_clear()
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed.*zeroshot-nas\[report\]"):
        zs.report(path)


@pytest.mark.slow
def test_the_example_of_a_kind_of_ones_own_works(tmp_path, monkeypatch):
    list(PAGES)
    monkeypatch.setattr(PAGES, "_entries", dict(PAGES._entries))
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    example = text.partition("from zeroshot_nas.reporting.base")[2].partition("```")[0]
    exec(f"from zeroshot_nas.reporting.base{example}", {})
    (tmp_path / "survey.csv").write_text("yes,3\nno,1\n")
    seen = Seen(zs.report(tmp_path).read_text(encoding="utf-8"))
    assert "A survey" in seen.texts
    assert [row["value"] for row in seen.charts[0]["data"]["values"]] == [3, 1]
