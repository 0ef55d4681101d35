"""Following runs, and the command line."""

import subprocess
import sys
import time

import pytest

import zeroshot_nas as zs
from tests.browser import Watched, chromium, file_url, needs_browser
from tests.reporting.runs import calibration, search, training
from zeroshot_nas.errors import OutputExistsError, ReportError
from zeroshot_nas.reporting.watch import watch
from zeroshot_nas.runs.store import lock_folder

pytest.importorskip("jinja2")
pytest.importorskip("vl_convert")

SLOW = """
import sys, time
import zeroshot_nas as zs

def slow(network, batch):
    time.sleep(0.3)
    return float(sum(weight.numel() for weight in network.parameters()))

kind, folder = sys.argv[1:]
if kind == "search":
    space = zs.get_space("resnet", input_size=(1, 8, 8), num_classes=3, max_width=32)
    zs.search(space, slow, zs.Budget(params=3e4, layers=30), proposals=16, repeats=1, out=folder, progress=False)
if kind == "correlation":
    from tests.reporting.runs import table
    how = dict(space_options=dict(num_cells=1, channels=4), input_size=(3, 8, 8))
    zs.correlate([slow, "cet"], table(), out=folder, progress=False, **how)
if kind == "training":
    from zeroshot_nas.training.learner import Learner
    epochs = Learner.epochs
    def slowly(self, done):
        for record in epochs(self, done):
            time.sleep(0.5)
            yield record
    Learner.epochs = slowly
    from tests.reporting.runs import training
    from pathlib import Path
    training(Path(folder), epochs=6)
"""
"""A run of a few seconds in another process."""


@pytest.mark.parametrize("kind", ["search", "correlation", "training"])
def test_a_run_is_followed_to_its_end(tmp_path, kind):
    folder, pages = tmp_path / "run", []
    process = subprocess.Popen([sys.executable, "-c", SLOW, kind, str(folder)])
    try:
        begun = folder / ("train.json" if kind == "training" else "run.db")
        deadline = time.monotonic() + 60
        while not begun.exists() or (kind != "training" and begun.stat().st_size == 0):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
        assert watch(folder, interval=0.2, seen=pages.append) == "done"
    finally:
        process.wait(timeout=60)
    states = [page.state for page in pages]
    assert states[0] == "running"
    assert states[-1] == "done"
    assert len(pages) > 2
    done = [page.progress for page in pages if page.progress is not None]
    assert done == sorted(done)
    assert "data-reload=" not in (folder / "report.html").read_text(encoding="utf-8")


def test_a_run_that_nobody_is_at_is_not_waited_for_long(tmp_path):
    training(tmp_path / "run", epochs=1)
    file = tmp_path / "run" / "train.json"
    file.write_text(file.read_text().replace('"state": "done"', '"state": "running"'))
    assert watch(tmp_path / "run", interval=0.01) == "stopped"


def test_ctrl_c_ends_the_watch_and_leaves_a_page_that_stays(tmp_path):
    search(tmp_path / "run")

    def stop(page):
        raise KeyboardInterrupt

    (tmp_path / "run" / "result.json").unlink()
    with lock_folder(tmp_path / "run"), pytest.raises(KeyboardInterrupt):
        watch(tmp_path / "run", interval=0.01, seen=stop)
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "data-reload=" not in text
    assert "running" in text


def test_bad_watches_are_refused(tmp_path):
    path = calibration(tmp_path / "run")
    with pytest.raises(ValueError, match="above 0"):
        watch(path, interval=0)
    zs.report(path)
    with pytest.raises(OutputExistsError):
        watch(path)
    with pytest.raises(ReportError, match="is not there"):
        watch(tmp_path / "none")
    assert watch(path, force=True) == "done"


@pytest.fixture
def run(monkeypatch, capsys):
    from zeroshot_nas import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["zeroshot-nas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call


def test_the_command_writes_a_page_and_says_where(run, tmp_path):
    path = calibration(tmp_path / "run")
    code, out, _ = run("report", path)
    assert (code, out) == (0, f"written to {path.with_suffix('.html')}\n")
    code, out, err = run("report", path)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "--force" in err
    assert err.count("\n") == 1
    assert run("report", path, "--force", "--out", tmp_path / "page.html")[0] == 0
    code, out, err = run("report", path, "--force", "--watch", "--interval", "0.01")
    assert code == 0
    assert "the run is done" in out
    assert "median error" in err
    for arguments in (
        (tmp_path,),
        (tmp_path / "none",),
        (path, "--out", tmp_path),
        (path, "--watch", "--interval", "0"),
    ):
        code, out, err = run("report", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1 + ("--watch" in arguments))


@needs_browser
@pytest.mark.filterwarnings("ignore")
def test_a_watched_page_loads_itself_again_and_stays_on_its_tab(tmp_path):
    from zeroshot_nas.reporting.writing import page_kind, write_page

    search(tmp_path / "run")
    page, file = page_kind(tmp_path / "run").page(tmp_path / "run"), tmp_path / "page.html"
    write_page(page, file, reload_seconds=0.3)
    with chromium() as browser:
        watched = Watched(browser, file_url(file))
        watched.page.goto(file_url(file) + "#counts")
        watched.page.wait_for_selector(".live")
        write_page(page, file)
        watched.page.wait_for_function("document.querySelector('.live') === null && document.querySelector('h1')")
        watched.page.wait_for_selector("[role=tab][aria-selected=true]")
        assert watched.page.locator("[role=tab][aria-selected=true]").inner_text() == "Counts"
        assert watched.faults == []
