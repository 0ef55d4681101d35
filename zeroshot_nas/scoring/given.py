"""What proxies are given, kept, so that what one of them changes is put back before the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zeroshot_nas.core.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from zeroshot_nas.scoring.proxy import Batch
else:
    torch = LazyModule("torch")


class GivenTensors:
    """The values of a network's parameters and of a batch's arrays.

    Args:
        network: Any module.
        batch: The batch, with all of its further ones.

    Example:
        >>> from zeroshot_nas import Batch
        >>> layer, inputs = torch.nn.Linear(1, 1, bias=False), torch.ones(2, 1)
        >>> given = GivenTensors(layer, Batch(inputs))
        >>> given.restore()
        False
        >>> _ = inputs.mul_(3)
        >>> given.restore(), inputs.flatten().tolist()
        (True, [1.0, 1.0])
    """

    def __init__(self, network: nn.Module, batch: Batch) -> None:
        self._parameters = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
        tensors = [*network.parameters(), *_arrays(batch)]
        self._values = [(tensor, tensor.detach().clone()) for tensor in tensors]

    def restore(self) -> bool:
        """Puts back what has changed, and drops gradients; whether anything but these had changed."""
        changed = False
        for tensor, values in self._values:
            if tensor.dtype != values.dtype or tensor.shape != values.shape:
                tensor.data, changed = values.clone(), True
            elif not torch.equal(tensor.detach(), values):
                tensor.data.copy_(values)
                changed = True
        for parameter, requires_grad in self._parameters:
            parameter.grad = None
            parameter.requires_grad_(requires_grad)
        return changed


def _arrays(batch: Batch) -> Iterator[Tensor]:
    arrays = (batch.inputs, batch.targets, batch.perturbation, *batch.output_noise)
    yield from (array for array in arrays if array is not None)
    for each in batch.further:
        yield from _arrays(each)
