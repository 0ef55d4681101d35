"""Multiply-adds of timm's families against those that timm publishes. It needs timm, and with it torchvision."""

import warnings

import pytest

import zeroshot_nas as zs
from zeroshot_nas.errors import UncountedOperatorWarning

timm = pytest.importorskip("timm", reason="timm, or the torchvision that it imports, is not installed")

PUBLISHED = {
    "resnet18": (224, 11.69, 1.82),
    "resnet50_gn": (224, 25.56, 4.14),
    "seresnet18": (224, 11.78, 1.82),
    "resnext50_32x4d": (224, 25.03, 4.26),
    "res2net50_14w_8s": (224, 25.06, 4.21),
    "regnetx_002": (224, 2.68, 0.2),
    "regnety_002": (224, 3.16, 0.2),
    "repvgg_a0": (224, 9.11, 1.52),
    "vgg11_bn": (224, 132.87, 7.62),
    "densenet121": (224, 7.98, 2.87),
    "dla34": (224, 15.74, 3.07),
    "hrnet_w18_small": (224, 13.19, 1.61),
    "mobilenetv2_100": (224, 3.5, 0.31),
    "mobilenetv3_large_100": (224, 5.48, 0.23),
    "mobilenetv4_conv_small": (224, 3.77, 0.19),
    "mnasnet_100": (224, 4.38, 0.33),
    "efficientnet_b0": (224, 5.29, 0.4),
    "ghostnet_100": (224, 5.18, 0.15),
    "convnext_atto": (224, 3.7, 0.55),
    "convnextv2_atto": (224, 3.71, 0.55),
    "edgenext_xx_small": (256, 1.33, 0.26),
    "poolformer_s12": (224, 11.92, 1.82),
    "mixer_s32_224": (224, 19.1, 1.0),
    "resmlp_12_224": (224, 15.35, 3.01),
    "vit_tiny_patch16_224": (224, 5.72, 1.26),
    "deit_tiny_patch16_224": (224, 5.72, 1.26),
    "pit_ti_224": (224, 4.85, 0.7),
    "levit_128s": (224, 7.78, 0.31),
    "mobilevit_xxs": (256, 1.27, 0.42),
    "pvt_v2_b0": (224, 3.67, 0.57),
    "xcit_nano_12_p16_224": (224, 3.05, 0.56),
    "coat_lite_tiny": (224, 5.72, 1.6),
}
"""Side, millions of parameters and GMACs of timm's results/benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv
(commit 7479d451, github.com/huggingface/pytorch-image-models), which fvcore counted with norms and poolings."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_multiply_adds_are_those_that_timm_publishes(name):
    side, params, gmacs = PUBLISHED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UncountedOperatorWarning)
        costs = zs.cost(timm.create_model(name), input_size=(3, side, side))
    assert costs.params / 1e6 == pytest.approx(params, abs=0.006)
    rounding, norms = 0.005, 0.06 * gmacs  # of what is published, and the most that norms and poolings make of it
    assert -rounding <= gmacs - costs.flops / 1e9 <= norms + rounding
