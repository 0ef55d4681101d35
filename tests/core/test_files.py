"""Files are written whole, through drafts that nobody can foresee and that no kill leaves for long."""

import os
import signal
import stat
import subprocess
import sys

import pytest

from zeroshot_nas.core.files import write_atomically, write_text

SCRIPT = """
import os, sys, time
from pathlib import Path
from zeroshot_nas.core.files import write_atomically
def write(draft):
    draft.write_text("half")
    print(draft.name, flush=True)
    time.sleep(60)
write_atomically(Path(sys.argv[1]), write)
"""


@pytest.fixture
def writer(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, tmp_path / "file"], stdout=subprocess.PIPE, text=True)
    draft = tmp_path / process.stdout.readline().strip()
    yield process, draft
    process.kill()
    process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="there a killed process's files are removed by hand")
def test_a_killed_writers_draft_is_removed_and_a_living_ones_stays(tmp_path, writer):
    process, draft = writer
    write_text(tmp_path / "file", "whole")
    write_text(tmp_path / "other", "whole")
    assert draft.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert draft.exists()
    write_text(tmp_path / "other", "whole")
    assert draft.exists(), "it is no draft of that file"
    write_text(tmp_path / "file", "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other"]
    assert (tmp_path / "file").read_text() == "again"


def test_drafts_have_other_names_each_time_and_leave_nothing(tmp_path):
    names = []
    for _ in range(3):
        write_atomically(tmp_path / "file", lambda draft: names.append(draft.name))
    assert len(set(names)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_that_lies_beside_it_is_not_followed(tmp_path):
    target = tmp_path / "precious"
    target.write_text("precious")
    for name in (f".file.{os.getpid()}.tmp", ".file.tmp", "file"):
        (tmp_path / name).symlink_to(target)
    write_text(tmp_path / "file", "content")
    assert target.read_text() == "precious"
    assert (tmp_path / "file").read_text() == "content"
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.skipif(sys.platform == "win32", reason="it has other rights")
def test_a_file_has_the_rights_that_any_new_file_has(tmp_path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "file", "content")
    plain, written = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "file"))
    assert plain == written


@pytest.mark.parametrize("length", [200, 230])
def test_a_long_name_leaves_room_for_the_drafts(tmp_path, length):
    write_text(tmp_path / ("x" * length), "content")
    assert [len(path.name) for path in tmp_path.iterdir()] == [length]
