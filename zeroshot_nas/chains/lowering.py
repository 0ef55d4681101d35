"""The convolutions of many chains as columns of numbers.

A block's operations are those that its class lowers to; nothing here says again what a block does. A *kind* is a
sub-layer without its widths. It is lowered once, with widths that tell which of its convolutions' channels follow which
of the block's three: input, output or bottleneck channels. Where they are another function of one of these (what an
inverted residual expands to), that function is tabulated by lowering, a value at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from threading import RLock
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.architecture.ops import Activation, BatchNorm, Conv, Gate, Op, Residual
from zeroshot_nas.chains.coding import KINDS, Chains, Codes, block_of_kind, field_of, kind_of, mixed, type_of_kind

Index: TypeAlias = NDArray[np.intp]

BODY, SHORTCUT, GATE = range(3)
"""Where a convolution stands: in a unit's body, in its shortcut, or in a gate, where it sees a map of one position."""


class UnitKind(NamedTuple):
    """A residual unit, or a convolution alone, without its widths.

    Attributes:
        body: For each convolution of the body its kernel size, stride, dilation, whether it is depthwise, and whether
            a ReLU stands before it.
        shortcut: The same of the shortcut's convolution; None where it has none.
        is_fork: Whether there is a shortcut, be it the identity.
        rectified: Whether a ReLU follows.
    """

    body: tuple[tuple[int, int, int, bool, bool], ...]
    shortcut: tuple[int, int, int, bool, bool] | None
    is_fork: bool
    rectified: bool


class _Slot(NamedTuple):
    """A convolution of a kind, as columns of `Lowering`; channels as (which of the block's widths, which function)."""

    role: int
    unit: int
    place: int
    kernel_size: int
    stride: int
    depthwise: bool
    is_behind_stride: bool  # its output
    reads_entering: bool
    in_channels: tuple[int, int]
    out_channels: tuple[int, int]


class _Kind(NamedTuple):
    is_first: bool
    slots: tuple[_Slot, ...]
    units: tuple[int, ...]  # by their number in `Lowering.unit_kinds`


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of chains, network by network.

    Attributes:
        net: Number of each one's network.
        resolution: Height and width of the network's images; two numbers, or a column each where these differ.
        code: Its code.
        channels: Input, output and bottleneck channels ``(blocks, 3)``.
        stride: Its stride.
        shrunk: By what height and width are divided before it.
        is_first: Whether it reads the image.
    """

    net: Index
    resolution: tuple[Any, Any]
    code: Codes
    channels: Codes
    stride: Codes
    shrunk: Codes
    is_first: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.net)

    def take(self, places: Index) -> Blocks:
        """The blocks in these places, each as a network of its own."""
        height, width = (side[places] if isinstance(side, np.ndarray) else side for side in self.resolution)
        return Blocks(
            np.arange(len(places)),
            (height, width),
            self.code[places],
            self.channels[places],
            self.stride[places],
            self.shrunk[places],
            self.is_first[places],
        )

    @cached_property
    def sub_layers(self) -> Codes:
        """Sub-layers of each."""
        return field_of(self.code, "sub_layers")

    @cached_property
    def first(self) -> Index:
        """The kind of each one's first sub-layer; `NONE` where there is none."""
        return LOWERING.kinds_of(self.code, self.channels, is_first=True)

    @cached_property
    def following(self) -> Index:
        """The kind of each one's other sub-layers; `NONE` where there is none."""
        return LOWERING.kinds_of(self.code, self.channels[:, [1, 1, 2]], is_first=False)

    @cached_property
    def sides(self) -> tuple[Codes, Codes]:
        """Height and width before each."""
        height, width = self.resolution
        return -(-height // self.shrunk), -(-width // self.shrunk)

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """A number of 64 bits for each block where it stands: its code, what enters it, and whether it is the first."""
        height, width = self.sides
        place = self.channels[:, 0] << 48 | self.is_first.astype(np.int64) << 47 | height << 23 | width
        return mixed(mixed(self.code.astype(np.uint64)) ^ place.astype(np.uint64))


@dataclass(frozen=True, eq=False)
class Convolutions:
    """Convolutions of sub-layers, in order, a row each.

    Attributes:
        sub_layer: Number of the sub-layer that each is in.
        slot: Number of its slot, for what `Lowering` knows of it.
        in_channels: Input channels.
        out_channels: Output channels.
        depthwise: True where it is depthwise.
        height, width: Of its output.
    """

    sub_layer: Index
    slot: Index
    in_channels: Codes
    out_channels: Codes
    depthwise: NDArray[np.bool_]
    height: Codes
    width: Codes

    @property
    def fan_in(self) -> Codes:
        """Inputs of an output value of each."""
        read: Codes = np.where(self.depthwise, 1, self.in_channels) * LOWERING.columns["taps"][self.slot]
        return read


class _Function(NamedTuple):
    """A convolution's channels as a function of one of its block's widths.

    Attributes:
        number: Its number.
        lowered: Lowers a kind that has it.
        label: The width, as ``lowered`` takes it.
        place: The convolution.
        what: ``in_channels`` or ``out_channels``.
        told_with: All functions of that width that the kind has.
    """

    number: int
    lowered: Callable[..., tuple[list[UnitKind], list[_Parsed]]]
    label: int
    place: int
    what: str
    told_with: list[_Function]


class _NoKindError(Exception):
    """A sub-layer is not made of convolutions with batch norms, ReLUs, gates and residual units of these."""


NONE, _UNKNOWN = -2, -1
"""In place of the number of a kind: that it has none, and that it was not looked for."""

_PROBES, _SPARE, _OTHER = (37, 53, 71), (41, 59, 79), 101
"""Widths that a kind is lowered with, others where one of these is asked for, and another in place of one.

They are odd, so that no rounding leaves them as they are.
"""


@dataclass
class Lowering:
    """All kinds that were met in this process, and their convolutions as columns.

    Attributes:
        unit_kinds: Units, by number.
        slots: A column for each field of a slot.
    """

    unit_kinds: list[UnitKind] = field(default_factory=list)
    _numbers: NDArray[np.int32] = field(default_factory=lambda: np.full(KINDS << 4, _UNKNOWN, np.int32))
    _made: list[_Kind] = field(default_factory=list)
    _functions: dict[tuple[Any, ...], int] = field(default_factory=dict)
    _of_number: list[_Function] = field(default_factory=list)
    _values: NDArray[np.int32] = field(default_factory=lambda: np.full((0, 0), _UNKNOWN, np.int32))
    _columns: dict[str, Any] | None = None
    _lock: RLock = field(default_factory=RLock)  # executors may have threads

    def covers(self, chains: Chains) -> NDArray[np.bool_]:
        """Whether all blocks of each network have a kind, and one of them a convolution."""
        blocks = self.blocks(chains)
        known = (blocks.first != NONE) & (blocks.following != NONE)
        if not known.any():
            return np.zeros(len(chains), np.bool_)
        units = self.columns["units"][np.where(known, blocks.first, 0)]
        covered = np.bincount(blocks.net, units, len(chains)) > 0
        covered[blocks.net[~known]] = False
        return covered

    @staticmethod
    def blocks(chains: Chains) -> Blocks:
        """The blocks of chains."""
        return _blocks(chains)

    def _blocks(self, chains: Chains) -> Blocks:
        codes = chains.codes
        net, place = np.nonzero(codes)
        code = codes[net, place]
        out, stride = field_of(code, "out_channels"), field_of(code, "stride")
        entering = np.where(place == 0, chains.input_size[0], np.roll(out, 1))
        strides = np.cumprod(field_of(codes, "stride") + (codes == 0), axis=1)
        channels = np.stack([entering, out, field_of(code, "bottleneck_channels")], axis=1)
        resolution = chains.resolution
        if chains.sides is not None:
            resolution = resolution[0][net], resolution[1][net]
        return Blocks(net, resolution, code, channels, stride, strides[net, place] // stride, place == 0)

    def convolutions(self, blocks: Blocks, block: Index, kind: Index) -> Convolutions:
        """The convolutions of sub-layers, given by the number of their block and by their kind."""
        columns = self.columns
        counts = columns["slots"][kind]
        sub_layer = np.repeat(np.arange(len(kind)), counts)
        slot = np.arange(len(sub_layer)) + (columns["slots_start"][kind] - (np.cumsum(counts) - counts))[sub_layer]
        channels, first = blocks.channels.ravel(), (3 * block)[sub_layer]
        in_channels, out_channels = (
            self._mapped(channels[first + columns[f"{name}_width"][slot]], columns[f"{name}_function"][slot])
            for name in ("in", "out")
        )
        depthwise = columns["depthwise"][slot] & (in_channels > 1)
        behind = blocks.shrunk[block] * blocks.stride[block]
        before = np.where(columns["is_first"][kind], blocks.shrunk[block], behind)
        sides = blocks.resolution
        if isinstance(sides[0], np.ndarray):
            sides = sides[0][block], sides[1][block]
        height, width = (
            np.where(columns["is_behind_stride"][slot], -(-side // behind)[sub_layer], -(-side // before)[sub_layer])
            for side in sides
        )
        in_gate = columns["role"][slot] == GATE
        if in_gate.any():
            height[in_gate] = width[in_gate] = 1
        return Convolutions(sub_layer, slot, in_channels, out_channels, depthwise, height, width)

    def units_of(self, kind: int) -> list[UnitKind]:
        """The units of a kind of sub-layer."""
        return [self.unit_kinds[unit] for unit in self._made[kind].units]

    @property
    def columns(self) -> dict[str, Any]:
        """A column for each field of all slots, and of their number of ``taps``.

        Channels as the number of a width, ``in_width``, and of its function, ``in_function``. Of kinds ``is_first``,
        how many ``slots`` and ``units`` each has, and where these begin (``slots_start``, ``units_start``); of units
        their number, ``unit_kind``, and ``unit_is_behind_stride``.
        """
        columns = self._columns
        if columns is None:
            with self._lock:
                columns = self._columns = self._columns_of_all()
        return columns

    def _columns_of_all(self) -> dict[str, Any]:
        slots = [slot for kind in self._made for slot in kind.slots]
        columns: dict[str, Any] = {name: np.array([getattr(slot, name) for slot in slots]) for name in _Slot._fields}
        for name in ("in", "out"):
            width, function = columns[f"{name}_channels"].T
            columns |= {f"{name}_width": width.copy(), f"{name}_function": function.copy()}
        columns["taps"] = columns["kernel_size"] ** 2
        for name in ("slots", "units"):
            counts = np.array([len(getattr(kind, name)) for kind in self._made])
            columns |= {name: counts, f"{name}_start": np.cumsum(counts) - counts}
        columns["is_first"] = np.array([kind.is_first for kind in self._made])
        units = [(unit, behind) for kind in self._made for unit, behind in self._in_place(kind)]
        columns["unit_kind"], columns["unit_is_behind_stride"] = np.array(units, np.intp).T
        return columns

    def kinds_of(self, code: Codes, channels: Codes, *, is_first: bool) -> Index:
        """The kinds of sub-layers, given input, output and bottleneck channels; `NONE` where one has none."""
        entering, out, bottleneck = channels.T
        same_out = entering != out
        alike = 3 * same_out + np.where(bottleneck == out, same_out, np.where(bottleneck == entering, 0, 2))
        keys = kind_of(code) << 4 | alike << 1 | is_first
        found = self._numbers[keys]
        if (found == _UNKNOWN).any():
            with self._lock:
                for key in np.unique(keys[self._numbers[keys] == _UNKNOWN]).tolist():
                    labels = (0, *divmod(key >> 1 & 7, 3))
                    self._numbers[key] = self._lowered(key >> 4, labels, is_first)
            found = self._numbers[keys]
        return np.asarray(found, np.intp)

    def _lowered(self, kind: int, alike: tuple[int, ...], is_first: bool) -> int:
        """A new kind; `NONE` where its operations are of another form, or channels depend on two of the widths.

        Args:
            kind: Type, stride and gate of its block.
            alike: For input, output and bottleneck channels a number, the same where they are the same.
            is_first: Whether it is a block's first sub-layer.
        """

        def lowered(**widths: int) -> tuple[list[UnitKind], list[_Parsed]]:
            """With widths in place of those that are probed, by their number in ``alike``; all of them differ."""
            probes = _PROBES if set(_PROBES).isdisjoint(widths.values()) else _SPARE
            own = [widths.get(f"w{label}", probes[label]) for label in alike]
            return _parsed(_operations(kind, own, is_first))

        def follows(place: int, what: str) -> tuple[int, int]:
            """Which width a convolution's channels are a function of, and of which: 0 where they are that width."""
            values = {label: _channels(other[place], what) for label, other in others.items()}
            value = _channels(found[place], what)
            drivers = [label for label in values if values[label] != value]
            if len(drivers) != 1:
                raise _NoKindError
            (label,) = drivers
            width = max(alike.index(label), 0 if is_first else 1)  # the others take what the block puts out
            if (value, values[label]) == (_PROBES[label], _OTHER):
                return width, 0
            conv = found[place]
            name = (type_of_kind(kind), conv.role, conv.unit, conv.place, what, width, value, values[label])
            if name not in self._functions:
                self._functions[name] = len(self._of_number)
                self._of_number.append(_Function(self._functions[name], lowered, label, place, what, told[label]))
                told[label].append(self._of_number[-1])
            return width, 1 + self._functions[name]

        try:
            units, found = lowered()
            told: dict[int, list[_Function]] = {label: [] for label in alike}
            others = {label: lowered(**{f"w{label}": _OTHER})[1] for label in set(alike)}
            slots = [
                _Slot(
                    *(each.role, each.unit, each.place, each.conv.kernel_size, each.conv.stride, each.conv.groups > 1),
                    *(each.behind_stride or each.conv.stride > 1, each.reads_entering),
                    *(follows(place, "in_channels"), follows(place, "out_channels")),
                )
                for place, each in enumerate(found)
            ]
        except _NoKindError:
            return NONE
        self._made.append(_Kind(is_first, tuple(slots), tuple(map(self._unit_number, units))))
        self._columns = None
        return len(self._made) - 1

    def _in_place(self, kind: _Kind) -> Iterator[tuple[int, bool]]:
        """A kind's units, each with whether the map was made smaller before it."""
        behind = False
        for unit in kind.units:
            yield unit, behind
            behind |= any(stride > 1 for _, stride, *_ in self.unit_kinds[unit].body)

    def _unit_number(self, unit: UnitKind) -> int:
        if unit not in self.unit_kinds:
            self.unit_kinds.append(unit)
        return self.unit_kinds.index(unit)

    def _mapped(self, widths: Codes, functions: Index) -> Codes:
        """Widths behind functions."""
        if not self._of_number:
            return widths
        places = np.flatnonzero(functions)
        if not len(places):
            return widths
        given, by = widths[places], functions[places] - 1
        values = self._values
        known = int(by.max()) < values.shape[0] and int(given.max()) < values.shape[1]
        if not known or (values[by, given] == _UNKNOWN).any():
            with self._lock:
                self._tabulate_all(by, given)
            values = self._values
        widths[places] = values[by, given]
        return widths

    def _tabulate_all(self, functions: Index, widths: Codes) -> None:
        """Values of functions at widths, where they are not known."""
        before, shape = self._values, (len(self._of_number), int(widths.max()) + 1)
        if shape[0] > before.shape[0] or shape[1] > before.shape[1]:
            grown = np.full((max(shape[0], before.shape[0]), max(shape[1], before.shape[1])), _UNKNOWN, np.int32)
            grown[: before.shape[0], : before.shape[1]] = before
            self._values = grown
        unknown = self._values[functions, widths] == _UNKNOWN
        for number in np.flatnonzero(np.bincount(functions[unknown])).tolist():
            asked = widths[(functions == number) & (self._values[functions, widths] == _UNKNOWN)]
            self._tabulate(self._of_number[number], np.unique(asked).tolist())

    def _tabulate(self, function: _Function, widths: Sequence[int]) -> None:
        """Values of a function, and of those that the same lowering tells."""
        for width in widths:
            _, convs = function.lowered(**{f"w{function.label}": width})
            for each in function.told_with:
                self._values[each.number, width] = _channels(convs[each.place], each.what)


def _channels(parsed: _Parsed, what: str) -> int:
    return int(getattr(parsed.conv, what))


LOWERING = Lowering()
"""The kinds of this process."""


@lru_cache(maxsize=4)
def _blocks(chains: Chains) -> Blocks:
    """The blocks of chains; what costs them and what scores them ask for the same."""
    return LOWERING._blocks(chains)


def _operations(kind: int, widths: Sequence[int], is_first: bool) -> tuple[Op, ...]:
    entering, out, bottleneck = widths
    block = block_of_kind(kind, out, bottleneck)
    return block.first(entering) if is_first else block.following()


@dataclass
class _Parsed:
    """A convolution of a sub-layer that is being parsed."""

    role: int
    unit: int
    place: int
    conv: Conv
    behind_stride: bool
    reads_entering: bool
    rectified: bool = False

    @property
    def geometry(self) -> tuple[int, int, int, bool, bool]:
        conv = self.conv
        return conv.kernel_size, conv.stride, conv.dilation, conv.groups > 1, self.rectified


def _parsed(ops: Sequence[Op]) -> tuple[list[UnitKind], list[_Parsed]]:
    """A sub-layer's units and its convolutions, in order.

    Raises:
        _NoKindError: It is made of something else, or a map is made smaller twice.
    """
    units: list[UnitKind] = []
    found: list[_Parsed] = []
    behind_stride = False
    for op, batch_norm in _with_batch_norms(ops):
        if isinstance(op, Activation) and op.kind == "relu" and units and not units[-1].rectified:
            units[-1] = units[-1]._replace(rectified=True)
        elif isinstance(op, Gate):
            found += _gate(op, len(units))
        elif isinstance(op, Conv) and batch_norm:
            body, _ = _branch((op, batch_norm), BODY, len(units), behind_stride, not units)
            units.append(UnitKind((body[0].geometry,), None, False, False))
            found += body
            behind_stride |= op.stride > 1
        elif isinstance(op, Residual):
            body, gates = _branch(op.body, BODY, len(units), behind_stride, not units)
            side, none = _branch(op.shortcut, SHORTCUT, len(units), behind_stride, not units)
            if len(side) > 1 or len(body) <= len(side) or none or any(each.rectified for each in side):
                raise _NoKindError  # so that no convolution may repeat another one
            units.append(
                UnitKind(tuple(each.geometry for each in body), side[0].geometry if side else None, True, False)
            )
            found += [*body, *side, *gates]
            behind_stride |= any(each.conv.stride > 1 for each in body)
        else:
            raise _NoKindError
    return units, found


def _branch(
    ops: Sequence[Op], role: int, unit: int, behind_stride: bool, is_first_unit: bool
) -> tuple[list[_Parsed], list[_Parsed]]:
    """The convolutions of a unit's branch, and those of its gates."""
    found: list[_Parsed] = []
    gates: list[_Parsed] = []
    rectified = False
    for op, batch_norm in _with_batch_norms(ops):
        if isinstance(op, Conv) and batch_norm:
            reads_entering = is_first_unit and not found and not rectified
            if op.kernel_size % 2 == 0 or (op.stride > 1 and behind_stride) or op.stride > 2:
                raise _NoKindError
            if op.groups not in (1, op.in_channels):
                raise _NoKindError
            found.append(_Parsed(role, unit, len(found), op, behind_stride, reads_entering, rectified))
            behind_stride, rectified = behind_stride or op.stride > 1, False
        elif isinstance(op, Gate):
            gates += _gate(op, unit)
        elif isinstance(op, Activation) and op.kind == "relu" and not rectified:
            rectified = True
        else:
            raise _NoKindError
    if rectified:
        raise _NoKindError
    return found, gates


def _gate(gate: Gate, unit: int) -> list[_Parsed]:
    return [
        _Parsed(GATE, unit, place, op, False, False)
        for place, (op, batch_norm) in enumerate(_with_batch_norms(gate.body))
        if isinstance(op, Conv) and batch_norm
    ]


def _with_batch_norms(ops: Sequence[Op]) -> list[tuple[Op, BatchNorm | None]]:
    """Operations, each with the batch norm behind it, if it is a convolution.

    Raises:
        _NoKindError: A batch norm stands elsewhere, or a convolution has none or a bias.
    """
    pairs: list[tuple[Op, BatchNorm | None]] = []
    for op in ops:
        if isinstance(op, BatchNorm):
            if not pairs or not isinstance(pairs[-1][0], Conv) or pairs[-1][1] is not None:
                raise _NoKindError
            pairs[-1] = (pairs[-1][0], op)
        else:
            pairs.append((op, None))
    if any(isinstance(op, Conv) and (norm is None or op.bias) for op, norm in pairs):
        raise _NoKindError
    return pairs


def resolutions(chains: Chains, shrunk: Codes) -> tuple[Codes, Codes]:
    """Heights and widths of maps, given by what the image's are divided by."""
    height, width = chains.resolution
    return -(-height // shrunk), -(-width // shrunk)
