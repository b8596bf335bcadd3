"""Audio files to samples: probe, read in blocks, read whole. Mono, resampled, checked.

soundfile reads PCM, FLAC and OGG. PyAV reads MP3 (it tells of damage, which soundfile skips in silence), every other
container, and what soundfile gives up. Whatever reads, the same rules hold on top: regular files only, read as what
their bytes say they are (``sniff``) and as nothing else, limits before any allocation, non-finite samples set to zero,
and the decoded length compared with the declared one. What is doubtful is a ``Warning`` code on the result, what is
unusable a ``MediaError`` with a code.
"""

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from pipeline.core.errors import MediaError
from pipeline.media.container import admit, decoded_frames, open_file
from pipeline.media.part import FileBytes, Part

Samples = NDArray[np.float32]
BLOCK = 1 << 16  # frames decoded at once
RATES = (1_000, 384_000)  # Hz
CHANNELS = 64
PLAIN = re.compile(  # how files begin that libsndfile reads
    rb"(?:RIFF|RIFX|RF64|BW64).{4}WAVE|OggS\0|fLaC|riff\x2e\x91\xcf\x11|FORM.{4}AIF[FC]|caff\0\x01|\.snd|NIST_1A"
    rb"|Creative Voice File|ID3|\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]",
    re.DOTALL,
)
FIXED_SIZE = (1, 3, 0xFFFE)  # WAVE codecs with the same number of bytes for each frame
UNKNOWN_SIZE = 0xFFFF_F000  # from here on, what a pipe writes when it does not know
LOUDEST = 32.0  # full scale is 1; beyond this it is no sound
FULL = 0.999  # of full scale
SHORTEST = 0.025  # seconds: below, not even one analysis window is filled
HOLE = 0.1  # seconds without a sample that count as a gap
LONGEST_HOLE = 3600.0  # seconds; beyond, the time stamps are nonsense


@dataclass
class Facts:
    """What is known of a recording: the header's claims, and once it is read, the truth."""

    rate: int
    channels: int
    frames: int | None  # as declared; None if unknown
    exact: bool = False  # the claim is a count, not an estimate
    start: Fraction = Fraction(0)  # of the first sample, in seconds on the file's clock
    decoded: int = 0  # frames that came out, at ``rate``
    warnings: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Decoded length."""
        return self.decoded / self.rate

    def warn(self, code: str) -> None:
        """Note a warning once."""
        if code not in self.warnings:
            self.warnings.append(code)


def probe(path: str | os.PathLike[str]) -> Facts:
    """Header of a file, without decoding it. MediaError if it is no readable audio within the limits."""
    facts, sound = opened(os.fspath(path))
    if sound:
        sound.close()
    return facts


def opened(name: str) -> tuple[Facts, soundfile.SoundFile | None]:
    """Header of a file, and the file itself if libsndfile is to read it."""
    head = admit(name)
    header = wav_header(name) if head.startswith(b"RIFF") else None
    if header:
        within_limits(header)
    sound = open_plain(name, head)
    if sound is None:
        return probe_by_av(name), None
    try:
        facts = within_limits(Facts(sound.samplerate, sound.channels, sound.frames or None))
        chained = False
        if sound.format == "OGG":
            chained, ended = ogg_ends(name)
            if not ended:
                facts.warn("truncated")
    except BaseException:
        sound.close()
        raise
    if header:  # libsndfile silently mends a length that the file does not hold
        facts.frames, facts.warnings, facts.exact = header.frames, header.warnings, header.exact
    killed = not sound.frames and "unknown_length" in facts.warnings  # the recorder was; FFmpeg reads on
    if killed or chained or sound.format == "MP3":
        sound.close()
        return facts, None
    return facts, sound


def open_plain(name: str, head: bytes) -> soundfile.SoundFile | None:
    """A file that libsndfile can read; None for any other."""
    if not PLAIN.match(head):
        return None
    nameless = isinstance(name, Part) or head.startswith((b"ID3", b"\xff"))  # beside an MP3, it would look for others
    try:
        return soundfile.SoundFile(FileBytes(name) if nameless else os.fsencode(name))
    except soundfile.LibsndfileError:
        return None


def probe_by_av(name: str) -> Facts:
    """Header of a file with a sound track."""
    with open_container(name) as container:
        stream = container.streams.audio[0]
        if not getattr(stream, "rate", None):
            raise MediaError("unsupported_codec", f"{name}: no decoder for this kind of sound") from None
        frames = None
        if stream.duration and stream.time_base:
            frames = round(stream.duration * stream.time_base * stream.rate)
        return within_limits(Facts(stream.rate, stream.codec_context.channels, frames))


def wav_header(name: str) -> Facts | None:
    """What a RIFF WAVE header claims; None for any other file, or a header cut short."""
    with FileBytes(name) as file:
        start = file.read(12)
        if start[:4] != b"RIFF" or start[8:] != b"WAVE":
            return None
        rate = channels = align = codec = 0
        while len(chunk := file.read(8)) == 8:
            kind, size = chunk[:4], int.from_bytes(chunk[4:], "little")
            if kind == b"data":
                counted = codec in FIXED_SIZE and align > 0 and 0 < size < UNKNOWN_SIZE
                facts = Facts(rate, channels, size // align if counted else None, exact=counted)
                here = file.tell()
                if not 0 < size < UNKNOWN_SIZE and file.seek(0, os.SEEK_END) > here:
                    facts.warn("unknown_length")
                return facts
            body = file.read(16) if kind == b"fmt " else b""
            if len(body) == 16:
                codec, channels, rate, _, align, _ = struct.unpack("<HHIIHH", body)
            file.seek(size + size % 2 - len(body), os.SEEK_CUR)
    return None


def ogg_ends(name: str) -> tuple[bool, bool]:
    """Whether an Ogg file is several streams one after another, and whether its last page is there and says so."""
    with FileBytes(name) as file:
        first = file.read(18)
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2**16))  # no page is longer
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    whole = len(page) > 26 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    return page[14:18] != first[14:18], whole and bool(page[5] & 4)


def within_limits(facts: Facts) -> Facts:
    """Refuse absurd headers; ``facts`` otherwise."""
    if facts.rate <= 0 or facts.channels <= 0:
        raise MediaError("bad_header", f"the header says {facts.rate} Hz and {facts.channels} channels")
    if not RATES[0] <= facts.rate <= RATES[1]:
        raise MediaError("limit_rate", f"{facts.rate} Hz; expected {RATES[0]} to {RATES[1]}")
    if facts.channels > CHANNELS:
        raise MediaError("limit_channels", f"{facts.channels} channels; expected at most {CHANNELS}")
    return facts


def open_container(name: str) -> av.container.InputContainer:
    """A file with at least one sound track."""
    container = open_file(name)
    if not container.streams.audio:
        container.close()
        raise MediaError("no_audio", f"{name}: has no sound track")
    return container


def read(
    path: str | os.PathLike[str], rate: int, start: float = 0.0, end: float | None = None
) -> tuple[Samples, Facts]:
    """A whole recording as mono float32 samples ``(N,)`` at ``rate`` Hz, or its part ``start`` to ``end`` seconds."""
    facts, blocks = open_blocks(path, rate, start, end)
    parts = list(blocks)
    return (np.concatenate(parts) if parts else np.zeros(0, np.float32)), facts


def open_blocks(
    path: str | os.PathLike[str], rate: int, start: float = 0.0, end: float | None = None
) -> tuple[Facts, Iterator[Samples]]:
    """Facts of a recording and its mono blocks at ``rate`` Hz; the facts fill up while the blocks are drawn.

    Block by block and in one go give the same samples bit for bit: one streaming resampler does both.
    """
    name = os.fspath(path)
    facts, sound = opened(name)
    return facts, resampled(checked(decoded(name, facts, sound), facts, start, end), facts, rate)


def decoded(name: str, facts: Facts, sound: soundfile.SoundFile | None) -> Iterator[NDArray[np.float32]]:
    """Raw blocks ``(n, channels)`` from whichever library reads the file: ``sound``, or FFmpeg."""
    if sound is None:
        yield from decoded_by_av(name, facts)
        return
    position = 0
    with sound:
        while True:
            try:
                block: NDArray[np.float32] = sound.read(BLOCK, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                facts.warn("decode_errors")
                break
            if not len(block):
                return
            position += len(block)
            yield block
    for block in decoded_by_av(name, facts):  # FFmpeg goes on behind damage
        if position < len(block):
            yield block[position:]
        position = max(0, position - len(block))


def decoded_by_av(name: str, facts: Facts) -> Iterator[NDArray[np.float32]]:
    """The first sound track through PyAV, as float32 blocks; holes between time stamps become silence."""
    resampler, kind = None, None
    end: Fraction | None = None  # of what came out so far
    with open_container(name) as container:
        for frame in decoded_frames(container, container.streams.audio[0], facts.warn):
            if resampler is None or kind != (frame.sample_rate, frame.format.name, frame.layout.name):
                if kind and kind[0] != frame.sample_rate:
                    facts.warn("rate_change")
                kind = frame.sample_rate, frame.format.name, frame.layout.name
                resampler = av.AudioResampler(format="flt", rate=facts.rate)
            time = end if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
            if end is None:
                facts.start = end = time or Fraction(0)
            elif time is not None and time - end > HOLE:
                yield from silence(time - end, facts, name)
                end = time
            try:
                parts = resampler.resample(frame)
            except (av.FFmpegError, ValueError):
                facts.warn("decode_errors")
                continue
            for part in parts:
                end += Fraction(part.samples, facts.rate)
                yield part.to_ndarray().astype(np.float32, copy=False).reshape(-1, len(part.layout.channels))


def silence(length: Fraction, facts: Facts, name: str) -> Iterator[NDArray[np.float32]]:
    """Zeros for so many seconds."""
    if length > LONGEST_HOLE:
        raise MediaError("limit_duration", f"{name}: {float(length):.0f} s between two samples")
    facts.warn("gap")
    missing = round(length * facts.rate)
    for start in range(0, missing, BLOCK):
        yield np.zeros((min(BLOCK, missing - start), 1), np.float32)


def checked(blocks: Iterator[NDArray[np.float32]], facts: Facts, start: float, end: float | None) -> Iterator[Samples]:
    """Mono blocks of the asked part, with what is wrong about them noted in ``facts``."""
    first = round(start * facts.rate)
    last = round(end * facts.rate) if end is not None else None
    position, loudest, stereo_loudest, total, full = 0, 0.0, 0.0, 0.0, 0
    for block in blocks:
        left, right = max(0, first - position), (None if last is None else max(0, last - position))
        position += len(block)
        block = block[left:right]
        if not len(block):
            if last is not None and position >= last:
                break
            continue
        peak = greatest(block)
        if not peak <= LOUDEST:
            block = tamed(block, facts)
            peak = greatest(block)
        mono = block.mean(1) if block.shape[1] > 1 else block[:, 0]
        high = greatest(mono) if block.shape[1] > 1 else peak
        loudest, stereo_loudest = max(loudest, high), max(stereo_loudest, peak)
        total += float(mono.sum(dtype=np.float64))
        full += int((np.abs(mono) >= FULL).sum()) if high >= FULL else 0
        facts.decoded += len(mono)
        yield mono
    whole = start == 0 and end is None
    slack = 0.0 if facts.exact else facts.rate * 0.05 + 0.001 * (facts.frames or 0)
    if whole and facts.frames and facts.decoded < facts.frames - slack:
        facts.warn("truncated")
    if not facts.decoded:
        raise MediaError("no_samples", "the file has no samples" if whole else f"no samples from {start} to {end} s")
    if facts.seconds < SHORTEST:
        facts.warn("too_short")
        return
    if abs(total) > 0.1 * facts.decoded:
        facts.warn("dc_offset")
    if full > 0.01 * facts.decoded:
        facts.warn("clipped")
    if loudest < 0.01 * stereo_loudest and stereo_loudest > 1e-3:
        facts.warn("downmix_cancels")
    elif loudest < 1e-6:
        facts.warn("silent")


def greatest(samples: NDArray[np.float32]) -> float:
    """The greatest magnitude; NaN if any sample is."""
    return max(float(samples.max()), -float(samples.min()))


def tamed(block: NDArray[np.float32], facts: Facts) -> NDArray[np.float32]:
    """Non-finite samples become 0, absurd ones +-1; both are noted."""
    finite = np.isfinite(block)
    if not finite.all():
        facts.warn("nonfinite")
    if np.abs(block, where=finite, out=np.zeros_like(block)).max(initial=0.0) > LOUDEST:
        facts.warn("clipped")
    return sane(block)


def sane(samples: Samples) -> Samples:
    """Samples that no filter and no network chokes on: non-finite ones are 0, absurd ones +-1."""
    samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return np.where(np.abs(samples) > LOUDEST, np.sign(samples), samples)


def resampled(blocks: Iterator[Samples], facts: Facts, rate: int) -> Iterator[Samples]:
    """``blocks`` at ``rate`` Hz through one streaming resampler (soxr, high quality)."""
    if facts.rate == rate:
        yield from blocks
        return
    convert, total = Resampler(facts.rate, rate), 0
    for block in blocks:
        ready = convert(block)
        total += len(ready)
        yield ready
    rest = convert.close()
    if not total + len(rest):
        raise MediaError("no_samples", f"{facts.decoded} samples at {facts.rate} Hz are none at {rate} Hz")
    yield rest


class Resampler:
    """A stream of mono samples at one rate to another; any block lengths give the same samples."""

    def __init__(self, source: int, target: int) -> None:
        """Rates in Hz."""
        self.stream = soxr.ResampleStream(source, target, 1, dtype="float32", quality="HQ")

    def __call__(self, block: Samples) -> Samples:
        """The samples that are ready after this block."""
        ready: Samples = self.stream.resample_chunk(np.ascontiguousarray(sane(block))).reshape(-1)
        return ready

    def close(self) -> Samples:
        """The samples still held back."""
        rest: Samples = self.stream.resample_chunk(np.zeros(0, np.float32), last=True).reshape(-1)
        return rest


AUDIO = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".aif", ".au", ".caf", ".w64"}
AUDIO |= {".aifc", ".wma", ".amr", ".ac3", ".mka", ".mp2"}
VIDEO = {".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".3gp", ".wmv", ".gif"}
VIDEO |= {".asf", ".flv", ".m2ts", ".ogv", ".vob"}


def media_files(folder: Path) -> list[Path]:
    """Audio and video files below ``folder`` by their endings, hidden ones left out, sorted."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in AUDIO | VIDEO)
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
