"""A device that is a formula: kernels take time by multiply-adds and bytes, without noise."""

from functools import cache

from zeroshot_nas.architecture.kernels import ADD, GLOBAL_POOL, LINEAR, kernels
from zeroshot_nas.latency.calibration_networks import calibration_networks
from zeroshot_nas.latency.device_table import Fingerprint
from zeroshot_nas.latency.fit import Timed, fit_table
from zeroshot_nas.spaces.base import get_space

FINGERPRINT = Fingerprint("a formula", 1, "paper", "onnxruntime", "0")
PER_KERNEL_MS = -0.001
PER_NETWORK_MS = 0.02


def kernel_ms(kernel):
    """0.05 ms a million multiply-adds and 0.5 ns a value, and a start; sums are taken in by what stands before them."""
    if kernel.kind == ADD:
        return 0.0
    positions = 1 if kernel.kind in (GLOBAL_POOL, LINEAR) else kernel.height * kernel.width / kernel.stride**2
    weights = kernel.in_channels / kernel.groups * kernel.out_channels * kernel.kernel_size**2
    values = kernel.in_channels * kernel.height * kernel.width + weights
    return 0.003 + 5e-8 * weights * positions + 5e-7 * values


def latency_ms(architecture):
    parts = [kernel_ms(each) for each in kernels(architecture)]
    return sum(parts) + PER_KERNEL_MS * sum(each > 0 for each in parts) + PER_NETWORK_MS


def timed(architecture):
    parts = tuple(kernel_ms(each) for each in kernels(architecture))
    return Timed(architecture, latency_ms(architecture), 0.01, parts)


@cache
def a_table(space, input_size=(3, 32, 32), count=40, fingerprint=FINGERPRINT):
    where = get_space(space, input_size=input_size)
    networks = calibration_networks(where, count, max_flops=1e8)
    return fit_table([timed(each) for each in networks], fingerprint, where, {"networks": count})
