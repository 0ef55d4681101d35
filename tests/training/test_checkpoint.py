"""Trained networks on disk: what is written comes back, and what is not ours is refused."""

import io
import json
import pathlib
import re
import resource
import subprocess
import sys
import zipfile
from contextlib import contextmanager

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.files import write_atomically
from zeroshot_nas.costs.cost import cost
from zeroshot_nas.errors import DataError, FileFormatError, OutputExistsError, StoreError
from zeroshot_nas.network.module import build
from zeroshot_nas.training.checkpoint import (
    BEST,
    RunFolder,
    TrainedNetwork,
    classify,
    load,
    pack,
    predict,
    unpack,
)
from zeroshot_nas.training.images import image_files, read_image
from zeroshot_nas.training.weights import read_weights, weights_bytes

ARCHITECTURE = Architecture.from_string("SuperConvK3BNRELU(2,8,1,1)SuperResK3K3(8,8,2,8,1)", (2, 6, 6), num_classes=3)
IMAGES = torch.rand(5, 2, 6, 6, generator=torch.Generator().manual_seed(0))
OLD = pathlib.Path(__file__).parents[1] / "data" / "release_0_1_best.pt"
NAMES = (BEST, "best.pt")
"""A file of weights of this release and of earlier ones."""


def _network(seed=0):
    network = TrainedNetwork(ARCHITECTURE, [0.3, 0.5], [0.1, 2.0], ["a", "b", "c"])
    network.load_state_dict(build(ARCHITECTURE, seed=seed).state_dict())
    network(IMAGES)  # moves the running statistics
    return network.eval()


def _written(folder, name, checkpoint=None):
    """A file of weights as this release writes it, or an earlier one."""
    checkpoint = dict(pack(_network(), 1, None) if checkpoint is None else checkpoint)
    if name.endswith(".pt"):
        torch.save(checkpoint, folder / name)
    else:
        (folder / name).write_bytes(weights_bytes(checkpoint.pop("state_dict"), checkpoint))
    return folder / name


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(tmp_path / "deep" / "run", force=False)
    run.save_weights(BEST, pack(_network(), 3, 0.5))
    return run.path


def test_saved_network_gives_identical_logits(folder):
    network = _network()
    for path in (folder, folder / BEST, str(folder)):
        loaded = load(path)
        assert torch.equal(loaded(IMAGES), network(IMAGES))
        assert (loaded.architecture, loaded.class_names, loaded.training) == (ARCHITECTURE, ("a", "b", "c"), False)
    assert Architecture.from_json((folder / "architecture.json").read_text()) == ARCHITECTURE


def test_packing_takes_a_copy():
    network = _network()
    before = network(IMAGES)
    packed = pack(network, 1, None)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.equal(unpack(packed)(IMAGES), before)


def test_checkpoint_is_plain_data_for_a_plain_network(folder):
    with safetensors.safe_open(folder / BEST, "pt") as file:  # anyone's reader, without this package
        about = json.loads(file.metadata()["zeroshot_nas"])
        assert file.metadata()["format"] == "pt"
    assert (about["epoch"], about["validation_accuracy"]) == (3, 0.5)
    mean, std = (torch.tensor(about["normalization"][name]).view(-1, 1, 1) for name in ("mean", "std"))
    plain = build(ARCHITECTURE, init="keep").eval()
    plain.load_state_dict(safetensors.torch.load_file(folder / BEST))
    assert torch.equal(plain((IMAGES - mean) / std), load(folder)(IMAGES))


def test_normalisation_costs_no_parameters_and_no_flops():
    measured, closed = cost(_network(), input_size=(2, 6, 6)), cost(ARCHITECTURE)
    assert (measured.params, measured.flops) == (closed.params, closed.flops)


def test_probabilities_are_those_of_the_logits_whatever_the_batch_size():
    network = _network()
    expected = network(IMAGES).softmax(1)
    network.train()
    for batch_size in (1, 2, 5, 512):
        torch.testing.assert_close(predict(network, IMAGES, batch_size=batch_size), expected)
    assert network.training  # as it was


def test_images_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"\(N, 2, 6, 6\), got \(5, 2, 6, 5\)"):
        predict(_network(), IMAGES[..., :5])


def test_normalisation_must_fit_the_architecture():
    with pytest.raises(DataError, match="2 channels and 3 class names, got 1, 2 and 3"):
        TrainedNetwork(ARCHITECTURE, [0.3], [0.1, 0.2], ["a", "b", "c"])


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "none.pt"):
        with pytest.raises(FileNotFoundError, match=r"(best\.safe.*|none\.pt) is not there; expected a run's folder"):
            load(path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"hello", b"PK\x03\x04 not a zip", b"\x80\x02}q\x00.", b"cos\nsystem\n."),
        *(bytes(8) + b"{}", b"\x02" + bytes(7) + b"{}", b"\xff" * 8 + b"{}", b"\x08" + bytes(7) + b'{"a": 1}'),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=rf"{re.escape(name)} is not a checkpoint"):
        load(tmp_path)


def test_a_safetensors_file_of_another_origin_is_refused(tmp_path):
    safetensors.torch.save_file(_network().state_dict(), tmp_path / BEST)
    with pytest.raises(FileFormatError, match="is not a checkpoint of this package"):
        load(tmp_path)


def test_weights_of_a_kind_that_the_format_lacks_are_refused():
    with pytest.raises(DataError, match=r"weights of torch\.complex128 can't be kept"):
        weights_bytes({"a": torch.zeros(1, dtype=torch.complex128)})


@given(st.data())
def test_weights_of_any_kind_and_shape_come_back(data):
    kinds = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
    shapes = st.lists(st.integers(0, 3), max_size=3)
    drawn = data.draw(st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(kinds, shapes), max_size=4))
    drawn.pop("__metadata__", None)
    tensors = {name: torch.rand(shape).mul(9).to(kind) for name, (kind, shape) in drawn.items()}
    about = data.draw(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=3))
    content = weights_bytes(tensors, about)
    again, said = read_weights(content)
    assert said == about
    assert set(again) == set(tensors)
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor)
    assert set(safetensors.torch.load(content)) == set(tensors)


def test_a_file_of_an_earlier_release_is_loaded():
    """What release 0.1 wrote, and what its network said of grey images."""
    network = load(OLD)
    logits = [[0.8177533745765686, 0.10877388715744019, 1.763433575630188]]
    torch.testing.assert_close(network(torch.full((1, 2, 6, 6), 0.5)), torch.tensor(logits), rtol=1e-5, atol=1e-6)
    assert network.class_names == ("a", "b", "c")


def test_weights_of_this_release_take_the_place_of_an_earlier_ones(tmp_path):
    (tmp_path / "best.pt").write_bytes(OLD.read_bytes())
    assert torch.equal(load(tmp_path)(IMAGES), load(OLD)(IMAGES))
    with pytest.raises(OutputExistsError, match=r"already holds a run \(best\.pt\)"):
        RunFolder(tmp_path, force=False)
    RunFolder(tmp_path, force=False, resume=True).save_weights(BEST, pack(_network(), 3, 0.5))
    assert not (tmp_path / "best.pt").exists()
    assert torch.equal(load(tmp_path)(IMAGES), _network()(IMAGES))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cut_short_anywhere_is_refused(tmp_path, name):
    file = _written(tmp_path, name)
    content = file.read_bytes()
    for length in range(0, len(content) - 1, len(content) // 20):
        file.write_bytes(content[:length])
        with pytest.raises(FileFormatError):
            load(file)


@pytest.fixture(scope="module", params=NAMES)
def scratch(tmp_path_factory, request):
    file = _written(tmp_path_factory.mktemp("changed"), request.param)
    return file, file.read_bytes()


@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_harmless(scratch, place, byte):
    file, content = scratch[0], bytearray(scratch[1])
    content[int(place * len(content))] = byte
    file.write_bytes(content)
    try:
        network = load(file)
    except FileFormatError:
        return
    assert torch.equal(network(IMAGES), _network()(IMAGES))  # not a weight is another
    assert network.class_names == ("a", "b", "c")


@given(place=st.integers(0, 3_000), byte=st.integers(0, 255))
def test_a_changed_byte_of_a_header_is_refused_or_harmless(header, place, byte):
    file, content = header[0], bytearray(header[1])
    content[place] = byte
    file.write_bytes(content)
    try:
        network = load(file)
    except FileFormatError:
        return
    assert torch.equal(network(IMAGES), _network()(IMAGES))
    assert network.class_names == ("a", "b", "c")


@pytest.fixture(scope="module")
def header(tmp_path_factory):
    file = _written(tmp_path_factory.mktemp("header"), BEST)
    return file, file.read_bytes()


def test_every_flipped_bit_of_a_weight_is_seen(scratch):
    file, content = scratch
    weights = _network().blocks[0][0].weight.detach().numpy().tobytes()
    start = content.index(weights)
    for bit in range(8):
        changed = bytearray(content)
        changed[start + 17 * bit] ^= 1 << bit
        file.write_bytes(changed)
        with pytest.raises(FileFormatError, match=r"best\.(pt|safetensors) is (damaged|not a checkpoint)"):
            load(file)


def test_a_compressed_archive_is_refused_before_it_is_inflated(tmp_path):
    content = _written(tmp_path, "best.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(tmp_path / "best.pt", "w", 8) as small:
        for entry in whole.infolist():
            small.writestr(entry.filename, whole.read(entry))
    with pytest.raises(FileFormatError, match=r"best\.pt is damaged"):
        load(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = _network()
    with torch.no_grad():
        network.head[1].weight[0, 0] = float("nan")
    for name in NAMES:
        with pytest.raises(FileFormatError, match="weights that are not finite"):
            load(_written(tmp_path, name, pack(network, 1, None)))


@contextmanager
def _largest_file(size):
    """Files can't grow beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_what_was_there_and_is_said_in_one_line(folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with RunFolder(folder, force=False, resume=True) as run, _largest_file(1000):
        for write in (lambda: run.save_weights(BEST, pack(_network(1), 4, 0.6)), lambda: run.save_log("x" * 2000)):
            with pytest.raises(
                StoreError, match=r"run can't be written to \(file too large\); what the run had is as it was"
            ):
                write()
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.slow
def test_the_same_weights_give_the_same_file_whatever_the_process(folder, tmp_path):
    code = f"""
import torch
from tests.training.test_checkpoint import BEST, _network, pack, RunFolder
RunFolder({str(tmp_path / "other")!r}, force=False).save_weights(BEST, pack(_network(), 3, 0.5))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "other" / BEST).read_bytes() == (folder / BEST).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "pickle"}, "not a checkpoint of this package"),
        ({"version": 99}, "version 99; this release reads version 1"),
        ({"architecture": "{}"}, "do not fit together: not an architecture"),
        ({"state_dict": {}}, r"do not fit together: the weights lack blocks\.0\.0\.weight \(8, 2, 3, 3\)"),
        (
            {"state_dict": build(ARCHITECTURE).state_dict() | {"head.1.bias": torch.zeros(2)}},
            r"do not fit together: the weights have head\.1\.bias of shape \(2,\), expected \(3,\)",
        ),
        ({"state_dict": build(ARCHITECTURE).state_dict() | {"extra": torch.zeros(1)}}, "have 'extra', which"),
        ({"normalization": {"mean": [0.0]}}, "do not fit together"),
        ({"normalization": {"mean": [0.0], "std": [1.0]}}, "2 channels"),
        ({"normalization": None}, "do not fit together"),
        ({"class_names": ["a"]}, "3 class names"),
        ({"class_names": None}, "do not fit together"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path, changes, message):
    for name in NAMES:
        with pytest.raises(FileFormatError, match=message):
            load(_written(tmp_path, name, {**pack(_network(), 1, None), **changes}))


def test_weights_that_are_no_dict_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match="do not fit together"):
        load(_written(tmp_path, "best.pt", {**pack(_network(), 1, None), "state_dict": [1]}))


def test_what_has_no_weights_says_what_to_do(tmp_path):
    (tmp_path / "best.json").write_text(ARCHITECTURE.to_json())
    with pytest.raises(FileNotFoundError, match=r"holds a search's winner, which is trained first: zeroshot-nas train"):
        load(tmp_path)
    with pytest.raises(FileFormatError, match=r"best\.json holds no weights; an architecture is trained first"):
        load(tmp_path / "best.json")


def test_no_code_in_a_file_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save({**pack(_network(), 1, None), "extra": Trap()}, tmp_path / "best.pt")
    with pytest.raises(FileFormatError):
        load(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["best.safetensors", "best.pt", "last.pt", "train.json"])
def test_a_folder_with_a_run_is_refused_unless_forced(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(OutputExistsError, match=rf"already holds a run \({name}\).*force=True"):
        RunFolder(tmp_path, force=False)
    assert RunFolder(tmp_path, force=True).path == tmp_path


def test_a_folder_with_other_files_will_do_but_a_file_will_not(tmp_path):
    (tmp_path / "notes.txt").touch()
    RunFolder(tmp_path, force=False)
    with pytest.raises(OutputExistsError, match="expected a folder to write to, got the file"):
        RunFolder(tmp_path / "notes.txt", force=True)


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path):
    file = tmp_path / "value.json"
    write_atomically(file, lambda draft: draft.write_text("old"))

    def fail(draft):
        draft.write_text("half of the n")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, fail)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_result_is_valid_json_or_not_written(tmp_path):
    run = RunFolder(tmp_path, force=False)
    run.save_result({"test_accuracy": 0.5})
    with pytest.raises(ValueError, match="JSON"):
        run.save_result({"test_accuracy": float("nan")})
    assert json.loads((tmp_path / "train.json").read_text()) == {"test_accuracy": 0.5}


def test_files_and_folders_of_images_are_classified_best_class_first(tmp_path):
    grey = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 6, 6), num_classes=3)
    network = TrainedNetwork(grey, [0.3], [0.1], ["a", "b", "c"])
    network.load_state_dict(build(grey, seed=1).state_dict())
    for name in ("x/1.png", "x/deep/2.jpg", "x/.hidden/3.png", "y.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 12), 40 * len(name)).save(tmp_path / name)
    (tmp_path / "x" / "notes.txt").touch()
    files = image_files([tmp_path / "x", tmp_path / "y.png"])
    assert files == [tmp_path / name for name in ("x/1.png", "x/deep/2.jpg", "y.png")]
    said = dict(classify(network, files))
    assert list(said) == files
    for file, classes in said.items():
        assert list(classes.values()) == sorted(classes.values(), reverse=True)
        expected = predict(network, read_image(file, (1, 6, 6))[None])[0]
        assert [classes[name] for name in "abc"] == expected.tolist()
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none has no image"):
        image_files([tmp_path / "none"])
    with pytest.raises(FileNotFoundError, match=r"^[^\[]*gone\.png is not there; expected an image file$"):
        list(classify(network, [tmp_path / "gone.png"]))
    with torch.no_grad():
        network.head[1].weight.fill_(1e38)
    with pytest.raises(DataError, match=r"outputs for .*1\.png are not finite"):
        list(classify(network.eval(), files))
