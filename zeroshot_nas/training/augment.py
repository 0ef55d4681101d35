"""Random changes to a batch of images, as pure functions of the batch and a generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot_nas.errors import MissingExtraError


def random_shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shifts each image by its own random whole number of pixels, at most ``pixels`` up, down, left and right.

    Equal to a crop at a random place of the zero-padded image, as CIFAR recipes write it.

    Args:
        images: Images ``(N, C, H, W)``.
        pixels: Largest shift, 0 or more; 0 changes nothing and draws nothing.
        generator: A generator on the CPU, so that the draw is the same on every device.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> random_shift(torch.ones(1, 1, 2, 2), 1, generator).shape
        torch.Size([1, 1, 2, 2])
    """
    if pixels == 0:
        return images
    count, _, height, width = images.shape
    rows, columns = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator).to(images.device)
    windows = F.pad(images, (pixels,) * 4).unfold(2, height, 1).unfold(3, width, 1)  # a view
    return windows[torch.arange(count, device=images.device), :, rows, columns]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image left to right with probability one half.

    Args:
        images: Images ``(N, C, H, W)``.
        generator: A generator on the CPU, so that the draw is the same on every device.
    """
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None].to(images.device), images.flip(3), images)


def mixup(images: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mixes each image with another one of the batch, ``l x + (1 - l) x'``, and its target likewise.

    One l a batch, from the beta distribution of (alpha, alpha), as Zen-NAS draws it (Zhang et al., arXiv:1710.09412).
    kornia's mixup is not used: it draws l evenly.

    Args:
        images: Images ``(N, C, H, W)``.
        targets: Probabilities of the classes ``(N, num_classes)``.
        alpha: Both parameters, 0 or more; 0 changes nothing and draws nothing.
        generator: A generator on the CPU.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> mixup(torch.rand(4, 1, 2, 2), torch.eye(4), 0.2, generator)[1].sum(1)
        tensor([1., 1., 1., 1.])
    """
    if alpha == 0:
        return images, targets
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    other = torch.randperm(len(images), generator=generator).to(images.device)
    return images.lerp(images[other], 1 - share), targets.lerp(targets[other], 1 - share)


def kornia_augmentation(auto_augment: str | None, random_erasing: float) -> Callable[[Tensor], Tensor]:
    """AutoAugment (arXiv:1805.09501) and random erasing (arXiv:1708.04896) of images in [0, 1], by kornia.

    Their randomness is torch's global one, as kornia has no generators.

    Args:
        auto_augment: A policy's name, or None.
        random_erasing: Probability that 2 to 33 % of an image are erased.

    Raises:
        MissingExtraError: Something is asked for, and kornia is not installed.
    """
    if auto_augment is None and random_erasing == 0:
        return lambda images: images
    try:
        from kornia.augmentation import RandomErasing
        from kornia.augmentation.auto import AutoAugment
    except ImportError as error:
        raise MissingExtraError("kornia", "data") from error
    parts: list[Callable[[Tensor], Tensor]] = []
    if auto_augment is not None:
        parts.append(AutoAugment(auto_augment))
    if random_erasing:
        parts.append(RandomErasing(p=random_erasing, scale=(0.02, 0.33), ratio=(0.3, 3.3)))

    def augment(images: Tensor) -> Tensor:
        for part in parts:
            images = part(images)
        return images

    return augment
