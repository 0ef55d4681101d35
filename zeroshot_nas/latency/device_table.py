"""Latency of an architecture on a measured device, predicted kernel by kernel in closed form. No torch here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from zeroshot_nas.architecture.architecture import Architecture, head
from zeroshot_nas.architecture.blockspec import BlockSpec, single_sub_layer
from zeroshot_nas.architecture.kernels import GLOBAL_POOL, KINDS, LINEAR, Kernel, instructions, pieces
from zeroshot_nas.architecture.ops import Op, Residual, Resolution, Shape
from zeroshot_nas.core.files import write_text
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.core.text import quoted, read_json
from zeroshot_nas.errors import FileFormatError

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

_FORMAT = "zeroshot_nas.device_table"
_VERSION = 2
_PRIOR_OBSERVATIONS = 5.0
"""What the regressor's word weighs against a kernel's own measurements."""

_REMEMBERED = 131_072
"""Entries of a memo; a bound on memory, reached after minutes only."""

_VECTOR = 8
"""Channels that an engine takes at once, more or less; it pays for the empty rest of the last such group too."""


@dataclass(frozen=True)
class Fingerprint:
    """What a latency depends on besides the network.

    Attributes:
        device: Name of the processor or accelerator.
        cores: Logical processors; None where that is not known.
        system: Operating system.
        backend: Name of the engine.
        backend_version: Its version.
        batch_size: Images a run.
        threads: Threads of the engine.
        dtype: Precision.
    """

    device: str
    cores: int | None
    system: str
    backend: str
    backend_version: str
    batch_size: int = 1
    threads: int = 1
    dtype: str = "float32"

    def differences(self, other: Fingerprint) -> list[str]:
        """What differs, in words; empty where tables of one hold for the other.

        Example:
            >>> here = Fingerprint("EPYC", 2, "Linux", "onnxruntime", "1.30.0")
            >>> here.differences(Fingerprint("EPYC", 2, "Linux", "onnxruntime", "1.32.0"))
            ["backend_version '1.30.0' against '1.32.0'"]
        """
        pairs = ((each.name, getattr(self, each.name), getattr(other, each.name)) for each in fields(self))
        return [f"{name} {mine!r} against {theirs!r}" for name, mine, theirs in pairs if mine != theirs]


class LatencyTable(Protocol):
    """What predicts latency in a search: a `DeviceTable`, or anything with these."""

    @property
    def fingerprint(self) -> Fingerprint: ...
    @property
    def space(self) -> str: ...
    @property
    def input_size(self) -> Shape: ...
    @property
    def largest_ms(self) -> float: ...
    @property
    def digest(self) -> str: ...
    def latency_ms(self, architecture: Architecture, /) -> float: ...


@dataclass(frozen=True)
class KernelModel:
    r"""A second-order polynomial of a kernel's features for the logarithm of its milliseconds.

    .. math:: \log t = c + b^T z + z^T Q z, \qquad z = (f - \mu) / \sigma

    It is kept as plain numbers, so that a search needs no library to ask it, and a table holds no pickle.

    Attributes:
        mean: mu of the features (F,).
        scale: sigma of the features (F,).
        intercept: c.
        linear: b (F,).
        quadratic: Q (F, F).
        low: Least logarithm that was measured; the polynomial is not followed far beyond.
        high: Greatest.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    intercept: float
    linear: tuple[float, ...]
    quadratic: tuple[tuple[float, ...], ...]
    low: float
    high: float

    def __call__(self, kernel: Kernel) -> float:
        """Milliseconds of a kernel."""
        mean, scale, linear, quadratic = self._arrays
        z = (np.array(features(kernel)) - mean) / scale
        logarithm = self.intercept + float(z.dot(linear + quadratic.dot(z)))  # in half the time that @ takes
        return math.exp(min(max(logarithm, self.low - 1), self.high + 1))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> KernelModel:
        """Reads what ``dataclasses.asdict`` gives, also after JSON has made lists of tuples."""
        vectors = {name: tuple(data[name]) for name in ("mean", "scale", "linear")}
        model = cls(**{**data, **vectors, "quadratic": tuple(map(tuple, data["quadratic"]))})
        numbers = len(features(Kernel("conv", 1, 1, 1, 1, 1)))
        for name in ("mean", "scale", "linear", "quadratic"):
            if len(getattr(model, name)) != numbers:
                raise ValueError(f"expected {numbers} numbers in {name}, got {len(getattr(model, name))}")
        for row in (model.mean, model.scale, model.linear, *model.quadratic, (model.intercept, model.low, model.high)):
            _check_finite(row)
        if any(len(row) != numbers for row in model.quadratic) or min(model.scale) <= 0 or model.low > model.high:
            raise ValueError("a regressor has a scale that is not above 0, or no square matrix, or low above high")
        return model

    @cached_property
    def _arrays(self) -> tuple[Any, Any, Any, Any]:
        return tuple(map(np.array, (self.mean, self.scale, self.linear, self.quadratic)))  # type: ignore[return-value]


def features(kernel: Kernel) -> list[float]:
    """Features of a kernel (F,), those of the roofline: multiply-adds, bytes, and how well they fill the machine.

    Example:
        >>> len(features(Kernel("conv", 8, 16, 32, 32, 3)))
        15
    """
    k = kernel
    positions = 1 if k.kind in (GLOBAL_POOL, LINEAR) else (-(-k.height // k.stride)) * (-(-k.width // k.stride))
    weights = k.in_channels // k.groups * k.out_channels * k.kernel_size**2
    read, written = k.inputs * k.in_channels * k.height * k.width, k.out_channels * positions
    log = math.log
    return [
        log(weights * positions),
        log(read),
        log(written),
        log(weights),
        log(read + written + weights),
        log(k.in_channels),
        log(k.out_channels),
        log(positions),
        log(k.kernel_size),
        log(k.stride),
        log(-(-k.out_channels // (2 * _VECTOR)) * (2 * _VECTOR) / k.out_channels),
        log(-(-k.in_channels // _VECTOR) * _VECTOR / k.in_channels),
        float(k.joins),
        float(k.activation != ""),
        float(k.activation == "sigmoid"),
    ]


class Observed(NamedTuple):
    """A kernel's measured latency.

    Attributes:
        latency_ms: Median of what was measured in place, in several networks or several times.
        observations: How often it was met.
    """

    latency_ms: float
    observations: int


@dataclass(frozen=True)
class Overhead:
    """From the sum of kernels to the latency of the whole, fitted on whole networks.

    Attributes:
        factor: What a kernel's milliseconds are multiplied by.
        per_kernel_ms: Added for each kernel that runs; below 0 where timing one by one costs time itself.
        per_network_ms: Added once.
    """

    factor: float = 1.0
    per_kernel_ms: float = 0.0
    per_network_ms: float = 0.0


class _Part(NamedTuple):
    """Predicted milliseconds of a part of a network, height and width behind it, and how many kernels run in it."""

    latency_ms: float
    resolution: Resolution
    kernels: int


_Piece: TypeAlias = tuple[tuple[float, ...], Shape]
"""Milliseconds that each kernel of a piece adds, and the shape behind it."""


@dataclass(frozen=True)
class DeviceTable:
    """Latency of a device: what kernels took in place, and what predicts the others.

    A network's latency is the sum of its kernels', fused as the engine fuses them, plus a fitted overhead. A kernel
    that was measured has the mean, in logarithms, of its measurements and of five of the regressor's; one that was not
    has the regressor's word alone: a single measurement is noisier than what thousands of others say.

    An overhead a kernel below 0 is what timing kernels one by one costs. Of a network with more kernels than any that
    was measured it is taken off for so many only: caches no longer hold what each kernel needs, and a search that took
    the fit's word there would end at hundreds of kernels that seem to cost nothing.

    Make one with ``zeroshot_nas.latency.calibrate.calibrate``.

    Attributes:
        fingerprint: What was measured.
        space: Space whose networks were measured.
        input_size: Shape ``(C, H, W)`` of their images.
        kernels: Measured kernels.
        models: A regressor for each kind that was met; None for a kind that never took any time of its own.
        overhead: From the sum to the whole.
        largest_ms: Latency of the slowest network measured; beyond it predictions are extrapolated.
        most_kernels: How many kernels the deepest network measured runs.
        details: How it was made: networks, spread, fit, versions.

    Example:
        >>> table = DeviceTable(Fingerprint("a chip", 1, "Linux", "torch", "2"), "resnet", (3, 8, 8),
        ...                     {Kernel("conv", 3, 8, 8, 8, 3, activation="relu"): Observed(0.5, 9)}, {})
        >>> table.latency_ms(Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", (3, 8, 8)))
        Traceback (most recent call last):
        zeroshot_nas.errors.FileFormatError: the device table holds no global_pool; calibrate on a space that has it
    """

    fingerprint: Fingerprint
    space: str
    input_size: Shape
    kernels: Mapping[Kernel, Observed]
    models: Mapping[str, KernelModel | None]
    overhead: Overhead = Overhead()
    largest_ms: float = math.inf
    most_kernels: float = math.inf
    details: Mapping[str, Any] = field(default_factory=dict)

    def latency_ms(self, architecture: Architecture) -> float:
        """Predicted milliseconds of one run of a batch; memoised block by block, as a search needs it.

        Raises:
            FileFormatError: The table has nothing to say of a kind of kernel.
        """
        channels, height, width = architecture.input_size
        resolution, total, count = (height, width), self.overhead.per_network_ms, 0
        known = self._blocks
        for block in architecture.blocks:
            key = (block, channels, resolution)
            part = known.get(key)
            if part is None:
                if len(known) >= _REMEMBERED:
                    known.clear()
                part = known[key] = self._block(block, channels, resolution)
            total += part[0]
            count += part[2]
            channels, resolution = block.out_channels, part[1]
        end = (channels, resolution, architecture.num_classes)
        part = self._heads.get(end)
        if part is None:
            part = self._heads[end] = self._part(head(channels, architecture.num_classes), (channels, *resolution))
        total += part[0]
        count += part[2]
        if count > self.most_kernels and self.overhead.per_kernel_ms < 0:
            total -= (count - self.most_kernels) * self.overhead.per_kernel_ms
        return total

    def latency_by_block(self, architecture: Architecture) -> list[float]:
        """Predicted milliseconds of every block, and of the head last, without what a network takes as a whole.

        Raises:
            FileFormatError: The table has nothing to say of a kind of kernel.
        """
        found = [self._block(*each).latency_ms for each in architecture.inputs()]
        channels, *resolution = architecture.feature_shape
        ops = head(channels, architecture.num_classes)
        return [*found, self._part(ops, (channels, resolution[0], resolution[1])).latency_ms]

    def regressed_ms(self, kernel: Kernel) -> float | None:
        """What the regressor alone says of a kernel, whether it was measured or not; None of a kind without one."""
        model = self.models.get(kernel.kind)
        return None if model is None else model(kernel)

    def kernel_ms(self, kernel: Kernel) -> float:
        """Predicted milliseconds of one kernel in place, without overhead; 0 for one that another takes in.

        Raises:
            FileFormatError: The table has nothing to say of its kind.
        """
        found = self._kernel_ms.get(kernel)
        if found is None:
            if len(self._kernel_ms) >= _REMEMBERED:
                self._kernel_ms.clear()
            found = self._kernel_ms[kernel] = self._predict(kernel)
        return found

    @cached_property
    def digest(self) -> str:
        """Equal where tables predict alike."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "fingerprint": asdict(self.fingerprint),
            "space": self.space,
            "input_size": list(self.input_size),
            "overhead": asdict(self.overhead),
            "largest_ms": self.largest_ms,
            "most_kernels": self.most_kernels,
            "details": dict(self.details),
            "models": {kind: model and asdict(model) for kind, model in self.models.items()},
            "kernels": [[*kernel, *observed] for kernel, observed in self.kernels.items()],
        }

    @classmethod
    def from_dict(cls, data: Any) -> DeviceTable:
        """Reads what `to_dict` gives.

        Raises:
            FileFormatError: The data is not a device table.
        """
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise FileFormatError(f"not a device table: expected a JSON object with format {_FORMAT!r}")
        if data.get("version") != _VERSION:
            version = quoted(data.get("version"))
            raise FileFormatError(f"a device table of version {version}; this release reads {_VERSION}: calibrate anew")
        try:
            channels, height, width = map(int, data["input_size"])
            overhead = Overhead(**data["overhead"])
            _check_finite((overhead.factor, overhead.per_kernel_ms, overhead.per_network_ms))
            if overhead.factor <= 0 or not (float(data["largest_ms"]) > 0 and float(data["most_kernels"]) > 0):
                raise ValueError("the overhead's factor, largest_ms and most_kernels must be above 0")
            return cls(
                Fingerprint(**data["fingerprint"]),
                str(data["space"]),
                (channels, height, width),
                dict(map(_read_row, data["kernels"])),
                {str(kind): model and KernelModel.from_dict(model) for kind, model in data["models"].items()},
                overhead,
                float(data["largest_ms"]),
                float(data["most_kernels"]),
                data["details"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(f"not a valid device table: {type(error).__name__}: {error}") from error

    def save(self, file: Path | str) -> None:
        """Writes the table as JSON, whole or not at all."""
        write_text(Path(file), json.dumps(self.to_dict(), allow_nan=False))

    @classmethod
    def load(cls, file: Path | str) -> DeviceTable:
        """Reads a table's file.

        Raises:
            FileFormatError: There is no such file, or it is not a device table.
        """
        try:
            text = Path(file).read_text(encoding="utf-8")
            return cls.from_dict(read_json(text))
        except (OSError, ValueError) as error:
            if isinstance(error, FileFormatError):
                raise FileFormatError(f"{file}: {error}") from None
            raise FileFormatError(f"{file} can't be read as a device table: {error}") from None

    def _predict(self, kernel: Kernel) -> float:
        observed = self.kernels.get(kernel)
        if kernel.kind not in self.models:
            if observed is not None:
                return observed.latency_ms
            raise FileFormatError(f"the device table holds no {kernel.kind}; calibrate on a space that has it")
        model = self.models[kernel.kind]
        if model is None:
            return 0.0
        predicted = model(kernel)
        if observed is None or observed.latency_ms <= 0:
            return predicted if observed is None else 0.0
        weight = observed.observations / (observed.observations + _PRIOR_OBSERVATIONS)
        return math.exp((1 - weight) * math.log(predicted) + weight * math.log(observed.latency_ms))

    def _block(self, block: BlockSpec, in_channels: int, resolution: Resolution) -> _Part:
        single = single_sub_layer(block)
        first = self._sub_layer(single, in_channels, resolution)
        if block.sub_layers == 1:
            return first
        following = self._sub_layer(single, None, first.resolution)
        times = block.sub_layers - 1
        latency_ms = first.latency_ms + times * following.latency_ms
        return _Part(latency_ms, first.resolution, first.kernels + times * following.kernels)

    def _sub_layer(self, block: BlockSpec, in_channels: int | None, resolution: Resolution) -> _Part:
        key = (block, in_channels, resolution)
        found = self._sub_layers.get(key)
        if found is None:
            if len(self._sub_layers) >= _REMEMBERED:
                self._sub_layers.clear()
            ops = block.following() if in_channels is None else block.first(in_channels)
            shape = (block.out_channels if in_channels is None else in_channels, *resolution)
            found = self._sub_layers[key] = self._part(ops, shape)
        return found

    def _part(self, ops: tuple[Op, ...], shape: Shape) -> _Part:
        total, count = 0.0, 0
        cut = pieces(ops)
        for piece in cut:
            several = len(cut) > 1 and type(piece[0]) is Residual
            added, shape = self._unit(piece, shape) if several else self._piece(piece, shape)
            for latency_ms in added:
                total += latency_ms
            count += len(added)
        return _Part(total, shape[1:], count)

    def _unit(self, piece: tuple[Op, ...], shape: Shape) -> _Piece:
        """What `_piece` gives, memoised: most new sub-layers consist of residual units that others had.

        The key is the unit's identity, since blocks lower equal units to the same object, and hashing all that is in
        it takes as long as the rest. An entry keeps its unit alive, so that no other gets its identity.
        """
        key = (id(piece[0]), shape)
        entry = self._units.get(key)
        if entry is None or entry[0] != piece:
            if len(self._units) >= _REMEMBERED:
                self._units.clear()
            entry = self._units[key] = (piece, self._piece(piece, shape))
        return entry[1]

    def _piece(self, piece: tuple[Op, ...], shape: Shape) -> _Piece:
        """What each kernel of a piece adds, and the shape behind it."""
        factor, per_kernel_ms = self.overhead.factor, self.overhead.per_kernel_ms
        program = instructions((piece,), shape)
        alone = [self.kernel_ms(instruction.kernel) for instruction in program]
        added = tuple(max(0.0, factor * latency_ms + per_kernel_ms) for latency_ms in alone if latency_ms > 0)
        return added, program[-1].output_shape if program else shape

    @cached_property
    def _kernel_ms(self) -> dict[Kernel, float]:
        return {}

    @cached_property
    def _blocks(self) -> dict[tuple[BlockSpec, int, Resolution], _Part]:
        return {}

    @cached_property
    def _sub_layers(self) -> dict[tuple[BlockSpec, int | None, Resolution], _Part]:
        return {}

    @cached_property
    def _units(self) -> dict[tuple[int, Shape], tuple[tuple[Op, ...], _Piece]]:
        return {}

    @cached_property
    def _heads(self) -> dict[tuple[int, Resolution, int], _Part]:
        return {}

    def __getstate__(self) -> dict[str, Any]:  # a worker begins with empty memos
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def __hash__(self) -> int:
        return hash(self.digest)


def _check_finite(numbers: Sequence[Any]) -> None:
    """Refuses what would make every prediction NaN, or one below 0: a limit on latency would keep nothing out."""
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"expected a finite number, got {quoted(number)}")


def _read_row(row: Any) -> tuple[Kernel, Observed]:
    *kernel, latency_ms, observations = row
    found = Kernel(*kernel)
    _check_finite((latency_ms, observations))
    numbers = found[1:9]
    whole = all(type(number) is int and number >= 1 for number in numbers)
    if found.kind not in KINDS or not whole or latency_ms < 0 or observations < 1:
        raise ValueError(f"not a kernel's row: {row!r:.80}")
    return found, Observed(float(latency_ms), int(observations))
