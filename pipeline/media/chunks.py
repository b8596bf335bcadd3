"""Files to chunks: whatever a model takes, from whatever a file holds, on one clock."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from math import ceil
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import MediaError
from pipeline.media.audio import MAX_GAP_SECONDS, open_blocks
from pipeline.media.info import AVInfo, MediaInfo
from pipeline.media.input_spec import Arrays, InputSpec, concatenate
from pipeline.media.part import PathLike
from pipeline.media.picture import to_fraction
from pipeline.media.series import open_series
from pipeline.media.video import BLOCK, View, open_frames

Info = TypeVar("Info")
ABSENT = {"no_audio", "no_video", "no_frames", "no_samples"}  # a track that is not there, as a model of both sees it


def open_chunks(
    path: PathLike, spec: InputSpec, start: float = 0.0, end: float | None = None, view: View | None = None
) -> tuple[MediaInfo, Iterator[Arrays]]:
    """What is known of a file, and its chunks; the info fills up while the chunks are drawn. A ``view`` gets the
    pictures as they are, a little ahead.

    MediaError if the file lacks what the model takes; for a model of both, if it lacks both.
    """
    if spec.both:
        return open_both(path, spec, start, end, view)
    if spec.series:
        read, rows = open_series(path, spec.series, start, end)
        return read, ((block,) for block in rows)
    if spec.picture:
        seen, images = open_frames(path, spec.picture, start, end, view=view)
        return seen, ((block,) for block in images)
    heard, samples = open_blocks(path, spec.rate, start, end)
    return heard, ((block,) for block in samples)


def read_chunk(
    path: PathLike, spec: InputSpec, start: float = 0.0, end: float | None = None
) -> tuple[Arrays, MediaInfo]:
    """A whole file, or its part from ``start`` to ``end`` seconds, as one chunk."""
    info, chunks = open_chunks(path, spec, start, end)
    return concatenate([spec.empty(), *chunks]), info


def open_both(
    path: PathLike, spec: InputSpec, start: float, end: float | None, view: View | None
) -> tuple[AVInfo, Iterator[Arrays]]:
    """Sound and pictures side by side; each is read on its own, and they are laid on one clock by their time stamps."""
    rate, picture = spec.rate, spec.picture
    assert picture is not None
    heard, sound = peek(lambda: open_blocks(path, rate))
    beside = None if isinstance(heard, MediaError) else heard.start
    seen, pictures = peek(lambda: open_frames(path, picture, start, end, view=view, beside=beside))
    apart = Fraction(0) if beside is None or isinstance(seen, MediaError) else seen.start - beside
    if abs(apart) > MAX_GAP_SECONDS:
        raise MediaError("limit_duration", f"{path}: {float(abs(apart)):.0f} s between the starts of its two tracks")
    begin, late = to_fraction(start), max(Fraction(0), apart)  # of the pictures behind the sound
    early = late - apart  # of the pictures before the sound
    if begin or end is not None:
        stop = None if end is None else float(to_fraction(end) - early)
        heard, sound = peek(lambda: open_blocks(path, rate, float(max(Fraction(0), begin - early)), stop))
    failures = [info for info in (heard, seen) if isinstance(info, MediaError)]
    for error in sorted(failures, key=lambda error: error.code in ABSENT):
        if error.code not in ABSENT or len(failures) == 2:
            raise error
    info = AVInfo(None if isinstance(heard, MediaError) else heard, None if isinstance(seen, MediaError) else seen)
    empty, no_images, _ = spec.empty()
    first_sample = round(max(Fraction(0), early - begin) * rate)
    first_image = ceil(max(Fraction(0), late - begin) * picture.rate)
    buffers = TrackBuffer(sound, empty, first_sample), TrackBuffer(pictures, no_images, first_image)
    return info, merge_tracks(*buffers, spec.grain, 1 if view else BLOCK)


def peek(opened: Callable[[], tuple[Info, Iterator[NDArray[Any]]]]) -> tuple[Info | MediaError, Iterator[NDArray[Any]]]:
    """A track whose first block has been read, so that its first time stamp is known; or why there is none."""
    try:
        info, blocks = opened()
        return info, chain([next(blocks)], blocks)
    except MediaError as error:
        return error, iter(())
    except StopIteration:
        return MediaError("no_samples", "the track is empty"), iter(())


def merge_tracks(sound: "TrackBuffer", pictures: "TrackBuffer", grain: int, block: int) -> Iterator[Arrays]:
    """Chunks of both tracks, ``block`` periods of a picture each, until both have ended; what is missing is zeros, and
    marked as absent.
    """
    over = False
    while not over:
        samples, heard = sound.take(block * grain)
        images, seen = pictures.take(block)
        there = np.stack([heard.reshape(block, grain).any(1), seen], axis=1)
        over = sound.over and pictures.over
        steps = int(np.flatnonzero(there.any(axis=1)).max(initial=-1)) + 1 if over else block
        if steps:
            yield samples[: steps * grain], images[:steps], there[:steps].astype(np.float32)


class TrackBuffer:
    """Blocks of one track, handed out in any sizes; zeros before it begins and after it ends."""

    def __init__(self, blocks: Iterator[NDArray[Any]], empty: NDArray[Any], late: int) -> None:
        """``empty``: an array of no steps; the track begins ``late`` steps after the clock."""
        self.blocks, self.waiting, self.late, self.drained = blocks, empty, late, False

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.drained and not self.late and not len(self.waiting)

    def take(self, count: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The next ``count`` steps, and whether each is there."""
        before = min(self.late, count)
        self.late -= before
        while len(self.waiting) < count - before and not self.drained:
            block = next(self.blocks, None)
            self.drained = block is None
            self.waiting = self.waiting if block is None else np.concatenate([self.waiting, block])
        got, self.waiting = self.waiting[: count - before], self.waiting[count - before :]
        array = np.zeros((count, *got.shape[1:]), got.dtype)
        there = np.zeros(count, bool)
        array[before : before + len(got)], there[before : before + len(got)] = got, True
        return array, there
