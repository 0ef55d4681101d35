"""How long a training will take, from a few of its steps."""

from __future__ import annotations

import math
from time import perf_counter

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.seeding import one_torch_thread, preserved_rng, torch_generator
from zeroshot_nas.training.recipe import Recipe

_STEPS = 2


def training_seconds(architecture: Architecture, recipe: Recipe, images: int, device: str | None = None) -> float:
    """Seconds of a training on one thread, as long as nothing else keeps the machine busy; roughly.

    Args:
        architecture: The network.
        recipe: The recipe.
        images: How many there are to learn from, those that validate among them.
        device: Where.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from zeroshot_nas.network.module import initialize
    from zeroshot_nas.training.checkpoint import TrainedNetwork
    from zeroshot_nas.training.precision import precision_of, speed_up

    size, channels = min(recipe.batch_size, images), architecture.input_size[0]
    names = tuple(map(str, range(architecture.num_classes)))
    with preserved_rng(), one_torch_thread():
        network = TrainedNetwork(architecture, [0.5] * channels, [1.0] * channels, names).to(device or "cpu").train()
        initialize(network, "kaiming", torch_generator(0))
        speed_up(network)
        low = precision_of(network, recipe.precision) == "bfloat16"
        batch = torch.zeros(size, *architecture.input_size, device=device or "cpu")
        classes = torch.zeros(size, dtype=torch.long, device=batch.device)
        times = []
        for _ in range(_STEPS + 1):  # the first warms up
            start = perf_counter()
            with torch.autocast(batch.device.type, torch.bfloat16, enabled=low):
                loss = cross_entropy(network(batch), classes)
            loss.backward()  # type: ignore[no-untyped-call]
            times.append(perf_counter() - start)
    learned = images * (1 - recipe.validation_fraction)
    return min(times[1:]) * math.ceil(learned / size) * recipe.epochs
