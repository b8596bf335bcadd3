"""Video files to pictures: probe, decode by time stamp, upright and in true colours, resampled to a model's rate.

PyAV reads. Pictures come one by one, so an hour streams in flat memory, and only those that the model will see are
converted. What is doubtful is a ``Warning`` code on the facts, what is unusable a ``MediaError`` with a code.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from pipeline.errors import MediaError
from pipeline.media import admit, open_file
from pipeline.picture import Image, Images, Picture, on_grid

PIXELS = 7680 * 4320  # of one frame, at most
HOLE = 1.0  # seconds without a frame, and ten usual frame periods, that count as a gap
LONGEST_HOLE = 3600.0  # seconds; beyond, the time stamps are nonsense
APART = 0.5  # seconds by which the tracks of one file may differ in length
BROKEN = 500  # packets in a row that cannot be decoded, until the rest is given up
HDR = {16, 18}  # transfer characteristics: PQ, HLG
BLOCK = 16  # pictures handed over at once
PICTURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}  # first bytes of single pictures


@dataclass
class VideoFacts:
    """What is known of a video track: the header's claims, and once it is read, the truth."""

    width: int  # of the pictures as they come out: upright, square pixels not assumed (see ``aspect``)
    height: int
    aspect: float  # width of a coded pixel by its height
    rate: float  # frames a second on average, as declared; 0 if unknown
    length: float | None  # seconds, as declared
    start: Fraction = Fraction(0)  # of the first frame, in seconds on the file's clock
    decoded: int = 0  # frames
    end: Fraction = Fraction(0)  # of the last frame, in seconds after the first frame's start
    warnings: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Decoded length."""
        return float(self.end)

    def warn(self, code: str) -> None:
        """Note a warning once."""
        if code not in self.warnings:
            self.warnings.append(code)


def probe_video(path: str | os.PathLike[str]) -> VideoFacts:
    """Header of a video file, without decoding it. MediaError if it has no readable pictures within the limits."""
    name = os.fspath(path)
    with open_video(name) as container:
        return facts_of(container, name)


def open_video(name: str) -> av.container.InputContainer:
    """A file with at least one video track; a cover picture is none."""
    admit(name)
    with open(name, "rb") as file:
        start = file.read(12)
    kind = next((kind for magic, kind in PICTURES.items() if start.startswith(magic)), None)
    kind = "WebP" if start[:4] == b"RIFF" and start[8:] == b"WEBP" else kind
    if kind:
        raise MediaError("picture", f"{name}: a single {kind} picture; expected a video")
    container = open_file(name)
    if not tracks(container):
        container.close()
        raise MediaError("no_video", f"{name}: has no video track")
    return container


def tracks(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The video tracks that are no cover pictures and have a decoder."""
    cover = av.stream.Disposition.attached_pic
    return [track for track in container.streams.video if not track.disposition & cover]


def facts_of(container: av.container.InputContainer, name: str) -> VideoFacts:
    """What the header says of the first video track; refuses what is beyond the limits."""
    track = tracks(container)[0]
    if track.codec_context is None:
        raise MediaError("unsupported_codec", f"{name}: no decoder for this kind of video")
    if track.width * track.height > PIXELS:
        raise MediaError("limit_pixels", f"{name}: frames of {track.width}x{track.height}; expected at most {PIXELS}")
    aspect = float(track.sample_aspect_ratio or 1)
    length = declared(track, container)
    facts = VideoFacts(track.width, track.height, aspect, float(track.average_rate or 0), length)
    if len(tracks(container)) > 1:
        facts.warn("many_streams")
    for sound in container.streams.audio:
        other = declared(sound, container)
        if length is not None and other is not None and abs(length - other) > APART:
            facts.warn("length_mismatch")
    return facts


def declared(track: av.stream.Stream, container: av.container.InputContainer) -> float | None:
    """Seconds that the header claims for a track."""
    if track.duration and track.time_base:
        return float(track.duration * track.time_base)
    if len(container.streams) == 1 and container.duration:
        return container.duration / av.time_base - max(0, container.start_time or 0) / av.time_base
    return None


@dataclass
class Shown:
    """A decoded frame that is not converted yet, and how it must be turned."""

    frame: av.VideoFrame
    converter: VideoReformatter
    pixel: float  # width of a coded pixel by its height

    def image(self) -> Image:
        """RGB ``(H, W, 3)``, upright, in full range."""
        rgb: Image = self.converter.reformat(self.frame, format="rgb24", threads=1).to_ndarray()  # type: ignore[assignment]
        turns = round(self.frame.rotation / 90)
        return np.rot90(rgb, turns) if turns % 4 else rgb

    @property
    def aspect(self) -> float:
        """Width of a pixel by its height, once upright."""
        return 1 / self.pixel if round(self.frame.rotation / 90) % 2 else self.pixel


def decode(name: str, facts: VideoFacts, threads: int = 0) -> Iterator[tuple[Fraction, Fraction, Shown]]:
    """Frames of the first video track: start and end in seconds after the first frame's start, and the frame.

    ``threads`` decode (0: FFmpeg's choice). Time stamps that fall or repeat are dropped; damaged packets are left out.
    """
    converter = VideoReformatter()
    zero: Fraction | None = None
    last, period, size = Fraction(-1), Fraction(0), (0, 0)
    with open_video(name) as container:
        for frame in frames_of(container, facts, threads):
            within_limits(frame, facts, name)
            if frame.pts is None or frame.time_base is None:
                time = last + (period or Fraction(1, 25)) + (zero or 0)
            else:
                time = frame.pts * frame.time_base
            if zero is None:
                zero = facts.start = time
                turned = round(frame.rotation / 90) % 2
                facts.width, facts.height = (frame.height, frame.width) if turned else (frame.width, frame.height)
                size = frame.width, frame.height
            if (frame.width, frame.height) != size:
                facts.warn("size_change")
            time -= zero
            if time <= last:
                facts.warn("time_stamps")
                continue
            step = time - last if last >= 0 else Fraction(0)
            if period and step > HOLE and step > 10 * period:
                facts.warn("gap")
            if step > LONGEST_HOLE:
                raise MediaError("limit_duration", f"{name}: {float(step):.0f} s between two frames")
            known = frame.duration * frame.time_base if frame.duration and frame.time_base else Fraction(0)
            last, period = time, (known or step or period or Fraction(1, 25))
            facts.decoded += 1
            facts.end = time + period
            yield time, facts.end, Shown(frame, converter, facts.aspect)
    finished(name, facts)


def frames_of(container: av.container.InputContainer, facts: VideoFacts, threads: int = 0) -> Iterator[av.VideoFrame]:
    """Decoded frames; packets that cannot be decoded are noted and left out."""
    track = tracks(container)[0]
    track.thread_type = "AUTO"
    track.codec_context.thread_count = threads
    broken = 0
    packets = container.demux(track)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, UnicodeDecodeError):
            facts.warn("decode_errors")
            return
        try:
            frames = packet.decode()
            broken = 0
        except (av.FFmpegError, UnicodeDecodeError):
            facts.warn("decode_errors")
            broken += 1
            if broken > BROKEN:
                return
            continue
        for frame in frames:
            if frame.is_corrupt:
                facts.warn("decode_errors")
            yield frame


def within_limits(frame: av.VideoFrame, facts: VideoFacts, name: str) -> None:
    """Note what is strange about a frame; refuse one that is too large."""
    if frame.width * frame.height > PIXELS:
        raise MediaError("limit_pixels", f"{name}: frames of {frame.width}x{frame.height}; expected at most {PIXELS}")
    if frame.interlaced_frame:
        facts.warn("interlaced")
    if frame.color_trc in HDR:
        facts.warn("hdr")


def finished(name: str, facts: VideoFacts) -> None:
    """What can be told once all is decoded."""
    if not facts.decoded:
        code = "unreadable" if facts.length or facts.warnings else "no_frames"  # promised, or none to begin with
        raise MediaError(code, f"{name}: no frame of the video can be decoded")
    if facts.length and facts.seconds < facts.length - max(0.2, 0.02 * facts.length):
        facts.warn("truncated")


def open_frames(
    path: str | os.PathLike[str],
    picture: Picture,
    start: float = 0.0,
    end: float | None = None,
    threads: int = 0,
) -> tuple[VideoFacts, Iterator[Images]]:
    """Facts of a video, and blocks ``(n, height, width, 3)`` of its pictures from ``start`` to ``end`` seconds.

    The facts fill up while the blocks are drawn.
    """
    name = os.fspath(path)
    facts = probe_video(name)
    return facts, blocks(fitted(decode(name, facts, threads), picture, start, end))


def fitted(
    frames: Iterator[tuple[Fraction, Fraction, Shown]], picture: Picture, start: float, end: float | None
) -> Iterator[Image]:
    """The pictures of the asked part on the model's grid, in its size."""
    first = round(start * picture.rate)
    last = round(end * picture.rate) if end is not None else None
    position = 0
    for shown, count in on_grid(frames, picture.rate):
        wanted = range(max(position, first), position + count if last is None else min(position + count, last))
        position += count
        if wanted:
            image = picture.fit(shown.image(), shown.aspect)
            for _ in wanted:
                yield image
        if last is not None and position >= last:
            return


def blocks(images: Iterator[Image], size: int = BLOCK) -> Iterator[Images]:
    """Pictures gathered into arrays of ``size``; the last may be shorter."""
    waiting: list[Image] = []
    for image in images:
        waiting.append(image)
        if len(waiting) == size:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


def read_frames(
    path: str | os.PathLike[str], picture: Picture, start: float = 0.0, end: float | None = None
) -> tuple[Images, VideoFacts]:
    """A whole video, or its part from ``start`` to ``end`` seconds, as ``(T, height, width, 3)``."""
    facts, parts = open_frames(path, picture, start, end)
    found = list(parts)
    if not found:
        raise MediaError("no_frames", f"no pictures from {start} to {end} s")
    return np.concatenate(found), facts
