"""NAS-Bench-101: cells of up to seven operations, from the TFRecord files that it was published in."""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.errors import DataError, FileFormatError, UnknownNameError
from zeroshot_nas.nasbench.base import Split, register_table_format
from zeroshot_nas.nasbench.formats.reading import DAMAGE, open_stream
from zeroshot_nas.nasbench.table import BenchmarkTable, TableBuilder

EPOCHS = (4, 12, 36, 108)
"""Training lengths of the full file; the small file has the last."""

OPERATIONS = ("input", "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3", "output")

MAX_RECORD = 1 << 16
"""Bytes of the longest record taken; the real ones have about 400."""

_BATCH_BYTES = 1 << 20
_BATCH_RECORDS = 2048
_HASH = re.compile(r"[0-9a-f]{32}", re.ASCII)


def _remainders() -> list[int]:
    """The remainders of all bytes modulo Castagnoli's polynomial, bits reversed."""
    table = list(range(256))
    for _ in range(8):
        table = [(value >> 1) ^ (0x82F63B78 if value & 1 else 0) for value in table]
    return table


_TABLE = _remainders()
_TABLE_ARRAY = np.array(_TABLE, np.uint32)


def masked_crc32c(data: bytes) -> int:
    """The checksum that TFRecord stores: CRC-32C, rotated by 15 bits and shifted by a constant.

    Example:
        >>> hex(masked_crc32c(b"123456789"))  # its CRC-32C is 0xe3069283
        '0xc78ab0e5'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 255] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _masked_crcs(records: list[bytes]) -> NDArray[np.uint32]:
    """The checksums of many records at once, none shorter than four bytes.

    Zeros before a message leave a remainder of zero as it is, so the records stand flush right in one array; starting
    from a remainder of ones is the same as flipping a message's first four bytes.
    """
    longest = max(map(len, records))
    grid = np.zeros((len(records), longest), np.uint8)
    for row, record in zip(grid, records, strict=True):
        row[longest - len(record) :] = np.frombuffer(record, np.uint8)
        row[longest - len(record) : longest - len(record) + 4] ^= 0xFF
    crcs = np.zeros(len(records), np.uint32)
    for column in np.ascontiguousarray(grid.T):
        crcs = _TABLE_ARRAY[(crcs ^ column) & 255] ^ (crcs >> np.uint32(8))
    crcs = ~crcs
    return ((crcs >> np.uint32(15)) | (crcs << np.uint32(17))) + np.uint32(0xA282EAD8)


def _is_nasbench101(_: Path, head: bytes) -> bool:
    return len(head) >= 12 and head[8:12] == struct.pack("<I", masked_crc32c(head[:8]))


class _Architecture:
    """The repeats of one architecture, gathered."""

    __slots__ = ("accuracies", "arch", "params", "seconds")

    def __init__(self, arch: str, params: float) -> None:
        self.arch, self.params = arch, params
        self.accuracies, self.seconds = array("d"), 0.0


@register_table_format(
    "nasbench101",
    recognises=_is_nasbench101,
    source="arXiv:1902.09635; google-research/nasbench, nasbench/api.py and lib/model_metrics.proto",
)
def read_nasbench101(path: Path, /, *, dataset: str | None, split: Split = "test", epochs: int = 108) -> BenchmarkTable:
    """Reads ``nasbench_only108.tfrecord`` and ``nasbench_full.tfrecord``.

    The accuracy is the mean over the repeats (three in the published files) at the end of training. An architecture is
    the JSON text of its adjacency matrix and operations, ``{"matrix":[[0,1],[0,0]],"ops":["input","output"]}``. The
    columns are ``params`` and ``train_seconds``, the mean over the repeats. Both checksums of every record are
    verified.

    Args:
        path: The file; it may be compressed by gzip or bz2.
        dataset: ``"cifar10"``, the only one.
        split: ``"test"`` unless given, or ``"valid"``.
        epochs: Length of the training: 4, 12, 36 or 108; the small file has 108 only.
    """
    if dataset not in (None, "cifar10"):
        raise UnknownNameError("data set", str(dataset), ["cifar10"])
    if epochs not in EPOCHS:
        raise DataError(f"NAS-Bench-101 trained for {', '.join(map(str, EPOCHS))} epochs, got epochs={epochs!r}")
    found: dict[bytes, _Architecture] = {}
    others = set()
    with open_stream(path) as stream:
        for place, record in _records(stream, path):
            where = f"{path}: the record at byte {place}"
            entry = _entry(record, where)
            if entry.epochs != epochs:
                others.add(entry.epochs)
                continue
            metrics = _metrics(entry.metrics, where)
            known = found.get(entry.hash)
            if known is None:
                arch = _architecture(entry.adjacency, entry.operations, where)
                known = found[entry.hash] = _Architecture(arch, metrics.params)
            known.accuracies.append(100 * (metrics.valid if split == "valid" else metrics.test))
            known.seconds += metrics.seconds
    if not found and others:
        raise DataError(f"{path} has results after {', '.join(map(str, sorted(others)))} epochs, got epochs={epochs}")
    what = f"{'validation' if split == 'valid' else 'test'} accuracy after {epochs} epochs"
    builder = TableBuilder(path, what)
    for key in list(found):
        known = found.pop(key)  # held once from here on
        runs = known.accuracies.tolist()
        figures = {"params": known.params, "train_seconds": known.seconds / len(runs)}
        builder.add(known.arch, sum(runs) / len(runs), runs, figures)
    return builder.table(
        name="NAS-Bench-101", space="nasbench101", dataset="cifar10", code="arch", source=f"{what}, mean over repeats"
    )


class _Entry(NamedTuple):
    hash: bytes
    epochs: int
    adjacency: str
    operations: str
    metrics: str


class _Metrics(NamedTuple):
    params: float
    seconds: float
    valid: float
    test: float


def _records(stream: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """The records and the bytes where they start, checksums verified."""
    place, batch, size = 0, list[tuple[int, bytes, int]](), 0
    while header := _read(stream, 12, path, place, may_end=True):
        length, checksum = struct.unpack("<QI", header)
        if checksum != masked_crc32c(header[:8]):
            _fail(path, place, "the checksum of its length is wrong")
        if not 4 <= length <= MAX_RECORD:
            _fail(path, place, f"it claims {length} bytes; a NAS-Bench-101 record has 4 to {MAX_RECORD}")
        body = _read(stream, length + 4, path, place)
        batch.append((place, body[:-4], int.from_bytes(body[-4:], "little")))
        place, size = place + 12 + len(body), size + length
        if len(batch) == _BATCH_RECORDS or size > _BATCH_BYTES:
            yield from _checked(batch, path)
            batch, size = [], 0
    if batch:
        yield from _checked(batch, path)


def _checked(batch: list[tuple[int, bytes, int]], path: Path) -> Iterator[tuple[int, bytes]]:
    crcs = _masked_crcs([record for _, record, _ in batch])
    for (place, record, checksum), crc in zip(batch, crcs.tolist(), strict=True):
        if crc != checksum:
            _fail(path, place, "the checksum of its content is wrong")
        yield place, record


def _read(stream: BinaryIO, size: int, path: Path, place: int, *, may_end: bool = False) -> bytes:
    try:
        data = stream.read(size)
    except DAMAGE as error:
        _fail(path, place, f"damaged or cut short: {error}")
    if len(data) < size and (data or not may_end):
        _fail(path, place, "the file is cut short")
    return data


def _fail(path: Path, place: int, what: str) -> NoReturn:
    raise FileFormatError(f"{path}: the record at byte {place}: {what}")


def _entry(record: bytes, where: str) -> _Entry:
    try:
        content = json.loads(record)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{where} is no JSON: {error}") from error
    kinds = (str, int, str, str, str)
    if (
        not isinstance(content, list)
        or len(content) != len(kinds)
        or not all(type(value) is kind for value, kind in zip(content, kinds, strict=True))
        or not _HASH.fullmatch(content[0])
        or content[1] not in EPOCHS
    ):
        raise FileFormatError(f"{where}: expected a hash, the epochs, the matrix, the operations and the metrics")
    return _Entry(bytes.fromhex(content[0]), *content[1:])


def _architecture(adjacency: str, operations: str, where: str) -> str:
    """The JSON text of a cell."""
    ops = operations.split(",")
    nodes = len(ops)
    if len(adjacency) != nodes * nodes or not set(adjacency) <= {"0", "1"}:
        raise FileFormatError(f"{where}: expected {nodes}x{nodes} letters 0 or 1, one a pair of operations")
    strange = next((op for op in ops if op not in OPERATIONS), None)
    if strange is not None:
        raise FileFormatError(f"{where}: no such operation: {strange[:40]!r}")
    rows = (",".join(adjacency[row * nodes : (row + 1) * nodes]) for row in range(nodes))
    return f'{{"matrix":[{",".join(f"[{row}]" for row in rows)}],"ops":{json.dumps(ops, separators=(",", ":"))}}}'


def _metrics(text: str, where: str) -> _Metrics:
    """The last evaluation in a ``ModelMetrics`` message of model_metrics.proto."""
    try:
        message = base64.b64decode(text.replace("\n", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise FileFormatError(f"{where}: its metrics are no base64: {error}") from error
    evaluations, params = [], None
    for number, value in _fields(message, where):
        if number == 1 and isinstance(value, bytes):
            evaluations.append(value)
        elif number == 2 and isinstance(value, int):
            params = value
    if len(evaluations) != 3 or params is None:
        raise FileFormatError(
            f"{where}: expected evaluations before, at half and at the end of training and the number of parameters, "
            f"got {len(evaluations)} evaluations"
        )
    last = {number: value for number, value in _fields(evaluations[2], where) if isinstance(value, float)}
    if not {2, 4, 5} <= set(last) or not (0 <= last[2] < 1e9 and 0 <= last[4] <= 1 and 0 <= last[5] <= 1):
        raise FileFormatError(
            f"{where}: expected the last evaluation to have its time and its validation and test accuracy from 0 to 1"
        )
    return _Metrics(float(params), last[2], last[4], last[5])


def _fields(message: bytes, where: str) -> Iterator[tuple[int, int | float | bytes]]:
    """Numbers and values of a protobuf message: varints as int, doubles as float, the rest as bytes."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at, where)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at, where)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(message, at, where)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise FileFormatError(f"{where}: its metrics are no protobuf message")
        if at + size > end:
            raise FileFormatError(f"{where}: its metrics are cut short")
        content = message[at : at + size]
        at += size
        yield key >> 3, struct.unpack("<d", content)[0] if kind == 1 else content


def _varint(message: bytes, at: int, where: str) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise FileFormatError(f"{where}: its metrics are cut short")
