"""Many chains cost what each costs alone, whatever the blocks, gates and resolutions."""

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.architecture.blockspec import BLOCKS
from zeroshot_nas.architecture.ops import Conv
from zeroshot_nas.chains.coding import Chains
from zeroshot_nas.chains.lowering import LOWERING
from zeroshot_nas.closed_form.ceres import ceres, ceres_pool
from zeroshot_nas.costs.base import COSTS, CostInfo, register_cost, summed_costs
from zeroshot_nas.costs.chains import costs_of_chains
from zeroshot_nas.costs.complexity import complexity

SIZES = [(3, 32, 32), (1, 28, 28), (3, 15, 15), (1, 8, 8), (3, 30, 23), (3, 224, 224)]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["resnet", "mobilenet", "vanilla", "inverted", "nasbench_macro"]),
    st.sampled_from(SIZES),
    st.booleans(),
    st.sampled_from([1, 3, 8]),
    st.integers(0, 10**6),
    st.integers(1, 8),
)
def test_costs_are_those_of_each_alone(name, size, gate, step, seed, count):
    options = {} if name == "nasbench_macro" else {"squeeze_excite": gate, "width_step": step}
    space, rng = zs.get_space(name, input_size=size, num_classes=7, **options), random.Random(seed)
    networks = [space.sample(rng) for _ in range(count)]
    columns = costs_of_chains(Chains.of(networks))
    assert set(columns) == {"layers", *summed_costs().names}
    for name_of, column in columns.items():
        assert column.tolist() == [complexity(network)[name_of] for network in networks]


@pytest.mark.parametrize(
    "text",
    [
        "SuperConvK3BNRELU(3,37,1,1)SuperResIDWE4K3(37,53,2,71,2)SuperResIDWE4K3(53,53,1,37,2)",  # as probes
        "SuperConvK3BNRELU(3,101,1,1)SuperResK1K5K1(101,101,2,101,3)SuperResIDWE1K7(101,41,1,41,1)",
        "SuperConvK3BNRELU(3,1,1,1)SuperResIDWE1K3(1,1,2,1,2)SuperResK3K3(1,2000,1,1999,1)",
    ],
)
def test_widths_of_any_likeness(text):
    network = zs.Architecture.from_string(text)
    columns = costs_of_chains(Chains.of([network, network]))
    assert {name: column[1] for name, column in columns.items()} == {
        name: complexity(network)[name] for name in columns
    }


def test_blocks_with_pooling_are_not_covered():
    stem, block = BLOCKS["SuperConvK3BNRELU"](out_channels=16), BLOCKS["TinyNASK1K3K1"](out_channels=24, stride=2)
    chains = Chains.of([zs.Architecture((stem, block))])
    assert not LOWERING.covers(chains).any()
    assert costs_of_chains(chains) is None


def test_a_cost_that_takes_no_arrays_is_asked_one_by_one():
    space = zs.get_space("resnet", input_size=(1, 8, 8))
    try:

        @register_cost(CostInfo("wide_kernels", ops=(Conv,)))
        def wide_kernels(op: Conv, _: object) -> int:
            return 1 if op.kernel_size > 3 else 0

        assert costs_of_chains(Chains.of([space.initial()])) is None
        found = zs.search(space, "params", zs.Budget(wide_kernels=1), proposals=300, progress=False)
        assert found.counts.over_budget > 0
        assert all(each.costs["wide_kernels"] <= 1 for each in found.history)
    finally:
        COSTS._entries.pop("wide_kernels", None)
        summed_costs.cache_clear()
    assert np.isfinite(costs_of_chains(Chains.of([space.initial()]))["flops"]).all()


def test_a_cost_that_is_no_whole_number_stays_what_it_is():
    space = zs.get_space("resnet", input_size=(1, 8, 8))
    try:

        @register_cost(CostInfo("joules", ops=(Conv,), elementwise=True))
        def joules(op: Conv, output_shape: tuple[int, int, int]) -> float:
            return op.fan_in * output_shape[0] * 0.3

        found = zs.search(space, "cet", zs.Budget(joules=40_000.5), proposals=500, progress=False)
        for each in found.history:
            assert each.costs["joules"] == pytest.approx(complexity(each.architecture)["joules"])
        assert any(point.costs["joules"] % 1 for point in found.trajectory)
        assert max(point.costs["joules"] for point in found.trajectory) <= 40_000.5
    finally:
        COSTS._entries.pop("joules", None)
        summed_costs.cache_clear()


@pytest.mark.slow
def test_threads_do_not_disturb_each_other():
    """What is known of kinds and passes is shared by threads; each finds what it finds alone."""
    spaces = [
        zs.get_space("vanilla", input_size=(3, side, side), width_step=step) for side in (16, 24) for step in (1, 5)
    ]
    asked = [list(space.sample_all(random.Random(seed), 40)) for seed, space in enumerate(spaces * 2)]

    def worked_out(networks):
        return costs_of_chains(Chains.of(networks))["params"].tolist(), ceres_pool(networks)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(worked_out, asked))
    for networks, (params, scores) in zip(asked, found, strict=True):
        assert params == [complexity(network).params for network in networks]
        assert scores == [ceres(network) for network in networks]


@pytest.mark.slow
def test_a_process_that_meets_no_kind_at_all():
    code = """
import zeroshot_nas as zs
from zeroshot_nas.architecture.blockspec import BLOCKS
block = BLOCKS["TinyNASK1K3K1"](out_channels=24, stride=2)
print(zs.score(zs.Architecture((block,)), "cet").state, end="")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ok"
