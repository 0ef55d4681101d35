"""What a notebook shows of a result is one screen, and a network's text is what commands take."""

import dataclasses
import math
import sys
from html.parser import HTMLParser

import pytest

import zeroshot_nas as zs
from zeroshot_nas.comparing.comparison import Compared, Training
from zeroshot_nas.errors import MissingExtraError

from .runs.test_resume import CELLS

SCREEN = 2_000
"""Characters."""

DEEP = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)" + "SuperResK3K3(8,8,1,8,1)" * 60)


class Page(HTMLParser):
    """The cells of tables, and that every tag is closed and of a kind that is harmless."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in ("div", "strong", "table", "thead", "tbody", "tr", "th", "td", "p")
        assert [name for name, _ in attrs if name != "style"] == []
        assert all("color" not in value and "background" not in value for _, value in attrs)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.cells.append(data)


def shown(value):
    """What a notebook shows of a value, as texts; a screen has some 50 rows."""
    text = value._repr_html_()
    assert text.count("<tr") <= 50
    assert "<script" not in text
    return Page(text).cells


@pytest.mark.parametrize("space", zs.list_spaces())
def test_a_searchs_result_is_one_screen(space):
    where = zs.get_space(space, input_size=(3, 16, 16))
    result = zs.search(where, "params", proposals=30, progress=False)
    candidate = repr(result.best)
    assert len(candidate) < len(repr(result)) < SCREEN
    assert result.best.string[:40] in candidate
    for name, value in result.best.costs.to_dict().items():
        assert f"{name} {value:,.6g}" in candidate
    assert f"params {result.best.scores['params'].value:.6g}" in candidate
    assert f"{result.counts.proposed:,} proposed" in repr(result)
    assert candidate in repr(result)
    assert repr(result.best.architecture).startswith("Architecture(blocks=(")
    assert len(repr(result.best.architecture)) < SCREEN
    cells = shown(result)
    assert {"params", f"{result.best.costs.params:,}", "proposed"} <= set(cells)
    assert cells[cells.index("proposed") + 1].startswith(f"30: over budget {result.counts.over_budget}, duplicate")
    assert result.best.string[:40] in " ".join(shown(result.best))
    blocks = shown(result.best.architecture)
    assert all(block.type_name in blocks for block in result.best.architecture.blocks[:20])
    assert f"{result.best.costs.flops:,}" in shown(result.best.costs)
    frame = result.to_pandas()
    assert list(frame["flops"]) == [each.costs.flops for each in result.history]
    assert list(frame["string"]) == [each.string or str(each.architecture) for each in result.history]
    assert frame["on_front"].sum() == len(result.front)


def test_a_deep_architecture_is_one_screen_and_a_shallow_one_whole():
    assert len(repr(DEEP)) < SCREEN
    assert "... 55 more ..." in repr(DEEP)
    assert "… and 37 more" in shown(DEEP)
    small = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)")
    for each in (small, dataclasses.replace(small, weight_bits=(4, 8))):
        values = {field.name: getattr(each, field.name) for field in dataclasses.fields(each) if field.init}
        said = ", ".join(f"{name}={value!r}" for name, value in values.items() if value is not None)
        assert repr(each) == f"Architecture({said})"


def test_a_score_is_a_table_and_a_row():
    score = zs.score(DEEP, "cet")
    cells = shown(score)
    assert {"cet", "value", *score.details} <= set(cells)
    assert cells[cells.index("value") + 1].startswith(f"{score.value:.6g}")
    assert score.to_pandas().loc[0, "value"] == score.value
    assert score.to_pandas().loc[0, list(score.details)].to_dict() == pytest.approx(dict(score.details))
    failed = zs.Score("zen", math.nan, None, 1, 0.0, "failed", "<b>a dead layer</b>")
    assert shown(failed) == ["zen: failed", "reason", "<b>a dead layer</b>"]
    assert "<b>" not in failed._repr_html_()
    assert list(failed.to_pandas()["state"]) == ["failed"]


def test_a_training_is_one_screen_and_its_history_a_frame(tmp_path):
    network = zs.Architecture.from_string("SuperConvK3BNRELU(1,8,2,1)", (1, 8, 8))
    result = zs.train(network, "digits", zs.get_recipe("quick", epochs=2), out=tmp_path, progress=False)
    assert f"TrainResult(done, test accuracy {result.test_accuracy:.2%} (" in repr(result)
    assert len(repr(result)) < SCREEN
    assert {value[:100] for row in result.rows() for value in row} <= {cell[:100] for cell in shown(result)}
    frame = result.to_pandas()
    assert list(frame["epoch"]) == [1, 2]
    assert list(frame["train_loss"]) == [record.train_loss for record in result.history]
    interrupted = dataclasses.replace(result, confusion=None, test_accuracy=math.nan, state="interrupted", history=())
    assert "not tested" in repr(interrupted)
    assert shown(interrupted)[0] == "Training on digits, interrupted"
    assert list(interrupted.to_pandas().columns) == list(frame.columns)


def test_pandas_is_an_extra_that_is_imported_when_it_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    score = zs.score(DEEP, "cet")
    score._repr_html_()
    with pytest.raises(MissingExtraError, match=r'pandas is not installed.*pip install "zeroshot-nas\[pandas\]"'):
        score.to_pandas()


def test_an_architectures_text_is_read_again():
    architecture = zs.get_space("mobilenet").initial()
    assert zs.Architecture.from_string(str(architecture)) == architecture
    cell = zs.get_space("nasbench201").initial()
    assert str(cell) == repr(cell)  # it has no such form


def test_image_data_says_how_many_and_of_what_shape():
    assert repr(zs.load_data("digits")) == (
        "ImageData(digits: 1,347 images to train on, 450 to test on, 10 classes, shape (1, 8, 8), torch.float32)"
    )


def test_a_correlation_is_a_table(tmp_path):
    table = tmp_path / "cells.csv"
    table.write_text("cell,top1\n" + "".join(f"{cell},{80 + place}\n" for place, cell in enumerate(CELLS)))
    columns = {"arch_column": "cell", "accuracy_column": "top1"}
    found = zs.correlate(
        ["params", "cet", "layers"],
        zs.load_table(table, space="nasbench201", dataset="cifar10", **columns),
        input_size=(3, 8, 8),
        progress=False,
    )
    head, *rows = repr(found).splitlines()
    assert "5 of 5 architectures, done" in head
    assert sorted(row.split()[0] for row in rows) == sorted(entry.proxy for entry in found.proxies)
    for row in rows:
        tau = found[row.split()[0]].kendall
        assert row.split()[1:3] == ["tau", "-" if tau is None else f"{tau:.3f}"]
    assert len(repr(found)) < SCREEN
    assert {entry.proxy for entry in found.proxies} <= set(shown(found))
    frame = found.to_pandas().set_index("proxy")
    for entry in found.proxies:
        assert frame.loc[entry.proxy, "failed"] == entry.failed
        assert entry.kendall is None or frame.loc[entry.proxy, "kendall"] == entry.kendall
    scores = found.to_pandas("scores")
    assert list(scores["accuracy"]) == list(found.accuracy)
    assert list(scores["cet"]) == list(found.scores["cet"])
    assert zs.Correlation.from_json(found.to_json()).to_pandas("scores").empty
    with pytest.raises(ValueError, match="'proxies' or 'scores', got 'rows'"):
        found.to_pandas("rows")


def test_a_comparison_is_a_table_and_a_row_for_each_training():
    """Networks' names may be a stranger's; one that could not be trained has no accuracy."""
    trained = Compared("<b>ours", DEEP, str(DEEP), False, zs.cost(DEEP), 100, (Training(0, 60), Training(1, 70)))
    failed = Compared("by hand", DEEP, str(DEEP), True, zs.cost(DEEP), 0, (Training(0, None, 0.0, "not finite"),))
    found = zs.Comparison((trained, failed), "digits", zs.Recipe(), (0, 1), "not measured", "done")
    cells = shown(found)
    assert {"<b>ours", str(trained.accuracy), "by hand", f"{zs.cost(DEEP).flops:,}"} <= set(cells)
    frame = found.to_pandas()
    assert list(frame["network"]) == ["<b>ours", "<b>ours", "by hand"]
    assert list(frame["accuracy"][:2]) == [0.6, 0.7]
    assert frame["accuracy"].isna()[2]
    assert list(frame["failure"]) == ["", "", "not finite"]
    assert dataclasses.replace(found, networks=(failed,)).to_pandas()["params"][0] == zs.cost(DEEP).params
