import bz2
import collections
import contextlib
import decimal
import io
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas.errors import FileFormatError
from zeroshot_nas.nasbench.formats import unpickling
from zeroshot_nas.nasbench.formats.unpickling import DROPPED, Unpickler, load_pickle, load_torch


def read(data, **options):
    return Unpickler(io.BytesIO(data), "file.pkl", **options).load()


class Slow(io.BytesIO):
    """Gives a few bytes at a time, as decompressors may."""

    def read(self, size=-1):
        return super().read(min(size, 3))


atoms = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.text() | st.integers() | st.tuples(st.text(), st.integers())
plain = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.sets(st.integers())
        | st.frozensets(st.text())
    ),
    max_leaves=30,
)


@given(plain, st.sampled_from([2, 3, 4, 5]))
def test_plain_data_come_back_as_pickle_gives_them(data, protocol):
    written = pickle.dumps(data, protocol=protocol)
    assert read(written) == data
    assert Unpickler(Slow(written), "slow").load() == data


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_ordered_and_default_dicts_become_dicts(protocol):
    data = {"o": collections.OrderedDict([("b", 1), ("a", 2)]), "d": collections.defaultdict(list, {"x": [1]})}
    found = read(pickle.dumps(data, protocol=protocol))
    assert found == {"o": {"b": 1, "a": 2}, "d": {"x": [1]}}
    assert list(found["o"]) == ["b", "a"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        np.float64(1.5),
        np.float32(0.1),
        np.int64(-7),
        np.bool_(True),
        np.array([1.5, 2.5]),
        np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int16),
        np.array([[1, 2, 3], [4, 5, 6]]).T,
        np.array([1.5, 2.5], dtype=">f4"),
        np.array([], dtype=np.float32),
        np.array(["ab", "c"]),
        np.array([{"a": 1}, {"b": [2.0]}], dtype=object),
    ],
    ids=repr,
)
def test_numpy_values_come_out_as_plain_python(value, protocol):
    assert read(pickle.dumps({"v": value, "again": value}, protocol=protocol)) == {
        "v": value.tolist(),
        "again": value.tolist(),
    }


def test_bytes_of_protocol_2_and_text_of_python_2_are_read():
    assert read(pickle.dumps(b"\x00\xff", protocol=2)) == b"\x00\xff"
    assert read(b"\x80\x02}U\x03keyU\x01vs.") == {"key": "v"}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (os.system, f"{os.system.__module__}.system"),
        (decimal.Decimal("1.5"), "decimal.Decimal"),
        (eval, "builtins.eval"),
        (np.datetime64("2020-01-01"), None),
        (io.BytesIO, "io.BytesIO"),
    ],
    ids=str,
)
def test_any_other_name_is_refused_and_told(value, named, protocol):
    with pytest.raises(FileFormatError, match=r"^file\.pkl: ") as caught:
        read(pickle.dumps({"innocent": 1.0, "other": value}, protocol=protocol))
    if named and protocol > 1:
        assert f"refused: the pickle asks for {named}" in str(caught.value).replace("_io.", "io.").replace(
            "__builtin__", "builtins"
        )


@pytest.mark.parametrize(
    "attack",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(\x8c\x04trueios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    ],
)
def test_nothing_is_run(attack, monkeypatch):
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("it ran"))
    with pytest.raises(FileFormatError, match=r"refused: the pickle asks for os\.system"):
        read(attack)


@pytest.mark.parametrize("name", ["getattr", "eval", "__import__", "exec", "open", "type"])
def test_builtins_that_run_things_are_refused(name):
    with pytest.raises(FileFormatError, match=f"asks for builtins.{name}"):
        read(f"cbuiltins\n{name}\n.".encode())


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.",  # claims an exabyte of bytes
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 30) + b"x.",
        b"\x80\x04B" + struct.pack("<I", 0xFFFFFFF0) + b"x.",
        b"\x80\x04\x8b" + struct.pack("<I", 1 << 20) + b"1" * 50 + b".",  # an int of a million bytes
        b"\x80\x04Nr" + struct.pack("<I", 0xFFFFFFFF) + b".",  # a memo of 4 billion entries
        b"\x80\x04" + b"\x85" * 3 + b".",
        b"\x80\x04}" + b")" + b"\x85" * 100_000 + b"Ns.",  # a key that only recursion could hash
        b"\x80\x04}](NNu.",
        b"\x80\x04cnumpy\ndtype\nX\x02\x00\x00\x00V8\x89\x88\x87R.",
    ],
)
def test_bombs_are_refused_before_they_cost_anything(bomb):
    tracemalloc.start()
    with pytest.raises(FileFormatError, match=r"^file\.pkl"):
        read(bomb)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("opcode", [b"]", b"(", b"\x94", b"\x8f", b"]\x94", b"N"], ids=repr)
def test_a_small_file_of_endless_objects_ends(opcode, monkeypatch, tmp_path):
    monkeypatch.setattr(unpickling, "CHUNK", 1 << 14)
    monkeypatch.setattr(unpickling, "MAX_LIVE_BYTES", 1 << 18)
    monkeypatch.setattr(unpickling, "MAX_CONTAINERS", 1 << 16)
    path = tmp_path / "bomb.pbz2"
    path.write_bytes(bz2.compress(b"\x80\x04N" + opcode * (4 << 20) + b"."))
    assert path.stat().st_size < 10_000
    with pytest.raises(FileFormatError, match="holds more"):
        load_pickle(path)


def test_numpy_shapes_are_not_taken_on_trust():
    for shape in ((1 << 30,), (2, 1 << 28), (1 << 20, 0), (1, 1, 2), (-2,), ("2",), (2.0,)):
        array = np.array([1.0, 2.0])
        data = pickle.dumps((np.empty(0), (1, shape, np.dtype("f8"), False, array.tobytes())), protocol=4)
        assert data[-3:] == b"\x86\x94."
        with pytest.raises(FileFormatError):
            read(data[:-3] + b"b.")  # BUILD in place of the tuple


@pytest.mark.parametrize(
    "copy",
    [
        b"cbuiltins\nlist\nh\x00\x85R",
        b"cbuiltins\nset\nh\x00\x85R",
        b"ccollections\nOrderedDict\nh\x01\x85R",
        b"cnumpy._core.numeric\n_frombuffer\n(h\x02h\x03M\x10\x27\x85h\x04tR",
    ],
)
def test_many_copies_of_something_large_are_refused(copy, monkeypatch):
    monkeypatch.setattr(unpickling, "MAX_CONTAINERS", 1 << 17)
    large = b"\x80\x04(" + b"N" * 10_000 + b"lq\x00(" + b"NN\x86" * 10_000 + b"lq\x01"
    large += b"B" + struct.pack("<I", 80_000) + bytes(80_000) + b"q\x02"
    large += b"cnumpy\ndtype\n\x8c\x02f8\x89\x88\x87Rq\x03\x8c\x01Cq\x04"
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match="holds more at once"):
            read(large + copy * 20_000 + b".")
        assert tracemalloc.get_traced_memory()[1] < 60 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_deep_nesting_is_no_recursion():
    depth = 200_000
    found = read(b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b".")
    for _ in range(depth - 1):
        (found,) = found
    assert found == []


def test_shared_references_stay_shared_and_cheap():
    data = ["lol"]
    for _ in range(60):  # 2 ** 60 leaves if anyone walked them
        data = [data, data]
    found = read(pickle.dumps(data))
    assert found[0] is found[1]


@given(st.integers(0, 1 << 20))
def test_a_truncated_pickle_is_told_with_its_position(cut):
    data = pickle.dumps({"a" * number: [number * 0.5, number, "x" * 300] for number in range(40)})
    cut %= len(data)
    with pytest.raises(FileFormatError, match=rf"^file\.pkl: .*cut short.* at byte {cut}$"):
        read(data[:cut])


def test_a_truncated_or_damaged_compressed_file_is_told(tmp_path):
    content = bz2.compress(pickle.dumps({"a": list(range(3000))}))
    for name, data in {"cut": content[:-20], "flipped": content[:60] + b"\xff" + content[61:]}.items():
        path = tmp_path / f"{name}.pbz2"
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match=rf"{name}\.pbz2: damaged or cut short.* at byte"):
            load_pickle(path)


@given(st.binary(max_size=60), st.booleans())
def test_random_bytes_raise_nothing_else(data, tensors):
    with contextlib.suppress(FileFormatError):
        read(b"\x80\x04" + data + b".", tensors=tensors)


@given(st.data())
def test_mutated_pickles_raise_nothing_else(data):
    content = {"a": np.array([1.0, 2.0]), ("k", 1): collections.OrderedDict(x=[b"1", {1, 2}]), "f": np.float32(2)}
    written = bytearray(pickle.dumps(content, protocol=data.draw(st.sampled_from([2, 4, 5]))))
    for _ in range(data.draw(st.integers(1, 4))):
        written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FileFormatError):
        read(bytes(written))


def test_what_is_summarised_takes_the_place_of_the_original_and_frees_it():
    curve = {epoch: epoch * 0.5 for epoch in range(50)}
    content = {
        "first": {"200": {"all": curve, "name": "a"}, "12": {"all": curve, "name": "b"}},
        "second": {"200": {"all": {1: 2.0}, "name": "c"}},
        "shared": curve,
    }
    seen = []

    def summarise(results):
        seen.append(dict(results["all"]))
        return results["name"]

    found = read(pickle.dumps(content), marker="all", summarise=summarise)
    assert found == {"first": {"200": "a", "12": "b"}, "second": {"200": "c"}, "shared": DROPPED}
    assert seen == [curve, curve, {1: 2.0}]  # both of the first architecture whole, though they share the curve


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_architectures():
    curves = lambda: {f"x-valid@{epoch}": epoch * 0.5 + 1e-9 for epoch in range(500)}  # noqa: E731

    def peak(count):
        data = pickle.dumps({index: {"200": {"all": curves()}} for index in range(count)})
        tracemalloc.start()
        try:
            read(data, marker="all", summarise=len)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(64) < peak(4) + 64 * 500 * 8 + (1 << 20)  # the numbering of texts alone, and a chunk


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_read_without_their_tensors(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    content = {"a": [1.5, {"b": (1, 2)}], "weights": collections.OrderedDict(w=torch.ones(3)), "n": None}
    path = tmp_path / "file.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert load_torch(path) == {"a": [1.5, {"b": (1, 2)}], "weights": {"w": DROPPED}, "n": None}


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_that_ask_for_code_are_refused(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    path = tmp_path / "file.pth"
    torch.save({"d": decimal.Decimal(1)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileFormatError, match=r"asks for decimal\.Decimal"):
        load_torch(path)


def test_damaged_torch_archives_are_told(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "file.pth"
    torch.save({"a": list(range(1000))}, path)
    whole = path.read_bytes()
    for cut in (30, 300, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileFormatError, match=r"file\.pth: "):
            load_torch(path)
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(FileFormatError, match="not torch's"):
        load_torch(tmp_path / "other.npz")
