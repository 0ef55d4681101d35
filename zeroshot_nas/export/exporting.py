"""`export_network`: one trained network to the files asked for, each checked, and a report that compares them."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroshot_nas.architecture.architecture import architecture_of
from zeroshot_nas.core.files import explained_writes, read_as, write_text
from zeroshot_nas.errors import (
    DataError,
    ExportError,
    UnfinishedRunWarning,
    UnknownNameError,
    did_you_mean,
)
from zeroshot_nas.export.base import (
    FORMATS,
    OPSET,
    ExportedFile,
    ExportRequest,
    FormatInfo,
    Origin,
    list_export_formats,
)
from zeroshot_nas.export.checks import check_images, network_latency_ms, network_size_kb
from zeroshot_nas.network.module import Network
from zeroshot_nas.searchers.base import SearchResult
from zeroshot_nas.training.base import ImageData, Split, as_float, evenly, fit_to, load_data, read_split
from zeroshot_nas.training.checkpoint import (
    BEST,
    SPLIT,
    QuantizedNetwork,
    Trained,
    TrainedModule,
    TrainedNetwork,
    input_size_of,
    load,
    predict,
    read_result,
)

REPORT = "export.json"

SEARCH_RESULT = "result.json"
"""What a search's folder holds of it."""


@dataclass(frozen=True)
class ExportReport:
    """What was exported, before and after.

    Attributes:
        size_kb: Size of the network's own weights in 1,000 bytes.
        latency_ms: Median milliseconds of the network itself for one image, in torch on one thread.
        accuracy: Fraction of the test images that the network itself classifies right; None without such images.
        files: The files.
        opset: ONNX's operator set.
    """

    size_kb: float
    latency_ms: float
    accuracy: float | None
    files: tuple[ExportedFile, ...]
    opset: int

    def to_dict(self) -> dict[str, Any]:
        own = {"size_kb": self.size_kb, "latency_ms": self.latency_ms, "accuracy": self.accuracy}
        return {"network": own, "opset": self.opset, "files": [each.to_dict() for each in self.files]}


def export_network(
    model: nn.Module | str | Path,
    out: str | Path | None = None,
    *,
    input_size: Sequence[int] | None = None,
    formats: Sequence[str] = ("onnx",),
    int8: bool = False,
    power_of_two: bool = False,
    data: str | ImageData | None = None,
    opset: int = OPSET,
    search: str | Path | None = None,
    license: str | None = None,  # noqa: A002  the Hub's word
) -> ExportReport:
    """Writes a trained network to files that need nothing of this package.

    A network that was trained with rounded values (`quantize_aware`) gives its own ranges to ``"tflite"`` and ``"c"``,
    which then need no images; other formats get its weights before they are rounded.

    Every model takes images ``(N, C, H, W)`` in [0, 1], of any number, and returns logits; it normalises by itself, and
    its batch norms are folded where the format allows. Every float file is run and compared with the network.

    Args:
        model: A run's folder, its file of weights, what `load` gives, or any module; one that was not trained here
            takes what it takes, without any normalisation, and has numbers for class names where no data say others.
        out: Folder for the files and ``export.json``; default: the run's.
        input_size: Shape ``(C, H, W)`` of the images that a module takes; default: that of the data.
        formats: Some of `list_export_formats`: ``"onnx"``, ``"torch"`` (torch.export), ``"python"`` (a self-contained
            file), ``"int8"``, ``"int8_power_of_two"``, ``"hub"`` (the folder ``hub`` for the Hugging Face Hub),
            ``"tflite"`` (full integer, for microcontrollers), ``"c"`` (that file as a C array).
        int8: Also an int8 ONNX file by static quantisation; without effect where all formats are int8 anyhow.
        power_of_two: Also one whose scales are powers of two.
        data: Data to calibrate int8 with (its training images) and to measure accuracy on (its test images); default:
            what the run was trained on, where it is known by name.
        opset: ONNX's operator set, 13 or later.
        search: Folder or ``result.json`` of the search that found the network, for the Hub's model card; default: that
            which lies beside the run or around it, if it found this network.
        license: Licence of the weights for that card, such as ``"apache-2.0"``; default: not stated.

    Raises:
        TypeError: ``model`` is none of what is taken.
        ExportError: A format is unknown, a model can't be exported or written, or computes something else.
        DataError: int8 is asked for without data, or the data's classes are not the network's.
        FileFormatError: The run's files are damaged.
        MissingExtraError: The extra ``onnx`` is not installed.

    Warns:
        UnfinishedRunWarning: The run was interrupted or killed, or still goes on.
    """
    wanted = _wanted(formats, int8=int8, int8_power_of_two=power_of_two)
    if not isinstance(model, nn.Module | str | Path):
        hint = "; an architecture is trained first" if architecture_of(model) is not None else ""
        given = f"{type(model).__name__}{hint}"
        raise TypeError(f"export_network takes a run's folder, its file of weights or an nn.Module, got {given}")
    folder = _folder(model, out)
    network = _network(model, input_size, data)
    plain = network.plain() if isinstance(network, QuantizedNetwork) else network
    needs_images = any(info.needs_images and not (info.takes_ranges and plain is not network) for info in wanted)
    result = {} if isinstance(model, nn.Module) else read_result(Path(model))
    if result.get("state", "done") != "done":
        warnings.warn(
            f"{model} is {result['state']}, {result['epochs']} of {result['recipe']['epochs']} epochs are done; its "
            "best weights so far are exported",
            UnfinishedRunWarning,
            stacklevel=2,
        )
    split = None if isinstance(model, nn.Module) else read_split(_folder(model, None) / SPLIT)
    origin = Origin()
    if any(info.tells_origin for info in wanted):
        origin = Origin(_training_of(model, result), _search_of(model, network, search), license)
    images = _data(result.get("data"), data, network, split, needed=needs_images)
    if images is None and needs_images:
        raise DataError("int8 needs images to calibrate with; give data, e.g. the training images' name or folder")
    train = None if images is None else as_float(evenly(images.train_images, 256))
    test = None if images is None else (as_float(images.test_images), images.test_labels)
    files: dict[str, ExportedFile] = {}
    with explained_writes(folder, ExportError, "make room or choose another folder; the run is as it was"):
        folder.mkdir(parents=True, exist_ok=True)
        for info in wanted:
            source = None if info.made_of is None else files[info.made_of].file
            assert info.export is not None, "a registered format has its function"
            exported = network if info.takes_ranges else plain
            written = info.export(ExportRequest(exported, folder / info.file, train, opset, source, origin))
            if test is not None and info.logits is not None:
                written = replace(written, accuracy=_accuracy(info.logits(written.file, test[0]), test[1]))
            files[info.name] = written
    own = None if test is None else _accuracy(predict(network, test[0]), test[1])
    latency = network_latency_ms(plain, check_images(network, train)[0])
    report = ExportReport(network_size_kb(plain), latency, own, tuple(files.values()), opset)
    with explained_writes(folder, ExportError, "make room or choose another folder; the run is as it was"):
        write_text(folder / REPORT, json.dumps(report.to_dict(), indent=2) + "\n")
    return report


def _wanted(formats: Sequence[str], **further: bool) -> list[FormatInfo]:
    """The formats asked for, in their order; what is made of another comes behind it.

    Raises:
        ExportError: A format is unknown, or is made of one that is not asked for.
    """
    if formats and all(name in FORMATS and FORMATS[name].is_int8 for name in formats):
        further["int8"] = False
    names = {*formats, *(name for name, is_wanted in further.items() if is_wanted)}
    for name in [*formats, *sorted(names)]:
        if name not in FORMATS:
            raise ExportError(
                f"unknown format {name!r}; expected some of {', '.join(list_export_formats())}."
                f"{did_you_mean(name, FORMATS)}"
            )
        if (source := FORMATS[name].made_of) is not None and source not in names:
            raise ExportError(f"{name} is made of the {source} file; ask for the format {source!r} too")
    order = list(formats)
    return sorted(
        map(FORMATS.__getitem__, sorted(names)),
        key=lambda info: (order.index(info.made_of or info.name), info.made_of is not None),
    )


def _network(model: nn.Module | str | Path, input_size: Sequence[int] | None, data: str | ImageData | None) -> Trained:
    """A network to export, on the CPU in eval mode; the caller's module is left as it was."""
    if isinstance(model, str | Path):
        return load(model)
    try:
        module = copy.deepcopy(model).cpu().eval()
    except Exception as error:  # whatever a stranger's parts raise
        raise ExportError(f"{type(model).__name__} can't be copied, and a copy is exported: {error}") from error
    if isinstance(module, Network) and not module.num_classes:
        raise ExportError(
            "the network has no classifier, and files that classify are written; give it one with "
            "reset_classifier(classes), or export it with torch's own exporters"
        )
    if isinstance(module, TrainedNetwork | TrainedModule):
        return module
    if isinstance(module, Network):
        input_size = module.architecture.input_size
    images = None if data is None else load_data(data, input_size)
    size = input_size or (None if images is None else images.image_shape)
    if size is None:
        raise ExportError(f"a {type(model).__name__} does not say what images it takes; give input_size=(C, H, W)")
    names = None if images is None else images.class_names
    mean, std = [0.0] * size[0], [1.0] * size[0]
    if isinstance(module, Network):
        names = names or tuple(map(str, range(module.architecture.num_classes)))
        network = TrainedNetwork(module.architecture, mean, std, names)
        network.load_state_dict(module.state_dict())
        return network.eval()
    return TrainedModule(module, size, mean, std, names or _numbers(module, size))


def _numbers(module: nn.Module, input_size: Sequence[int]) -> tuple[str, ...]:
    """A number for each output of a module, as a class's name."""
    try:
        with torch.no_grad():
            logits = module(torch.zeros(2, *input_size))
        return tuple(map(str, range(logits.shape[1])))
    except Exception as error:  # a stranger's forward may raise anything, and return anything
        raise ExportError(
            f"{type(module).__name__} gives no logits (N, classes) for images (2, {', '.join(map(str, input_size))}): "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}. Check input_size"
        ) from error


def _folder(model: nn.Module | str | Path, out: str | Path | None) -> Path:
    if out is not None:
        return Path(out)
    if isinstance(model, nn.Module):
        raise ExportError("a network has no folder of its own; give the folder to write to as out")
    path = Path(model)
    return path if path.is_dir() else path.parent


def _training_of(model: nn.Module | str | Path, result: dict[str, Any]) -> dict[str, Any] | None:
    """What a run says of its best weights, if it is these that are exported."""
    is_best = isinstance(model, str | Path) and (Path(model).is_dir() or Path(model).stem == Path(BEST).stem)
    return result if result and is_best else None


def _search_of(model: nn.Module | str | Path, network: Trained, search: str | Path | None) -> SearchResult | None:
    """The search that found a network.

    Raises:
        ExportError: The one that is named found another.
        FileFormatError: Its result is damaged.
    """
    if search is not None:
        path = Path(search)
        file = path / SEARCH_RESULT if path.is_dir() else path
        found = read_as(file, SearchResult.from_json)
        if not _is_of(found, network):
            raise ExportError(f"{file} is of a search that found another network; give that which found this one")
        return found
    run = Path() if isinstance(model, nn.Module) else _folder(model, None).resolve()
    for folder in () if isinstance(model, nn.Module) else (run, run.parent):
        try:
            found = SearchResult.from_json((folder / SEARCH_RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none, or none that can be read: the card then says nothing of it
            continue
        if _is_of(found, network):
            return found
    return None


def _is_of(search: SearchResult, network: Trained) -> bool:
    """Whether a network is the one that a search found, but for its classifier."""
    own, found = getattr(network, "architecture", None), search.best.architecture
    return own is not None and (own.blocks, own.input_size) == (found.blocks, found.input_size)


def _data(
    name: str | None, data: str | ImageData | None, network: Trained, split: Split | None, needed: bool
) -> ImageData | None:
    """The images given, or those of the run by their name and its split, if they are there."""
    size = input_size_of(network)
    if data is None and name is not None:
        try:
            data = load_data(name, size, split)
        except UnknownNameError:
            data = None  # images of the user's own
        except DataError:
            if needed:
                raise
            data = None  # they are on a disk that is not there
    if data is None:
        return None
    images = fit_to(load_data(data, size), size)
    if images.class_names != network.class_names:
        raise DataError(
            f"the classes of {images.name!r} are not the network's: expected {', '.join(network.class_names[:5])}, … "
            f"({len(network.class_names)}), got {', '.join(images.class_names[:5])}, … ({len(images.class_names)})"
        )
    return images


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).double().mean().item()
