"""Our reader of NATS-Bench against the authors' package, on the same files."""

import pytest

from tests.nasbench import fixtures
from zeroshot_nas.nasbench.base import load_table

nats_bench = pytest.importorskip("nats_bench")

SETS = {
    ("cifar10", "test"): ("cifar10", "test-accuracy"),
    ("cifar10", "valid"): ("cifar10-valid", "valid-accuracy"),
    ("cifar100", "test"): ("cifar100", "test-accuracy"),
    ("cifar100", "valid"): ("cifar100", "valid-accuracy"),
    ("ImageNet16-120", "test"): ("ImageNet16-120", "test-accuracy"),
    ("ImageNet16-120", "valid"): ("ImageNet16-120", "valid-accuracy"),
}


@pytest.fixture(scope="module", params=["tss file", "tss folder", "sss file", "sss folder"])
def path_and_api(request, tmp_path_factory):
    space, layout = request.param.split()
    folder = tmp_path_factory.mktemp("nats")
    content, _ = fixtures.nats_content(space)
    write = fixtures.write_nats_file if layout == "file" else fixtures.write_nats_folder
    path = write(folder, content, space)
    return path, nats_bench.create(str(path), space, fast_mode=layout == "folder", verbose=False), space


@pytest.mark.parametrize(("dataset", "split"), SETS)
def test_accuracies_and_costs_are_the_packages_own(path_and_api, dataset, split):
    path, api, space = path_and_api
    table = load_table(path, dataset=dataset, split=split)
    trained_on, figure = SETS[dataset, split]
    hp = "200" if space == "tss" else "90"
    assert len(table) == len(api) == 3
    for row, arch in enumerate(table.rows):
        index = api.query_index_by_arch(arch)
        info = api.get_more_info(index, trained_on, hp=hp, is_random=False)
        assert table.accuracy[row] == pytest.approx(info[figure], rel=1e-12)
        costs = api.get_cost_info(index, trained_on, hp=hp)
        assert table.columns["params"][row] == pytest.approx(1e6 * costs["params"])
        assert table.columns["flops"][row] == pytest.approx(1e6 * costs["flops"])
        assert table.columns["latency_s"][row] == pytest.approx(
            float("nan") if costs["latency"] is None else costs["latency"], nan_ok=True
        )
        assert table.columns["train_seconds"][row] == pytest.approx(costs["T-train@total"])


def test_runs_are_those_of_the_seeds(path_and_api):
    path, api, space = path_and_api
    hp = "200" if space == "tss" else "90"
    table = load_table(path, dataset="cifar100")
    for row in range(len(table)):
        seeds = fixtures.SEEDS if space == "tss" else fixtures.SEEDS[:1]
        runs = [api.get_more_info(row, "cifar100", hp=hp, is_random=seed)["test-accuracy"] for seed in seeds]
        assert table.runs[row] == pytest.approx(runs)
