"""`load_onnx`: an exported ONNX file read back, to classify with ONNX Runtime as the device will."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.errors import FileFormatError, MissingExtraError
from zeroshot_nas.export.base import FORMATS
from zeroshot_nas.latency.ort_session import ort_session

if TYPE_CHECKING:
    import onnxruntime
    from torch import Tensor


@dataclass(frozen=True)
class ExportedNetwork:
    """An exported ONNX file in ONNX Runtime; it takes images ``(N, C, H, W)`` in [0, 1] and returns logits.

    Attributes:
        file: The file.
        input_size: Shape ``(C, H, W)`` of one image.
        class_names: Names of the classes, in the order of the logits.
    """

    file: Path
    input_size: tuple[int, int, int]
    class_names: tuple[str, ...]
    _session: onnxruntime.InferenceSession = field(repr=False, compare=False)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``(N, classes)``.

        Raises:
            FileFormatError: The runtime can't compute them.
        """
        from zeroshot_nas.export import checks  # here: it loads torch

        try:
            return checks.run(self._session, images)
        except Exception as error:  # the runtime raises its own kinds, with no common base
            raise FileFormatError(f"{self.file} is damaged: {_first_line(error)}; export it again") from error


def load_onnx(path: str | Path) -> ExportedNetwork:
    """Loads an ONNX file that `export_network` wrote, float or int8, to classify images with.

    A file of another origin is refused: neither its classes nor the range of its inputs are known.

    Args:
        path: The file, or a folder that was exported to (its float model).

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is no ONNX model, was not written by this package, or is damaged.
        MissingExtraError: The extra ``onnx`` is not installed.
    """
    from zeroshot_nas.export.checks import DESCRIBED  # here: it loads torch

    path = Path(path)
    file = path / FORMATS["onnx"].file if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there; expected an exported .onnx file")
    try:
        session = ort_session(file)
    except MissingExtraError:
        raise
    except Exception as error:  # the runtime raises its own kinds, with no common base
        raise FileFormatError(f"{file} is no ONNX model, or is damaged: {_first_line(error)}") from error
    about = session.get_modelmeta().custom_metadata_map
    if missing := DESCRIBED - set(about):
        raise FileFormatError(
            f"{file} was not written by `export`: its metadata lack {', '.join(sorted(missing))}, so neither its "
            "classes nor the range of its inputs is known; run it with onnxruntime, or export the network here"
        )
    try:
        names = json.loads(about["class_names"])
        (channels, height, width), classes = session.get_inputs()[0].shape[1:], session.get_outputs()[0].shape[-1]
        sizes = (int(channels), int(height), int(width))
        if not isinstance(names, list) or len(names) != classes or not all(isinstance(name, str) for name in names):
            raise ValueError(f"expected the names of {classes} classes")
    except (ValueError, TypeError, IndexError, RecursionError) as error:
        raise FileFormatError(f"{file} is damaged: its metadata do not fit it: {_first_line(error)}") from error
    return ExportedNetwork(file, sizes, tuple(names), session)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
