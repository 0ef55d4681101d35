"""The table and the bars of what each convolution adds."""

import sys

import pytest
from matplotlib.image import imread

from zeroshot_nas.closed_form.cet.explain import cet_explain
from zeroshot_nas.errors import MissingExtraError, ProxyError
from zeroshot_nas.plots.explanation import explanation_table, plot_explanation, write_explanation
from zeroshot_nas.spaces.nasbench201 import NASBench201

ROWS = cet_explain(NASBench201(num_cells=1).network((1, 3, 0, 3, 2, 0)))


def test_the_table_has_a_line_a_convolution_and_the_sums():
    lines = explanation_table(ROWS).splitlines()
    assert len(lines) == len(ROWS) + 2
    for line, row in zip(lines[1:], ROWS, strict=False):
        assert line.endswith(row.state)
        assert row.convolution in line
    assert f"{sum(row.effective_weights for row in ROWS):,.0f}" in lines[-1]
    assert {"dead", "redundant", "not counted", "stem", "ok"} == {row.state for row in ROWS}


def test_bars_are_as_long_as_the_numbers():
    figure = plot_explanation(ROWS, "a title")
    weights, uses, terms = figure.axes
    drawn = {round(bar.get_width(), 6) for group in weights.containers[1:] for bar in group}
    assert drawn == {round(row.effective_weights, 6) for row in ROWS if row.state in ("ok", "redundant", "stem")}
    assert [bar.get_width() for bar in weights.containers[0]] == [row.weights for row in ROWS]
    for axes, name, unit in ((uses, "effective_uses", 1e6), (terms, "log_term", 1)):
        lengths = sorted(bar.get_width() for group in axes.containers for bar in group)
        values = sorted(getattr(row, name) / unit for row in ROWS if row.state in ("ok", "redundant", "stem"))
        assert lengths == pytest.approx(values)
    labels = [tick.get_text() for tick in weights.get_yticklabels()]
    assert [row.convolution in label for row, label in zip(ROWS, labels, strict=True)] == [True] * len(ROWS)
    assert figure.get_suptitle() == "a title"


@pytest.mark.slow
def test_files_are_the_same_each_time(tmp_path):
    for name in ("a.png", "a.svg"):
        write_explanation(ROWS, "net", tmp_path / name)
        first = (tmp_path / name).read_bytes()
        write_explanation(ROWS, "net", tmp_path / name)
        assert (tmp_path / name).read_bytes() == first
    assert imread(tmp_path / "a.png").std() > 0
    with pytest.raises(ProxyError, match=r"\.png or \.svg"):
        write_explanation(ROWS, "net", tmp_path / "a.pdf")


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="report"):
        plot_explanation(ROWS, "net")
