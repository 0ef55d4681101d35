"""Networks of every kind: each proxy gives the right value or one of our errors, and leaves all as it was."""

import random
import re
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import zeroshot_nas as zs
from tests.scoring.zoo import ZOO
from zeroshot_nas.errors import ArchitectureError, ProxyError
from zeroshot_nas.scoring.proxy import PROXIES

MODULE_PROXIES = [name for name in zs.list_proxies() if PROXIES[name].function is not None]
SETTINGS = {"batch_size": 4, "repeats": 1, "seed": 3}


def network(name, plainly=False):
    """One object for all tests: scoring may not change it."""
    return _network(name, plainly)


@cache
def _network(name, plainly):
    exhibit = ZOO[name]
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of scripting and older norms
        torch.manual_seed(11)  # the plain network has the same weights where its layers are the same
        return exhibit.plain() if plainly else exhibit.build()


def scored(name, proxy, plainly=False):
    exhibit = ZOO[name]
    if exhibit.batch is not None:
        settings = SETTINGS | {"batch": exhibit.batch()}
    else:
        settings = SETTINGS | {"input_size": exhibit.input_size}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's of strangers' code, and of operators without FLOPs
        return zs.score(network(name, plainly), proxy, **settings)


def visited(name, plainly=False, reverse=False):
    """Of every proxy the value, or the reason why there is none; and what all of them changed."""
    return _visited(name, plainly, reverse)  # arguments that are given otherwise are others to a cache


@cache
def _visited(name, plainly, reverse):
    before = snapshot(network(name, plainly))
    scores = scored(name, MODULE_PROXIES[::-1] if reverse else MODULE_PROXIES, plainly)
    values = {proxy: scores[proxy].value if scores[proxy].ok else scores[proxy].reason for proxy in MODULE_PROXIES}
    return values, changes(before, snapshot(network(name, plainly)))


def in_company(name, plainly=False, reverse=False):
    return visited(name, plainly, reverse)[0]


def alone(name, proxy):
    """The value, or the reason why there is none."""
    try:
        result = scored(name, proxy)
    except ProxyError as error:
        return str(error)
    return result.value if result.ok else result.reason


def contents(tensor):
    """Bits of a tensor, or what it is where it has none."""
    kind = tensor.dtype, tensor.device.type, tensor.requires_grad
    if isinstance(tensor, nn.parameter.UninitializedTensorMixin) or tensor.is_meta or tensor.is_quantized:
        return kind
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return *kind, values.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def snapshot(module):
    """All that scoring could change: weights, buffers, modes, gradients, hooks, flags, and global states."""
    parts = list(module.modules())
    tensors = [*module.parameters(), *module.buffers()]
    hooks = [
        [list(getattr(part, kind)) for kind in vars(part) if kind.endswith("_hooks") and getattr(part, kind)]
        for part in parts
    ]
    return {
        "tensors": [(id(tensor), contents(tensor)) for tensor in tensors],
        "grads": [None if each.grad is None else contents(each.grad) for each in tensors],
        "modes": [part.training for part in parts],
        "hooks": hooks,
        "attributes": [sorted(vars(part)) for part in parts],
        "random": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().numpy().tobytes()),  # noqa: NPY002
        "dtype": (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()),
    }


def changes(before, after):
    """What differs between two snapshots."""
    return [part for part in before if before[part] != after[part]]


def differences(values, others, proxies=MODULE_PROXIES):
    """Proxies with unequal values, or reasons."""
    return [(proxy, values[proxy], others[proxy]) for proxy in proxies if values[proxy] != others[proxy]]


@pytest.mark.parametrize("name", ZOO)
def test_a_proxy_has_the_value_alone_that_it_has_in_any_company(name):
    """Alone, an eighth of the proxies on each network, others on its neighbours."""
    company = in_company(name)
    assert differences(company, in_company(name, reverse=True)) == []
    some = MODULE_PROXIES[list(ZOO).index(name) % 8 :: 8]
    assert differences(company, {proxy: alone(name, proxy) for proxy in some}, some) == []


@pytest.mark.parametrize("name", ZOO)
def test_scoring_changes_nothing(name):
    assert visited(name)[1] == []
    assert visited(name, reverse=True)[1] == []


@pytest.mark.parametrize("name", [name for name in ZOO if ZOO[name].plain and not ZOO[name].refused])
def test_a_network_has_the_values_of_the_same_network_written_plainly(name):
    values, plain = in_company(name), in_company(name, plainly=True)
    compared = [proxy for proxy in MODULE_PROXIES if proxy not in ZOO[name].differs]
    unequal = [
        (proxy, values[proxy], plain[proxy])
        for proxy in compared
        if isinstance(values[proxy], str) != isinstance(plain[proxy], str)
        or (isinstance(plain[proxy], float) and values[proxy] != pytest.approx(plain[proxy], rel=1e-4))
    ]
    assert unequal == []


@pytest.mark.parametrize("name", [name for name in ZOO if ZOO[name].scored])
def test_a_network_that_can_be_scored_is_scored(name):
    values = in_company(name)
    assert [(proxy, values[proxy]) for proxy in ZOO[name].scored if isinstance(values[proxy], str)] == []


@pytest.mark.parametrize("name", [name for name in ZOO if ZOO[name].refused])
def test_a_network_that_cannot_be_scored_is_refused_in_one_line(name):
    that_run = [proxy for proxy in MODULE_PROXIES if PROXIES[proxy].cost not in ("graph", "weights")]
    reasons = {proxy: in_company(name)[proxy] for proxy in that_run}
    refusal = re.compile(ZOO[name].refused)
    assert [(each, why) for each, why in reasons.items() if not (isinstance(why, str) and refusal.search(why))] == []
    assert not any("\n" in reason for reason in reasons.values())


@pytest.mark.filterwarnings("ignore::zeroshot_nas.errors.UncountedOperatorWarning")
@pytest.mark.parametrize("name", ZOO)
def test_the_cost_is_the_plain_networks_or_refused(name):
    exhibit, before = ZOO[name], snapshot(network(name))
    if exhibit.batch is not None:
        pytest.skip("cost draws no integers")
    costs = {}
    for plainly in (False, True) if exhibit.plain else (False,):
        try:
            costs[plainly] = zs.cost(network(name, plainly), input_size=exhibit.input_size)
        except ArchitectureError as error:
            costs[plainly] = str(error)
    assert changes(before, snapshot(network(name))) == []
    if exhibit.refused == "before scripting":
        assert "before scripting" in costs[False]
    elif exhibit.plain and "params" in exhibit.differs:
        assert costs[False].flops == costs[True].flops
    elif exhibit.plain:
        assert costs[False] == costs[True]
