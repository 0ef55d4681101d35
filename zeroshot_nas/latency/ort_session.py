"""ONNX Runtime's sessions on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.errors import MissingExtraError

if TYPE_CHECKING:
    import onnxruntime

_ERRORS_ONLY = 3


def ort_session(model: bytes | Path, *, threads: int = 1, profile: Path | None = None) -> onnxruntime.InferenceSession:
    """A session on the CPU with all graph optimisations.

    Args:
        model: The model, or its file.
        threads: Threads within an operator.
        profile: Where the times of nodes are written, without its ending; None writes none.

    Raises:
        MissingExtraError: The extra ``onnx`` is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
