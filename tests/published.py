"""The networks that Zen-NAS published, with the counts of the authors' code; see the source line in the file."""

import json
from pathlib import Path
from typing import Any

from zeroshot_nas import Architecture

NETWORKS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("data").joinpath("zennets.json").read_text())[
    "networks"
]
NAMES = [entry["name"] for entry in NETWORKS]
CIFAR = [entry for entry in NETWORKS if "cifar" in entry["name"]]
CIFAR_1M = next(entry for entry in NETWORKS if entry["name"] == "zennet_cifar_model_size1M_res32")


def architecture_of(entry: dict[str, Any]) -> Architecture:
    """The entry as an architecture, at its published resolution, classes and squeeze-and-excitation."""
    side = entry["resolution"]
    return Architecture.from_string(
        entry["plainnet"], (3, side, side), entry["num_classes"], squeeze_excite=entry["squeeze_excite"]
    )


PUBLISHED_STRUCTURES: dict[str, Any] = json.loads(
    Path(__file__).with_name("data").joinpath("tinynas.json").read_text()
)["networks"]
