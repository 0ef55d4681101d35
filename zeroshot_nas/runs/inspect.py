"""Reading a run's folder: what it is, how far it is, what it has scored. Another process may be writing to it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.score import Score
from zeroshot_nas.core.text import quoted, read_json
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.costs.reward import as_reward
from zeroshot_nas.errors import ArchitectureError, FileFormatError, StoreError, ZeroShotNASError
from zeroshot_nas.runs.store import FILE_NAME, Store

if TYPE_CHECKING:
    from zeroshot_nas.scoring.proxy import Proxy
    from zeroshot_nas.spaces.base import SearchSpace

TRAINING_FILE = "train.json"
"""What a training writes after every epoch."""

_COLUMNS = (
    "string",
    "proxy",
    "seed",
    "value",
    "standard_error",
    "repeats",
    "seconds",
    "state",
    "reason",
    "settings",
    "details",
    "architecture",
)


def summary(folder: Path | str) -> dict[str, Any]:
    """What a run is and how far it is: a search, a study, a correlation, or a training.

    Raises:
        StoreError: The folder holds no run.
        FileFormatError: A training's file is damaged.
    """
    if is_training(folder):
        return _training(Path(folder))
    with Store(Path(folder) / FILE_NAME, read_only=True) as store:
        journal = list(store.journal())
        last = journal[-1].kind if journal else "empty"
        return {
            "folder": str(folder),
            "kind": store.fact("kind") or "unknown",
            "state": last if last in ("done", "interrupted", "failed", "empty") else "unfinished",
            "scores": len(store),
            "settings": store.fact("settings"),
            "begun_with": next((entry.body for entry in journal if entry.kind == "start"), None),
            "journal": [[entry.time, entry.kind] for entry in journal],
        }


def stored_kind(folder: Path | str) -> str | None:
    """What the store in a folder says that its run is; None where there is none."""
    if not (Path(folder) / FILE_NAME).is_file():
        return None
    with Store(Path(folder) / FILE_NAME, read_only=True) as store:
        kind = store.fact("kind")
    return None if kind is None else str(kind)


def is_training(folder: Path | str) -> bool:
    """Whether a folder holds a training, which keeps no store."""
    return (Path(folder) / TRAINING_FILE).is_file() and not (Path(folder) / FILE_NAME).exists()


def _training(folder: Path) -> dict[str, Any]:
    file = folder / TRAINING_FILE
    try:
        known = read_json(file.read_bytes())
        result = {name: known[name] for name in ("test_accuracy", "validation_accuracy", "best_epoch", "epochs")}
        settings = {name: known[name] for name in ("data", "seed", "params", "recipe")}
        state = {"running": "unfinished"}.get(known["state"], known["state"])
    except (ValueError, TypeError, KeyError) as error:
        raise FileFormatError(f"{file} is no training's: {type(error).__name__}: {quoted(str(error))}") from None
    return {
        "folder": str(folder),
        "kind": "training",
        "state": state,
        "scores": 0,
        "result": result,
        "settings": settings,
    }


def best_so_far(folder: Path | str) -> dict[str, Any]:
    """The network that an unfinished run would choose of what it has scored.

    That is the best by the run's own proxy; scores of another one in the store, such as the closed form of a part, say
    nothing of it. An aggregate is joined among all networks whose parts are all there. Of several scores of a network
    the one of most repeats counts, as for the leaders of a search. Where the search maximises a reward, so does this.

    Raises:
        StoreError: The run has no such score yet, or is none that looks for a best network, or rewards latency, which
            only the search itself can predict.
        UnknownNameError: The run's proxy is not registered here.
    """
    if is_training(folder):
        raise StoreError(f"{folder} holds a training, which looks for no best network; see `zeroshot-nas runs show`")
    with Store(Path(folder) / FILE_NAME, read_only=True) as store:
        if store.fact("kind") == "correlation":
            raise StoreError(f"{folder} holds a correlation, which looks for no best network; see its report.md")
        if store.fact("kind") == "comparison":
            raise StoreError(f"{folder} holds a comparison; see `zeroshot-nas runs show`")
        if store.fact("kind") in ("family", "family training"):
            raise StoreError(
                f"{folder} holds a {store.fact('kind')}, which has a network for each budget; see its files"
            )
        settings = store.fact("settings") or {}
        if "proxy" not in settings:
            raise StoreError(f"{folder} holds no search: its settings name no proxy")
        proxy, scores = ranking_scores(settings, store)
        alive = {key: score for key, score in scores.items() if score.ok}
        if not alive:
            raise StoreError(f"{folder} has no score by {proxy.key} yet")
        reward = as_reward(settings.get("reward"))

        def fitness(key: str) -> float:
            value = proxy.sign * alive[key].value
            architecture = None if reward is None else store.architecture(key)
            if reward is None or architecture is None:
                return value
            return reward.of_costs(value, complexity(architecture))

        if reward is not None and reward.cost == "latency_ms":
            raise StoreError(
                f"{folder} rewards latency, which its search predicts; go on: zeroshot-nas resume {folder}"
            )
        key = max(alive, key=fitness)
        return {**_named(store.architecture(key), key, _space(store)), "score": alive[key].to_dict()}


def summaries(folder: Path | str) -> list[dict[str, Any]]:
    """Every run below a folder, one that can't be read too: in state ``"damaged"``, with the ``error``."""
    found = []
    files = [*Path(folder).glob(f"**/{FILE_NAME}"), *Path(folder).glob(f"**/{TRAINING_FILE}")]
    for path in sorted({path.parent: path for path in files}.values()):
        try:
            found.append(summary(path.parent))
        except (ZeroShotNASError, OSError) as error:
            about = {"kind": "unknown", "state": "damaged", "scores": 0, "error": str(error)}
            found.append({"folder": str(path.parent), **about})
    return found


def _space(store: Store) -> SearchSpace | None:
    """The space that a run's networks are of, where it can be made by name."""
    from zeroshot_nas.spaces.base import SpaceCall

    try:
        return SpaceCall(**store.fact("call")["space"]).make()
    except (TypeError, KeyError, ZeroShotNASError):  # a caller's own space, or an earlier release's run
        return None


def _named(architecture: Architecture | None, key: str, space: SearchSpace | None) -> dict[str, Any]:
    """An architecture as people write it, and whole."""
    if architecture is None:
        return {"string": key, "architecture": key}
    for write in (space.to_string if space else Architecture.to_string, Architecture.to_json):
        try:
            return {"string": write(architecture), "architecture": architecture.to_dict()}
        except ArchitectureError:
            continue
    raise AssertionError("JSON can be written of any")


def ranking_scores(settings: Mapping[str, Any], store: Store) -> tuple[Proxy, dict[str, Score]]:
    """What a search ranks by, and the scores by it that its store holds, by architecture key; aggregates are joined.

    Args:
        settings: The search's.
        store: Its store.

    Raises:
        UnknownNameError: The proxy is not registered here.
    """
    from zeroshot_nas.scoring.proxy import get_proxy  # takes a moment to import, which other commands do without
    from zeroshot_nas.scoring.told import TOLD

    proxy = TOLD if settings["proxy"] == TOLD.key else get_proxy(settings["proxy"])
    return proxy, _joined(proxy, store) if proxy.info.parts else scores_by(settings["proxy"], store)


def scores_by(proxy: str, store: Store) -> dict[str, Score]:
    """A store's scores by a proxy's key, by architecture key; of several of one architecture that of most repeats."""
    scores: dict[str, Score] = {}
    for key, body in store.scores():
        if key.proxy == proxy:
            score = Score.from_dict(body)
            if key.architecture not in scores or score.repeats > scores[key.architecture].repeats:
                scores[key.architecture] = score
    return scores


def _joined(aggregate: Proxy, store: Store) -> dict[str, Score]:
    """An aggregate's scores by architecture key, among the architectures that have all its parts."""
    from zeroshot_nas.scoring.pool import aggregate_scores

    parts = {part: scores_by(part, store) for part in aggregate.info.parts}
    first, *others = parts.values()
    whole = [key for key in first if all(key in scores for scores in others)]
    pool = [{part: scores[key] for part, scores in parts.items()} for key in whole]
    return dict(zip(whole, aggregate_scores(aggregate, pool), strict=True))


def export(folder: Path | str, as_format: str) -> str:
    """All scores of a run as CSV or JSON text.

    ``string`` is the architecture as its space writes it, a benchmark's own string, which ``scores.csv`` of a
    correlation has too; ``architecture`` is its JSON.
    """
    with Store(Path(folder) / FILE_NAME, read_only=True) as store:
        space = _space(store)
        named = cache(lambda key: _named(store.architecture(key), key, space))
        rows = []
        for key, body in store.scores():
            about = {"seed": key.seed, "settings": json.loads(key.settings)}
            rows.append({**named(key.architecture), **body, **about})
    if as_format == "json":
        return json.dumps(rows, indent=1) + "\n"
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        texts = {name: json.dumps(row[name]) for name in ("architecture", "settings")}
        writer.writerow({**row, **texts, "details": json.dumps(row.get("details", {}))})
    return text.getvalue()
