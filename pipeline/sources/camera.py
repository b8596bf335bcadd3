"""A camera in a process of its own, which may block, hang or crash without harm.

Cameras and network streams fail in ways that no thread can leave: a driver that never returns from a read, a decoder
that takes the process with it. So the pictures are taken by a child, and the parent only waits for so long. The child
keeps what the parent has not asked for yet: under the policy ``newest`` one picture, under ``every`` all of them.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Keep: TypeAlias = Literal["newest", "every"]
Rgb = NDArray[np.uint8]  # (H, W, 3)
FULL = 256 << 20  # bytes of waiting pictures; beyond, the oldest are passed over
SPARSE = 8  # one of so many rows and columns is compared to see whether a picture is frozen


@dataclass(frozen=True)
class Shot:
    """One picture ``(H, W, 3)`` RGB. ``captured`` on the clock of ``time.monotonic``; ``stamp``: its own time stamp in
    seconds, if the source gives any; ``aspect``: width of a pixel by its height; ``passed``: how many pictures before
    it nobody asked for in time.
    """

    image: Rgb
    captured: float
    stamp: float | None = None
    aspect: float = 1.0
    passed: int = 0


@dataclass(frozen=True)
class Opened:
    """The first thing that a grabber yields: what was got, in words."""

    what: str


# Runs in the child: yields Opened, then a Shot for each picture; LookupError says why there are no (more) pictures.
Grabber = Callable[..., Iterator[Shot | Opened]]


class LostError(Exception):
    """No more pictures come from this capture; the message says why."""


class Capture:
    """A running child. ``next`` waits for pictures; ``close`` ends the child, whatever it is doing."""

    def __init__(
        self, grabber: Grabber, arguments: tuple[Any, ...], keep: Keep, frozen: float | None, opening: float
    ) -> None:
        """``grabber(*arguments)`` must be importable. ``frozen``: seconds of equal pictures that count as a loss.

        LostError if it cannot be opened within ``opening`` seconds.
        """
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half
        self.pipe, far = context.Pipe()
        self.child = context.Process(target=run, args=(far, grabber, arguments, keep, frozen), daemon=True)
        self.child.start()
        far.close()
        self.asked = False
        try:
            self.what = self.opened(opening)
        except BaseException:
            self.close()
            raise

    def opened(self, opening: float) -> str:
        """What was got, once the child says it."""
        if not self.pipe.poll(opening):
            raise LostError(f"nothing came within {opening:g} s")
        return str(self.received())

    def next(self, timeout: float) -> Shot | None:
        """The next picture; None if none came within ``timeout`` seconds. LostError if none will come."""
        if not self.asked:
            with suppress(OSError):  # the child has gone: why, is the last thing to be read from it
                self.pipe.send(None)
            self.asked = True
        if not self.pipe.poll(timeout):
            return None
        shape, *facts = self.received()
        self.asked = False
        image = np.empty(shape, np.uint8)
        try:
            self.pipe.recv_bytes_into(image.data.cast("B"))
        except (EOFError, OSError):
            raise LostError("the process that captures has died") from None
        return Shot(image, *facts)

    def received(self) -> Any:
        """The child's next message; LostError if it is bad news."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            raise LostError("the process that captures has died") from None
        if isinstance(message, LostError):
            raise message
        return message

    def close(self) -> None:
        """End the child at once."""
        self.child.kill()
        self.child.join()
        self.pipe.close()


class Box:
    """What the grabbing thread has put down and the parent has not taken yet."""

    def __init__(self, keep: Keep) -> None:
        self.keep, self.shots = keep, deque[Shot]()
        self.bytes = self.passed = 0
        self.failure: str | None = None
        self.changed = threading.Condition()

    def put(self, shot: Shot) -> None:
        """Put a picture down; the oldest give way where there are too many."""
        with self.changed:
            self.shots.append(shot)
            self.bytes += shot.image.nbytes
            while len(self.shots) > 1 and (self.keep == "newest" or self.bytes > FULL):
                self.bytes -= self.shots.popleft().image.nbytes
                self.passed += 1
            self.changed.notify()

    def fail(self, why: str) -> None:
        """No more will come."""
        with self.changed:
            self.failure = why
            self.changed.notify()

    def take(self, seconds: float) -> Shot | None:
        """The oldest picture; None if there is none within so many seconds. LostError after the last."""
        with self.changed:
            self.changed.wait_for(lambda: self.shots or self.failure, seconds)
            if not self.shots:
                if self.failure:
                    raise LostError(self.failure)
                return None
            shot = self.shots.popleft()
            self.bytes -= shot.image.nbytes
            passed, self.passed = self.passed, 0
            return replace(shot, passed=passed)


def run(pipe: Connection, grabber: Grabber, arguments: tuple[Any, ...], keep: Keep, frozen: float | None) -> None:
    """The child: one thread grabs, this one answers; it ends with the parent, even if the other hangs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    box, opened = Box(keep), threading.Event()
    facts: list[str] = []

    def grab() -> None:
        try:
            for item in unfrozen(grabber(*arguments), frozen):
                if isinstance(item, Opened):
                    facts.append(item.what)
                    opened.set()
                else:
                    box.put(item)
            box.fail("it has ended")
        except LookupError as error:
            box.fail(str(error.args[0]))
        except Exception as error:  # whatever a driver raises, the parent gets to read it
            box.fail(f"{type(error).__name__}: {error}")
        opened.set()

    threading.Thread(target=grab, daemon=True).start()
    try:
        while not opened.wait(0.5):
            alive(pipe)
        if facts:
            pipe.send(facts[0])
        serve(pipe, box)
    except LostError as error:
        pipe.send(error)
    except (EOFError, OSError):
        pass  # the parent has gone
    os._exit(0)  # without waiting for a thread that may hang for ever


def serve(pipe: Connection, box: Box) -> None:
    """One picture for each time the parent asks, until there are no more."""
    while True:
        if box.failure and not box.shots:
            raise LostError(box.failure)
        if not pipe.poll(0.1):
            continue
        pipe.recv()
        while (shot := box.take(0.5)) is None:
            alive(pipe)
        pipe.send((shot.image.shape, shot.captured, shot.stamp, shot.aspect, shot.passed))
        pipe.send_bytes(np.ascontiguousarray(shot.image).data.cast("B"))


def alive(pipe: Connection) -> None:
    """EOFError if the parent has gone: it never sends before it is answered."""
    if pipe.poll(0.0):
        raise EOFError


def unfrozen(items: Iterator[Shot | Opened], seconds: float | None) -> Iterator[Shot | Opened]:
    """The same items, until pictures have not changed for so many seconds."""
    last: Rgb | None = None
    since = time.monotonic()
    for item in items:
        if isinstance(item, Shot) and seconds:
            sample = item.image[::SPARSE, ::SPARSE]
            if last is None or not np.array_equal(sample, last):
                last, since = sample.copy(), item.captured
            elif item.captured - since > seconds:
                raise LookupError(f"the picture has been frozen for {seconds:g} s")
        yield item
