"""Video files to pictures: probe, decode by time stamp, upright and in true colours, resampled to a model's rate.

PyAV reads. Pictures come one by one, so an hour streams in flat memory, and only those that the model will see are
converted. What is doubtful is a code in the ``warnings`` of the result, what is unusable a ``MediaError`` with a code.
"""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain, islice, pairwise
from math import ceil, cos, radians, sin
from typing import Any, TypeAlias

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from pipeline.core.errors import MediaError
from pipeline.media.container import MAX_DECODED_PIXELS, admit, decoded_frames, open_file
from pipeline.media.formats import GUESSING
from pipeline.media.info import VideoInfo
from pipeline.media.part import PathLike
from pipeline.media.picture import MAX_PIXELS, Image, Images, Picture, on_grid, to_fraction
from pipeline.media.structure import examine

GAP_SECONDS = 1.0  # without a frame, if they are also ten usual frame periods
MAX_GAP_SECONDS = 3600.0  # beyond, the time stamps are nonsense
MAX_APART_SECONDS = 0.5  # by which the tracks of one file may differ in length
HDR = {16, 18}  # transfer characteristics: PQ, HLG
BLOCK = 16  # pictures handed over at once
DECODED_AHEAD = min(16, 3 * (os.cpu_count() or 1))  # frames at once: with one per core, cores wait beside a model
HEAD = 32  # frames that show whether the time stamps rise; the longest run of B-frames is 16
View = Callable[[float, Image], None]  # gets every decoded picture as it is, with its time in seconds
Timed: TypeAlias = Iterator[tuple[Fraction, Fraction, "LazyFrame"]]  # start and end in seconds


def probe_video(path: PathLike) -> VideoInfo:
    """Header of a video file, without decoding it. MediaError if it has no readable pictures within the limits."""
    name = os.fspath(path)
    with open_video(name) as container:
        info = video_info(container, name)
    info.warnings += examine(name, admit(name)).warnings
    return info


def open_video(name: str) -> av.container.InputContainer:
    """A file with at least one video track; a cover picture is none."""
    container = open_file(name)
    if not tracks(container):
        container.close()
        raise MediaError("no_video", f"{name}: has no video track")
    return container


def tracks(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The video tracks that are no cover pictures; nor the still of an animated AVIF, if it moves."""
    cover = av.stream.Disposition.attached_pic
    found = [track for track in container.streams.video if not track.disposition & cover]
    return [track for track in found if track.frames != 1] or found


def video_info(container: av.container.InputContainer, name: str) -> VideoInfo:
    """What the header says of the first video track; refuses what is beyond the limits."""
    track = tracks(container)[0]
    if track.codec_context is None:
        raise MediaError("unsupported_codec", f"{name}: no decoder for this kind of video")
    width, height = coded_size(track, name)
    check_pixels(width, height, name)
    aspect = float(track.sample_aspect_ratio or 1)
    length = declared_seconds(track, container)
    info = VideoInfo(width, height, aspect, float(track.average_rate or 0), length)
    if length and container.format.name not in GUESSING:
        info.slack = max(0.2, 0.02 * length)
    if len(tracks(container)) > 1:
        info.warn("many_streams")
    for sound in container.streams.audio:
        other = declared_seconds(sound, container)
        if length is not None and other is not None and abs(length - other) > MAX_APART_SECONDS:
            info.warn("length_mismatch")
    return info


def coded_size(track: av.VideoStream, name: str) -> tuple[int, int]:
    """Width and height of the coded pictures, as the header has them: FFmpeg forgets what no decoder may take."""
    if track.width and track.height:
        return track.width, track.height
    with open_file(name, codec_whitelist="none") as container:
        forgotten = container.streams[track.index].codec_context
        return (forgotten.width, forgotten.height) if isinstance(forgotten, av.VideoCodecContext) else (0, 0)


def declared_seconds(track: av.stream.Stream, container: av.container.InputContainer) -> float | None:
    """Seconds that the header claims for a track."""
    if track.duration and track.time_base:
        return float(track.duration * track.time_base)
    if len(container.streams) == 1 and container.duration:
        return container.duration / av.time_base - max(0, container.start_time or 0) / av.time_base
    return None


@dataclass
class LazyFrame:
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
        transposed, mirrored, upside_down = orientation(self.frame)
        rgb = rgb.transpose(1, 0, 2) if transposed else rgb
        upright = rgb[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
        return upright.copy() if upside_down or mirrored else upright  # torch takes no negative strides

    @property
    def aspect(self) -> float:
        """Width of a pixel by its height, once upright."""
        return 1 / self.pixel if orientation(self.frame)[0] else self.pixel


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """What brings a frame upright, as its display matrix says (to the nearest quarter turn): whether it is transposed,
    and then mirrored left to right, and upside down.
    """
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # beside one of a kind that PyAV does not know, such as EXIF
        turn = radians(-frame.rotation)
        matrix = struct.pack("=5i", *(round(x * 65536) for x in (cos(turn), sin(turn), 0, -sin(turn), cos(turn))))
    if matrix is None:
        return False, False, False
    a, b, _, c, d = struct.unpack_from("=5i", matrix)  # x' = ax + cy, y' = bx + dy
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)


def decode(name: str, info: VideoInfo) -> Timed:
    """Frames of the first video track: start and end in seconds after the first frame's start, and the frame.

    Frames whose time stamps fall or repeat are dropped, except in a file that has none better (see
    ``period_by_order``); damaged packets are left out.
    """
    converter = VideoReformatter()
    zero: Fraction | None = None
    last, period, size = Fraction(-1), Fraction(0), (0, 0)
    with open_video(name) as container:
        by_order = period_by_order(name) if container.format.name == "avi" else None
        for number, frame in enumerate(frames_of(container, info)):
            check_pixels(frame.width, frame.height, name)
            if by_order and zero is not None:
                info.warn("time_stamps")
                time = zero + number * by_order
            elif frame.pts is None or frame.time_base is None:
                time = Fraction(0) if zero is None else zero + last + (period or Fraction(1, 25))
            else:
                time = frame.pts * frame.time_base
            if zero is None:
                zero = info.start = time
                size = frame.width, frame.height
                info.width, info.height = size[::-1] if orientation(frame)[0] else size
            if (frame.width, frame.height) != size:
                info.warn("size_change")
            time -= zero
            if time <= last:
                info.warn("time_stamps")
                continue
            step = time - last if last >= 0 else Fraction(0)
            if period and step > GAP_SECONDS and step > 10 * period:
                info.warn("gap")
            if step > MAX_GAP_SECONDS:
                raise MediaError("limit_duration", f"{name}: {float(step):.0f} s between two frames")
            known = frame.duration * frame.time_base if frame.duration and frame.time_base else Fraction(0)
            last, period = time, (known or step or period or Fraction(1, 25))
            info.decoded += 1
            info.end = time + period
            yield time, info.end, LazyFrame(frame, converter, info.aspect)
    check_decoded(name, info)


def period_by_order(name: str) -> Fraction | None:
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


def frames_of(container: av.container.InputContainer, info: VideoInfo) -> Iterator[av.VideoFrame]:
    """Decoded frames, with what is doubtful about them noted; packets that cannot be decoded are left out."""
    track = tracks(container)[0]
    track.thread_type = "AUTO"
    track.codec_context.thread_count = DECODED_AHEAD
    track.codec_context.options = {"max_pixels": str(MAX_DECODED_PIXELS)}  # or a small file could take all memory
    for frame in decoded_frames(container, track, info.warn):
        if frame.is_corrupt:
            info.warn("decode_errors")
        if frame.interlaced_frame:
            info.warn("interlaced")
        if frame.color_trc in HDR:
            info.warn("hdr")
        yield frame


def check_pixels(width: int, height: int, name: str) -> None:
    """Refuse pictures that are too large."""
    if width * height > MAX_PIXELS:
        raise MediaError("limit_pixels", f"{name}: frames of {width}x{height}; expected at most {MAX_PIXELS}")


def check_decoded(name: str, info: VideoInfo) -> None:
    """Note what is known only once all is decoded. MediaError if nothing came out."""
    if not info.decoded:
        code = "unreadable" if info.length or info.warnings else "no_frames"  # promised, or none to begin with
        raise MediaError(code, f"{name}: no frame of the video can be decoded")
    if info.length and info.seconds < info.length - info.slack:
        info.warn("truncated")


def open_frames(
    path: PathLike,
    picture: Picture,
    start: float = 0.0,
    end: float | None = None,
    view: View | None = None,
    beside: Fraction | None = None,
) -> tuple[VideoInfo, Iterator[Images]]:
    """Info of a video, and blocks ``(n, height, width, 3)`` of its pictures at ``start``, ``start + 1 / rate`` and so
    on until ``end`` seconds; MediaError if there are none. Seconds count from the first frame, or from the start of
    another track if that begins earlier: ``beside`` on the file's clock.

    The info fills up while the blocks are drawn. With a ``view``, blocks are single pictures, to keep few in memory.
    """
    name = os.fspath(path)
    info = probe_video(name)
    frames = on_clock(decode(name, info), info, view, beside)
    return info, stack(pictures_of(frames, info, picture, start, end), 1 if view else BLOCK)


def on_clock(frames: Timed, info: VideoInfo, view: View | None, beside: Fraction | None) -> Timed:
    """The same frames, each given to the view, then in the time of another track if that begins earlier."""
    for start, end, frame in frames:
        if view:
            view(float(start), frame.image)
        late = Fraction(0) if beside is None else max(Fraction(0), info.start - beside)
        yield start + late, end + late, frame


def pictures_of(frames: Timed, info: VideoInfo, picture: Picture, start: float, end: float | None) -> Iterator[Image]:
    """The pictures of the asked part on the model's grid, in its size."""
    begin, drawn = to_fraction(start), 0
    last = None if end is None else round((to_fraction(end) - begin) * picture.rate)
    part = ((time - begin, stop - begin, frame) for time, stop, frame in frames)
    first = next(part, None)
    position = ceil(max(Fraction(0), first[0]) * picture.rate) if first else 0
    for frame, count in on_grid(chain([first] if first else [], part), picture.rate):
        wanted = count if last is None else min(count, last - position)
        if wanted <= 0:
            break
        image = picture.fit(frame.image, frame.aspect)
        for _ in range(wanted):
            yield image
        position, drawn = position + count, drawn + wanted
    if last is not None and position < last - 1:
        info.warn("beyond_end")
    if not drawn:
        raise MediaError("no_frames", f"no pictures from {start} to {end} s")


def stack(images: Iterator[Image], size: int) -> Iterator[Images]:
    """Pictures gathered into arrays of ``size``; the last may be shorter."""
    while block := list(islice(images, size)):
        yield np.stack(block)


def read_frames(
    path: PathLike, picture: Picture, start: float = 0.0, end: float | None = None
) -> tuple[Images, VideoInfo]:
    """A whole video, or its part from ``start`` to ``end`` seconds, as ``(T, height, width, 3)``."""
    info, parts = open_frames(path, picture, start, end)
    return np.concatenate(list(parts)), info
