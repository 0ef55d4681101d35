"""The report of a correlation: the page, and plots that can be read."""

import itertools
import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from matplotlib.text import Text

from zeroshot_nas.errors import DataError, FileFormatError, MissingExtraError
from zeroshot_nas.nasbench.agreement import kendall
from zeroshot_nas.nasbench.budget_report import MOST_CURVES, plot_equal_budget
from zeroshot_nas.nasbench.correlation import Correlation, ProxyCorrelation
from zeroshot_nas.nasbench.equal_budget import equal_budgets
from zeroshot_nas.nasbench.report import (
    MOST_VARIABLES,
    plot_scatter,
    plot_tau_against_cost,
    to_markdown,
    write_report,
)
from zeroshot_nas.plots.base import save_plot


def entry(proxy, tau=0.5, milliseconds=10.0, **facts):
    known = {
        "proxy": proxy,
        "baseline": proxy in ("params", "flops", "layers"),
        "direction": "higher",
        "cost": "graph" if proxy in ("params", "flops", "layers") else "forward",
        "init": "kaiming",
        "batch_size": 16,
        "kendall": tau,
        "kendall_interval": None if tau is None else (tau - 0.1, tau + 0.05),
        "spearman": tau,
        "spearman_at_top": None,
        "ndcg": 0.75,
        "top1_accuracy": 91.5,
        "top10_accuracy": 90.25,
        "regret": 2.0,
        "kendall_given_flops": 0.125,
        "kendall_given_params": -0.25,
        "milliseconds": milliseconds,
        "failed": 0,
        "failures": {},
    }
    return ProxyCorrelation(**{**known, **facts})


def correlation(entries, members=30, **facts):
    rng = np.random.default_rng(0)
    accuracy = rng.normal(90, 3, members)
    scores = {each.proxy: tuple(accuracy + rng.normal(0, 3, members)) for each in entries}
    known = {
        "space": "nasbench201",
        "space_options": {"num_cells": 5},
        "dataset": "cifar10",
        "table": "NAS-Bench-201",
        "source": "results.csv: test accuracy",
        "population": 15_625,
        "sample": members,
        "architectures": members,
        "networks": members - 1,
        "seed": 0,
        "repeats": 1,
        "batch_size": None,
        "device": None,
        "input_size": (3, 32, 32),
        "num_classes": 10,
        "best_accuracy": 93.5,
        "ceiling": 0.9,
        "ceiling_architectures": 20,
        "level": 0.95,
        "resamples": 1000,
        "proxies": tuple(entries),
        "left_out": {},
        "rows": tuple(map(str, range(members))),
        "accuracy": tuple(accuracy),
        "scores": scores,
    }
    return Correlation(**{**known, **facts})


def with_sweeps(found, kinds=("flops", "params", "raspi4_latency"), scores=None):
    """The same with figures at equal budget."""
    rng = np.random.default_rng(1)
    costs = {kind: rng.lognormal(15, 1, len(found.accuracy)) for kind in kinds}
    sweeps, equal = equal_budgets(scores or found.scores, found.accuracy, costs, resamples=30)
    proxies = tuple(replace(each, equal_budget=equal[each.proxy]) for each in found.proxies)
    return replace(found, sweeps=sweeps, proxies=proxies)


SEVERAL = [entry("naswot", 0.4, 20.0), entry("az_nas", 0.6, 60.0), entry("params", 0.55, 0.01), entry("layers", None)]


def rows(page):
    """The lines of the table, as cells."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]


def test_the_page_has_the_best_proxy_first_and_no_gaps():
    header, _, *lines = rows(to_markdown(correlation(SEVERAL)))
    assert [line[0] for line in lines] == ["`az_nas`", "*`params`*", "`naswot`", "*`layers`*"]
    assert {len(line) for line in [header, *lines]} == {13}
    assert lines[0] == [
        *("`az_nas`", "+0.600", "+0.500 to +0.650", "+0.600", "-", "0.750", "91.50", "90.25", "2.00", "+0.125"),
        *("-0.250", "60", "0"),
    ]
    assert lines[3][1:3] == ["-", "-"]
    assert header[2] == "95 % interval"


def test_the_page_says_what_was_done():
    page = to_markdown(correlation(SEVERAL))
    for text in (
        "# Proxies against accuracy: NAS-Bench-201, cifar10",
        "30 of 15,625; 29 different networks. Seed 0",
        "`nasbench201` (num_cells 5); images 3x32x32, 10 classes",
        "results.csv: test accuracy. Best of these architectures: 93.50 %",
        "1 repeat, batches of 16, each proxy's own, on cpu",
        "Ceiling: tau 0.900 between two training runs of 20 architectures",
    ):
        assert text in page
    assert "interrupted" not in page
    assert "![" not in page
    assert max(map(len, (line for line in page.splitlines() if line[:1] not in ("|", "-", "#")))) <= 120


def test_the_page_says_what_is_out_of_the_ordinary():
    failures = {"dead\nlayer": 3, "b": 2, "c": 1, "d": 1, "e": 1}
    found = correlation(
        [entry("zen", failed=8, failures=failures)],
        state="interrupted",
        sample=100,
        ceiling=None,
        source="",
        batch_size=8,
        repeats=2,
        device="cuda",
        left_out={"nn_mass": "chains only"},
    )
    page = to_markdown(found, plots=True, remark="The end.")
    for text in (
        "(100 were asked for; the run was interrupted)",
        "Ceiling: not known",
        "source not stated",
        "2 repeats, batches of 8, on cuda",
        "- `zen`: 3 times: dead layer\n- `zen`: 2 times: b\n- `zen`: 1 time: c\n- `zen`: 2 times: other reasons",
        "- `nn_mass`: chains only",
        "![tau against cost](tau_against_cost.png)",
    ):
        assert text in page
    assert page.endswith("The end.\n")


def test_the_page_without_any_batches():
    assert "1 repeat, no batches, on cpu" in to_markdown(correlation([entry("params", batch_size=None)]))


def test_a_folder_gets_the_page_and_the_plots(tmp_path):
    write_report(correlation(SEVERAL), tmp_path)
    plots = {"scatter.png", "scatter.svg", "tau_against_cost.png", "tau_against_cost.svg"}
    assert {file.name for file in tmp_path.iterdir()} == {"report.md", *plots}
    assert "![scatter](scatter.png)" in (tmp_path / "report.md").read_text()
    for name in ("scatter", "tau_against_cost"):
        height, width, _ = imread(tmp_path / f"{name}.png").shape
        assert 300 < height < 1300
        assert 400 < width < 1300
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()


def test_without_matplotlib_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    write_report(correlation(SEVERAL), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.md"]
    last = (tmp_path / "report.md").read_text().splitlines()[-1]
    assert last == 'No plots: matplotlib is not installed. Install it with: pip install "zeroshot-nas[report]"'
    with pytest.raises(MissingExtraError):
        plot_tau_against_cost(correlation(SEVERAL))


@pytest.mark.slow
@pytest.mark.parametrize("plot", [plot_scatter, plot_tau_against_cost])
def test_the_same_result_gives_the_same_files(tmp_path, plot):
    for name in ("a", "b"):
        save_plot(plot(correlation(SEVERAL)), tmp_path / name)
    for kind in ("png", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


# the plots


def texts(figure):
    """Every text that is seen, with its box; leaders do not count."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    found = []
    for axes in figure.axes:
        labels = [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        labels += axes.get_legend().get_texts() if axes.get_legend() else []
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            labels += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        found += labels
    found += figure.texts
    seen = [text for text in found if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), Text.get_window_extent(text, renderer).extents) for text in seen]


def assert_apart(boxes, figure):
    width, height = figure.get_size_inches() * figure.dpi
    for name, (left, bottom, right, top) in boxes:
        assert -1 <= left < right <= width + 1, f"{name!r} leaves the picture"
        assert -1 <= bottom < top <= height + 1, f"{name!r} leaves the picture"
    for (name, a), (other, b) in itertools.combinations(boxes, 2):
        covered = min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 2
        assert not covered, f"{name!r} and {other!r} cover each other"


@pytest.mark.parametrize("number", [1, 6, 30])
def test_no_label_covers_another(number):
    rng = np.random.default_rng(number)
    entries = [
        entry(f"proxy_{index}", float(rng.uniform(0.2, 0.7)), float(10 ** rng.uniform(0.8, 2.4)))
        for index in range(number)
    ]
    found = correlation([*entries, entry("params", 0.5, 0.01), entry("flops", 0.5, 0.01), entry("layers", 0.49, 0.01)])
    figure = plot_tau_against_cost(found)
    names = [text for text, _ in texts(figure)]
    assert {f"{each.kendall:.2f}  {each.proxy}" for each in entries} <= set(names)
    assert {"0.50  params", "0.50  flops", "0.49  layers", "0.90  two trainings"} <= set(names)
    assert_apart(texts(figure), figure)


@pytest.mark.slow
def test_no_label_of_the_scatter_covers_another():
    figure = plot_scatter(correlation([entry(f"a_longer_name_{index}") for index in range(5)]))
    assert_apart(texts(figure), figure)


def test_axes_have_labels_and_units():
    axes = plot_tau_against_cost(correlation(SEVERAL, repeats=2)).axes[0]
    assert axes.get_xlabel() == "time a network (ms, 2 repeats)"
    assert axes.get_ylabel() == "Kendall's tau with accuracy (95 % interval)"
    shown = [text for text, _ in texts(plot_scatter(correlation(SEVERAL)))]
    assert shown.count("rank (%), 100 is best") == 2


@pytest.mark.parametrize(
    "entries",
    [
        [entry("params", 0.5, 0.01), entry("layers", None, 0.01)],
        [entry("layers", None, 0.01)],
        [entry("zen", -0.4, 3.0)],
        [entry("zen", 0.4, None)],
        [entry("zen", 0.4, 3.0, kendall_interval=None)],
        [entry("a", 0.4, 3.0), entry("b", 0.4, 3.0), entry("c", 0.4, 3.0)],
    ],
    ids=["baselines", "constant", "one", "untimed", "no interval", "same place"],
)
def test_unusual_results_are_drawn(entries):
    figure = plot_tau_against_cost(correlation(entries, ceiling=None))
    assert_apart(texts(figure), figure)
    assert len(plot_scatter(correlation(entries)).axes) == (1 + sum(each.kendall is not None for each in entries)) ** 2


@pytest.mark.slow
def test_the_scatter_shows_what_is_most_telling():
    entries = [entry(f"proxy_{index}", (-1) ** index * index / 30) for index in range(20)]
    figure = plot_scatter(correlation(entries))
    assert len(figure.axes) == MOST_VARIABLES**2
    seen = [text for text, _ in texts(figure)]
    shown = [text for text in seen if text.startswith("proxy")]
    assert len(shown) == MOST_VARIABLES - 1
    assert {"proxy_19", "proxy_18", "proxy_11"} <= set(shown)
    assert "proxy_10" not in shown
    assert any(text.startswith("9 of 20 proxies, 30 architectures") for text in seen)


def test_the_scatter_prints_tau_with_failures_last_and_low_scores_as_good():
    found = correlation([entry("zen"), entry("ntk_cond", direction="lower")])
    zen = (math.nan, *found.scores["zen"][1:])
    found = replace(found, scores={"zen": zen, "ntk_cond": tuple(-value for value in found.scores["ntk_cond"])})
    shown = [text for text, _ in texts(plot_scatter(found))]
    ntk = [-value for value in found.scores["ntk_cond"]]
    for a, b in ((found.accuracy, zen), (found.accuracy, ntk), (ntk, zen)):
        assert f"{kendall(a, np.nan_to_num(b, nan=-1e9)):.2f}" in shown


def test_many_architectures_are_thinned_out():
    figure = plot_scatter(correlation([entry("zen")], members=5_000))
    (dots,) = figure.axes[2].lines
    assert len(dots.get_xdata()) == 1_000


def test_a_report_read_from_json_has_no_scores_to_plot():
    with pytest.raises(DataError, match=r"read it with Correlation.read\(folder\)"):
        plot_scatter(Correlation.from_json(correlation(SEVERAL).to_json()))


# equal budget


def test_figures_at_equal_budget_come_first_and_fit_a_screen():
    names = ["cet:variant=p", "naswot", "zen:variant=zennas"]
    found = with_sweeps(correlation([*map(entry, names), entry("params"), entry("flops")], members=400))
    page = to_markdown(found)
    before, _, after = page.partition("## Over all architectures")
    titles = [line for line in before.splitlines() if line.startswith("##")]
    assert titles == ["## At equal budget", "### Equal FLOPs", "### Equal params", "### Equal raspi4_latency"]
    assert len([line for line in rows(after) if line[0].startswith(("`", "*`"))]) == 5
    tables = [line for line in before.splitlines() if line.startswith("|")]
    assert max(map(len, before.splitlines()[10:])) <= 120
    assert max(map(len, tables)) <= 100
    lines = rows(before)[2:8]
    assert sorted(line[0] for line in lines) == sorted(
        [*(f"`{name}`" for name in names), "*`params`*", "*`flops`*", "*`random`*"]
    )
    taus = [float(line[1].split()[0]) for line in lines]
    assert taus == sorted(taus, reverse=True)
    for line in lines:
        name = line[0].strip("*`")
        figures = found.sweeps["flops"].random if name == "random" else found[name].equal_budget["flops"]
        assert line[1].split()[0] == f"{figures.kendall:+.3f}"
        assert line[2].split()[0] == f"{figures.regret:.2f}"
        assert line[3].split()[0] == f"{figures.regret_of_five:.2f}"
        if name != "random":
            low, high = figures.kendall_interval
            assert f"({low:+.3f} to {high:+.3f})" in line[1]
    assert "20 quantile bins, 3,800 pairs of 400 networks; 20 budgets from " in before


def test_small_units_and_undefined_figures_are_shown():
    found = correlation([entry("a"), entry("b")], members=60)
    found = replace(found, accuracy=tuple(value / 1000 for value in found.accuracy))
    page = to_markdown(with_sweeps(found, scores={"a": found.scores["a"], "b": (math.nan,) * 60}))
    line = next(line for line in rows(page) if line[0] == "`a`")
    assert len(line[2].split()[0].partition(".")[2]) == 4
    assert next(line for line in rows(page) if line[0] == "`b`") == ["`b`", "-", "-", "-"]


@pytest.mark.slow
def test_the_picture_at_equal_budget_is_written_where_there_are_figures(tmp_path):
    write_report(with_sweeps(correlation(SEVERAL)), tmp_path)
    assert {"equal_budget.png", "equal_budget.svg"} <= {file.name for file in tmp_path.iterdir()}
    assert "![equal budget](equal_budget.png)\n![scatter](scatter.png)" in (tmp_path / "report.md").read_text()
    with pytest.raises(DataError, match="no figures at equal budget"):
        plot_equal_budget(correlation(SEVERAL))


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 12, 30])
def test_no_label_of_the_picture_at_equal_budget_covers_another(number):
    entries = [entry(f"proxy_{index}:variant=long") for index in range(number)]
    found = with_sweeps(correlation([*entries, entry("params"), entry("flops"), entry("layers")], members=60))
    figure = plot_equal_budget(found)
    assert len(figure.axes) == 6
    assert_apart(texts(figure), figure)
    legend = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert len(legend) == min(number, MOST_CURVES) + 4
    assert figure.axes[1].get_xlabel() == "budget of FLOPs"
    assert figure.axes[0].get_xlabel() == "Kendall's tau within bins (95 % interval)"


def test_a_dead_proxy_is_left_out_of_the_picture():
    found = correlation([entry("a"), entry("b")], members=60)
    figure = plot_equal_budget(with_sweeps(found, scores={"a": found.scores["a"], "b": (math.nan,) * 60}))
    shown = [text for text, _ in texts(figure)]
    assert "a" in shown
    assert not [text for text in shown if text.split()[-1] == "b"]


def test_figures_at_equal_budget_are_in_the_file_and_old_files_are_read():
    found = with_sweeps(correlation(SEVERAL))
    assert Correlation.from_json(found.to_json()) == found
    old = json.loads(found.to_json())
    del old["sweeps"]
    for each in old["proxies"]:
        del each["equal_budget"]
    read = Correlation.from_json(json.dumps(old))
    assert read == correlation(SEVERAL)
    assert "equal budget" not in to_markdown(read)
    for change in ({"sweeps": {"flops": {}}}, {"sweeps": [1]}, {"proxies": [{**old["proxies"][0], "equal_budget": 3}]}):
        with pytest.raises(FileFormatError, match="not a valid correlation"):
            Correlation.from_json(json.dumps({**old, **change}))
