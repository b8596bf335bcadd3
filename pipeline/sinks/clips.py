"""The sound or the pictures around each event, as files."""

import io
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Self

import av
import numpy as np
import soundfile
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

import pipeline.sinks.items as items
from pipeline.core.text import clean, slug
from pipeline.media.audio import Samples
from pipeline.media.picture import Image
from pipeline.media.video_writer import VideoWriter
from pipeline.sinks.async_sink import AsyncSink
from pipeline.sinks.clip_folder import LIST, ClipFolder

LATE_SECONDS = 10.0  # after which an event may become known without losing what was before it
GRACE_SECONDS = 3600.0  # at the end, if the source is not live
PRUNE_SECONDS = 60.0  # after which what is too old is looked for, also without new clips
JPEG_QUALITY = 95
Shot = tuple[float, bytes]  # seconds, and a picture as JPEG


@dataclass(frozen=True)
class Cut(items.TimedEvent):
    """An event with the name of its files without an ending, its time in UTC, the part of the stream to be written in
    seconds, and what is of that: pieces of sound with the numbers of their first samples, and pictures;
    ``written``: the list of clips that are written, to which it is added.
    """

    name: str
    time: str | None
    first: float
    last: float
    sound: list[tuple[int, Samples]]
    shots: list[Shot]
    written: deque[items.Clip]


@dataclass(eq=False)
class Clips(AsyncSink):
    """A file for each event, with its time, label and score in its name, some seconds before and after it included:
    sound as the model gets it (16 bits), pictures as the source sees them. ``clips.jsonl`` lists them.

    The newest seconds are held in memory. Another thread writes the files; if it cannot follow a live source, or the
    disk is full, clips are missing, with a warning, and the stream goes on.

    ``path`` of the folder. ``before`` and ``after``: seconds around an event. ``longest``: of an event that lasts
    longer the first seconds are written, once they are over. ``keep``: bytes, an age, or both; then the oldest clips
    are removed (None: never). ``format`` of sound; ``height`` of pictures, at most. ``queue``: clips that wait to be
    written; of a live source the oldest of more are dropped. ``grace``: seconds for what is left at the end of a live
    source.
    """

    path: str = "clips"
    before: NonNegativeFloat = 2.0
    after: NonNegativeFloat = 1.0
    longest: PositiveFloat = 30.0
    keep: str | list[str] | None = "2GB"
    format: Literal["flac", "wav"] = "flac"
    height: Annotated[int, Field(ge=16)] = 480
    queue: PositiveInt = field(default=10, kw_only=True)
    grace: NonNegativeFloat = field(default=10.0, kw_only=True)

    pictures, shares = None, True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.folder = ClipFolder(self.path, self.keep, "sink.clips.keep")
        self.outputs = (self.folder.path / LIST,)
        self.left: deque[Clips] = deque(maxlen=64)  # of streams that are over, whose clips may still be on their way
        self.pruned, self.failing = time.monotonic(), False
        self.forget()

    def forget(self) -> None:
        """Begin anew with a stream."""
        self.clock = items.Clock()
        self.answered = 0.0  # seconds of the stream at the last ``flush``: what was then, is all there
        self.sound: deque[tuple[int, Samples]] = deque()
        self.shots: deque[Shot] = deque()
        self.open: tuple[items.TimedEvent, ...] = ()
        self.pending: list[items.TimedEvent] = []  # events whose ``after`` is not over
        self.begun: set[tuple[str, float]] = set()  # labels and starts of open events that have their clip
        self.written: deque[items.Clip] = deque()  # not yet shared

    def start(self, stream: items.StreamInfo) -> None:
        """Open the folder."""
        self.folder.open()
        super().start(stream)
        path = Path(stream.name)
        began = compact(items.to_utc(time.time()))
        self.prefix = slug(path.stem, str(path.resolve())) if path.is_file() else f"{slug(stream.name)}-{began}"

    def beside(self, stream: items.StreamInfo) -> Self:
        """With a memory of its own; the same thread writes."""
        other = super().beside(stream)
        other.forget()
        other.prefix = slug(stream.name)
        return other

    def leave(self) -> None:
        """Write what is left."""
        self.cut(math.inf)
        self.left.append(self)

    def write(self, item: items.Item, **more: Any) -> None:
        """Keep what may become part of a clip."""
        match item:
            case items.Clock():
                self.clock = item
            case items.Sound() if self.stream:
                end = round(self.clock.seconds * self.stream.rate)
                self.sound.append((end - len(item.samples), item.samples.copy()))
            case items.Frame():
                self.shots.append((item.seconds, encode(item.image, self.height)))
            case items.OpenEvents():
                self.open = item.events
            case items.TimedEvent() if (item.label, item.start) in self.begun:
                self.begun.remove((item.label, item.start))
            case items.TimedEvent():
                self.pending.append(item)
            case items.TimedGap() if not item.length:  # its length is not known yet
                self.cut(math.inf)

    def flush(self) -> None:
        """Write the clips whose seconds have all come, forget what is too old, and say which are written."""
        for event in self.open:
            key = event.label, event.start
            if key not in self.begun and self.answered >= event.start + self.longest + self.after:
                self.begun.add(key)
                self.pending.append(event)
        self.cut(self.answered)
        self.answered = self.clock.seconds
        oldest = self.answered - self.before - self.longest - self.after - LATE_SECONDS
        while self.stream and self.sound and self.sound[0][0] + len(self.sound[0][1]) < oldest * self.stream.rate:
            self.sound.popleft()
        while self.shots and self.shots[0][0] < oldest:
            self.shots.popleft()
        self.share_written()
        if time.monotonic() - self.pruned > PRUNE_SECONDS:
            self.pruned = time.monotonic()
            self.folder.prune()

    def last_second(self, event: items.TimedEvent) -> float:
        """Where the clip of an event ends."""
        return min(event.end, event.start + self.longest) + self.after

    def cut(self, now: float) -> None:
        """Queue the clips that end by ``now``."""
        ripe = [event for event in self.pending if self.last_second(event) <= now]
        self.pending = [event for event in self.pending if self.last_second(event) > now]
        for event in ripe:
            if self.clock.time is None:  # no need to hurry, nor to drop any
                self.grace = GRACE_SECONDS
                with self.changed:
                    self.changed.wait_for(lambda: len(self.waiting) < self.queue, GRACE_SECONDS)
            super().write(self.cut_out(event))

    def cut_out(self, event: items.TimedEvent) -> Cut:
        """An event with what is in memory of its clip."""
        assert self.stream is not None
        first, last = max(0.0, event.start - self.before), self.last_second(event)
        start, stop = round(first * self.stream.rate), round(last * self.stream.rate)
        sound = [(at, piece) for at, piece in self.sound if at < stop and at + len(piece) > start]
        shots = [shot for shot in self.shots if first <= shot[0] < last]
        utc = self.clock.utc(event.start)
        when = compact(utc) if utc else f"{self.prefix}_{event.start:09.3f}s"
        name = f"{when}_{slug(event.label)}_{event.score:.2f}"
        part: dict[str, Any] = {"first": first, "last": last, "sound": sound, "shots": shots, "written": self.written}
        return Cut(**vars(event), name=name, time=utc, **part)

    def deliver(self, row: items.Row) -> str:
        """Write the files of an event."""
        found = False
        try:
            for ending, first, last, fill in self.tracks(row):
                label, name = row["label"], f"{row['name']}.{ending}"
                facts = {key: row[key] for key in ("start", "end", "score", "time", "stream")}
                path = self.folder.write({"path": name, "label": clean(label)} | facts, fill)
                row["written"].append(items.Clip(path, label, row["start"], first, last))
                found = True
        except (OSError, ValueError, av.FFmpegError, soundfile.SoundFileError) as error:
            if not self.failing:
                print(f"warning: sink=clips: {clean(str(error))}; the stream goes on", file=sys.stderr)
            self.failing = True
            return str(error)
        finally:
            with self.changed:
                self.changed.notify_all()  # there is room in the queue
        self.failing = False
        return "" if found else "nothing of it was in memory"

    def tracks(self, row: items.Row) -> Iterator[tuple[str, float, float, Callable[[BinaryIO], None]]]:
        """The ending, the first and the last second, and what writes it, of each file of an event."""
        assert self.stream is not None
        rate, shots = self.stream.rate, row["shots"]
        first, samples = joined(row["sound"], round(row["first"] * rate), round(row["last"] * rate))
        if len(samples):
            write = partial(write_sound, samples, rate, self.format)
            yield self.format, first / rate, (first + len(samples)) / rate, write
        if shots:
            yield "mp4", shots[0][0], shots[-1][0], partial(write_shots, shots)

    def share_written(self) -> None:
        """Tell the other sinks of clips that are there."""
        for sink in (self, *self.left):
            while sink.written:
                sink.share(sink.written.popleft())

    def close(self) -> None:
        """Write what is left."""
        if self.stream is not None and not self.ended:
            self.cut(math.inf)
        super().close()
        self.share_written()
        self.folder.close()

    def summary(self, missing: int, reason: str) -> str:
        """How many clips are missing."""
        return f"sink=clips: {missing} of {self.count} clips are missing (the last: {reason})"


def compact(utc: str) -> str:
    """A time as a part of a name: 20261130T140509.250Z."""
    return utc.replace("-", "").replace(":", "")


def joined(pieces: list[tuple[int, Samples]], start: int, stop: int) -> tuple[int, Samples]:
    """Pieces of sound as one, from sample ``start`` to ``stop`` where there is any, and the number of its first sample;
    gaps between them are silent.
    """
    if not pieces:
        return start, np.zeros(0, np.float32)
    start, stop = max(start, pieces[0][0]), min(stop, pieces[-1][0] + len(pieces[-1][1]))
    whole = np.zeros(max(0, stop - start), np.float32)
    for at, piece in pieces:
        part = piece[max(0, start - at) : max(0, stop - at)]
        whole[max(0, at - start) :][: len(part)] = part
    return start, whole


def write_sound(samples: Samples, rate: int, kind: str, file: BinaryIO) -> None:
    """Samples ``(N,)``, 16 bits."""
    data = io.BytesIO()  # as soundfile does not raise what a file of Python's does
    soundfile.write(data, np.nan_to_num(samples).clip(-1, 1), rate, format=kind.upper(), subtype="PCM_16")
    file.write(data.getvalue())


def write_shots(shots: list[Shot], file: BinaryIO) -> None:
    """Pictures at their times, the first at 0."""
    writer = VideoWriter(file.name)
    try:
        for seconds, data in shots:
            writer.write(decode(data), seconds - shots[0][0])
    finally:
        writer.close()


def encode(image: Image, height: int) -> bytes:
    """A picture ``(H, W, 3)`` as JPEG, at most so high."""
    import cv2

    if image.shape[0] > height:
        size = max(1, round(image.shape[1] * height / image.shape[0])), height
        image = cv2.resize(image, size)  # type: ignore[assignment]  # INTER_AREA costs nine times as much
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1])


def decode(data: bytes) -> Image:
    """The inverse of ``encode``."""
    import cv2

    image: Image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)  # type: ignore[assignment]
    return image[:, :, ::-1]
