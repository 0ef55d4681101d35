"""Milliseconds of a batch on a device, which a device table predicts."""

import re

from zeroshot_nas.costs.base import COSTS, CostInfo


def parse_milliseconds(text: str) -> float:
    """A latency with its unit, in milliseconds.

    Raises:
        ValueError: It is none; the message says what is expected.

    Example:
        >>> parse_milliseconds("300us")
        0.3
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?|\.\d+)\s*(us|ms|s)", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError("a number with us, ms or s, e.g. 4ms or 0.5ms")
    return float(match[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[match[2].lower()]


COSTS.add(
    "latency_ms",
    CostInfo(
        "latency_ms",
        "latency",
        per="device",
        unit="ms",
        option="--max-latency",
        help="Upper limit on latency on a device, e.g. 4ms; see `latency calibrate`.",
        parse=parse_milliseconds,
    ),
)
