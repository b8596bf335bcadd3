"""A microphone and a camera together, for models of sound and pictures."""

import math
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from pydantic import PositiveFloat

from pipeline.core.errors import ConfigError, UserError
from pipeline.media.input_spec import InputSpec
from pipeline.sources.av_sync import AVSync
from pipeline.sources.source import Gap, Piece, Policy, Source

Which = Literal["sound", "picture"]
Arriving: TypeAlias = "queue.Queue[tuple[Which, Piece | Gap | BaseException | None]]"
QUEUE_PIECES = 8  # more wait in the devices, which know what to drop
MAX_CAMERA_RATE = 60  # pictures a second; the sound decides which of them a model sees
POLL_SECONDS = 0.02
JOIN_SECONDS = 2.0  # that a source may need to stop


@dataclass(eq=False)
class Both(Source):
    """Two live sources, each in a thread of its own, on the clock of the sound. If one is lost, the other goes on.

    ``late``: seconds by which the camera's delay exceeds the microphone's. ``seconds``: when to stop (None: never).
    ``gap``: what a long loss of both does to the state, see ``Stream.gap``.
    """

    sound: Source
    picture: Source
    late: float = 0.0
    seconds: PositiveFloat | None = None
    gap: Policy = "reset"

    live = resamples = True

    def __post_init__(self) -> None:
        self.reads = (*self.sound.reads, *self.picture.reads)
        self.name = f"{self.sound.name} and {self.picture.name}"

    def pieces(self, spec: InputSpec, seen: bool = False) -> Iterator[Piece | Gap]:
        """One piece for each period of a picture. ConfigError if the model does not take both tracks; the error of a
        source that fails at its start, or after the other one has ended.
        """
        if not spec.both:
            raise ConfigError(
                "source=both gives sound and pictures, but the model takes one; take source=microphone or webcam"
            )
        arriving: Arriving = queue.Queue(QUEUE_PIECES)
        picture = spec.require_pictures(self.name)
        every = replace(picture, rate=picture.rate * math.ceil(MAX_CAMERA_RATE / picture.rate))
        stop = threading.Event()
        threads = [
            threading.Thread(target=deliver, args=(which, pieces, arriving, stop), daemon=True)
            for which, pieces in (
                ("sound", self.sound.pieces(InputSpec(spec.sound))),
                ("picture", self.picture.pieces(InputSpec(picture=every), seen)),
            )
        ]
        for thread in threads:
            thread.start()
        sync = AVSync(spec, self.gap, self.late)
        try:
            yield from self.synchronize(sync, arriving)
        finally:
            stop.set()
            for thread in threads:
                thread.join(JOIN_SECONDS)
            print(f"{self.name}: {sync.summary()}", file=sys.stderr)

    def synchronize(self, sync: AVSync, arriving: Arriving) -> Iterator[Piece | Gap]:
        """Yield what arrives, synchronized, until both sources have ended."""
        end = float("inf") if self.seconds is None else time.monotonic() + self.seconds
        started: set[Which] = set()  # the sources that have yielded something; sound counts once both have
        ended: set[Which] = set()
        while len(ended) < 2 and time.monotonic() < end:
            try:
                which, item = arriving.get(timeout=POLL_SECONDS)
            except queue.Empty:
                yield from sync.advance(time.monotonic())
                continue
            if isinstance(item, BaseException):
                if which not in started or ended or not isinstance(item, UserError):
                    raise item
                print(f"warning: {item}", file=sys.stderr)
            if item is None or isinstance(item, BaseException):
                ended.add(which)
                item = Gap(0, "it has ended")
            started.add(which)
            if which == "picture":
                yield from sync.add_picture(item, time.monotonic())
                if isinstance(item, Piece) and item.seen and item.captured is not None:
                    seen = tuple((sync.seconds(item.captured), image) for _, image in item.seen)
                    yield Piece(sync.spec.empty(), item.captured, seen)
            elif len(started) == 2:
                yield from sync.add_sound(item, time.monotonic())


def deliver(which: Which, pieces: Iterator[Piece | Gap], arriving: Arriving, stop: threading.Event) -> None:
    """Put what a source yields into the queue, and at last its error, or None."""

    def put(item: Piece | Gap | BaseException | None) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                arriving.put((which, item), timeout=POLL_SECONDS)
                return

    try:
        for item in pieces:
            put(item)
            if stop.is_set():
                break
        put(None)
    except BaseException as error:  # raised again in the reader
        put(error)
