"""The evaluator: order, laziness, stores, pools, and workers that die."""

import math
import pickle
import random
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace

import pytest

import zeroshot_nas as zs
from tests.scoring.pooled import pooled_proxy
from zeroshot_nas.errors import ProxyError, WorkerDiedError
from zeroshot_nas.execution import SerialExecutor, get_executor
from zeroshot_nas.runs import evaluate as evaluating
from zeroshot_nas.runs.evaluate import Job, evaluate
from zeroshot_nas.runs.store import Store

pytestmark = pytest.mark.slow

SPACE = zs.get_space("nasbench201", num_cells=1, channels=4, input_size=(3, 8, 8))
NETS = list({net.key: net for net in (SPACE.sample(random.Random(seed)) for seed in range(40))}.values())[:30]
SETTINGS = {"batch_size": 2, "repeats": 1, "standard_error": None, "max_repeats": 64, "device": None}


def jobs(*proxies, nets=NETS, seed=3, **settings):
    return [Job(net, tuple(map(zs.get_proxy, proxies)), seed, {**SETTINGS, **settings}) for net in nets]


def untimed(scores):
    return [[replace(score, seconds=0.0) for score in each.values()] for each in scores]


def alone(*proxies, nets=NETS):
    """What `score` gives for each network by itself."""
    return untimed(zs.score(net, list(proxies), seed=3, batch_size=2, repeats=1) for net in nets)


def counted(monkeypatch):
    """The tasks that are computed: how many jobs each has, and which proxies."""
    tasks = []
    real = evaluating.compute

    def compute(batch):
        tasks.append((len(batch), *(proxy.key for proxy in batch[0].proxies)))
        return real(batch)

    monkeypatch.setattr(evaluating, "compute", compute)
    return tasks


class Dying(SerialExecutor):
    """Workers that die of one network, or of one proxy on it; in whatever company it comes."""

    def __init__(self, net, proxy=None):
        super().__init__()
        self.net, self.proxy, self.died = net, proxy, 0

    def submit(self, fn, /, *args, **kwargs):
        ((*batch,),) = args
        hit = [job for job in batch if job.architecture == self.net]
        if any(self.proxy in (None, *(proxy.key for proxy in job.proxies)) for job in hit):
            self.died += 1
            future = Future()
            future.set_exception(WorkerDiedError.from_exit_code(-9))
            return future
        return super().submit(fn, *args, **kwargs)


def test_scores_are_those_of_score_in_the_order_of_the_jobs():
    with pooled_proxy():
        mixed = [*jobs("pooled", "params", nets=NETS[:9]), *jobs("naswot", "pooled", nets=NETS[9:12])]
        mixed += jobs("pooled", nets=NETS[12:])
        expected = [*alone("pooled", "params", nets=NETS[:9]), *alone("naswot", "pooled", nets=NETS[9:12])]
        expected += alone("pooled", nets=NETS[12:])
        assert untimed(evaluate(mixed, SerialExecutor())) == expected
    assert list(evaluate([], SerialExecutor())) == []


def test_what_needs_no_weights_is_computed_in_pools(monkeypatch):
    monkeypatch.setattr(evaluating, "POOL", 8)
    tasks = counted(monkeypatch)
    with pooled_proxy() as (pools, singles):
        asked = [*jobs("pooled", nets=NETS[:20]), *jobs("pooled:factor=2", nets=NETS[20:])]
        list(evaluate(asked, SerialExecutor()))
        assert [size for size, _ in tasks] == pools == [8, 8, 4, 8, 2]
        assert singles == []


def test_scores_come_before_the_later_ones_are_computed():
    asked = iter(jobs("naswot"))
    scores = evaluate(asked, SerialExecutor())
    next(scores)
    assert len(list(asked)) >= len(NETS) - 2


def test_known_scores_are_not_computed_again_and_partly_known_jobs_only_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "POOL", 8)
    tasks = counted(monkeypatch)
    with pooled_proxy(), Store(tmp_path / "a.db") as first, Store(tmp_path / "b.db") as second:
        list(evaluate(jobs("pooled", nets=NETS[4:12:2]), SerialExecutor(), [second]))
        list(evaluate(jobs("naswot", nets=NETS[1:2]), SerialExecutor(), [first]))
        tasks.clear()
        scores = untimed(evaluate(jobs("naswot", "pooled", nets=NETS[:3]), SerialExecutor(), [first, second]))
        assert tasks == [(1, "naswot", "pooled"), (1, "pooled"), (1, "naswot", "pooled")]
        tasks.clear()
        more = untimed(evaluate(jobs("pooled"), SerialExecutor(), [first, second]))
        assert tasks == [(8, "pooled"), (8, "pooled"), (7, "pooled")], "what is known breaks up no pool"
        tasks.clear()
        assert untimed(evaluate(jobs("pooled"), SerialExecutor(), [first, second])) == more == alone("pooled")
        assert tasks == []
        assert scores == alone("naswot", "pooled", nets=NETS[:3])
        assert len(first) == len(NETS) - 4 + 3
        other = untimed(evaluate(jobs("pooled", seed=4, nets=NETS[:1]), SerialExecutor(), [first]))
        assert tasks == [(1, "pooled")]
        assert other == more[:1]


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_stopped_anywhere_and_gone_on_with(tmp_path, monkeypatch, stop):
    monkeypatch.setattr(evaluating, "POOL", 8)
    asked = [*jobs("params", nets=NETS[:20]), *jobs("naswot", nets=NETS[20:24])]
    real, calls = evaluating.compute, []

    def dying(batch):
        calls.append(batch)
        if len(calls) == stop:
            raise SystemExit("power cut")
        return real(batch)

    with Store(tmp_path / "scores.db") as store:
        with monkeypatch.context() as patch:
            patch.setattr(evaluating, "compute", dying)
            with pytest.raises(SystemExit):
                list(evaluate(asked, SerialExecutor(), [store]))
        kept = len(store)
        assert kept == sum(map(len, calls[:-1]))
        tasks = counted(monkeypatch)
        scores = untimed(evaluate(asked, SerialExecutor(), [store]))
        assert sum(size for size, *_ in tasks) == len(asked) - kept
    assert scores == [*alone("params", nets=NETS[:20]), *alone("naswot", nets=NETS[20:24])]


def test_a_worker_that_dies_of_one_of_a_pool_costs_that_one(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "POOL", 8)
    with pooled_proxy(), Store(tmp_path / "scores.db") as store:
        executor = Dying(NETS[5])
        scores = list(evaluate(jobs("pooled", "params"), executor, [store]))
        whole = alone("pooled", "params")
        assert untimed(scores[:5] + scores[6:]) == whole[:5] + whole[6:]
        assert [score.state for score in scores[5].values()] == ["failed", "failed"]
        assert all("SIGKILL" in score.reason and math.isnan(score.value) for score in scores[5].values())
        assert executor.died == 2 * (1 + 1 + 2), "each task twice: the pool, the network, each of its proxies"
        assert len(store) == 2 * (len(NETS) - 1)
        assert untimed(evaluate(jobs("pooled", "params"), SerialExecutor(), [store])) == whole, "it lives the next time"


def test_a_worker_that_dies_of_one_proxy_costs_that_score():
    scores = list(evaluate(jobs("synflow", "naswot", nets=NETS[:3]), Dying(NETS[1], "synflow")))
    assert [[score.ok for score in each.values()] for each in scores] == [[True, True], [False, True], [True, True]]
    assert scores[1]["naswot"].value == zs.score(NETS[1], "naswot", seed=3, batch_size=2, repeats=1).value


def test_what_is_no_workers_failure_is_raised(monkeypatch):
    def broken(batch):
        raise KeyError("lost")

    monkeypatch.setattr(evaluating, "compute", broken)
    with pytest.raises(KeyError, match="lost"):
        list(evaluate(jobs("naswot"), SerialExecutor()))


@pytest.mark.parametrize("proxy", ["naswot", "params"])
def test_unusable_settings_are_refused_also_where_nothing_is_drawn(proxy):
    with pytest.raises(ProxyError, match="repeats must be a whole number of 1 or more, got 0"):
        list(evaluate(jobs(proxy, repeats=0), SerialExecutor()))


def test_the_executor_changes_nothing(tmp_path):
    """Neither the scores nor what the store keeps, though a worker computes ahead of what is yielded."""
    asked = [*jobs("cet", "params", nets=NETS[:12]), *jobs("naswot", nets=NETS[12:16])]
    asked += [*jobs("synflow", nets=NETS[16:18]), *jobs("params", nets=NETS[18:20]), *jobs("plain", nets=NETS[20:22])]
    kept = []
    for number, name in enumerate(("process", "serial")):
        with Store(tmp_path / f"{number}.db") as store, get_executor(name) as executor:
            scores = untimed(evaluate(asked, executor, [store]))
            kept.append((scores, [(key, {**body, "seconds": 0}) for key, body in store.scores()]))
    assert kept[0] == kept[1]


def test_light_work_is_not_sent_anywhere():
    class Refusing(SerialExecutor):
        def submit(self, fn, /, *args, **kwargs):
            raise AssertionError("sent to a worker")

    assert untimed(evaluate(jobs("params", "flops"), Refusing())) == alone("params", "flops")
    with pooled_proxy(), pytest.raises(AssertionError, match="sent"):
        list(evaluate(jobs("params", "pooled"), Refusing()))


@pytest.mark.parametrize(("proxy", "loads_torch"), [("zen", True), ("cet", False), ("params", False)])
def test_a_worker_loads_torch_as_it_reads_a_job_that_needs_it_not_in_the_jobs_time(proxy, loads_torch):
    net = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", (3, 8, 8))
    job = Job(net, (zs.get_proxy(proxy),), 3, {"repeats": 1})
    program = (
        "import pickle, sys; job = pickle.load(sys.stdin.buffer); print('torch' in sys.modules, job.proxies[0].key)"
    )
    printed = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(job), check=True, capture_output=True)
    assert printed.stdout.split() == [str(loads_torch).encode(), proxy.encode()]
    assert pickle.loads(pickle.dumps(job)) == job
