"""On-off patterns of ReLUs and their like: which units are on for which images, and how many patterns differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

_PART = 24
"""Bits that float32 adds up exactly."""

_WORD = 62
"""Bits kept in one int64."""

_TABLE = 1 << 22
"""Up to this many possible patterns, those seen are marked in a table; beyond, they are sorted."""

_LIKE_RELU = frozenset(
    """
    celu elu gelu hardswish hardtanh leaky_relu mish prelu relu relu6 rrelu selu silu softplus softsign tanh threshold
    """.split()  # noqa: SIM905  read as a list of words
)
"""Activations whose units count, by torch's names: they bend or turn at zero. Gates (sigmoids, GLU) don't."""


def units_on(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Which units of an activation are on: those whose input is above zero, or above a threshold's own level.

    Args:
        func: Any torch function.
        args: What it is called with, before it runs.
        kwargs: Its keyword arguments.

    Returns:
        Booleans of the input's shape; None where the function is no such activation.

    Example:
        >>> units_on(torch.nn.functional.hardswish, [torch.tensor([-1.0, 0.0, 2.0])], {}).tolist()
        [False, False, True]
        >>> units_on(torch.sigmoid, [torch.zeros(2)], {}) is None
        True
    """
    name = getattr(func, "__name__", "").strip("_")
    if name not in _LIKE_RELU:
        return None
    x = args[0] if args else kwargs["input"]
    level = (args[1] if len(args) > 1 else kwargs["threshold"]) if name == "threshold" else 0
    on: Tensor = x.detach() > level
    return on


def relu_units(relus: Sequence[Tensor], images: int, *, spatial: bool = False) -> list[Tensor]:
    """Every activation's units as a matrix ``(N, units)``, without a copy where memory allows.

    Units stand in the order in which they lie in memory, the same for all images.

    Args:
        relus: Of each of the network's activations which units are on, ``(N, ...)``, or of a ReLU its result.
        images: N.
        spatial: Leave out those without spatial axes.

    Raises:
        ProxyError: There is none, or one whose first axis is not the images.

    Example:
        >>> [tuple(units.shape) for units in relu_units([torch.ones(2, 3, 4, 4), torch.ones(2, 5)], 2)]
        [(2, 48), (2, 5)]
    """
    wanted = [relu for relu in relus if relu.dim() > 2 or not spatial]
    if not wanted:
        where = " on a feature map" if spatial else ""
        raise ProxyError(
            f"this proxy reads ReLUs and their like, and the module calls none{where} "
            f"({', '.join(sorted(_LIKE_RELU))} count, gates don't)"
        )
    for relu in wanted:
        if relu.dim() < 2 or len(relu) != images:
            raise ProxyError(
                f"expected activations of {images} images on the first axis, got shape {tuple(relu.shape)}"
            )
    return [_flat(relu) for relu in wanted]


def shared_units(units: Tensor) -> Tensor:
    """How many units are on in both images, for every pair ``(N, N)``; float64, exact.

    Args:
        units: Which units are on ``(N, units)``: booleans, or a ReLU's result.

    Example:
        >>> shared_units(torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 0.0]])).tolist()
        [[2.0, 1.0], [1.0, 1.0]]
    """
    counts = torch.zeros(len(units), len(units), dtype=torch.float64, device=units.device)
    for part in torch.split(units, 1 << _PART, dim=1):
        codes = _codes(part)
        counts += codes @ codes.T
    return counts


def unit_codes(units: Tensor) -> Tensor:
    """Every unit's pattern over the images, as bits: int64 ``(words, units)``, 62 images a word.

    Args:
        units: Which units are on ``(N, units)``: booleans, or a ReLU's result.

    Example:
        >>> unit_codes(torch.tensor([[1.0, 0.0, 3.0], [0.0, 0.0, 2.0]])).tolist()  # two images, three units
        [[1, 0, 3]]
    """
    codes = _codes(units)
    return torch.stack([_pack(word) for word in torch.split(codes, _WORD)])


def count_patterns(codes: Tensor) -> int:
    """How many units' patterns differ.

    Args:
        codes: From `unit_codes`; of several activations, ``torch.cat([...], dim=1)``.

    Example:
        >>> count_patterns(torch.tensor([[1, 0, 3, 0]]))
        3
    """
    merged = codes[0]
    for word in codes[1:]:  # words become ranks, so that two fit in one again
        _, first = torch.unique(merged, return_inverse=True)
        _, second = torch.unique(word, return_inverse=True)
        merged = first * (second.max() + 1) + second
    largest = int(merged.max())
    if largest < _TABLE:
        seen = torch.zeros(largest + 1, dtype=torch.bool, device=merged.device)
        seen[merged] = True
        return int(seen.sum())
    return len(torch.unique(merged))


def count_images(relus: Sequence[Tensor]) -> int:
    """How many images differ in the pattern of their units; it reads only as many activations as tell them apart.

    Args:
        relus: Which units are on ``(N, units)``: booleans, or a ReLU's result.

    Example:
        >>> count_images([torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])])
        2
    """
    images = len(relus[0])
    same = torch.ones(images, images, dtype=torch.bool, device=relus[0].device)
    for units in relus:
        (tied,) = torch.nonzero(same.sum(1) > 1, as_tuple=True)
        if not len(tied):
            break
        counts = shared_units(units if len(tied) == images else units[tied])
        own = counts.diagonal()
        same[tied[:, None], tied] &= (counts == own) & (counts == own[:, None])
    return int((~same.tril(-1).any(1)).sum())


def duplicates(agreements: Tensor, units: int) -> Iterator[tuple[int, int]]:
    """Pairs of images, numbered from 0, that agree in all units."""
    pairs = torch.nonzero((agreements == units).triu(1)).tolist()
    yield from ((first, second) for first, second in pairs)


def _flat(relu: Tensor) -> Tensor:
    if relu.dim() == 4 and relu.is_contiguous(memory_format=torch.channels_last):
        return relu.permute(0, 2, 3, 1).flatten(1)
    return relu.flatten(1)


def _codes(units: Tensor) -> Tensor:
    """1 where a unit is on, else 0, in a type whose products are exact."""
    return units.float() if units.dtype == torch.bool else (units > 0).float()


def _pack(codes: Tensor) -> Tensor:
    """Up to 62 rows of zeros and ones as the bits of one row."""
    word = torch.zeros(codes.shape[1], dtype=torch.int64, device=codes.device)
    for start in range(0, len(codes), _PART):
        part = codes[start : start + _PART]
        bits = torch.exp2(torch.arange(len(part), dtype=part.dtype, device=part.device))
        word += (bits @ part).long() << start
    return word
