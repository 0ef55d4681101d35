"""How a search was asked for, as its run keeps it: enough to ask for it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.structure import StructureBounds
from zeroshot_nas.errors import SettingsChangedError
from zeroshot_nas.latency.device_table import LatencyTable
from zeroshot_nas.scoring.proxy import PROXIES, Proxy
from zeroshot_nas.searching.settings import SearchSettings
from zeroshot_nas.spaces.base import SearchSpace, SpaceCall
from zeroshot_nas.training.recipe import Recipe


def call_of(
    space: SearchSpace,
    proxy: Proxy,
    budget: Budget,
    settings: SearchSettings,
    backend: str,
    device_table: LatencyTable | str | Path | None,
) -> dict[str, Any]:
    """A search's arguments as JSON; None stands for an object that only the caller can give again."""
    table: Any = device_table
    if isinstance(device_table, str | Path):
        table = str(Path(device_table).resolve())
    elif device_table is not None:
        table = getattr(device_table, "spec", None)
    by_name = not isinstance(settings.searcher, type)
    return {
        "space": None if space.made_by is None else asdict(space.made_by),
        "proxy": proxy.key if proxy.info.name in PROXIES and PROXIES[proxy.info.name] is proxy.info else None,
        "budget": {**budget.limits(), "structure": budget.structure and asdict(budget.structure)},
        "settings": asdict(settings) if by_name else None,
        "backend": backend,
        "device_table": table,
        "needs_device_table": device_table is not None and table is None,
    }


def arguments_of(call: Mapping[str, Any], given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What to call `zeroshot_nas.search` with to ask for the same again.

    Args:
        call: What `call_of` gave.
        given: Objects that a file can't hold: ``space``, ``proxy``, ``settings``, ``device_table``, ``data``.
        folder: The run's folder, for messages.

    Raises:
        SettingsChangedError: Such an object is missing.
        UnknownNameError: The space, the proxy or the searcher is no longer registered.
    """
    arguments = {
        "space": _made(call["space"]),
        "proxy": call["proxy"],
        "budget": _budget(call["budget"]),
        "settings": None if call["settings"] is None else SearchSettings(**call["settings"]),
        "backend": call["backend"],
        "device_table": call["device_table"],
        **_trials(call.get("trials")),
        **({"bits": call["bits"]} if "bits" in call else {}),
        **({"first": list(map(Architecture.from_dict, call["first"]))} if "first" in call else {}),
        **given,
    }
    needed = ["space", "proxy", "settings"]
    needed += ["device_table"] if call["needs_device_table"] else []
    needed += ["data"] if call.get("trials") else []
    for name in needed:
        if arguments[name] is None:
            raise SettingsChangedError(
                f"{folder} was begun with a {name} that is an object of the caller's, which no file holds; give it "
                f"again: resume(folder, {name}=...)"
            )
    return arguments


def _trials(trials: Mapping[str, Any] | None) -> dict[str, Any]:
    if trials is None:
        return {}
    return {"trials": trials["count"], "data": trials["data"], "recipe": Recipe(**trials["recipe"])}


def _made(space: Mapping[str, Any] | None) -> SearchSpace | None:
    if space is None:
        return None
    return SpaceCall(**space).make()


def _budget(limits: Mapping[str, Any]) -> Budget:
    limits = dict(limits)
    bounds = limits.pop("structure", None) or limits.pop("shape", None)  # as earlier releases called it
    return Budget(**limits, structure=None if bounds is None else StructureBounds(**bounds))
