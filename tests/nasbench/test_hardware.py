"""Other people's devices: looked up, and predicted from samples of devices whose costs are known formulas."""

import gzip
import itertools
import math
import pickle

import pytest
from scipy.stats import spearmanr

from zeroshot_nas.blocks.cells import EDGES
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.errors import DataError, FileFormatError, LatencyWarning, UnknownNameError
from zeroshot_nas.nasbench.base import load_figures
from zeroshot_nas.nasbench.hardware import DeviceCosts, device_costs, fit_device, sampled
from zeroshot_nas.runs.resume import resume
from zeroshot_nas.searching.loop import search
from zeroshot_nas.spaces.base import get_space

from . import fixtures

pytest.importorskip("sklearn")

CELLS = list(itertools.product(range(5), repeat=6))
COST = (0.0, 0.2, 1.0, 3.0, 0.5)  # of none, skip, 1x1, 3x3, pooling
SPACE = get_space("nasbench201")


def on_every_edge(cell):
    return 2.0 + sum(COST[place] for place in cell)


def where_the_output_is_reached(cell):
    """By paths, written down: an edge runs if its end is the output, or an edge that runs leaves its end."""
    runs = set()
    for index in sorted(range(6), key=lambda index: -EDGES[index][1]):
        _, end = EDGES[index]
        if cell[index] and (end == 3 or any(EDGES[other][0] == end for other in runs)):
            runs.add(index)
    return 2.0 + sum(COST[cell[index]] for index in runs)


@pytest.mark.parametrize(("edges", "device"), [("all", on_every_edge), ("needed", where_the_output_is_reached)])
def test_an_additive_device_is_recovered_from_a_few_samples(edges, device):
    chosen = python_rng(0).sample(CELLS, 60)
    found = fit_device(chosen, [device(cell) for cell in chosen], device="mine")
    assert found.details["edges"] == edges
    assert found.samples == 60
    for cell in CELLS[::97]:
        assert found.value(cell) == pytest.approx(device(cell), abs=0.05)
    assert pickle.loads(pickle.dumps(found)).digest == found.digest


@pytest.mark.parametrize("edges", ["needed", "live"])
def test_edges_that_lead_nowhere_are_pruned(edges):
    from zeroshot_nas.nasbench.hardware import _VIEWS

    view = _VIEWS[edges]
    assert view((3, 0, 0, 1, 0, 0)) == (0, 0, 0, 1, 0, 0)  # node 1 leads nowhere
    assert view((0, 0, 0, 1, 3, 0)) == ((0, 0, 0, 1, 3, 0) if edges == "needed" else (0, 0, 0, 1, 0, 0))
    assert view((3, 0, 2, 0, 0, 1)) == (3, 0, 2, 0, 0, 1)


@pytest.mark.parametrize(
    ("cells", "values"),
    [(CELLS[:9], [1.0] * 9), (CELLS[:20], [1.0] * 19), (CELLS[:20], [1.0] * 19 + [math.nan])],
)
def test_samples_that_will_not_do_are_told(cells, values):
    with pytest.raises(DataError, match="expected 10 cells or more with a finite cost each"):
        fit_device(cells, values, device="mine")


@pytest.fixture
def table(tmp_path):
    """A small table in the layout of the real one, of devices that are formulas; -1 where nothing was measured."""
    header = [
        f"{prefix}_{name}"
        for prefix in ("c10", "c100")
        for name in ("edgegpu_latency", "edgegpu_energy", "fpga_latency")
    ]
    lines = [",".join(["index", *header])]
    for index in range(15_625):
        cell = SPACE.genotype_of(SPACE.from_string(str(index), "index"))
        fast, slow = on_every_edge(cell), where_the_output_is_reached(cell)
        known = fast if index % 7 else -1
        lines.append(",".join(map(str, [index, known, 2 * fast, slow, 3 * fast, 4 * fast, 3 * slow])))
    path = tmp_path / "nb201_hardware.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode(), compresslevel=1))
    return path


@pytest.mark.slow
def test_costs_by_device(table):
    costs = device_costs(table, "edgegpu")
    network = SPACE.from_string("8", "index")
    assert costs(network) == costs.latency_ms(network) == on_every_edge(SPACE.genotype_of(network))
    assert device_costs(table, "edgegpu", "energy", "cifar100")(network) == 4 * on_every_edge(
        SPACE.genotype_of(network)
    )
    assert costs.samples == 15_625 - math.ceil(15_625 / 7)
    missing = SPACE.from_string("7", "index")
    assert costs.latency_ms(missing) == math.inf
    with pytest.raises(DataError, match="was not measured; predict it with fit_device"):
        costs(missing)
    with pytest.raises(DataError, match="networks of nasbench201, and this is none"):
        costs(get_space("resnet").initial())
    with pytest.raises(DataError, match="these costs are energy, not latency"):
        device_costs(table, "edgegpu", "energy").latency_ms(network)
    with pytest.raises(UnknownNameError, match=r"unknown device 'edgegup'. Did you mean 'edgegpu'"):
        device_costs(table, "edgegup")
    with pytest.raises(UnknownNameError, match="unknown metric"):
        device_costs(table, "edgegpu", "power")
    with pytest.raises(DataError, match="holds no fpga_energy; it holds edgegpu_latency"):
        device_costs(table, "fpga", "energy")
    with pytest.raises(FileFormatError, match="no data set 'ImageNet16-120'"):
        device_costs(table, "fpga", dataset="ImageNet16-120")
    chosen, values = sampled(costs, 40)
    assert len(set(chosen)) == 40
    assert values == [on_every_edge(cell) for cell in chosen]
    assert sampled(costs, 40, seed=1)[0] != chosen
    predicted = fit_device(chosen, values, device="edgegpu")
    assert (
        spearmanr([predicted.value(cell) for cell in CELLS], [on_every_edge(cell) for cell in CELLS]).statistic > 0.999
    )


def test_a_search_keeps_to_a_device_that_is_not_here(table):
    costs = device_costs(table, "fpga")
    with pytest.warns(LatencyWarning, match="of Xilinx ZC706 FPGA .*is predicted, not measured"):
        result = search(
            SPACE, "flops", Budget(latency_ms=9.0), device_table=costs, proposals=300, finalists=20, progress=False
        )
    assert result.latency["measured_ms"] is None
    assert result.latency["device"] == "Xilinx ZC706 FPGA"
    assert costs(result.best.architecture) == result.latency["predicted_ms"] <= 9.0
    assert result.counts.over_budget > 0


@pytest.mark.slow
def test_such_a_search_goes_on_from_its_folder_alone(table, tmp_path):
    arguments = {"proposals": 300, "finalists": 20, "progress": False, "out": tmp_path}
    space = get_space("nasbench201", num_cells=1)
    with pytest.warns(LatencyWarning, match="is predicted, not measured"):
        first = search(space, "flops", Budget(latency_ms=9.0), device_table=device_costs(table, "fpga"), **arguments)
    with pytest.warns(LatencyWarning, match="is predicted, not measured"):
        again = resume(tmp_path, progress=False)
    assert again.best.architecture == first.best.architecture
    assert again.latency == first.latency


def test_a_search_starts_from_a_fast_network_though_the_cheapest_is_slow():
    """What a device prunes, no count of FLOPs or parameters tells."""
    costs = DeviceCosts("mine", "latency", "cifar10", lambda cell: 1.0 if 3 in cell else 9.0, 1, 9.0)
    with pytest.warns(LatencyWarning, match="not of this machine"):
        found = search(SPACE, "flops", Budget(latency_ms=2.0), device_table=costs, proposals=100, progress=False)
    assert found.latency["predicted_ms"] == 1.0


def test_a_spoilt_table_is_told(table, tmp_path):
    text = gzip.decompress(table.read_bytes()).decode()
    file = tmp_path / "nb201_hardware.csv"
    file.write_text(text.replace("\n3,", "\n3,x", 1))
    with pytest.raises(FileFormatError, match="expected a number, got 'x"):
        load_figures(file)
    file.write_text(text.replace("\n3,", "\n3,1,", 1))
    with pytest.raises(FileFormatError, match="row 4 has 8 fields, the header has 7"):
        load_figures(file)
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(table.read_bytes()[:-5_000])
    with pytest.raises(FileFormatError, match="damaged or cut short"):
        load_figures(cut)


def test_the_pickle_is_read_the_same_way(tmp_path):
    content = fixtures.hw_nas_bench()
    content["nasbench201"]["cifar10"]["edgetpu_latency"][1] = -1
    path = fixtures.write_pickle(tmp_path / "HW-NAS-Bench-v1_0.pickle", content, compress=False)
    assert math.isnan(load_figures(path).columns["edgetpu_latency"][1])
    assert device_costs(path, "edgetpu").samples == 4
