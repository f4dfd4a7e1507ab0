"""Files appear whole or not at all, also when the disk is full or the process is killed."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from septum.data.files import atomic_path, check_writable, write_text
from septum.data.images import write_labels, write_png, write_probabilities
from septum.errors import OutputError


def test_a_file_appears_with_its_folders_and_leaves_nothing_beside(tmp_path):
    write_text(tmp_path / "new" / "deep" / "a.txt", "µ\n")
    assert (tmp_path / "new" / "deep" / "a.txt").read_bytes() == b"\xc2\xb5\n"
    assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_file_as_it_was(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a.txt") as beside:
        beside.write_text(str(1 / (beside.write_text("new") - 3)))
    assert (tmp_path / "a.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


@pytest.mark.posix
def test_what_a_killed_process_left_is_overwritten(tmp_path):
    code = (
        "import os, signal, sys; from septum.data.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as beside:\n"
        "    beside.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.txt"], check=False, env=dict(os.environ))
    assert [path.name for path in tmp_path.iterdir()] == [".part.a.txt"]
    write_text(tmp_path / "a.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path):
    check_writable(tmp_path / "new" / "deep" / "a.txt")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "file")
    for path, why in (("", "it is a folder; give a file name"), ("file/a.txt", "file is a file, not a folder")):
        with pytest.raises(OutputError, match=why):
            check_writable(tmp_path / path)


@pytest.mark.posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused_before_the_work(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="the folder is read-only"):
        check_writable(tmp_path / "new" / "a.txt")


WRITERS = {
    "labels.tif": lambda path: write_labels(path, np.random.default_rng(0).integers(0, 60000, (300, 300))),
    "probabilities.tif": lambda path: write_probabilities(path, np.zeros((2, 300, 300))),
    "picture.png": lambda path: write_png(path, np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)),
    "text.json": lambda path: write_text(path, "x" * 200_000),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_may_not_grow_is_reported_and_removed(name, tmp_path, file_size_limit):
    full = pytest.raises(OutputError, match=rf"cannot write .*{name}: the disk is full; free some space")
    with file_size_limit(50_000), full:
        WRITERS[name](tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a small file system; skips where that is not allowed."""
    folders = []

    def mount(options):
        if shutil.which("mount") is None:
            pytest.skip("mounting a file system needs Linux")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("mounting a file system needs root")
        folders.append(tmp_path)
        return tmp_path

    yield mount
    for folder in folders:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_reported_and_nothing_stays(name, mounted):
    folder = mounted("size=64k")
    with pytest.raises(OutputError, match="the disk is full; free some space or choose another folder"):
        WRITERS[name](folder / name)
    assert list(folder.iterdir()) == []


def test_a_read_only_folder_is_reported(mounted):
    with pytest.raises(OutputError, match="the folder is read-only; choose another folder"):
        write_text(mounted("ro") / "a.txt", "text")


def test_a_folder_that_is_a_file_is_reported(tmp_path):
    write_text(tmp_path / "a", "text")
    with pytest.raises(OutputError, match=r"cannot write .*a/b.txt: .*; choose another folder"):
        write_text(tmp_path / "a" / "b.txt", "text")
