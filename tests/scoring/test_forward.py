"""Where the values of proxies come from is chosen once, and what they share is computed once."""

import pytest
import torch
from torch import nn

import zeroshot_nas as zs
from zeroshot_nas.scoring.forward import ArchitectureSource, Draws, ModuleSource, forward_sources

NET = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,1)", (3, 8, 8))
CELL = zs.get_space("nasbench201", num_cells=1, channels=4, input_size=(3, 8, 8)).initial()
FOREIGN = nn.Sequential(
    *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
)


def chosen(model, architecture, names, **settings):
    draws = Draws((3, 8, 8), settings.get("batch_size"), settings.get("init"), 0, None)
    sources = forward_sources(model, architecture, [zs.get_proxy(name) for name in names], draws)
    return {tuple(proxy.key for proxy in proxies): type(source) for proxies, source in sources}


def test_proxies_that_ask_for_the_same_weights_and_inputs_share_a_source():
    names = ["zen", "naswot", "phi", "snip", "meco", "zen:variant=l1"]
    assert chosen(NET, NET, names) == {
        ("zen",): ArchitectureSource,
        ("naswot", "snip"): ModuleSource,
        ("phi",): ModuleSource,  # other weights
        ("meco",): ModuleSource,  # another batch size
        ("zen:variant=l1",): ArchitectureSource,
    }
    assert ("naswot", "snip", "meco") in chosen(NET, NET, names, batch_size=4)
    assert ("zen", "phi", "zen:variant=l1") in chosen(FOREIGN, None, names)


@pytest.mark.parametrize(
    ("model", "architecture", "init", "source"),
    [
        (NET, NET, None, ArchitectureSource),
        (NET, NET, "gaussian", ArchitectureSource),
        (NET, NET, "kaiming", ModuleSource),  # other weights than it draws
        (CELL, CELL, None, ModuleSource),  # a graph has no such pass
        (FOREIGN, None, None, ModuleSource),
        (zs.build(NET), NET, None, ArchitectureSource),
        (zs.build(NET), NET, "keep", ModuleSource),
    ],
)
def test_the_source_of_zen(model, architecture, init, source):
    assert chosen(model, architecture, ["zen"], init=init) == {("zen",): source}


def test_one_forward_pass_serves_all_proxies_of_a_group():
    calls = []

    class Counted(nn.Sequential):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    names = ["naswot", "meco:channels=2", "snip", "grad_norm", "az_expressivity"]
    together = zs.score(Counted(*FOREIGN), names, input_size=(3, 8, 8), batch_size=4, repeats=2)
    assert all(score.ok for score in together.values())
    assert calls == [2, 4, 4]  # a first run on two images, and one pass a repeat
    zs.score(Counted(*FOREIGN), "naswot", input_size=(3, 8, 8), batch_size=4, repeats=1)
    assert calls[3:] == [2, 4]


def test_labels_and_further_batches_are_drawn_where_they_are_read():
    draws = Draws((3, 8, 8), 4, None, 0, None)
    like, asked = torch.zeros(0), []

    def classes():
        asked.append(True)
        return 3

    images = draws.batch([zs.get_proxy("naswot")], 0, like, classes)
    assert (images.targets, images.further, asked) == (None, (), [])
    both = draws.batch([zs.get_proxy("naswot"), zs.get_proxy("zico")], 0, like, classes)
    assert torch.equal(both.inputs, images.inputs)
    assert both.targets.shape == (4,)
    assert [each.targets.shape for each in both.further] == [(4,)]
    given = zs.Batch(images.inputs)
    assert draws._replace(arrays=given).batch([zs.get_proxy("zico")], 0, like, classes) is given
