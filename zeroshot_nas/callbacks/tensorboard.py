"""Events as TensorBoard's scalars."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zeroshot_nas.callbacks.base import Event, register_callback
from zeroshot_nas.errors import CallbackError, MissingExtraError

_SUFFIX = ".zeroshot_nas"


@register_callback("tensorboard")
class TensorBoardWriter:
    """Writes every number of an event as a scalar ``kind/name``, and settings and the winner as texts.

    Look at it with ``tensorboard --logdir FOLDER``. The file is begun anew with the run, and what it has done before is
    told again, so that it is whole.

    Args:
        folder: Where; made where it is not there.

    Raises:
        CallbackError: There is no folder.
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path | None) -> None:
        if folder is None:
            raise CallbackError(
                "tensorboard writes files: give the run a folder (out, --out), or say where, tensorboard:folder=logs"
            )
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError("tensorboard", "tensorboard") from None
        self.folder = Path(folder)
        self._open = SummaryWriter
        self._writer: Any = None

    def __call__(self, event: Event) -> None:
        """Adds the scalars of an event."""
        if event.kind == "begin":
            for old in self.folder.glob(f"events.out.tfevents.*{_SUFFIX}"):
                old.unlink()
            self._writer = self._open(str(self.folder), filename_suffix=_SUFFIX)
        for name, value in event.values.items():
            self._writer.add_scalar(f"{event.kind}/{name}", value, event.step)
        if event.kind in ("begin", "end") and event.about:
            self._writer.add_text(event.kind, f"    {json.dumps(event.about, default=str)}", event.step)
        if event.kind == "end":
            self._writer.close()
        elif event.kind != "score":  # which may come by hundreds a second, and are written every two minutes
            self._writer.flush()
