"""Files within files: read as if they stood alone, to the bit, and nothing of what stands around them."""

import errno
import os

import numpy as np
import pytest
from damage import pictures, sounds

from pipeline.core.errors import MediaError
from pipeline.media.chunks import read_chunk
from pipeline.media.input_spec import InputSpec
from pipeline.media.part import Part, bytes_of
from pipeline.media.picture import Picture


@pytest.fixture
def within(tmp_path):
    """A maker of parts: bytes in the middle of others that would be decoded, too."""
    files = []

    def make(data):
        path = tmp_path / str(len(files))
        path.write_bytes(data + data + data)
        files.append(os.open(path, os.O_RDONLY))
        return Part(f"within/{len(files)}", files[-1], len(data), len(data))

    yield make
    for file in files:
        os.close(file)


def told(name, spec):
    """What is read of a file, or the code of the error."""
    try:
        chunk, facts = read_chunk(name, spec)
    except MediaError as error:
        assert str(name) in str(error.args[0]) or "from 0.0" in str(error) or "file has no" in str(error), error
        return error.code
    return chunk, facts.seconds, facts.warnings


def same(one, other):
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return one[1:] == other[1:] and all(np.array_equal(a, b) for a, b in zip(one[0], other[0], strict=True))


@pytest.mark.parametrize("share", [1, 0.6])
def test_every_kind_is_read_as_it_is_alone(tmp_path, within, share):
    """Also one that was cut, whose rest would follow in the file around it."""
    read = set()
    for spec, files in ((InputSpec(16000), sounds()), (InputSpec(picture=Picture(10, 32, 32)), pictures())):
        for ending, data in files:
            data = data[: int(share * len(data))]
            (tmp_path / "alone").write_bytes(data)
            alone = told(tmp_path / "alone", spec)
            assert same(alone, told(within(data), spec)), ending
            read |= {ending} if not isinstance(alone, str) else set()
    assert len(read) > 12


def test_a_part_is_a_file_of_bytes(within):
    part = within(bytes(range(100)))
    with bytes_of(part) as file:
        assert (file.read(3), file.seek(-2, os.SEEK_END), file.read(), file.read(5)) == (b"\0\1\2", 98, b"bc", b"")
        assert file.seek(-500, os.SEEK_CUR) == 0 and file.seek(300) == 300 and file.read(1) == b""
    assert part == "within/1" and file.closed


def test_what_the_disk_cannot_give_is_kept(within, monkeypatch):
    def broken(*asked):
        raise OSError(errno.EIO, "input/output error")

    part = within(bytes(100))
    monkeypatch.setattr(os, "pread", broken)
    assert bytes_of(part).read(3) == b"" and part.error.errno == errno.EIO
