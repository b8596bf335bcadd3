"""A camera in a process of its own, which may block, hang or crash without harm.

Cameras and network streams fail in ways that no thread can leave: a driver never returns from a read, a decoder crashes
the process. So a child process takes the pictures, and the parent waits with a time limit. The child keeps what the
parent has not asked for yet: with ``newest`` one picture, with ``every`` all of them.
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
MAX_QUEUE_BYTES = 256 << 20  # of waiting pictures; beyond, the oldest are dropped
FROZEN_STRIDE = 8  # one of so many rows and columns is compared to find a frozen picture


@dataclass(frozen=True)
class VideoFrame:
    """One picture ``(H, W, 3)`` RGB. ``captured`` on the clock of ``time.monotonic``; ``stamp``: its own time stamp in
    seconds, if the source has any; ``aspect``: width of a pixel by its height; ``dropped``: how many pictures before it
    were dropped because nobody asked for them in time.
    """

    image: Rgb
    captured: float
    stamp: float | None = None
    aspect: float = 1.0
    dropped: int = 0


# Runs in the child. Yields a description of what was opened, then the pictures. LookupError says why no more come.
Grabber = Callable[..., Iterator[str | VideoFrame]]


class LostError(Exception):
    """A device cannot be opened, or delivers no more; the message says why."""


class Capture:
    """A running child process. ``what`` describes the device."""

    def __init__(
        self, grabber: Grabber, arguments: tuple[Any, ...], keep: Keep, frozen: float | None, opening: float
    ) -> None:
        """``grabber(*arguments)`` must be importable. ``frozen``: seconds of equal pictures that count as a loss.

        LostError if the device is not open within ``opening`` seconds.
        """
        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of torch's threads
        self.pipe, far = context.Pipe()
        self.child = context.Process(target=serve, args=(far, grabber, arguments, keep, frozen), daemon=True)
        self.child.start()
        far.close()
        self.asked = False
        try:
            if (what := self.next(opening)) is None:
                raise LostError(f"nothing came within {opening:g} s")
            self.what = str(what)
        except BaseException:
            self.close()
            raise

    def next(self, timeout: float) -> Any:
        """What the child gives next: ``what`` it is, then pictures; None if nothing comes within ``timeout`` seconds.
        LostError if nothing will come.
        """
        if not self.asked:
            with suppress(OSError):  # the child has ended, as we are about to read
                self.pipe.send(None)
            self.asked = True
        if not self.pipe.poll(timeout):
            return None
        self.asked = False
        try:
            answer = self.pipe.recv()
            if isinstance(answer, tuple):
                shape, *facts = answer
                image = np.empty(shape, np.uint8)
                self.pipe.recv_bytes_into(image.data.cast("B"))
                return VideoFrame(image, *facts)
        except (EOFError, OSError):
            raise LostError("the process that captures has died") from None
        if isinstance(answer, LostError):
            raise answer
        return answer

    def close(self) -> None:
        """End the child at once."""
        self.child.kill()
        self.child.join()
        self.pipe.close()


class FrameQueue:
    """Pictures between the thread that grabs and the one that answers the parent."""

    def __init__(self, keep: Keep) -> None:
        self.keep, self.frames = keep, deque[VideoFrame]()
        self.bytes = self.dropped = 0
        self.what: str | None = None  # the description, until it is taken
        self.failure: str | None = None
        self.changed = threading.Condition()

    def put(self, item: str | VideoFrame) -> None:
        """Add the description, or a picture; the oldest pictures are dropped if there are too many."""
        with self.changed:
            if isinstance(item, str):
                self.what = item
            else:
                self.frames.append(item)
                self.bytes += item.image.nbytes
            while len(self.frames) > 1 and (self.keep == "newest" or self.bytes > MAX_QUEUE_BYTES):
                self.bytes -= self.frames.popleft().image.nbytes
                self.dropped += 1
            self.changed.notify()

    def fail(self, why: str) -> None:
        """No more will come."""
        with self.changed:
            self.failure = why
            self.changed.notify()

    def take(self, seconds: float) -> str | VideoFrame | None:
        """The description, once; then the oldest picture. None if nothing came within ``seconds``. LostError after the
        last one.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.what or self.frames or self.failure, seconds)
            if self.what:
                what, self.what = self.what, None
                return what
            if self.frames:
                frame, dropped, self.dropped = self.frames.popleft(), self.dropped, 0
                self.bytes -= frame.image.nbytes
                return replace(frame, dropped=dropped)
            if self.failure:
                raise LostError(self.failure)
            return None


def serve(pipe: Connection, grabber: Grabber, arguments: tuple[Any, ...], keep: Keep, frozen: float | None) -> None:
    """The child: a thread grabs, this one answers each request of the parent. It ends with the parent, even if the
    other thread hangs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    queue = FrameQueue(keep)

    def grab() -> None:
        try:
            for item in until_frozen(grabber(*arguments), frozen):
                queue.put(item)
            queue.fail("it has ended")
        except LookupError as error:
            queue.fail(str(error.args[0]))
        except Exception as error:  # drivers raise anything; the parent reports it
            queue.fail(f"{type(error).__name__}: {error}")

    threading.Thread(target=grab, daemon=True).start()
    with suppress(EOFError, OSError):  # the parent has ended
        while True:
            pipe.recv()
            try:
                while (item := queue.take(0.5)) is None:
                    if pipe.poll(0.0):  # no second request comes before the answer, so this is the end of the parent
                        raise EOFError
            except LostError as error:
                pipe.send(error)
                continue
            if isinstance(item, str):
                pipe.send(item)
            else:
                pipe.send((item.image.shape, item.captured, item.stamp, item.aspect, item.dropped))
                pipe.send_bytes(np.ascontiguousarray(item.image).data.cast("B"))
    os._exit(0)  # without waiting for a thread that may hang for ever


def until_frozen(items: Iterator[str | VideoFrame], seconds: float | None) -> Iterator[str | VideoFrame]:
    """The same items; LookupError once the pictures have not changed for ``seconds`` (None: never)."""
    last: Rgb | None = None
    since = time.monotonic()
    for item in items:
        if isinstance(item, VideoFrame) and seconds:
            sample = item.image[::FROZEN_STRIDE, ::FROZEN_STRIDE]
            if last is None or not np.array_equal(sample, last):
                last, since = sample.copy(), item.captured
            elif item.captured - since > seconds:
                raise LookupError(f"the picture has been frozen for {seconds:g} s")
        yield item
