"""What a model takes: sound, pictures or both, or a series, on one clock; and the chunks of it.

A *chunk* is the same moment of every track: samples ``(N,)`` for a model of sound, pictures ``(T, H, W, 3)`` for one
of pictures, rows ``(T, C)`` with NaN for what is missing for one of series, and for one of sound and pictures the tuple
``(samples, pictures, present)``, where ``present (T, 2)`` says for each picture's period whether there is sound, and
whether there is a picture. What is absent of them is zeros.

The clock ticks in samples if there is sound, else in pictures or rows; ``grain`` is the number of ticks of the smallest
chunk.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ConfigError
from pipeline.media.audio import Samples
from pipeline.media.picture import Images, Picture
from pipeline.media.series import Series

Arrays: TypeAlias = tuple[NDArray[Any], ...]
Chunk: TypeAlias = Samples | Images | Arrays


class Track(NamedTuple):
    """One array of a chunk: its steps per grain, the shape and type of a step, and whether padding repeats the last."""

    steps: int
    shape: tuple[int, ...]
    kind: type
    hold: bool

    @property
    def grain_bytes(self) -> int:
        """How many bytes make a grain."""
        return self.steps * math.prod(self.shape) * np.dtype(self.kind).itemsize


@dataclass(frozen=True)
class InputSpec:
    """``sound``: samples a second, or None. ``picture``: size and rate, or None. ``series``: alone, or None."""

    sound: int | None = None
    picture: Picture | None = None
    series: Series | None = None

    def __post_init__(self) -> None:
        if self.sound and self.picture and self.sound % self.picture.rate:
            raise ValueError(
                f"extractor: {self.sound} samples a second cannot be divided among {self.picture.rate} pictures a "
                "second; change extractor.picture.rate"
            )

    @cached_property
    def rate(self) -> int:
        """Ticks a second; of a series, perhaps a fraction."""
        slow: Any = self.picture or self.series
        return self.sound or (slow.rate if slow else 0)

    @cached_property
    def grain(self) -> int:
        """Ticks of the smallest chunk: a picture's period if there are both tracks."""
        return self.sound // self.picture.rate if self.sound and self.picture else 1

    @cached_property
    def both(self) -> bool:
        """Whether there are two tracks."""
        return bool(self.sound and self.picture)

    @cached_property
    def alone(self) -> bool:
        """Whether there is sound and nothing else."""
        return bool(self.sound and not self.picture and not self.series)

    @cached_property
    def tracks(self) -> list[Track]:
        """The arrays that make a chunk."""
        found = []
        if self.series:
            found.append(Track(1, (len(self.series.columns),), np.float32, hold=True))
        if self.sound:
            found.append(Track(self.grain, (), np.float32, hold=False))
        if self.picture:
            found.append(Track(1, (self.picture.height, self.picture.width, 3), np.uint8, hold=not self.both))
        if self.both:
            found.append(Track(1, (2,), np.float32, hold=False))
        return found

    @property
    def what(self) -> str:
        """What it takes, in words."""
        if self.series:
            return "a series"
        return " and ".join(name for name, has in (("sound", self.sound), ("pictures", self.picture)) if has)

    def parts(self, chunk: Chunk) -> Arrays:
        """The arrays of a chunk that a user gave: pictures (uint8) are brought to the model's size, marks to 0 ... 1.
        Samples stay as they are: ``guard.py`` makes them sound.

        ValueError says what came and what was expected.
        """
        given = chunk if isinstance(chunk, tuple) else (chunk,)
        x = given[0] if self.alone and len(given) == 1 else None
        if type(x) is np.ndarray and x.dtype == np.float32 and x.ndim == 1:
            return (x.copy(),)  # who gave it may write the next samples there
        if len(given) != len(self.tracks):
            raise ValueError(f"got {len(given)} tracks; expected {len(self.tracks)}: {self}")
        arrays = tuple([self.as_track(array, track) for array, track in zip(given, self.tracks, strict=True)])
        if self.both and len({len(a) / track.steps for a, track in zip(arrays, self.tracks, strict=True)}) > 1:
            counts = " and ".join(str(len(array)) for array in arrays)
            raise ValueError(f"got tracks of {counts} steps; expected {self.grain} samples to each picture and mark")
        return arrays

    def as_track(self, array: NDArray[Any], track: Track) -> NDArray[Any]:
        """One array in the shape and type of its track."""
        if track.shape == ():
            if np.asarray(array).dtype.kind in "iu" and np.size(array):  # full scale of which size?
                raise ValueError(f"got samples of {np.asarray(array).dtype}; expected floats from -1 to 1")
            with np.errstate(over="ignore"):  # infinite is what it is then
                array = np.array(array, np.float32)
            if array.ndim == 0 or (array.ndim == 2 and (1 in array.shape or not array.size)):
                array = array.reshape(-1)  # one channel
            if array.ndim != 1:
                raise ValueError(f"got samples {array.shape}; expected one channel: (N,)")
            return array
        if self.series:
            with np.errstate(over="ignore"):
                array = np.array(array, np.float32)
            array = array[:, None] if array.ndim == 1 and track.shape == (1,) else array
            if array.shape[1:] != track.shape:
                names = ", ".join(self.series.columns)
                raise ValueError(f"got rows {array.shape}; expected (T, {track.shape[0]}): {names}")
            array[np.isinf(array)] = np.nan
            return array
        array = np.asarray(array)
        if track.kind is np.uint8 and array.dtype != np.uint8:  # a cast would turn 0.7 to 0, and 300 to 44
            raise ValueError(f"got pictures of {array.dtype}; expected uint8 RGB, 0 to 255")
        if track.kind is not np.uint8:  # marks
            array = np.nan_to_num(np.array(array, np.float32), nan=0.0, posinf=0.0, neginf=0.0).clip(0, 1)
        if self.picture and len(track.shape) == 3 and array.ndim == 4 and array.shape[3] == 3:
            if not len(array):
                return np.zeros((0, *track.shape), np.uint8)
            array = np.stack([self.picture.fit(image) for image in array])
        if array.shape[1:] != track.shape:
            raise ValueError(f"got an array {array.shape}; expected (T, {', '.join(map(str, track.shape))})")
        return array

    def ticks(self, parts: Arrays) -> int:
        """Length of a chunk."""
        return len(parts[0])

    @cached_property
    def nothing(self) -> Arrays:
        """An empty chunk, the same each time: there is nothing to write to."""
        return tuple(np.zeros((0, *track.shape), track.kind) for track in self.tracks)

    def empty(self) -> Arrays:
        """An empty chunk."""
        return self.nothing

    def cut(self, parts: Arrays, ticks: int) -> tuple[Arrays, Arrays]:
        """A chunk's first ``ticks`` (a multiple of the grain), and the rest."""
        if ticks == self.ticks(parts):
            return parts, self.nothing
        grains = ticks // self.grain
        sizes = [grains * track.steps for track in self.tracks]
        both = [*zip(parts, sizes, strict=True)]
        return tuple([array[:size] for array, size in both]), tuple([array[size:] for array, size in both])

    def pad(self, parts: Arrays, ticks: int) -> Arrays:
        """Silence, absence, or the last picture again, until the chunk has ``ticks`` (a multiple of the grain)."""
        missing = ticks - self.ticks(parts)
        return concatenate([parts, self.padding(parts, missing)]) if missing > 0 else parts

    def padding(self, parts: Arrays, ticks: int) -> Arrays:
        """What follows ``parts`` for ``ticks`` when nothing more comes."""
        found = []
        for array, track in zip(parts, self.tracks, strict=True):
            nothing: NDArray[Any] = np.full((1, *track.shape), np.nan if self.series else 0, track.kind)
            held = array[-1:] if track.hold and len(array) else nothing
            found.append(np.repeat(held, ticks // self.grain * track.steps, axis=0))
        return tuple(found)

    def stack(self, rows: Sequence[Arrays]) -> Arrays:
        """Chunks side by side, ``(B, steps, ...)`` per track, the shorter ones extended to the longest."""
        longest = max(self.ticks(parts) for parts in rows)
        longest += -longest % self.grain
        padded = [self.pad(parts, longest) for parts in rows]
        return tuple(np.stack(arrays) for arrays in zip(*padded, strict=True))

    def from_pictures(self, images: Images) -> Arrays:
        """A chunk of pictures alone, fitted already; for a model of both, its sound is absent."""
        if not self.both:
            return (images,)
        there = np.repeat(np.array([[0.0, 1.0]], np.float32), len(images), axis=0)
        return np.zeros(len(images) * self.grain, np.float32), images, there

    def require_sound(self, who: str) -> int:
        """The rate of a model of sound; ConfigError for any other, as ``who`` has no pictures."""
        if self.sound is None or self.picture:
            raise ConfigError(
                f"{who} gives sound alone, but the model takes {self.what}; take one of sound (extractor=logmel)"
            )
        return self.sound

    def require_pictures(self, who: str) -> Picture:
        """The pictures of a model of pictures; ConfigError for any other, as ``who`` has no sound."""
        if self.picture is None:
            raise ConfigError(
                f"{who} gives pictures, but the model takes {self.what} alone; take one of pictures (extractor=frames)"
            )
        return self.picture

    def require_series(self, who: str) -> Series:
        """The series of a model of one; ConfigError for any other."""
        if self.series is None:
            raise ConfigError(
                f"{who} gives a series, but the model takes {self.what}; take one of it (extractor=values)"
            )
        return self.series


def concatenate(chunks: Sequence[Arrays]) -> Arrays:
    """Chunks one after another."""
    return tuple(np.concatenate(arrays) for arrays in zip(*chunks, strict=True))


def rechunk(chunks: Iterator[Arrays], spec: InputSpec, ticks: int) -> Iterator[Arrays]:
    """Chunks of any length as chunks of ``ticks`` (a multiple of the grain); the last may be shorter."""
    rest = spec.empty()
    for chunk in chunks:
        rest = concatenate([rest, chunk])
        while spec.ticks(rest) >= ticks:
            first, rest = spec.cut(rest, ticks)
            yield first
    if spec.ticks(rest):
        yield rest
