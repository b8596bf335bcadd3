"""Files that are written whole or not at all."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from conftest import no_file_above

from pipeline.core.atomic import atomic_write


@pytest.mark.parametrize("cache", [False, True])
def test_a_file_takes_its_place_when_it_is_whole(tmp_path, cache):
    path = tmp_path / "a"
    path.write_text("old")
    (tmp_path / "link").symlink_to(path)
    with atomic_write(tmp_path / "link", cache) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and (tmp_path / "link").is_symlink() and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("end", [ValueError, KeyboardInterrupt])
def test_what_was_there_stays_whatever_ends_it(tmp_path, end):
    (tmp_path / "a").write_text("old")
    with pytest.raises(end), atomic_write(tmp_path / "a") as file:
        file.write(b"new")
        raise end
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_disk_without_room_is_told_with_the_files_name(tmp_path):
    path = tmp_path / "a"
    with no_file_above(1000), pytest.raises(OSError) as told, atomic_write(path) as file:
        file.write(bytes(5000))
    assert told.value.filename == str(path) and not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError) as told, atomic_write(tmp_path / "none" / "a"):
        pass
    assert told.value.filename == str(tmp_path / "none" / "a")
    with pytest.raises(OSError) as told, atomic_write(path):
        os.stat(tmp_path / "other")
    assert told.value.filename == str(tmp_path / "other"), "another file's error is not ours"


def test_many_may_write_a_cache_and_what_was_left_is_not_in_the_way(tmp_path):
    (tmp_path / "b.part").symlink_to(tmp_path / "victim")  # of a run that was killed, or of somebody else
    with atomic_write(tmp_path / "b") as file:
        file.write(b"b")
    assert not (tmp_path / "victim").exists() and (tmp_path / "b").read_bytes() == b"b"
    gate = Barrier(4)

    def write(number):
        with atomic_write(tmp_path / "a", cache=True) as file:
            gate.wait()
            file.write(bytes([number]) * 100_000)
            gate.wait()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(set((tmp_path / "a").read_bytes())) == 1 and {path.name for path in tmp_path.iterdir()} == {"a", "b"}
