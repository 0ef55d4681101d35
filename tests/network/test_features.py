"""timm's habits: feature maps of several resolutions, classifiers that are exchanged, what a network says of itself."""

import copy
import math
import pickle
import random
import re
from pathlib import Path

import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zeroshot_nas as zs
from tests.strategies import architectures
from zeroshot_nas.architecture.blockspec import BLOCKS
from zeroshot_nas.errors import ArchitectureError, DataError, ExportError
from zeroshot_nas.network.to_onnx import onnx_model
from zeroshot_nas.training.checkpoint import TrainedModule, TrainedNetwork

NET = zs.Architecture.from_string(
    "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,12,2,8,1)SuperResK3K3(12,16,1,8,1)SuperResIDWE2K3(16,24,2,8,1)",
    (3, 16, 16),
)
"""Maps of strides 1, 2 and 4."""


def trained(architecture=NET):
    channels, classes = architecture.input_size[0], architecture.num_classes
    network = TrainedNetwork(architecture, [0.4] * channels, [0.3] * channels, [f"class {i}" for i in range(classes)])
    network.load_state_dict(zs.build(architecture).state_dict())
    return network.eval()


class Pyramid(nn.Module):
    """A feature pyramid (arXiv:1612.03144) on any backbone of timm's interface: it asks nothing but that."""

    def __init__(self, backbone, width=8):
        super().__init__()
        self.backbone = backbone
        info = backbone.feature_info
        assert info.reduction() == sorted(info.reduction())
        assert [fact["num_chs"] for fact in info.get_dicts(["num_chs", "reduction"])] == info.channels()
        self.reductions = info.reduction()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in info.channels())
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in info.channels())

    def forward(self, images):
        laterals = [layer(each) for layer, each in zip(self.lateral, self.backbone(images), strict=True)]
        for index in range(len(laterals) - 1, 0, -1):
            size = laterals[index - 1].shape[-2:]
            laterals[index - 1] = laterals[index - 1] + nn.functional.interpolate(laterals[index], size=size)
        return [layer(each) for layer, each in zip(self.smooth, laterals, strict=True)]


def check_maps(architecture, sides):
    """The law: maps are as stated, each the one that its module gives, the last the network's own."""
    network = zs.build(architecture).eval()
    backbone = zs.features(network)
    info, images = backbone.feature_info, torch.rand(1, architecture.input_size[0], *sides)
    seen = {}
    for name in set(info.module_name()):
        network.get_submodule(name).register_forward_hook(lambda *given, name=name: seen.setdefault(name, given[2]))
    with torch.no_grad():
        last, maps = network.forward_features(images), backbone(images)
    assert len(maps) == len(info) == len(network.feature_info)
    for each, fact in zip(maps, network.feature_info, strict=True):
        expected = (fact["num_chs"], *(math.ceil(side / fact["reduction"]) for side in sides))
        assert tuple(each.shape[1:]) == expected
        if "node" not in fact:
            assert torch.equal(each, seen[fact["module"]])
    assert torch.equal(maps[-1], last)
    assert info.reduction() == sorted(set(info.reduction()))
    assert network.num_features == info.channels()[-1] == last.shape[1]
    return maps


@pytest.mark.parametrize("name", zs.list_spaces())
def test_every_space_gives_maps_under_a_pyramid(name):
    space, rng = zs.get_space(name, input_size=(3, 32, 32)), random.Random(0)
    for architecture in [space.initial(), *(space.sample(rng) for _ in range(2))]:
        maps = check_maps(architecture, (32, 64))
        pyramid = Pyramid(zs.features(architecture))
        levels = pyramid(torch.rand(2, 3, 32, 64))
        assert [each.shape[-2:] for each in levels] == [each.shape[-2:] for each in maps]
        sum(each.square().mean() for each in levels).backward()
        assert all(parameter.grad is not None for parameter in pyramid.lateral.parameters())


@pytest.mark.parametrize("name", list(BLOCKS))
def test_every_kind_of_block_gives_maps(name):
    make = BLOCKS[name]
    values = {"out_channels": 16, "bottleneck_channels": 8, "stride": 2}
    block = make(**{field: value for field, value in values.items() if field in make.free_fields})
    following = BLOCKS["SuperConvK3BNRELU"](out_channels=8, stride=2)
    check_maps(zs.Architecture((block, following), (3, 16, 16)), (16, 24))


@pytest.mark.slow
@settings(max_examples=20)
@given(architectures(max_blocks=4), st.integers(9, 40), st.integers(9, 40))
def test_maps_of_any_network_and_any_size_of_images_are_as_stated(architecture, height, width):
    check_maps(architecture, (height, width))


def test_a_network_that_is_one_graph_gives_its_last_cell_of_each_resolution():
    network = zs.build(zs.get_space("nasbench301", input_size=(3, 32, 32)).initial()).eval()
    assert [fact["reduction"] for fact in network.feature_info] == [1, 2, 4]
    graph = network.blocks[1][0]
    for fact in network.feature_info[:2]:
        assert fact["module"] == "blocks.1.0"
        assert graph.nodes[fact["node"] - 1][0] == "concatenation"


@pytest.mark.slow
@given(st.data())
def test_out_indices_choose_maps_in_their_order(data):
    network = zs.build(NET).eval()
    images = torch.rand(1, 3, 16, 16)
    every = zs.features(network)(images)
    chosen = data.draw(st.lists(st.integers(-3, 2), min_size=1, max_size=3, unique_by=lambda index: index % 3))
    backbone = zs.features(network, out_indices=chosen)
    for index, each, channels, reduction in zip(
        chosen, backbone(images), backbone.feature_info.channels(), backbone.feature_info.reduction(), strict=True
    ):
        assert torch.equal(each, every[index])
        assert (channels, reduction) == (every[index].shape[1], 16 // every[index].shape[2])
    count = data.draw(st.integers(1, 3))
    assert len(zs.features(network, out_indices=count)(images)) == count
    assert zs.features(network, out_indices=count).feature_info.out_indices == tuple(range(3 - count, 3))


@pytest.mark.parametrize("wanted", [(3,), (-4,), 0, 4, (), (0, 0), (0, -3), "01", (1.0,), (True,)])
def test_maps_that_there_are_not_are_refused(wanted):
    with pytest.raises(ArchitectureError, match=r"strides 1, 2, 4; expected out_indices from 0 to 2|different maps"):
        zs.features(NET, out_indices=wanted)


@pytest.mark.parametrize("model", [nn.Conv2d(3, 8, 3), "resnet18", None])
def test_what_is_no_network_of_ours_is_refused(model):
    with pytest.raises(ArchitectureError, match=r"takes an architecture or a network of this package, got"):
        zs.features(model)
    with pytest.raises(ArchitectureError, match="TrainedModule"):
        zs.features(TrainedModule(zs.build(NET), (3, 16, 16), [0.0] * 3, [1.0] * 3, "abcdefghij"))


def test_a_trained_network_normalises_its_images_here_too_and_blocks_without_use_are_cut():
    network = trained()
    images = torch.rand(2, 3, 16, 16)
    backbone = zs.features(network, out_indices=(1, 2))
    assert torch.equal(backbone(images)[1], network.forward_features(images))
    assert len(zs.features(network, out_indices=(1,)).blocks) == 3
    assert set(backbone.state_dict()) == {key for key in network.state_dict() if key.startswith("blocks.")}
    assert next(backbone.parameters()) is next(network.parameters())


@pytest.mark.slow
def test_maps_survive_copies_pickles_export_and_training():
    backbone, images = zs.features(trained(), out_indices=(0, 2)), torch.rand(2, 3, 16, 16)
    expected = backbone(images)
    program = torch.export.export(backbone, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    model = onnx_model(backbone, (3, 16, 16), dynamic_batch=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    computed = [
        copy.deepcopy(backbone)(images),
        pickle.loads(pickle.dumps(backbone))(images),
        program.module()(images),
        [torch.from_numpy(each) for each in session.run(None, {session.get_inputs()[0].name: images.numpy()})],
    ]
    for maps in computed:
        for each, same in zip(maps, expected, strict=True):
            torch.testing.assert_close(each, same, rtol=1e-4, atol=1e-5)
    backbone.train()
    sum(each.mean() for each in backbone(images)).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize("make", [zs.build, trained])
def test_a_classifier_is_exchanged_as_in_timm(make):
    network, images = make(NET).eval(), torch.rand(2, 3, 16, 16)
    keys, state, random_state = list(network.state_dict()), network.state_dict(), torch.get_rng_state()
    features = network.forward_features(images)
    pooled = features.mean((2, 3))
    assert network.get_submodule(network.get_classifier(name_only=True)) is network.get_classifier()
    assert (network.num_classes, network.num_features, network.head_hidden_size) == (10, 24, 24)
    assert torch.equal(network.forward_head(features), network(images))
    torch.testing.assert_close(network.forward_head(features, pre_logits=True), pooled)
    network.reset_classifier(0)
    assert isinstance(network.get_classifier(), nn.Identity)
    assert network.num_classes == 0
    torch.testing.assert_close(network(images), pooled)
    torch.testing.assert_close(network.forward_head(features, pre_logits=True), pooled)
    network.reset_classifier(0, "")
    assert torch.equal(network(images), features)
    assert torch.equal(network.forward_head(features, pre_logits=True), features)
    network.double().train().reset_classifier(7)
    assert (network.num_classes, network.architecture.num_classes, network.head.training) == (7, 7, True)
    assert network.float().eval()(images).shape == (2, 7)
    assert list(network.state_dict()) == keys
    assert all(torch.equal(network.state_dict()[key], state[key]) for key in keys if key.startswith("blocks"))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert pickle.loads(pickle.dumps(network)).num_classes == 7


def test_a_trained_networks_new_classes_have_names():
    network = trained()
    network.reset_classifier(2)
    assert network.class_names == ("0", "1")
    network.reset_classifier(3, class_names=["cat", "dog", "cow"])
    assert network.class_names == ("cat", "dog", "cow")
    assert zs.predict(network, torch.rand(2, 3, 16, 16)).shape == (2, 3)
    with pytest.raises(DataError, match="names of 2 classes, got 1"):
        network.reset_classifier(2, class_names=["cat"])
    assert network.class_names == ("cat", "dog", "cow")


@pytest.mark.parametrize("arguments", [(-1,), (2.0,), (True,), (10, ""), (0, "max")])
def test_classifiers_that_there_are_not_are_refused(arguments):
    with pytest.raises(ArchitectureError, match=r"num_classes must be|global_pool must be"):
        zs.build(NET).reset_classifier(*arguments)


def test_a_network_without_a_classifier_is_neither_trained_nor_exported(tmp_path):
    network = trained()
    network.reset_classifier(0)
    with pytest.raises(ArchitectureError, match="no classifier to train"):
        zs.train(network, "digits", progress=False)
    with pytest.raises(ExportError, match="no classifier"):
        zs.export_network(network, tmp_path)


def test_a_network_with_a_new_classifier_is_trained_exported_and_loaded(tmp_path):
    network = trained(zs.Architecture.from_string("SuperConvK3BNRELU(1,8,2,1)", (1, 8, 8), num_classes=3))
    network.reset_classifier(10)
    zs.train(network, "digits", zs.get_recipe("quick", epochs=1), out=tmp_path, progress=False)
    loaded = zs.load(tmp_path)
    assert loaded.num_classes == 10
    zs.export_network(loaded, tmp_path, formats=("torch",))


def test_the_page_says_what_its_code_gives():
    page = (Path(__file__).parents[2] / "docs" / "timm.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.+?)```", page, re.DOTALL)[1]
    scope = {}
    exec(code, scope)
    stated = re.findall(r"^(\S.*?)  # (\[.+\])$", code, re.MULTILINE)
    assert len(stated) == 3
    for expression, value in stated:
        assert repr(eval(expression, scope)) == value


def test_the_interface_is_timms():
    timm = pytest.importorskip("timm", exc_type=ImportError)
    theirs = timm.create_model("test_resnet", features_only=True, out_indices=(0, 2))
    ours = zs.features(NET, out_indices=(0, 2))
    for name in ("channels", "reduction", "module_name"):
        for index in (None, 1, (0, 1)):
            assert type(getattr(ours.feature_info, name)(index)) is type(getattr(theirs.feature_info, name)(index))
    again = timm.models._features.FeatureListNet(zs.build(NET).eval(), (0, 2), flatten_sequential=True)
    images = torch.rand(1, 3, 16, 16)
    assert all(torch.equal(*pair) for pair in zip(again(images), ours.eval()(images), strict=True))
    assert again.feature_info.channels() == ours.feature_info.channels()
