"""legacy_style.files: a file appears whole or not at all, and is on the disk before it has its name."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from legacy_style import files


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the system while a file is written, in order."""
    seen = []

    def watch(owner, name, describe):
        right = getattr(owner, name)

        def noting(*args, **more):
            seen.append(describe(*args))
            return right(*args, **more)

        monkeypatch.setattr(owner, name, noting)

    def what(descriptor):
        return "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"

    watch(os, "fsync", lambda descriptor: f"sync {what(descriptor)} of {os.fstat(descriptor).st_size}")
    watch(type(Path()), "replace", lambda old, new: f"name {new.name}")
    return seen


def test_content_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(calls, tmp_path):
    """After a power cut, there is the old file or the new one, never an empty one."""
    (tmp_path / "a.png").write_bytes(b"old")
    files.write_whole(tmp_path / "a.png", b"content")
    assert calls[:2] == ["sync file of 7", "name a.png"]
    assert calls[2].startswith("sync folder")
    assert (tmp_path / "a.png").read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_where_a_folder_cannot_be_synced_the_file_is_written_all_the_same(monkeypatch, tmp_path):
    right = os.open

    def refuse(path, *args, **more):
        if Path(path).is_dir():
            raise PermissionError("as on Windows")
        return right(path, *args, **more)

    monkeypatch.setattr(os, "open", refuse)
    files.write_whole(tmp_path / "a.png", b"content")
    assert (tmp_path / "a.png").read_bytes() == b"content"


def test_a_failure_while_writing_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), files.replacing(tmp_path / "a.png") as file:
        file.write(b"half of")
        raise ZeroDivisionError
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_disk_that_is_full_at_the_last_moment_leaves_the_old_file(monkeypatch, tmp_path):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_whole(tmp_path / "a.png", b"content")
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_link_stays_one_and_permissions_stay(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to("target")
    files.write_whole(link, b"content")
    assert link.is_symlink() and target.read_bytes() == b"content"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path):
    """A pipe stands for a device, which a mistake would take away from the whole machine."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    files.write_whole(tmp_path / "pipe", b"content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        files.write_whole(tmp_path / "missing" / "a.png", b"content")
    assert caught.value.filename == str(tmp_path / "missing" / "a.png")


def test_a_full_disk_gets_advice_and_other_reasons_do_not():
    assert files.reason(OSError(28, "No space left on device")) == (
        "No space left on device; free some space, or choose another place"
    )
    assert files.reason(OSError(28, "Full"), "") == "Full; free some space"
    assert files.reason(OSError(13, "Permission denied")) == "Permission denied"
    assert files.reason(OSError("told")) == "told"


def test_the_temporary_file_lies_beside_the_target_of_a_link(tmp_path, monkeypatch):
    """A rename works within one file system only."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link.png").symlink_to("there/a.png")
    with files.replacing(tmp_path / "link.png"):
        assert [path.name for path in (tmp_path / "there").iterdir()] == [".a.png.part"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link.png", "there"]


def test_a_new_file_has_the_permissions_of_a_plain_write(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_whole(tmp_path / "a.png", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_what_a_killed_process_left_behind_is_no_hindrance(tmp_path):
    (tmp_path / ".a.png.part").write_bytes(b"longer than the content")
    files.write_whole(tmp_path / "a.png", b"content")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.png": b"content"}


def test_the_digest_is_that_of_the_whole_file(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * (2**20 + 1))
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"x" * (2**20 + 1)).hexdigest()
