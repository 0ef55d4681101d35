"""Following runs, and the command line."""

import json
import threading
import time

import pytest

import zeroshot_nas as zs
from tests.browser import Watched, chromium, file_url, needs_browser
from tests.reporting.runs import calibration, correlation, search, training
from zeroshot_nas.errors import OutputExistsError, ReportError
from zeroshot_nas.reporting.watch import watch
from zeroshot_nas.runs.inspect import stored_kind
from zeroshot_nas.runs.store import lock_folder
from zeroshot_nas.training.learner import Learner

pytestmark = pytest.mark.slow

pytest.importorskip("jinja2")
pytest.importorskip("vl_convert")


@pytest.fixture
def gate(monkeypatch):
    """Lets a run take so many steps more, however fast the machine is."""
    steps = threading.Semaphore(2)
    epochs = Learner.epochs

    def gated(self, done):
        for record in epochs(self, done):
            assert steps.acquire(timeout=60)
            yield record

    monkeypatch.setattr(Learner, "epochs", gated)
    return steps


def gated_proxy(gate):
    def weights(network, batch):
        assert gate.acquire(timeout=60)
        return float(sum(weight.numel() for weight in network.parameters()))

    return weights


RUNS = {
    "search": lambda folder, gate: search(folder, proxy=gated_proxy(gate), proposals=16, screen=False),
    "correlation": lambda folder, gate: correlation(folder, [gated_proxy(gate), "cet"]),
    "training": lambda folder, gate: training(folder, epochs=20),
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_is_followed_to_its_end(tmp_path, kind, gate):
    folder, pages = tmp_path / "run", []
    begun = folder / ("train.json" if kind == "training" else ".lock")

    def seen(page):
        pages.append(page)
        gate.release(3)

    runner = threading.Thread(target=RUNS[kind], args=(folder, gate))
    runner.start()
    try:
        while not begun.exists() or (kind != "training" and stored_kind(folder) is None):
            assert runner.is_alive()
            time.sleep(0.02)
        assert watch(folder, interval=0.1, seen=seen) == "done"
    finally:
        gate.release(1_000)
        runner.join(timeout=60)
    states = [page.state for page in pages]
    assert (states[0], states[-1]) == ("running", "done")
    assert len(pages) > (2 if kind == "training" else 3)  # a training goes at its own speed
    done = [page.progress for page in pages if page.progress is not None]
    assert done == sorted(done)
    assert any(0 < each < 1 for each in done)
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


def test_the_command_writes_a_page_and_says_where(run, tmp_path):
    path = calibration(tmp_path / "run")
    code, out, _ = run("report", path)
    assert (code, out) == (0, f"written to  {path.with_suffix('.html')}\n")
    code, out, err = run("report", path)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "--force" in err
    assert err.count("\n") == 1
    assert run("report", path, "--force", "--out", tmp_path / "page.html")[0] == 0
    code, out, _ = run("report", path, "--force", "--json")
    assert (code, json.loads(out)) == (0, {"written_to": str(path.with_suffix(".html"))})
    code, out, err = run("report", path, "--force", "--watch", "--interval", "0.01")
    assert code == 0
    assert "the run is  done" in out
    _, out, _ = run("report", path, "--force", "--watch", "--interval", "0.01", "--json")
    assert json.loads(out)["state"] == "done"
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
