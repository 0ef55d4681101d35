"""Every proxy against values of the reference implementations; formulas and sources in golden/README.md."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch

import zeroshot_nas as zs
from tests.golden_nets import FOLDER, FULL, REDUCED, Golden, networks, read_index
from zeroshot_nas import Batch, Score
from zeroshot_nas.scoring.pool import aggregate_scores


def labelled(golden: Golden, dtype: torch.dtype) -> Batch:
    return Batch(golden.tensor("x", dtype), golden.tensor("y"))


def two_batches(golden: Golden, dtype: torch.dtype) -> Batch:
    second = Batch(golden.tensor("x2", dtype), golden.tensor("y2"))
    return labelled(golden, dtype)._replace(further=(second,))


def noisy(golden: Golden, dtype: torch.dtype) -> Batch:
    noise = [golden.tensor(f"az_noise/{i}").to(dtype) for i in range(1, len(golden.spec["features"]))]
    return labelled(golden, dtype)._replace(output_noise=tuple(noise))


def perturbed(golden: Golden, dtype: torch.dtype) -> Batch:
    return Batch(golden.tensor("zen_x", dtype), perturbation=golden.tensor("zen_eps", dtype))


def only(key: str) -> Callable[[Golden, torch.dtype], Batch]:
    return lambda golden, dtype: Batch(golden.tensor(key, dtype))


def no_options(golden: Golden) -> dict[str, Any]:
    return {}


class Case(NamedTuple):
    """How to compute one golden key.

    Attributes:
        proxy: Name with options.
        batch: The arrays.
        options: Further options, given the network's data.
        build: How to build the network.
        value: From our score to the golden one.
    """

    proxy: str
    batch: Callable[[Golden, torch.dtype], Batch] = labelled
    options: Callable[[Golden], dict[str, Any]] = no_options
    build: Mapping[str, Any] = MappingProxyType({})
    value: Callable[[float], float] = float


FEATURES: dict[str, Any] = {
    "batch": noisy,
    "options": lambda golden: {"features": tuple(golden.spec["features"])},
    "build": {"adds_as_modules": True},
}


def size(golden: Golden) -> float:
    """Parameters in thousands."""
    return golden.spec["params"] / 1e3


CASES: dict[str, Case] = {
    "snip": Case("snip"),
    "grasp": Case("grasp"),
    "fisher": Case("fisher:variant=zerocost"),
    "grad_norm": Case("grad_norm"),
    "grad_norm_global": Case("grad_norm:variant=global"),
    "plain": Case("plain"),
    "l2_norm": Case("l2_norm"),
    "synflow": Case("synflow", value=math.exp),
    "synflow_bn": Case("synflow:variant=bn", value=math.exp),
    "syncflow_zennas_neg": Case("synflow:variant=zennas"),
    "logsynflow": Case("logsynflow"),
    "jacob_cov": Case("jacob_cov"),
    "epe_nas": Case("epe_nas"),
    "epe_nas_over100": Case("epe_nas", options=lambda golden: {"pairwise": True}),
    "naswot": Case("naswot"),
    "swap": Case("swap"),
    "swap_reg": Case("swap_reg", options=lambda golden: {"mu": 1.25 * size(golden), "sigma": 0.5 * size(golden) ** 2}),
    "tenas_linear_regions": Case("linear_regions", batch=only("lr_x"), value=round),
    "tenas_ntk_train": Case("ntk_cond"),
    "tenas_ntk_eval": Case("ntk_cond:batch_norm=eval"),
    "zico": Case("zico:variant=authors", batch=two_batches),
    "gradsign": Case("gradsign"),
    "az_expressivity": Case("az_expressivity", **FEATURES),
    "az_progressivity": Case("az_progressivity", **FEATURES),
    "az_trainability": Case("az_trainability", **FEATURES),
    "meco": Case("meco", batch=only("meco_x")),
    "meco_on_x": Case("meco"),
    "meco_opt_first8": Case("meco:variant=opt", batch=only("meco_x")),
    "vkdnw_entropy_p1": Case("vkdnw:variant=authors"),
    "params": Case("params"),
    "macs": Case("flops"),
    **{
        f"zen_{variant}{weights}{suffix}": Case(
            f"zen:variant={name}", batch=perturbed, build={"weights": weights, "residuals": suffix == ""}
        )
        for variant, name in (("", "zennas"), ("truevar_", "l1"), ("paper_", "paper"))
        for weights in "gw"
        for suffix in ("", "_nores")
    },
}

UNWANTED = {"zen_g_rep2", "zen_w_rep2"}
"""The authors' second repeat: the running variance has drifted, so that a score depends on how often it is asked."""


def stored(value: float | str) -> float:
    return float(value)


def entries() -> list[Any]:
    return [
        pytest.param(name, key, id=f"{name}-{key}")
        for name in networks()
        for key in read_index()["nets"][name]["scores"]
        if key not in UNWANTED
    ]


def unchecked(golden: Golden, case: Case, dtype: torch.dtype) -> float:
    network = golden.build(**{"weights": "w", **case.build}, dtype=dtype).train()
    return zs.get_proxy(case.proxy)(network, case.batch(golden, dtype))


def ours(golden: Golden, case: Case, dtype: torch.dtype) -> float:
    if case.options is no_options:
        result = together(golden.name, case.batch, tuple(case.build.items()), dtype)[zs.get_proxy(case.proxy).key]
    else:
        network, batch = golden.build(**{"weights": "w", **case.build}, dtype=dtype), case.batch(golden, dtype)
        result = zs.score(network, case.proxy, batch=batch, init="keep", **case.options(golden))
    assert result.ok, result.reason
    assert result.repeats <= 1  # nothing is left to draw; 0 of what is not drawn
    return case.value(result.value)


@cache
def together(name: str, batch: Any, build: tuple[tuple[str, Any], ...], dtype: torch.dtype) -> dict[str, Score]:
    """Every proxy of the same arrays and network without options of its own: one call, the scores as alone."""
    golden = Golden(name)
    alike = [
        case.proxy
        for key, case in CASES.items()
        if (case.batch, tuple(case.build.items()), case.options) == (batch, build, no_options) and key in golden.scores
    ]
    network = golden.build(**{"weights": "w", **dict(build)}, dtype=dtype)
    return zs.score(network, alike, batch=batch(golden, dtype), init="keep")


@pytest.mark.parametrize(("name", "key"), entries())
def test_golden_value(name, key):
    golden, case = Golden(name), CASES[key]
    entry, tolerance = golden.scores[key], read_index()["proxies"][key]["tolerance"]
    expected = stored(entry["value64"])
    if tolerance.get("exact_integer"):
        expected = round(expected)  # the authors' count of regions is a float sum of reciprocals
    compute = ours
    if key.startswith("zen"):
        assert (tolerance["rel64"] <= 1e-9, tolerance["rel32"] <= 1e-4) == (True, True)
    if key.startswith("zen") and not any(node["op"] == "bn" for node in golden.spec["nodes"]):
        with pytest.raises(AssertionError, match="needs batch norm"):
            ours(golden, case, torch.float64)
        compute = unchecked  # the formula has a value, its second sum being empty
    assert compute(golden, case, torch.float64) == pytest.approx(expected, rel=tolerance["rel64"], abs=0)
    if not entry.get("float32_unstable"):
        assert compute(golden, case, torch.float32) == pytest.approx(expected, rel=tolerance["rel32"], abs=0)


def test_every_key_has_a_case():
    for name in networks():
        keys = set(read_index()["nets"][name]["scores"])
        assert keys <= {*CASES, *UNWANTED}


def test_the_copy_has_every_zen_score():
    """The copy beside the tests has both weight sets, residuals removed and not, in every variant."""
    nets = read_index(REDUCED)["nets"]
    assert set(nets) == {"resnet_basic", "mbv2_se"}
    zen = {key for key in CASES if key.startswith("zen")} - {
        *(f"zen_{variant}_{weights}_nores" for variant in ("paper", "truevar") for weights in "gw"),
    }
    for net in nets.values():
        assert zen <= set(net["scores"])


@pytest.mark.skipif(FOLDER != FULL, reason="the whole data set is not beside the checkout")
def test_the_copy_is_part_of_the_whole():
    """Arrays, networks, values and tolerances: what the whole set proves, the copy proves."""
    copy, whole = read_index(REDUCED), read_index(FULL)
    assert (
        copy["az_aggregate"]["sets"]["public8"]["from_value64"]
        == (whole["az_aggregate"]["sets"]["public8"]["from_value64"])
    )
    for name, net in copy["nets"].items():
        assert (REDUCED / net["file"]).read_bytes() == (FULL / whole["nets"][name]["file"]).read_bytes()
        assert net["spec"] == whole["nets"][name]["spec"]
        for key, entry in net["scores"].items():
            assert entry.items() <= whole["nets"][name]["scores"][key].items()
            assert copy["proxies"][key]["tolerance"].items() <= whole["proxies"][key]["tolerance"].items()
    for name, parts in copy["az_scores"].items():
        assert parts == {part: whole["nets"][name]["scores"][part]["value64"] for part in parts}


@pytest.mark.parametrize("folder", dict.fromkeys((REDUCED, FOLDER)), ids=lambda folder: folder.parent.name)
def test_az_nas_joins_the_eight_networks_as_its_authors_do(folder):
    index = read_index(folder)
    expected = index["az_aggregate"]["sets"]["public8"]["from_value64"]
    parts = {
        "az_expressivity": "az_expressivity",
        "az_progressivity": "az_progressivity",
        "az_trainability": "az_trainability",
        "az_complexity": "macs",
    }
    pool = []
    for name in expected["nets"]:
        values = (
            index["az_scores"][name]
            if "az_scores" in index
            else {key: score["value64"] for key, score in index["nets"][name]["scores"].items()}
        )
        pool.append({part: Score(part, stored(values[key]), None, 1, 0.0) for part, key in parts.items()})
    joined = [score.value for score in aggregate_scores("az_nas", pool)]
    assert joined == pytest.approx(expected["score"], rel=1e-12)
