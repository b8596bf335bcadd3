"""Parts of recordings: the same samples and codes as of the whole, and little is decoded for them where that is sure."""

import io
import os

import av
import numpy as np
import pytest
import soundfile
from damage import wave
from test_formats import CONTAINERS, encoded

from pipeline.core.errors import MediaError
from pipeline.media import audio, ogg
from pipeline.media.audio import read
from pipeline.media.part import Part

SECONDS = 3
EXACT = ["PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"]
FORMS = ("AIFF", "AU", "CAF", "FLAC", "NIST", "OGG", "RF64", "W64", "WAV", "WAVEX")
KINDS = [(form, subtype) for form in FORMS for subtype in soundfile.available_subtypes(form)
         if not subtype.startswith(("DWVW", "ALAC_2", "ALAC_3"))]  # fmt: skip  # libsndfile cannot write these


@pytest.fixture(autouse=True)
def finely(monkeypatch):
    """Short files are as long as others in blocks."""
    monkeypatch.setattr(audio, "BLOCK", 512)


def recorded(form, subtype, rate=16000):
    """Bytes of a recording with two channels, or one where a format takes no more."""
    mono = wave(rate, SECONDS)
    for channels in (2, 1):
        try:
            buffer = io.BytesIO()
            sound = np.stack([mono, mono[::-1]][:channels], 1)
            soundfile.write(buffer, sound, rate, format=form, subtype=subtype)
            return buffer.getvalue()
        except soundfile.LibsndfileError:
            continue
    pytest.skip("libsndfile does not write this")


def stored(path, data):
    """A file that was written a while ago."""
    path.write_bytes(data)
    os.utime(path, (1e9, 1e9))
    return path


def check_parts(path, count=12):
    """Parts anywhere are those of the whole; its codes."""
    whole, info = read(path, audio.probe(path).rate)
    rate, length = info.rate, len(whole)
    places = np.random.default_rng(0).integers(0, length, (count, 2)).tolist()
    for first, last in [[0, 1], [1, length], [length - 1, length], [length - 400, length - 1], *places, [700, None]]:
        if last is None or first < last:
            part, _ = read(path, rate, first / rate, None if last is None else last / rate)
            assert np.array_equal(part, whole[first:last]), (first, last)
    assert "beyond_end" in read(path, rate, (length - 9) / rate, length / rate + 1)[1].warnings
    with pytest.raises(MediaError, match="no samples from"):
        read(path, rate, length / rate + 1, length / rate + 2)
    return info.warnings


def decoded(path, monkeypatch, first, last):
    """How many samples libsndfile decodes for a part."""
    total, genuine = [], soundfile.SoundFile.read

    def counted(sound, *args, **options):
        block = genuine(sound, *args, **options)
        total.append(len(block))
        return block

    with monkeypatch.context() as patch:
        patch.setattr(soundfile.SoundFile, "read", counted)
        read(path, 16000, first / 16000, last / 16000)
    return sum(total)


@pytest.mark.parametrize(("form", "subtype"), [
    pytest.param(*kind, marks=[] if kind[0] in ("FLAC", "OGG", "WAV") else [pytest.mark.long]) for kind in KINDS
])  # fmt: skip
def test_parts_of_every_kind_of_libsndfile(tmp_path, monkeypatch, form, subtype):
    path = stored(tmp_path / "a", recorded(form, subtype))
    assert check_parts(path) == []
    sought = subtype in EXACT or subtype == "VORBIS"
    assert (decoded(path, monkeypatch, 40000, 40100) < 2000) == sought


@pytest.mark.parametrize(("form", "codec", "options"), CONTAINERS, ids=lambda value: str(value))
def test_parts_of_containers(tmp_path, form, codec, options):
    check_parts(stored(tmp_path / "a", encoded(form, codec, **options)), 3)


def repacked(data, left_out, **options):
    """Vorbis in the pages of FFmpeg, without some packets."""
    sink = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(sink, "w", format="ogg", options=options) as container:
        track = container.add_stream_from_template(source.streams.audio[0])
        for number, packet in enumerate(source.demux(source.streams.audio[0])):
            if number not in left_out and packet.dts is not None:
                packet.stream = track
                container.mux(packet)
    return sink.getvalue()


@pytest.mark.parametrize("left_out", [range(0), range(20), range(20, 30)])
def test_vorbis_in_pages_of_another_program(tmp_path, monkeypatch, left_out):
    data = repacked(recorded("OGG", "VORBIS"), left_out, page_duration="200000")
    path = stored(tmp_path / "a", data)
    check_parts(path)
    if not left_out:
        assert decoded(path, monkeypatch, 20000, 20100) < 2000


def pages_of(data):
    """The pages of an Ogg file, cut at their marks."""
    first, *others = data.split(b"OggS")
    assert not first
    return [b"OggS" + page for page in others]


def spoilt(page):
    """With another byte in the middle."""
    at = len(page) // 2
    return page[:at] + bytes([page[at] ^ 255]) + page[at + 1 :]


@pytest.mark.parametrize("way", ["whole", "spoilt", "missing", "twice", "cut", "joined", "chained", "swapped"])
def test_vorbis_with_damaged_pages(tmp_path, way):
    pages = pages_of(recorded("OGG", "VORBIS", 44100))
    assert len(pages) > 5
    pages = {
        "whole": pages,
        "spoilt": [*pages[:4], spoilt(pages[4]), *pages[5:]],
        "missing": pages[:3] + pages[4:],
        "twice": pages[:4] + pages[3:],
        "cut": [*pages[:-1], pages[-1][:100]],
        "joined": pages * 2,
        "chained": pages + pages_of(recorded("OGG", "VORBIS", 44100)),
        "swapped": [*pages[:3], pages[4], pages[3], *pages[5:]],
    }[way]
    path = stored(tmp_path / "a", b"".join(pages))
    assert (ogg.exact_until(str(path)) > 0) == (way == "whole")
    check_parts(path)


def test_a_page_that_lies_of_its_place_is_not_believed(tmp_path):
    pages = pages_of(recorded("OGG", "VORBIS", 44100))
    lying = bytearray(pages[3])
    lying[6:14] = (int.from_bytes(lying[6:14], "little") + 100).to_bytes(8, "little")
    lying[22:26] = bytes(4)
    lying[22:26] = ogg.checksum(bytes(lying))
    path = stored(tmp_path / "a", b"".join([*pages[:3], bytes(lying), *pages[4:]]))
    assert ogg.exact_until(str(path)) == 0
    check_parts(path)


@pytest.mark.parametrize("kind", [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("W64", "MS_ADPCM"), ("OGG", "VORBIS")])
@pytest.mark.parametrize("way", ["half", "spoilt", "joined", "unknown"])
def test_parts_of_damaged_files(tmp_path, kind, way):
    data = recorded(*kind)
    middle = len(data) // 2
    data = {
        "half": data[:middle],
        "spoilt": data[:middle] + bytes(byte ^ 255 for byte in data[middle : middle + 40]) + data[middle + 40 :],
        "joined": data * 2,
        "unknown": data[:4] + b"\xff" * 4 + data[8:] if kind[0] == "WAV" else data,
    }[way]
    check_parts(stored(tmp_path / "a", data))


def test_damage_before_a_part_has_its_code_still(tmp_path):
    data = recorded("FLAC", "PCM_16")
    path = stored(tmp_path / "a", data[:5000] + bytes(100) + data[5100:])
    for _ in range(2):
        assert "decode_errors" in read(path, 16000, 2.0, 2.5)[1].warnings


def test_flac_is_decoded_once(tmp_path, monkeypatch):
    path = stored(tmp_path / "a", recorded("FLAC", "PCM_16"))
    assert decoded(path, monkeypatch, 40000, 40100) > 40000
    assert decoded(path, monkeypatch, 39000, 39100) < 2000
    path.write_bytes(recorded("FLAC", "PCM_16"))  # another file, as far as anybody knows
    assert decoded(path, monkeypatch, 39000, 39100) > 39000


@pytest.mark.parametrize("kind", [("WAV", "PCM_16"), ("OGG", "VORBIS"), ("FLAC", "PCM_16")])
def test_parts_of_a_member_of_an_archive(tmp_path, kind):
    data = recorded(*kind)
    file = os.open(stored(tmp_path / "a.tar", b"x" * 777 + data + data), os.O_RDONLY)
    for offset in (777, 777 + len(data)):
        assert check_parts(Part("member", file, offset, len(data))) == []
    os.close(file)
