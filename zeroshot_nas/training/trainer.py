"""`train`: the one network that a search chose, on labelled images."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from zeroshot_nas.architecture import Architecture, HasArchitecture, architecture_of
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError, DataError
from zeroshot_nas.network import Network, build
from zeroshot_nas.seeding import one_torch_thread, preserved_rng, torch_generator
from zeroshot_nas.training.augment import random_flip, random_shift
from zeroshot_nas.training.base import ImageData, TrainingError, fit_to, load_data, stratified_split
from zeroshot_nas.training.checkpoint import BEST, LAST, RunFolder, TrainedNetwork, pack, predict, unpack
from zeroshot_nas.training.recipe import Recipe
from zeroshot_nas.training.result import EpochRecord, State, TrainResult

DEFAULT_RECIPE = Recipe()

SMALL_STEP = 2_000_000_000
"""Multiply-adds of a training step below which it runs on one thread."""


def train(
    model: Architecture | HasArchitecture | Network,
    data: str | ImageData,
    recipe: Recipe = DEFAULT_RECIPE,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    force: bool = False,
) -> TrainResult:
    """Trains a network and measures it on test images that had no part in any choice.

    A stratified part of the training images chooses the best epoch; the test images are looked at once, at the end.
    On one machine's CPU the same seed gives the same weights, whatever the global random state, which stays as it was.
    Ctrl-C after the first epoch stops with the best weights so far.

    Args:
        model: An architecture or a candidate of a search, which is built and initialised with ``seed``, or a network,
            whose copy is trained on.
        data: A name (`list_data`) or images of your own; they are fitted to the network's input size.
        recipe: Hyper-parameters.
        out: Folder for ``best.pt``, ``last.pt``, ``architecture.json`` and ``train.json``, which are brought up to date
            every epoch; None writes nothing.
        seed: Seed of weights, validation part, order and augmentation.
        device: Where to train; default: where the network is, and the CPU for an architecture.
        progress: Shows a bar on standard error.
        force: Replaces the run that ``out`` holds.

    Raises:
        UnknownNameError: No data set has that name.
        DataError: The data don't fit the network, or are too few for the recipe.
        OutputExistsError: ``out`` holds a run, and ``force`` is not set.
        TrainingError: The loss is no longer finite.
        KeyboardInterrupt: Ctrl-C before the end of the first epoch.

    Example:
        >>> architecture = Architecture.from_string("SuperConvK3BNRELU(1,8,2,1)", (1, 8, 8), num_classes=10)
        >>> result = train(architecture, "digits", Recipe(epochs=2, batch_size=256), progress=False)
        >>> result.state, result.epochs, result.params
        ('done', 2, 178)
    """
    source = _plain(model)
    with preserved_rng(), _threads_for(source, recipe):
        images = _fit(source, data)
        parts = _split(images, recipe, seed)
        network = _starting_network(source, images, seed, device)
        folder = None if out is None else RunFolder(out, force)
        run = _Run(network, images, parts, recipe, folder, seed)
        return run.finish(run.train(progress))


def _threads_for(source: Architecture | Network, recipe: Recipe) -> AbstractContextManager[None]:
    """One thread where a step is small: more would gain nothing, and wait for each other on a busy machine."""
    architecture = source if isinstance(source, Architecture) else source.architecture
    multiply_adds = 3 * recipe.batch_size * complexity(architecture).flops  # forward, and twice that backward
    return one_torch_thread() if multiply_adds < SMALL_STEP else nullcontext()


class _Run:
    """One run: its parts, and what it came to so far."""

    def __init__(
        self,
        network: TrainedNetwork,
        images: ImageData,
        parts: tuple[Tensor, Tensor],
        recipe: Recipe,
        folder: RunFolder | None,
        seed: int,
    ) -> None:
        self.start = time.perf_counter()
        self.network, self.images, self.parts = network, images, parts
        self.recipe, self.folder, self.seed = recipe, folder, seed
        self.history: tuple[EpochRecord, ...] = ()
        self.best: dict[str, Any] = {}

    def train(self, progress: bool) -> State:
        """Runs the epochs and keeps the best; Ctrl-C cuts them short."""
        with tqdm(total=self.recipe.epochs, desc="training", unit="epoch", disable=not progress) as bar:
            try:
                for record in _epochs(self.network, self.images, self.parts, self.recipe, self.seed):
                    self._take(record)
                    accuracy = "none" if record.validation_accuracy is None else f"{record.validation_accuracy:.2%}"
                    bar.set_postfix_str(
                        f"loss {record.train_loss:.3f}, validation {accuracy}, best epoch {self.best['epoch']}"
                    )
                    bar.update()
            except KeyboardInterrupt:
                if not self.history:
                    raise
                return "interrupted"
        return "done"

    def finish(self, state: State) -> TrainResult:
        """Looks at the test images, with the best weights as they would be loaded."""
        self.network = unpack(self.best).to(self.network.mean.device)
        accuracy = _accuracy(self.network, self.images.test_images, self.images.test_labels)
        result = self._result(state, accuracy)
        if self.folder is not None:
            self.folder.save_weights(BEST, self.best)  # again: Ctrl-C may have come before it was written
            self.folder.save_result(result.to_dict())
        return result

    def _take(self, record: EpochRecord) -> None:
        last = pack(self.network, record.epoch, record.validation_accuracy)
        accuracy, best = record.validation_accuracy, self.best.get("validation_accuracy")
        improved = accuracy is None or best is None or accuracy >= best  # of equals the later, which saw more
        if improved:
            self.best = last
        self.history = (*self.history, record)
        if self.folder is None:
            return
        if improved:
            self.folder.save_weights(BEST, last)
        self.folder.save_weights(LAST, last)
        self.folder.save_result(self._result("running", math.nan).to_dict())

    def _result(self, state: State, test_accuracy: float) -> TrainResult:
        return TrainResult(
            test_accuracy=test_accuracy,
            validation_accuracy=self.best["validation_accuracy"],
            best_epoch=self.best["epoch"],
            epochs=len(self.history),
            seconds=time.perf_counter() - self.start,
            params=complexity(self.network.architecture).params,
            state=state,
            weights=None if self.folder is None else self.folder.path / BEST,
            history=self.history,
            recipe=self.recipe,
            data=self.images.name,
            seed=self.seed,
            network=self.network,
        )


def _epochs(
    network: TrainedNetwork, data: ImageData, parts: tuple[Tensor, Tensor], recipe: Recipe, seed: int
) -> Iterator[EpochRecord]:
    """Trains the network in place, and gives a record after every epoch."""
    kept, held_out = parts
    device = network.mean.device
    images, labels = data.train_images.to(device), data.train_labels.to(device)
    optimizer = _optimizer(network, recipe)
    generator = torch_generator(seed, 2)
    for epoch in range(1, recipe.epochs + 1):
        start = time.perf_counter()
        order = kept[torch.randperm(len(kept), generator=generator)]
        batches = [batch for batch in torch.split(order, recipe.batch_size) if len(batch) > 1]  # batch norm needs two
        total, rate = torch.zeros((), device=device), 0.0
        network.train()
        for step, batch in enumerate(batches, start=(epoch - 1) * len(batches)):
            rate = recipe.learning_rate(step, len(batches))
            inputs, targets = _augment(images[batch.to(device)], recipe, generator), labels[batch.to(device)]
            total += _step(network, optimizer, inputs, targets, rate, recipe.label_smoothing) * len(batch)
        loss = total.item() / sum(map(len, batches))
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in epoch {epoch}, at a learning rate of {rate:.3g}: that is too high; "
                f"lower the recipe's learning_rate_per_256, which is {recipe.learning_rate_per_256:g}"
            )
        accuracy = _accuracy(network, images[held_out], labels[held_out]) if len(held_out) else None
        yield EpochRecord(epoch, rate, loss, accuracy, time.perf_counter() - start)


def _step(
    network: Network, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, rate: float, smoothing: float
) -> Tensor:
    """One step on one batch; the loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = F.cross_entropy(network(images), labels, label_smoothing=smoothing)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def _augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    images = random_shift(images, recipe.shift, generator)
    return random_flip(images, generator) if recipe.flip else images


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    free = [parameter for parameter in network.parameters() if parameter.ndim <= 1]  # biases and batch norm
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)


def _split(data: ImageData, recipe: Recipe, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training images to learn from, and of those that choose the best epoch."""
    kept, held_out = stratified_split(data.train_labels, recipe.validation_fraction, torch_generator(seed, 1))
    if len(kept) < 2 or (recipe.validation_fraction and not len(held_out)):
        raise DataError(
            f"{len(data.train_labels)} training images at validation_fraction {recipe.validation_fraction} leave "
            f"{len(kept)} to train on and {len(held_out)} to validate on; expected 2 and 1 or more. "
            "Give more images, or set validation_fraction to 0"
        )
    return kept, held_out


def _fit(model: Architecture | Network, data: str | ImageData) -> ImageData:
    """The data at the size of the network's input, if their classes are the network's."""
    architecture = model.architecture if isinstance(model, Network) else model
    images = fit_to(load_data(data), architecture.input_size)
    classes = len(images.class_names)
    if architecture.num_classes != classes:
        raise DataError(
            f"the network has num_classes={architecture.num_classes}, but {images.name!r} has {classes} classes; "
            f"use dataclasses.replace(architecture, num_classes={classes})"
        )
    return images


def _plain(model: object) -> Architecture | Network:
    """An architecture or a network; of anything else its architecture."""
    if isinstance(model, Network):
        return model
    architecture = architecture_of(model)
    if architecture is None or isinstance(model, nn.Module):
        raise ArchitectureError(f"train takes an Architecture or a Network, got {type(model).__name__}; see build()")
    return architecture


def _starting_network(
    model: Architecture | Network, images: ImageData, seed: int, device: str | torch.device | None
) -> TrainedNetwork:
    """A network of our own with the model's weights, which normalises what the training images are like."""
    source = build(model, seed=seed) if isinstance(model, Architecture) else model
    mean, std = images.train_images.mean((0, 2, 3)), images.train_images.std((0, 2, 3), correction=0)
    std[std == 0] = 1  # a channel of one colour
    network = TrainedNetwork(source.architecture, mean.tolist(), std.tolist(), images.class_names)
    network.load_state_dict(source.state_dict())
    network.to(device if device is not None else next(source.parameters()).device)
    network.to(memory_format=_memory_format(network))  # type: ignore[call-overload]  # torch's stub does not know it
    return network


def _memory_format(network: TrainedNetwork) -> torch.memory_format:
    """Channels last, which is faster, except where torch 2.13 writes past its buffers.

    On the CPU with several threads, the backward pass of a convolution from one channel corrupts the heap.
    """
    on_cpu, one_channel = network.mean.device.type == "cpu", network.architecture.input_size[0] == 1
    unsafe = on_cpu and one_channel and torch.get_num_threads() > 1
    return torch.contiguous_format if unsafe else torch.channels_last


def _accuracy(network: Network, images: Tensor, labels: Tensor) -> float:
    """Fraction of images classified right."""
    return (predict(network, images).argmax(1) == labels.cpu()).double().mean().item()
