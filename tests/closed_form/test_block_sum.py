"""A score that says that it is a sum over blocks is one: for every such score, on every chain."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.proxy import PROXIES, get_proxy
from zeroshot_nas.spaces.base import SPACES, get_space
from zeroshot_nas.spaces.chain import ChainSpace

SUMS = [name for name in PROXIES if PROXIES[name].block_sum]
WITH_OPTIONS = [
    get_proxy("zen_closed_form", variant="zennas", alpha=0.1),
    get_proxy("zen", variant="l1"),
    get_proxy("entropy_maedet", stage_weights=(1, 2, -3)),
]
CHAINS = [name for name in SPACES if isinstance(get_space(name), ChainSpace)]


def test_what_is_a_sum_says_so():
    assert set(SUMS) == {
        *("zen", "zen_closed_form", "entropy_maedet", "nn_mass", "nn_degree"),
        *("params", "flops", "layers", "az_complexity"),
    }
    assert {"resnet", "mobilenet", "vanilla", "inverted"} <= set(CHAINS)


@pytest.mark.parametrize("proxy", [*SUMS, *WITH_OPTIONS], ids=lambda proxy: getattr(proxy, "key", proxy))
@pytest.mark.parametrize("space", CHAINS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), side=st.integers(4, 70), squeeze_excite=st.booleans())
def test_a_sum_over_blocks_is_the_closed_form(space, proxy, seed, side, squeeze_excite):
    rng = random.Random(seed)
    chains = get_space(space, input_size=(rng.randint(1, 4), side, side + 3), squeeze_excite=squeeze_excite)
    architecture, scored = chains.sample(rng), get_proxy(proxy)
    expected = scored.closed_form(architecture)
    assert math.isclose(scored.bound_block_sum().total(architecture), expected, rel_tol=1e-12, abs_tol=1e-9)


@pytest.mark.parametrize("proxy", ["cet", "ceres", "entropy_deepmad"])
def test_what_is_no_sum_names_what_is(proxy):
    with pytest.raises(ProxyError, match=rf"{proxy} is no sum over blocks.*zen_closed_form.*regularized_evolution"):
        get_proxy(proxy).bound_block_sum()
