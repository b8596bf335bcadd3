"""Audio files to samples: probe, read in blocks, read whole. Mono, resampled, checked.

soundfile reads PCM, FLAC and OGG. PyAV reads MP3 (it reports damage, which soundfile skips in silence), every other
container, and what soundfile gives up. The same rules hold for both: regular files only, limits before any allocation,
non-finite samples set to zero, and the decoded length compared with the declared one. What is doubtful is a code in the
``warnings`` of the result, what is unusable a ``MediaError`` with a code.
"""

import os
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import TypeAlias

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from pipeline.core.errors import MediaError
from pipeline.media.chunked import Structure
from pipeline.media.container import admit, decoded_frames, open_file
from pipeline.media.formats import GUESSING
from pipeline.media.info import AudioInfo
from pipeline.media.part import FileBytes, Part, PathLike
from pipeline.media.seek import decoded_so_far, seek
from pipeline.media.structure import MAX_PAGE_BYTES, counts_frames, examine, starts_again

Samples = NDArray[np.float32]
Block: TypeAlias = NDArray[np.float32]  # (n, channels)
BLOCK = 1 << 16  # samples of each channel that are decoded at once
MIN_HZ, MAX_HZ = 1_000, 384_000
MAX_CHANNELS = 64
LIBSNDFILE = re.compile(  # how files begin that libsndfile reads
    rb"(?:RIFF|RIFX|RF64|BW64).{4}WAVE|OggS\0|fLaC|riff\x2e\x91\xcf\x11|FORM.{4}AIF[FC]|caff\0\x01|\.snd|NIST_1A"
    rb"|ID3|\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]",
    re.DOTALL,
)
UNTIMED = {"avi", "amr"}  # FFmpeg counts their bytes instead, by rates that are not always true
GAPLESS = re.compile(r"\s*\w+ \w+ \w+ ([0-9A-Fa-f]{1,16})\b")  # iTunes: 0, samples before, behind, and of the sound
MAX_PADDING = 4096  # samples behind the sound that an encoder of frames adds
UNKNOWN_FRAMES = 1 << 48  # from here on, what libsndfile says if a FLAC does not tell
SLACK_SECONDS = 0.05  # and a thousandth: by which the header of a lossy format may be wrong
MAX_AMPLITUDE = 32.0  # full scale is 1; beyond this it is no sound
CLIPPED_AMPLITUDE = 0.999
MIN_SECONDS = 0.025  # below, not even one analysis window is filled
GAP_SECONDS = 0.1  # without a sample
MAX_GAP_SECONDS = 3600.0  # beyond, the time stamps are nonsense


def probe(path: PathLike) -> AudioInfo:
    """Header of a file, without decoding it. MediaError if it is no readable audio within the limits."""
    info, sound = open_audio(os.fspath(path))
    if sound:
        sound.close()
    return info


def open_audio(name: str) -> tuple[AudioInfo, soundfile.SoundFile | None]:
    """Header of a file, and the file itself if libsndfile is to read it."""
    head = admit(name)
    found = examine(name, head)
    if found.rate or found.channels:
        check_limits(AudioInfo(found.rate, found.channels, None))
    sound = open_by_libsndfile(name, head, found)
    if sound is None:
        info = probe_by_ffmpeg(name)
        if found.several:
            info.warn("joined")
    else:
        known = sound.frames < UNKNOWN_FRAMES
        info = AudioInfo(sound.samplerate, sound.channels, sound.frames if known and sound.frames else None)
        if not known:
            info.warn("unknown_length")
        guessed = found.chunked or (sound.format == "MP3" and not counts_frames(name))
        if info.frames and not guessed:
            info.slack = 0.0 if sound.format == "FLAC" else SLACK_SECONDS * info.rate + 0.001 * info.frames
        if not known or sound.format == "MP3" or (sound.format == "OGG" and is_chained(name)):
            sound.close()
            sound = None
    info.warnings += found.warnings
    return info, sound


def open_by_libsndfile(name: str, head: bytes, found: Structure) -> soundfile.SoundFile | None:
    """A file that libsndfile can read; None for any other."""
    if not LIBSNDFILE.match(head):
        return None
    nameless = isinstance(name, Part) or head.startswith((b"ID3", b"\xff"))  # it looks for other files beside an MP3
    file = found.open(name) if found.view else FileBytes(name) if nameless else os.fsencode(name)
    try:
        return soundfile.SoundFile(file)
    except soundfile.LibsndfileError:
        return None


def probe_by_ffmpeg(name: str) -> AudioInfo:
    """Header of a file with a sound track."""
    with open_sound(name) as container:
        stream = container.streams.audio[0]
        if not getattr(stream, "rate", None):
            raise MediaError("unsupported_codec", f"{name}: no decoder for this kind of sound") from None
        frames = None
        if stream.duration and stream.time_base:
            frames = round(stream.duration * stream.time_base * stream.rate)
        gapless = GAPLESS.match(container.metadata.get("iTunSMPB", ""))
        if frames and gapless:
            frames = min(frames, int(gapless[1], 16) or frames)
        info = check_limits(AudioInfo(stream.rate, stream.codec_context.channels, frames))
        info.padded = container.format.name.startswith("mov")
        if frames and container.format.name not in GUESSING:
            info.slack = SLACK_SECONDS * info.rate + 0.001 * frames
        return info


def is_chained(name: str) -> bool:
    """Whether an Ogg file is several streams one after another: then the serial number of its last page is another."""
    with FileBytes(name) as file:
        first = file.bytes_at(0, 18)
        tail = file.tail(MAX_PAGE_BYTES)
    at = tail.rfind(b"OggS")
    return tail[at + 14 : at + 18] != first[14:18]


def check_limits(info: AudioInfo) -> AudioInfo:
    """``info`` again. MediaError if its header is beyond the limits."""
    if info.rate <= 0 or info.channels <= 0:
        raise MediaError("bad_header", f"the header says {info.rate} Hz and {info.channels} channels")
    if not MIN_HZ <= info.rate <= MAX_HZ:
        raise MediaError("limit_rate", f"{info.rate} Hz; expected {MIN_HZ} to {MAX_HZ}")
    if info.channels > MAX_CHANNELS:
        raise MediaError("limit_channels", f"{info.channels} channels; expected at most {MAX_CHANNELS}")
    return info


def open_sound(name: str) -> av.container.InputContainer:
    """A file with at least one sound track."""
    container = open_file(name)
    if not container.streams.audio:
        container.close()
        raise MediaError("no_audio", f"{name}: has no sound track")
    return container


def read(path: PathLike, rate: int, start: float = 0.0, end: float | None = None) -> tuple[Samples, AudioInfo]:
    """A whole recording as mono float32 samples ``(N,)`` at ``rate`` Hz, or its part ``start`` to ``end`` seconds."""
    info, blocks = open_blocks(path, rate, start, end)
    parts = list(blocks)
    return (np.concatenate(parts) if parts else np.zeros(0, np.float32)), info


def open_blocks(
    path: PathLike, rate: int, start: float = 0.0, end: float | None = None
) -> tuple[AudioInfo, Iterator[Samples]]:
    """Info of a recording and its mono blocks at ``rate`` Hz; the info fills up while the blocks are drawn.

    Block by block and in one go give the same samples bit for bit: one streaming resampler does both. So does a part of
    a recording, which begins by a seek only where that is exact (see ``seek.py``).
    """
    name = os.fspath(path)
    info, sound = open_audio(name)
    begin = seek(name, sound, round(start * info.rate), BLOCK) if sound else 0
    blocks = decode(name, info, sound, begin)
    return info, resample(check_blocks(blocks, info, start, end, begin), info, rate)


def decode(name: str, info: AudioInfo, sound: soundfile.SoundFile | None, begin: int = 0) -> Iterator[Block]:
    """Raw blocks ``(n, channels)`` from sample ``begin`` on, by libsndfile, if it has opened the file as ``sound`` and
    gone there, or by FFmpeg.
    """
    if sound is None:
        yield from decode_by_ffmpeg(name, info)
        return
    position, heard = begin, decoded_so_far(name, sound)
    with sound:
        while True:
            try:
                block: Block = sound.read(BLOCK, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                info.warn("decode_errors")
                break
            if not len(block):
                if not starts_again(name):
                    return
                break
            position += len(block)
            heard.until = max(heard.until or 0, position)
            yield block
    for block in decode_by_ffmpeg(name, info):  # FFmpeg goes on behind damage, and behind the end of the first of many
        if position < len(block):
            yield block[position:]
        position = max(0, position - len(block))


def decode_by_ffmpeg(name: str, info: AudioInfo) -> Iterator[Block]:
    """The first sound track through PyAV, as float32 blocks, without what an encoder has added behind its end: the
    header's length is believed where no more than that follows.
    """
    position, held = 0, list[Block]()
    limit = info.frames if info.frames and info.padded else UNKNOWN_FRAMES
    for block in frames_by_ffmpeg(name, info):
        inside = max(0, limit - position)
        position += len(block)
        if inside:
            yield block[:inside]
        if inside < len(block):
            held.append(block[inside:])
        if position > limit + MAX_PADDING:
            yield from held
            held, limit = [], UNKNOWN_FRAMES


def frames_by_ffmpeg(name: str, info: AudioInfo) -> Iterator[Block]:
    """The same with the padding; holes between time stamps become silence."""
    resampler, kind = None, None
    end: Fraction | None = None  # of what came out so far
    with open_sound(name) as container:
        timed = container.format.name not in UNTIMED
        for frame in decoded_frames(container, container.streams.audio[0], info.warn):
            if frame.is_corrupt:
                info.warn("decode_errors")
            if resampler is None or kind != (frame.sample_rate, frame.format.name, frame.layout.name):
                if kind and kind[0] != frame.sample_rate:
                    info.warn("rate_change")
                kind = frame.sample_rate, frame.format.name, frame.layout.name
                resampler = av.AudioResampler(format="flt", rate=info.rate)
            told = timed and frame.pts is not None and frame.time_base is not None
            time = frame.pts * frame.time_base if told else end
            if end is None:
                info.start = end = time or Fraction(0)
            elif time is not None and time - end > GAP_SECONDS:
                yield from silence(time - end, info, name)
                end = time
            try:
                parts = resampler.resample(frame)
            except (av.FFmpegError, ValueError):
                info.warn("decode_errors")
                continue
            for part in parts:
                end += Fraction(part.samples, info.rate)
                yield part.to_ndarray().astype(np.float32, copy=False).reshape(-1, len(part.layout.channels))


def silence(length: Fraction, info: AudioInfo, name: str) -> Iterator[Block]:
    """Zeros for so many seconds, in blocks."""
    if length > MAX_GAP_SECONDS:
        raise MediaError("limit_duration", f"{name}: {float(length):.0f} s between two samples")
    info.warn("gap")
    missing = round(length * info.rate)
    for start in range(0, missing, BLOCK):
        yield np.zeros((min(BLOCK, missing - start), 1), np.float32)


def check_blocks(
    blocks: Iterator[Block], info: AudioInfo, start: float, end: float | None, begin: int = 0
) -> Iterator[Samples]:
    """Mono blocks of the asked part, with what is wrong about them noted in ``info``; the first of ``blocks`` begins at
    sample ``begin``.
    """
    first = round(start * info.rate)
    last = None if end is None else round(end * info.rate)
    position, mono_peak, peak, total, clipped = begin, 0.0, 0.0, 0.0, 0
    for block in blocks:
        left, right = max(0, first - position), (None if last is None else max(0, last - position))
        position += len(block)
        block = block[left:right]
        if not len(block):
            if last is not None and position >= last:
                break
            continue
        level = magnitude(block)
        if not level <= MAX_AMPLITUDE:
            finite = np.isfinite(block)
            if not finite.all():
                info.warn("nonfinite")
            if np.abs(block, where=finite, out=np.zeros_like(block)).max(initial=0.0) > MAX_AMPLITUDE:
                info.warn("clipped")
            block = sanitize(block)
            level = magnitude(block)
        mono = block.mean(1) if block.shape[1] > 1 else block[:, 0]
        mono_level = magnitude(mono) if block.shape[1] > 1 else level
        mono_peak, peak = max(mono_peak, mono_level), max(peak, level)
        total += float(mono.sum(dtype=np.float64))
        clipped += int((np.abs(mono) >= CLIPPED_AMPLITUDE).sum()) if mono_level >= CLIPPED_AMPLITUDE else 0
        info.decoded += len(mono)
        yield mono
    whole = start == 0 and end is None
    if whole and info.frames and info.decoded < info.frames - info.slack:
        info.warn("truncated")
    if last is not None and position < last - SLACK_SECONDS * info.rate:
        info.warn("beyond_end")
    if not info.decoded:
        raise MediaError("no_samples", "the file has no samples" if whole else f"no samples from {start} to {end} s")
    if info.seconds < MIN_SECONDS:
        info.warn("too_short")
        return
    if abs(total) > 0.1 * info.decoded:
        info.warn("dc_offset")
    if clipped > 0.01 * info.decoded:
        info.warn("clipped")
    if mono_peak < 0.01 * peak and peak > 1e-3:
        info.warn("downmix_cancels")
    elif mono_peak < 1e-6:
        info.warn("silent")


def magnitude(samples: NDArray[np.float32]) -> float:
    """The greatest one; NaN if any sample is."""
    return max(float(samples.max()), -float(samples.min()))


def sanitize(samples: Samples) -> Samples:
    """Samples that no filter and no network chokes on: non-finite ones are 0, absurd ones +-1."""
    samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return np.where(np.abs(samples) > MAX_AMPLITUDE, np.sign(samples), samples)


def resample(blocks: Iterator[Samples], info: AudioInfo, rate: int) -> Iterator[Samples]:
    """``blocks`` at ``rate`` Hz through one streaming resampler (soxr, high quality)."""
    convert, total = Resampler(info.rate, rate), 0
    for block in blocks:
        ready = convert(block)
        total += len(ready)
        yield ready
    rest = convert.close()
    if not total + len(rest):
        raise MediaError("no_samples", f"{info.decoded} samples at {info.rate} Hz are none at {rate} Hz")
    if len(rest):
        yield rest


class Resampler:
    """A stream of mono samples at one rate to another; any block lengths give the same samples. Equal rates change
    nothing.
    """

    def __init__(self, source: int, target: int) -> None:
        """Rates in Hz."""
        same = source == target
        self.stream = None if same else soxr.ResampleStream(source, target, 1, dtype="float32", quality="HQ")

    def __call__(self, block: Samples, last: bool = False) -> Samples:
        """The samples that are ready after this block."""
        if self.stream is not None:
            block = self.stream.resample_chunk(np.ascontiguousarray(sanitize(block)), last=last)
        return block

    def close(self) -> Samples:
        """The samples still held back; what follows begins anew."""
        rest = self(np.zeros(0, np.float32), last=True)
        if self.stream is not None:
            self.stream.clear()
        return rest
