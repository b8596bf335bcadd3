"""A microphone and a camera together, for models of sound and pictures."""

import math
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Literal, TypeAlias

from pydantic import PositiveFloat

from pipeline.core.errors import ConfigError, UserError
from pipeline.media.input_spec import InputSpec
from pipeline.sources.source import Gap, Piece, Policy, Source
from pipeline.sources.together import Together

Which = Literal["sound", "picture"]
Arriving: TypeAlias = "queue.Queue[tuple[Which, Piece | Gap | BaseException | None]]"
MOST = 8  # pieces that wait: what is more, waits in the devices, which know what to leave out
FAST = 60  # pictures a second that a camera may give: which of them a model sees, the sound tells
POLL = 0.02  # seconds until we look at the time again
END = 2.0  # seconds for which a source may take its leave


class Both(Source):
    """Two live sources, each in a thread of its own, on the clock of the sound. One that is lost is absent, until it is
    back; the other goes on.
    """

    live = heard = True

    def __init__(
        self,
        sound: Source,
        picture: Source,
        late: float = 0.0,
        seconds: PositiveFloat | None = None,
        gap: Policy = "reset",
    ) -> None:
        """``late``: seconds that the camera needs until it has a picture, beyond what the microphone does. ``seconds``
        in all (None: until interrupted). ``gap``: what a long loss of both does to the memory, see ``Stream.gap``.
        """
        self.sound, self.picture, self.late, self.seconds, self.gap = sound, picture, late, seconds, gap
        self.reads = (*sound.reads, *picture.reads)
        self.name = f"{sound.name} and {picture.name}"

    def pieces(self, spec: InputSpec, seen: bool = False) -> Iterator[Piece | Gap]:
        """Periods of a picture, with their sound. ConfigError if the model does not take both; what a source raises, if
        neither gives anything any more.
        """
        if not spec.both:
            raise ConfigError(
                "source=both gives sound and pictures, but the model takes one; take source=microphone or webcam"
            )
        arriving: Arriving = queue.Queue(MOST)
        picture = spec.only_pictures(self.name)
        every = replace(picture, rate=picture.rate * math.ceil(FAST / picture.rate))
        leave = threading.Event()
        threads = [
            threading.Thread(target=deliver, args=(which, pieces, arriving, leave), daemon=True)
            for which, pieces in (
                ("sound", self.sound.pieces(InputSpec(spec.sound))),
                ("picture", self.picture.pieces(InputSpec(picture=every), seen)),
            )
        ]
        for thread in threads:
            thread.start()
        together = Together(spec, self.gap, self.late)
        try:
            yield from self.joined(together, arriving)
        finally:
            leave.set()
            for thread in threads:
                thread.join(END)
            print(f"{self.name}: {together.told()}", file=sys.stderr)

    def joined(self, together: Together, arriving: Arriving) -> Iterator[Piece | Gap]:
        """What arrives, as it belongs together, until both have ended."""
        end = float("inf") if self.seconds is None else time.monotonic() + self.seconds
        there: set[Which] = set()  # those that have given something: it begins when both have
        ended: set[Which] = set()
        while len(ended) < 2 and time.monotonic() < end:
            try:
                which, item = arriving.get(timeout=POLL)
            except queue.Empty:
                yield from together.wait(time.monotonic())
                continue
            if isinstance(item, BaseException):
                if which not in there or ended or not isinstance(item, UserError):
                    raise item
                print(f"warning: {item}", file=sys.stderr)
            if item is None or isinstance(item, BaseException):
                ended.add(which)
                item = Gap(0, "it has ended")
            there.add(which)
            if which == "picture":
                yield from together.see(item, time.monotonic())
                if isinstance(item, Piece) and item.seen and item.captured is not None:
                    seen = tuple((together.place(item.captured), image) for _, image in item.seen)
                    yield Piece(together.spec.nothing(), item.captured, seen)
            elif len(there) == 2:
                yield from together.hear(item, time.monotonic())


def deliver(
    which: Which,
    pieces: Iterator[Piece | Gap],
    arriving: Arriving,
    leave: threading.Event,
) -> None:
    """Hand on what a source gives, and last how it ended: an error, or None."""

    def put(item: Piece | Gap | BaseException | None) -> None:
        while not leave.is_set():
            with suppress(queue.Full):
                arriving.put((which, item), timeout=POLL)
                return

    try:
        for item in pieces:
            put(item)
            if leave.is_set():
                break
        put(None)
    except BaseException as error:  # raised where somebody listens
        put(error)
