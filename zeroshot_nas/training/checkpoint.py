"""Trained networks on disk: one file holds architecture, weights, normalisation and class names."""

from __future__ import annotations

import copy
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, overload

import torch
from torch import Tensor, nn

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.checks import as_shape, check_format
from zeroshot_nas.core.files import explained_writes, write_atomically
from zeroshot_nas.core.text import quoted, read_json
from zeroshot_nas.errors import (
    ArchitectureError,
    DataError,
    FileFormatError,
    OutputExistsError,
    SettingsChangedError,
    StoreError,
)
from zeroshot_nas.network.module import Network
from zeroshot_nas.quantization.program import float_program, ordered_operators
from zeroshot_nas.quantization.rules import grid
from zeroshot_nas.runs.store import lock_folder
from zeroshot_nas.training.base import Split, as_float
from zeroshot_nas.training.images import read_image
from zeroshot_nas.training.weights import SUFFIX, read_weights, weights_bytes

BEST, LAST, ARCHITECTURE, RESULT = "best.safetensors", "last.safetensors", "architecture.json", "train.json"
STATE, LOG, CALL, SPLIT = "state.pt", "train.log", "call.json", "split.json"
SUPERNET_IMAGES = "supernet_images.safetensors"
"""Files of a run's folder. The state is more than weights: steps, random states and records, in torch's own format."""

HUB_CONFIG, HUB_WEIGHTS = "config.json", "model.safetensors"
"""Files of a folder for the Hub."""

HUB_FORMAT = "zeroshot_nas.hub"

_FORMAT = "zeroshot_nas.checkpoint"
_MODULE_FORMAT = "zeroshot_nas.module_checkpoint"
_VERSION = 1
_STATE_FORMAT = "zeroshot_nas.training_state.2"


class TrainedNetwork(Network):
    """A network that takes raw images in [0, 1]: it normalises them itself, with what training measured.

    The state dict is that of the plain `Network`, without the normalisation.

    Args:
        architecture: What to build; the weights wait for ``load_state_dict``.
        mean: Mean of each input channel over the training images.
        std: Their standard deviation.
        class_names: Names of the classes, in the order of the logits.

    Raises:
        DataError: The numbers of channels or classes are not the architecture's.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, architecture: Architecture, mean: Sequence[float], std: Sequence[float], class_names: Sequence[str]
    ) -> None:
        super().__init__(architecture)
        channels, classes = architecture.input_size[0], architecture.num_classes
        if (len(mean), len(std), len(class_names)) != (channels, channels, classes):
            raise DataError(
                f"expected mean and std of {channels} channels and {classes} class names, "
                f"got {len(mean)}, {len(std)} and {len(class_names)}"
            )
        self.class_names = tuple(class_names)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward_features(self, x: Tensor) -> Tensor:
        """The feature map before pooling, ``(N, C, H, W)``, of images in [0, 1]."""
        return super().forward_features((x - self.mean) / self.std)

    def reset_classifier(
        self,
        num_classes: int,
        global_pool: str | None = None,
        *,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        """As `Network.reset_classifier`; the new classes are called ``class_names``, by default their numbers."""
        if class_names is not None and len(class_names) != num_classes:
            raise DataError(f"expected the names of {num_classes} classes, got {len(class_names)}")
        super().reset_classifier(num_classes, global_pool, seed=seed)
        self.class_names = tuple(map(str, range(num_classes)) if class_names is None else class_names)


class QuantizedNetwork(TrainedNetwork):
    """A network that computes in floating point what its int8 file does, weights and tensors rounded to 256 values.

    What is rounded to what is said in `zeroshot_nas.quantization.rules`; gradients pass as if nothing were rounded.
    Batch norms are folded into the convolutions before them, with the statistics that they have, in training too. Its
    feature maps (`forward_features`) are those of the weights before they are rounded.

    Args:
        architecture: What to build; the weights and ranges wait for ``load_state_dict`` or `quantized`.
        mean: Mean of each input channel over the training images.
        std: Their standard deviation.
        class_names: Names of the classes, in the order of the logits.
        power_of_two: Whether every scale is a power of two.

    Attributes:
        ranges: The least and the largest value of every tensor, ``(2, tensors)``.
        follows: Whether ranges follow what tensors have, in training mode.
    """

    ranges: Tensor

    def __init__(
        self,
        architecture: Architecture,
        mean: Sequence[float],
        std: Sequence[float],
        class_names: Sequence[str],
        power_of_two: bool = False,
    ) -> None:
        super().__init__(architecture, mean, std, class_names)
        self.power_of_two, self.follows = power_of_two, True
        self.register_buffer("ranges", torch.zeros(2, len(ordered_operators(architecture)) + 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images ``(N, C, H, W)`` in [0, 1]."""
        with torch.autocast(x.device.type, enabled=False):
            program = float_program(self)
            rules = grid(program.operators, self.ranges[0], self.ranges[1], self.power_of_two)
            rounded, _ = rules.rounded_program(program)
            ends: list[Tensor] = []

            def followed(index: int, tensor: Tensor) -> Tensor:
                if self.training and self.follows:
                    ends.append(torch.stack(_in_memory_order(tensor.detach()).aminmax()))
                return rules.rounded(index, tensor)

            *_, logits = rounded.run(rules.images(x.float()), followed)
        if ends:
            self.ranges.lerp_(torch.stack(ends, 1), RANGE_STEP)
        return logits.flatten(1)

    def plain(self) -> TrainedNetwork:
        """The network without rounding, its weights shared."""
        network = TrainedNetwork(
            self.architecture, self.mean.flatten().tolist(), self.std.flatten().tolist(), self.class_names
        )
        network.load_state_dict(
            {name: value for name, value in self.state_dict().items() if name != "ranges"}, assign=True
        )
        return network.to(self.mean.device).train(self.training)

    def reset_classifier(self, *_: Any, **__: Any) -> None:
        """Refuses: the ranges belong to the classifier that there is.

        Raises:
            ArchitectureError: Always.
        """
        raise ArchitectureError("an int8 network keeps its classifier; give plain() another one, and train that")


def _in_memory_order(tensor: Tensor) -> Tensor:
    """The same values, without a copy where channels come last in memory."""
    return tensor.permute(0, 2, 3, 1) if tensor.is_contiguous(memory_format=torch.channels_last) else tensor


RANGE_STEP = 0.05
"""Share of the way that ranges go towards those of a batch."""


def quantized(network: TrainedNetwork, lows: Tensor, highs: Tensor, power_of_two: bool) -> QuantizedNetwork:
    """A copy of a network that computes what its int8 file would, for tensors of these ranges."""
    copied = QuantizedNetwork(
        network.architecture,
        network.mean.flatten().tolist(),
        network.std.flatten().tolist(),
        network.class_names,
        power_of_two,
    )
    copied.load_state_dict({**network.state_dict(), "ranges": torch.stack([lows, highs])})
    return copied.to(network.mean.device).train(network.training)


class TrainedModule(nn.Module):
    """A module of anyone's that takes raw images in [0, 1]: they are normalised with what training measured.

    Args:
        module: Takes normalised images ``(N, C, H, W)`` and returns logits ``(N, classes)``.
        input_size: Shape ``(C, H, W)`` of one image.
        mean: Mean of each input channel over the training images.
        std: Their standard deviation.
        class_names: Names of the classes, in the order of the logits.

    Raises:
        DataError: The module does not take such images, or has no logit for each class.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        input_size: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        class_names: Sequence[str],
    ) -> None:
        super().__init__()
        self.module, self.class_names = module, tuple(class_names)
        self.input_size = as_shape(input_size, DataError)
        device = next((value.device for value in module.parameters()), None)
        for name, values in (("mean", mean), ("std", std)):
            buffer = torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)
        _check_logits(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images ``(N, C, H, W)`` in [0, 1]."""
        logits: Tensor = self.module((x - self.mean) / self.std)
        return logits


Trained: TypeAlias = TrainedNetwork | TrainedModule
"""What takes images in [0, 1], has ``class_names``, ``mean`` and ``std``, and an input size (`input_size_of`)."""


class Classifier(Protocol):
    """What classifies images by itself, wherever its weights are: an exported file, for one."""

    @property
    def input_size(self) -> tuple[int, int, int]: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    def __call__(self, images: Tensor, /) -> Tensor: ...


def input_size_of(network: Network | Classifier) -> tuple[int, int, int]:
    """Shape ``(C, H, W)`` of one image that a network takes."""
    return network.architecture.input_size if isinstance(network, Network) else network.input_size


@torch.no_grad()
def _check_logits(network: TrainedModule) -> None:
    name, classes, was_training = type(network.module).__name__, len(network.class_names), network.training
    images = torch.zeros(2, *network.input_size, device=network.mean.device)
    modes = [(part, part.training) for part in network.modules()]
    try:
        logits = network.eval()(images)
    except Exception as error:  # a stranger's forward may raise anything
        raise DataError(
            f"{name} does not take images {tuple(images.shape)}: {_first_line(error)}; give the input_size that it has"
        ) from error
    finally:
        network.train(was_training)
        for part, mode in modes:
            part.training = mode
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise DataError(f"{name} must return logits (N, {classes}) for images {tuple(images.shape)}, got {shape}")
    if logits.shape[1] != classes:
        raise DataError(
            f"{name} has {logits.shape[1]} outputs, but there are {classes} classes; give it a last layer of {classes}"
        )


def pack(network: Trained, epoch: int, validation_accuracy: float | None) -> dict[str, Any]:
    """A copy of a trained network in tensors, text and numbers, so that reading it back runs no code.

    Args:
        network: What to keep; of a `TrainedModule` the weights alone, since no file can build the module.
        epoch: Epochs trained so far.
        validation_accuracy: Fraction of validation images classified right, if there are any.
    """
    own: dict[str, Any] = (
        {"format": _MODULE_FORMAT, "module": type(network.module).__name__, "input_size": list(network.input_size)}
        if isinstance(network, TrainedModule)
        else {"format": _FORMAT, "architecture": network.architecture.to_json()}
    )
    if isinstance(network, QuantizedNetwork):
        own["quantization"] = {"power_of_two": network.power_of_two}
    return {
        **own,
        "version": _VERSION,
        "state_dict": {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in network.state_dict().items()
        },
        "normalization": {"mean": network.mean.flatten().tolist(), "std": network.std.flatten().tolist()},
        "class_names": list(network.class_names),
        "epoch": epoch,
        "validation_accuracy": validation_accuracy,
    }


def unpack(checkpoint: Mapping[str, Any], module: nn.Module | None = None) -> Trained:
    """The network of what `pack` gives, in eval mode, on the CPU.

    Args:
        checkpoint: What `pack` gives.
        module: A module like the one that was trained, where it was none of ours; a copy of it gets the weights.
    """
    network: Trained
    if checkpoint["format"] == _MODULE_FORMAT:
        assert module is not None, "the weights of a module of the caller's"
        copied = copy.deepcopy(module).cpu()
        network = TrainedModule(
            copied, checkpoint["input_size"], **checkpoint["normalization"], class_names=checkpoint["class_names"]
        )
    else:
        rounded = checkpoint.get("quantization")
        network = (TrainedNetwork if rounded is None else QuantizedNetwork)(
            Architecture.from_json(checkpoint["architecture"]),
            **checkpoint["normalization"],
            class_names=checkpoint["class_names"],
            **(rounded or {}),
        )
    _load_weights(network, checkpoint["state_dict"])
    return network.eval()


def _load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """As ``load_state_dict``, with the first difference named.

    Raises:
        ValueError: A weight is missing, is too much, or has another shape.
    """
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for name, shape in expected.items():
        if name not in weights:
            raise ValueError(f"the weights lack {name} {shape}")
        if tuple(weights[name].shape) != shape:
            raise ValueError(f"the weights have {name} of shape {tuple(weights[name].shape)}, expected {shape}")
    if more := sorted(set(weights) - set(expected)):
        raise ValueError(f"the weights have {more[0]!r:.80}, which the network does not")
    network.load_state_dict(weights)


@overload
def load(path: str | Path, device: str | torch.device | None = None) -> TrainedNetwork: ...
@overload
def load(path: str | Path, device: str | torch.device | None = None, *, module: nn.Module | None) -> Trained: ...
def load(
    path: str | Path, device: str | torch.device | None = None, *, module: nn.Module | None = None
) -> TrainedNetwork | TrainedModule:
    """Loads a trained network, architecture and weights.

    Args:
        path: Folder of a run (its best weights), a file of weights from one (``.safetensors``, of earlier releases
            ``.pt``), or a folder for the Hub, as `export_network` writes it.
        device: Where to put the network; default: the CPU.
        module: Where a module of your own was trained, one like it: a copy of it gets the weights.

    Returns:
        The network in eval mode. It takes images ``(N, C, H, W)`` in [0, 1] and returns logits.

    Raises:
        FileNotFoundError: There is no such file, or the folder has no weights.
        FileFormatError: The file is not a checkpoint of ours, or is damaged, or ``module`` is missing or another.
    """
    file = _weights_file(Path(path))
    checkpoint = _read_hub(file) if file.name == HUB_CONFIG else _read_checkpoint(file)
    if checkpoint["format"] == _MODULE_FORMAT and module is None:
        raise FileFormatError(
            f"{file} holds the weights of a {checkpoint.get('module')!r:.80}, which no file can build; make it and "
            "give it: load(path, module=...)"
        )
    try:
        network = unpack(checkpoint, module)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise FileFormatError(f"{file} is damaged: its parts do not fit together: {_first_line(error)}") from error
    if not all(value.isfinite().all() for value in network.state_dict().values() if value.is_floating_point()):
        raise FileFormatError(f"{file} has weights that are not finite: it is damaged, or its training diverged")
    return network.to(device)


def _weights_file(path: Path) -> Path:
    """The file that a network is loaded from: of a run's folder the best weights, of one for the Hub its config.

    Raises:
        FileNotFoundError: There is none; the message says what is there.
        FileFormatError: It is an export that can't be loaded.
    """
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; expected a run's folder or its {SUFFIX} file")
        if path.suffix.lower() == ".onnx":
            raise FileFormatError(
                f"{path} is an exported file, expected the {SUFFIX} file of a training run; `load_onnx` and `predict` "
                "take it"
            )
        if path.suffix.lower() == ".json" and path.name != HUB_CONFIG:
            raise FileFormatError(
                f"{path} holds no weights; an architecture is trained first: zeroshot-nas train {path}"
            )
        return path.parent / HUB_CONFIG if path.name == HUB_WEIGHTS else path
    for name in (BEST, _older(BEST), HUB_CONFIG):
        if (path / name).is_file():
            return path / name
    if (path / HUB_WEIGHTS).is_file():
        raise FileNotFoundError(f"{path / HUB_CONFIG} is not there, which says what network the weights are of")
    hint = "expected a run's folder or one for the Hub"
    if (path / "best.json").is_file():
        hint = f"it holds a search's winner, which is trained first: zeroshot-nas train {path}"
    elif (path / "trainings").is_dir():
        hint = f"it holds a comparison, whose trainings lie below {path / 'trainings'}"
    raise FileNotFoundError(f"{path / BEST} is not there; {hint}")


def _older(name: str) -> str:
    """What earlier releases called a file of weights."""
    return Path(name).with_suffix(".pt").name


def _read_checkpoint(file: Path) -> dict[str, Any]:
    """What `pack` gave, from a file of weights of this release or an earlier one."""
    verdict = "is not a checkpoint, or is cut short"
    way_out = f"expected a {SUFFIX} file of a training run; of exported files the .onnx ones can be predicted with"
    if file.suffix.lower() == SUFFIX:
        tensors, about = _read_weights(file, way_out)
        checkpoint: Any = {**about, "state_dict": tensors} if isinstance(about, dict) else None
    else:
        checkpoint = _read_archive(file, verdict, way_out)
    if not isinstance(checkpoint, dict) or checkpoint.get("format") not in (_FORMAT, _MODULE_FORMAT):
        raise FileFormatError(f"{file} is not a checkpoint of this package: expected format {_FORMAT!r}")
    if checkpoint.get("version") != _VERSION:
        raise FileFormatError(
            f"{file} has version {checkpoint.get('version')!r:.40}; this release reads version {_VERSION}"
        )
    return checkpoint


def _read_weights(file: Path, way_out: str) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        return read_weights(file.read_bytes())
    except ValueError as error:
        raise FileFormatError(f"{file} is not a checkpoint, or is damaged: {_first_line(error)}; {way_out}") from error


def hub_config(network: TrainedNetwork) -> dict[str, Any]:
    """What a folder for the Hub says of its weights in ``config.json``."""
    return {
        "format": HUB_FORMAT,
        "version": _VERSION,
        "library_name": "zeroshot-nas",
        "input_size": list(network.architecture.input_size),
        "num_classes": network.num_classes,
        "num_features": network.num_features,
        "class_names": list(network.class_names),
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "architecture": network.architecture.to_dict(),
    }


def _read_hub(file: Path) -> dict[str, Any]:
    """What `pack` would give, from a folder for the Hub; its ``config.json`` says what network the weights are of."""
    weights = file.with_name(HUB_WEIGHTS)
    for part in (file, weights):
        if not part.is_file():
            raise FileNotFoundError(f"{part} is not there; expected a folder with {HUB_CONFIG} and {HUB_WEIGHTS}")
    try:
        config = read_json(file.read_bytes())
    except ValueError as error:
        raise FileFormatError(f"{file} is damaged: not JSON: {_first_line(error)}") from error
    check_format(config, HUB_FORMAT, _VERSION, "the config of a network of this package", file=str(file))
    try:
        architecture = Architecture.from_dict(config["architecture"])
        names = config["class_names"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError("class_names must be a list of texts")
        if (counts := (config["num_classes"], len(names))) != (architecture.num_classes,) * 2:
            raise ValueError(
                f"its classes do not match: the architecture has {architecture.num_classes}, num_classes is "
                f"{quoted(counts[0])}, and class_names has {counts[1]} names"
            )
        normalization = {"mean": config["mean"], "std": config["std"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileFormatError(f"{file} is damaged: its parts do not fit together: {_said(error)}") from error
    tensors, _ = _read_weights(weights, "download or export it again")
    return {
        "format": _FORMAT,
        "architecture": architecture.to_json(),
        "state_dict": tensors,
        "normalization": normalization,
        "class_names": names,
    }


def _read_archive(file: Path, verdict: str, way_out: str) -> Any:
    """The content of a file of `torch.save`, whose every part is as it was written.

    The archive's checksums are compared first, since torch does not: a flipped bit would be a changed weight. Nothing
    in it may be compressed, as torch never does, so that a small file does not fill the memory.

    Raises:
        FileFormatError: It is none, or is damaged.
    """
    content = io.BytesIO(file.read_bytes())  # read first: torch raises OSError for damaged files too
    try:
        with zipfile.ZipFile(content) as archive:
            entries = archive.infolist()
            whole = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            whole = whole and sum(entry.file_size for entry in entries) <= len(content.getbuffer())
            damaged = archive.testzip() if whole else entries[0].filename
    except Exception as error:  # zipfile raises many kinds on bytes that are no archive
        raise FileFormatError(f"{file} {verdict}; {way_out}") from error
    if damaged is not None:
        raise FileFormatError(f"{file} is damaged: its part {damaged!r:.80} is not as it was written; {way_out}")
    content.seek(0)
    try:
        return torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # without torch's text, which advises to load it unsafely
        raise FileFormatError(f"{file} {verdict}; {way_out}") from error


def torch_bytes(content: object) -> bytes:
    """What `torch.save` writes. torch's own writer to a file ends the process where the disk is full."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@torch.no_grad()
def predict(network: Network | Classifier, images: Tensor, *, batch_size: int | None = None) -> Tensor:
    """Probabilities ``(N, num_classes)`` of the classes, on the CPU.

    Args:
        network: A network from `load` or `load_onnx`, which take raw images, or a plain one, which takes normalised
            ones.
        images: Images ``(N, C, H, W)`` of the network's input size, float, or uint8 from 0 to 255.
        batch_size: Images that go through the network at once. Default: 64 on a CPU, where twice the time an image goes
            by when a batch does not fit in its caches, and 512 elsewhere.

    Raises:
        DataError: The images are not of the network's input size.

    Example:
        >>> from zeroshot_nas.network.module import build
        >>> network = build(Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 4, 4), num_classes=3))
        >>> predict(network, torch.zeros(2, 1, 4, 4)).shape
        torch.Size([2, 3])
    """
    size = input_size_of(network)
    if tuple(images.shape[1:]) != size:
        raise DataError(
            f"the network takes images (N, {', '.join(map(str, size))}), got {tuple(images.shape)}; resize them"
        )
    parameter = next(network.parameters()) if isinstance(network, nn.Module) else torch.empty(0)
    batches = map(as_float, torch.split(images, batch_size or (64 if parameter.device.type == "cpu" else 512)))
    if not isinstance(network, nn.Module):
        return torch.cat([network(batch) for batch in batches]).softmax(1)
    was_training = network.training
    network.eval()
    try:
        logits = [network(batch.to(parameter)).cpu() for batch in batches]
    finally:
        network.train(was_training)
    return torch.cat(logits).softmax(1)


def classify(network: Trained | Classifier, files: Sequence[Path]) -> Iterator[tuple[Path, dict[str, float]]]:
    """What a trained network says of image files: each file with the probabilities of the classes, the best first.

    Args:
        network: A network from `load` or `load_onnx`.
        files: Image files, which are fitted to the network's input as `read_image` does.

    Raises:
        DataError: A file is no image, or the network's outputs for it are not finite.
    """
    for file in files:
        probabilities = predict(network, read_image(file, input_size_of(network))[None])[0]
        if not probabilities.isfinite().all():
            raise DataError(f"the network's outputs for {file} are not finite: its training diverged; train it anew")
        best = probabilities.argsort(descending=True, stable=True).tolist()
        yield file, {network.class_names[index]: probabilities[index].item() for index in best}


def read_call(folder: Path) -> dict[str, Any]:
    """How a training was asked for, as `RunFolder.save_call` kept it.

    Raises:
        SettingsChangedError: The release that began it kept nothing.
        FileFormatError: The file is damaged.
    """
    file = folder / CALL
    if not file.exists():
        raise SettingsChangedError(
            f"{folder} was begun by a release that did not keep how it was asked for; train with the same arguments "
            "and resume"
        )
    try:
        call: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{file} is damaged: {error}; train with the same arguments and resume") from None
    return call


def read_result(path: Path) -> dict[str, Any]:
    """What a run's ``train.json`` says, by its folder or a file in it; nothing where there is none.

    Raises:
        FileFormatError: It is damaged.
    """
    file = (path if path.is_dir() else path.parent) / RESULT
    if not file.exists():
        return {}
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {**result, **{name: result[name] for name in ("state", "epochs", "recipe", "data")}}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileFormatError(f"{file} is damaged; resume the run to write it again, or remove it") from error


class RunFolder:
    """The folder of a run, locked for this process, whose files are valid whenever the process dies.

    Args:
        path: The folder; made with its parents if need be.
        force: Whether it may hold a run already, which is then replaced.
        resume: Whether it may hold a run already, which then goes on.

    Raises:
        OutputExistsError: It holds a run and neither is set, or it is a file.
        RunInUseError: Another process has it.
        StoreError: It can't be written to.
    """

    def __init__(self, path: str | Path, force: bool, resume: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise OutputExistsError(f"expected a folder to write to, got the file {self.path}; give another path")
        self._lock = lock_folder(self.path)
        held = _held(self.path)
        if held and not (force or resume):
            self._lock.release()
            raise OutputExistsError(
                f"{self.path} already holds a run ({', '.join(held)}); give another folder, resume=True (--resume) to "
                "go on with it, or force=True (--force) to replace it"
            )
        if force:
            # of another run, which must not be gone on with, nor taken for this one's
            for name in (*held, SPLIT, SUPERNET_IMAGES):
                (self.path / name).unlink(missing_ok=True)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def save_call(self, call: Mapping[str, Any]) -> None:
        """Writes how the training was asked for, so that it can be gone on with from the folder alone."""
        self._save(CALL, json.dumps(call))

    def save_split(self, split: Split) -> None:
        """Writes which images are trained and tested on."""
        self._save(SPLIT, json.dumps({part: sorted(names) for part, names in split.items()}, indent=1) + "\n")

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Writes all that a run needs to go on."""
        self._save(STATE, torch_bytes({"format": _STATE_FORMAT, **state}))

    def save_log(self, text: str) -> None:
        """Writes the table of epochs."""
        self._save(LOG, text)

    def save_weights(self, name: str, checkpoint: Mapping[str, Any]) -> None:
        """Writes what `pack` gives, and where the network is one of ours its architecture beside it."""
        about = {key: value for key, value in checkpoint.items() if key != "state_dict"}
        self._save(name, weights_bytes(checkpoint["state_dict"], about))
        (self.path / _older(name)).unlink(missing_ok=True)  # of an earlier release that began the run
        if "architecture" in checkpoint:
            self._save(ARCHITECTURE, Architecture.from_json(checkpoint["architecture"]).to_json(indent=2) + "\n")

    def save_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Writes tensors as a safetensors file."""
        self._save(name, weights_bytes(tensors))

    def save_result(self, result: Mapping[str, Any]) -> None:
        """Writes a JSON-ready result; a row of numbers is one line."""
        text = json.dumps(result, indent=2, allow_nan=False)
        self._save(RESULT, re.sub(r"\[\s+[\d,\s]+\]", lambda row: " ".join(row[0].split()), text) + "\n")

    def _save(self, name: str, content: str | bytes) -> None:
        content = content.encode() if isinstance(content, str) else content
        way_out = "what the run had is as it was: make room or allow it, and resume"
        with explained_writes(self.path, StoreError, way_out):
            write_atomically(self.path / name, lambda draft: draft.write_bytes(content))


def _held(folder: Path) -> list[str]:
    """Files of a run that a folder holds."""
    names = (BEST, _older(BEST), LAST, _older(LAST), RESULT, STATE)
    return [name for name in names if (folder / name).exists()]


def read_state(folder: Path) -> dict[str, Any] | None:
    """What `RunFolder.save_state` wrote, if there is a run.

    Raises:
        FileFormatError: The file is damaged.
        OutputExistsError: There is a run, but not its state.
    """
    file = folder / STATE
    if not file.exists():
        if held := _held(folder):
            raise OutputExistsError(
                f"{folder} holds a run ({', '.join(held)}) without {STATE}, so it can't go on; give another folder, or "
                "force in place of resume to replace it"
            )
        return None
    way_out = "give another folder, or force in place of resume to replace it"
    state = _read_archive(file, "is damaged, so the run can't go on", way_out)
    if not isinstance(state, dict) or state.get("format") != _STATE_FORMAT:
        raise FileFormatError(
            f"{file} is not the state of a training run of this release, so the run can't go on; go on with the "
            "release that began it, or replace it with force in place of resume"
        )
    return state


def _said(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else _first_line(error)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
