"""fvcore's counts of a built network, the reference for closed-form costs."""

import warnings

import torch

from zeroshot_nas import Architecture, build

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fvcore compiles a function while it is imported, which torch deprecates
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis


def counted(architecture: Architecture) -> tuple[int, int, int]:
    """Parameters, fvcore's convolution and linear multiply-adds, and fvcore's activations, of the built network."""
    network = build(architecture).eval()
    image = torch.zeros(1, *architecture.input_size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's
        flops = (
            FlopCountAnalysis(network, image)
            .unsupported_ops_warnings(False)
            .uncalled_modules_warnings(False)
            .by_operator()
        )
        activations = (
            ActivationCountAnalysis(network, image)
            .unsupported_ops_warnings(False)
            .uncalled_modules_warnings(False)
            .total()
        )
    params = sum(parameter.numel() for parameter in network.parameters())
    return params, int(flops["conv"] + flops["linear"]), int(activations)
