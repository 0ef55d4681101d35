"""Searches in which the resolution is free: every strategy, every way to run them, and what becomes of the winner."""

import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

import zeroshot_nas as zs
from tests.latency.device import a_table
from zeroshot_nas.errors import LatencyWarning
from zeroshot_nas.reporting.kinds.comparison import comparison_page
from zeroshot_nas.searching.latency_budget import caveats
from zeroshot_nas.training.base import fit_to

SIDES = (8, 12, 16)
BUDGET = zs.Budget(params=3e4, flops=1e6, layers=7)
QUICK = {"gradient": {"starts": 3, "steps": 2}, "grid": {"depths": 1}}
RECIPE = zs.Recipe(epochs=1, batch_size=512, warmup_epochs=0)


def space_named(name="resnet", resolutions=SIDES, **options):
    options = {"width_step": 8, "max_width": 24, "input_size": (1, 16, 16), **options}
    return zs.get_space(name, **({} if resolutions is None else {"resolutions": resolutions}), **options)


def find(searcher="regularized_evolution", space=None, proxy="zen_closed_form", budget=BUDGET, **how):
    how = {
        "proposals": 100 if searcher == "reinforce" else 300,
        "finalists": 40,
        "islands": 1,
        "searcher_options": QUICK.get(searcher, {}),
        **how,
    }
    return zs.search(space or space_named(), proxy, budget, searcher=searcher, seed=1, progress=False, **how)


def found(result):
    return [(each.architecture, each.string, each.costs, each.fitness) for each in (result.best, *result.history)]


@pytest.mark.parametrize("searcher", [each for each in zs.list_searchers() if each != "exact"])  # which is below
@pytest.mark.parametrize("name", ["resnet", "vanilla"])  # moves of mobilenet are those of resnet
def test_every_strategy_looks_at_every_resolution(name, searcher):
    space = space_named(name)
    result = find(searcher, space)
    sizes = {each.architecture.input_size for each in result.history}
    assert len(sizes) > 1
    assert sizes <= set(space.input_sizes)
    for each in result.history:
        assert each.architecture in space
        assert space.from_string(each.string) == each.architecture
        assert each.costs == zs.cost(each.architecture)
        assert not BUDGET.violations(each.costs, each.architecture)
    assert zs.SearchResult.from_json(result.to_json()) == result
    assert found(find(searcher, space)) == found(result)


@pytest.mark.slow
def test_the_optimum_is_the_best_of_all_resolutions():
    how = {"budget": zs.Budget(params=2e4, flops=8e5, layers=6), "searcher_options": {}}
    sides = (8, 16)
    small = {"max_width": 16, "blocks": "basic"}
    spaces = [space_named(resolutions=each, **small) for each in (sides, *((side,) for side in sides))]
    result, *each = [find("exact", space, **how) for space in spaces]
    assert result.certificate["finished"]
    assert result.best.fitness == max(one.best.fitness for one in each)
    assert result.certificate["bound"] == max(one.certificate["bound"] for one in each)
    blocks = [one.certificate["enumerated"]["blocks"] for one in (result, *each)]
    assert blocks[0] == sum(blocks[1:])
    cut = find("exact", spaces[0], **{**how, "searcher_options": {"nodes": 1}}).certificate
    assert cut["bound"] is None or cut["bound"] >= result.best.fitness - 1e-9


@pytest.mark.parametrize("proxy", ["ceres", "cet"])
def test_the_bound_holds_at_every_resolution(proxy):
    result = find("random", proxy=proxy)
    assert result.certificate["bound"] >= max(each.fitness for each in result.history)


def test_the_grid_has_an_axis_more():
    how = {"searcher_options": {"widths": (1, 2), "depths": 1, "kernels": 3}, "budget": zs.Budget(layers=20)}
    plain, free = (find("grid", space_named(resolutions=sides), **how) for sides in (None, SIDES))
    assert len(free.history) == 3 * len(plain.history)


def test_it_is_the_same_wherever_it_runs_and_when_it_goes_on(tmp_path):
    how = {"islands": 3, "exchanges": 2}
    alone = found(find(**how))
    with ThreadPoolExecutor(2) as threads:
        assert found(find(executor=threads, out=tmp_path / "run", **how)) == alone
    assert found(find(out=tmp_path / "run", resume=True, **how)) == alone
    assert found(zs.resume(tmp_path / "run")) == alone
    assert json.loads((tmp_path / "run" / "best.json").read_text())["string"] == alone[0][1]


def test_a_forward_pass_ranks_finalists_at_their_own_resolutions():
    result = find(proxy="naswot", proposals=12, budget=zs.Budget(params=2e4, layers=6), repeats=1, max_repeats=1)
    assert len({each.architecture.input_size for each in result.history}) > 1
    assert all(each.scores["naswot"].ok for each in result.history)
    best = result.best
    assert best.scores["naswot"].value == zs.score(best.architecture, "naswot", seed=1, repeats=1).value


def test_a_trial_of_optuna_has_a_parameter_for_it():
    optuna = pytest.importorskip("optuna")
    goal = zs.objective("flops", space_named(), BUDGET)
    study = optuna.create_study(directions=goal.directions, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(goal, n_trials=12)
    done = [trial for trial in study.trials if trial.value is not None]
    assert len({trial.params["resolution"] for trial in done}) > 1
    for trial in done:
        network = goal.architecture(trial)
        assert network.input_size == goal.space.input_sizes[trial.params["resolution"]]
        assert zs.cost(network).flops == trial.value <= BUDGET.flops


@pytest.mark.slow
def test_trials_and_comparisons_train_each_at_its_own_resolution(tmp_path):
    space = space_named(resolutions=(4, 8, 12), input_size=(1, 8, 8))
    recipe = zs.Recipe(epochs=4, batch_size=512, warmup_epochs=1)
    result = find(space=space, trials=2, data="digits", recipe=recipe, proposals=100)
    played = [each for each in result.trials.trials if each.accuracies]
    assert {each.architecture.input_size for each in played} <= {*space.input_sizes}
    assert len(played) == 2
    nets = {f"at {side}": replace(result.best.architecture, input_size=(1, side, side)) for side in (8, 12)}
    beside = zs.compare(nets, [], "digits", RECIPE, seeds=1, backend=None, progress=False, out=tmp_path / "run")
    assert all(each.accuracies for each in beside.networks)
    alone = zs.train(nets["at 12"], "digits", RECIPE, seed=0, threads=1, progress=False)
    assert beside["at 12"].accuracies == (alone.test_accuracy,)
    rows = dict(beside.rows())
    assert rows["network"].endswith("input")
    assert rows["at 12"].endswith("1x12x12")
    assert "1x8x8" in beside._repr_html_()
    page = comparison_page(tmp_path / "run")
    (table,) = (part for part in page.sections[0].parts if getattr(part, "head", ())[:1] == ["network"])
    assert table.head[-1] == "input"
    assert {row[-1] for row in table.rows} == {"1×8×8", "1×12×12"}
    assert not replace(beside, networks=beside.networks[:1]).differ_in_input


@pytest.mark.slow
def test_a_trained_winner_keeps_its_resolution(tmp_path):
    network = space_named(resolutions=(12,), input_size=(1, 8, 8)).initial()
    result = zs.train(network, "digits", RECIPE, out=tmp_path / "run", progress=False)
    loaded = zs.load(tmp_path / "run")
    assert loaded.architecture == network
    images = fit_to(zs.load_data("digits"), (1, 12, 12))
    right = (zs.predict(loaded, images.test_images).argmax(1) == images.test_labels).double().mean().item()
    assert right == pytest.approx(result.test_accuracy)
    pytest.importorskip("onnx")
    import onnx

    zs.export_network(tmp_path / "run", tmp_path / "exported", formats=("onnx",), data="digits")
    (file,) = (tmp_path / "exported").glob("*.onnx")
    shape = onnx.load(file).graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_value for each in shape][1:] == [1, 12, 12]


def test_a_device_table_of_one_resolution_says_so():
    pytest.importorskip("sklearn")
    table, space = a_table("resnet", count=20), zs.get_space("resnet", resolutions=(24, 32))
    assert any("(24, 24)" in text or "(3, 24, 24)" in text for text in caveats(table, space, None))
    assert not any("was measured on networks" in text for text in caveats(table, zs.get_space("resnet"), None))
    wider = replace(table, details={**table.details, "input_sizes": [[3, 24, 24], [3, 32, 32]]})
    assert not any("was measured on networks" in text for text in caveats(wider, space, None))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = zs.search(
            space, "zen_closed_form", zs.Budget(latency_ms=0.8, layers=18), device_table=table, proposals=100,
            seed=0, progress=False,
        )  # fmt: skip
    assert any(issubclass(each.category, LatencyWarning) and "may be off" in str(each.message) for each in told)
    assert result.best.costs.latency_ms == table.latency_ms(result.best.architecture) <= 0.8


@pytest.mark.slow
def test_the_command_line_takes_it(run, tmp_path):
    limits = ("--max-params", "20k", "--max-flops", "600k", "--max-layers", "8", "--proposals", "200", "--quiet")
    asked = ("search", "--input", "1x16x16", "--proxy", "zen_closed_form", *limits)
    code, out, err = run(*asked, "--resolutions", "8,12,16", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    side = rows["input"].split("x")[-1]
    assert rows["architecture"].endswith(f"@{side}")
    same = json.loads(run(*asked, "--space-option", "resolutions=16,8,12", "--json")[1])
    assert same["best"]["string"] == rows["architecture"]
    assert "input" not in dict(line.split(maxsplit=1) for line in run(*asked)[1].splitlines())
    code, out, err = run("cost", rows["architecture"], "--input", "1x16x16", "--json")
    assert json.loads(out)["flops"] == same["best"]["costs"]["flops"]
    code, out, err = run("search", "--resume", "--out", tmp_path / "run", "--quiet")
    assert (code, rows["architecture"] in out) == (0, True)
    code, _, err = run("search", "--resume", "--out", tmp_path / "run", "--resolutions", "8,16", "--quiet")
    assert code == 2
    for arguments, said in (
        (("--resolutions", "8,8"), "must differ"),
        (("--resolutions", "8,x"), "e.g. 24,28,32"),
        (("--resolutions", ""), "e.g. 24,28,32"),
        (("--resolutions", "1"), "whole numbers of 8 or more"),
        (("--space", "nasbench201", "--resolutions", "8,16"), "has no option 'resolutions'"),
    ):
        code, _, err = run(*asked, *arguments)
        assert (code, err.count("\n")) == (2, 1), err
        assert said in err
