"""Training-free neural architecture search: score, search and train small convolutional networks.

Names are imported when they are first used, so that costs and closed forms do not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeroshot_nas.architecture.architecture import Architecture as Architecture
    from zeroshot_nas.architecture.blockspec import BlockSpec as BlockSpec
    from zeroshot_nas.architecture.blockspec import list_blocks as list_blocks
    from zeroshot_nas.architecture.blockspec import register_block as register_block
    from zeroshot_nas.callbacks.base import Callback as Callback
    from zeroshot_nas.callbacks.base import Event as Event
    from zeroshot_nas.callbacks.base import list_callbacks as list_callbacks
    from zeroshot_nas.callbacks.base import register_callback as register_callback
    from zeroshot_nas.comparing.compare import compare as compare
    from zeroshot_nas.comparing.comparison import Comparison as Comparison
    from zeroshot_nas.core.ranking import rank_aggregate as rank_aggregate
    from zeroshot_nas.core.score import Score as Score
    from zeroshot_nas.costs.base import CostInfo as CostInfo
    from zeroshot_nas.costs.base import list_costs as list_costs
    from zeroshot_nas.costs.base import register_cost as register_cost
    from zeroshot_nas.costs.budget import Budget as Budget
    from zeroshot_nas.costs.complexity import Costs as Costs
    from zeroshot_nas.costs.cost import cost as cost
    from zeroshot_nas.costs.reward import Reward as Reward
    from zeroshot_nas.costs.structure import ShapeBounds as ShapeBounds
    from zeroshot_nas.costs.structure import StructureBounds as StructureBounds
    from zeroshot_nas.costs.weight_bits import allocate_bits as allocate_bits
    from zeroshot_nas.execution.base import get_executor as get_executor
    from zeroshot_nas.execution.base import list_executors as list_executors
    from zeroshot_nas.export.base import list_export_formats as list_export_formats
    from zeroshot_nas.export.exported import ExportedNetwork as ExportedNetwork
    from zeroshot_nas.export.exported import load_onnx as load_onnx
    from zeroshot_nas.export.exporting import ExportReport as ExportReport
    from zeroshot_nas.export.exporting import export_network as export_network
    from zeroshot_nas.export.hub import push_to_hub as push_to_hub
    from zeroshot_nas.families.family import Family as Family
    from zeroshot_nas.families.family import Member as Member
    from zeroshot_nas.families.finding import family as family
    from zeroshot_nas.families.scaling import Factors as Factors
    from zeroshot_nas.families.scaling import ScaledNetwork as ScaledNetwork
    from zeroshot_nas.families.scaling import find_factors as find_factors
    from zeroshot_nas.families.scaling import scale as scale
    from zeroshot_nas.families.targets import Target as Target
    from zeroshot_nas.families.trained import TrainedFamily as TrainedFamily
    from zeroshot_nas.families.trained import TrainedMember as TrainedMember
    from zeroshot_nas.families.training import train_family as train_family
    from zeroshot_nas.latency.base import list_backends as list_backends
    from zeroshot_nas.micro.boards import Board as Board
    from zeroshot_nas.micro.boards import get_board as get_board
    from zeroshot_nas.micro.boards import list_boards as list_boards
    from zeroshot_nas.micro.memory import Memory as Memory
    from zeroshot_nas.micro.memory import memory as memory
    from zeroshot_nas.nasbench.base import list_table_formats as list_table_formats
    from zeroshot_nas.nasbench.base import list_tables as list_tables
    from zeroshot_nas.nasbench.base import load_table as load_table
    from zeroshot_nas.nasbench.correlate import correlate as correlate
    from zeroshot_nas.nasbench.correlation import Correlation as Correlation
    from zeroshot_nas.nasbench.table import BenchmarkTable as BenchmarkTable
    from zeroshot_nas.network.features import features as features
    from zeroshot_nas.network.inheritance import inherit as inherit
    from zeroshot_nas.network.module import Network as Network
    from zeroshot_nas.network.module import build as build
    from zeroshot_nas.network.slicing import shrink as shrink
    from zeroshot_nas.pruning.prune import PrunedNetwork as PrunedNetwork
    from zeroshot_nas.pruning.prune import prune as prune
    from zeroshot_nas.pruning.prune import prune_channels as prune_channels
    from zeroshot_nas.references.base import list_references as list_references
    from zeroshot_nas.references.base import reference as reference
    from zeroshot_nas.references.base import register_reference as register_reference
    from zeroshot_nas.reporting.writing import report as report
    from zeroshot_nas.runs.options import RunOptions as RunOptions
    from zeroshot_nas.runs.resume import resume as resume
    from zeroshot_nas.scoring.engine import score as score
    from zeroshot_nas.scoring.pool import score_pool as score_pool
    from zeroshot_nas.scoring.proxy import Batch as Batch
    from zeroshot_nas.scoring.proxy import ProxyInfo as ProxyInfo
    from zeroshot_nas.scoring.proxy import get_proxy as get_proxy
    from zeroshot_nas.scoring.proxy import list_proxies as list_proxies
    from zeroshot_nas.scoring.proxy import register_proxy as register_proxy
    from zeroshot_nas.searchers.base import Candidate as Candidate
    from zeroshot_nas.searchers.base import Searcher as Searcher
    from zeroshot_nas.searchers.base import SearchResult as SearchResult
    from zeroshot_nas.searchers.base import list_searchers as list_searchers
    from zeroshot_nas.searchers.base import register_searcher as register_searcher
    from zeroshot_nas.searching.loop import search as search
    from zeroshot_nas.searching.optuna_objective import objective as objective
    from zeroshot_nas.searching.settings import SearchSettings as SearchSettings
    from zeroshot_nas.searching.study import Study as Study
    from zeroshot_nas.spaces.base import SearchSpace as SearchSpace
    from zeroshot_nas.spaces.base import get_space as get_space
    from zeroshot_nas.spaces.base import list_spaces as list_spaces
    from zeroshot_nas.spaces.base import register_space as register_space
    from zeroshot_nas.spaces.notations import Notation as Notation
    from zeroshot_nas.spaces.notations import register_notation as register_notation
    from zeroshot_nas.training.base import ImageData as ImageData
    from zeroshot_nas.training.base import from_datasets as from_datasets
    from zeroshot_nas.training.base import list_data as list_data
    from zeroshot_nas.training.base import load_data as load_data
    from zeroshot_nas.training.base import register_data as register_data
    from zeroshot_nas.training.checkpoint import load as load
    from zeroshot_nas.training.checkpoint import predict as predict
    from zeroshot_nas.training.qat import quantize_aware as quantize_aware
    from zeroshot_nas.training.recipe import Recipe as Recipe
    from zeroshot_nas.training.recipe import get_recipe as get_recipe
    from zeroshot_nas.training.recipe import list_recipes as list_recipes
    from zeroshot_nas.training.result import TrainResult as TrainResult
    from zeroshot_nas.training.supernet import Supernet as Supernet
    from zeroshot_nas.training.supernet import train_supernet as train_supernet
    from zeroshot_nas.training.trainer import train as train

_HOMES = {
    "list_blocks": "architecture.blockspec",
    "list_recipes": "training.recipe",
    "list_backends": "latency.base",
    "list_executors": "execution.base",
    "get_executor": "execution.base",
    "list_tables": "nasbench.base",
    "list_table_formats": "nasbench.base",
    "Architecture": "architecture.architecture",
    "BlockSpec": "architecture.blockspec",
    "register_block": "architecture.blockspec",
    "Callback": "callbacks.base",
    "Event": "callbacks.base",
    "list_callbacks": "callbacks.base",
    "register_callback": "callbacks.base",
    "compare": "comparing.compare",
    "Comparison": "comparing.comparison",
    "CostInfo": "costs.base",
    "list_costs": "costs.base",
    "register_cost": "costs.base",
    "cost": "costs.cost",
    "Reward": "costs.reward",
    "Budget": "costs.budget",
    "Costs": "costs.complexity",
    "ShapeBounds": "costs.structure",
    "StructureBounds": "costs.structure",
    "allocate_bits": "costs.weight_bits",
    "list_export_formats": "export.base",
    "ExportedNetwork": "export.exported",
    "load_onnx": "export.exported",
    "ExportReport": "export.exporting",
    "export_network": "export.exporting",
    "Family": "families.family",
    "Member": "families.family",
    "family": "families.finding",
    "Target": "families.targets",
    "TrainedFamily": "families.trained",
    "TrainedMember": "families.trained",
    "train_family": "families.training",
    "Factors": "families.scaling",
    "ScaledNetwork": "families.scaling",
    "find_factors": "families.scaling",
    "scale": "families.scaling",
    "push_to_hub": "export.hub",
    "features": "network.features",
    "Board": "micro.boards",
    "get_board": "micro.boards",
    "list_boards": "micro.boards",
    "Memory": "micro.memory",
    "memory": "micro.memory",
    "inherit": "network.inheritance",
    "shrink": "network.slicing",
    "BenchmarkTable": "nasbench.table",
    "load_table": "nasbench.base",
    "Correlation": "nasbench.correlation",
    "correlate": "nasbench.correlate",
    "Network": "network.module",
    "build": "network.module",
    "Batch": "scoring.proxy",
    "Score": "core.score",
    "ProxyInfo": "scoring.proxy",
    "get_proxy": "scoring.proxy",
    "list_proxies": "scoring.proxy",
    "register_proxy": "scoring.proxy",
    "score_pool": "scoring.pool",
    "score": "scoring.engine",
    "rank_aggregate": "core.ranking",
    "Candidate": "searchers.base",
    "SearchResult": "searchers.base",
    "Searcher": "searchers.base",
    "list_searchers": "searchers.base",
    "register_searcher": "searchers.base",
    "search": "searching.loop",
    "objective": "searching.optuna_objective",
    "SearchSettings": "searching.settings",
    "Study": "searching.study",
    "PrunedNetwork": "pruning.prune",
    "prune": "pruning.prune",
    "prune_channels": "pruning.prune",
    "list_references": "references.base",
    "reference": "references.base",
    "register_reference": "references.base",
    "report": "reporting.writing",
    "RunOptions": "runs.options",
    "resume": "runs.resume",
    "SearchSpace": "spaces.base",
    "get_space": "spaces.base",
    "list_spaces": "spaces.base",
    "register_space": "spaces.base",
    "Notation": "spaces.notations",
    "register_notation": "spaces.notations",
    "ImageData": "training.base",
    "from_datasets": "training.base",
    "list_data": "training.base",
    "load_data": "training.base",
    "register_data": "training.base",
    "quantize_aware": "training.qat",
    "Recipe": "training.recipe",
    "get_recipe": "training.recipe",
    "TrainResult": "training.result",
    "load": "training.checkpoint",
    "predict": "training.checkpoint",
    "Supernet": "training.supernet",
    "train_supernet": "training.supernet",
    "train": "training.trainer",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from zeroshot_nas.core.provenance import own_version

        return own_version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
