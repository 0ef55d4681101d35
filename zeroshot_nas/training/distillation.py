"""A student that learns from a teacher: logits, and feature maps through projections (as Zen-NAS, arXiv:2102.01063)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroshot_nas.errors import DataError
from zeroshot_nas.scoring.feature_map import is_feature_map

STAGES = 2
"""Feature maps that are compared: those of the last resolutions."""


class Distillation(nn.Module):
    """The loss that a teacher adds, and the projections that it needs.

    ``w_l CE(softmax(t), s) + w_f sum_i smooth_l1(P_i f_i, g_i)``: s and t are the logits of student and teacher, f_i
    and g_i their feature maps at the end of each of the last two resolutions, P_i a 1x1 convolution that starts at zero
    and is trained along. Means are over images and values. Where resolutions differ the larger is averaged down.

    Departure from Zen-NAS, which takes the stages of total stride 16 and more: small images have no such stages.

    Args:
        teacher: Any module that takes images ``(N, C, H, W)`` in [0, 1] and returns logits ``(N, num_classes)``; a copy
            of it in eval mode is used.
        student: The network to be trained, which takes the same images.
        images: Some images, to find the feature maps with.
        num_classes: Outputs that both must have.
        logits: Weight w_l.
        features: Weight w_f.

    Raises:
        DataError: The teacher does not take the images, or has other classes.
    """

    def __init__(
        self, teacher: nn.Module, student: nn.Module, images: Tensor, num_classes: int, logits: float, features: float
    ) -> None:
        super().__init__()
        self._teacher = [copy.deepcopy(teacher).to(images.device).eval().requires_grad_(False)]  # hidden from training
        self.logits, self.features = logits, features
        try:
            out, given = _probe(self._teacher[0], images)
        except (RuntimeError, ValueError, TypeError) as error:
            raise DataError(f"the teacher does not take images {tuple(images.shape)}: {error}") from error
        if not isinstance(out, Tensor) or out.shape != (len(images), num_classes):
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise DataError(f"the teacher must return logits (N, {num_classes}), got {shape}")
        wanted = _probe(student, images)[1] if features else []
        pairs = list(zip(wanted[-STAGES:][::-1], given[-STAGES:][::-1], strict=False)) if features else []
        self._taps = [(_Tap(ours[0]), _Tap(theirs[0])) for ours, theirs in pairs]
        self.projections = nn.ModuleList(
            nn.Conv2d(ours[1], theirs[1], 1, device=images.device) for ours, theirs in pairs
        )
        for parameter in self.projections.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: Tensor, logits: Tensor) -> Tensor:
        """What the teacher adds to the loss; call it right after the student gave ``logits`` for the same images."""
        with torch.no_grad():
            target = self._teacher[0](images)
        loss = self.logits * F.cross_entropy(logits, target.softmax(1))
        for projection, (ours, theirs) in zip(self.projections, self._taps, strict=True):
            mine, other = projection(ours.output), theirs.output
            size = (min(mine.shape[2], other.shape[2]), min(mine.shape[3], other.shape[3]))
            mine, other = (F.adaptive_avg_pool2d(each, size) for each in (mine, other))
            loss = loss + self.features * F.smooth_l1_loss(mine, other)
        return loss

    def close(self) -> None:
        """Takes the hooks off the student."""
        for pair in self._taps:
            for tap in pair:
                tap.handle.remove()


class _Tap:
    """Keeps a module's last output."""

    def __init__(self, module: nn.Module) -> None:
        self.output = torch.empty(0)
        self.handle = module.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self.output = output


@torch.no_grad()
def _probe(module: nn.Module, images: Tensor) -> tuple[object, list[tuple[nn.Module, int]]]:
    """The output, and for every resolution above 1x1 the last module that gives it, with its channels, in order."""
    last: dict[tuple[int, ...], tuple[nn.Module, int]] = {}

    def look(part: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and is_feature_map(output, axes=images.dim()):
            last.pop(tuple(output.shape[2:]), None)
            last[tuple(output.shape[2:])] = (part, output.shape[1])

    handles = [part.register_forward_hook(look) for part in module.modules()]
    was_training = module.training
    try:
        return module.eval()(images), list(last.values())
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
