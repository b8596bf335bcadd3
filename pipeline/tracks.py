"""Files to chunks: whatever a model takes, from whatever a file holds, on one clock."""

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.intake import Arrays, Intake, joined
from pipeline.media import Facts, open_blocks
from pipeline.picture import Picture
from pipeline.video import VideoFacts, open_frames

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
    def seconds(self) -> float:
        """Of the longer track."""
        return max(facts.seconds for facts in (self.sound, self.pictures) if facts)

    @property
    def warnings(self) -> list[str]:
        """Of both tracks, each code once; ``no_audio`` or ``no_video`` where one is missing."""
        found = [code for facts in (self.pictures, self.sound) if facts for code in facts.warnings]
        missing = [code for facts, code in ((self.sound, "no_audio"), (self.pictures, "no_video")) if facts is None]
        return list(dict.fromkeys(missing + found))


def open_chunks(
    path: str | os.PathLike[str], intake: Intake, start: float = 0.0, end: float | None = None
) -> tuple[Known, Iterator[Arrays]]:
    """What is known of a file, and its chunks; the facts fill up while the chunks are drawn.

    MediaError if the file lacks what the model takes; for a model of both, if it lacks both.
    """
    if intake.sound and intake.picture:
        return open_both(path, intake.sound, intake.picture, start, end)
    if intake.picture:
        facts, images = open_frames(path, intake.picture, start, end)
        return facts, ((block,) for block in images)
    heard, samples = open_blocks(path, intake.rate, start, end)
    return heard, ((block,) for block in samples)


def read_chunk(
    path: str | os.PathLike[str], intake: Intake, start: float = 0.0, end: float | None = None
) -> tuple[Arrays, Known]:
    """A whole file, or its part from ``start`` to ``end`` seconds, as one chunk."""
    facts, chunks = open_chunks(path, intake, start, end)
    return joined([intake.nothing(), *chunks]), facts


def open_both(
    path: str | os.PathLike[str], rate: int, picture: Picture, start: float, end: float | None
) -> tuple[Both, Iterator[Arrays]]:
    """Sound and pictures side by side; each is read on its own, and they are laid on one clock by their time stamps."""
    heard, sound = begun(lambda: open_blocks(path, rate, start, end))
    seen, pictures = begun(lambda: open_frames(path, picture, start, end))
    failures = [facts for facts in (heard, seen) if isinstance(facts, MediaError)]
    for error in failures:
        if error.code not in LOST or len(failures) == 2:
            raise error
    known = Both(None if isinstance(heard, MediaError) else heard, None if isinstance(seen, MediaError) else seen)
    apart = known.pictures.start - known.sound.start if known.pictures and known.sound and not start else Fraction(0)
    early, late = max(Fraction(0), -apart), max(Fraction(0), apart)
    return known, side_by_side(
        Feed(sound, np.zeros(0, np.float32), round(early * rate)),
        Feed(pictures, np.zeros((0, picture.height, picture.width, 3), np.uint8), round(late * picture.rate)),
        rate // picture.rate,
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


def side_by_side(sound: "Feed", pictures: "Feed", grain: int) -> Iterator[Arrays]:
    """Chunks of both tracks until both have ended; what is missing is zeros, and marked as absent."""
    while True:
        samples, heard = sound.take(BLOCK * grain)
        images, seen = pictures.take(BLOCK)
        there = np.stack([heard.reshape(BLOCK, grain).any(1), seen], axis=1)
        steps = int(np.flatnonzero(there.any(axis=1)).max(initial=-1)) + 1
        if not steps:
            return
        yield samples[: steps * grain], images[:steps], there[:steps].astype(np.float32)


class Feed:
    """Blocks of one track, handed out in any sizes; zeros before it begins and after it ends."""

    def __init__(self, blocks: Iterator[NDArray[Any]], empty: NDArray[Any], late: int) -> None:
        """``empty``: an array of no steps; the track begins ``late`` steps after the clock."""
        self.blocks, self.waiting, self.late = blocks, empty, late

    def take(self, count: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The next ``count`` steps, and whether each is there."""
        before = min(self.late, count)
        self.late -= before
        while len(self.waiting) < count - before and (block := next(self.blocks, None)) is not None:
            self.waiting = np.concatenate([self.waiting, block])
        got, self.waiting = self.waiting[: count - before], self.waiting[count - before :]
        array = np.zeros((count, *got.shape[1:]), got.dtype)
        there = np.zeros(count, bool)
        array[before : before + len(got)], there[before : before + len(got)] = got, True
        return array, there
