"""Registration, the facts of a proxy and its options."""

import pickle
from dataclasses import fields
from typing import Literal, get_args, get_origin

import pytest
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas.core.options import option_types
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.proxies.zen import zen, zen_of_architecture
from zeroshot_nas.scoring.proxy import PROXIES, READS

NET = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,1)", (3, 8, 8))


@pytest.fixture
def registry(monkeypatch):
    """Registrations that the test makes are gone behind it."""
    monkeypatch.setattr(PROXIES, "_entries", {name: PROXIES[name] for name in PROXIES})


def scaled(network: nn.Module, batch: zs.Batch, /, *, scale: float = 1.0, kind: Literal["a", "b"] = "a") -> float:
    return scale * sum(parameter.numel() for parameter in network.parameters())


def test_the_decorator_fills_in_the_function(registry):
    facts = zs.ProxyInfo("scaled", source="this test", direction="lower", reads=["relus"], batch_size=3)
    assert zs.register_proxy(facts)(scaled) is scaled
    info = zs.get_proxy("scaled").info
    assert (facts.function, info.function) == (None, scaled)
    rest = [each.name for each in fields(info) if each.name != "function"]
    assert [getattr(info, name) for name in rest] == [getattr(facts, name) for name in rest]
    assert info.reads == frozenset({"relus"})
    assert zs.score(NET, "scaled:scale=2", repeats=1).value == 2 * zs.cost(NET).params


def test_a_name_and_facts_make_the_same_registration(registry):
    zs.register_proxy("by_name", source="this test", direction="lower", reads=("layers",), cost="backward")(scaled)
    assert PROXIES["by_name"] == zs.ProxyInfo(
        "by_name", scaled, source="this test", direction="lower", reads={"layers"}, cost="backward"
    )


def test_a_closed_form_of_ones_own(registry):
    def depth_times(architecture: zs.Architecture, /, *, times: int = 1) -> float:
        return architecture.layers * times

    PROXIES.add("depth_times", zs.ProxyInfo("depth_times", closed_form=depth_times, cost="graph"))
    result = zs.score(NET, "depth_times:times=3")
    assert (result.value, result.standard_error, result.proxy) == (3 * NET.layers, 0.0, "depth_times:times=3")
    with pytest.raises(ProxyError, match="depth_times's times must be a whole number, got 'three'"):
        zs.score(NET, "depth_times:times=three")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"directoin": "lower"}, r"a proxy has no fact 'directoin'\. Did you mean 'direction'\? Facts: closed_form, "),
        ({"function": scaled}, "a proxy has no fact 'function'"),
        ({"direction": "lowest"}, r"x's direction must be 'higher' or 'lower', got 'lowest'\. Did you mean 'lower'\?"),
        ({"cost": "cheap"}, "x's cost must be 'graph', 'weights', 'forward', 'backward' or 'many', got 'cheap'"),
        ({"init": "xavier"}, "x's init must be 'kaiming', 'gaussian' or 'keep', got 'xavier'"),
        ({"aggregation": "mean"}, "x's aggregation must be .*, got 'mean'"),
        ({"reads": ["relu"]}, f"a proxy reads {', '.join(sorted(READS))}; got relu"),
        ({"source": ""}, "proxy 'x' must say where its formula is from"),
    ],
)
def test_wrong_facts(registry, facts, message):
    with pytest.raises(ProxyError, match=message):
        zs.register_proxy("x", **{"source": "this test", **facts})
    assert "x" not in PROXIES


def test_wrong_facts_of_an_info():
    with pytest.raises(ProxyError, match="x's direction must be 'higher' or 'lower', got 'up'"):
        zs.ProxyInfo("x", direction="up")
    with pytest.raises(ProxyError, match="proxy 'x' must say where its formula is from"):
        zs.register_proxy(zs.ProxyInfo("x"))
    with pytest.raises(ProxyError, match="registered by a ProxyInfo or a name, got function"):
        zs.register_proxy(scaled)


def test_a_name_taken_twice(registry):
    with pytest.raises(ValueError, match="the proxy 'zen' is already registered"):
        zs.register_proxy(zs.ProxyInfo("zen", source="this test"))(scaled)
    assert PROXIES["zen"].function is zen


def test_one_key_for_one_setting():
    """By text and by value, whichever way the number is written."""
    keys = {zs.get_proxy(key).key for key in ("meco:channels=4", "meco:channels=4.0")}
    assert keys == {zs.get_proxy("meco", channels=4).key} == {"meco:channels=4"}
    assert zs.get_proxy("zen", alpha=1).key == zs.get_proxy("zen:alpha=1").key == "zen:alpha=1.0"
    assert zs.get_proxy("naswot:normalise=1").key == zs.get_proxy("naswot:normalise=true").key
    assert zs.get_proxy("swap_reg:sigma=none").options == {"sigma": None}


def test_every_option_has_a_type_that_is_checked():
    checked, choices = 0, 0
    for name in PROXIES:
        for option, annotation in PROXIES[name].options.items():
            if option in ("features", "stage_weights"):  # sequences, which the proxies check themselves
                continue
            checked += 1
            with pytest.raises(ProxyError, match=f"{name}'s {option} must be .*, got b'bytes'"):
                zs.get_proxy(name, **{option: b"bytes"})
            for choice in get_args(annotation) if get_origin(annotation) is Literal else ():
                choices += 1
                proxy = zs.get_proxy(f"{name}:{option}={choice}")
                assert proxy.options == {option: choice}
                assert zs.get_proxy(proxy.key) == proxy == pickle.loads(pickle.dumps(proxy))
    assert checked > 20
    assert choices > 20


@pytest.mark.parametrize("name", [name for name in zs.list_proxies() if PROXIES[name].function])
def test_ways_to_one_score_have_the_same_options(name):
    info = PROXIES[name]
    for way in (info.closed_form, info.of_architecture):
        if way is not None:
            assert option_types(way) == info.options


def test_options_of_the_fast_way_are_checked_too():
    assert PROXIES["zen"].of_architecture is zen_of_architecture
    with pytest.raises(ProxyError, match="zen's variant must be"):
        zs.score(NET, "zen:variant=l2")
