"""Networks of the golden data: a spec becomes an ``nn.Module``, with its weights and arrays. See golden/README.md."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

REDUCED = Path(__file__).with_name("golden")
"""The copy of two networks that comes with the tests."""

FULL = Path(__file__).parent.parent / "../shared/data/golden"
"""The whole data set, where a checkout has it beside it."""

FOLDER = FULL if (FULL / "golden.json").exists() else REDUCED
"""What the tests read: the copy is part of the whole, so that no value is checked twice."""


class SpecNetwork(nn.Module):
    """A network from its list of nodes; every node but ``add`` and ``scale`` is one module, in the list's order.

    Args:
        nodes: The nodes.
        adds_as_modules: Whether ``add`` nodes are modules too, so that their outputs can be read by name.
    """

    def __init__(self, nodes: Sequence[Mapping[str, Any]], adds_as_modules: bool = False) -> None:
        super().__init__()
        self.nodes = lambda: nodes  # a function: a copy of the network does not copy the spec
        for node in nodes:
            if node["op"] == "add" and adds_as_modules:
                self.add_module(node["name"], Add())
            elif node["op"] not in ("add", "scale"):
                self.add_module(node["name"], _module(node))

    def forward(self, x: Tensor) -> Tensor:
        values = {"x": x}
        for node in self.nodes():
            inputs = [values[name] for name in node["in"]]
            if node["op"] == "add" and not hasattr(self, node["name"]):
                values[node["name"]] = _sum(inputs)
            elif node["op"] == "scale":
                values[node["name"]] = inputs[0] * inputs[1]
            else:
                values[node["name"]] = getattr(self, node["name"])(*inputs)
        return values[self.nodes()[-1]["name"]]


class GlobalAveragePool(nn.Module):
    """The mean over height and width, kept as ``(N, C, 1, 1)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class Add(nn.Module):
    """The sum of its inputs."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return _sum(inputs)


def _sum(inputs: Sequence[Tensor]) -> Tensor:
    total = inputs[0]
    for shortcut in inputs[1:]:
        total = total + shortcut
    return total


def _module(node: Mapping[str, Any]) -> nn.Module:
    match node["op"]:
        case "conv":
            return nn.Conv2d(
                node["cin"], node["cout"], node["k"], node["s"], node["p"], groups=node["groups"], bias=node["bias"]
            )
        case "bn":
            return nn.BatchNorm2d(node["c"], eps=node["eps"], momentum=node["momentum"])
        case "relu":
            return nn.ReLU()
        case "sigmoid":
            return nn.Sigmoid()
        case "avgpool":
            return nn.AvgPool2d(node["k"], node["s"], node["p"], count_include_pad=node["count_include_pad"])
        case "gap":
            return GlobalAveragePool()
        case "flatten":
            return nn.Flatten()
        case "linear":
            return nn.Linear(node["cin"], node["cout"], bias=node["bias"])
    raise ValueError(f"unknown op {node['op']!r}")


def without_residuals(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Every add keeps its first input only; what then no longer reaches the output is removed."""
    single = [{**node, "in": node["in"][:1]} if node["op"] == "add" else node for node in nodes]
    needed = {single[-1]["name"]}
    for node in reversed(single):
        if node["name"] in needed:
            needed.update(node["in"])
    return [node for node in single if node["name"] in needed]


class Golden:
    """One network of the golden data.

    Args:
        name: The network's.
    """

    def __init__(self, name: str) -> None:
        self.name, entry = name, read_index()["nets"][name]
        self.spec: dict[str, Any] = entry["spec"]
        self.scores: dict[str, dict[str, Any]] = entry["scores"]
        self.arrays = _arrays(FOLDER / entry["file"])

    def tensor(self, key: str, dtype: torch.dtype = torch.float64) -> Tensor:
        """A copy of an array; integers keep their type."""
        tensor = torch.tensor(self.arrays[key])
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    def build(
        self,
        weights: str = "w",
        dtype: torch.dtype = torch.float64,
        residuals: bool = True,
        adds_as_modules: bool = False,
    ) -> SpecNetwork:
        """The network with weight set ``"w"`` or ``"g"``, with or without ``add`` nodes as modules."""
        nodes = self.spec["nodes"] if residuals else without_residuals(self.spec["nodes"])
        network = SpecNetwork(nodes, adds_as_modules).to(dtype)
        state = network.state_dict()
        for name in state:
            if not name.endswith("num_batches_tracked"):
                state[name] = self.tensor(f"{weights}/{name}", dtype)
        network.load_state_dict(state)
        return network


@cache
def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


@cache
def read_index(folder: Path = FOLDER) -> dict[str, Any]:
    """``golden.json``: specs, scores and tolerances."""
    index: dict[str, Any] = json.loads((folder / "golden.json").read_text())
    return index


def networks() -> list[str]:
    """Every network of the data."""
    return list(read_index()["nets"])
