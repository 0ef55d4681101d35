"""Device tables: sums of kernels, memos, JSON, and what a table does not know."""

import json
import math
import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.latency.device import a_table
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.kernels import Kernel, kernels
from zeroshot_nas.blocks.base import _unit_ops
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import FileFormatError, ZeroShotNASError
from zeroshot_nas.latency.device_table import DeviceTable, Fingerprint, Observed, Overhead, features
from zeroshot_nas.spaces.base import get_space


def table():
    """The table of all tests here, made when the first one asks for it."""
    return a_table("mobilenet", count=20)


def network(seed):
    space = get_space("mobilenet", input_size=(3, 32, 32))
    rng = python_rng(seed)
    architecture = space.initial()
    for _ in range(seed % 40):
        architecture = space.mutate(architecture, rng)
    return architecture


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_networks_latency_is_the_sum_of_its_kernels_and_the_overhead(seed):
    architecture = network(seed)
    parts = [table().kernel_ms(each) for each in kernels(architecture)]
    overhead = table().overhead
    running = [each for each in parts if each > 0]
    whole = sum(max(0, overhead.factor * each + overhead.per_kernel_ms) for each in running)
    beyond = max(0, len(running) - table().most_kernels)
    assert table().latency_ms(architecture) == pytest.approx(
        whole + overhead.per_network_ms + beyond * max(0, -overhead.per_kernel_ms)
    )


@given(st.integers(1, 200), st.integers(1, 200), st.floats(-0.01, 0.01))
def test_kernels_beyond_what_was_measured_get_no_credit(most, sub_layers, per_kernel_ms):
    overhead = Overhead(1, per_kernel_ms, 0)
    net = Architecture.from_string(f"SuperConvK3BNRELU(3,8,1,{sub_layers})", (3, 8, 8))
    ran = sub_layers + 2
    known = {each: Observed(0.02, 1) for each in kernels(net)}
    own = DeviceTable(table().fingerprint, "mobilenet", (3, 8, 8), known, {}, overhead, most_kernels=most)
    credited = ran if per_kernel_ms > 0 else min(ran, most)
    assert own.latency_ms(net) == pytest.approx(0.02 * ran + per_kernel_ms * credited)


def test_memos_change_nothing():
    fresh = pickle.loads(pickle.dumps(table()))
    assert fresh == table()
    assert not fresh._blocks
    for seed in range(30):
        architecture = network(seed)
        assert table().latency_ms(architecture) == table().latency_ms(architecture) == fresh.latency_ms(architecture)


@pytest.mark.slow
def test_a_unit_that_another_block_had_is_not_mixed_up():
    """Equal units are one object, which is what the memo knows them by; unequal ones are not, whatever is freed."""
    one, same, other = (network(seed).blocks[2] for seed in (5, 5, 6))
    assert one.first(8)[0] is same.first(8)[0]
    assert one != other
    fresh = pickle.loads(pickle.dumps(table()))
    for seed in range(30):
        _unit_ops.cache_clear()  # the objects that were known are made anew
        assert fresh.latency_ms(network(seed)) == pickle.loads(pickle.dumps(table())).latency_ms(network(seed))


def test_json_gives_the_same_table(tmp_path):
    table().save(tmp_path / "table.json")
    read = DeviceTable.load(tmp_path / "table.json")
    assert read == table()
    assert read.digest == table().digest
    assert hash(read) == hash(table())
    assert read.latency_ms(network(7)) == table().latency_ms(network(7))


def test_another_overhead_is_another_digest():
    data = table().to_dict()
    data["overhead"]["factor"] = 2.0
    assert DeviceTable.from_dict(data).digest != table().digest


def test_measurements_outweigh_the_regressor_the_more_there_are():
    kernel = Kernel("conv", 8, 8, 16, 16, 3, activation="relu")
    guess = table().models["conv"](kernel)

    def with_observations(count):
        data = {**table().kernels, kernel: Observed(3 * guess, count)}
        return DeviceTable(table().fingerprint, "mobilenet", (3, 32, 32), data, table().models).kernel_ms(kernel)

    values = [with_observations(count) for count in (1, 5, 50, 5_000)]
    assert guess < values[0] < values[1] < values[2] < values[3] < 3 * guess
    assert values[-1] == pytest.approx(3 * guess, rel=0.01)
    assert math.log(values[1] / guess) == pytest.approx(math.log(3) / 2)  # five against the prior's five


def test_a_kernel_that_another_takes_in_costs_nothing():
    kernel = Kernel("add", 8, 8, 4, 4, inputs=2)
    models = {**table().models, "add": None}
    own = DeviceTable(
        table().fingerprint, "mobilenet", (3, 32, 32), {kernel: Observed(0.0, 4)}, models, Overhead(1, 1, 0)
    )
    assert own.kernel_ms(kernel) == 0
    seen = Kernel("conv", 8, 8, 4, 4)
    zero = DeviceTable(table().fingerprint, "mobilenet", (3, 32, 32), {seen: Observed(0.0, 4)}, table().models)
    assert zero.kernel_ms(seen) == 0


def test_the_regressor_is_not_followed_far_beyond_what_was_measured():
    model = table().models["conv"]
    enormous = Kernel("conv", 10**6, 10**6, 500, 500, 7)
    assert model(enormous) <= math.exp(model.high + 1) * (1 + 1e-9)


def test_an_unknown_kind_is_told():
    with pytest.raises(FileFormatError, match="holds no pool; calibrate on a space that has it"):
        table().kernel_ms(Kernel("pool", 8, 8, 4, 4))


@given(
    st.sampled_from(["conv", "depthwise", "linear", "global_pool", "add", "scale"]),
    st.integers(1, 64),
    st.integers(1, 64),
)
def test_features_are_finite(kind, channels, side):
    kernel = Kernel(kind, channels, channels, side, side, groups=channels if kind == "depthwise" else 1)
    assert all(map(math.isfinite, features(kernel)))


def test_fingerprints_tell_their_differences():
    here = Fingerprint("EPYC", 2, "Linux", "torch", "2.13", 1, 1)
    assert here.differences(here) == []
    there = Fingerprint("M1", 2, "Linux", "torch", "2.13", 1, 4)
    assert here.differences(there) == ["device 'EPYC' against 'M1'", "threads 1 against 4"]


def spoilt(change):
    data = json.loads(json.dumps(table().to_dict()))
    change(data)
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "expected a JSON object with format"),
        ({"format": "zeroshot_nas.device_table", "version": 9}, "of version 9"),
        (lambda data: data.pop("kernels"), "KeyError: 'kernels'"),
        (lambda data: data["kernels"].append(["conv", 1]), "not a valid device table"),
        (lambda data: data["kernels"][0].__setitem__(-2, -1.0), "not a kernel's row"),
        (lambda data: data["kernels"][0].__setitem__(0, "nonsense"), "not a kernel's row"),
        (lambda data: data["fingerprint"].pop("device"), "TypeError"),
        (lambda data: data["models"]["conv"].pop("mean"), "KeyError: 'mean'"),
        (lambda data: data.update(input_size=[3]), "ValueError"),
        (lambda data: data["models"]["conv"]["scale"].__setitem__(0, 0.0), "scale that is not above 0"),
        (lambda data: data["models"]["conv"]["scale"].pop(), r"expected 15 numbers in scale, got 14"),
        (lambda data: data["models"]["conv"]["quadratic"][3].pop(), "no square matrix"),
        (lambda data: data["models"]["conv"].update(low=9.0), "low above high"),
        (lambda data: data["overhead"].update(factor=0.0), "must be above 0"),
        (lambda data: data["overhead"].update(factor="1"), "expected a finite number, got '1'"),
        (lambda data: data.update(largest_ms=0), "must be above 0"),
        (lambda data: data["kernels"][0].__setitem__(3, 0), "not a kernel's row"),
    ],
)
def test_a_spoilt_table_is_told(data, message, tmp_path):
    file = tmp_path / "table.json"
    file.write_text(json.dumps(spoilt(data) if callable(data) else data))
    with pytest.raises(FileFormatError, match=message) as caught:
        DeviceTable.load(file)
    assert str(file) in str(caught.value)
    assert isinstance(caught.value, ZeroShotNASError)


def places(data, path=()):
    """Where a table has numbers that predictions are made of."""
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            if path or key in ("overhead", "largest_ms", "most_kernels", "models", "kernels"):
                yield from places(value, (*path, key))
    elif isinstance(data, float):
        yield path


@pytest.mark.slow
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_told_wherever_it_stands(number, tmp_path):
    every = list(places(table().to_dict()))
    assert {path[0] for path in every} == {"overhead", "largest_ms", "most_kernels", "models", "kernels"}
    for path in random.Random(0).sample(every, 150):
        data = json.loads(json.dumps(table().to_dict()))
        target = data
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = number
        (tmp_path / "table.json").write_text(json.dumps(data))
        if path[0] in ("largest_ms", "most_kernels") and number > 0:
            continue  # without a bound, as a table has that was not fitted
        with pytest.raises(FileFormatError):
            DeviceTable.load(tmp_path / "table.json")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_told(content, tmp_path):
    file = tmp_path / "table.json"
    file.write_bytes(content)
    with pytest.raises(FileFormatError, match="can't be read as a device table"):
        DeviceTable.load(file)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileFormatError, match="can't be read as a device table"):
        DeviceTable.load(tmp_path / "none.json")
