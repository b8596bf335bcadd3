"""Whole, half, piped and joined files of every kind: as many samples and pictures as there are, and what is doubtful."""

import gc
import io
import struct
import tempfile
import time
import weakref
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
from damage import heard as frame_of
from damage import muxed, wave

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.audio import open_blocks, probe, read
from pipeline.media.chunks import read_chunk
from pipeline.media.formats import AUDIO, VIDEO
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Picture
from pipeline.media.video import read_frames
from pipeline.media.walk import media_files
from pipeline.sources.stdin import Stdin

SECONDS = 2
SAMPLES = SECONDS * 16000
SIGHT = Picture(25, 32, 48)


def heard(path, data, rate=16000, start=0.0, end=None):
    """Samples, and codes, of a file with these bytes."""
    path.write_bytes(data)
    samples, info = read(path, rate, start, end)
    return samples, info.warnings


def seen(path, data, **part):
    """The number of pictures, and codes, of a file with these bytes."""
    path.write_bytes(data)
    images, info = read_frames(path, SIGHT, **part)
    return len(images), info.warnings


def sounded(form, subtype, channels=1):
    """A recording by libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave(16000, SECONDS)[:, None].repeat(channels, 1), 16000, format=form, subtype=subtype)
    return buffer.getvalue()


def encoded(form, codec, samples=None, **options):
    """A recording by FFmpeg, into a pipe if ``options`` say so."""
    rate = {"libopus": 48000, "ac3": 48000, "eac3": 48000, "wmav2": 44100}.get(codec, 16000)
    samples = wave(rate, SECONDS) if samples is None else samples
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115
    sink = SimpleNamespace(write=file.write) if options.pop("pipe", False) else file.name
    with file, av.open(sink, "w", format=form, options=options) as container:
        track = container.add_stream(codec, rate=rate, layout="mono")
        track.bit_rate = 64000
        track.codec_context.open()
        size, kind = track.codec_context.frame_size or 1024, track.codec_context.format.name
        for start in range(0, len(samples), size):
            container.mux(track.encode(frame_of(samples[start : start + size], rate, start, kind)))
        container.mux(track.encode(None))
        container.close()
        file.flush()
        return Path(file.name).read_bytes()


# ---------------------------------------------------------------- half a file
HALVES = {
    "wav": sounded("WAV", "PCM_16"), "alaw": sounded("WAV", "ALAW"), "mulaw": sounded("WAV", "ULAW"),
    "ima": sounded("WAV", "IMA_ADPCM"), "adpcm": sounded("WAV", "MS_ADPCM"), "aiff": sounded("AIFF", "PCM_16"),
    "au": sounded("AU", "PCM_16"), "caf": sounded("CAF", "PCM_16"), "w64": sounded("W64", "PCM_16"),
    "rf64": sounded("RF64", "PCM_16"), "flac": sounded("FLAC", "PCM_16"), "voc": sounded("VOC", "PCM_16"),
}  # fmt: skip
CONTAINERS = [
    ("ogg", "flac", {}), ("matroska", "aac", {}), ("matroska", "pcm_s16le", {}), ("webm", "libopus", {}), ("avi", "pcm_s16le", {}),
    ("asf", "wmav2", {}), ("flv", "aac", {}), ("mpegts", "mp2", {}), ("mpeg", "mp2", {}), ("ac3", "ac3", {}), ("adts", "aac", {}),
    ("eac3", "eac3", {}), ("mp2", "mp2", {}), ("mp3", "libmp3lame", {}), ("mp3", "libmp3lame", {"write_xing": "0"}), ("tta", "tta", {}),
    ("mov", "pcm_s16le", {"movflags": "faststart"}), ("mp4", "aac", {"movflags": "faststart"}),
]  # fmt: skip


@pytest.mark.parametrize("kind", HALVES)
def test_half_of_a_file_is_truncated(tmp_path, kind):
    data = HALVES[kind]
    samples, codes = heard(tmp_path / "a", data)
    assert SAMPLES <= len(samples) <= SAMPLES + 1100 and codes == []
    half, codes = heard(tmp_path / "a", data[: len(data) // 2])
    assert "truncated" in codes and 0.2 * SAMPLES < len(half) < 0.6 * SAMPLES
    good = len(half) - 2048
    assert good < 1 or np.abs(half[:good] - samples[:good]).max() < 0.02


@pytest.mark.parametrize(("form", "codec", "options"), CONTAINERS, ids=lambda value: str(value))
def test_half_of_a_container_is_truncated(tmp_path, form, codec, options):
    data = encoded(form, codec, **options)
    samples, codes = heard(tmp_path / "a", data)
    assert codes == [] and len(samples) >= SAMPLES - 2500
    half, codes = heard(tmp_path / "a", data[: len(data) * 6 // 10])
    assert "truncated" in codes and 0 < len(half) < 0.8 * len(samples)


@pytest.mark.parametrize(("form", "codec", "pixels"), [("gif", "gif", "rgb8"), ("ogg", "libvpx", "yuv420p"), ("apng", "apng", "rgb24"),
                                                       ("avi", "mpeg4", "yuv420p"), ("ivf", "libvpx", "yuv420p")])  # fmt: skip
def test_half_of_a_video_is_truncated(tmp_path, form, codec, pixels):
    _, data = muxed(form, form, codec, pixels=pixels)
    assert seen(tmp_path / "a", data) == (8, [])
    pictures, codes = seen(tmp_path / "a", data[: int(len(data) * (0.9 if form == "avi" else 0.6))])
    assert "truncated" in codes and pictures < 8


# ---------------------------------------------------------------- lengths that nobody knew
FIELDS = {  # where the size of the samples stands: from their name on, and as what
    "wav": (b"data", 4, "<I"), "rf64": (b"ds64", 16, "<Q"), "aiff": (b"SSND", 4, ">I"), "au": (b".snd", 8, ">I"),
    "w64": (b"data\xf3\xac", 16, "<Q"), "caf": (b"data", 4, ">q"), "mulaw": (b"data", 4, "<I"),
}  # fmt: skip
UNKNOWN = {"I": (0, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF, 0xFFFFF000), "Q": (0, 2**63 - 1), "q": (0, -1)}


@pytest.mark.parametrize("kind", FIELDS)
def test_sizes_that_are_none(tmp_path, kind):
    """Of a pipe, or of a recorder that was killed: every sample is read."""
    data = HALVES[kind]
    expected, _ = heard(tmp_path / "a", data)
    name, behind, form = FIELDS[kind]
    at = data.index(name) + behind
    for size in UNKNOWN[form[1]]:
        mended = data[:at] + struct.pack(form, size) + data[at + struct.calcsize(form) :]
        samples, codes = heard(tmp_path / "a", mended)
        assert codes == ["unknown_length"] and np.array_equal(samples[:SAMPLES], expected[:SAMPLES]), size


def test_a_flac_of_unknown_length(tmp_path):
    data = HALVES["flac"]
    expected, _ = heard(tmp_path / "a", data)
    samples, codes = heard(tmp_path / "a", data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:])
    assert np.array_equal(samples, expected) and codes == ["unknown_length"]
    assert probe(tmp_path / "a").frames is None, "or it would be refused as too long"


@pytest.mark.parametrize("kind", ["wav", "au"])
def test_a_size_that_has_wrapped(tmp_path, kind):
    """Of four gigabytes and some, which are a hole in the disk."""
    data = HALVES[kind]
    with open(tmp_path / "a.wav", "wb") as file:
        file.write(data)
        file.truncate((1 << 32) + len(data))
    info = probe(tmp_path / "a.wav")
    assert info.frames == ((1 << 32) + 2 * SAMPLES) // 2 and info.warnings == []


def changed(data, name, offset, form, value):
    """A header with another number in it, counted from a name."""
    at = data.index(name) + offset
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def test_headers_that_count_otherwise(tmp_path):
    """The size of all for that of the samples, and blocks of one byte."""
    data = HALVES["wav"]
    sizes = ((b"data", 4, "<I", len(data)), (b"data", 4, "<I", len(data) - 8), (b"fmt ", 20, "<H", 1))
    for size in sizes:
        samples, codes = heard(tmp_path / "a", changed(data, *size))
        assert (len(samples), codes) == (SAMPLES, [])


# ---------------------------------------------------------------- more than one
@pytest.mark.parametrize("kind", ["wav", "mulaw", "aiff", "au", "caf", "w64", "rf64", "flac"])
def test_joined_recordings_are_read_to_the_end(tmp_path, kind):
    data = HALVES[kind]
    one, _ = heard(tmp_path / "a", data)
    samples, codes = heard(tmp_path / "a", data + data + data)
    assert np.array_equal(samples, np.concatenate([one, one, one])) and codes == []


def test_two_chunks_of_samples(tmp_path):
    data = HALVES["wav"]
    one, _ = heard(tmp_path / "a", data)
    chunk = struct.pack("<4sI", b"data", 2000) + data[-2000:]
    samples, codes = heard(tmp_path / "a", data + b"LIST\4\0\0\0INFO" + chunk)
    assert np.array_equal(samples, np.concatenate([one, one[-1000:]])) and codes == []


@pytest.mark.parametrize("codec", ["flac", "libopus", "vorbis"])
def test_streams_of_ogg_with_one_number(tmp_path, codec):
    data = sounded("OGG", "VORBIS") if codec == "vorbis" else encoded("ogg", codec)
    one, two = (heard(tmp_path / "a", data * count) for count in (1, 2))
    assert 2 * len(one[0]) <= len(two[0]) < 2 * len(one[0]) + 700 and two[1] == []


@pytest.mark.parametrize(("form", "codec"), [("mp4", "aac"), ("asf", "wmav2"), ("flv", "aac"), ("tta", "tta")])
def test_what_follows_and_is_not_read_is_told(tmp_path, form, codec):
    data = encoded(form, codec)
    one, two = (heard(tmp_path / "a", data * count) for count in (1, 2))
    assert np.array_equal(one[0], two[0]) and two[1] == ["joined"]


def test_other_sound_that_follows_is_told(tmp_path):
    """Of two channels behind one: there is no telling what the first header says of it."""
    one = heard(tmp_path / "a", HALVES["wav"])[0]
    samples, codes = heard(tmp_path / "a", HALVES["wav"] + sounded("WAV", "PCM_16", 2))
    assert np.array_equal(samples, one) and codes == ["rate_change"]


# ---------------------------------------------------------------- guesses
def cover(data):
    """An MP3 with a picture of 100 kB before it."""
    picture = b"\0image/jpeg\0\3\0" + bytes(100_000)
    frame = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + frame + data


def guesses():
    """Whole files whose length FFmpeg works out: the bytes, the rate, and the samples that are there."""
    mp3 = encoded("mp3", "libmp3lame", write_xing="0")
    quiet = np.concatenate([np.zeros(32768, np.float32), wave(16000, SECONDS)])
    amr = b"#!AMR\n" + (b"\x3c" + bytes(31)) * 100
    return {
        "amr": (amr, 8000, 16000),
        "mp3": (cover(mp3), 16000, SAMPLES),
        "adts": (encoded("adts", "aac", quiet), 16000, 32768 + SAMPLES),
        "wma": (encoded("asf", "wmav2", pipe=True), 44100, 88200),
    }


@pytest.mark.parametrize("kind", ["amr", "mp3", "adts", "wma"])
def test_a_guess_is_no_claim(tmp_path, kind):
    data, rate, expected = guesses()[kind]
    samples, codes = heard(tmp_path / "a", data, rate)
    assert not {"truncated", "decode_errors"} & set(codes) and abs(len(samples) - expected) < 4200


@pytest.mark.parametrize("codec", ["g722", "flac", "ac3"])
def test_avi_has_no_time_stamps_of_sound(tmp_path, codec):
    """FFmpeg counts bytes by a rate that is none of these codecs', which made gaps of hours."""
    rate = 48000 if codec == "ac3" else 16000
    samples, codes = heard(tmp_path / "a", encoded("avi", codec), rate)
    assert codes == [] and abs(len(samples) - SECONDS * rate) < 4096


@pytest.mark.parametrize("data", [
    struct.pack(">I4s8sI4sQ", 16, b"ftyp", b"isom", 1, b"free", 2**64 - 1) + bytes(99),
    b"caff\0\1\0\0" + struct.pack(">4sQ32s4sQ", b"desc", 32, b"", b"free", 2**64 - 20) + bytes(99),
])  # fmt: skip
def test_sizes_beyond_all_files_are_no_crash(tmp_path, data):
    with pytest.raises(MediaError, match="unreadable"):
        heard(tmp_path / "a", data)


def test_many_pieces_take_no_time(tmp_path):
    """A hostile file of nothing but headers: each read began at the first piece, and took as long as all before."""
    form, count = struct.pack("<4s4sIHHIIHH", b"WAVE", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16), 30_000
    started = time.monotonic()
    samples, _ = heard(tmp_path / "a", b"RIFF\0\0\0\0" + form + b"data\2\0\0\0\1\0" * count)
    assert len(samples) == count and time.monotonic() - started < 20


AMR, AMR_WB = b"#!AMR\n" + (b"\x3c" + bytes(31)) * 50, b"#!AMR-WB\n" + (b"\x34" + bytes(50)) * 50


@pytest.mark.parametrize(("data", "code"), [(AMR, ""), (AMR + b"\x7c" * 3, ""), (AMR[:-7], "truncated"), (AMR + AMR, "joined"),
                                            (AMR_WB, ""), (AMR_WB[:-7], "truncated")])  # fmt: skip
def test_frames_of_amr_tell_their_length(tmp_path, data, code):
    """Those without data, of a pause, are not damage at the end."""
    assert {"truncated", "joined"} & set(heard(tmp_path / "a", data, 8000)[1]) == ({code} if code else set())


@pytest.mark.parametrize(
    "begin", [b"RIFF\0\0\0\0WAVE", b"FORM\0\0\0\0AIFF", b"FLV\1\1\0\0\0\x09\0\0\0\0", b"\0\0\0\x08ftyp"]
)
def test_nothing_but_headers_takes_no_time(tmp_path, begin):
    (tmp_path / "a").write_bytes(begin + b"\0\0\0\x08free" * 200_000 + b"RIFFRIFF" * 200_000 + b"\x08\0\0" * 200_000)
    started = time.monotonic()
    with suppress(MediaError):
        read(tmp_path / "a", 16000)
    assert time.monotonic() - started < 5


# ---------------------------------------------------------------- what an encoder adds
def test_padding_is_no_sound(tmp_path):
    """AAC in MP4: from the edit list, or from what iTunes writes."""
    (tmp_path / "a").write_bytes(encoded("mp4", "aac"))
    samples, info = read(tmp_path / "a", 16000)
    assert len(samples) == info.frames == SAMPLES
    assert np.abs(samples - wave(16000, SECONDS)).mean() < 0.05, "from its first sample on"


TAGGED = {"movflags": "use_metadata_tags", "use_editlist": "0"}


def test_what_itunes_says_of_the_length(tmp_path):
    (tmp_path / "a.m4a").write_bytes(encoded("mp4", "aac"))
    with av.open(str(tmp_path / "a.m4a")) as whole, av.open(str(tmp_path / "b.m4a"), "w", "mp4", TAGGED) as container:
        container.metadata["iTunSMPB"] = f" 00000000 00000400 00000000 {SAMPLES:016X} 00000000"
        track = container.add_stream_from_template(whole.streams.audio[0])
        for packet in whole.demux(audio=0):
            packet.stream, packet.duration = track, 1024
            if packet.size:
                container.mux(packet)
    assert len(read(tmp_path / "b.m4a", 16000)[0]) == SAMPLES


@pytest.mark.parametrize(("form", "codec"), [("mp4", "aac"), ("matroska", "pcm_s16le")])
def test_what_was_handed_over_is_not_kept(tmp_path, form, codec):
    """A recording of any length streams in flat memory."""
    (tmp_path / "a").write_bytes(encoded(form, codec, wave(16000, 60)))
    blocks = open_blocks(tmp_path / "a", 16000)[1]
    first = weakref.ref(next(blocks).base)
    for _ in range(20):
        next(blocks)
    gc.collect()
    assert first() is None


# ---------------------------------------------------------------- parts
PARTS = [(0.1, 0.3, []), (0.0, 2.0, []), (0.2, 2.03, []), (0.2, 5.0, ["beyond_end"])]


@pytest.mark.parametrize(("start", "end", "codes"), PARTS)
def test_a_part_beyond_the_end_is_told(tmp_path, start, end, codes):
    (tmp_path / "a").write_bytes(HALVES["wav"])
    (tmp_path / "v").write_bytes(muxed("avi", "avi", "mpeg4")[1])
    samples, info = read(tmp_path / "a", 16000, start, end)
    assert (len(samples), info.warnings) == (round((min(end, 2.0) - start) * 16000), codes)
    end = end if codes else min(end, 0.32)
    images, facts = read_frames(tmp_path / "v", SIGHT, start, end)
    assert len(images) == round((min(end, 0.32) - start) * 25) and facts.warnings == codes


def test_a_part_of_both_tracks_may_end_with_the_longer(tmp_path):
    (tmp_path / "a").write_bytes(muxed("avi", "avi", "mpeg4", "pcm_s16le")[1])
    both = InputSpec(16000, SIGHT)
    assert read_chunk(tmp_path / "a", both, 0.1, 0.39)[1].warnings == []
    assert read_chunk(tmp_path / "a", both, 0.1, 2.0)[1].warnings == ["beyond_end"]


# ---------------------------------------------------------------- other kinds
@pytest.mark.parametrize(("form", "codec", "pixels"), [("apng", "apng", "rgb24"), ("mjpeg", "mjpeg", "yuvj420p"), ("h264", "libx264", "yuv420p"),
                                                       ("ivf", "libvpx", "yuv420p"), ("obu", "libaom-av1", "yuv420p"),
                                                       ("m4v", "mpeg4", "yuv420p"), ("mpeg2video", "mpeg2video", "yuv420p")])  # fmt: skip
def test_streams_of_pictures_are_read(tmp_path, form, codec, pixels):
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV was built without {codec}")
    assert seen(tmp_path / "a", muxed(form, form, codec, pixels=pixels)[1]) == (8, [])


def webp(flags):
    """The head of a WebP."""
    body = b"WEBPVP8X\x0a\0\0\0" + bytes([flags]) + bytes(9)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_pictures_that_move_and_those_that_do_not(tmp_path):
    jpeg = muxed("mjpeg", "mjpeg", "mjpeg", pixels="yuvj420p")[1]
    jpeg = jpeg[: jpeg.index(b"\xff\xd9") + 2]
    several = jpeg[:2] + b"\xff\xe2\0\x08MPF\0\0\0" + jpeg[2:]  # of one moment, by one camera
    apng = muxed("apng", "apng", "apng", pixels="rgb24")[1]
    still = apng[: apng.index(b"acTL") - 4] + apng[apng.index(b"acTL") + 16 :]
    cases = [(webp(0x10), "picture: .*single"), (webp(0x12), "animated WebP.*convert"), (jpeg, "picture: .*single")]
    for data, message in [*cases, (several + several, "picture: .*single"), (still, "picture: .*single")]:
        with pytest.raises(MediaError, match=message):
            seen(tmp_path / "a", data)
    assert seen(tmp_path / "a", jpeg * 3)[1] == []


KINDS = [("nut", "video"), ("mxf", "video"), ("swf", "video"), ("sox", "sound")]


@pytest.mark.parametrize(("form", "kind"), KINDS)
def test_other_kinds_are_refused_by_name(tmp_path, form, kind):
    """With a command that converts them."""
    videos = {"nut": "mpeg4", "mxf": "mpeg2video", "swf": "flv"}
    data = encoded(form, "pcm_s32le") if kind == "sound" else muxed(form, form, videos[form])[1]
    with pytest.raises(MediaError, match=rf"^unreadable: .*{kind} of a kind that is not read.*ffmpeg -i FILE"):
        heard(tmp_path / "a", data)


@pytest.mark.parametrize(("orientation", "upright"), [(1, "as it is"), (3, "half"), (6, "right"), (8, "left")])
def test_pictures_with_exif_are_turned(tmp_path, orientation, upright):
    """Each picture of the stream says how the camera was held, as an EXIF block that PyAV does not know."""
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x112, 3, 1, orientation, 0)
    block = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    data = muxed("mjpeg", "mjpeg", "mjpeg", pixels="yuvj420p")[1]
    (tmp_path / "plain").write_bytes(data)
    (tmp_path / "held").write_bytes(data.replace(b"\xff\xd8\xff", b"\xff\xd8" + block + b"\xff"))
    size = (32, 48) if orientation < 5 else (48, 32)
    plain = read_frames(tmp_path / "plain", Picture(25, 32, 48, "stretch"))[0][0]
    held = read_frames(tmp_path / "held", Picture(25, *size, "stretch"))[0][0]
    turns = {"as it is": 0, "half": 2, "right": 3, "left": 1}[upright]
    assert np.array_equal(held, np.rot90(plain, turns))


@pytest.mark.parametrize("codec", ["eac3", "tta", "wavpack", "ac3"])
def test_other_sounds_are_read(tmp_path, codec):
    form = {"wavpack": "wv"}.get(codec, codec)
    samples, codes = heard(tmp_path / "a", encoded(form, codec), 48000 if "ac3" in codec else 16000)
    assert codes == [] and abs(len(samples) - SAMPLES * (3 if "ac3" in codec else 1)) < 1600


# ---------------------------------------------------------------- standard input, endings
@pytest.mark.parametrize(
    "kind", ["aiff", "caf", "au", "rf64", "w64", "wav", "flac", "webm", "mp4", "tta", "asf", "flv", "ogg"]
)
def test_no_file_is_taken_for_raw_samples(monkeypatch, kind):
    sounds = {"mp4": "aac", "tta": "tta", "asf": "wmav2", "flv": "aac", "ogg": "flac", "webm": "libopus"}
    data = HALVES[kind] if kind in HALVES else encoded(kind, sounds[kind])
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(data))))
    with pytest.raises(ConfigError, match="got a file with a header"):
        next(Stdin().pieces(InputSpec(16000)))


def test_endings_of_everything_that_is_read(tmp_path):
    sounds = ".weba .m4b .spx .snd .voc .ape .wv .mpc .tta .dsf .wma .amr .mka .ac3 .eac3 .dts .mp2 .oga .wave .w64 .rf64 .aifc .caf"
    videos = ".3g2 .m2v .h264 .265 .hevc .ivf .ogv .mjpeg .apng .m4v .webm .mts .vob .flv .wmv .gif .mkv .avi"
    assert set(sounds.split()) <= AUDIO and set(videos.split()) <= VIDEO and not AUDIO & VIDEO
    assert not {".txt", ".jpg", ".png", ".srt", ".m3u8", ".pt", ".csv", ".json", ".heic", ".avif"} & (AUDIO | VIDEO)
    assert {".wav", ".flac", ".aiff", ".au", ".caf", ".w64", ".rf64", ".ogg", ".mp3", ".nist"} <= AUDIO
    for name in [*sounds.split(), *videos.split()]:
        (tmp_path / f"a{name.upper()}").touch()
    assert len(media_files(tmp_path, "dataset.root")) == len(sounds.split()) + len(videos.split())
    assert "WAV" in soundfile.available_formats()
