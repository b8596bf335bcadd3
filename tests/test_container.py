"""What a file is: recordings of every kind, whatever they are called; everything else is refused with a hint."""

import errno
import io
import os
import pickle
import tarfile
import time
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch
from conftest import peak_below
from damage import muxed, pictures, sounded, sounds, tagged
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from pipeline.core.errors import MediaError
from pipeline.media.audio import read
from pipeline.media.chunks import read_chunk
from pipeline.media.container import HEAD_BYTES, admit, open_file
from pipeline.media.input_spec import InputSpec
from pipeline.media.part import FileBytes, Part
from pipeline.media.picture import Picture

ALLOCATED_BYTES = 2 << 20
SECONDS = 2.0


def format_of(path, data):
    """The demuxers that read a file with this content."""
    path.write_bytes(data)
    with open_file(str(path)) as container:
        return container.format.name.split(",")


# ---------------------------------------------------------------- recordings
def test_names_say_nothing(tmp_path):
    """Every kind is read by its own demuxer, also as a picture, as samples without a header, or without an ending."""
    kinds = set()
    for ending, data in [*sounds(), *pictures()]:
        found = {tuple(format_of(tmp_path / name, data)) for name in (f"a.{ending}", "a.jpeg", "a.raw", "a")}
        assert len(found) == 1, ending
        kinds |= found
    assert len(kinds) > 14


@pytest.mark.parametrize("form", ["mp3", "flac", "aac", "ac3"])
def test_what_stands_behind_tags_counts(tmp_path, form):
    ending, data = next((ending, data) for ending, data in sounds() if ending == form and not data.startswith(b"ID3"))
    for tags in (tagged(ending, data), tagged(*tagged(ending, data))):
        assert format_of(tmp_path / "a", tags[1]) == [form]


@pytest.mark.parametrize("before", [bytes(3000), np.random.default_rng(0).bytes(20_000)])
def test_streams_without_a_header_may_begin_late(tmp_path, before):
    for demuxer, data in (sounded("MP3", "MPEG_LAYER_III", "mp3"), muxed("adts", "aac", sound="aac")):
        assert format_of(tmp_path / "late", before + data) == [demuxer]
        (tmp_path / "clean").write_bytes(data)
        late, clean = (read(tmp_path / name, 16000)[0] for name in ("late", "clean"))
        assert len(late) >= len(clean) - 1200 and np.abs(late).max() == pytest.approx(np.abs(clean).max(), abs=0.05)


@pytest.mark.parametrize("size", [188, 192, 204])
def test_packets_of_transport_streams(tmp_path, size):
    """As they are, with a time code before each, or a checksum behind each."""
    _, data = muxed("mpegts", "ts", "libx264", "aac")
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    wider = b"".join(bytes(4 * (size == 192)) + packet + b"\x11" * (16 * (size == 204)) for packet in packets)
    assert format_of(tmp_path / "a", wider) == ["mpegts"]


# ---------------------------------------------------------------- everything else
class Canary:
    def __reduce__(self):
        return open, ("PWNED", "w")


def saved(function, *arguments, **options):
    buffer = io.BytesIO()
    function(buffer, *arguments, **options)
    return buffer.getvalue()


def packed(form, name):
    """A tar archive of one member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        info = tarfile.TarInfo(name)
        info.size = 700
        archive.addfile(info, io.BytesIO(bytes(700)))
    return buffer.getvalue()


OTHERS = {
    "pickle": [*(pickle.dumps({"w": Canary()}, protocol) for protocol in range(2, 6)), saved(lambda file: torch.save({"w": Canary()}, file)),
               saved(lambda file: torch.save({"w": torch.zeros(9)}, file, _use_new_zipfile_serialization=False))],
    "archive": [saved(lambda file: zipfile.ZipFile(file, "w").writestr("a", "1")), saved(np.savez, a=np.zeros(3)), b"\x1f\x8b\x08" + bytes(50),
                *(packed(form, name) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT) for name in ("a.wav", "../x"))],
    "arrays": [saved(np.save, np.zeros((3, 4))), saved(np.save, np.array([Canary()], dtype=object), allow_pickle=True), b"\x93NUMPY"],
    "a text": [b"model:\n  _target_: os.system\n", b"a: ${oc.env:HOME}\n", b"path\n/etc/hostname\n", "gr\u00fcn".encode(), b"\xef\xbb\xbfhello\n", b"d\nl\n",
               b"1\n00:00:01,000 --> 00:00:02,000\nhi\n", b"#!/bin/sh\necho ${HOME}\n", b"<?xml version='1.0'?><a/>", b"Mac and cheese\n" * 999],
    "web page": [b"<html><body>404", b"\n<!DOCTYPE html><html>"],
    "safetensors": [save({"a": np.zeros(3)}, {"b": "c"})],
    "PDF": [b"%PDF-1.7\n" + bytes(9)],
    "program": [b"\x7fELF" + bytes(99)],
    "MIDI": [b"MThd\0\0\0\6" + bytes(9)],
    "known kind": [bytes(200_000), np.random.default_rng(0).bytes(99_999), "hello".encode("utf-16"), pickle.dumps([Canary()], 0) + b"\0", b"\0" * 9 + b"G" * 9],
    "single picture": [b"\x89PNG\r\n\x1a\n" + bytes(50), b"\0\0\0\x18ftypheic" + bytes(50), b"P6\n3 2\n255\n" + bytes(18)],
    "playlist": [b"\xef\xbb\xbf#EXTM3U\n", b"\n\n#extm3u\n", b"ffconcat version 1.0\n", b'<?xml version="1.0"?><!-- a --><MPD>', b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n"],
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_recording_is_refused_with_a_hint(tmp_path, kind, monkeypatch):
    """Nothing of it has run."""
    monkeypatch.chdir(tmp_path)
    code = {"single picture": "picture", "playlist": "playlist"}.get(kind, "unreadable")
    for number, data in enumerate(OTHERS[kind]):
        with pytest.raises(MediaError, match=rf"^{code}: .*{kind}") as error:
            format_of(tmp_path / f"{number}.wav", data)
        assert error.value.code == code
        with pytest.raises(MediaError):
            read(tmp_path / f"{number}.wav", 16000)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("data", [bytes(9000), np.random.default_rng(0).bytes(9000), b"a text, says the first look"])
@pytest.mark.parametrize("name", ["a.pcm", "a.RAW"])
def test_samples_without_a_header_are_asked_about(tmp_path, name, data):
    with pytest.raises(MediaError, match=r"format_unknown.*source=stdin"):
        format_of(tmp_path / name, data)


@settings(max_examples=40)
@given(st.binary(max_size=2000) | st.text(max_size=500).map(str.encode))
def test_any_bytes_are_a_recording_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    try:
        read(path, 16000)
    except MediaError as error:
        assert error.code


@pytest.mark.parametrize("data", [b"a:", b"${", b" ", b"<!---->", b"[", b"(Sa", b"\xff\xfb\x90\x44", b"\xff", b"G", b"\0\0\1\xba",
                                  b"ID3\4\0\0\0\0\0\0", b"\0\0\0\x08free", b"P6 ", b"\n", b"<?xml>", b"<!--", b"PK\3\4"])  # fmt: skip
def test_telling_takes_no_time_and_no_memory(tmp_path, data):
    (tmp_path / "a").write_bytes(data * (HEAD_BYTES * 8))
    started = time.monotonic()
    with peak_below(ALLOCATED_BYTES), suppress(MediaError):
        open_file(str(tmp_path / "a")).close()
    assert time.monotonic() - started < SECONDS


# ---------------------------------------------------------------- parts of files
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


def what_is_read(name, spec):
    try:
        chunk, info = read_chunk(name, spec)
    except MediaError as error:
        return error.code
    return [array.tobytes() for array in chunk], info.seconds, info.warnings


@pytest.mark.parametrize("share", [1, 0.6])
def test_a_part_is_read_as_it_is_alone(tmp_path, within, share):
    """Also one that was cut, whose rest would follow in the file around it."""
    read = set()
    for spec, files in ((InputSpec(16000), sounds()), (InputSpec(picture=Picture(10, 32, 32)), pictures())):
        for ending, data in files:
            data = data[: int(share * len(data))]
            (tmp_path / "alone").write_bytes(data)
            alone = what_is_read(tmp_path / "alone", spec)
            assert alone == what_is_read(within(data), spec), ending
            read |= {ending} if not isinstance(alone, str) else set()
    assert len(read) > 12


def test_what_the_disk_cannot_give_is_an_error(within, tmp_path, monkeypatch):
    """A part keeps it, as decoders in C do not hand it on."""

    def broken(*asked):
        raise OSError(errno.EIO, "input/output error")

    part = within(bytes(100))
    monkeypatch.setattr(os, "pread", broken)
    assert FileBytes(part).read(3) == b"" and part.error.errno == errno.EIO
    with pytest.raises(MediaError, match=r"unreadable: .*input/output error"):
        admit(str(tmp_path / "0"))
