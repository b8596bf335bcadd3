"""What a file is: every kind of recording by its own demuxer, as FFmpeg finds it, and everything else by what it is."""

import io
import os
import pickle
import tarfile
import tempfile
import time
import tracemalloc
import zipfile

import av
import numpy as np
import pytest
import torch
from damage import muxed, pictures, sounded, sounds, tagged
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save
from test_fuzz import ERRORS

from pipeline.core.errors import MediaError
from pipeline.media.audio import read
from pipeline.media.container import admit
from pipeline.media.foreign import foreign, leaves
from pipeline.media.sniff import LOOK, by_look, by_magic

ALLOCATED = 2 << 20  # bytes, to tell what a file is
SECONDS = 2.0


def probed(path):
    """What FFmpeg takes a file for, if it may choose."""
    with av.open(str(path)) as container:
        return set(container.format.name.split(","))


def given_as(path, data):
    """How a file with this content may be read."""
    path.write_bytes(data)
    return admit(str(path))


# ---------------------------------------------------------------- recordings
def test_every_kind_is_what_ffmpeg_finds_it_to_be(tmp_path):
    """And so it is by another name."""
    seen = set()
    for ending, data in [*sounds(), *pictures()]:
        found = given_as(tmp_path / f"a.{ending}", data)
        assert found.demuxer in probed(tmp_path / f"a.{ending}"), ending
        assert given_as(tmp_path / "a.jpeg", data) == found
        seen.add(found.demuxer)
    assert len(seen) > 15


@pytest.mark.parametrize("form", ["mp3", "flac", "aac", "ac3"])
def test_what_stands_behind_tags_counts(tmp_path, form):
    ending, data = next((ending, data) for ending, data in sounds() if ending == form and not data.startswith(b"ID3"))
    plain = given_as(tmp_path / "plain", data)
    assert given_as(tmp_path / "once", tagged(ending, data)[1]) == plain
    assert given_as(tmp_path / "twice", tagged(*tagged(ending, data))[1]) == plain
    assert form in probed(tmp_path / "once")


def test_streams_without_a_header_may_begin_late(tmp_path):
    """Behind zeros, behind noise, or in the middle of a packet; but not anywhere, and not by chance."""
    noise = np.random.default_rng(0).bytes(20_000)
    _, mp3 = sounded("MP3", "MPEG_LAYER_III", "mp3")
    _, aac = muxed("adts", "aac", sound="aac")
    _, ts = muxed("mpegts", "ts", "libx264", "aac")
    _, ps = muxed("mpeg", "mpg", "mpeg1video", "mp2")
    cases = [(mp3, "mp3"), (aac, "aac"), (ts, "mpegts"), (ps, "mpeg")]
    for data, demuxer in cases:
        for before in (bytes(3000), noise, data[1:1000]):
            assert given_as(tmp_path / "a", before + data).demuxer == demuxer
        with pytest.raises(MediaError, match="unreadable"):
            given_as(tmp_path / "a", np.random.default_rng(1).bytes(LOOK) + data)
    (tmp_path / "a.mp3").write_bytes(bytes(5000) + mp3)
    (tmp_path / "b.mp3").write_bytes(mp3)
    late, clean = read(tmp_path / "a.mp3", 16000)[0], read(tmp_path / "b.mp3", 16000)[0]
    assert len(late) >= len(clean) - 600 and np.abs(late).max() == pytest.approx(np.abs(clean).max(), abs=0.02)


@pytest.mark.parametrize("size", [188, 192, 204])
def test_packets_of_transport_streams(tmp_path, size):
    """As they are, with a time code before each, or a checksum behind each."""
    _, data = muxed("mpegts", "ts", "libx264", "aac")
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    wider = b"".join(bytes(4 * (size == 192)) + packet + b"\x11" * (16 * (size == 204)) for packet in packets)
    assert given_as(tmp_path / "a", wider).demuxer == "mpegts" and "mpegts" in probed(tmp_path / "a")


STANDARD = {
    "ac3": (32000, 44100, 48000),
    "mp2": (16000, 22050, 32000, 44100, 48000),
    "mp3": (8000, 11025, 16000, 22050, 32000, 44100, 48000),
}


@pytest.mark.parametrize(("codec", "rate"), [(codec, rate) for codec, rates in STANDARD.items() for rate in rates])
def test_the_frames_of_every_rate_and_bitrate(tmp_path, codec, rate):
    """Each is found behind noise, which takes the lengths of three frames in a row."""
    for bits in (32_000, 64_000, 160_000):
        path = tmp_path / f"{bits}.{codec}"
        options = {"write_xing": "0", "id3v2_version": "0"} if codec == "mp3" else {}
        with av.open(str(path), "w", options=options) as container:
            track = container.add_stream("libmp3lame" if codec == "mp3" else codec, rate=rate, layout="mono")
            track.bit_rate = bits
            silence = av.AudioFrame.from_ndarray(np.zeros((1, rate), np.float32), format="fltp", layout="mono")
            silence.sample_rate = rate
            fifo = av.AudioFifo()
            form = track.codec_context.format or av.AudioFormat("fltp")
            for ready in av.AudioResampler(format=form, layout="mono", rate=rate).resample(silence):
                fifo.write(ready)
            track.codec_context.open()
            while frame := fifo.read(track.codec_context.frame_size):
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
        data = path.read_bytes()
        assert given_as(tmp_path / "late", b"\x01\xff\xfa" * 99 + data).demuxer == codec.replace("mp2", "mp3")
        with open(path, "rb") as file:
            assert by_look(file).demuxer == codec.replace("mp2", "mp3")


# ---------------------------------------------------------------- everything else
class Canary:
    def __reduce__(self):
        return open, ("PWNED", "w")


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


def saved(function, *arguments, **options):
    buffer = io.BytesIO()
    function(buffer, *arguments, **options)
    return buffer.getvalue()


def packed(form, *members):
    """A tar archive of ``(name, settings)``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, settings in members:
            info = tarfile.TarInfo(name)
            data = b"x" * 700
            info.size = len(data)
            for key, value in settings.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


TARS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
DEEP = "deep/" * 60  # longer than a header's field
OBJECTS = np.array([Canary()], dtype=object)
FIELDS = np.array([(1, None)], dtype=[("a", "<i4"), ("b", "O")])
CASES = {
    "a pickle of any age": [(pickle.dumps({"w": Canary()}, protocol), "unsafe_checkpoint", "pickle") for protocol in range(6)],
    "a list in one": [(pickle.dumps([Canary(), 1], protocol), "unsafe_checkpoint", "pickle") for protocol in range(6)],
    "a call in one": [(pickle.dumps(Canary(), protocol), "unsafe_checkpoint", "pickle") for protocol in range(6)],
    "torch.save": [(saved(lambda file: torch.save({"w": torch.zeros(9)}, file)), "unsafe_checkpoint", "torch.save"),
                   (saved(lambda file: torch.save({"w": torch.zeros(9)}, file, _use_new_zipfile_serialization=False)), "unsafe_checkpoint", "pickle"),
                   (zipped(a__weights=b"0" * 200_000, a__data__more=b"", z="y", **{"a__x.pkl": b"."}), "unsafe_checkpoint", "pickle")],
    "zip": [(zipped(a="1"), "unreadable", "zip"), (saved(np.savez, a=np.zeros(3)), "unreadable", "zip")],
    "array": [(saved(np.save, np.zeros((3, 4))), "unreadable", "numpy array"), (saved(np.save, OBJECTS, allow_pickle=True), "unsafe_array", "objects"),
              (saved(np.save, FIELDS, allow_pickle=True), "unsafe_array", "objects"), (saved(np.save, np.zeros(3, [("a", "<f4"), ("b", "<f8")])), "unreadable", "numpy array"),
              (saved(np.save, np.zeros(9, "<f8"))[:-8], "limit_size", "claims"), (b"\x93NUMPY\1\0\x80\1{'descr': '<f4', 'shape': (" + b"9" * 300 + b",), }" + b" " * 200, "limit_size", "claims"),
              (b"\x93NUMPY\1\0\x76\0" + b"?" * 200, "unreadable", "damaged"), (b"\x93NUMPY", "unreadable", "damaged"), (b"\x93NUMPY\2\0\xff\xff\xff\xff{'descr': '<f4'", "unreadable", "damaged")],
    "tar": [(packed(form, ("a.wav", {}), ("b/c.wav", {})), "unreadable", "tar archive") for form in TARS],
    "tar out": [(packed(form, ("a.wav", {}), (name, {})), "unsafe_path", "leads out") for form in TARS for name in ("../x", "/x", "a/../../x", "./../x")],
    "tar far out": [(packed(form, (DEEP + "../" * 61 + "x", {})), "unsafe_path", "leads out") for form in TARS[1:]],
    "tar with links": [(packed(form, ("l", {"type": kind, "linkname": "a.wav", "size": 0})), "unsafe_path", "link") for form in TARS for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)],
    "tar with a device": [(packed(form, ("d", {"type": kind, "size": 0})), "unsafe_path", "device") for form in TARS for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)],
    "tar with twins": [(packed(form, ("a.wav", {}), (name, {})), "duplicate_member", "two members") for form in TARS for name in ("a.wav", "./a.wav", "b/../a.wav")],
    "tar with distant twins": [(packed(form, (DEEP + "a", {}), ("m", {}), (DEEP + "a", {})), "duplicate_member", "two members") for form in TARS[1:]],
    "tar with folders": [(packed(form, ("a", {"type": tarfile.DIRTYPE, "size": 0}), ("a/", {"type": tarfile.DIRTYPE, "size": 0}), ("a/b", {})), "unreadable", "tar archive") for form in TARS],
    "config": [(text.encode(), code, word) for text, code, word in (
        ("model:\n  _target_: os.system\n", "target_not_allowed", "os.system"), ('{"a": {"_target_": "os.system"}}', "target_not_allowed", "os.system"),
        ("a: {_target_: os.system}", "target_not_allowed", "os.system"), ("a: !!python/object/apply:os.system [ls]\n", "target_not_allowed", "!!python"),
        ("a: ${oc.env:HOME}\n", "resolver_not_allowed", "oc.env"), ("a:\n  - ${oc.env:HOME}\n", "resolver_not_allowed", "oc.env"), ('{"a": "${oc.env:HOME}"}', "resolver_not_allowed", "oc.env"),
        ("#!/bin/sh\necho ${HOME}\n", "unreadable", "script"), ("a: 1\n", "unreadable", "a text"))],
    "table": [(text.encode(), code, word) for text, code, word in (
        ("path,label\na.wav,x\n", "unreadable", "table"), ("label,path\nx,../a.wav\n", "unsafe_path", "../a.wav"), ("path\n/etc/hostname\n", "unsafe_path", "/etc"),
        ("path\nC:\\x.wav\n", "unsafe_path", "C:"), ("path\n..\\x.wav\n", "unsafe_path", "x.wav"), ('{"path": "a.wav"}\n', "unreadable", "table"),
        ('{"path": "a.wav"}\n{"path": "file:///x"}\n', "unsafe_path", "file:"), ('{"path": "http://x/a.wav"}', "unsafe_path", "http"), ('{"path": 3}', "unreadable", "a text"))],
    "text": [(b"\xef\xbb\xbfhello\n", "unreadable", "a text"), ("hello".encode("utf-16"), "unreadable", "a text"), ("grün".encode("latin-1"), "unreadable", "a text"),
             (b"<html><body>404", "unreadable", "web page"), (b"cat\ndog\nmouse\n", "unreadable", "a text"), (b"d\nl\n", "unreadable", "a text"),
             (b"1\n00:00:01,000 --> 00:00:02,000\nhi\n", "unreadable", "subtitles"), (b"<?xml version='1.0'?><a/>", "unreadable", "XML")],
    "others": [(save({"a": np.zeros(3)}, {"b": "c"}), "unreadable", "safetensors"), (b"\x1f\x8b\x08" + bytes(50), "unreadable", "gzip"), (b"%PDF-1.7\n" + bytes(9), "unreadable", "PDF"),
               (bytes(200_000), "unreadable", "zero bytes"), (b"\x7fELF" + bytes(99), "unreadable", "program"), (b"MThd\0\0\0\6" + bytes(9), "unreadable", "MIDI")],
    "pictures": [(b"\x89PNG\r\n\x1a\n" + bytes(50), "picture", "single picture"), (b"\0\0\0\x18ftypheic" + bytes(50), "picture", "single picture"), (b"P6\n3 2\n255\n" + bytes(18), "picture", "single picture")],
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_what_is_no_recording_is_told(tmp_path, kind, monkeypatch):
    """With its code, in words that help, and nothing of it has run."""
    monkeypatch.chdir(tmp_path)
    for number, (data, code, word) in enumerate(CASES[kind]):
        with pytest.raises(MediaError) as error:
            given_as(tmp_path / f"{number}.wav", data)
        assert error.value.code == code and word in str(error.value), (number, str(error.value))
    assert not (tmp_path / "PWNED").exists()


def test_samples_without_a_header_are_asked_about(tmp_path):
    for data in (bytes(9000), np.random.default_rng(0).bytes(9000), b"a text, says the first look"):
        for name in ("a.pcm", "a.RAW"):
            with pytest.raises(MediaError, match=r"format_unknown.*source=stdin"):
                given_as(tmp_path / name, data)
    with pytest.raises(MediaError, match="unsafe_checkpoint"):
        given_as(tmp_path / "a.raw", pickle.dumps([1]))


@given(st.text(max_size=30))
def test_paths_that_leave(path):
    """As the operating system resolves them."""
    inside = os.path.abspath(os.path.join("/folder/of/it", path))
    if not (inside + "/").startswith("/folder/of/it/"):
        assert leaves(path)


@pytest.mark.parametrize(
    "path", ["a.wav", "a/b c.wav", "a/../b.wav", "./a.wav", "12:30.wav", "..a.wav", "a..b/c", "~/a.wav"]
)
def test_paths_that_stay(path):
    assert not leaves(path)


@given(st.binary(max_size=2000) | st.text(max_size=500).map(str.encode))
def test_any_bytes_are_something(data):
    """A form, a code of the list, or nothing that is known."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        refusal = foreign("any", file)
        assert by_magic(file) or by_look(file) or refusal is None or refusal.code in ERRORS


PATTERNS = {
    "keys": b"a:" * LOOK, "lookups": b"${" * LOOK, "spaces": b" " * LOOK + b"_target_", "dashes": b" -" * LOOK, "targets": b" _target_ " * LOOK,
    "comments": b"<!---->" * LOOK, "brackets": b"[" * LOOK, "braces": b'{"path":' * LOOK, "quotes": b'path\n"' * LOOK, "old pickles": b"(S" + b"a" * LOOK,
    "syncs": b"\xff\xfb\x90\x44" * LOOK, "ones": b"\xff" * LOOK, "packets": b"G" * LOOK, "packs": b"\0\0\1\xba" * LOOK, "tags": b"ID3\4\0\0\0\0\0\0" * LOOK,
    "boxes": b"\0\0\0\x08free" * LOOK, "digits": b"path\n" + b"9" * LOOK, "array": b"\x93NUMPY\1\0\x10\x27" + b"'descr': [" * 999, "shape": b"\x93NUMPY\1\0\x10\x27'descr': '<f4'" + b"'shape': (" * 999,
}  # fmt: skip


@pytest.mark.parametrize("kind", PATTERNS)
def test_telling_takes_no_time_and_no_memory(tmp_path, kind):
    (tmp_path / "a").write_bytes(PATTERNS[kind])
    started = time.monotonic()
    tracemalloc.start()
    try:
        admit(str(tmp_path / "a"))
    except MediaError as error:
        assert error.code in ERRORS
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - started < SECONDS and peak < ALLOCATED


def test_archives_that_claim_much_are_only_looked_at(tmp_path):
    """A terabyte of a member, a gigabyte of its name, or a million members."""
    path = tmp_path / "a.tar"
    for form, member in ((tarfile.GNU_FORMAT, "L"), (tarfile.PAX_FORMAT, "x"), (tarfile.GNU_FORMAT, "0")):
        info = tarfile.TarInfo("a")
        info.size, info.type = 1 << (40 if member == "0" else 30), member.encode()
        path.write_bytes(info.tobuf(form) + bytes(512))
        os.truncate(path, 2 << 30)
        seen(path, "tar archive")
    path.write_bytes(packed(tarfile.USTAR_FORMAT, *((f"{n}.wav", {}) for n in range(20_000))))
    seen(path, "tar archive")


def seen(path, word):
    """That a file is told to be this, quickly."""
    tracemalloc.start()
    with pytest.raises(MediaError, match=word):
        admit(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * ALLOCATED


def test_every_real_recording_is_known(real):
    """All that FFmpeg or libsndfile can open can be opened now, too."""
    found = {}
    for path in sorted(real.rglob("*.*")):
        if path.suffix in (".wav", ".ogg", ".flac", ".mp4", ".mpg"):
            found.setdefault(path.suffix, set()).add(admit(str(path)).demuxer)
    assert found == {".wav": {"wav"}, ".ogg": {"ogg"}, ".flac": {"flac"}, ".mp4": {"mov"}, ".mpg": {"mpeg"}}
