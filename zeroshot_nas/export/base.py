"""Export formats: what a format is, the registry of them, and what comes of one. No torch here at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from zeroshot_nas.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from zeroshot_nas.searchers.base import SearchResult
    from zeroshot_nas.training.checkpoint import Trained

OPSET = 18
"""Version of ONNX's operator set that files are written in, where no other is asked for."""


@dataclass(frozen=True)
class Origin:
    """How a network came about, as far as that is known.

    Attributes:
        training: What its run's ``train.json`` says.
        search: The search that found it.
        license: Licence of its weights, as the Hub calls it: ``"apache-2.0"``.
    """

    training: Mapping[str, Any] | None = None
    search: SearchResult | None = None
    license: str | None = None


@dataclass(frozen=True)
class ExportRequest:
    """What a format is asked for.

    Attributes:
        network: What to export, on the CPU in eval mode; a `TrainedModule` where it is none of ours.
        file: Where to write.
        images: Images in [0, 1] to check, time and calibrate with; None takes noise.
        opset: Version of ONNX's operator set.
        source: The file of the format that this one is made of; None where it is made of none.
        origin: How the network came about, for a format that says so.
    """

    network: Trained
    file: Path
    images: Tensor | None = None
    opset: int = OPSET
    source: Path | None = None
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True)
class ExportedFile:
    """One file, and how it compares with the network.

    Attributes:
        file: The file.
        kind: ``"onnx"``, ``"onnx int8"``, ``"onnx int8, power-of-two scales"``, ``"torch.export"``, ``"python"``,
            ``"tflite int8"``, ``"C array"``, or ``"hub folder"``, which is a folder.
        size_kb: Size in 1,000 bytes.
        max_difference: Largest difference of its logits from the network's, as a share of the largest logit above 1.
        rms_error: Root mean square of that difference over the network's root mean square logit.
        latency_ms: Median milliseconds for one image on one thread; None where it is not timed.
        accuracy: Fraction of the test images that it classifies right; None without test images.
        ranges: Where an int8 file has the ranges of its tensors from; None for others.
    """

    file: Path
    kind: str
    size_kb: float
    max_difference: float
    rms_error: float
    latency_ms: float | None = None
    accuracy: float | None = None
    ranges: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "file": str(self.file)}


ExportFunction: TypeAlias = Callable[[ExportRequest], ExportedFile]
"""Writes the file, and refuses to leave one that does not compute what the network does."""


@dataclass(frozen=True)
class FormatInfo:
    """Facts about an export format.

    Args:
        name: What ``formats`` and ``--format`` call it.
        file: Name of the file in the run's folder.
        made_of: The format whose file it is made of, which must be asked for too.
        needs_images: Whether it can't do without images of the data.
        takes_ranges: Whether it takes the ranges of a network that was trained with rounded values, and then needs no
            images; other formats get the weights before they are rounded.
        tells_origin: Whether it says how the network came about.
        is_int8: Whether its files are int8 anyhow, so that asking for int8 asks for no more.
        logits: ``(file, images)`` to the file's logits, which its accuracy is measured with; None leaves it out.
        export: The function; `register_format` fills it in.
    """

    name: str
    file: str
    made_of: str | None = None
    needs_images: bool = False
    takes_ranges: bool = False
    tells_origin: bool = False
    is_int8: bool = False
    logits: Callable[[Path, Tensor], Tensor] | None = None
    export: ExportFunction | None = None


FORMATS: Registry[FormatInfo] = Registry("export format", package="zeroshot_nas.export.formats")

_Export = TypeVar("_Export", bound=ExportFunction)


def register_format(info: FormatInfo) -> Callable[[_Export], _Export]:
    """Registers a function that writes a trained network to a file, for ``export_network`` and ``--format``."""

    def register(export: _Export) -> _Export:
        FORMATS.add(info.name, replace(info, export=export))
        return export

    return register


def list_export_formats() -> list[str]:
    """Names of the registered export formats, each behind the one that it is made of.

    Example:
        >>> list_export_formats()
        ['hub', 'onnx', 'int8', 'int8_power_of_two', 'python', 'tflite', 'c', 'torch']
    """
    return sorted(FORMATS, key=lambda name: (FORMATS[name].made_of or name, FORMATS[name].made_of is not None, name))
