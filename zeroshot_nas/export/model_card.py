"""The model card of a folder for the Hub: what the network is, what it was measured at, how it is loaded."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zeroshot_nas.core.provenance import cpu_model
from zeroshot_nas.core.text import printable
from zeroshot_nas.costs.base import COSTS
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.training.images import FITTING

if TYPE_CHECKING:
    from zeroshot_nas.export.base import Origin
    from zeroshot_nas.training.checkpoint import TrainedNetwork

NO_LICENCE = "unknown"
"""What the Hub calls a licence that nobody stated."""

_SHOWN = 20
"""Classes that are named one by one."""

_LONGEST = 600
"""Characters of an architecture's string."""


def model_card(network: TrainedNetwork, origin: Origin, latency_ms: float) -> str:
    """The card as Markdown, with the YAML in front that the Hub reads.

    Args:
        network: The network.
        origin: How it came about, as far as that is known.
        latency_ms: Milliseconds of one image on this machine, in torch on one thread.
    """
    size = " x ".join(map(str, network.architecture.input_size[1:]))
    title = f"Image classifier of {complexity(network.architecture).params:,} parameters for {size} pixels"
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in _facts(network, origin, latency_ms))
    return f"""---
{_front_matter(title, origin)}
---

# {title}

A convolutional network{", found by training-free architecture search" if origin.search else ""} (zeroshot-nas).

| what | value |
|---|---|
{rows}

## Use

```python
import zeroshot_nas as zs                    # pip install zeroshot-nas
network = zs.load(".")                       # this folder; of the Hub huggingface_hub.snapshot_download("owner/name")
probabilities = zs.predict(network, images)  # images (N, {", ".join(map(str, network.architecture.input_size))})
```

Without that package, with torch and safetensors alone:

```python
from model import load
probabilities = load()(images).softmax(1)    # images in [0, 1]
```

`zs.features(network)` gives its feature maps for detection and segmentation, as timm's `features_only` does.
{_architecture(network, origin)}"""


def _facts(network: TrainedNetwork, origin: Origin, latency_ms: float) -> Iterator[tuple[str, str]]:
    shape = ", ".join(map(str, network.architecture.input_size))
    names = network.class_names
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    yield "Classes", f"{len(names)}: {shown}"
    yield "Input", f"float32 (N, {shape}), values in [0, 1], which it normalises itself; an image file is {FITTING}"
    yield from _training(origin.training)
    if search := origin.search:
        limits = [f"{name} at most {value:,.6g}" for name, value in (search.settings.get("budget") or {}).items()]
        yield "Budget", ", ".join(limits) or "none"
        scores = ", ".join(f"{key} {score.value:.6g}" for key, score in search.best.scores.items())
        found = f"best of {search.counts.proposed:,} proposals in the space {search.settings.get('space')}"
        yield "Score", f"{scores} ({found}, seed {search.settings.get('seed')})"
    else:
        yield "Budget", "none is known: the card was written without the search"
        yield "Score", _closed_form(network)
    costs = complexity(network.architecture).to_dict()
    yield "Costs", ", ".join(f"{COSTS[name].label} {value:,}" for name, value in costs.items() if value is not None)
    yield "Latency", f"{latency_ms:.3f} ms an image on one thread of {cpu_model()}, in torch {_torch_version()}"
    yield "Licence", origin.license or "not stated; ask whoever published it"


def _training(training: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if training is None:
        yield "Data", "not known: the network was trained elsewhere, or not at all"
        yield "Test accuracy", "not known"
        return
    images, recipe = training.get("images", {}), training["recipe"]
    counts = ", ".join(f"{count:,} {part}" for part, count in images.items())
    yield "Data", f"{_data_name(training)}{f' ({counts} images)' if counts else ''}"
    accuracy, interval = training.get("test_accuracy"), training.get("test_interval")
    if accuracy is None:
        yield "Test accuracy", f"not known: {training['epochs']} of {recipe['epochs']} epochs are done"
    else:
        between = f" (95 % interval {interval[0]:.1%} to {interval[1]:.1%})" if interval else ""
        rounded = "" if recipe.get("quantization") is None else ", with values rounded to int8"
        yield (
            "Test accuracy",
            f"{accuracy:.2%}{f' of {count:,} images' if (count := images.get('test')) else ''}{between}{rounded}",
        )
    yield "Training", f"{training['epochs']} epochs of {recipe['epochs']}, seed {training.get('seed')}"


def _data_name(training: Mapping[str, Any]) -> str:
    """The data's name; of a folder its last part, since the rest is nobody else's business."""
    kind, _, path = str(training["data"]).partition(":")
    last = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return f"{kind}:{last}" if last else kind


def _closed_form(network: TrainedNetwork) -> str:
    from zeroshot_nas.scoring.engine import score

    (found,) = score(network.architecture, ["cet"]).values()
    return f"cet {found.value:.6g}" if found.ok else f"cet has no value: {found.reason}"


def _architecture(network: TrainedNetwork, origin: Origin) -> str:
    text = (origin.search.best.string if origin.search else "") or str(network.architecture)
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… (config.json has it all)"
    return f"\n## Architecture\n\n```\n{printable(shown).replace('```', '')}\n```\n"


def _front_matter(title: str, origin: Origin) -> str:
    """YAML; every text in it is JSON's, which YAML takes."""
    lines = [
        f"license: {json.dumps(origin.license or NO_LICENCE)}",
        "library_name: zeroshot-nas",
        "pipeline_tag: image-classification",
        "tags: [image-classification, neural-architecture-search, zeroshot-nas, pytorch]",
        "metrics: [accuracy]",
    ]
    training = origin.training
    is_rounded = (
        training is not None and training["recipe"].get("quantization") is not None
    )  # the card's weights are not
    if training is not None and training.get("test_accuracy") is not None and not is_rounded:
        name = json.dumps(printable(_data_name(training)))
        lines += [
            "model-index:",
            f"- name: {json.dumps(title)}",
            "  results:",
            "  - task: {type: image-classification}",
            f"    dataset: {{name: {name}, type: {name}, split: test}}",
            f"    metrics: [{{type: accuracy, name: test accuracy, value: {training['test_accuracy']:.6g}}}]",
        ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text in a table of Markdown, whatever its names are made of."""
    return html.escape(printable(text), quote=False).replace("|", "\\|").replace("`", "'")


def _torch_version() -> str:
    import torch

    return str(torch.__version__)
