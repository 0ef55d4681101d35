"""The steps of training: batches, augmentation, loss, optimiser, moving average, and their state."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroshot_nas.core.seeding import derive_seed, torch_generator
from zeroshot_nas.errors import TrainingError
from zeroshot_nas.network.module import Residual
from zeroshot_nas.training.augment import kornia_augmentation, mixup, random_flip, random_shift
from zeroshot_nas.training.averaging import MovingAverage
from zeroshot_nas.training.base import ImageData, as_float
from zeroshot_nas.training.checkpoint import QuantizedNetwork, Trained, predict
from zeroshot_nas.training.distillation import Distillation
from zeroshot_nas.training.precision import precision_of, warn_where_slow
from zeroshot_nas.training.recipe import Recipe
from zeroshot_nas.training.result import Confusion, EpochRecord


class Learner:
    """A network on its way: trains it in place, an epoch at a time.

    All randomness of an epoch follows from the seed and the epoch's number, so that a run that goes on from `state`
    ends with the weights of one that was never stopped.

    Args:
        network: What to train; takes images in [0, 1].
        data: Images of its input size.
        parts: Indices of the training images to learn from, and of those to validate on.
        recipe: Hyper-parameters.
        seed: Seed of order and augmentation.
        teacher: A module to learn from; None is none.
    """

    def __init__(
        self,
        network: Trained,
        data: ImageData,
        parts: tuple[Tensor, Tensor],
        recipe: Recipe,
        seed: int,
        teacher: nn.Module | None = None,
    ) -> None:
        self.network, self.recipe, self.seed = network, recipe, seed
        self.kept, self.held_out = parts
        self.teacher = teacher
        self.device = network.mean.device
        self.images, self.labels = data.train_images.to(self.device), data.train_labels.to(self.device)
        self.distillation = None
        if teacher is not None:
            self.distillation = Distillation(
                teacher,
                network,
                as_float(self.images[:2]),
                len(network.class_names),
                recipe.distill_logits,
                recipe.distill_features,
            )
        self.kornia = kornia_augmentation(recipe.auto_augment, recipe.random_erasing)
        self.precision = precision_of(network, recipe.precision)
        self.optimizer = _optimizer(network, self.distillation, recipe)
        self.average = MovingAverage(network, recipe.ema_decay) if recipe.ema_decay else None

    def epochs(self, done: int = 0) -> Iterator[EpochRecord]:
        """Trains, and gives a record after every epoch that is left."""
        warn_where_slow(self.precision, self.device)
        for epoch in range(done + 1, self.recipe.epochs + 1):
            start = time.perf_counter()
            rate, loss = self._train_epoch(epoch)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss became {loss} in epoch {epoch}, at a learning rate of {rate:.3g}: that is too high; "
                    f"lower the recipe's learning_rate_per_256, which is {self.recipe.learning_rate_per_256:g}"
                )
            yield EpochRecord(epoch, rate, loss, self._validated(), time.perf_counter() - start)

    def about(self) -> dict[str, Any]:
        """Settings beside the recipe that the weights depend on; none but where training is of another kind."""
        return {}

    def kept_network(self) -> Trained:
        """The network whose weights count: the moving average's, if there is one."""
        return self.network if self.average is None else self.average.module

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on: tensors, numbers and text."""
        average = self.average
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if average is None else {"steps": average.steps, "average": average.module.state_dict()},
            "projections": None if self.distillation is None else self.distillation.state_dict(),
            "precision": self.precision,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision = state["precision"]
        if self.average is not None:
            self.average.module.load_state_dict(state["average"]["average"])
            self.average.steps = state["average"]["steps"]
        if self.distillation is not None:
            self.distillation.load_state_dict(state["projections"])

    def _validated(self) -> float | None:
        """Fraction of the validation images classified right; None without such images."""
        held_out = self.held_out
        if not len(held_out):
            return None
        return accuracy(self.kept_network(), self.images[held_out], self.labels[held_out])

    def _train_epoch(self, epoch: int) -> tuple[float, float]:
        """Learning rate of the last step, and the mean loss."""
        generator = torch_generator(self.seed, 2, epoch)
        torch.manual_seed(derive_seed(self.seed, 3, epoch))  # kornia has no generators; `train` restores the state
        order = self.kept[torch.randperm(len(self.kept), generator=generator)]
        batches = [batch for batch in torch.split(order, self.recipe.batch_size) if len(batch) > 1]  # batch norm: two
        total, rate = torch.zeros((), device=self.device), 0.0
        self.network.train()
        if isinstance(self.network, QuantizedNetwork):
            self.network.follows = 2 * epoch <= self.recipe.epochs + 1  # then weights settle to what ranges are
        for step, batch in enumerate(batches, start=(epoch - 1) * len(batches)):
            rate = self.recipe.learning_rate(step, len(batches))
            images, targets = self._batch(batch.to(self.device), generator)
            total += self._step(images, targets, rate) * len(batch)
        return rate, total.item() / sum(map(len, batches))

    def _batch(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Augmented images and their targets, classes or where images are mixed probabilities."""
        recipe, images, targets = self.recipe, self.images[batch], self.labels[batch]
        images = random_shift(images, recipe.shift, generator)
        if recipe.flip:
            images = random_flip(images, generator)
        images = self.kornia(as_float(images))  # only now: a quarter of the memory was moved
        if recipe.mixup:
            classes = F.one_hot(targets, len(self.network.class_names)).float()
            images, targets = mixup(images, classes, recipe.mixup, generator)
        return images, targets

    def _step(self, images: Tensor, targets: Tensor, rate: float) -> Tensor:
        """One step on one batch; the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._loss(images, targets)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.gradient_clip:
            parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.recipe.gradient_clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        return loss.detach()

    def _loss(self, images: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits = self.network(images)
            loss = F.cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing)
            if self.distillation is not None:
                loss = loss + self.distillation(images, logits)
        return loss


def accuracy(network: Trained, images: Tensor, labels: Tensor) -> float:
    """Fraction of images classified right."""
    return (predict(network, images).argmax(1) == labels.cpu()).double().mean().item()


def confusion(network: Trained, images: Tensor, labels: Tensor) -> Confusion:
    """How many images of each class are taken for each class: row i, column j for class i taken for class j."""
    classes = len(network.class_names)
    pairs = labels.cpu() * classes + predict(network, images).argmax(1)
    counts = pairs.bincount(minlength=classes * classes).view(classes, classes)
    return tuple(map(tuple, counts.tolist()))


@torch.no_grad()
def zero_init_residual(network: nn.Module) -> None:
    """Sets the scale of the last batch norm of each residual branch to 0 (Goyal et al., arXiv:1706.02677)."""
    for residual in network.modules():
        if isinstance(residual, Residual):
            norms = [part for part in residual.body.children() if isinstance(part, nn.BatchNorm2d)]
            if norms:
                norms[-1].weight.zero_()


def _optimizer(network: nn.Module, distillation: nn.Module | None, recipe: Recipe) -> torch.optim.Optimizer:
    extra = [] if distillation is None else list(distillation.parameters())
    parameters = [parameter for parameter in [*network.parameters(), *extra] if parameter.requires_grad]
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    free = [parameter for parameter in parameters if parameter.ndim <= 1]  # biases and batch norm
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
