"""Score and cost any module: no special methods, no training, no data.

python examples/score_a_module.py
"""

from torch import Tensor, nn

import zeroshot_nas as zs


class Block(nn.Module):
    """A residual block as anyone writes it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x)).relu()
        return (x + self.norm2(self.conv2(y))).relu()


def network(depth: int, width: int) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    return nn.Sequential(stem, *(Block(width) for _ in range(depth)), head)


def main() -> None:
    for depth, width in ((1, 16), (1, 64), (4, 16), (4, 64)):
        module = network(depth, width)
        costs = zs.cost(module, input_size=(3, 32, 32))
        score = zs.score(module, "zen", input_size=(3, 32, 32), seed=0)
        print(f"{depth} blocks of {width:2} channels: {costs.params:7,} params, {costs.flops:11,} FLOPs, {score}")


if __name__ == "__main__":
    main()
