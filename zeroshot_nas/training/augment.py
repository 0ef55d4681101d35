"""Random changes to a batch of images, as pure functions of the batch and a generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
    count, channels, height, width = images.shape
    corners = torch.randint(0, 2 * pixels + 1, (2, count, 1), generator=generator)
    rows = (corners[0] + torch.arange(height))[:, None, :, None]
    columns = (corners[1] + torch.arange(width))[:, None, None, :]
    image, channel = torch.arange(count)[:, None, None, None], torch.arange(channels)[:, None, None]
    index = [part.to(images.device) for part in (image, channel, rows, columns)]
    return F.pad(images, (pixels,) * 4)[*index]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image left to right with probability one half.

    Args:
        images: Images ``(N, C, H, W)``.
        generator: A generator on the CPU, so that the draw is the same on every device.
    """
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None].to(images.device), images.flip(3), images)
