"""What is read of a run's folder: of an unfinished run the network that it would choose so far."""

import pytest

import zeroshot_nas as zs
from tests.scoring.pooled import pooled_proxy
from zeroshot_nas.errors import StoreError, UnknownNameError
from zeroshot_nas.runs import evaluate as evaluating
from zeroshot_nas.runs.inspect import best_so_far, summaries, summary
from zeroshot_nas.runs.store import Store
from zeroshot_nas.scoring.pool import aggregate_scores

KINDS = {
    "a closed form": ("zen_closed_form", {"finalists": 12, "proposals": 300}),
    "a proxy with a screen": ("zen", {"finalists": 30, "proposals": 300, "repeats": 2, "standard_error": 0.1}),
    "a variant": ("zen:variant=zennas", {"finalists": 8, "proposals": 100}),
    "a proxy for every network": ("naswot", {"proposals": 20, "screen": None, "batch_size": 4}),
    "lower is better": ("ntk_cond", {"proposals": 12, "screen": None, "batch_size": 4, "max_repeats": 8}),
    "an aggregate": ("az_nas", {"proposals": 30, "repeats": 1, "batch_size": 4}),
}


def search(proxy, folder, options):
    budget = zs.Budget(params=60_000, layers=8)
    return zs.search("resnet", proxy, budget, input_size=(3, 8, 8), progress=False, out=folder, **options)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_of_a_finished_run_it_is_the_winner(tmp_path, kind):
    proxy, options = KINDS[kind]
    result = search(proxy, tmp_path, options)
    best = best_so_far(tmp_path)
    assert best["score"]["proxy"] == proxy
    assert best["score"]["value"] == result.best.scores[proxy].value
    assert best["architecture"] == result.best.architecture.to_dict()


@pytest.mark.parametrize(("kind", "calls"), [("a proxy with a screen", 9), ("lower is better", 9), ("an aggregate", 9)])
def test_of_a_killed_run_it_is_the_best_of_what_was_scored(tmp_path, monkeypatch, kind, calls):
    proxy, options = KINDS[kind]
    scored = []
    real = evaluating.compute

    def dying(jobs):
        if len(scored) == calls:
            raise SystemExit("power cut")
        scores = real(jobs)
        scored.append((jobs[0].architecture, scores[0]))
        return scores

    monkeypatch.setattr(evaluating, "compute", dying)
    with pytest.raises(SystemExit):
        search(proxy, tmp_path, options)
    pool = [scores for _, scores in scored]
    if zs.get_proxy(proxy).info.parts:
        joined = aggregate_scores(proxy, pool)
        fitness = [score.value for score in joined]
        largest = max(score.value for scores in pool for score in scores.values() if score.ok)
        assert max(fitness) < largest, "a part's value, such as FLOPs, is no aggregate's"
    else:
        fitness = [zs.get_proxy(proxy).sign * scores[proxy].value for scores in pool]
    best = best_so_far(tmp_path)
    assert best["score"]["value"] * zs.get_proxy(proxy).sign == max(fitness)
    assert best["architecture"] == scored[fitness.index(max(fitness))][0].to_dict()


def test_lower_is_better_in_a_pool_too(tmp_path):
    with pooled_proxy(direction="lower"):
        result = search("pooled", tmp_path, {"proposals": 100, "finalists": 10})
        best = best_so_far(tmp_path)
        assert best["score"]["value"] == result.best.scores["pooled"].value
        assert best["score"]["value"] == min(each.scores["pooled"].value for each in result.history)


def test_where_there_is_nothing_to_choose_from(tmp_path):
    def mine(network, batch):
        return 1.0

    search(mine, tmp_path / "mine", {"proposals": 3})
    with pytest.raises(UnknownNameError, match="unknown proxy 'mine'"):
        best_so_far(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    with Store(tmp_path / "empty" / "run.db") as store:
        with pytest.raises(StoreError, match="holds no search"):
            best_so_far(tmp_path / "empty")
        store.set_fact("settings", {"proxy": "az_nas"})
    with pytest.raises(StoreError, match="has no score by az_nas yet"):
        best_so_far(tmp_path / "empty")


def test_a_training_is_a_run(tmp_path, monkeypatch):
    architecture = zs.Architecture.from_string("SuperConvK3BNRELU(1,8,2,1)", (1, 8, 8), num_classes=10)
    result = zs.train(architecture, "digits", zs.Recipe(epochs=1, batch_size=256), out=tmp_path / "t", progress=False)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "train.json").write_text("[]")
    damaged, training = summaries(tmp_path)
    assert damaged["state"] == "damaged"
    assert "is no training's" in damaged["error"]
    assert training == summary(tmp_path / "t")
    assert (training["kind"], training["state"]) == ("training", "done")
    assert training["result"]["test_accuracy"] == result.test_accuracy
    assert training["settings"]["recipe"]["epochs"] == 1
    with pytest.raises(StoreError, match="looks for no best network"):
        best_so_far(tmp_path / "t")
