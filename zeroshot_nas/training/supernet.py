"""One-shot supernets: one network whose parts are networks that share its weights, and their accuracies in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroshot_nas.architecture.architecture import Architecture, HasArchitecture, architecture_of
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.core.seeding import one_torch_thread, preserved_rng, python_rng, torch_generator
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.errors import ArchitectureError, FileFormatError, RecipeError
from zeroshot_nas.network.slicing import slices
from zeroshot_nas.runs.options import RunOptions, run_options
from zeroshot_nas.training.base import ImageData, as_float
from zeroshot_nas.training.checkpoint import BEST, SUPERNET_IMAGES, TrainedNetwork, load
from zeroshot_nas.training.elastic import Elastic
from zeroshot_nas.training.learner import Learner, accuracy
from zeroshot_nas.training.precision import speed_up
from zeroshot_nas.training.recipe import Recipe, get_recipe
from zeroshot_nas.training.result import TrainResult
from zeroshot_nas.training.trainer import DEFAULT_RECIPE, opened
from zeroshot_nas.training.weights import read_weights

CALIBRATION = 512
"""Training images that batch norms are measured on."""

_BATCH = 128
"""Images that they are measured on at a time."""


def train_supernet(
    largest: Architecture | HasArchitecture,
    data: str | ImageData,
    recipe: Recipe | str = DEFAULT_RECIPE,
    run: RunOptions | None = None,
    *,
    width_step: int = 8,
    least_width: float = 0.25,
    sandwich: int = 0,
    budget: Budget | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    threads: int | None = None,
    **options: Any,
) -> TrainResult:
    """Trains a supernet: one network whose every smaller network shares its weights.

    Each step trains one network, whose widths, depths, kernels and expansions are drawn evenly and each on its own from
    those up to the largest network's (single path, uniform sampling: Guo et al., arXiv:1904.00420). Its weights are the
    first channels, sub-layers and the kernels' centres of the largest network's (Once-for-all, arXiv:1908.09791). With
    ``sandwich`` each step trains the largest, the smallest and so many random networks on the same images, by the mean
    of their losses (Yu and Huang, arXiv:1903.05134).

    What comes of it is an estimator, `Supernet` or the proxy ``supernet:run=FOLDER``, and not a network to ship. The
    last epoch counts. As one network it is the largest, with batch norms measured anew; the result's accuracy is of
    that, which within a budget was never trained as a whole.

    Departures: choices are of widths and depths, not of kinds of block as in the first paper; no distillation from the
    largest network, as in the third; and widths, depths and kernels are elastic from the first step on, where
    Once-for-all shrinks them by and by.

    Args:
        largest: The largest network: an architecture of chains of blocks, as those of the spaces ``resnet``,
            ``mobilenet`` and ``vanilla``.
        data: As in `zeroshot_nas.train`.
        recipe: As in `zeroshot_nas.train`; it holds validation images out.
        run: As in `zeroshot_nas.train`. The folder can be gone on with, by this function or `zeroshot_nas.resume`.
        width_step: Widths that are trained are multiples of it, and the largest network's own.
        least_width: The least part of its own that a width of the largest network becomes.
        sandwich: Random networks beside the largest and the smallest in each step; 0 trains one random network.
        budget: What random networks cost at most: those that cost more are drawn again. None leaves all in.
        seed: Seed of weights, validation part, order, augmentation and networks.
        device: As in `zeroshot_nas.train`, like ``threads``.
        threads: Threads of torch.
        options: Run options one by one, as in `zeroshot_nas.train`.

    Raises:
        ArchitectureError: The largest network is none, or has blocks that can't be sliced.
        RecipeError: The recipe holds no validation images out, or rounds values; there are both ``sandwich``, which
            trains the largest network, and a budget; or the budget bounds structure.
        InfeasibleBudgetError: No network that was drawn is within the budget.
        DataError: As in `zeroshot_nas.train`, like all other errors.

    Example:
        >>> largest = Architecture.from_string("SuperConvK3BNRELU(1,8,2,2)", (1, 8, 8))
        >>> result = train_supernet(largest, "digits", Recipe(epochs=1, batch_size=256), progress=False)
        >>> result.state, result.network.architecture == largest
        ('done', True)
    """
    run = run_options(run, options, "train_supernet", takes=("out", "resume", "force", "progress", "callbacks"))
    recipe = get_recipe(recipe).for_new_weights()
    if not recipe.validation_fraction:
        raise RecipeError("validation_fraction must be above 0: a supernet is asked for accuracies on held-out images")
    check_counts(0, RecipeError, sandwich=sandwich)
    architecture = architecture_of(largest)
    if architecture is None:
        raise ArchitectureError(f"train_supernet takes an Architecture, got {type(largest).__name__}")
    if sandwich and budget is not None:
        raise RecipeError("sandwich trains the largest network, whatever a budget is; give one of the two")
    if budget is not None and budget.structure is not None:
        raise RecipeError("a supernet's budget has limits on costs alone; leave its structure out")
    elastic = Elastic(architecture, width_step, least_width, budget)
    elastic.sample(python_rng(seed))  # refuses a budget that none is within
    slices(architecture, elastic.smallest())  # refuses what can't be sliced
    learns = partial(_SupernetLearner, elastic=elastic, sandwich=sandwich)
    with preserved_rng(), ExitStack() as stack:
        training = opened(stack, architecture, data, recipe, run, None, None, seed, device, threads, learns)
        if training.folder is not None:
            training.folder.save_tensors(SUPERNET_IMAGES, _images_of(training.learner))
        return training.finish(training.train(run.progress))


class _SupernetLearner(Learner):
    """Trains the networks that a largest one holds, by turns.

    Args:
        arguments: Those of `Learner`.
        elastic: The networks.
        sandwich: Random networks a step beside the largest and the smallest; 0 for one random network alone.
    """

    def __init__(self, *arguments: Any, elastic: Elastic, sandwich: int) -> None:
        super().__init__(*arguments)
        self.elastic, self.sandwich = elastic, sandwich
        for group in self.optimizer.param_groups:
            group["fused"] = False  # torch's fused step wants momentum of every parameter, and a path leaves some out
        self.rng = python_rng(self.seed, 4)
        self.calibration = self.kept[torch.randperm(len(self.kept), generator=torch_generator(self.seed, 5))]
        self.calibration = self.calibration[:CALIBRATION]

    @property
    def parent(self) -> TrainedNetwork:
        assert isinstance(self.network, TrainedNetwork), "a supernet is a network of ours"
        return self.network

    def about(self) -> dict[str, Any]:
        budget = self.elastic.budget
        return {
            "budget": None if budget is None else budget.limits(),
            "width_step": self.elastic.width_step,
            "least_width": self.elastic.least_width,
            "sandwich": self.sandwich,
        }

    def _train_epoch(self, epoch: int) -> tuple[float, float]:
        self.rng = python_rng(self.seed, 4, epoch)
        trained = super()._train_epoch(epoch)
        if epoch == self.recipe.epochs:  # its batch norms have seen no image: each path has its own
            recalibrate(self.kept_network(), self.images[self.calibration])
        return trained

    def _validated(self) -> None:
        """The last epoch counts: no one network says how good all are."""

    def _loss(self, images: Tensor, targets: Tensor) -> Tensor:
        own = dict(self.network.named_parameters())
        losses = []
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            for path in self._drawn():
                network = _like(self.parent, path).train()
                tensors = slices(self.elastic.largest, path).of(own)
                logits = torch.func.functional_call(network, tensors, (images,))
                losses.append(F.cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing))
        return torch.stack(losses).mean()

    def _drawn(self) -> Iterator[Architecture]:
        if self.sandwich:
            yield from (self.elastic.largest, self.elastic.smallest())
        yield from (self.elastic.sample(self.rng) for _ in range(max(1, self.sandwich)))


@torch.no_grad()
def recalibrate(network: nn.Module, images: Tensor) -> None:
    """Measures a network's batch norms anew: means over batches of images ``(N, C, H, W)``. Leaves it in eval mode."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    network.train()
    for batch in torch.split(images, _BATCH):
        network(as_float(batch))
    network.eval()
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


@dataclass(frozen=True, eq=False)
class Supernet:
    """A trained supernet as an estimator.

    Attributes:
        network: The largest network.
        calibration: Training images ``(N, C, H, W)`` to measure batch norms on.
        images: Held-out images ``(M, C, H, W)``.
        labels: Their classes ``(M,)``.
    """

    network: TrainedNetwork
    calibration: Tensor
    images: Tensor
    labels: Tensor

    @classmethod
    def load(cls, folder: str | Path) -> Supernet:
        """A supernet from its run's folder; the images are in it.

        Raises:
            FileNotFoundError: It holds no supernet.
            FileFormatError: A file is damaged.
        """
        file = Path(folder) / SUPERNET_IMAGES
        if not file.is_file() or not (file.parent / BEST).is_file():
            raise FileNotFoundError(
                f"{folder} holds no supernet; expected the folder of a run of train_supernet, with {BEST} and "
                f"{SUPERNET_IMAGES}"
            )
        network = load(folder)
        try:
            tensors, _ = read_weights(file.read_bytes())
            parts = [tensors[name] for name in ("calibration", "images", "labels")]
        except (ValueError, KeyError) as error:
            raise FileFormatError(f"{file} is damaged: {error}; resume the run to write it again") from error
        assert isinstance(network, TrainedNetwork), "a supernet is a network of ours"
        return cls(network, *parts)

    def sub_network(self, architecture: Architecture, calibration: int = CALIBRATION) -> TrainedNetwork:
        """One of its networks with the shared weights, and batch norms measured anew, in eval mode.

        Args:
            architecture: The network.
            calibration: Training images that batch norms are measured on, as many as are kept at most.

        Raises:
            ArchitectureError: The supernet does not hold it; the message says in what.
        """
        try:
            parts = slices(self.network.architecture, architecture)
        except ArchitectureError as error:
            raise ArchitectureError(f"the supernet does not hold this network: {error}") from None
        network = _like(self.network, architecture)
        network.load_state_dict({**network.state_dict(), **parts.of(self.network.state_dict())})
        recalibrate(network, self.calibration[:calibration])
        return network

    def accuracy(self, architecture: Architecture, calibration: int = CALIBRATION) -> float:
        """Fraction of the held-out images that one of its networks, as `sub_network` gives it, classifies right.

        It runs on one thread; the global random state is not touched.
        """
        with one_torch_thread():
            return accuracy(self.sub_network(architecture, calibration), self.images, self.labels)


def kept_supernet(folder: str | Path) -> Supernet:
    """`Supernet.load`, which reads a folder once as long as its weights stay what they are."""
    weights = Path(folder) / BEST
    return _kept(str(folder), weights.stat().st_mtime_ns if weights.is_file() else 0)


@lru_cache(maxsize=2)
def _kept(folder: str, _stamp: int) -> Supernet:
    return Supernet.load(folder)


def _like(parent: TrainedNetwork, architecture: Architecture) -> TrainedNetwork:
    """A network that takes and gives what another does, its weights unset."""
    statistics = parent.mean.flatten().tolist(), parent.std.flatten().tolist()
    network = TrainedNetwork(architecture, *statistics, parent.class_names).to(parent.mean.device)
    speed_up(network)
    return network


def _images_of(learner: Learner) -> dict[str, Tensor]:
    assert isinstance(learner, _SupernetLearner), "the learner of a supernet"
    held_out = learner.held_out
    tensors = learner.images[learner.calibration], learner.images[held_out], learner.labels[held_out]
    names = ("calibration", "images", "labels")
    return {name: tensor.cpu().contiguous() for name, tensor in zip(names, tensors, strict=True)}
