"""`prune`: a trained network made narrower until it is within a budget, then tuned."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.checks import check_counts, check_format
from zeroshot_nas.core.files import explained_writes, write_text
from zeroshot_nas.core.seeding import preserved_rng
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import Costs, complexity
from zeroshot_nas.errors import (
    ArchitectureError,
    BudgetError,
    DataError,
    FileFormatError,
    OutputExistsError,
    RecipeError,
    SettingsChangedError,
    StoreError,
)
from zeroshot_nas.latency.device_table import DeviceTable, LatencyTable
from zeroshot_nas.network.module import Network
from zeroshot_nas.pruning.channels import (
    Group,
    check_importance,
    find_groups,
    without_channels,
)
from zeroshot_nas.pruning.fitting import Fitting
from zeroshot_nas.pruning.widths import outline, separated
from zeroshot_nas.runs.options import RunOptions, run_options
from zeroshot_nas.runs.store import settings_difference
from zeroshot_nas.training.base import ImageData, learned_and_held_out, read_split
from zeroshot_nas.training.checkpoint import SPLIT, QuantizedNetwork, RunFolder, TrainedNetwork, load, pack, read_result
from zeroshot_nas.training.qat import data_of, folder_of, warn_unfinished
from zeroshot_nas.training.recipe import Recipe, get_recipe
from zeroshot_nas.training.result import TrainResult
from zeroshot_nas.training.trainer import DEFAULT_RECIPE, fit_images, tensors_digest, train

PRUNED, ABOUT = "pruned.safetensors", "prune.json"
"""Files of a run beside those of its training: the weights that it began with, and how they were made."""

_FORMAT, _VERSION = "zeroshot_nas.pruning", 1


@dataclass(frozen=True, eq=False)
class PrunedNetwork:
    """A network within a budget, not tuned yet.

    Attributes:
        network: It, with the weights of the channels that were kept; of the kind that the network before was.
        before: What the network before costs.
        costs: What it costs.
        kept: Of every convolution of the network before, in the module's order, the output channels that were kept.
    """

    network: Network
    before: Costs
    costs: Costs
    kept: tuple[tuple[int, ...], ...] = field(repr=False)

    @property
    def architecture(self) -> Architecture:
        return self.network.architecture


def prune(
    trained: Network | str | Path,
    budget: Budget,
    data: str | ImageData | None = None,
    recipe: Recipe | str | None = None,
    run: RunOptions | None = None,
    *,
    importance: str = "taylor",
    width_step: int = 1,
    device_table: LatencyTable | str | Path | None = None,
    teacher: nn.Module | str | Path | None = None,
    seed: int | None = None,
    device: str | torch.device | None = None,
    threads: int | None = None,
    **options: Any,
) -> TrainResult:
    """Makes a trained network narrower until it is within a budget (see `prune_channels`), and trains it further.

    The result is an architecture like any other: it is loaded, exported and searched from as such. All else is as in
    `train`: the same seed gives the same weights, and a run that was stopped goes on. A network that is within the
    budget already loses nothing, and is trained further as it is.

    Args:
        trained: Folder of a run that `train` made, its file of weights, or a network; it is left as it is.
        budget: Limits on costs; all of them hold for the result.
        data: The images; default: the run's, with the same test images.
        recipe: Hyper-parameters of the training that follows; default: the run's own, all of its learning rates again,
            which is better than the last small one (Renda et al., arXiv:2003.02389).
        run: As in `train`. A folder holds ``pruned.safetensors`` too, the weights before tuning, and ``prune.json``.
        importance: As in `prune_channels`; by default, since there are images, ``"taylor"``.
        width_step: As in `prune_channels`.
        device_table: As in `prune_channels`.
        teacher: As in `train`; the larger network is one.
        seed: Default: the run's, so that the images for validation are those that it did not learn from.
        device: As in `train`.
        threads: As in `train`.
        options: ``out``, ``resume``, ``force``, ``progress``, ``callbacks`` one by one, which win over ``run``.

    Raises:
        FileNotFoundError: There are no such weights.
        FileFormatError: They are damaged, or a module's of your own.
        ArchitectureError: The network is none of ours, or none of its widths can be narrowed.
        RecipeError: It is an int8 network.
        InfeasibleBudgetError: Not even the narrowest network is within the budget.
        BudgetError: A limit on latency without a device table, or a table without such a limit.
        UnknownNameError: No importance has that name.
        MissingExtraError: torch-pruning is not installed.
        DataError: The data are not known, or don't fit.
        OutputExistsError: ``out`` holds a run, or is the one that is started from.
        SettingsChangedError: The run to be resumed was pruned otherwise.

    Warns:
        UnfinishedRunWarning: The run was interrupted or killed, or still goes on.

    Example:
        >>> import tempfile, zeroshot_nas as zs
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net = zs.Architecture.from_string("SuperConvK3BNRELU(1,16,2,1)", (1, 8, 8), num_classes=10)
        ...     first = zs.train(net, "digits", zs.Recipe(epochs=1, batch_size=256), out=folder, progress=False)
        ...     pruned = zs.prune(folder, zs.Budget(params=178), progress=False)
        >>> pruned.network.architecture.to_string(), pruned.params
        ('SuperConvK3BNRELU(1,8,2,1)', 178)
    """
    run = run_options(run, options, "prune", takes=("out", "resume", "force", "progress", "callbacks"))
    check_importance(importance)
    source, told = _source(trained)
    if isinstance(trained, str | Path):
        folder = folder_of(trained)
        if run.folder is not None and run.folder.resolve() == folder.resolve():
            raise OutputExistsError(f"{folder} holds the weights to start from; give another folder for the pruned run")
        warn_unfinished(folder, told)
        data = data_of(folder, told, source.architecture.input_size) if data is None else data
    if data is None:
        raise DataError("prune of a network needs data to tune it on: data='digits'")
    chosen = tuning_recipe(told, recipe)
    seed = told.get("seed", 0) if seed is None else seed
    split = read_split(run.folder / SPLIT) if run.resume and run.folder is not None else None
    images = fit_images(source, data, None, split)
    how: dict[str, Any] = {"teacher": teacher, "seed": seed, "device": device, "threads": threads}

    def pruned() -> PrunedNetwork:
        limits: dict[str, Any] = {"importance": importance, "width_step": width_step, "device_table": device_table}
        return prune_channels(source, budget, images, recipe=chosen, seed=seed, **limits)

    if run.folder is None:
        return train(pruned().network, images, chosen, run, **how)
    table = _table(budget, device_table)
    settings = {
        "weights": tensors_digest(source.state_dict().values()),
        "budget": {**budget.limits(), "structure": budget.structure and asdict(budget.structure)},
        "importance": importance,
        "width_step": width_step,
        "device table": None if table is None else table.digest,
        "seed": seed,
    }
    _keep(run, settings, pruned, images)
    further = RunOptions(out=run.folder, resume=True, progress=run.progress, callbacks=run.callbacks)
    return train(run.folder / PRUNED, images, chosen, further, **how)


def prune_channels(
    network: Network,
    budget: Budget,
    images: ImageData | None = None,
    *,
    importance: str = "norm",
    width_step: int = 1,
    device_table: LatencyTable | str | Path | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
) -> PrunedNetwork:
    """The network without its least important channels, as many of them as keep it within a budget.

    Channels that only go together are a group (DepGraph, Fang et al., arXiv:2301.12900): all that is added up by
    residual links, a depthwise convolution with the one before it, a gate with what it gates. The importance of each is
    divided by the mean of its group; channels of the whole network go in that order until the budget is kept, and those
    that fit after all are put back. Numbers of channels stay an architecture's: repeats of a block lose equally many
    inside, each its own least important, since a repeat that is taken out of its block would need a projection; plain
    convolutions are taken apart, which costs nothing. Outputs are those of the network with these channels at zero.

    Args:
        network: A network of ours; of one that was not trained importance says little.
        budget: Limits on costs.
        images: Labelled images, for ``"taylor"``.
        importance: What a channel is worth. ``"norm"``: the squared weights of all that reads and writes it.
            ``"bn_scale"``: the scales of its batch norms (arXiv:1708.06519). ``"taylor"``: weights times gradients of
            the loss on 512 training images (arXiv:1906.10771). ``"random"``: drawn, to compare with.
        width_step: Every width that is narrowed becomes a multiple of it.
        device_table: What predicts latency, or its file, for a limit on it.
        recipe: Whose part of the images for validation has no gradients; default: all images have.
        seed: Which images, and what is drawn.

    Raises:
        ArchitectureError: The network is none of ours, or none of its widths can be narrowed.
        RecipeError: It is an int8 network.
        InfeasibleBudgetError: Not even the narrowest network is within the budget.
        BudgetError: A limit on latency without a device table, or a table without such a limit.
        UnknownNameError: No importance has that name.
        MissingExtraError: torch-pruning is not installed.
        DataError: ``"taylor"`` without images.

    Example:
        >>> import zeroshot_nas as zs
        >>> network = zs.build(zs.get_space("resnet", input_size=(3, 16, 16), num_classes=10).initial())
        >>> pruned = prune_channels(network, Budget(params=20e3))
        >>> pruned.before.params, 19_900 < pruned.costs.params <= 20_000
        (49506, True)
    """
    check_importance(importance)
    check_counts(1, width_step=width_step)
    network = _prunable(network)
    if not isinstance(budget, Budget):
        raise BudgetError(f"prune takes a Budget, such as Budget(params=50e3); got {budget!r:.60}")
    table = _table(budget, device_table)

    def costs(architecture: Architecture) -> Costs:
        found = complexity(architecture)
        return found if table is None else found.with_latency(table.latency_ms(architecture))

    before = costs(network.architecture)
    if not budget.violations(before, network.architecture):
        every = tuple(tuple(range(width)) for width in outline(network.architecture).widths)
        return PrunedNetwork(_like(network, network.architecture, network), before, before, every)
    if images is not None and recipe is not None and importance == "taylor":
        images = _learned(images, recipe, seed)
    whole = separated(network.architecture)
    source = _like(network, whole, network)
    groups = find_groups(source, importance, images, seed)
    narrower = Fitting(whole, groups, budget, costs, width_step).fit()
    widths = outline(narrower).widths
    module = without_channels(source, groups, widths)
    return PrunedNetwork(_like(network, narrower, module), before, costs(narrower), _kept(groups, widths))


def tuning_recipe(told: Mapping[str, Any], recipe: Recipe | str | None, **changes: Any) -> Recipe:
    """The recipe that tunes a pruned network: the run's own where none is given.

    Args:
        told: What the run's file says, as `read_result` gives it.
        recipe: Hyper-parameters, or the name of a recipe.
        changes: Hyper-parameters that are another's.

    Raises:
        RecipeError: A change is out of range, or the recipe rounds values.
    """
    own = Recipe(**told["recipe"]) if "recipe" in told else DEFAULT_RECIPE
    return get_recipe(own if recipe is None else recipe, **changes).for_new_weights()


def default_pruned_folder(weights: Path) -> Path:
    """Where the command line keeps a pruned run: beside the run that it starts from."""
    return Path(f"{folder_of(weights).resolve()}-pruned")


def read_about(folder: Path) -> dict[str, Any] | None:
    """How the network of a run was pruned; None where no file says so.

    Raises:
        FileFormatError: The file is damaged.
    """
    file = folder / ABOUT
    if not file.exists():
        return None
    try:
        about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{file} is damaged: {error}; prune again with force in place of resume") from None
    check_format(about, _FORMAT, _VERSION, "how a network was pruned", file=str(file))
    return about


def _keep(run: RunOptions, settings: dict[str, Any], pruned: Callable[[], PrunedNetwork], images: ImageData) -> None:
    """Prunes, and writes what the training of the folder starts from, unless an earlier process did."""
    assert run.folder is not None, "a run in a folder"
    with RunFolder(run.folder, run.force, run.resume) as folder:
        about = read_about(folder.path) if run.resume else None
        if about is not None and (folder.path / PRUNED).exists():
            if difference := settings_difference(about["settings"], json.loads(json.dumps(settings))):
                raise SettingsChangedError(
                    f"{folder.path} was pruned otherwise, so it is not resumed. {'; '.join(difference)}. Give its "
                    "settings to go on with it, another out for a run beside it, or force in place of resume"
                )
            return
        (folder.path / ABOUT).unlink(missing_ok=True)  # of another run, which was replaced
        found = pruned()
        network = found.network
        if not isinstance(network, TrainedNetwork):  # it takes normalised images; training measures how they are
            channels = network.architecture.input_size[0]
            plain, names = network, images.class_names
            network = TrainedNetwork(network.architecture, [0.0] * channels, [1.0] * channels, names)
            network.load_state_dict(plain.state_dict())
        folder.save_weights(PRUNED, pack(network, 0, None))
        about = {"format": _FORMAT, "version": _VERSION, "settings": settings}
        about |= {"before": found.before.to_dict(), "costs": found.costs.to_dict()}
        with explained_writes(folder.path, StoreError, "make room or allow it, and prune again"):
            write_text(folder.path / ABOUT, json.dumps(about, indent=1) + "\n")


def _source(trained: Network | str | Path) -> tuple[Network, dict[str, Any]]:
    """The network to prune, and what its run's file says of it."""
    if isinstance(trained, str | Path):
        return _prunable(load(trained)), read_result(Path(trained))
    return _prunable(trained), {}


def _prunable(network: object) -> Network:
    if isinstance(network, QuantizedNetwork):
        raise RecipeError("an int8 network is not pruned: prune the run that it was made of, and quantise that")
    if isinstance(network, Architecture) or not isinstance(network, Network):
        hint = "train it first" if isinstance(network, Architecture) else "torch-pruning itself takes any module"
        raise ArchitectureError(
            f"prune takes a trained network of this package, a run's folder or its weights; got a "
            f"{type(network).__name__}: {hint}"
        )
    if not network.num_classes:
        raise ArchitectureError("the network has no classifier; give it one: reset_classifier(classes)")
    return network


def _table(budget: Budget, table: LatencyTable | str | Path | None) -> LatencyTable | None:
    if (table is None) != (budget.latency_ms is None):
        raise BudgetError(
            "a limit on latency needs the table that predicts it: device_table=FILE, on the command line --device-table"
            if table is None
            else "a device table needs a limit on latency: Budget(latency_ms=...), or --max-latency"
        )
    return DeviceTable.load(table) if isinstance(table, str | Path) else table


def _learned(images: ImageData, recipe: Recipe, seed: int) -> ImageData:
    """The images without those that choose the best epoch."""
    kept, _ = learned_and_held_out(images, recipe.validation_fraction, seed)
    return ImageData(
        images.train_images[kept],
        images.train_labels[kept],
        images.test_images,
        images.test_labels,
        images.class_names,
        images.name,
    )


def _like(network: Network, architecture: Architecture, module: nn.Module) -> Network:
    """A network of the kind of one, with the weights of a module whose parts are the same, in the same order."""
    with preserved_rng():
        made: Network
        if isinstance(network, TrainedNetwork):
            statistics = (network.mean.flatten().tolist(), network.std.flatten().tolist())
            made = TrainedNetwork(architecture, *statistics, network.class_names)
        else:
            made = Network(architecture)
    names, values = list(made.state_dict()), list(module.state_dict().values())
    made.load_state_dict(dict(zip(names, values, strict=True)))
    return made.to(next(network.parameters()).device).train(network.training)


def _kept(groups: list[Group], widths: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    kept: dict[int, tuple[int, ...]] = {}
    for group in groups:
        own = group.kept(widths[group.convolutions[0]])
        kept |= dict.fromkeys(group.convolutions, own)
    return tuple(kept[place] for place in range(len(widths)))
