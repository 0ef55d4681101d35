"""Workers of another release are refused, whatever brings the work there."""

import pickle
from concurrent.futures import Executor, Future

import pytest

import zeroshot_nas as zs
from zeroshot_nas.errors import ClusterError
from zeroshot_nas.execution import run_all
from zeroshot_nas.execution.base import call_packed, unpack
from zeroshot_nas.runs import release, store
from zeroshot_nas.runs.release import SameRelease


class Elsewhere(Executor):
    """Runs tasks as workers do that share no memory with us, every second one in another release."""

    def __init__(self, monkeypatch, change):
        self.monkeypatch, self.change, self.count = monkeypatch, change, 0

    def submit(self, function, /, *arguments, **keywords):
        payload, future = pickle.dumps((function, arguments, keywords)), Future()
        self.count += 1
        with self.monkeypatch.context() as patch:
            if self.count % 2 == 0:
                self.change(patch)
            value, error = unpack(call_packed(payload))
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
        return future


CHANGES = {
    "scoring version": lambda patch: patch.setattr(store, "SCORING_VERSION", 99),
    "zeroshot-nas": lambda patch: patch.setattr(release, "_versions", lambda: {**ORIGINAL, "zeroshot-nas": "0.0.1"}),
    "torch": lambda patch: patch.setattr(release, "_versions", lambda: {**ORIGINAL, "torch": "1.0"}),
}
ORIGINAL = release._versions()


@pytest.mark.parametrize("what", CHANGES)
def test_a_worker_of_another_release_is_refused(monkeypatch, what):
    outcomes = list(run_all(Elsewhere(monkeypatch, CHANGES[what]), SameRelease(divmod), [(7, 2)] * 4))
    assert [outcome.value for outcome in outcomes[::2]] == [(3, 1)] * 2
    for outcome in outcomes[1::2]:
        assert isinstance(outcome.error, ClusterError)
        assert f"another release than this process: {what} " in str(outcome.error)
        assert outcome.attempts == 1, "it would be the same again"


@pytest.mark.parametrize("proxy", ["zen", "zen_closed_form"])
def test_a_search_stops_before_scores_of_two_releases_are_ranked(monkeypatch, tmp_path, proxy):
    pool = Elsewhere(monkeypatch, CHANGES["scoring version"])
    options = {"input_size": (1, 8, 8), "proposals": 40, "finalists": 8, "progress": False, "out": tmp_path}
    with pytest.raises(ClusterError, match=f"scoring version 99 against {store.SCORING_VERSION}"):
        zs.search("resnet", proxy, zs.Budget(params=2e4, layers=8), executor=pool, islands=2, **options)
