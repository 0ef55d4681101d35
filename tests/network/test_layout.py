"""No training, no score and no latency corrupts the heap, in whatever layout; each runs in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from zeroshot_nas.core.seeding import torch_threads
from zeroshot_nas.network.layout import has_unsafe_gradient, is_unsafe_in_channels_last

pytestmark = pytest.mark.slow

CHECKER = Path("/lib/x86_64-linux-gnu/libc_malloc_debug.so.0")
"""glibc's allocator that ends the process at the first buffer that was written past; without it most are not seen."""

NETWORK = "SuperConvK1BNRELU(3,7,2,1)SuperConvK1BNRELU(7,15,2,1)SuperConvK1BNRELU(15,29,2,1)"

TRAIN = f"""
import torch, zeroshot_nas as zs
images, labels = torch.rand(192, 3, 32, 32), torch.arange(192) % 3
data = zs.from_datasets(*[torch.utils.data.TensorDataset(images, labels)] * 2, ["a", "b", "c"])
network = zs.Architecture.from_string({NETWORK!r}, (3, 32, 32), num_classes=3)
zs.train(network, data, zs.Recipe(epochs=2, batch_size=64), progress=False)
"""

NARROW = """
import torch, zeroshot_nas as zs
for channels, threads, precision in ((1, 1, "bfloat16"), (1, 2, "float32"), (1, 2, "bfloat16"), (3, 2, "bfloat16")):
    images, labels = torch.rand(66, channels, 20, 20), torch.arange(66) % 3
    data = zs.ImageData(images, labels, images[:9], labels[:9], tuple("abc"), "noise")
    for block in ("SuperResK3K3(8,9,2,9,1)", "SuperResIDWE2K3(8,9,2,9,1)", "SuperConvK1BNRELU(8,3,1,1)"):
        network = zs.Architecture.from_string(f"SuperConvK3BNRELU({channels},8,1,1){block}", images.shape[1:], 3)
        recipe = zs.Recipe(epochs=2, batch_size=33, precision=precision, validation_fraction=0.3)
        zs.train(network, data, recipe, threads=threads, progress=False)
"""

SCORE = f"""
import torch, zeroshot_nas as zs
from torch import nn
network = zs.Architecture.from_string({NETWORK!r}, (3, 32, 32), num_classes=3)
names = ["snip", "gradsign", "ntk_cond", "vkdnw", "grasp", "az_trainability", "synflow", "cet"]
class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel, self.fc = nn.Parameter(torch.randn(15, 7, 1, 1)), nn.Linear(15, 3)
        self.stem = nn.Conv2d(3, 7, 3)
    def forward(self, x):
        return self.fc(nn.functional.conv2d(self.stem(x), self.kernel, stride=2).relu().mean((2, 3)))
norm = nn.Sequential(nn.GroupNorm(1, 3), nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(7200, 2))
batch = zs.Batch(torch.randn(16, 3, 32, 32).contiguous(memory_format=torch.channels_last), torch.arange(16) % 2)
for model in (network, zs.build(network), nn.Sequential(*zs.build(network).blocks, zs.build(network).head)):
    assert zs.score(model, names, input_size=(3, 32, 32), repeats=2, batch_size=64)["snip"].ok
for model in (Functional(), norm):
    for arrays in ({{"input_size": (3, 32, 32)}}, {{"batch": batch}}):
        scores = zs.score(model.to(memory_format=torch.channels_last), [*names, "grad_norm"], repeats=1, **arrays)
        assert scores["snip"].ok and scores["vkdnw"].ok, scores
"""


@pytest.mark.parametrize("script", [TRAIN, NARROW, SCORE], ids=["train", "narrow", "score"])
def test_nothing_is_written_past_a_buffer(script):
    checked = {"LD_PRELOAD": str(CHECKER), "GLIBC_TUNABLES": "glibc.malloc.check=3"} if CHECKER.exists() else {}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"} | checked
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("kernel_size", "stride", "channels", "threads", "unsafe"),
    [
        ((1, 1), (2, 2), 7, 1, True),
        ((1, 1), (1, 2), 1, 1, True),
        ((1, 1), (2, 2), 8, 1, False),
        ((1, 1), (2, 2), 15, 2, True),
        ((1, 1), (2, 2), 16, 2, False),
        ((1, 1), (1, 1), 7, 2, False),
        ((3, 3), (2, 2), 7, 2, False),
    ],
)
def test_which_convolutions_are_unsafe(kernel_size, stride, channels, threads, unsafe):
    with torch_threads(threads):
        assert has_unsafe_gradient(kernel_size, stride, channels) is unsafe
        network = nn.Sequential(nn.ReLU(), nn.Conv2d(2 * channels, 4, kernel_size, stride, groups=2))
        assert is_unsafe_in_channels_last(network) is unsafe
