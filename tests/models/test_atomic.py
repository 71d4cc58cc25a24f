"""Files appear whole or not at all, whatever fails."""

import errno
import os
import resource
import stat
import subprocess
import sys

import pytest

from edgemoe_models.storage import atomic
from edgemoe_models.storage.atomic import SaveError, new_file, new_folder, write_bytes, write_text

GOOD = b"what was there before"


def only(folder, *names):
    """The folder has these files and nothing partial."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "file").write_bytes(GOOD)
    return tmp_path / "file"


def test_writes_and_makes_folders(tmp_path):
    write_text(tmp_path / "a" / "b" / "c", "é\r\n")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == "é\r\n".encode()
    write_bytes(tmp_path / "a" / "b" / "c", b"")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b""
    only(tmp_path / "a" / "b", "c")


@pytest.mark.parametrize(
    ("function", "number", "message"),
    [
        ("fsync", errno.ENOSPC, "No space left on device; free some space, or choose another folder"),
        ("replace", errno.EACCES, "Permission denied; choose a folder that you may write to"),
        ("replace", errno.EIO, "Input/output error$"),
    ],
)
def test_a_failure_leaves_the_old_file(path, monkeypatch, function, number, message):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.os, function, fail)
    with pytest.raises(SaveError, match=f"{path} cannot be written: {message}"):
        write_bytes(path, b"new")
    assert path.read_bytes() == GOOD
    only(path.parent, "file")


def test_an_interruption_leaves_the_old_file(path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert path.read_bytes() == GOOD
    only(path.parent, "file")


FULL = """
import resource, signal, sys
from edgemoe_models.storage.atomic import SaveError, new_folder, write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # what a full disk does, without one
try:
    write_bytes(sys.argv[1], bytes(2000))
except SaveError as error:
    print(error)
try:
    with new_folder(sys.argv[2]) as folder:
        (folder / "x").write_bytes(bytes(2000))
except SaveError as error:
    print(error)
"""


def test_a_file_that_does_not_fit(path, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_bytes(GOOD)
    done = subprocess.run(
        [sys.executable, "-c", FULL, path, tmp_path / "folder"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{path} cannot be written: File too large")
    assert second.startswith(f"{tmp_path / 'folder'} cannot be written: File too large")
    assert path.read_bytes() == GOOD and (tmp_path / "folder" / "x").read_bytes() == GOOD
    only(tmp_path, "file", "folder")
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_mode_and_links_stay(path):
    link = path.with_name("link")
    link.symlink_to(path)
    path.chmod(0o640)
    write_bytes(link, b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    old = os.umask(0o027)
    try:
        write_bytes(path.with_name("fresh"), b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.with_name("fresh").stat().st_mode) == 0o640


def test_what_is_no_regular_file_is_written_in_place(tmp_path):
    write_bytes(os.devnull, b"new")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    with pytest.raises(SaveError, match="cannot be written: Is a directory"):
        write_bytes(tmp_path, b"new")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SaveError, match="cannot be written: "):
        write_bytes(tmp_path / "file" / "x", b"new")
    with pytest.raises(SaveError, match="cannot be written: embedded null byte"):
        write_bytes(f"{tmp_path}/a\0b", b"new")


def test_the_longest_name(tmp_path):
    write_bytes(tmp_path / ("x" * 255), b"new")
    only(tmp_path, "x" * 255)


def test_a_file_that_a_library_writes_appears_whole(path, tmp_path):
    """By a name with the wanted suffix; the mode stays, and so does what was there if anything fails."""
    path = path.rename(tmp_path / "x.mp4")
    path.chmod(0o640)
    with new_file(path) as partial:
        assert partial.suffix == ".mp4" and partial.parent == tmp_path and path.read_bytes() == GOOD
        partial.write_bytes(b"new")
    assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o640
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), new_file(path) as partial:
            partial.write_bytes(b"half")
            raise error
    with pytest.raises(SaveError, match=r"x\.mp4 cannot be written: nothing was written"), new_file(path):
        pass
    with pytest.raises(SaveError, match=r"y\.mp4 cannot be written: File exists"), new_file(path / "y.mp4"):
        pass
    with new_file(tmp_path / "a" / "y.mp4") as partial:
        partial.write_bytes(b"1")
    only(tmp_path / "a", "y.mp4")
    assert path.read_bytes() == b"new"
    only(tmp_path, "x.mp4", "a")


def test_a_folder_replaces_the_old_one_whole(tmp_path):
    target = tmp_path / "a" / "folder"
    for content in (b"1", b"2"):
        with new_folder(target) as folder:
            assert not list(folder.iterdir())
            (folder / content.decode()).write_bytes(content)
        only(target, content.decode())
    only(target.parent, "folder")
    with pytest.raises(RuntimeError, match="mine"), new_folder(target) as folder:
        (folder / "3").write_bytes(b"3")
        raise RuntimeError("mine")
    with pytest.raises(FileNotFoundError), new_folder(target):  # not of the folder: not our failure
        (tmp_path / "none").read_bytes()
    with new_folder(target, keep=lambda: True) as folder:
        (folder / "3").write_bytes(b"3")
    only(target, "2")
    only(target.parent, "folder")


def test_no_folder_where_a_file_is(path):
    with pytest.raises(SaveError, match="cannot be written"), new_folder(path):
        pass
    assert path.read_bytes() == GOOD
    only(path.parent, "file")
