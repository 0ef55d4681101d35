"""Families: within their budgets, the same in any order, resumed as if unbroken, nested where asked."""

import itertools
import json
import random
from dataclasses import replace

import pytest

import zeroshot_nas as zs
from tests.latency.device import FINGERPRINT, a_table
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import (
    ArchitectureError,
    BudgetError,
    FamilyWarning,
    FileFormatError,
    InfeasibleBudgetError,
    ObjectiveError,
    OutputExistsError,
    SettingsChangedError,
    UnknownNameError,
)
from zeroshot_nas.families import finding
from zeroshot_nas.families.neighbours import fitted
from zeroshot_nas.families.nesting import NestedSpace, contains
from zeroshot_nas.families.targets import named

LIMITS = (16e3, 8e3, 4e3)
BUDGETS = [zs.Budget(params=limit) for limit in LIMITS]
SMALL = {"input_size": (1, 8, 8), "proposals": 120, "finalists": 20, "progress": False}


def family(budgets=BUDGETS, space="vanilla", proxy="ceres", **options):
    return zs.family(space, proxy, budgets, **{**SMALL, **options})


def outcome(found):
    """What must be the same; wall times of scores need not."""
    members = [(each.name, each.architecture, each.score, each.free_score, each.limits) for each in found.members]
    return members, found.proposals, found.settings, found.state


@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    """A nested family and its folder."""
    folder = tmp_path_factory.mktemp("family") / "run"
    return family(nested=True, out=folder), folder


def cells(name):
    """Budgets that some networks of any space fit, and some do not."""
    space = zs.get_space(name, input_size=(3, 16, 16))
    sizes = sorted(complexity(network).params for network in space.sample_all(random.Random(0), 30))
    return space, [zs.Budget(params=sizes[20]), zs.Budget(params=sizes[10])]


@pytest.mark.parametrize("name", zs.list_spaces())
def test_every_space_has_families_within_their_budgets(name):
    space, budgets = cells(name)
    if budgets[0] == budgets[1]:
        budgets[0] = zs.Budget(params=2 * budgets[1].params)
    found = zs.family(space, "params", budgets, proposals=60, progress=False)
    for member, budget in zip(found.members, budgets, strict=True):
        assert member.architecture in space
        assert not budget.violations(complexity(member.architecture), member.architecture)
    assert found.members[0].score >= found.members[1].score


@pytest.mark.slow
@pytest.mark.parametrize("nests", [False, True])
def test_the_order_of_the_budgets_changes_nothing_and_is_said(nests):
    straight = family(nested=nests)
    for order in ([2, 1, 0], [1, 0, 2]):
        budgets = [BUDGETS[place] for place in order]
        if order == [1, 0, 2]:
            with pytest.warns(FamilyWarning, match="in no order; they are sorted, the largest first: 16k-params, 8k"):
                assert outcome(family(budgets, nested=nests)) == outcome(straight)
        else:
            assert outcome(family(budgets, nested=nests)) == outcome(straight)


@pytest.mark.slow
def test_each_member_contains_the_next_and_fits_and_the_price_is_told(nested):
    found, _ = nested
    assert [member.name for member in found.members] == ["16k-params", "8k-params", "4k-params"]
    for member, limit in zip(found.members, LIMITS, strict=True):
        assert complexity(member.architecture).params <= limit
        assert member.candidate.costs == complexity(member.architecture)
    for large, small in itertools.pairwise(found.members):
        assert contains(large.architecture, small.architecture)
    free = family()
    assert [member.free_score for member in found.members] == [member.score for member in free.members]
    price = found.nesting_costs()
    assert price["16k-params"] == 0
    assert price["4k-params"] == pytest.approx(1 - found["4k-params"].score / free["4k-params"].score)
    assert "of the score in the mean" in dict(found.rows())["nesting"]
    assert "nesting" not in dict(free.rows())


def test_the_same_seed_gives_the_same_family_with_any_executor(processes):
    budgets = [zs.Budget(params=limit, layers=6) for limit in LIMITS[:2]]
    how = {"proposals": 60, "proxy": "zen", "finalists": 4, "repeats": 1, "max_repeats": 1}
    alone = family(budgets, **how)
    assert outcome(family(budgets, **how, executor=processes)) == outcome(alone)
    assert outcome(family(budgets, **how, seed=1)) != outcome(alone)


class _StoppedError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("after", [0, 4])
def test_a_resumed_family_is_as_one_that_never_stopped(after, nested, tmp_path, monkeypatch):
    found, _ = nested
    whole, searches = finding.search, []

    def stop(*arguments, **options):
        if len(searches) == after:
            raise _StoppedError
        searches.append(arguments)
        return whole(*arguments, **options)

    monkeypatch.setattr(finding, "search", stop)
    with pytest.raises(_StoppedError):
        family(nested=True, out=tmp_path / "run")
    monkeypatch.undo()
    assert outcome(zs.resume(tmp_path / "run", progress=False)) == outcome(found)


@pytest.mark.usefixtures("no_plots")
def test_ctrl_c_keeps_what_is_done(tmp_path, monkeypatch):
    whole, searches = finding.search, []

    def stop(*arguments, **options):
        searches.append(arguments)
        if len(searches) == 3:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    monkeypatch.setattr(finding, "search", stop)
    found = family(out=tmp_path / "run")
    assert (found.state, [each.name for each in found.members]) == ("interrupted", ["8k-params", "4k-params"])
    assert "interrupted" in dict(found.rows())["state"]


def test_a_folder_holds_a_file_for_each_member_that_other_commands_take(nested, run):
    found, folder = nested
    assert zs.Family.from_json((folder / "family.json").read_text()) == found
    for member in found.members:
        code, out, err = run("cost", folder / f"{member.name}.json", "--json")
        assert code == 0, err
        assert json.loads(out)["params"] == member.candidate.costs.params
    assert (folder / "searches" / "4k-params" / "best.json").exists()
    assert (folder / "nested" / "4k-params" / "best.json").exists()
    assert (folder / "scores.db").exists()
    with pytest.raises(OutputExistsError):
        family(nested=True, out=folder)
    with pytest.raises(SettingsChangedError):
        family(nested=True, out=folder, resume=True, seed=5)
    code, _, err = run("runs", "best", folder)
    assert (code, "holds a family" in err) == (2, True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::zeroshot_nas.errors.LatencyWarning")  # the devices are not here
def test_members_for_devices_keep_their_latency_by_the_devices_tables(tmp_path):
    tables, limits = {}, {"raspi": 0.8, "phone": 0.4}  # the larger budget first
    for device in limits:
        tables[device] = a_table("resnet", count=12, fingerprint=replace(FINGERPRINT, device=device))
        tables[device].save(tmp_path / f"{device}.json")
    budgets = [
        zs.Target(zs.Budget(latency_ms=limit, layers=9), tmp_path / f"{device}.json")
        for device, limit in limits.items()
    ]
    found = zs.family(
        "resnet", "ceres", [*budgets, zs.Budget(params=2e4)], proposals=60, progress=False, out=tmp_path / "run"
    )
    assert {each.name for each in found.members} == {"phone-0.4ms-9-layers", "raspi-0.8ms-9-layers", "20k-params"}
    for each in found.members:
        device = each.name.partition("-")[0]
        if device in limits:
            assert each.device == device
            assert each.latency_ms == pytest.approx(tables[device].latency_ms(each.architecture))
            assert each.latency_ms <= limits[device]
    assert found["20k-params"].latency_ms is None
    assert outcome(zs.resume(tmp_path / "run", progress=False)) == outcome(found)


def test_results_read_as_tables(nested):
    found, _ = nested
    assert found["8k-params"] is found.members[1]
    assert "<table>" in found._repr_html_()
    assert "16k-params" in repr(found)
    assert list(found.to_pandas()["member"]) == [each.name for each in found.members]
    with pytest.raises(UnknownNameError, match="16k-params"):
        found["16k-param"]
    for text in ("{", "{}", json.dumps({**found.to_dict(), "members": []})):
        with pytest.raises(FileFormatError):
            zs.Family.from_json(text)


def test_a_member_that_no_network_fits_is_named_with_what_the_smallest_needs():
    with pytest.raises(
        InfeasibleBudgetError, match=r"member '10-params'.*the smallest has \d+ params; the budget is 10"
    ):
        family([*BUDGETS, zs.Budget(params=10)])


def test_a_nested_family_that_can_not_be_says_so(monkeypatch):
    whole = finding.search

    def none_fits(where, *arguments, **options):
        if isinstance(where, NestedSpace):
            return whole(where, arguments[0], zs.Budget(layers=1), *arguments[2:], **options)
        return whole(where, *arguments, **options)

    monkeypatch.setattr(finding, "search", none_fits)
    with pytest.raises(
        InfeasibleBudgetError, match=r"that '16k-params' contains was found within '8k-params': .*has \d+ layers"
    ):
        family(nested=True)


@pytest.mark.parametrize(
    ("budgets", "options", "error", "says"),
    [
        ([], {}, BudgetError, "a family needs a budget"),
        ("1M", {}, BudgetError, "a list of Budget or Target"),
        ([3], {}, BudgetError, "is a Budget, or a Target"),
        ([BUDGETS[0], BUDGETS[0]], {}, BudgetError, "given twice"),
        ({"a": BUDGETS[0], "b": BUDGETS[0]}, {}, BudgetError, "given twice"),
        ({"a/b": BUDGETS[0]}, {}, BudgetError, "it names files"),
        (BUDGETS, {"proposals": 3}, ValueError, "3 members need 4 proposals or more, got 3"),
        (BUDGETS, {"objectives": ("ceres", "params")}, ObjectiveError, "one winner for each budget"),
        (BUDGETS, {"islands": 40}, ValueError, "islands must be at most the proposals, 30"),
        (BUDGETS, {"nonsense": 1}, TypeError, "no option 'nonsense'"),
    ],
)
def test_what_can_not_be_asked_for_is_refused(budgets, options, error, says):
    with pytest.raises(error, match=says):
        family(budgets, **options)


@pytest.mark.parametrize("space", ["nasbench201", "nats_sss"])
def test_a_space_that_does_not_nest_says_so(space):
    with pytest.raises(ArchitectureError, match="only chains of blocks nest"):
        family(space=space, nested=True)


def test_targets_have_names_of_their_own():
    assert list(named({"phone": zs.Target(zs.Budget(latency_ms=4), "x.json")})) == ["phone"]
    assert zs.Target(zs.Budget(latency_ms=0.5, params=1500), "a/raspi.json").name == "raspi-0.5ms-1.5k-params"


def test_neighbours_use_up_a_budget_that_they_are_fitted_to():
    space = zs.get_space("vanilla", input_size=(1, 8, 8))
    for limit in (1e3, 30e3, 200e3):
        for network in fitted([space.initial()], space, zs.Budget(params=limit)):
            assert 0.8 * limit <= complexity(network).params <= limit
    assert fitted([space.initial()], space, zs.Budget(params=1)) == []


def test_searches_that_begin_with_a_network_are_no_worse_than_it():
    space = zs.get_space("vanilla", input_size=(1, 8, 8))
    known = zs.search(space, "ceres", BUDGETS[0], proposals=600, progress=False).best
    how = {"proposals": 20, "progress": False}
    for searcher in ("regularized_evolution", "random"):
        again = zs.search(space, "ceres", BUDGETS[0], first=[known], searcher=searcher, **how).best
        assert again.fitness >= known.fitness
    with pytest.raises(ArchitectureError, match="first takes architectures"):
        zs.search(space, "ceres", BUDGETS[0], first=["x"], **how)
    with pytest.raises(ArchitectureError, match="is not in the space"):
        zs.search("resnet", "ceres", first=[known], input_size=(1, 8, 8), **how)


@pytest.mark.slow
def test_the_command_takes_lists_of_limits(run, tmp_path):
    small = ["--space", "vanilla", "--input", "1x8x8", "--proposals", "60"]
    out = tmp_path / "run"
    code, printed, err = run("family", *small, "--max-params", "4k,8k", "--max-layers", "9", "--nested", "--out", out)
    assert code == 0, err
    assert "8k-params-9-layers" in printed
    code, again, _ = run("family", "--resume", "--out", out)
    assert (code, again.splitlines()[:4]) == (0, printed.splitlines()[:4])
    for arguments, says in (
        ([], "a family needs a budget for each member"),
        (["--max-params", "4k,8k", "--max-flops", "1M,2M,3M"], "limits with several values"),
        (["--max-params", ","], "needs a value"),
        (["--max-params", "4k,x"], "--max-params must be"),
        (["--device", "phone.json"], "a table's file and a limit"),
        (["--device", "nowhere.json:4ms"], "nowhere.json"),
        (["--device", "phone.json:4ms", "--max-latency", "3ms"], "leave out --max-latency"),
    ):
        code, _, err = run("family", *small, *arguments)
        assert (code, err.count("\n"), says in err) == (2, 1, True), err
