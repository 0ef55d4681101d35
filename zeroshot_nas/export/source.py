"""A trained network as the text of one Python file that needs nothing of this package."""

from __future__ import annotations

import base64
import inspect
import io
import json
import subprocess
import sys
import tempfile
import textwrap
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zeroshot_nas.architecture import ops
from zeroshot_nas.errors import ArchitectureError, ExportError

if TYPE_CHECKING:
    from torch import Tensor

    from zeroshot_nas.training.checkpoint import TrainedNetwork

_HEADER = '''"""A convolutional network, {contents}.

    from {stem} import load
    probabilities = load()(images).softmax(1)   # images: {shape}, values in [0, 1]

Architecture: {description}
"""

from __future__ import annotations

{imports}

import torch
from torch import Tensor, nn

INPUT_SIZE = {input_size}
CLASS_NAMES = {class_names}
MEAN = {mean}
STD = {std}


{classes}


class Network(nn.Module):
    """Takes images (N, C, H, W) in [0, 1], which it normalises itself, and returns logits."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(
{blocks}
        )
        self.head = {head}
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward_features(self, x):
        return self.blocks((x - self.mean) / self.std)

    def forward(self, x):
        return self.head(self.forward_features(x))


{loading}
'''

_EMBEDDED = '''def load():
    """The network with its weights, in eval mode."""
    network = Network()
    content = io.BytesIO(zlib.decompress(base64.b85decode(WEIGHTS)))
    network.load_state_dict(torch.load(content, map_location="cpu", weights_only=True))
    return network.eval()


WEIGHTS = (
{weights}
)'''

_INCLUDED = "its weights included; it needs torch and nothing else"

_BESIDE = '''def load(file=Path(__file__).with_name("{weights}")):
    """The network with the weights of a file, in eval mode."""
    network = Network()
    network.load_state_dict(safetensors.torch.load_file(file))
    return network.eval()'''

_CHECK = """
import importlib.util, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "zeroshot_nas":
            raise ImportError("the file must not need the package that wrote it")
sys.meta_path.insert(0, Refuse())
sys.path += [home for home in sys.argv[4:] if home not in sys.path]
import torch
spec = importlib.util.spec_from_file_location("network", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
with torch.no_grad():
    torch.save(module.load()(torch.load(sys.argv[2], weights_only=True)), sys.argv[3])
"""


def source(network: TrainedNetwork, name: str = "network", weights: str | None = None) -> str:
    """The text of the file.

    Args:
        network: What to write.
        name: The module's name in the example that the text begins with.
        weights: Name of a safetensors file beside it that has the weights; None puts them into the text.
    """
    from zeroshot_nas.network import module

    classes = (module.Conv2d, module.Linear, module.GlobalPool, module.Gate, module.Residual, module.Zero, module.Graph)
    *bodies, head = network.architecture.lower()
    beside = weights is not None
    imports = ["from pathlib import Path", "", "import safetensors.torch"] if beside else []
    standard = [] if beside else ["import base64", "import io", "import zlib"]
    return _HEADER.format(
        contents=f"its weights in {weights}; it needs torch and safetensors" if beside else _INCLUDED,
        imports="\n".join([*standard, "from collections.abc import Iterable, Sequence", *imports]),
        loading=_BESIDE.format(weights=weights) if beside else _EMBEDDED.format(weights=_packed(network)),
        stem=name,
        shape=f"(N, {', '.join(map(str, network.architecture.input_size))})",
        description=", ".join(block.type_name for block in network.architecture.blocks),
        input_size=network.architecture.input_size,
        class_names=json.dumps(list(network.class_names)),
        mean=network.mean.flatten().tolist(),
        std=network.std.flatten().tolist(),
        classes="\n\n".join(inspect.getsource(each) for each in classes).rstrip(),
        blocks="\n".join(f"            {_chain(body)}," for body in bodies),
        head=_chain(head),
    )


def _packed(network: TrainedNetwork) -> str:
    """The weights as lines of text."""
    import torch

    weights = io.BytesIO()
    torch.save({key: value.contiguous() for key, value in network.state_dict().items()}, weights)
    packed = base64.b85encode(zlib.compress(weights.getvalue(), 9)).decode()
    return "\n".join(f"    {line!r}" for line in textwrap.wrap(packed, 100))


def run_alone(text: str, images: Tensor, beside: Mapping[str, bytes] | None = None) -> Tensor:
    """Logits of the text's network, computed by a process that can't import this package.

    It is isolated: neither a ``torch.py`` of the current folder is run, nor what the environment names. torch's own
    folder is told, since a user's packages may be where an isolated process does not look.
    """
    import safetensors
    import torch

    from zeroshot_nas.training.checkpoint import torch_bytes

    with tempfile.TemporaryDirectory() as folder:
        file, given, got = (Path(folder) / name for name in ("network.py", "images.pt", "logits.pt"))
        file.write_text(text, encoding="utf-8")
        given.write_bytes(torch_bytes(images.contiguous()))
        for name, content in (beside or {}).items():
            (Path(folder) / name).write_bytes(content)
        homes = {str(Path(str(module.__file__)).parents[1]) for module in (torch, safetensors)}
        command = [sys.executable, "-I", "-c", _CHECK, str(file), str(given), str(got), *homes]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603  our own file
        if done.returncode:
            raise ExportError(f"the Python file does not run by itself: {done.stderr.strip().splitlines()[-1]}")
        logits: Tensor = torch.load(got, weights_only=True)
        return logits


def _chain(chain: Sequence[ops.Op]) -> str:
    return f"nn.Sequential({', '.join(map(_module, chain))})"


def _module(op: ops.Op) -> str:
    """The expression that makes an operation's module, as `zeroshot_nas.network.module` does."""
    if isinstance(op, ops.Conv):
        sizes = f"{op.in_channels}, {op.out_channels}, {op.kernel_size}, {op.stride}, {op.padding}, {op.dilation}"
        return f"Conv2d({sizes}, {op.groups}, {op.bias})"
    if isinstance(op, ops.BatchNorm):
        return f"nn.BatchNorm2d({op.channels}, eps={ops.BATCH_NORM_EPSILON})"
    if isinstance(op, ops.Activation):
        return "nn.ReLU()" if op.kind == "relu" else "nn.Sigmoid()"
    if isinstance(op, ops.Pool):
        kind, more = ("Max", "") if op.kind == "max" else ("Avg", ", count_include_pad=False")
        return f"nn.{kind}Pool2d({op.kernel_size}, {op.stride}, {op.padding}{more})"
    if isinstance(op, ops.Zero):
        return f"Zero({op.stride})"
    if isinstance(op, ops.GlobalPool):
        return "GlobalPool()"
    if isinstance(op, ops.Linear):
        return f"Linear({op.in_features}, {op.out_features}, {op.bias})"
    if isinstance(op, ops.Gate):
        return f"Gate({_chain(op.body)})"
    if isinstance(op, ops.Residual):
        return f"Residual({_chain(op.body)}, {_chain(op.shortcut)})"
    if isinstance(op, ops.Repeat):
        return f"nn.Sequential({', '.join([_chain(op.body)] * op.times)})"
    if isinstance(op, ops.Graph):
        from zeroshot_nas.network.module import graph_nodes

        return f"Graph({graph_nodes(op)}, [{', '.join(_chain(edge.ops) for node in op.nodes for edge in node.edges)}])"
    raise ArchitectureError(f"no source is known for the operation {type(op).__name__}")
