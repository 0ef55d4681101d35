"""What is proved and measured of a search, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture


def certificate_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is proved of the search, in words."""
    if found["bound"] is None or found["best"] is None:
        return [("certificate", f"{found['proxy']}: stopped before a bound was proved")]
    if found["finished"]:
        text = f"{found['best']:.6g} is the optimum of {found['proxy']} within the budget, gap 0"
    else:
        text = f"no network within the budget has {found['proxy']} beyond {found['bound']:.6g}: gap {found['gap']:.3g}"
    if left_out := ", ".join(found["checked_whole"]):
        text += f"; the bound leaves {left_out} out"
    enumerated = found["enumerated"]
    rows = [("certificate", text)]
    if enumerated:
        what = f"{enumerated['blocks']:,} blocks evaluated, {enumerated['chains']:,} beginnings of chains extended"
        left = enumerated["blocks_left"]
        rows.append(("enumerated", what + (f" from the {left:,} blocks that bounds left" if left is not None else "")))
    return rows


def bits_rows(architecture: Architecture) -> list[tuple[str, str]]:
    """The bits of a network's weights, where it says of any.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,1)")
        >>> bits_rows(Architecture(net.blocks, weight_bits=(8, 4, 4, 8, 8)))
        [('bits of weights', '8 | 4 4 8 | 8, layer by layer, a group a block and the classifier last')]
    """
    by_block = architecture.bits_by_block()
    if by_block is None:
        return []
    groups = " | ".join(" ".join(map(str, each)) for each in by_block)
    return [("bits of weights", f"{groups}, layer by layer, a group a block and the classifier last")]


def latency_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How a latency budget was kept, in words."""
    predicted = f"{found['predicted_ms']:.3g} ms predicted"
    if found["measured_ms"] is None:
        text = f"{predicted} for {found['device']} with {found['backend']}, which is not here to be measured"
    else:
        text = f"{found['measured_ms']:.3g} ms measured on {found['backend']}, {predicted}"
    rows = [("latency", f"{text}; the budget is {found['limit_ms']:g} ms")]
    if found["measured_ms"] is not None:
        limits = [f"{limit:.3g}" for limit in found["prediction_limits_ms"]]
        count = len(found["measurements"])
        tightened = f"; predictions tightened to {', '.join(limits[1:])} ms" if len(limits) > 1 else ""
        rows.append(("finalists measured", f"{count}, {count - 1} of them over the budget{tightened}"))
    return rows
