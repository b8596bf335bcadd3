"""Files to chunks: whatever a model takes, from whatever a file holds, on one clock."""

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from math import ceil
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import MediaError
from pipeline.media.audio import LONGEST_HOLE, Facts, open_blocks
from pipeline.media.input_spec import Arrays, InputSpec, joined
from pipeline.media.picture import Picture, exact
from pipeline.media.video import VideoFacts, View, open_frames

F = TypeVar("F")
BLOCK = 16  # periods of a picture joined at once
LOST = {"no_audio", "no_video", "no_frames", "no_samples"}  # a track that is not there, as a model of both sees it


class Known(Protocol):
    """What is known of a file."""

    @property
    def seconds(self) -> float:
        """Length of what was read."""
        ...

    @property
    def warnings(self) -> list[str]:
        """Codes of what is doubtful."""
        ...


class Both:
    """What is known of a file with two tracks; None for one that it lacks."""

    def __init__(self, sound: Facts | None, pictures: VideoFacts | None) -> None:
        self.sound, self.pictures = sound, pictures

    @property
    def late(self) -> float:
        """Seconds by which the pictures begin after the sound."""
        if not (self.sound and self.pictures):
            return 0.0
        return float(max(Fraction(0), self.pictures.start - self.sound.start))

    @property
    def seconds(self) -> float:
        """From the start of the first track to the end of the last."""
        there = [facts for facts in (self.sound, self.pictures) if facts]
        return max(float(facts.start) + facts.seconds for facts in there) - float(min(facts.start for facts in there))

    @property
    def warnings(self) -> list[str]:
        """Of both tracks, each code once; ``no_audio`` or ``no_video`` where one is missing."""
        found = [code for facts in (self.pictures, self.sound) if facts for code in facts.warnings]
        missing = [code for facts, code in ((self.sound, "no_audio"), (self.pictures, "no_video")) if facts is None]
        return list(dict.fromkeys(missing + found))


def open_chunks(
    path: str | os.PathLike[str],
    spec: InputSpec,
    start: float = 0.0,
    end: float | None = None,
    view: View | None = None,
) -> tuple[Known, Iterator[Arrays]]:
    """What is known of a file, and its chunks; the facts fill up while the chunks are drawn. A ``view`` gets the
    pictures as they are, a little ahead.

    MediaError if the file lacks what the model takes; for a model of both, if it lacks both.
    """
    if spec.sound and spec.picture:
        return open_both(path, spec.sound, spec.picture, start, end, view)
    if spec.picture:
        facts, images = open_frames(path, spec.picture, start, end, view=view)
        return facts, ((block,) for block in images)
    heard, samples = open_blocks(path, spec.rate, start, end)
    return heard, ((block,) for block in samples)


def read_chunk(
    path: str | os.PathLike[str], spec: InputSpec, start: float = 0.0, end: float | None = None
) -> tuple[Arrays, Known]:
    """A whole file, or its part from ``start`` to ``end`` seconds, as one chunk."""
    facts, chunks = open_chunks(path, spec, start, end)
    return joined([spec.nothing(), *chunks]), facts


def open_both(
    path: str | os.PathLike[str],
    rate: int,
    picture: Picture,
    start: float,
    end: float | None,
    view: View | None = None,
) -> tuple[Both, Iterator[Arrays]]:
    """Sound and pictures side by side; each is read on its own, and they are laid on one clock by their time stamps."""
    heard, sound = begun(lambda: open_blocks(path, rate))
    beside = None if isinstance(heard, MediaError) else heard.start
    seen, pictures = begun(lambda: open_frames(path, picture, start, end, view=view, beside=beside))
    apart = Fraction(0) if beside is None or isinstance(seen, MediaError) else seen.start - beside
    if abs(apart) > LONGEST_HOLE:
        raise MediaError("limit_duration", f"{path}: {float(abs(apart)):.0f} s between the starts of its two tracks")
    begin, late = exact(start), max(Fraction(0), apart)  # of the pictures behind the sound
    early = late - apart  # of the pictures before the sound
    if begin or end is not None:
        stop = None if end is None else float(exact(end) - early)
        heard, sound = begun(lambda: open_blocks(path, rate, float(max(Fraction(0), begin - early)), stop))
    failures = [facts for facts in (heard, seen) if isinstance(facts, MediaError)]
    for error in sorted(failures, key=lambda error: error.code in LOST):
        if error.code not in LOST or len(failures) == 2:
            raise error
    known = Both(None if isinstance(heard, MediaError) else heard, None if isinstance(seen, MediaError) else seen)
    return known, side_by_side(
        Feed(sound, np.zeros(0, np.float32), round(max(Fraction(0), early - begin) * rate)),
        Feed(
            pictures,
            np.zeros((0, picture.height, picture.width, 3), np.uint8),
            ceil(max(Fraction(0), late - begin) * picture.rate),
        ),
        rate // picture.rate,
        1 if view else BLOCK,
    )


def begun(opened: Callable[[], tuple[F, Iterator[NDArray[Any]]]]) -> tuple[F | MediaError, Iterator[NDArray[Any]]]:
    """A track whose first block has been read, so that its first time stamp is known; or why there is none."""
    try:
        facts, blocks = opened()
        return facts, chain([next(blocks)], blocks)
    except MediaError as error:
        return error, iter(())
    except StopIteration:
        return MediaError("no_samples", "the track is empty"), iter(())


def side_by_side(sound: "Feed", pictures: "Feed", grain: int, block: int = BLOCK) -> Iterator[Arrays]:
    """Chunks of both tracks, ``block`` periods each, until both have ended; what is missing is zeros, and marked as
    absent.
    """
    while True:
        samples, heard = sound.take(block * grain)
        images, seen = pictures.take(block)
        there = np.stack([heard.reshape(block, grain).any(1), seen], axis=1)
        over = sound.over and pictures.over
        steps = int(np.flatnonzero(there.any(axis=1)).max(initial=-1)) + 1 if over else block
        if not steps:
            return
        yield samples[: steps * grain], images[:steps], there[:steps].astype(np.float32)


class Feed:
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
