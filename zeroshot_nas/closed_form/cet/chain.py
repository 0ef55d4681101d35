"""The mean field of many chains without pooling at once: the same values as the general propagation, in fewer numbers.

Energies and combs depend on the kinds of layers alone (`zeroshot_nas.closed_form.cet.combs`): they are worked out once
for each unit and what reaches it, and looked up from then on. Excess, where the widths are, passes through a unit as an
affine map, x to a x + c. So all units of all networks are worked out side by side, then each network's maps are applied
one after the other, and what its layers see follows for all of them side by side again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, repeat
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.architecture.ops import Resolution
from zeroshot_nas.chains.coding import Chains
from zeroshot_nas.chains.lowering import GATE, LOWERING, SHORTCUT, Blocks, Index, resolutions
from zeroshot_nas.closed_form.cet.combs import Combs, constant_combs, pass_back, pass_forward, places
from zeroshot_nas.closed_form.cet.propagation import LINEAR_SHARE
from zeroshot_nas.closed_form.cet.spectra import Array
from zeroshot_nas.closed_form.cet.terms import GRADIENT_GAIN, LINEAR_LOSS, ConvColumns

RELU_EXCESS = LINEAR_SHARE**2
"""Part of the excess that a ReLU leaves."""

REMEMBERED = 100_000
"""Passes through units that are remembered; a bound on memory."""


class ChainColumns(NamedTuple):
    """The convolutions of chains, and what their networks have beside them.

    Attributes:
        nets: For each convolution the number of its network, ascending.
        columns: The convolutions.
        depth_forward: D_f of each network.
        depth_backward: D_b of each network.
    """

    nets: Index
    columns: ConvColumns
    depth_forward: Array
    depth_backward: Array


def propagate_chains(chains: Chains) -> ChainColumns:
    """The convolutions of chains that `LOWERING` covers, with the numbers that the general propagation gives them."""
    blocks = LOWERING.blocks(chains)
    units = _units(blocks)
    passes = _passes_through(units, chains)
    convs = _convolutions(blocks, units, passes)
    signal, gradient = _forward_maps(units, passes, convs), _backward_maps(units, passes, convs)
    ends = np.flatnonzero(np.diff(blocks.net, append=len(chains)))  # each network's last block
    entering = _applied(units, signal, np.zeros(len(chains)))
    arriving = _applied(units, gradient, blocks.channels[ends, 1] / chains.num_classes, backwards=True)
    height, width = resolutions(chains, blocks.shrunk[ends] * blocks.stride[ends])
    last = np.flatnonzero(np.diff(units.net, append=len(chains)))
    energy, rectified = passes.energy[last], units.kinds["rectified"][last]
    linear = np.bincount(units.net, passes.log_linear, len(chains))
    growth = np.bincount(units.net, passes.log_growth, len(chains))
    growth += np.log(chains.resolution[0] * chains.resolution[1] / (height * width * energy))
    return ChainColumns(
        units.net[convs.unit],
        _columns(convs, signal, gradient, entering, arriving),
        (np.log(energy) - linear) / LINEAR_LOSS - rectified,  # behind a ReLU at the end only the head is left: no layer
        growth / GRADIENT_GAIN - rectified,
    )


class _Units(NamedTuple):
    """The units of chains, network by network.

    Attributes:
        net: Number of each one's network.
        kind: Its number in `LOWERING.unit_kinds`.
        kinds: What is known of that: a column for each field of `_UnitRow`.
        shrunk: By what height and width are divided before it.
        block: The block of each sub-layer.
        sub_layer_kind: The kind of each sub-layer.
        first: The first unit of each sub-layer.
    """

    net: Index
    kind: Index
    kinds: dict[str, NDArray[Any]]
    shrunk: NDArray[np.int64]
    block: Index
    sub_layer_kind: Index
    first: Index


def _units(blocks: Blocks) -> _Units:
    block = np.repeat(np.arange(len(blocks.net)), blocks.sub_layers)
    begins = np.diff(block, prepend=-1) > 0
    sub_layer_kind = np.where(begins, blocks.first[block], blocks.following[block])
    columns = LOWERING.columns
    counts = columns["units"][sub_layer_kind]
    first = np.cumsum(counts) - counts
    sub_layer = np.repeat(np.arange(len(block)), counts)
    row = np.arange(len(sub_layer)) + (columns["units_start"][sub_layer_kind] - first)[sub_layer]
    own = block[sub_layer]
    is_behind = ~begins[sub_layer] | (columns["unit_is_behind_stride"][row] == 1)
    shrunk = blocks.shrunk[own] * np.where(is_behind, blocks.stride[own], 1)
    kind = columns["unit_kind"][row]
    kinds = {name: column[kind] for name, column in _unit_columns(len(LOWERING.unit_kinds)).items()}
    return _Units(blocks.net[own], kind, kinds, shrunk, block, sub_layer_kind, first)


@lru_cache(maxsize=2)
def _unit_columns(count: int) -> dict[str, NDArray[Any]]:
    """Of the first units that were met whether each is rectified, and its body's ReLUs ``(units, convolutions)``."""
    kinds, width = LOWERING.unit_kinds[:count], _most_convolutions(count)
    relus = np.zeros((count, width), np.bool_)
    for place, kind in enumerate(kinds):
        relus[place, : len(kind.body)] = [rectified for *_, rectified in kind.body]
    return {"rectified": np.array([kind.rectified for kind in kinds]), "relus": relus}


def _most_convolutions(count: int) -> int:
    """Convolutions that the body of a unit has at most."""
    return max(len(kind.body) for kind in LOWERING.unit_kinds[:count])


class _PassRows(NamedTuple):
    """Both passes through units without widths, a row each; convolutions of the body in order, the shortcut's last.

    Attributes:
        shares: Squared shares of body and shortcut in a sum's energy ``(units, 2)``.
        log_linear: Logarithm of the share of energy that stays linear.
        energy: Energy behind each.
        ranks: Independent taps of patches of white maps ``(units, convolutions)``.
        positions: Output positions ``(units, convolutions)``.
        shares_back: As ``shares``, of gradients.
        log_growth: Logarithm of a gradient's energy before it over that behind it.
        dilutions: All positions over the effective ones of gradients ``(units, convolutions)``.
        taps: Mean of squared correlations over pairs of taps ``(units, convolutions)``.
    """

    shares: Array
    log_linear: Array
    energy: Array
    ranks: Array
    positions: Array
    shares_back: Array
    log_growth: Array
    dilutions: Array
    taps: Array


class _Step(NamedTuple):
    """A unit, by its number in `LOWERING.unit_kinds`, and height and width before it."""

    kind: int
    height: int
    width: int


class _Table:
    """Rows of numbers that are added one by one, and read side by side."""

    def __init__(self, width: int) -> None:
        self._rows = np.empty((1_024, width))
        self.count = 0

    def add(self, row: Sequence[float]) -> int:
        if self.count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[self.count] = row
        self.count += 1
        return self.count - 1

    def __getitem__(self, rows: Index) -> Array:
        found: Array = self._rows[rows]
        return found


@dataclass
class _Passes:
    """Passes through units that were worked out so far: networks of equal units once, and units where they begin alike.

    Attributes:
        width: Convolutions of a unit at most, a shortcut's among them.
        networks: By input resolution and units, rows of ``signals`` and ``gradients``.
        ahead: By unit, resolution and energy before it, its row of ``signals``.
        back: By that row and the combs behind it, its row of ``gradients``.
        entered, behind: For each row of ``signals`` the energies before its convolutions, and behind it.
        before: For each row of ``gradients`` the combs before it, by their number in ``of_combs``.
    """

    width: int
    signals: _Table
    gradients: _Table
    networks: dict[tuple[Resolution, bytes], tuple[Index, Index]] = field(default_factory=dict)
    ahead: dict[tuple[_Step, float], int] = field(default_factory=dict)
    back: dict[tuple[int, int], int] = field(default_factory=dict)
    entered: list[tuple[float, ...]] = field(default_factory=list)
    behind: list[float] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    combs: dict[Combs, int] = field(default_factory=dict)
    of_combs: list[Combs] = field(default_factory=list)

    @classmethod
    def of_width(cls, width: int) -> _Passes:
        return cls(width, _Table(4 + 2 * width), _Table(3 + 2 * width))

    @property
    def is_full(self) -> bool:
        """Whether memory asks to begin anew."""
        return max(len(self.networks), len(self.ahead), len(self.back)) > REMEMBERED

    def rows(self, units: _Units, chains: Chains) -> _PassRows:
        """The passes through units."""
        steps = units.kind << 16 | units.shrunk
        resolutions = repeat(chains.input_size[1:]) if chains.sides is None else map(tuple, chains.sides.tolist())
        ends = np.cumsum(np.bincount(units.net, minlength=len(chains))).tolist()
        found = []
        for (begin, end), resolution in zip(pairwise((0, *ends)), resolutions, strict=False):
            key = resolution, steps[begin:end].tobytes()
            if (rows := self.networks.get(key)) is None:
                rows = self.networks[key] = self._network(steps[begin:end].tolist(), resolution)
            found.append(rows)
        ahead, back = (np.concatenate(rows) for rows in zip(*found, strict=True))
        signal, gradient = self.signals[ahead], self.gradients[back]
        one, two = 4 + self.width, 3 + self.width
        return _PassRows(
            *(signal[:, :2], signal[:, 2], signal[:, 3], signal[:, 4:one], signal[:, one:]),
            *(gradient[:, :2], gradient[:, 2], gradient[:, 3:two], gradient[:, two:]),
        )

    def _network(self, steps: Sequence[int], resolution: Resolution) -> tuple[Index, Index]:
        """The rows of one network's units, which are given by their kind and by what the image is divided by there."""
        height, width = resolution
        placed = [_Step(step >> 16, -(-height // (step & 0xFFFF)), -(-width // (step & 0xFFFF))) for step in steps]
        ahead, energy = list[int](), 1.0
        for step in placed:
            known = self.ahead.get((step, energy))
            ahead.append(self._ahead(step, energy) if known is None else known)
            energy = self.behind[ahead[-1]]
        back, combs = list[int](), self._number(_constant(placed[-1]))
        for row, step in zip(reversed(ahead), reversed(placed), strict=True):
            known = self.back.get((row, combs))
            back.append(self._back(row, step, combs) if known is None else known)
            combs = self.before[back[-1]]
        return np.array(ahead), np.array(back[::-1])

    def _ahead(self, step: _Step, energy: float) -> int:
        unit = LOWERING.unit_kinds[step.kind]
        passed = pass_forward(unit, energy)
        convs = places(unit, step[1:])
        ranks, positions = ([getattr(conv, name) for conv in convs] for name in ("rank", "positions"))
        own = (*passed.shares, np.log(passed.linear), passed.energy)
        row = self.signals.add((*own, *self._padded(unit, ranks), *self._padded(unit, positions)))
        self.ahead[step, energy] = row
        self.entered.append(passed.entered)
        self.behind.append(passed.energy)
        return row

    def _back(self, row: int, step: _Step, combs: int) -> int:
        unit = LOWERING.unit_kinds[step.kind]
        convs = places(unit, step[1:])
        passed = pass_back(unit, convs, self.entered[row], self.of_combs[combs])
        own = (*passed.shares, np.log(passed.energy))
        came = self.gradients.add((*own, *self._padded(unit, passed.dilutions), *self._padded(unit, passed.taps)))
        self.back[row, combs] = came
        self.before.append(self._number(passed.combs))
        return came

    def _padded(self, unit: Any, values: Sequence[float]) -> list[float]:
        """Values of a unit's convolutions, the shortcut's last."""
        count = len(unit.body)
        return [*values[:count], *[1.0] * (self.width - 1 - count), *(values[count:] or [1.0])]

    def _number(self, combs: Combs) -> int:
        if combs not in self.combs:
            self.combs[combs] = len(self.of_combs)
            self.of_combs.append(combs)
        return self.combs[combs]


def _constant(step: _Step) -> Combs:
    """The combs behind a network's last unit."""
    _, height, width = step
    for _, stride, *_ in LOWERING.unit_kinds[step.kind].body:
        height, width = -(-height // stride), -(-width // stride)
    return constant_combs((1, height, width))


_passes: dict[int, _Passes] = {}  # by their width; the last one alone
_passing = Lock()  # executors may have threads


def _passes_through(units: _Units, chains: Chains) -> _PassRows:
    with _passing:
        width = 1 + _most_convolutions(len(LOWERING.unit_kinds))
        if width not in _passes or _passes[width].is_full:
            _passes.clear()
            _passes[width] = _Passes.of_width(width)
        return _passes[width].rows(units, chains)


class _Convolutions(NamedTuple):
    """The convolutions of chains, network by network; those of gates do not count.

    Attributes:
        unit: Each one's unit.
        place: Its place in the body; behind all of them, the shortcut.
        in_channels, out_channels, fan_in, positions: Its numbers.
        rank: Patch rank of an input without excess.
        dilution: All positions over the effective ones of its gradient.
        is_stem: True where it reads the image.
        gain, dense, gain_back: ``(units, places)``; excess e of an input becomes ``gain * (dense + e)``, of an output's
            gradient ``gain_back * (dense + e)``. Of places without a convolution 1, 0 and 1.
    """

    unit: Index
    place: Index
    in_channels: Array
    out_channels: Array
    fan_in: Array
    positions: Array
    rank: Array
    dilution: Array
    is_stem: NDArray[np.bool_]
    gain: Array
    dense: Array
    gain_back: Array


def _convolutions(blocks: Blocks, units: _Units, passes: _PassRows) -> _Convolutions:
    found = LOWERING.convolutions(blocks, units.block, units.sub_layer_kind)
    columns = LOWERING.columns
    role = columns["role"][found.slot]
    counted = np.flatnonzero(role != GATE)
    slot, sub_layer = found.slot[counted], found.sub_layer[counted]
    unit = units.first[sub_layer] + columns["unit"][slot]
    last = passes.ranks.shape[1] - 1
    place = np.where(role[counted] == SHORTCUT, last, columns["place"][slot])
    in_channels, out_channels = found.in_channels[counted].astype(float), found.out_channels[counted].astype(float)
    dense = (~found.depthwise[counted]).astype(float)
    read = np.where(dense == 1, in_channels, 1.0)  # channels that an output channel reads
    at = unit, place
    rank = passes.ranks[at] * read
    tables = np.ones((3, len(units.net), last + 1))
    tables[1] = 0.0
    tables[:, unit, place] = (
        np.where(dense == 1, out_channels, 1.0) / rank,
        dense,
        passes.taps[at] * np.where(dense == 1, in_channels / out_channels, 1.0),
    )
    begins = np.diff(units.net[unit], prepend=-1) > 0
    first_sub_layer = np.maximum.accumulate(np.where(begins, sub_layer, 0))
    is_stem = columns["reads_entering"][slot] & (sub_layer == first_sub_layer)
    fan_in = read * columns["taps"][slot]
    return _Convolutions(
        *(unit, place, in_channels, out_channels, fan_in, passes.positions[at], rank, passes.dilutions[at], is_stem),
        *tables,
    )


class _Maps(NamedTuple):
    """What units make of an excess x, as affine maps ``slope * x + constant``.

    Attributes:
        slope, constant: Through each unit ``(units,)``.
        slopes, constants: To the tensor that each convolution puts out, or for gradients to the one that reaches it
            ``(units, places)``.
        read: Forward, to the inputs of dense convolutions, the same.
    """

    slope: Array
    constant: Array
    slopes: Array
    constants: Array
    read: tuple[Array, Array]


def _forward_maps(units: _Units, passes: _PassRows, convs: _Convolutions) -> _Maps:
    relus = np.where(units.kinds["relus"], RELU_EXCESS, 1.0)
    slopes, constants = np.ones_like(convs.gain), np.zeros_like(convs.gain)
    read_slopes, read = np.ones_like(convs.gain), np.zeros_like(convs.gain)
    slope, constant = np.ones(len(relus)), np.zeros(len(relus))
    for place in range(relus.shape[1]):
        slope, constant = slope * relus[:, place], constant * relus[:, place]
        read_slopes[:, place], read[:, place] = slope, constant
        slope, constant = convs.gain[:, place] * slope, convs.gain[:, place] * (convs.dense[:, place] + constant)
        slopes[:, place], constants[:, place] = slope, constant
    side_slope, side = convs.gain[:, -1], convs.gain[:, -1] * convs.dense[:, -1]
    slopes[:, -1], constants[:, -1] = side_slope, side
    one, two = passes.shares.T
    factor = np.where(units.kinds["rectified"], RELU_EXCESS, 1.0)
    slope, constant = factor * (one * slope + two * side_slope), factor * (one * constant + two * side)
    return _Maps(slope, constant, slopes, constants, (read_slopes, read))


def _backward_maps(units: _Units, passes: _PassRows, convs: _Convolutions) -> _Maps:
    relus = np.where(units.kinds["relus"], 0.25, 1.0)  # the mask's fluctuations, half of the energy, have no excess
    slopes, constants = np.ones_like(convs.gain), np.zeros_like(convs.gain)
    came = np.where(units.kinds["rectified"], 0.25, 1.0)
    slope, constant = came, np.zeros(len(came))
    for place in reversed(range(relus.shape[1])):
        slopes[:, place], constants[:, place] = slope, constant
        back = convs.gain_back[:, place]
        slope, constant = back * slope, back * (convs.dense[:, place] + constant)
        slope, constant = slope * relus[:, place], constant * relus[:, place]
    slopes[:, -1] = came
    side_slope, side = convs.gain_back[:, -1] * came, convs.gain_back[:, -1] * convs.dense[:, -1]
    one, two = passes.shares_back.T
    slope, constant = one * slope + two * side_slope, one * constant + two * side
    return _Maps(slope, constant, slopes, constants, (slopes, constants))


def _applied(units: _Units, maps: _Maps, start: Array, *, backwards: bool = False) -> Array:
    """The excess that reaches each unit, given that at each network's beginning, or backwards at its end."""
    counts = np.bincount(units.net, minlength=len(start))
    order = np.argsort(-counts, kind="stable")  # the deepest first, so that each step is a slice
    left = np.searchsorted(-counts[order], -np.arange(counts.max()), "left")
    first = (np.cumsum(counts) - counts)[order] if not backwards else (np.cumsum(counts) - 1)[order]
    step = -1 if backwards else 1
    reaching, excess = np.empty(len(units.net)), start[order].astype(float)
    for index, count in enumerate(left.tolist()):
        unit = first[:count] + step * index
        reaching[unit] = excess[:count]
        excess[:count] = maps.slope[unit] * excess[:count] + maps.constant[unit]
    return reaching


def _columns(convs: _Convolutions, signal: _Maps, gradient: _Maps, entering: Array, arriving: Array) -> ConvColumns:
    at = convs.unit, convs.place
    x, y = entering[convs.unit], arriving[convs.unit]
    read = convs.dense[at] * (signal.read[0][at] * x + signal.read[1][at])
    output = 1 + signal.slopes[at] * x + signal.constants[at]
    reached = 1 + gradient.slopes[at] * y + gradient.constants[at]
    return ConvColumns(
        out_channels=convs.out_channels,
        in_channels=convs.in_channels,
        fan_in=convs.fan_in,
        positions=convs.positions,
        patch_rank=convs.rank / (1 + read),
        novelty=np.ones(len(x)),
        output_rank=convs.out_channels / output,
        output_positions=convs.positions,
        gradient_rank=convs.out_channels / reached,
        gradient_positions=convs.positions / convs.dilution,
        is_stem=convs.is_stem.astype(float),
    )
