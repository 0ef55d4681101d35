"""Aggregates: functions of a pool."""

import math
import random
import re
from dataclasses import replace

import pytest
from torch import nn

import zeroshot_nas as zs
from tests.scoring.pooled import pooled_proxy
from zeroshot_nas.core.score import Score
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring import closed_forms
from zeroshot_nas.scoring.pool import aggregate_scores
from zeroshot_nas.scoring.proxy import PROXIES, ProxyInfo

NETS = [
    zs.Architecture.from_string(f"SuperConvK3BNRELU(3,{w},1,1)SuperResK3K3({w},16,2,8,1)", (3, 8, 8)) for w in (8, 16)
]


@pytest.fixture
def pair():
    info = ProxyInfo("pair", parts=("params", "ntk_cond"), aggregation="mean_rank", source="this test", cost="many")
    PROXIES.add("pair", info)
    yield "pair"
    del PROXIES._entries["pair"]


def test_an_aggregate_of_one_network_is_refused():
    with pytest.raises(ProxyError, match=r"az_nas joins the ranks of az_expressivity.* use score_pool"):
        zs.score(NETS[0], "az_nas")


@pytest.mark.slow
def test_a_search_by_an_aggregate_ranks_among_all_that_it_scored():
    result = zs.search("resnet", "az_nas", zs.Budget(params=30_000, layers=6), input_size=(3, 8, 8), proposals=30,
                       repeats=1, progress=False)  # fmt: skip
    again = aggregate_scores("az_nas", [each.scores for each in result.history])
    assert [each.scores["az_nas"].value for each in result.history] == [each.value for each in again]
    assert result.best.fitness == max(each.value for each in again)
    assert result.counts.ranked == len(result.history) > 5


def test_az_nas_is_the_log_rank_sum_of_its_parts():
    pool = zs.score_pool(NETS, ["az_nas", "params"], repeats=1, batch_size=8)
    parts = ["az_expressivity", "az_progressivity", "az_trainability", "az_complexity"]
    assert set(pool[0]) == {"az_nas", "params", *parts}
    for own, other in (pool, pool[::-1]):
        ranks = [1 if own[part].value > other[part].value else 0.5 for part in parts]
        assert own["az_nas"].value == pytest.approx(sum(map(math.log, ranks)))
        assert own["params"].value == zs.cost(NETS[pool.index(own)]).params


def test_lower_is_better_is_turned_round(pair):
    def scores(params, condition):
        return {"params": Score("params", params, None, 1, 0.1), "ntk_cond": Score("ntk_cond", condition, None, 1, 0.2)}

    joined = aggregate_scores(pair, [scores(1, 5.0), scores(2, 9.0), scores(3, 2.0)])
    assert [each.value for each in joined] == pytest.approx([1.5 / 3, 1.5 / 3, 1])
    assert joined[0].seconds == pytest.approx(0.3)


def test_an_aggregate_with_a_failed_part_has_failed(pair):
    failed = {name: Score(name, math.nan, None, 0, 0.0, "failed", "dead") for name in ("params", "ntk_cond")}
    good = {name: Score(name, 1.0, None, 1, 0.0) for name in ("params", "ntk_cond")}
    half = {**good, "ntk_cond": failed["ntk_cond"]}
    joined = aggregate_scores(pair, [good, half, failed])
    assert [each.state for each in joined] == ["ok", "failed", "failed"]
    assert joined[0].value == pytest.approx((2.5 / 3 + 1) / 2), "the failed ones keep their ranks, the lowest"
    assert joined[1].reason == "ntk_cond: dead"
    assert math.isnan(joined[1].value)
    assert joined[2].reason == "params: dead; ntk_cond: dead"
    with pytest.raises(ProxyError, match="pair needs ntk_cond of every network; network 1 lacks it"):
        aggregate_scores(pair, [good, {"params": good["params"]}])
    with pytest.raises(ProxyError, match="zen is no aggregate"):
        aggregate_scores("zen", [good])


def test_modules_make_a_pool_too():
    modules = [nn.Sequential(nn.Conv2d(3, w, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * w, 4)) for w in (2, 3)]
    pool = zs.score_pool(modules, "naswot", input_size=(3, 8, 8), repeats=1)
    assert all(each["naswot"].ok for each in pool)
    assert zs.score_pool([], "naswot") == []


def untimed(pool):
    return [{key: replace(value, seconds=0.0) for key, value in scores.items()} for scores in pool]


@pytest.mark.slow
def test_closed_forms_are_computed_side_by_side_and_are_what_score_gives(monkeypatch):
    space = zs.get_space("nasbench201", num_cells=1, channels=4, input_size=(3, 8, 8))
    nets = [space.sample(random.Random(seed)) for seed in range(16)]
    mixed = [*nets[:8], zs.build(nets[8]), *nets[9:]]
    proxies = ["pooled:factor=2", "naswot", "params", "pooled"]
    with pooled_proxy() as (pools, singles):
        alone = [zs.score(each, proxies, repeats=1, seed=3) for each in mixed]
        pools.clear()
        singles.clear()
        together = zs.score_pool(mixed, proxies, repeats=1, seed=3)
        assert pools == [15, 15]
        assert set(singles) == {nets[8]}, "the module is scored by itself"
        monkeypatch.setattr(closed_forms, "POOL", 6)
        pools.clear()
        assert untimed(zs.score_pool(nets, "pooled")) == untimed([{"pooled": zs.score(net, "pooled")} for net in nets])
        assert pools == [6, 6, 4]
    assert untimed(together) == untimed(alone)
    assert [list(scores) for scores in together] == [list(scores) for scores in alone]
    assert any(not scores["pooled"].ok for scores in together)
    assert any(scores["pooled"].details for scores in together)


@pytest.mark.parametrize("settings", [{"repeats": 0}, {"seed": -1}, {"input_size": (3, 9, 9)}, {"init": "keep"}])
def test_a_pool_refuses_what_score_refuses(settings):
    try:
        expected = zs.score(NETS[0], ["params", "naswot"], **settings)
    except ValueError as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            zs.score_pool(NETS, ["params", "naswot"], **settings)
    else:
        assert untimed(zs.score_pool(NETS, ["params", "naswot"], **settings))[0] == untimed([expected])[0]
