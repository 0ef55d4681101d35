"""Small networks of the kinds that people bring, each with the same network written plainly where there is one."""

from __future__ import annotations

import math
import random
import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrizations, prune, rnn
from torch.utils.checkpoint import checkpoint

from zeroshot_nas import Batch

IMAGE = (3, 8, 8)
CLASSES = 3


@dataclass(frozen=True)
class Exhibit:
    """A network of the zoo.

    Attributes:
        build: Makes it, weights as torch draws them.
        plain: Makes the same network in the plainest way, with the same layers in the same order, so that the same
            weights are drawn; None where there is none.
        input_size: Of one input.
        refused: What every proxy that runs the network says, where it can't be scored; a pattern.
        scored: Proxies that have a value, beside those that the plain network has.
        batch: What it is scored on, where that is not drawn.
        differs: Proxies that rightly see more than the plain network's layers.
    """

    build: Callable[[], nn.Module]
    plain: Callable[[], nn.Module] | None = None
    input_size: tuple[int, ...] = IMAGE
    refused: str = ""
    scored: tuple[str, ...] = ()
    batch: Callable[[], Batch] | None = None
    differs: tuple[str, ...] = ()


MOST = (
    "az_expressivity",
    "fisher",
    "grad_norm",
    "gradsign",
    "naswot",
    "phi",
    "snip",
    "swap",
    "synflow",
    "vkdnw",
    "zico",
)
"""Proxies that any small network with ReLUs and logits has a value of."""

NO_RELU = tuple(name for name in MOST if name not in ("naswot", "swap"))
"""Those that any small network with logits has a value of."""


def head(width: int = 8) -> tuple[nn.Module, ...]:
    """Pooling and a classifier."""
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)


def conv_net(*middle: nn.Module) -> nn.Sequential:
    """A stem, what is given on 8 channels of 8 x 8, and a classifier behind a ReLU."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *middle,
        *(nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), *head()),
    )


class Calls(nn.Module):
    """A function as a module, with the modules that it calls.

    Args:
        function: ``(members, x) -> output``.
        members: By name.
    """

    def __init__(self, function: Callable[[nn.Module, Tensor], object], **members: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, member in members.items():
            self.add_module(name, member)

    def forward(self, x: Tensor) -> object:
        return self.function(self, x)


def calls(function: Callable[..., object], **members: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Makes a `Calls` whose members are made anew."""
    return lambda: Calls(function, **{name: make() for name, make in members.items()})


def wide_conv() -> nn.Module:
    return nn.Conv2d(3, 8, 3, padding=1)


def classifier() -> nn.Module:
    return nn.Linear(8, CLASSES)


# activations


def activated(make: Callable[[], nn.Module]) -> nn.Module:
    """An activation behind a batch norm and behind a convolution."""
    middle = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), make(), nn.Conv2d(8, 8, 3, stride=2), make())
    return nn.Sequential(*middle, *head())


ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "hardtanh": nn.Hardtanh,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "threshold": partial(nn.Threshold, 0.1, 0.05),
    "rrelu": nn.RReLU,
}
"""Every activation of torch that has a form in place."""

FUNCTIONS_IN_PLACE: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "relu_": (torch.relu_, torch.relu),
    "Tensor.relu_": (Tensor.relu_, torch.relu),
    "clamp_": (lambda x: x.clamp_(min=0), lambda x: x.clamp(min=0)),
    "hardtanh_": (F.hardtanh_, F.hardtanh),
    "leaky_relu_": (lambda x: F.leaky_relu_(x, 0.2), lambda x: F.leaky_relu(x, 0.2)),
    "elu_": (F.elu_, F.elu),
    "celu_": (torch.celu_, torch.celu),
    "selu_": (torch.selu_, torch.selu),
    "threshold_": (lambda x: F.threshold_(x, 0.1, 0.05), lambda x: F.threshold(x, 0.1, 0.05)),
    "rrelu_": (F.rrelu_, F.rrelu),
    "silu": (lambda x: F.silu(x, inplace=True), F.silu),
    "mish": (lambda x: F.mish(x, inplace=True), F.mish),
    "hardswish": (lambda x: F.hardswish(x, True), F.hardswish),
    "hardsigmoid": (lambda x: F.hardsigmoid(x, inplace=True), F.hardsigmoid),
    "sigmoid_": (torch.sigmoid_, torch.sigmoid),
    "tanh_": (Tensor.tanh_, torch.tanh),
    "exp_": (Tensor.exp_, torch.exp),
    "add_": (lambda x: x.add_(0.5), lambda x: x + 0.5),
    "+=": (lambda x: _increased(x), lambda x: x + 0.5),
}
"""Functions in place, and out of place."""

OUT_OF_PLACE: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "glu": lambda: nn.Sequential(nn.Conv2d(8, 16, 1), nn.GLU(1)),
    "hardshrink": nn.Hardshrink,
    "logsigmoid": nn.LogSigmoid,
    "prelu": nn.PReLU,
    "softplus": nn.Softplus,
    "softshrink": nn.Softshrink,
    "softsign": nn.Softsign,
    "softmax": lambda: nn.Softmax(1),
    "tanh": nn.Tanh,
    "tanhshrink": nn.Tanhshrink,
}
"""Activations of torch that have no form in place."""


def _increased(x: Tensor) -> Tensor:
    x += 0.5
    return x


def _writing_into_images(self: nn.Module, x: Tensor) -> Tensor:
    x.mul_(1.7).add_(1)
    return self.fc(torch.relu(self.norm(self.first(x))).mean((2, 3)))


def _of_other_images(self: nn.Module, x: Tensor) -> Tensor:
    return self.fc(torch.relu(self.norm(self.first(x * 1.7 + 1))).mean((2, 3)))


def by_function(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    """A function behind a convolution, its result unused: whoever reads the tensor sees it changed."""

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        x = function(self.norm(self.first(x)))
        x = function(self.second(x))
        return self.fc(x.mean((2, 3)))

    return calls(
        forward, first=wide_conv, norm=partial(nn.BatchNorm2d, 8), second=partial(nn.Conv2d, 8, 8, 3), fc=classifier
    )


def dropping_results(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    """As `by_function`, but the function's result is not read: the tensor itself is."""

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        function(x)
        x = self.second(x)
        function(x)
        return self.fc(x.mean((2, 3)))

    return calls(
        forward, first=wide_conv, norm=partial(nn.BatchNorm2d, 8), second=partial(nn.Conv2d, 8, 8, 3), fc=classifier
    )


# weights


def weighted(layer: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Two convolutions and a classifier, the second convolution and the classifier wrapped."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), layer(nn.Conv2d(8, 8, 3)), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer(nn.Linear(8, CLASSES))),
    )


def old_style(function: Callable[[nn.Module], nn.Module], layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(layer)


def pruned(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(layer, "weight", amount=0.3)


def frozen() -> nn.Module:
    return conv_net().requires_grad_(False)


def tied() -> nn.Module:
    first, second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    second.weight = first.weight
    return conv_net(first, nn.ReLU(), second, nn.ReLU())


class RawParameters(nn.Module):
    """Weights that no layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.ParameterList([torch.randn(8, 3, 3, 3) / 5, torch.randn(8, 8, 3, 3) / 9])
        self.out = nn.Parameter(torch.randn(CLASSES, 8) / 3)

    def forward(self, x: Tensor) -> Tensor:
        for kernel in self.kernels:
            x = F.relu(F.conv2d(x, kernel))
        return F.linear(x.mean((2, 3)), self.out)


# wrappers


class Wrapper(nn.Module):
    """A stranger's wrapper: ``.module`` and nothing else."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Tensor) -> Tensor:
        return self.module(*args)


def compiled() -> nn.Module:
    return torch.compile(conv_net(), backend="eager")


def averaged() -> nn.Module:
    return torch.optim.swa_utils.AveragedModel(conv_net())


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(conv_net())


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(conv_net().eval(), torch.zeros(1, *IMAGE))


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(conv_net(), {nn.Linear}, torch.qint8)


def on_meta() -> nn.Module:
    return conv_net().to("meta")


# what forward does


def checkpointed(reentrant: bool) -> Callable[[], nn.Module]:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = checkpoint(self.block, x, use_reentrant=reentrant)
        return self.fc(x.mean((2, 3)))

    return calls(forward, stem=stem, block=block, fc=classifier)


def _unchecked(self: nn.Module, x: Tensor) -> Tensor:
    return self.fc(self.block(self.stem(x)).mean((2, 3)))


def stem() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))


def block() -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3))


def _viewed(self: nn.Module, x: Tensor) -> Tensor:
    return self.fc(F.relu(self.stem(x)).view(x.size(0), -1))


def _flattened(self: nn.Module, x: Tensor) -> Tensor:
    return self.fc(F.relu(self.stem(x)).flatten(1))


def _shuffled(self: nn.Module, x: Tensor) -> Tensor:
    x = self.stem(x)
    count, channels, height, width = x.shape
    x = x.view(count, 2, channels // 2, height, width).transpose(1, 2).contiguous()
    return self.fc(self.block(x.view(count, channels, height, width)).mean((2, 3)))


def _shuffled_plainly(self: nn.Module, x: Tensor) -> Tensor:
    x = torch.cat([x[:, index::4] for index in range(4)], 1) if False else self.stem(x)
    return self.fc(self.block(F.channel_shuffle(x, 2)).mean((2, 3)))


def _strided(self: nn.Module, x: Tensor) -> Tensor:
    x = self.stem(x)
    assert x.is_contiguous(), "needs its feature maps in C order"
    count = len(x)
    return self.fc(x.as_strided((count, 8, 64), (8 * 64, 64, 1)).mean(2))


def _pooled(self: nn.Module, x: Tensor) -> Tensor:
    return self.fc(self.stem(x).mean((2, 3)))


def _dropped(self: nn.Module, x: Tensor) -> Tensor:
    return self.fc(F.dropout(self.block(F.dropout(self.stem(x), 0.2)), 0.5).mean((2, 3)))


def _noisy(self: nn.Module, x: Tensor) -> Tensor:
    x = self.stem(x)
    return self.fc(self.block(x + 0.1 * torch.randn_like(x) + 0.1 * torch.rand(1)).mean((2, 3)))


def _by_chance(self: nn.Module, x: Tensor) -> Tensor:
    return self.fc(self.block(self.stem(x) * (0.5 + random.random())).mean((2, 3)))


def _partly_frozen(self: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        x = self.stem(x)
    return self.fc(self.block(x).mean((2, 3)))


def _indexed(self: nn.Module, x: Tensor) -> Tensor:
    x = self.block(self.stem(x))
    x[:, 0] = 0
    return self.fc(F.relu(x).mean((2, 3)))


def _indexed_plainly(self: nn.Module, x: Tensor) -> Tensor:
    x = self.block(self.stem(x))
    return self.fc(F.relu(torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:]], 1)).mean((2, 3)))


class Ghost(nn.Module):
    """Cuts what it joined."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.cheap = nn.Conv2d(8, 5, 1), nn.Conv2d(5, 5, 3, padding=1, groups=5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        return torch.cat([y, self.cheap(y)], 1)[:, :8]


class Ghosts(nn.Module):
    """Writes into the cut and its parts, in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.stem, self.ghost, self.block, self.fc = stem(), Ghost(), block(), classifier()
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.ghost(x)
        if self.in_place:
            y += x
            y[:, 6].mul_(2)
            y.view(len(y), -1)[:, :9] -= 1
            F.relu(y.narrow(1, 2, 3), inplace=True)
        else:
            y = y + x
            y = torch.cat([y[:, :6], 2 * y[:, 6:7], y[:, 7:]], 1)
            flat = y.flatten(1)
            y = torch.cat([flat[:, :9] - 1, flat[:, 9:]], 1).view_as(y)
            y = torch.cat([y[:, :2], F.relu(y[:, 2:5]), y[:, 5:]], 1)
        return self.fc(self.block(y).mean((2, 3)))


def _pair(self: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = self.stem(x)
    return self.fc(x.mean((2, 3))), x


def _dictionary(self: nn.Module, x: Tensor) -> dict[str, Tensor]:
    return {"logits": self.fc(self.stem(x).mean((2, 3)))}


def _nothing(self: nn.Module, x: Tensor) -> None:
    self.stem(x)


def _raises(self: nn.Module, x: Tensor) -> Tensor:
    raise KeyError("no such head")


def _self_evaluating(self: nn.Module, x: Tensor) -> Tensor:
    self.eval()
    return _pooled(self, x)


def _switching(self: nn.Module, x: Tensor) -> Tensor:
    if self.training:
        raise AssertionError("scored as at inference")
    return _pooled(self, x)


class Doubled(torch.autograd.Function):
    """Twice its input, as a stranger writes it."""

    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        return gradient * 2


def _by_own_function(self: nn.Module, x: Tensor) -> Tensor:
    return self.fc(self.block(Doubled.apply(self.stem(x))).mean((2, 3)))


def _by_two(self: nn.Module, x: Tensor) -> Tensor:
    return self.fc(self.block(self.stem(x) * 2).mean((2, 3)))


class Caching(nn.Module):
    """Keeps what it computed last."""

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        self.stem, self.block, self.fc = stem(), block(), classifier()
        self.keeps = keeps
        self.last: list[Tensor] = []
        if keeps:
            self(torch.ones(2, *IMAGE))
            for part in self.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.reset_running_stats()

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.stem(x))
        if self.keeps:
            self.last = [x]
        return self.fc(x.mean((2, 3)))


class Locked(nn.Module):
    """Holds what can't be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.fc = classifier()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


class Buffered(nn.Module):
    """Counts its calls, and has infinite, integer and non-persistent buffers."""

    def __init__(self, has_buffers: bool) -> None:
        super().__init__()
        self.net = conv_net()
        self.has_buffers = has_buffers
        if has_buffers:
            self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
            self.register_buffer("best", torch.tensor(math.inf))
            self.register_buffer("scale", torch.ones(8, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.has_buffers:
            self.calls += 1
        return self.net(x)


def hooked() -> nn.Module:
    network = conv_net()
    network[0].register_forward_hook(lambda _module, _inputs, output: output * 1)
    network[3].register_forward_pre_hook(lambda _module, _inputs: None)
    network[3].register_full_backward_hook(lambda *_: None)
    return network


def with_gradients() -> nn.Module:
    network = conv_net()
    network(torch.ones(2, *IMAGE)).sum().backward()
    return network


# sequences


class Attention(nn.Module):
    """Causal attention over 16 tokens; the mask is a buffer or made at every call."""

    def __init__(self, has_buffer: bool) -> None:
        super().__init__()
        self.embed, self.attention, self.fc = nn.Linear(6, 8), nn.MultiheadAttention(8, 2), nn.Linear(8, CLASSES)
        self.has_buffer = has_buffer
        if has_buffer:
            self.register_buffer("mask", _causal())

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.embed(x)).transpose(0, 1)
        mask = self.mask if self.has_buffer else _causal().to(x)
        x = x + self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]
        return self.fc(x.mean(0))


class FusedAttention(nn.Module):
    """Attention over the positions of a feature map, as transformers call it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.fc = nn.Conv2d(3, 8, 2, stride=2), nn.Linear(8, 24), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(F.relu(self.stem(x)).flatten(2).transpose(1, 2)).unsqueeze(1)
        return self.fc(F.relu(F.scaled_dot_product_attention(*qkv.chunk(3, -1))).squeeze(1).mean(1))


def _causal() -> Tensor:
    return torch.full((16, 16), -math.inf).triu(1)


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
    return Calls(
        lambda self, x: self.fc(self.layer(self.embed(x)).mean(1)), embed=nn.Linear(6, 8), layer=layer, fc=classifier()
    )


def _last_state(self: nn.Module, x: Tensor) -> Tensor:
    return self.fc(F.relu(self.cell(x)[0][:, -1]))


def _packed(self: nn.Module, x: Tensor) -> Tensor:
    packed = rnn.pack_padded_sequence(x, torch.full((len(x),), x.shape[1]), batch_first=True)
    return self.fc(F.relu(rnn.pad_packed_sequence(self.cell(packed)[0], batch_first=True)[0][:, -1]))


def _embedded(self: nn.Module, x: Tensor) -> Tensor:
    return self.fc(F.relu(self.embed(x)).mean(1))


def tokens() -> Batch:
    """Integers as inputs."""
    generator = torch.Generator().manual_seed(5)
    further = Batch(torch.randint(9, (4, 5), generator=generator), torch.tensor([1, 1, 0, 2]))
    return Batch(torch.randint(9, (4, 5), generator=generator), torch.tensor([0, 1, 2, 1]), further=(further,))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = stem(), classifier()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.fc(self.stem(x + y).mean((2, 3)))


class Complex(nn.Module):
    """Works on the image's spectrum."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 8, 1, dtype=torch.complex64)
        self.fc = classifier()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.mix(torch.fft.fft2(x)).abs()).mean((2, 3)))


class Residual(nn.Module):
    """A block with a link, that adds in place or not, and halves by a 1x1 convolution of few channels."""

    def __init__(self, width: int, stride: int, in_place: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, 8, 3, stride, 1), nn.BatchNorm2d(8))
        self.link = nn.Conv2d(width, 8, 1, stride) if stride > 1 else nn.Identity()
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.in_place:
            y += self.link(x)
        else:
            y = y + self.link(x)
        return F.relu(y, self.in_place)


def residual(in_place: bool) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), Residual(5, 2, in_place), Residual(8, 1, in_place), *head())


class Gate(nn.Module):
    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        self.in_place = in_place
        self.body = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.body(x)) if self.in_place else x * self.body(x)


def after_conv(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """A convolution, and what a function makes of its output."""
    return Calls(lambda self, x: function(self.conv(x)), conv=wide_conv())


def _flat_part_changed(x: Tensor) -> Tensor:
    x.flatten(1).mul_(2)
    return x


def _rows_changed(x: Tensor) -> Tensor:
    rows = x.permute(0, 2, 3, 1).contiguous()
    rows += 1
    return x + rows.permute(0, 3, 1, 2)


BY_LAYOUT = (
    ("a flat view changed in place", _flat_part_changed, lambda x: x * 2),
    ("a copy with channels last changed in place", _rows_changed, lambda x: x + (x + 1)),
)
"""What is a view in one layout and a copy in another, changed in place: name, function, the same written plainly."""


def with_places(module: nn.Module) -> nn.Module:
    module.places = nn.Parameter(torch.arange(4), requires_grad=False)
    return module


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, F.relu(self.conv(x))], 1)


def shared_activation(shared: bool) -> nn.Module:
    one = nn.ReLU()
    first, second = (one, one) if shared else (nn.ReLU(), nn.ReLU())
    return nn.Sequential(nn.Conv2d(3, 8, 3), first, nn.Conv2d(8, 8, 3), second, *head())


def one_layer(layer: nn.Module, channels: int, *, axes: int) -> nn.Module:
    """A layer, a ReLU, the mean over positions, a classifier."""
    fc = nn.Linear(channels, CLASSES)
    return Calls(lambda self, x: self.fc(F.relu(self.layer(x)).mean(tuple(range(2, 2 + axes)))), layer=layer, fc=fc)


def dead() -> nn.Module:
    class Zeros(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0

    return conv_net(Zeros())


def not_finite() -> nn.Module:
    network = conv_net(nn.GroupNorm(2, 8))
    with torch.no_grad():
        network[3].weight[0] = math.nan
    return network


def lazy() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(
            nn.LazyConv2d(8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(CLASSES)
        )


def _exhibits() -> Iterable[tuple[str, Exhibit]]:
    for name, make in ACTIVATIONS.items():
        yield (
            f"{name} in place",
            Exhibit(lambda m=make: activated(lambda: m(inplace=True)), lambda m=make: activated(m)),
        )
    for name, (in_place, plain) in FUNCTIONS_IN_PLACE.items():
        yield f"function {name}", Exhibit(by_function(in_place), by_function(plain))
    for name in ("relu_", "hardtanh_", "silu", "elu_", "add_"):
        in_place, plain = FUNCTIONS_IN_PLACE[name]
        yield f"result of {name} dropped", Exhibit(dropping_results(in_place), by_function(plain))
    for name, make in OUT_OF_PLACE.items():
        scored = tuple(proxy for proxy in MOST if (name, proxy) != ("logsigmoid", "synflow"))  # which leaves it dead
        yield name, Exhibit(lambda m=make: conv_net(m()), scored=scored)

    members = {"first": wide_conv, "norm": partial(nn.BatchNorm2d, 8), "fc": classifier}
    yield (
        "writes into its images",
        Exhibit(calls(_writing_into_images, **members), calls(_of_other_images, **members)),
    )

    yield "sync batch norm", Exhibit(lambda: conv_net(nn.SyncBatchNorm(8)), lambda: conv_net(nn.BatchNorm2d(8)))
    yield "group norm", Exhibit(lambda: conv_net(nn.GroupNorm(2, 8)), scored=MOST)
    of_varied_input = tuple(name for name in MOST if name != "synflow")  # an image of ones is zero behind a norm
    yield "group norm first", Exhibit(lambda: nn.Sequential(nn.GroupNorm(1, 3), *conv_net()), scored=of_varied_input)
    yield (
        "group norm alone",
        Exhibit(
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 2)),
            scored=NO_RELU,
        ),
    )
    yield "layer norm", Exhibit(lambda: conv_net(nn.LayerNorm((8, 8, 8))), scored=MOST)
    yield "instance norm", Exhibit(lambda: conv_net(nn.InstanceNorm2d(8, affine=True)), scored=MOST)
    yield (
        "instance norm that tracks",
        Exhibit(
            lambda: conv_net(nn.InstanceNorm2d(8, track_running_stats=True)), lambda: conv_net(nn.InstanceNorm2d(8))
        ),
    )
    yield "rms norm", Exhibit(lambda: conv_net(nn.RMSNorm((8, 8))), scored=MOST)
    yield "local response norm", Exhibit(lambda: conv_net(nn.LocalResponseNorm(3)), scored=MOST)
    yield "batch norm without statistics", Exhibit(lambda: conv_net(nn.BatchNorm2d(8, track_running_stats=False)))
    yield "batch norm without weights", Exhibit(lambda: conv_net(nn.BatchNorm2d(8, affine=False)), scored=MOST)

    yield "one activation in two places", Exhibit(lambda: shared_activation(True), lambda: shared_activation(False))
    yield "one convolution in two places", Exhibit(lambda: (lambda c: conv_net(c, c))(nn.Conv2d(8, 8, 3, padding=1)))
    yield "tied weights", Exhibit(tied, scored=MOST)
    yield "weights without layers", Exhibit(RawParameters, scored=MOST[1:])
    plain_weights = partial(weighted, lambda layer: layer)
    more = ("params", "vkdnw")  # a weight norm's parameters are others
    yield "weight_norm", Exhibit(lambda: weighted(parametrizations.weight_norm), plain_weights, differs=more)
    old_norm = partial(old_style, nn.utils.weight_norm)
    yield "old weight_norm", Exhibit(lambda: weighted(old_norm), plain_weights, differs=more)
    yield "spectral_norm", Exhibit(lambda: weighted(parametrizations.spectral_norm), scored=MOST)
    yield "old spectral_norm", Exhibit(lambda: weighted(partial(old_style, nn.utils.spectral_norm)), scored=MOST)
    yield "orthogonal", Exhibit(lambda: weighted(parametrizations.orthogonal), scored=MOST)
    yield "pruned", Exhibit(lambda: weighted(pruned), scored=MOST)
    yield "frozen", Exhibit(frozen, conv_net)

    yield "compiled", Exhibit(compiled, conv_net)
    yield "data parallel", Exhibit(lambda: nn.DataParallel(conv_net()), conv_net)
    yield "a stranger's wrapper", Exhibit(lambda: Wrapper(conv_net()), conv_net)
    yield "averaged", Exhibit(averaged, conv_net)
    yield "wrapped twice", Exhibit(lambda: nn.DataParallel(compiled()), conv_net)
    yield "fx graph", Exhibit(lambda: fx.symbolic_trace(conv_net()), conv_net)
    yield "scripted", Exhibit(scripted, conv_net, refused="before scripting")
    yield "traced", Exhibit(traced, conv_net, refused="before scripting")
    yield (
        "part scripted",
        Exhibit(
            lambda: nn.Sequential(torch.jit.script(nn.Conv2d(3, 8, 3)), nn.ReLU(), *head()), refused="before scripting"
        ),
    )
    yield "quantised", Exhibit(quantised, conv_net, refused="quantised")
    yield "meta", Exhibit(on_meta, conv_net, refused="meta")
    yield "uninitialised", Exhibit(lazy, refused="uninitiali[sz]ed")
    yield "half", Exhibit(lambda: conv_net().half())
    yield "bfloat16", Exhibit(lambda: conv_net().bfloat16())
    yield "double", Exhibit(lambda: conv_net().double(), scored=MOST)
    yield "complex", Exhibit(Complex, scored=("params", "flops", "layers"))

    plain_checkpoint = calls(_unchecked, stem=stem, block=block, fc=classifier)
    yield "checkpoint", Exhibit(checkpointed(False), plain_checkpoint)
    yield "reentrant checkpoint", Exhibit(checkpointed(True), plain_checkpoint)
    long_classifier = partial(nn.Linear, 8 * 64, CLASSES)
    yield (
        "view",
        Exhibit(
            calls(_viewed, stem=wide_conv, fc=long_classifier), calls(_flattened, stem=wide_conv, fc=long_classifier)
        ),
    )
    yield (
        "channel shuffle by view",
        Exhibit(
            calls(_shuffled, stem=stem, block=block, fc=classifier),
            calls(_shuffled_plainly, stem=stem, block=block, fc=classifier),
        ),
    )
    yield "strides", Exhibit(calls(_strided, stem=stem, fc=classifier), calls(_pooled, stem=stem, fc=classifier))
    for name, forward in (("dropout", _dropped), ("noise", _noisy), ("python's chance", _by_chance)):
        yield (
            f"{name} in forward",
            Exhibit(calls(forward, stem=stem, block=block, fc=classifier), scored=("snip", "naswot")),
        )
    yield (
        "no_grad in forward",
        Exhibit(calls(_partly_frozen, stem=stem, block=block, fc=classifier), scored=("naswot",)),
    )
    yield (
        "assignment by index",
        Exhibit(
            calls(_indexed, stem=stem, block=block, fc=classifier),
            calls(_indexed_plainly, stem=stem, block=block, fc=classifier),
            differs=("cet", "ceres"),  # which reads no slices, as the plain network has
        ),
    )
    yield "parts of a joined map in place", Exhibit(lambda: Ghosts(True), lambda: Ghosts(False))
    yield (
        "own autograd function",
        Exhibit(
            calls(_by_own_function, stem=stem, block=block, fc=classifier),
            calls(_by_two, stem=stem, block=block, fc=classifier),
        ),
    )
    yield "sets itself to eval", Exhibit(calls(_self_evaluating, stem=stem, fc=classifier))
    yield (
        "asserts its mode",
        Exhibit(calls(_switching, stem=stem, fc=classifier), calls(_pooled, stem=stem, fc=classifier)),
    )
    yield "cached activations", Exhibit(lambda: Caching(True), lambda: Caching(False))
    yield "buffers", Exhibit(lambda: Buffered(True), lambda: Buffered(False))
    yield "hooks", Exhibit(hooked, conv_net)
    yield "gradients left", Exhibit(with_gradients, conv_net)
    yield "a lock", Exhibit(Locked, refused="can't be copied")

    yield "a pair returned", Exhibit(calls(_pair, stem=stem, fc=classifier), scored=("naswot", "az_expressivity"))
    yield "a dict returned", Exhibit(calls(_dictionary, stem=stem, fc=classifier), scored=("naswot",))
    yield "nothing returned", Exhibit(calls(_nothing, stem=stem), scored=("naswot",))
    yield "two inputs", Exhibit(TwoInputs, refused="could not run")
    yield "raises", Exhibit(calls(_raises, stem=stem), refused="could not run")
    yield "one class", Exhibit(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *head()[:2], nn.Linear(8, 1)))
    yield "nothing", Exhibit(nn.Identity)
    yield "no parameters", Exhibit(lambda: nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    yield "dead", Exhibit(dead)
    yield "weights not finite", Exhibit(not_finite)

    yield "residual in place", Exhibit(lambda: residual(True), lambda: residual(False))
    yield "gate", Exhibit(lambda: conv_net(Gate()), scored=MOST)
    of_changed_relu = ("gradsign", "vkdnw")  # they run without what keeps a ReLU's output, and torch refuses it
    yield "gate in place", Exhibit(lambda: conv_net(Gate(True)), lambda: conv_net(Gate()), differs=of_changed_relu)
    for name, in_place, plain in BY_LAYOUT:
        yield name, Exhibit(lambda f=in_place: conv_net(after_conv(f)), lambda f=plain: conv_net(after_conv(f)))
    yield "an integer parameter first", Exhibit(lambda: with_places(conv_net()), conv_net, differs=("params",))
    yield "dense", Exhibit(lambda: conv_net(Dense(), nn.Conv2d(16, 8, 1)), scored=MOST)
    yield (
        "depthwise",
        Exhibit(
            lambda: conv_net(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6(inplace=True), nn.Conv2d(8, 8, 1)),
            scored=MOST,
        ),
    )
    yield (
        "narrow 1x1 with a stride",
        Exhibit(
            lambda: nn.Sequential(nn.Conv2d(3, 7, 1, 2), nn.ReLU(), nn.Conv2d(7, 8, 1, 2), nn.ReLU(), *head()),
            scored=MOST,
        ),
    )
    yield (
        "pools",
        Exhibit(lambda: conv_net(nn.MaxPool2d(2), nn.AvgPool2d(2, 1), nn.Upsample(scale_factor=2)), scored=MOST),
    )
    yield "pixel shuffle", Exhibit(lambda: conv_net(nn.Conv2d(8, 32, 1), nn.PixelShuffle(2)), scored=MOST)
    yield "transposed", Exhibit(lambda: conv_net(nn.ConvTranspose2d(8, 8, 2, 2), nn.ReLU()), scored=MOST)
    yield "1-D", Exhibit(lambda: one_layer(nn.Conv1d(2, 8, 3), 8, axes=1), input_size=(2, 16), scored=NO_RELU[1:])
    yield (
        "3-D",
        Exhibit(lambda: one_layer(nn.Conv3d(1, 8, 3), 8, axes=3), input_size=(1, 5, 5, 5), scored=("naswot", "snip")),
    )
    yield (
        "transposed 3-D",
        Exhibit(lambda: one_layer(nn.ConvTranspose3d(1, 8, 3), 8, axes=3), input_size=(1, 4, 4, 4), scored=("naswot",)),
    )
    yield (
        "MLP",
        Exhibit(
            lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, CLASSES)),
            input_size=(6,),
            scored=("naswot", "snip"),
        ),
    )
    yield "fused attention", Exhibit(FusedAttention, scored=("grasp", "ntk_cond", *MOST))
    yield "infinite mask", Exhibit(lambda: Attention(True), lambda: Attention(False), input_size=(16, 6))
    yield "transformer", Exhibit(encoder, input_size=(16, 6), scored=("snip",))
    embedded = {"embed": partial(nn.Embedding, 9, 8), "fc": classifier}
    scored = ("grad_norm", "gradsign", "naswot", "ntk_cond", "snip", "vkdnw", "zico")
    yield "tokens", Exhibit(calls(_embedded, **embedded), batch=tokens, scored=scored)
    for name, cell in (("LSTM", nn.LSTM), ("GRU", nn.GRU), ("RNN", nn.RNN)):
        yield (
            name,
            Exhibit(
                calls(_last_state, cell=partial(cell, 6, 8, batch_first=True), fc=classifier),
                input_size=(5, 6),
                scored=("snip",),
            ),
        )
    yield (
        "packed LSTM",
        Exhibit(
            calls(_packed, cell=partial(nn.LSTM, 6, 8, batch_first=True), fc=classifier),
            calls(_last_state, cell=partial(nn.LSTM, 6, 8, batch_first=True), fc=classifier),
            input_size=(5, 6),
        ),
    )


ZOO: dict[str, Exhibit] = dict(_exhibits())
"""The networks by name."""
