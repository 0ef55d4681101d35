"""A proxy of your own: one function and a decorator.

It is scored, searched with and checked like those that come with the package. `Batch.passes` gives what the network
computes on the way, shared with every other proxy of the same call.
"""

import torch

import zeroshot_nas as zs
from zeroshot_nas.testing import check_proxy


@zs.register_proxy(zs.ProxyInfo("relu_balance", source="this example", direction="higher", reads=["relus"]))
def relu_balance(network: torch.nn.Module, batch: zs.Batch, /) -> float:
    """How evenly ReLUs are on and off: the mean over ReLUs of 1 - |2 p - 1|, p the share that is on."""
    shares = [on.float().mean() for on in batch.passes(network).forward.relus]
    return (1 - (2 * torch.stack(shares) - 1).abs()).mean().item()


def main() -> None:
    check_proxy("relu_balance")  # deterministic, and leaves the module and the random state as they were

    network = zs.Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,2)", (3, 16, 16))
    for score in zs.score(network, ["relu_balance", "naswot", "synflow"]).values():
        print(score)

    budget = zs.Budget(params=50_000, layers=8)
    found = zs.search("resnet", "relu_balance", budget, input_size=(3, 16, 16), proposals=50, progress=False)
    print("most balanced of", found.counts.ranked, "networks:", found.best.architecture.to_string())


if __name__ == "__main__":
    main()
