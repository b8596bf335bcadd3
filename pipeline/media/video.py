"""Video files to pictures: probe, decode by time stamp, upright and in true colours, resampled to a model's rate.

PyAV reads. Pictures come one by one, so an hour streams in flat memory, and only those that the model will see are
converted. What is doubtful is a ``Warning`` code on the facts, what is unusable a ``MediaError`` with a code.
"""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import chain, islice, pairwise
from math import ceil
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from pipeline.core.errors import MediaError
from pipeline.core.limits import MAX_PIXELS
from pipeline.media.container import MAX_DECODED_PIXELS, decoded_frames, open_file
from pipeline.media.picture import Image, Images, Picture, exact, on_grid

HOLE = 1.0  # seconds without a frame, and ten usual frame periods, that count as a gap
LONGEST_HOLE = 3600.0  # seconds; beyond, the time stamps are nonsense
APART = 0.5  # seconds by which the tracks of one file may differ in length
HDR = {16, 18}  # transfer characteristics: PQ, HLG
BLOCK = 16  # pictures handed over at once
AHEAD = min(16, 3 * (os.cpu_count() or 1))  # frames decoded at once: with one per core, cores wait beside a model
HEAD = 32  # frames that show whether the time stamps rise; the longest run of B-frames is 16
View = Callable[[float, Image], None]  # gets every decoded picture as it is, with its time in seconds


@dataclass
class VideoFacts:
    """What is known of a video track: the header's claims, and once it is read, the truth."""

    width: int  # of the pictures, square pixels not assumed (see ``aspect``); upright once the first has been read
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
    width, height = size_of(track, name)
    if width * height > MAX_PIXELS:
        raise MediaError("limit_pixels", f"{name}: frames of {width}x{height}; expected at most {MAX_PIXELS}")
    aspect = float(track.sample_aspect_ratio or 1)
    length = declared(track, container)
    facts = VideoFacts(width, height, aspect, float(track.average_rate or 0), length)
    if len(tracks(container)) > 1:
        facts.warn("many_streams")
    for sound in container.streams.audio:
        other = declared(sound, container)
        if length is not None and other is not None and abs(length - other) > APART:
            facts.warn("length_mismatch")
    return facts


def size_of(track: av.VideoStream, name: str) -> tuple[int, int]:
    """Width and height of the coded pictures, as the header has them: FFmpeg forgets what no decoder may take."""
    if track.width and track.height:
        return track.width, track.height
    with open_file(name, codec_whitelist="none") as container:
        forgotten = container.streams[track.index].codec_context
        return (forgotten.width, forgotten.height) if isinstance(forgotten, av.VideoCodecContext) else (0, 0)


def declared(track: av.stream.Stream, container: av.container.InputContainer) -> float | None:
    """Seconds that the header claims for a track."""
    if track.duration and track.time_base:
        return float(track.duration * track.time_base)
    if len(container.streams) == 1 and container.duration:
        return container.duration / av.time_base - max(0, container.start_time or 0) / av.time_base
    return None


@dataclass
class Shown:
    """A decoded frame that is converted when it is needed, and how it must be turned."""

    frame: av.VideoFrame
    converter: VideoReformatter
    pixel: float  # width of a coded pixel by its height

    @cached_property
    def image(self) -> Image:
        """RGB ``(H, W, 3)``, upright, in full range."""
        try:
            rgb: Image = self.converter.reformat(self.frame, format="rgb24", threads=1).to_ndarray()  # type: ignore[assignment]
        except av.FFmpegError as error:
            colours = f"{self.frame.format.name} in the colour space {self.frame.colorspace}"
            raise MediaError("unsupported_codec", f"no way from {colours} to RGB ({error.strerror})") from None
        transposed, mirrored, upside_down = turned(self.frame)
        rgb = rgb.transpose(1, 0, 2) if transposed else rgb
        upright = rgb[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
        return upright.copy() if upside_down or mirrored else upright  # torch takes no negative strides

    @property
    def aspect(self) -> float:
        """Width of a pixel by its height, once upright."""
        return 1 / self.pixel if turned(self.frame)[0] else self.pixel


def turned(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """What brings a frame upright, as its display matrix says (to the nearest quarter turn): whether it is transposed,
    and then mirrored left to right, and upside down.
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = struct.unpack_from("=5i", matrix)  # x' = ax + cy, y' = bx + dy
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)


def decode(name: str, facts: VideoFacts, threads: int = 0) -> Iterator[tuple[Fraction, Fraction, Shown]]:
    """Frames of the first video track: start and end in seconds after the first frame's start, and the frame.

    ``threads`` decode (0: three per core). Frames whose time stamps fall or repeat are dropped, except in a file
    that has none better (see ``beat_of``); damaged packets are left out.
    """
    converter = VideoReformatter()
    zero: Fraction | None = None
    last, period, size = Fraction(-1), Fraction(0), (0, 0)
    with open_video(name) as container:
        beat = beat_of(name) if container.format.name == "avi" else None
        for number, frame in enumerate(frames_of(container, facts, threads)):
            within_limits(frame, facts, name)
            if beat and zero is not None:
                facts.warn("time_stamps")
                time = zero + number * beat
            elif frame.pts is None or frame.time_base is None:
                time = Fraction(0) if zero is None else zero + last + (period or Fraction(1, 25))
            else:
                time = frame.pts * frame.time_base
            if zero is None:
                zero = facts.start = time
                size = frame.width, frame.height
                facts.width, facts.height = size[::-1] if turned(frame)[0] else size
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


def beat_of(name: str) -> Fraction | None:
    """Seconds from one frame to the next in a file where only their order can be trusted; None for any other.

    An AVI has no time stamps but the order of its packets, which is not that of the pictures if there are B-frames.
    FFmpeg finds the right ones for MPEG-4, but not for H.264.
    """
    with open_video(name) as container:
        track = tracks(container)[0]
        if not track.codec_context.has_b_frames or not track.average_rate:
            return None
        head = islice(decoded_frames(container, track, lambda code: None), HEAD)
        stamps = [frame.pts for frame in head if frame.pts is not None]
        return 1 / track.average_rate if any(after < before for before, after in pairwise(stamps)) else None


def frames_of(container: av.container.InputContainer, facts: VideoFacts, threads: int = 0) -> Iterator[av.VideoFrame]:
    """Decoded frames; packets that cannot be decoded are noted and left out."""
    track = tracks(container)[0]
    track.thread_type = "AUTO"
    track.codec_context.thread_count = threads or AHEAD
    track.codec_context.options = {"max_pixels": str(MAX_DECODED_PIXELS)}  # or a small file could take all memory
    for frame in decoded_frames(container, track, facts.warn):
        if frame.is_corrupt:
            facts.warn("decode_errors")
        yield frame


def within_limits(frame: av.VideoFrame, facts: VideoFacts, name: str) -> None:
    """Note what is strange about a frame; refuse one that is too large."""
    if frame.width * frame.height > MAX_PIXELS:
        raise MediaError(
            "limit_pixels", f"{name}: frames of {frame.width}x{frame.height}; expected at most {MAX_PIXELS}"
        )
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
    view: View | None = None,
    beside: Fraction | None = None,
) -> tuple[VideoFacts, Iterator[Images]]:
    """Facts of a video, and blocks ``(n, height, width, 3)`` of its pictures at ``start``, ``start + 1 / rate`` and so
    on until ``end`` seconds; MediaError if there are none. Seconds count from the first frame, or from the start of
    another track if that begins earlier: ``beside`` on the file's clock.

    The facts fill up while the blocks are drawn. With a ``view``, blocks are single pictures, to keep few in memory.
    """
    name = os.fspath(path)
    facts = probe_video(name)
    frames = decode(name, facts, threads)
    if view:
        frames = viewed(frames, view)
    if beside is not None:
        frames = delayed(frames, facts, beside)
    return facts, blocks(fitted(frames, picture, start, end), 1 if view else BLOCK)


def viewed(
    frames: Iterator[tuple[Fraction, Fraction, Shown]], view: View
) -> Iterator[tuple[Fraction, Fraction, Shown]]:
    """The same frames, each shown on its way."""
    for start, end, shown in frames:
        view(float(start), shown.image)
        yield start, end, shown


def delayed(
    frames: Iterator[tuple[Fraction, Fraction, Shown]], facts: VideoFacts, beside: Fraction
) -> Iterator[tuple[Fraction, Fraction, Shown]]:
    """The same frames on the clock of another track that begins earlier."""
    for start, end, shown in frames:
        late = max(Fraction(0), facts.start - beside)
        yield start + late, end + late, shown


def fitted(
    frames: Iterator[tuple[Fraction, Fraction, Shown]], picture: Picture, start: float, end: float | None
) -> Iterator[Image]:
    """The pictures of the asked part on the model's grid, in its size."""
    begin, drawn = exact(start), 0
    last = None if end is None else round((exact(end) - begin) * picture.rate)
    part = ((time - begin, stop - begin, shown) for time, stop, shown in frames)
    first = next(part, None)
    position = ceil(max(Fraction(0), first[0]) * picture.rate) if first else 0
    for shown, count in on_grid(chain([first] if first else [], part), picture.rate):
        wanted = count if last is None else min(count, last - position)
        if wanted <= 0:
            break
        image = picture.fit(shown.image, shown.aspect)
        for _ in range(wanted):
            yield image
        position, drawn = position + count, drawn + wanted
    if not drawn:
        raise MediaError("no_frames", f"no pictures from {start} to {end} s")


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
    return np.concatenate(list(parts)), facts
