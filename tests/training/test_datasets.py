"""Data on disk: CIFAR's official files, folders of images, torch data sets; what is wrong with them is said by name."""

import dataclasses
import json
import pickle
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import TensorDataset

from zeroshot_nas.errors import DataError, FileFormatError, MissingExtraError
from zeroshot_nas.training import plain_pickle
from zeroshot_nas.training.base import fit_to, from_datasets, load_data
from zeroshot_nas.training.images import read_image

RNG = np.random.default_rng(0)


def _pixels(count):
    return RNG.integers(0, 256, (count, 3072), dtype=np.uint8)


@pytest.fixture
def cifar10(tmp_path):
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    parts = {name: (_pixels(4), [0, 1, 2, n]) for n, name in enumerate(names)}
    for name, (pixels, labels) in parts.items():
        (tmp_path / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels}, protocol=2))
        rows = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1)
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / f"{name}.bin").write_bytes(rows.tobytes())
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    return tmp_path, parts


def test_cifar10_in_both_versions(cifar10):
    path, parts = cifar10
    data, binary = load_data(f"cifar10:{path}"), load_data(f"cifar10:{path / 'bin'}")
    assert (len(data.train_labels), len(data.test_labels), data.image_shape) == (20, 4, (3, 32, 32))
    first = parts["data_batch_1"][0][1].reshape(3, 32, 32)
    assert torch.equal(data.train_images[1], torch.from_numpy(first))
    assert data.test_labels.tolist() == [0, 1, 2, 5]
    assert data.class_names == binary.class_names
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(data, name), getattr(binary, name))


def test_cifar100_in_both_versions(tmp_path):
    for name in ("train", "test"):
        pixels, fine = _pixels(3), [7, 99, 0]
        content = {b"data": pixels, b"fine_labels": fine, b"coarse_labels": [1, 2, 3]}
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=2))
        rows = np.concatenate([np.array([[1, 7], [2, 99], [3, 0]], np.uint8), pixels], 1)
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / f"{name}.bin").write_bytes(rows.tobytes())
    names = [f"class {n}".encode() for n in range(100)]
    (tmp_path / "meta").write_bytes(pickle.dumps({b"fine_label_names": names}, protocol=2))
    (tmp_path / "bin" / "fine_label_names.txt").write_text("\n".join(f"class {n}" for n in range(100)))
    data, binary = load_data(f"cifar100:{tmp_path}"), load_data(f"cifar100:{tmp_path / 'bin'}")
    assert data.train_labels.tolist() == binary.train_labels.tolist() == [7, 99, 0]
    assert data.class_names == binary.class_names
    assert torch.equal(data.test_images, binary.test_images)


class _Evil:
    def __reduce__(self):
        return print, ("run",)


def _calls(function, *arguments, state=None):
    """A pickle that has numpy's own function called with anything, and its result's state set."""

    class Call:
        def __reduce__(self):
            return (function, arguments) if state is None else (function, arguments, state)

    return pickle.dumps({b"data": Call(), b"labels": [0]}, protocol=2)


_RECONSTRUCT = np.zeros(1).__reduce__()[0]
_EMPTY = (np.ndarray, (0,), b"b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense", "data_batch_3 is damaged"),
        (pickle.dumps({b"data": 1}), "data_batch_3 is no CIFAR file"),
        (pickle.dumps({b"data": _pixels(2), b"labels": [0]}, 2), "data_batch_3 is no CIFAR file"),
        (pickle.dumps([1]), "expected a dictionary, got list"),
        (pickle.dumps(_Evil()), "asks for 'builtins.print'"),
        (_calls(np.ndarray, (1 << 40,), np.dtype("u1")), "data_batch_3 is damaged"),
        (_calls(np.dtype, "O8", False, True), "other numbers than bytes"),
        (_calls(_RECONSTRUCT, *_EMPTY, state=(1, (1 << 40,), np.dtype("u1"), False, b"short")), "does not fit"),
        (_calls(_RECONSTRUCT, *_EMPTY, state=(1, (1,), np.dtype("O"), False, [1 << 40])), "other numbers than bytes"),
        (_calls(_RECONSTRUCT, *_EMPTY, state=(1, (-1,), np.dtype("u1"), False, b"x")), "does not fit"),
        (_calls(_RECONSTRUCT, *_EMPTY, state=(1, (2, 1), np.dtype("u1"), False, b"xy")), "is no CIFAR file"),
        (pickle.dumps({b"data": _pixels(1), b"labels": [b"cat"]}, 2), "data_batch_3 is no CIFAR file"),
        (pickle.dumps({b"data": _pixels(1), b"labels": [1 << 70]}, 2), "data_batch_3 is no CIFAR file"),
        (pickle.dumps({(1, 2): 1}, 2), "its parts do not fit together"),
        (b"\x80\x02}\x93.", "its parts do not fit together"),
        (b"\x80\x02j\xff\xff\xff\x7f.", "its parts do not fit together"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "expected a dictionary, got NoneType"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x00.", "data_batch_3 is damaged"),
        (b"(lp0\n(lp1\nd.", "its parts do not fit together"),
    ],
)
def test_a_damaged_pickle_is_named_and_nothing_in_it_is_run(cifar10, capsys, content, message):
    path, _ = cifar10
    (path / "data_batch_3").write_bytes(content)
    with pytest.raises(FileFormatError, match=message):
        load_data(f"cifar10:{path}")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_protocol_are_read(cifar10, protocol):
    path, parts = cifar10
    before = load_data(f"cifar10:{path}")
    pixels, labels = parts["test_batch"]
    column_major = np.asfortranarray(pixels)
    for array in (pixels, column_major):
        (path / "test_batch").write_bytes(pickle.dumps({b"data": array, b"labels": labels}, protocol=protocol))
        assert torch.equal(load_data(f"cifar10:{path}").test_images, before.test_images)


@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_changed_byte_of_a_pickle_is_refused_or_harmless(place, byte):
    content = bytearray(pickle.dumps({b"data": np.zeros((2, 4), np.uint8), b"labels": [1, 2]}, protocol=2))
    content[int(place * len(content))] = byte
    try:
        plain_pickle.load(bytes(content))
    except ValueError:
        return


def test_missing_and_short_files_are_named(cifar10):
    path, _ = cifar10
    (path / "bin" / "data_batch_2.bin").write_bytes(b"short")
    with pytest.raises(FileFormatError, match=r"data_batch_2.bin is damaged: expected records of 3073"):
        load_data(f"cifar10:{path / 'bin'}")
    (path / "test_batch").unlink()
    with pytest.raises(DataError, match="test_batch is missing"):
        load_data(f"cifar10:{path}")


def test_paths_are_asked_for_and_refused():
    with pytest.raises(DataError, match="cifar10:PATH"):
        load_data("cifar10")
    with pytest.raises(DataError, match="digits takes no path"):
        load_data("digits:here")


@pytest.fixture
def photos(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for index in range(10):
            suffix = ("jpg", "png", "webp")[index % 3]
            size = (20 + index, 30)
            Image.new("RGB", size, (200 * label, 10, 200 - 200 * label)).save(tmp_path / name / f"{index}.{suffix}")
    return tmp_path


def test_a_folder_of_images_in_the_networks_size(photos):
    data = load_data(f"folder:{photos}", (3, 12, 16))
    assert (data.image_shape, data.class_names) == ((3, 12, 16), ("cat", "dog"))
    assert data.train_labels.bincount().tolist() == [8, 8]
    assert data.test_labels.bincount().tolist() == [2, 2]
    assert data.train_images.dtype == torch.uint8
    assert (data.train_images[data.train_labels == 1, 0].float() - 200).abs().max() < 10  # dogs are red
    assert load_data(f"folder:{photos}", (1, 8, 8)).image_shape == (1, 8, 8)
    assert fit_to(data, (3, 6, 6)).image_shape == (3, 6, 6)


def test_the_split_is_made_once_and_kept(photos):
    load_data(f"folder:{photos}")
    before = json.loads((photos / "split.json").read_text())
    assert len(before["test"]) == 4
    for name in ("cat", "dog"):
        for index in range(10, 20):
            Image.new("RGB", (8, 8)).save(photos / name / f"0{index}.png")  # their names come first
    data = load_data(f"folder:{photos}")
    after = json.loads((photos / "split.json").read_text())
    assert set(before["test"]) <= set(after["test"])
    assert set(before["train"]) <= set(after["train"])
    assert (len(data.train_labels), len(data.test_labels)) == (32, 8)
    (photos / after["test"][0]).unlink()
    assert len(load_data(f"folder:{photos}").test_labels) == 7


def test_a_split_of_ones_own(photos):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (photos / "own" / part / name).mkdir(parents=True)
            Image.new("L", (9, 9), 50).save(photos / "own" / part / name / "a.png")
    data = load_data(f"folder:{photos / 'own'}")
    assert (len(data.train_labels), len(data.test_labels)) == (2, 2)
    assert not (photos / "own" / "split.json").exists()
    (photos / "own" / "test" / "bird").mkdir()
    Image.new("L", (9, 9)).save(photos / "own" / "test" / "bird" / "a.png")
    with pytest.raises(DataError, match="must have the same classes; 'bird'"):
        load_data(f"folder:{photos / 'own'}")


def test_what_is_wrong_with_a_folder_is_said_by_name(photos):
    (photos / "empty").mkdir()
    with pytest.raises(DataError, match=r"class folder .*empty has no image"):
        load_data(f"folder:{photos}")
    (photos / "empty").rmdir()
    (photos / "dog" / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"dog/3\.png can't be read as an image"):
        load_data(f"folder:{photos}")
    content = (photos / "cat" / "0.jpg").read_bytes()
    (photos / "dog" / "3.png").write_bytes(content[: len(content) // 2])  # cut short
    with pytest.raises(DataError, match=r"dog/3\.png"):
        load_data(f"folder:{photos}")
    (photos / "split.json").write_text("[]")
    with pytest.raises(FileFormatError, match=r"split\.json is damaged"):
        load_data(f"folder:{photos}")
    with pytest.raises(DataError, match="is no folder"):
        load_data(f"folder:{photos / 'nowhere'}")
    with pytest.raises(DataError, match="has no folders"):
        load_data(f"folder:{photos / 'cat'}")


def test_a_class_too_small_to_split_is_named(tmp_path):
    for name, count in (("cat", 9), ("dog", 1)):
        (tmp_path / name).mkdir()
        for index in range(count):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{index}.png")
    with pytest.raises(DataError, match=r"dog has too few images"):
        load_data(f"folder:{tmp_path}")


def test_images_need_pillow_and_usual_channels(photos, monkeypatch):
    with pytest.raises(DataError, match="1 or 3 channels, the network takes 2"):
        read_image(photos / "cat" / "0.jpg", (2, 8, 8))
    with pytest.raises(FileNotFoundError):
        read_image(photos / "cat" / "none.jpg", (3, 8, 8))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"Pillow.*\[data\]"):
        read_image(photos / "cat" / "0.jpg", (3, 8, 8))


def test_torch_datasets():
    pairs = TensorDataset(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
    data = from_datasets(pairs, pairs, ("a", "b"), "pairs")
    assert torch.equal(data.train_images, pairs.tensors[0])
    pillow = [(Image.new("RGB", (4, 6), (255, 0, 0)), 0), (Image.new("RGB", (4, 6)), 1)]
    data = from_datasets(pillow, pillow, ("red", "black"))
    assert (data.image_shape, data.train_images[0, 0].min().item()) == ((3, 6, 4), 255)
    for bad, message in (
        ([], "the data set is empty"),
        ([(torch.rand(3, 8, 8), "cat")], "item 0 of the data set is no pair"),
        ([(torch.rand(3, 8, 8), 0), (torch.rand(3, 9, 8), 1)], r"image 1 of the data set is float32 \(3, 9, 8\)"),
        ([(torch.rand(3, 8, 8), 5)], "must be from 0 to 1"),
    ):
        with pytest.raises(DataError, match=message):
            from_datasets(bad, pairs, ("a", "b"))
    assert dataclasses.is_dataclass(data)
