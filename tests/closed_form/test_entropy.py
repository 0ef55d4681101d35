"""Structure entropies against golden values and by hand."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import architectures
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS, register_block
from zeroshot_nas.blocks.base import RESIDUAL_FIELDS, ResidualBlock, Unit
from zeroshot_nas.closed_form.entropy import block_log_widths, entropy_deepmad, entropy_maedet
from zeroshot_nas.costs.structure import block_depth_and_width, effectiveness
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.proxy import get_proxy

TESTS = Path(__file__).parent.parent
FILES = [TESTS / "golden/entropy_structures.json", TESTS.parent / "../shared/data/golden/golden.json"]
"""The copy that comes with the tests, and the whole data set, where a checkout has it beside it."""

GOLDEN = [
    (path.stem, name, entry)
    for path in FILES
    if path.exists()
    for name, entry in json.loads(path.read_text())["entropy_structures"]["structures"].items()
]

ENTROPIES = {
    "madnas": entropy_maedet,
    "deepmad": entropy_deepmad,
    "deepmad_alpha1_2": entropy_deepmad,
    "deepmad_last_only": entropy_deepmad,
}


def cases(key: str) -> list:
    """The golden structures for which the reference gives a value."""
    return [pytest.param(entry, id=f"{file}-{name}") for file, name, entry in GOLDEN if "value" in entry.get(key, {})]


@dataclass(frozen=True)
class OneBottleneck(ResidualBlock):
    """The reference's ``SuperResK1KXK1``: one bottleneck a layer, where Zen-NAS's block of that name has two."""

    kernel_size: int = 3

    def units(self):
        inner = self.bottleneck_channels
        return (Unit((inner, inner, self.out_channels), (1, self.kernel_size, 1), spatial=1),)


@dataclass(frozen=True)
class OneInverted(ResidualBlock):
    """The reference's ``SuperResK1DWK1``: 1x1, depthwise k x k, 1x1."""

    kernel_size: int = 3

    def units(self):
        inner = self.bottleneck_channels
        return (Unit((inner, inner, self.out_channels), (1, self.kernel_size, 1), spatial=1, depthwise=True),)


@pytest.fixture
def reference_blocks(monkeypatch):
    """Registers the reference's blocks for one test; the registry that other tests read stays as it is."""
    assert list(BLOCKS)  # discovered: the copy is whole
    monkeypatch.setattr(BLOCKS, "_entries", dict(BLOCKS._entries))
    for name, cls in (("OneBottleneckK{kernel_size}", OneBottleneck), ("OneInvertedK{kernel_size}", OneInverted)):
        register_block(name, plainnet_fields=RESIDUAL_FIELDS, kernel_size=(3, 5, 7))(cls)


def build(entry: dict) -> Architecture:
    """A golden structure as an architecture."""
    blocks = []
    for block in entry["structure"]:
        name = {
            "ConvKXBNRELU": "SuperConvK{k}BNRELU",
            "SuperResKXKX": "SuperResK{k}K{k}",
            "SuperResK1KXK1": "OneBottleneckK{k}",
            "SuperResK1DWK1": "OneInvertedK{k}",
        }[block["class"]].format(k=block["k"])
        inner = {"sub_layers": block["L"], "bottleneck_channels": block["btn"]} if "L" in block else {}
        blocks.append(BLOCKS[name](out_channels=block["out"], stride=block["s"], **inner))
    size = entry["image_size"]
    architecture = Architecture(tuple(blocks), (3, size, size))
    assert [channels for _, channels, _ in architecture.inputs()] == [block["in"] for block in entry["structure"]]
    return architecture


@pytest.mark.parametrize(
    ("key", "entry"),
    [pytest.param(key, *case.values, id=f"{key}-{case.id}") for key in ENTROPIES for case in cases(key)],
)
@pytest.mark.usefixtures("reference_blocks")
def test_golden_entropies(key, entry):
    golden = entry[key]
    options = {"stage_weights": golden["stage_weights"]}
    if key != "madnas":
        options |= {"alpha1": golden["alpha"][0], "alpha2": golden["alpha"][1]}
    assert ENTROPIES[key](build(entry), **options) == pytest.approx(golden["value"], rel=1e-12, abs=0)
    for stage, value in enumerate(golden["per_stage"]):
        weights = [weight * (stage == index) for index, weight in enumerate(golden["stage_weights"])]
        alone = ENTROPIES[key](build(entry), **{**options, "stage_weights": weights})
        assert alone == pytest.approx(value, rel=1e-12, abs=0)


@pytest.mark.parametrize("entry", cases("effectiveness"))
@pytest.mark.usefixtures("reference_blocks")
def test_golden_effectiveness(entry):
    assert effectiveness(build(entry)) == pytest.approx(entry["effectiveness"]["value"], rel=1e-12, abs=0)


@pytest.mark.parametrize("entry", [pytest.param(entry, id=f"{file}-{name}") for file, name, entry in GOLDEN])
@pytest.mark.usefixtures("reference_blocks")
def test_golden_widths_and_depths(entry):
    """Sum of the reference's block log widths, and its layers."""
    architecture = build(entry)
    widths = [sum(block_log_widths(*block)) / 2 for block in architecture.inputs()]
    assert sum(widths) == pytest.approx(sum(entry["block_log_widths"]), rel=1e-12, abs=0)
    depth = sum(block_depth_and_width(*block).depth for block in architecture.inputs())
    assert depth == entry["stage_info"]["cumulative_layers"][-1]


def test_golden_data_covers_both_entropies():
    assert cases("madnas")
    assert cases("deepmad")
    assert cases("effectiveness")


BY_HAND = "SuperConvK3BNRELU(1,8,2,1)SuperResK3K3(8,16,2,4,1)SuperResIDWE2K5(16,24,1,16,1)"
FIRST = math.log(9) / 2
SECOND = FIRST + (math.log(8 * 9) + math.log(4 * 9)) / 2
# two inverted residuals 16 -> 32 -> 16 and 16 -> 48 -> 24; a depthwise 5x5 has fan-in 25
THIRD = SECOND + (math.log(16) + math.log(25) + math.log(32) + math.log(16) + math.log(25) + math.log(48)) / 2


def test_by_hand():
    """9x7 pixels become 5x4, then 3x2; projections and gates do not count, and a stride in block 0 ends no stage."""
    net = Architecture.from_string(BY_HAND, (1, 9, 7))
    maedet = entropy_maedet(net, stage_weights=(2, 3))
    assert maedet == pytest.approx(2 * (math.log(8) + FIRST) + 3 * (math.log(24) + THIRD), rel=1e-13)
    deepmad = entropy_deepmad(net, stage_weights=(2, 3))
    assert deepmad == pytest.approx(2 * math.log(8 * 20) * FIRST + 3 * math.log(24 * 6) * THIRD, rel=1e-13)
    gated = replace(net, blocks=(*net.blocks[:2], replace(net.blocks[2], squeeze_excite=True)))
    assert entropy_maedet(gated) == entropy_maedet(net)


def test_exponents_by_hand():
    net = Architecture.from_string("SuperConvK3BNRELU(5,8,1,1)", (5, 4, 4))
    value = entropy_deepmad(net, stage_weights=(1,), alpha1=3, alpha2=0.5)
    assert value == pytest.approx(math.log(8 * 16) * math.log(5**3 * 3) / 2, rel=1e-13)


@pytest.mark.parametrize("entropy", [entropy_maedet, entropy_deepmad])
def test_weights_are_aligned_at_the_end(entropy):
    """Two stages: the last two of five weights; with one weight, that one for both."""
    net = Architecture.from_string(BY_HAND, (1, 9, 7))
    assert entropy(net, stage_weights=(9, 9, 9, 2, 3)) == entropy(net, stage_weights=[2, 3])
    assert entropy(net, stage_weights=(3,)) == entropy(net, stage_weights=(3, 3))
    three = Architecture(net.blocks[:1] + net.blocks[1:2] * 2, (1, 9, 7))
    assert entropy(three, stage_weights=(2, 3)) == entropy(three, stage_weights=(2, 2, 3))
    assert entropy(three, stage_weights=(2, 3)) != entropy(three, stage_weights=(2, 3, 3))


@given(architectures(), st.sampled_from([entropy_maedet, entropy_deepmad]))
def test_a_further_block_never_scores_less(architecture, entropy):
    """The last stage's sum grows; that is why a search by it needs a bound on depth."""
    deeper = replace(architecture, blocks=(*architecture.blocks, replace(architecture.blocks[-1], stride=1)))
    before = entropy(architecture)
    assert math.isfinite(before)
    assert entropy(deeper) >= before - 1e-9


@pytest.mark.parametrize("entropy", [entropy_maedet, entropy_deepmad])
@pytest.mark.parametrize("weights", [(), [], 3, "1,2", (1, math.nan), (math.inf,), ("1",), (None,)], ids=repr)
def test_bad_stage_weights(entropy, weights):
    net = Architecture.from_string(BY_HAND, (1, 9, 7))
    with pytest.raises(ProxyError, match="stage_weights must be finite numbers"):
        entropy(net, stage_weights=weights)


@pytest.mark.parametrize("option", ["alpha1", "alpha2"])
@pytest.mark.parametrize("value", [math.nan, math.inf, "1", None], ids=repr)
def test_bad_exponents(option, value):
    net = Architecture.from_string(BY_HAND, (1, 9, 7))
    with pytest.raises(ProxyError, match="alpha1 and alpha2 must be finite numbers"):
        entropy_deepmad(net, **{option: value})


@pytest.mark.parametrize(
    ("name", "source", "entropy"),
    [
        ("entropy_maedet", "arXiv:2111.13336", entropy_maedet),
        ("entropy_deepmad", "arXiv:2303.02165", entropy_deepmad),
    ],
)
def test_registered(name, source, entropy):
    net = Architecture.from_string(BY_HAND, (1, 9, 7))
    proxy = get_proxy(name, stage_weights=(1, 2))
    assert proxy.closed_form(net) == entropy(net, stage_weights=(1, 2))
    assert (proxy.info.source, proxy.sign, proxy.info.grows_with_depth) == (source, 1, True)
