"""Small recordings of every kind, and thousands of ways to damage them, the same for ever."""

import functools
import io
import re
import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile

EXTREMES = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\x80\0\0\0", b"\0\0\0\x80")


# ---------------------------------------------------------------- what is damaged
def wave(rate=16000, seconds=0.4):
    t = np.arange(int(rate * seconds)) / rate
    return (0.3 * np.sin(2 * np.pi * 440 * t) + 0.02 * np.random.default_rng(0).standard_normal(len(t))).astype(
        np.float32
    )


def sounded(form, subtype, ending, channels=1):
    """A sound by libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.repeat(wave()[:, None], channels, 1), 16000, format=form, subtype=subtype)
    return ending, buffer.getvalue()


def muxed(form, ending, picture=None, sound=None, pixels="yuv420p", **options):
    """A container by FFmpeg, with a track of either kind."""
    with tempfile.NamedTemporaryFile(suffix=f".{ending}") as file:
        with av.open(file.name, "w", format=form, options=options) as container:
            tracks = [seen(container, picture, pixels)] if picture else []
            tracks += [spoken(container, sound)] if sound else []
            for track, frames in tracks:
                for frame in [*frames, None]:
                    container.mux(track.encode(frame))
        return ending, Path(file.name).read_bytes()


def seen(container, codec, pixels):
    """A track of moving noise, and its frames."""
    track = container.add_stream(codec, rate=25)
    track.width, track.height, track.pix_fmt = 48, 32, pixels
    track.options = {"libx264": {"preset": "ultrafast", "g": "4"}, "libx265": {"x265-params": "log-level=none"}}.get(
        codec, {}
    )
    noise = np.random.default_rng(1).integers(0, 255, (4, 6, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return track, [av.VideoFrame.from_ndarray(np.roll(noise, 4 * n, 1), format="rgb24") for n in range(8)]


def spoken(container, codec):
    """A track of sound, and its frames."""
    rate = {"libopus": 48000, "ac3": 48000, "wmav2": 44100}.get(codec, 16000)
    track = container.add_stream(codec, rate=rate, layout="mono")
    track.bit_rate = 64000
    track.codec_context.open()
    size, kind = track.codec_context.frame_size or 1024, track.codec_context.format.name
    samples = wave(rate)
    starts = range(0, len(samples) - size, size)
    return track, [heard(samples[start : start + size], rate, start, kind) for start in starts]


def heard(block, rate, pts, form):
    """Samples as an encoder takes them."""
    frame = av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts = rate, pts
    (ready,) = av.AudioResampler(format=form, layout="mono", rate=rate).resample(frame)
    return ready


def tagged(ending, data):
    """Behind an ID3 tag."""
    return ending, b"ID3\3\0\0\0\0\0\x20" + b"TIT2\0\0\0\3\0\0\0hi".ljust(32, b"\0") + data


@functools.cache
def sounds():
    """One small file of each kind that holds sound: its ending, and its bytes."""
    return [
        sounded("WAV", "PCM_16", "wav"), sounded("WAV", "FLOAT", "wav", 2), sounded("WAV", "MS_ADPCM", "wav"),
        sounded("RF64", "PCM_24", "wav"), sounded("W64", "PCM_16", "w64"), sounded("AIFF", "PCM_16", "aiff"),
        sounded("CAF", "ALAC_16", "caf"), sounded("AU", "PCM_16", "au"), sounded("FLAC", "PCM_16", "flac", 2),
        sounded("OGG", "VORBIS", "ogg"), sounded("OGG", "OPUS", "opus"), sounded("MP3", "MPEG_LAYER_III", "mp3"),
        tagged(*sounded("MP3", "MPEG_LAYER_III", "mp3")), tagged(*sounded("FLAC", "PCM_16", "flac")),
        muxed("adts", "aac", sound="aac"), muxed("ipod", "m4a", sound="aac"), muxed("ac3", "ac3", sound="ac3"),
        muxed("webm", "webm", sound="libopus"), muxed("asf", "wma", sound="wmav2"), muxed("mp4", "mp4", "mpeg4", "aac"),
    ]  # fmt: skip


@functools.cache
def pictures():
    """One small file of each kind that holds pictures."""
    return [
        muxed("mp4", "mp4", "libx264"), muxed("mp4", "mp4", "libx264", "aac", movflags="faststart"),
        muxed("mp4", "mp4", "libx264", movflags="frag_keyframe+empty_moov"), muxed("mov", "mov", "png", pixels="rgba"),
        muxed("matroska", "mkv", "ffv1", "flac", pixels="yuv444p"), muxed("matroska", "mkv", "libx264", "aac"),
        muxed("webm", "webm", "libvpx-vp9", "libopus"), muxed("avi", "avi", "mpeg4", "mp2"),
        muxed("avi", "avi", "mjpeg", pixels="yuvj420p"), muxed("mpegts", "ts", "libx264", "aac"),
        muxed("mpegts", "ts", "mpeg2video", "mp2"), muxed("mpeg", "mpg", "mpeg1video", "mp2"),
        muxed("asf", "wmv", "wmv2", "wmav2"), muxed("flv", "flv", "libx264", "aac"),
        muxed("gif", "gif", "gif", pixels="rgb8"), muxed("3gp", "3gp", "mpeg4"), muxed("mpeg2video", "mpg", "mpeg2video"),
        muxed("ogg", "ogv", "libvpx"), muxed("avi", "avi", "msmpeg4"), muxed("matroska", "mkv", "rawvideo"),
    ]  # fmt: skip


# ---------------------------------------------------------------- how
def flipped(rng, data, other):
    """Some bytes are others."""
    for at in rng.integers(0, len(data), rng.integers(1, 40)):
        data[at] = rng.integers(256)
    return data


def beheaded(rng, data, other):
    """The same where a header is likely."""
    for at in rng.integers(0, min(len(data), 600), rng.integers(1, 12)):
        data[at] = rng.integers(256)
    return data


def cut(rng, data, other):
    """The end is missing."""
    return data[: rng.integers(1, len(data))]


def spliced(rng, data, other):
    """Another file goes on."""
    return data[: rng.integers(1, len(data))] + other[rng.integers(0, len(other)) :]


def inserted(rng, data, other):
    """A piece of the file, or nothing but zeros, somewhere."""
    at, start, size = (int(n) for n in rng.integers(0, len(data), 3))
    piece = data[start : start + size % 999] if rng.integers(2) else bytes(size % 999)
    return data[:at] + piece + data[at:]


def removed(rng, data, other):
    """A piece is missing."""
    at = rng.integers(0, len(data))
    return data[:at] + data[at + rng.integers(1, 999) :]


def blown(rng, data, other):
    """What may be a length is absurd."""
    for at in rng.integers(0, min(len(data), 4000), rng.integers(1, 5)):
        data[at : at + 4] = EXTREMES[rng.integers(len(EXTREMES))]
    return data


def sized(rng, data, other):
    """A field of a header that names a part of the file is followed, or led, by another number."""
    names = [found.end() for found in re.finditer(rb"[A-Za-z ]{4}", bytes(data[:20_000]))]
    for at in rng.choice(names or [4], min(3, len(names or [4]))):
        at = int(at) - (8 if rng.integers(2) else 0)
        if at >= 0:
            data[at : at + 4] = EXTREMES[rng.integers(len(EXTREMES))] if rng.integers(2) else rng.bytes(4)
    return data


WAYS = (flipped, beheaded, cut, spliced, inserted, removed, blown, sized)


def mutant(number, seeds):
    """The ending and the bytes of mutant ``number``: one of the seeds, damaged once or twice."""
    rng = np.random.default_rng(number)
    ending, data = seeds[number % len(seeds)]
    _, other = seeds[rng.integers(len(seeds))]
    for _ in range(rng.integers(1, 3)):
        data = WAYS[rng.integers(len(WAYS))](rng, bytearray(data), other) or bytearray(b"\0")
    return ending, bytes(data)
