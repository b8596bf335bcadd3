"""Blocks of sound from a device's callback, which must not wait, to who reads them: one writer, one reader, no lock.

The writer owns ``written`` and ``stored``, the reader ``read`` and ``taken``; each only looks at the other's, and a
block is counted once it is whole. All memory for sound and stamps is taken at the start: the callback makes views and
numbers, never an array.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.media.audio import Samples

SHORTEST = 32  # frames of the shortest blocks for whose stamps there is room throughout


class Block(NamedTuple):
    """``data (N, channels)`` of a device.

    ``start``: frames that the device had delivered before, those that found no room included. ``arrived``: when the
    callback came; ``captured``: when the last of its frames was captured; seconds, on one clock. ``overflow``: the
    device says that it lost something before this block.
    """

    data: Samples
    start: int
    arrived: float
    captured: float
    overflow: bool


class Ring:
    """Room for ``frames`` of ``channels``. What finds no room is left out, and the next block's ``start`` tells it."""

    def __init__(self, frames: int, channels: int) -> None:
        self.buffer = np.zeros((frames, channels), np.float32)
        slots = max(8, frames // SHORTEST)
        self.counts: NDArray[np.int64] = np.zeros((slots, 3), np.int64)  # start, frames, overflow
        self.times = np.zeros((slots, 2))  # arrived, captured
        self.written = self.read = 0  # frames
        self.stored = self.taken = 0  # blocks
        self.delivered = 0  # frames
        self.last = 0.0  # when a block came
        self.overflow = False

    def put(self, data: Samples, arrived: float, captured: float, overflow: bool) -> None:
        """For the callback: store a block ``(N, channels)``, if there is room."""
        count, size, start = len(data), len(self.buffer), self.delivered
        self.delivered += count
        self.last = arrived
        self.overflow |= overflow
        if count > size - (self.written - self.read) or self.stored - self.taken >= len(self.times):
            return
        at = self.written % size
        first = min(count, size - at)
        self.buffer[at : at + first] = data[:first]
        self.buffer[: count - first] = data[first:]
        slot = self.stored % len(self.times)
        stamp, times = self.counts[slot], self.times[slot]
        stamp[0], stamp[1], stamp[2] = start, count, self.overflow
        times[0], times[1] = arrived, captured
        self.overflow = False
        self.written += count
        self.stored += 1  # the last thing: from now on the reader sees it

    def take(self) -> Block | None:
        """For the reader: the oldest block, which is its own; None if there is none."""
        if self.taken == self.stored:
            return None
        slot = self.taken % len(self.times)
        start, count, overflow = self.counts[slot].tolist()
        arrived, captured = self.times[slot].tolist()
        at = self.read % len(self.buffer)
        parts = self.buffer[at : at + count], self.buffer[: max(0, at + count - len(self.buffer))]
        data = np.concatenate(parts)
        self.taken += 1
        self.read += count  # from now on the writer may write there
        return Block(data, start, arrived, captured, bool(overflow))
