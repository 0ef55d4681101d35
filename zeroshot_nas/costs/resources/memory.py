"""RAM and flash of an int8 network on a microcontroller."""

import re

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.base import CostInfo, register_cost
from zeroshot_nas.micro.memory import peak_memory as peak_memory_of
from zeroshot_nas.micro.memory import weight_bytes

_UNITS = {"": 1, "B": 1, "kB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}


def parse_bytes(text: str) -> float:
    """A number of bytes with its unit.

    Raises:
        ValueError: It is none, or the unit may be of 1,000 or of 1,024 bytes; the message says what is expected.

    Example:
        >>> parse_bytes("256kB"), parse_bytes("256 KiB")
        (256000.0, 262144.0)
    """
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2] not in _UNITS:
        raise ValueError(
            "a number of bytes with kB (1,000), KiB (1,024), MB (1,000,000) or MiB (1,048,576), e.g. 256kB; other "
            "units may be either"
        )
    return float(match[1]) * _UNITS[match[2]]


@register_cost(
    CostInfo(
        "peak_memory",
        per="architecture",
        unit="bytes",
        help="Upper limit on RAM as an int8 network on a microcontroller, e.g. 256kB (1,000 bytes) or 256KiB (1,024).",
        parse=parse_bytes,
    )
)
def peak_memory(architecture: Architecture) -> int:
    """Bytes of the arena that TensorFlow Lite Micro needs for the exported file; see `zeroshot_nas.memory`."""
    return peak_memory_of(architecture)


@register_cost(
    CostInfo(
        "weights",
        per="architecture",
        unit="bytes",
        help="Upper limit on int8 weights, their biases and scales, in flash, e.g. 1MB or 1MiB.",
        parse=parse_bytes,
    )
)
def weights(architecture: Architecture) -> int:
    """Bytes of int8 weights, 32-bit biases and their scales in the exported file."""
    return weight_bytes(architecture)
