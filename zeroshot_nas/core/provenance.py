"""With what a result was made: command, versions, machine, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """What a run's record says of where it comes from; whatever can't be found out is None.

    The command is named without its folder: records are shared, and where it was installed is nobody else's business.

    Example:
        >>> sorted(provenance())
        ['command', 'commit', 'machine', 'versions']
    """
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("zeroshot-nas", "torch")},
        },
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "commit": _commit(),
    }


def cpu_model() -> str:
    """The processor's name as the system gives it, or its architecture.

    Example:
        >>> cpu_model() != ""
        True
    """
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def own_version() -> str:
    """This release; of a source tree that was not installed ``"unknown"``."""
    return _version("zeroshot-nas") or "unknown"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the package's own checkout, where it is one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603  fixed words
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
