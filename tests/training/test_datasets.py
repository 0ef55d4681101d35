"""Data on disk: CIFAR's official files, folders of images, torch data sets; what is wrong with them is said by name."""

import dataclasses
import io
import json
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import TensorDataset

from zeroshot_nas.errors import DataError, DataWarning, FileFormatError, MissingExtraError
from zeroshot_nas.training import images, plain_pickle
from zeroshot_nas.training.base import fit_to, from_datasets, load_data
from zeroshot_nas.training.images import SUFFIXES, read_image

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


def _add(folder, names, size=(8, 8)):
    """Images whose colours differ, so that they can be told apart."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        colour = tuple(RNG.integers(0, 256, 3).tolist())
        Image.new("RGB", size, colour).save(folder / name)


def _parts(data):
    return {part: set(names) for part, names in data.split.items()}


def test_a_split_that_is_kept_holds_and_new_images_are_drawn_beside_it(photos):
    drawn = load_data(f"folder:{photos}")
    assert len(drawn.test_labels) == 4
    assert not (photos / "split.json").exists()
    (photos / "split.json").write_text(json.dumps({part: names[::-1] for part, names in drawn.split.items()}))
    before, kept = _parts(drawn), (photos / "split.json").read_text()
    for name in ("cat", "dog"):
        _add(photos / name, [f"0{index}.png" for index in range(10, 20)])  # their names come first
    data = load_data(f"folder:{photos}")
    after = _parts(data)
    assert before["test"] <= after["test"]
    assert before["train"] <= after["train"]
    assert (len(data.train_labels), len(data.test_labels)) == (32, 8)
    (photos / sorted(before["test"])[0]).unlink()
    data = load_data(f"folder:{photos}")
    assert before["train"] <= _parts(data)["train"]
    assert (len(data.train_labels), len(data.test_labels)) == (31, 8)  # a new one takes its place
    again = load_data(f"folder:{photos}", split=drawn.split)  # a run's own split: its images and no others
    assert (len(again.train_labels), len(again.test_labels)) == (16, 3)
    assert (photos / "split.json").read_text() == kept


def test_an_image_that_is_added_moves_at_most_one_of_its_class_and_shares_are_kept(tmp_path):
    for name in ("cat", "dog"):
        _add(tmp_path / name, [f"{index}.png" for index in range(2)])
    before = load_data(f"folder:{tmp_path}")
    for index in range(2, 24):
        _add(tmp_path / "cat", [f"{index}.png"])
        after = load_data(f"folder:{tmp_path}")
        counts = after.test_labels.bincount().tolist()
        assert counts == [max(1, round((index + 1) / 5)), 1]
        assert len(_parts(before)["test"] - _parts(after)["test"]) <= 1
        assert len(_parts(after)["test"] - _parts(before)["test"]) <= 1
        before = after
    again = load_data(f"folder:{tmp_path}", split=before.split)
    assert torch.equal(again.train_images, before.train_images)
    assert torch.equal(again.test_images, before.test_images)


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("test", ["test", "Testing", "val", "VALID", "Validation"])
def test_parts_are_known_by_usual_names(tmp_path, train, test):
    for part, count in ((train, 3), (test, 2)):
        for name in ("a", "b"):
            _add(tmp_path / part / name, [f"{index}.png" for index in range(count)])
    data = load_data(f"folder:{tmp_path}")
    assert (data.class_names, len(data.train_labels), len(data.test_labels)) == (("a", "b"), 6, 4)
    assert data.held_out is None


def test_a_validation_part_beside_a_test_part_chooses_the_best_epoch(tmp_path):
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        for name in ("a", "b"):
            _add(tmp_path / part / name, [f"{index}.png" for index in range(count)])
    data = load_data(f"folder:{tmp_path}")
    assert (len(data.train_labels), len(data.test_labels)) == (10, 2)
    assert data.held_out.tolist() == [3, 4, 8, 9]
    alone = load_data(f"folder:{tmp_path / 'val'}")
    assert set(data.train_images[data.held_out][:, :, 0, 0].flatten().tolist()) == {
        value for images in (alone.train_images, alone.test_images) for value in images[:, :, 0, 0].flatten().tolist()
    }


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["train/a", "Training/a", "test/a"], "are both the train part"),
        (["fold1/a", "fold1/b", "fold2/a", "fold2/b"], r"seem to be the classes; give folder:.*fold1"),
        (["cat/train", "cat/test", "dog/train", "dog/test"], "seem to be the classes"),
        (["photos/a", "photos/b"], r"give folder:.*photos"),
        (["photos"], "has one class only, 'photos'"),
        (["train/a", "train/b", "test/a"], r"'b' is in one"),
        (["train", "test"], "has no folders; expected one for each class"),
    ],
)
def test_folders_that_seem_no_classes_are_refused(tmp_path, folders, message):
    for each in folders:
        _add(tmp_path / each, ["0.png", "1.png"])
    with pytest.raises(DataError, match=message):
        load_data(f"folder:{tmp_path}")


def test_hidden_files_and_those_of_systems_are_skipped_at_every_depth(photos):
    before = load_data(f"folder:{photos}")
    for odd in (".ipynb_checkpoints", "__MACOSX", "deep/.hidden", "@eaDir", "deep/__MACOSX/x"):
        _add(photos / "cat" / odd, ["0.png"])
        _add(photos / odd.rpartition("/")[2], ["0.png"]) if odd.startswith((".", "_")) else None
    for hidden in ("._0.png", ".DS_Store", "deep/._1.jpg"):
        (photos / "cat" / hidden).write_bytes(b"no image")
    (photos / "__MACOSX" / "cat").mkdir()
    (photos / "__MACOSX" / "cat" / "._0.png").write_bytes(b"no image")
    after = load_data(f"folder:{photos}")
    assert after.split == before.split
    assert after.class_names == before.class_names


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_suffix_is_read_in_small_and_capital_letters(photos, suffix):
    kinds = {
        ".jfif": "jpeg",
        ".jpe": "jpeg",
        ".jpg": "jpeg",
        ".tif": "tiff",
        ".pgm": "ppm",
        ".pbm": "ppm",
        ".pnm": "ppm",
    }
    for name in (f"new{suffix}", f"NEW2{suffix.upper()}"):
        Image.new("L", (8, 8)).save(photos / "cat" / name, format=kinds.get(suffix, suffix[1:]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_data(f"folder:{photos}").train_labels.bincount().tolist() == [10, 8]


def test_images_that_are_left_out_are_counted_in_a_warning(photos):
    for name in ("cat/a.heic", "dog/b.HEIC", "dog/c.avif"):
        (photos / name).write_bytes(b"")
    Image.new("L", (8, 8)).save(photos / "loose.png")
    with pytest.warns(DataWarning, match=r"left out of .*: 1 \.avif, 2 \.heic, 1 in .*itself\. Expected \.bmp") as said:
        load_data(f"folder:{photos}")
    assert len(said) == 1


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


_STEPS = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024


@pytest.mark.parametrize(
    ("pixels", "suffix"),
    [
        (_STEPS, "png"),
        (_STEPS, "tif"),
        (_STEPS, "pgm"),
        (_STEPS.astype(np.int32), "tif"),
        (_STEPS.astype(np.float32), "tif"),
        ((_STEPS / 65535).astype(np.float32), "tif"),
        ((_STEPS // 256 * 256 / 256).astype(np.float32), "tif"),
        (_STEPS.astype(">u2"), "tif"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_more_than_8_bits_are_scaled(tmp_path, pixels, suffix, channels):
    file = tmp_path / f"deep.{suffix}"
    Image.fromarray(pixels).save(file)
    expected = pixels if pixels.max() <= 255 and pixels.max() > 1 else _STEPS / 257
    image = read_image(file, (channels, 8, 8)).numpy()
    np.testing.assert_array_equal(image, np.broadcast_to(np.rint(expected), (channels, 8, 8)))


@pytest.mark.parametrize("value", [-1, 65536, float("nan"), float("inf")])
def test_numbers_that_are_no_brightness_are_refused_by_name(tmp_path, value):
    Image.fromarray(np.full((8, 8), value, np.float32)).save(tmp_path / "odd.tif")
    with pytest.raises(DataError, match=r"odd\.tif: its numbers \(mode F\) go from"):
        read_image(tmp_path / "odd.tif", (3, 8, 8))


def _with_exif(image, entries):
    """A JPEG with these EXIF entries of 4 bytes each, as a camera may have damaged them."""
    ifd = len(entries).to_bytes(2, "big") + b"".join(entries) + bytes(4)
    file = io.BytesIO()
    image.save(file, "jpeg", exif=b"Exif\0\0MM\0*\0\0\0\x08" + ifd)
    return file.getvalue()


_ORIENTATION = bytes.fromhex("0112 0003 00000001 0006 0000")


@pytest.mark.parametrize(
    "damage",
    [
        bytes.fromhex("011a 0007 00000001 00 000000"),  # XResolution that is no fraction
        bytes.fromhex("011a 0005 00000001 ffffff00"),  # one that lies behind the end
        bytes.fromhex("8769 0004 00000001 fffffff0"),  # a directory that lies there
        bytes.fromhex("0112 0002 00000004 41424344"),  # an orientation that is text
    ],
)
def test_an_image_with_damaged_exif_is_read(tmp_path, damage):
    image = Image.fromarray(RNG.integers(0, 256, (16, 8), dtype=np.uint8)).resize((8, 16))
    (tmp_path / "plain.jpg").write_bytes(_with_exif(image, []))
    (tmp_path / "damaged.jpg").write_bytes(_with_exif(image, [_ORIENTATION, damage]))
    (tmp_path / "turned.jpg").write_bytes(_with_exif(image, [_ORIENTATION]))
    plain, turned = read_image(tmp_path / "plain.jpg", (1, 16, 8)), read_image(tmp_path / "turned.jpg", (1, 8, 16))
    assert torch.equal(turned[0], plain[0].rot90(-1))
    found = [read_image(tmp_path / "damaged.jpg", (1, *sides)) for sides in ((16, 8), (8, 16))]
    assert torch.equal(found[0], plain) or torch.equal(found[1], turned)


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", b"\0\0\1\0\1\0", b"II*\0", b"P5\n"]
)
def test_only_plug_ins_of_ordinary_images_are_reached(tmp_path, monkeypatch, content):
    (tmp_path / "photo.png").write_bytes(content)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(DataError, match=r"photo\.png can't be read as an image"):
        read_image(tmp_path / "photo.png", (3, 8, 8))


@pytest.fixture(scope="module")
def encoded():
    image, contents = Image.fromarray(RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8)), []
    for kind in ("jpeg", "png", "webp", "bmp", "gif", "tiff", "ppm"):
        file = io.BytesIO()
        image.save(file, kind)
        contents.append(file.getvalue())
    return contents


@pytest.mark.slow
@given(which=st.integers(0, 6), changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_a_changed_image_is_read_or_refused_by_name(tmp_path, encoded, which, changes):
    content = bytearray(encoded[which])
    for place, byte in changes:
        content[int(place**3 * (len(content) - 1))] = byte  # headers most of all
    (tmp_path / "changed.png").write_bytes(content)
    try:
        shape = read_image(tmp_path / "changed.png", (3, 4, 4)).shape
    except DataError as error:
        if "changed.png" in str(error):
            return
        raise
    assert shape == (3, 4, 4)


def test_large_images_are_refused_and_large_jpegs_decoded_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 64)
    for kind in ("png", "jpg"):
        Image.new("RGB", (128, 96), (10, 200, 30)).save(tmp_path / f"large.{kind}")
        Image.new("RGB", (64, 64)).save(tmp_path / f"right.{kind}")
        assert read_image(tmp_path / f"right.{kind}", (3, 8, 8)).shape == (3, 8, 8)
    assert (read_image(tmp_path / "large.jpg", (3, 8, 8))[:, 4, 4] - torch.tensor([10, 200, 30])).abs().max() < 4
    with pytest.raises(DataError, match=r"large\.png: it has 128 x 96 pixels, and at most 4,096 are taken"):
        read_image(tmp_path / "large.png", (3, 8, 8))
    with pytest.raises(DataError, match="is a folder; expected an image file"):
        read_image(tmp_path, (3, 8, 8))


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
