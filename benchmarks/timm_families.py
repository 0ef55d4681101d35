"""Which proxies have a value for which families of timm, and why others have none.

    python benchmarks/timm_families.py            # some eight minutes of one core
    python benchmarks/timm_families.py --quick    # two families, some proxies: shows that it runs

It needs timm, and torchvision, which timm imports and which this project does not ask for:
``pip install timm torchvision``. No weights are loaded from anywhere: ``pretrained=False``.

Of each family one small network of 10 classes is scored by every proxy that reads modules, one repeat on a small batch,
each in a worker process with a time limit. A score is a value or the reason why there is none. What raises anything
else is counted as a crash, and there should be none. Results go to ``benchmarks/results/timm_families.json``, from
which ``docs/make_pages.py`` writes ``docs/timm.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import torch
from common import Figure, Part, main
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas.errors import TaskTimeoutError, ZeroShotNASError
from zeroshot_nas.execution.pool import WorkerPool
from zeroshot_nas.scoring.proxy import PROXIES

SIDE = 64
SETTINGS: Mapping[str, Any] = {"input_size": (3, SIDE, SIDE), "batch_size": 4, "repeats": 1, "seed": 3}
"""Of every score; with this seed two of the four images have the same label, which epe_nas asks for."""
LIMIT = 60.0
"""Seconds that one score may take."""

FAMILIES = {
    "ResNet": "test_resnet",
    "RegNetY": "regnety_002",
    "DenseNet": "densenet121",
    "DLA": "dla46_c",
    "RepVGG": "repvgg_a0",
    "MobileNetV2": "mobilenetv2_035",
    "MobileNetV3": "mobilenetv3_small_050",
    "MobileNetV4": "mobilenetv4_conv_small_035",
    "MNASNet": "mnasnet_small",
    "EfficientNet": "test_efficientnet",
    "GhostNet": "ghostnet_050",
    "LCNet": "lcnet_035",
    "NFNet": "test_nfnet",
    "ConvNeXt": "test_convnext",
    "EdgeNeXt": "edgenext_xx_small",
    "PoolFormer": "poolformer_s12",
    "FastViT": "fastvit_t8",
    "MambaOut": "test_mambaout",
    "gMLP": "gmlp_ti16_224",
    "ViT": "test_vit",
    "Swin": "swin_tiny_patch4_window7_224",
    "LeViT": "levit_128s",
    "MobileViT": "mobilevit_xxs",
    "CoAtNet": "test_coatnet",
    "PVTv2": "pvt_v2_b0",
    "XCiT": "xcit_nano_12_p16_224",
    "CoaT": "coat_lite_tiny",
}
"""One small network each; those named ``test_`` are timm's own small ones of a family."""

QUICK_FAMILIES = ("ResNet", "ViT")
QUICK_PROXIES = ("params", "naswot", "zen")


def families(quick: bool) -> Part:
    """Every family by every proxy."""
    import timm  # here: where it is missing, the names above can still be read

    named = {name: FAMILIES[name] for name in (QUICK_FAMILIES if quick else FAMILIES)}
    proxies = QUICK_PROXIES if quick else [name for name in PROXIES if PROXIES[name].function is not None]
    rows = {}
    with WorkerPool(time_limit=LIMIT) as pool:
        for family, model in named.items():
            network = build(model)
            # a list of one: what the proxy can't be computed for is then a score with its reason
            futures = {proxy: pool.submit(zs.score, network, [proxy], **SETTINGS) for proxy in proxies}
            scores = {proxy: outcome(future, proxy) for proxy, future in futures.items()}
            params = sum(weight.numel() for weight in network.parameters())
            rows[family] = {"model": model, "params": params, "scores": scores}
    every = [score for row in rows.values() for score in row["scores"].values()]
    return Part(
        [
            Figure("scores that end in an error that is not ours", [sum("crash" in s for s in every)], at_most=0),
            *(
                Figure(f"{family}: proxies with a value", [_values(row)], f"of {len(proxies)}")
                for family, row in rows.items()
            ),
        ],
        {"timm": timm.__version__, "settings": SETTINGS, "limit, s": LIMIT, "families": rows},
    )


def build(model: str) -> nn.Module:
    """The network for small images; a transformer is told their side, the others take any."""
    import timm

    torch.manual_seed(0)
    try:
        return timm.create_model(model, pretrained=False, num_classes=10, img_size=SIDE)
    except TypeError:  # it has no such argument
        return timm.create_model(model, pretrained=False, num_classes=10)


def outcome(future: Future[dict[str, Any]], proxy: str) -> dict[str, Any]:
    """A value or a reason, and the seconds."""
    try:
        score = future.result()[proxy]
    except TaskTimeoutError:
        return {"reason": f"over {LIMIT:g} s", "seconds": LIMIT}
    except ZeroShotNASError as error:
        return {"reason": str(error)}
    except Exception as error:
        return {"crash": f"{type(error).__name__}: {error}"}
    return {"value" if score.ok else "reason": score.value if score.ok else score.reason, "seconds": score.seconds}


def _values(row: Mapping[str, Any]) -> int:
    return sum("value" in score for score in row["scores"].values())


if __name__ == "__main__":
    assert __doc__ is not None
    main("timm_families", {"families": families}, __doc__)
