"""Mixed precision: the bits of each layer's weights that lose least within a limit on flash. No torch here."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from zeroshot_nas.architecture.architecture import WEIGHT_BITS, Architecture
from zeroshot_nas.closed_form.rounding import Layer, layers_of
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.errors import BudgetError
from zeroshot_nas.micro.memory import layer_weights, weight_bytes
from zeroshot_nas.micro.operators import packed_bytes


def allocate_bits(architecture: Architecture, weights: float | str, bits: Sequence[int] = (4, 8)) -> Architecture:
    """The architecture with the bits of each layer's weights that lose least within a limit on their bytes.

    Each layer begins with the fewest; then the bits are added that take most noise from the logits for a byte
    (`zeroshot_nas.closed_form.rounding`), as long as they fit. No allocation beats that by more than one such step.

    Args:
        architecture: What to store.
        weights: Bytes of flash for weights, biases and scales, or such a text: ``"64kB"``, ``"64KiB"``.
        bits: What a layer may have.

    Returns:
        The architecture with ``weight_bits``, the fewest in all layers where that is too much still; `cost` has its
        bytes. `quantize_aware` trains it, ``export --format tflite`` writes it.

    Raises:
        BudgetError: The limit is none, or the bits are not of 2, 4 and 8.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)", (3, 16, 16))
        >>> allocate_bits(net, "9kB").weight_bits, allocate_bits(net, "8kB").weight_bits
        ((8, 8, 4, 8, 8), (8, 4, 4, 8, 8))
    """
    choices = checked_bits(bits)
    layers = layers_of(architecture)
    found = [choices[0]] * len(layers)
    left = Budget(weights=weights).limits()["weights"] - fewest_bytes(architecture, choices)
    if left < 0:
        return replace(architecture, weight_bits=tuple(found))
    steps = [step for place, layer in enumerate(layers) if (step := _step(place, layer, found[place], choices))]
    heapq.heapify(steps)
    while steps:
        step = heapq.heappop(steps)
        if step.bytes > left:
            continue
        left -= step.bytes
        found[step.place] = step.bits
        if further := _step(step.place, layers[step.place], step.bits, choices):
            heapq.heappush(steps, further)
    return replace(architecture, weight_bits=tuple(found))


@dataclass(frozen=True)
class BitAllocation:
    """`allocate_bits` with all but the architecture given; architectures that come again are known.

    Attributes:
        weights: Bytes.
        bits: What a layer may have.
    """

    weights: float
    bits: tuple[int, ...]

    def __call__(self, architecture: Architecture) -> Architecture:
        return _known(architecture, self)


@dataclass(frozen=True)
class StoredForm:
    """A closed form, or that of many, of architectures as they will be stored.

    Attributes:
        form: Takes architectures with the bits of their weights.
        stored: Gives them.
    """

    form: Callable[[Any], Any]
    stored: BitAllocation

    def __call__(self, architectures: Architecture | Sequence[Architecture]) -> Any:
        if isinstance(architectures, Architecture):
            return self.form(self.stored(architectures))
        return self.form([self.stored(each) for each in architectures])


@lru_cache(maxsize=65_536)
def _known(architecture: Architecture, allocation: BitAllocation) -> Architecture:
    return allocate_bits(architecture, allocation.weights, allocation.bits)


def fewest_bytes(architecture: Architecture, bits: Sequence[int]) -> int:
    """Bytes of flash where every layer has the fewest bits."""
    weights = layer_weights(architecture)
    saved = sum(each - packed_bytes(each, min(bits)) for each in weights)
    return weight_bytes(replace(architecture, weight_bits=None)) - saved


def checked_bits(bits: Sequence[int]) -> tuple[int, ...]:
    """Bits in order, each once.

    Raises:
        BudgetError: They are not of `WEIGHT_BITS`.
    """
    if isinstance(bits, str) or not isinstance(bits, Sequence) or not bits or not set(bits) <= set(WEIGHT_BITS):
        raise BudgetError(f"bits are some of 2, 4 and 8, such as (4, 8); got {bits!r:.80}")
    return tuple(sorted(set(bits)))


class _Step(NamedTuple):
    """More bits for a layer; the smallest comes first.

    Attributes:
        loses: Noise that it takes away for a byte, negative.
        place: The layer's.
        bytes: What it takes.
        bits: How many it leads to.
    """

    loses: float
    place: int
    bytes: int
    bits: int


def _step(place: int, layer: Layer, bits: int, choices: Sequence[int]) -> _Step | None:
    """A layer's next step; the ones behind it take less noise away for a byte."""
    more = next((each for each in choices if each > bits), None)
    if more is None:
        return None
    size = layer.bytes(more) - layer.bytes(bits)
    return _Step((layer.noise(more) - layer.noise(bits)) / max(size, 1), place, size, more)
