"""Progress bars are lines of text, and a notebook's own in a notebook."""

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas.core.progress import in_notebook, note, progress_bar


@pytest.fixture
def notebook(monkeypatch):
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


@given(st.lists(st.integers(), max_size=5))
def test_a_bar_gives_what_it_goes_through(items):
    assert list(progress_bar(items, what="reading", unit="number", shown=False)) == items


def test_a_bar_says_what_is_done_on_the_standard_error(capsys):
    with progress_bar(what="training", unit="epoch", shown=True, total=3, initial=1) as bar:
        note(bar, "a line")
        bar.update()
    out, err = capsys.readouterr()
    assert out == ""
    assert "training" in err
    assert "2/3" in err
    assert "a line" in err


def test_a_bar_that_is_not_shown_prints_nothing(capsys):
    list(progress_bar("ab", what="reading", unit="letter", shown=False))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("config", [None, {}, {"TerminalIPythonApp": {}}])
def test_a_terminal_is_no_notebook(monkeypatch, config):
    shell = None if config is None else SimpleNamespace(config=config)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert not in_notebook()


@pytest.mark.usefixtures("notebook")
def test_lines_are_a_cells_output_in_a_notebook(capsys):
    with progress_bar(what="training", unit="epoch", shown=False, total=1) as bar:
        note(bar, "a line")
    out, err = capsys.readouterr()
    assert (out.strip(), err) == ("a line", "")
