"""What a notebook shows of a result is one screen, and a network's text is what commands take."""

import pytest

import zeroshot_nas as zs

from .runs.test_resume import CELLS

SCREEN = 2_000
"""Characters."""


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
