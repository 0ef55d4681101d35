"""Trained networks on disk: one file holds architecture, weights, normalisation and class names."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.files import write_atomically, write_text
from zeroshot_nas.errors import DataError, FileFormatError, OutputExistsError, SettingsChangedError
from zeroshot_nas.network.module import Network
from zeroshot_nas.training.base import as_float

BEST, LAST, ARCHITECTURE, RESULT = "best.pt", "last.pt", "architecture.json", "train.json"
STATE, LOG, CALL = "state.pt", "train.log", "call.json"
"""Files of a run's folder."""

_FORMAT = "zeroshot_nas.checkpoint"
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


def pack(network: TrainedNetwork, epoch: int, validation_accuracy: float | None) -> dict[str, Any]:
    """A copy of a trained network in tensors, text and numbers, so that reading it back runs no code.

    Args:
        network: What to keep.
        epoch: Epochs trained so far.
        validation_accuracy: Fraction of validation images classified right, if there are any.
    """
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "architecture": network.architecture.to_json(),
        "state_dict": {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in network.state_dict().items()
        },
        "normalization": {"mean": network.mean.flatten().tolist(), "std": network.std.flatten().tolist()},
        "class_names": list(network.class_names),
        "epoch": epoch,
        "validation_accuracy": validation_accuracy,
    }


def unpack(checkpoint: Mapping[str, Any]) -> TrainedNetwork:
    """The network of what `pack` gives, in eval mode, on the CPU."""
    network = TrainedNetwork(
        Architecture.from_json(checkpoint["architecture"]),
        **checkpoint["normalization"],
        class_names=checkpoint["class_names"],
    )
    network.load_state_dict(checkpoint["state_dict"])
    return network.eval()


def load(path: str | Path, device: str | torch.device | None = None) -> TrainedNetwork:
    """Loads a trained network, architecture and weights.

    Args:
        path: Folder of a run (its best weights) or a ``.pt`` file from one.
        device: Where to put the network; default: the CPU.

    Returns:
        The network in eval mode. It takes images ``(N, C, H, W)`` in [0, 1] and returns logits.

    Raises:
        FileNotFoundError: There is no such file, or the folder has no ``best.pt``.
        FileFormatError: The file is not a checkpoint of ours, or is damaged.
    """
    path = Path(path)
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(errno.ENOENT, "no trained network; expected a run's folder or its .pt file", str(file))
    content = io.BytesIO(file.read_bytes())  # read first: torch raises OSError for damaged files too
    try:
        checkpoint = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on bytes that are not its own
        raise FileFormatError(
            f"{file} is not a checkpoint, or is cut short; expected a .pt file of a training run"
        ) from error  # without torch's text, which advises to load it unsafely
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != _FORMAT:
        raise FileFormatError(f"{file} is not a checkpoint of this package: expected format {_FORMAT!r}")
    if checkpoint.get("version") != _VERSION:
        raise FileFormatError(
            f"{file} has version {checkpoint.get('version')!r}; this release reads version {_VERSION}"
        )
    try:
        network = unpack(checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise FileFormatError(f"{file} is damaged: its parts do not fit together: {_first_line(error)}") from error
    return network.to(device)


@torch.no_grad()
def predict(network: Network, images: Tensor, *, batch_size: int = 512) -> Tensor:
    """Probabilities ``(N, num_classes)`` of the classes, on the CPU.

    Args:
        network: A network from `load`, which takes raw images, or a plain one, which takes normalised ones.
        images: Images ``(N, C, H, W)`` of the network's input size, float, or uint8 from 0 to 255.
        batch_size: Images that go through the network at once.

    Raises:
        DataError: The images are not of the network's input size.

    Example:
        >>> from zeroshot_nas.network.module import build
        >>> network = build(Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 4, 4), num_classes=3))
        >>> predict(network, torch.zeros(2, 1, 4, 4)).shape
        torch.Size([2, 3])
    """
    size = network.architecture.input_size
    if tuple(images.shape[1:]) != size:
        raise DataError(
            f"the network takes images (N, {', '.join(map(str, size))}), got {tuple(images.shape)}; resize them"
        )
    parameter = next(network.parameters())
    was_training = network.training
    network.eval()
    try:
        logits = [network(as_float(batch).to(parameter)).cpu() for batch in torch.split(images, batch_size)]
    finally:
        network.train(was_training)
    return torch.cat(logits).softmax(1)


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


class RunFolder:
    """The folder of a run, whose files are valid whenever the process dies.

    Args:
        path: The folder; made with its parents if need be.
        force: Whether it may hold a run already, which is then replaced.
        resume: Whether it may hold a run already, which then goes on.

    Raises:
        OutputExistsError: It holds a run and neither is set, or it is a file.
    """

    def __init__(self, path: str | Path, force: bool, resume: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise OutputExistsError(f"expected a folder to write to, got the file {self.path}; give another path")
        held = self._held()
        if held and not (force or resume):
            raise OutputExistsError(
                f"{self.path} already holds a run ({', '.join(held)}); give another folder, resume=True (--resume) to "
                "go on with it, or force=True (--force) to replace it"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        if force:
            for name in held:  # of another run, which must not be gone on with, nor taken for this one's
                (self.path / name).unlink()

    def _held(self) -> list[str]:
        return [name for name in (BEST, LAST, RESULT, STATE) if (self.path / name).exists()]

    def state(self) -> dict[str, Any] | None:
        """What `save_state` wrote, if there is a run.

        Raises:
            FileFormatError: The file is damaged.
            OutputExistsError: There is a run, but not its state.
        """
        file = self.path / STATE
        if not file.exists():
            if held := self._held():
                raise OutputExistsError(
                    f"{self.path} holds a run ({', '.join(held)}) without {STATE}, so it can't go on; give another "
                    "folder, or force in place of resume to replace it"
                )
            return None
        try:
            state = torch.load(io.BytesIO(file.read_bytes()), map_location="cpu", weights_only=True)
            if state["format"] == _STATE_FORMAT:
                return dict(state)
        except Exception as error:  # torch raises many kinds on bytes that are not its own
            raise FileFormatError(
                f"{file} is damaged, so the run can't go on; give another folder, or force in place of resume to "
                "replace it"
            ) from error
        raise FileFormatError(
            f"{file} is not the state of a training run of this release, so the run can't go on; go on with the "
            "release that began it, or replace it with force in place of resume"
        )

    def save_call(self, call: Mapping[str, Any]) -> None:
        """Writes how the training was asked for, so that it can be gone on with from the folder alone."""
        write_text(self.path / CALL, json.dumps(call))

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Writes all that a run needs to go on."""
        content = {"format": _STATE_FORMAT, **state}
        write_atomically(self.path / STATE, lambda draft: torch.save(content, draft))

    def save_log(self, text: str) -> None:
        """Writes the table of epochs."""
        write_text(self.path / LOG, text)

    def save_weights(self, name: str, checkpoint: Mapping[str, Any]) -> None:
        """Writes what `pack` gives, and the architecture beside it."""
        write_atomically(self.path / name, lambda draft: torch.save(dict(checkpoint), draft))
        architecture = Architecture.from_json(checkpoint["architecture"]).to_json(indent=2)
        write_text(self.path / ARCHITECTURE, architecture + "\n")

    def save_result(self, result: Mapping[str, Any]) -> None:
        """Writes a JSON-ready result."""
        text = json.dumps(result, indent=2, allow_nan=False) + "\n"
        write_text(self.path / RESULT, text)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
