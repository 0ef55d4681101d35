"""Structure lists of TinyNAS, a format of chains: ``[{"class": "SuperResK1KXK1", "in": 32, "out": 96, ...}, ...]``.

DeepMAD's and MAE-DET's networks are published so.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.architecture.plainnet import MAX_TEXT
from zeroshot_nas.core.text import quoted
from zeroshot_nas.errors import ArchitectureError, did_you_mean

_STRUCTURE = re.compile(r"""\s*[\[{].{0,1000}?['"](class|best_structures)['"]\s*:""", re.DOTALL)

_CLASSES: dict[str, tuple[str, dict[str, bool]]] = {
    "ConvKXBNRELU": ("SuperConvK{k}BNRELU", {}),
    "SuperResK1KXK1": ("TinyNASK1K{k}K1", {}),
    "SuperResKXKX": ("TinyNASK{k}K{k}", {}),
    "SuperResK1KX": ("TinyNASK1K{k}", {}),
    "SuperResK1DWK1": ("TinyNASK1DW{k}K1", {}),
    "SuperResK1DWSEK1": ("TinyNASK1DW{k}K1", {"squeeze_excite": True}),
}
"""TinyNAS's classes: the names of ours, and what else sets them apart.

``SuperResConv...`` is what another release calls them, ``SuperQuantRes...`` the same with the bits of their weights.
"""

_IGNORED = {"inner_class", "nbitsA", "nbitsW", "force_resproj_skip"}
"""Keys that change nothing of the network in floating point."""


def is_structure_list(text: str) -> bool:
    """Whether a text begins as a structure list does.

    Example:
        >>> is_structure_list("[{'class': 'ConvKXBNRELU'}]"), is_structure_list("SuperConvK3BNRELU(3,8,1,1)")
        (True, False)
    """
    return _STRUCTURE.match(text) is not None


def read_structure_list(text: str, input_size: Shape) -> tuple[BlockSpec, ...]:
    """The blocks of a structure list, or of the first one of a file of TinyNAS's (``{'best_structures': [[...]]}``).

    Args:
        text: Python's or JSON's notation.
        input_size: Shape of one image; sides that a stride does not divide are pooled in other windows.

    Raises:
        ArchitectureError: The text is malformed, a block is not known or has options that are not, or two neighbours
            disagree about the channels between them; the block is named by its number.

    Example:
        >>> stem, = read_structure_list("[{'class': 'ConvKXBNRELU', 'in': 3, 'out': 16, 's': 2, 'k': 3}]", (3, 8, 8))
        >>> stem.type_name, stem.out_channels, stem.stride
        ('SuperConvK3BNRELU', 16, 2)
    """
    if len(text) > MAX_TEXT:
        raise ArchitectureError(f"a structure list has at most {MAX_TEXT:,} characters, got {len(text):,}")
    try:
        data = ast.literal_eval(text.strip())
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ArchitectureError(f"malformed structure list: {str(error)[:100]}") from None
    if isinstance(data, dict) and isinstance(data.get("best_structures"), list) and data["best_structures"]:
        data = data["best_structures"][0]
    if not isinstance(data, list):
        raise ArchitectureError(f"malformed structure list: expected a list of blocks, got {quoted(data)}")
    blocks: list[BlockSpec] = []
    (channels, height, width), before = input_size, "the input"
    for number, entry in enumerate(data, start=1):
        taken, block = _block(entry, number, height % 2 == 0 and width % 2 == 0)
        if taken != channels:
            raise ArchitectureError(
                f"channels do not match: {before} gives {channels}, but block {number} takes {taken}"
            )
        blocks.append(block)
        channels, before = block.out_channels, f"block {number}"
        height, width = -(-height // block.stride), -(-width // block.stride)
    return tuple(blocks)


def _block(entry: Any, number: int, even_sides: bool) -> tuple[Any, BlockSpec]:
    """The input channels and the block of one entry."""
    if not isinstance(entry, dict) or not isinstance(entry.get("class"), str):
        raise ArchitectureError(
            f"block {number} of a structure list must be a dict with a 'class', got {quoted(entry)}"
        )
    given = entry["class"]
    name = given.replace("SuperResConv", "SuperRes").replace("SuperQuantRes", "SuperRes")
    if name not in _CLASSES:
        raise ArchitectureError(
            f"unknown class {quoted(given)} of block {number}.{did_you_mean(given[:60], _CLASSES)} "
            f"Known: {', '.join(_CLASSES)}"
        )
    values = {key: value for key, value in entry.items() if key not in _IGNORED}
    template, fixed = _CLASSES[name]
    needed = {"class", "in", "out", "k", *(("L", "btn") if name.startswith("Super") else ())}
    _check_keys(values, needed, number)
    block_name = template.format(k=values["k"])
    if block_name not in BLOCKS:
        raise ArchitectureError(f"block {number}: {name} has no kernel size {quoted(values['k'])}")
    options: dict[str, Any] = {"out_channels": values["out"], "stride": values.get("s", 1), **fixed}
    if "L" in needed:
        options |= {"sub_layers": values["L"], "bottleneck_channels": values["btn"]}
        options["even_sides"] = even_sides and options["stride"] == 2
    try:
        return values["in"], BLOCKS[block_name](**options)
    except ArchitectureError as error:
        raise ArchitectureError(f"block {number}: {error}") from None


def _check_keys(values: Mapping[Any, Any], needed: set[str], number: int) -> None:
    if missing := sorted(needed - set(values)):
        raise ArchitectureError(f"block {number} of a structure list lacks {', '.join(missing)}")
    k = values["k"]
    usual = {"s": values.get("s"), "g": 1, "act": "relu", "p": (k - 1) // 2 if type(k) is int else None}
    for key in values:
        if key not in needed and (key not in usual or values[key] != usual[key]):
            raise ArchitectureError(
                f"block {number} of a structure list: {quoted(key)} = {quoted(values[key])} is not known"
            )
