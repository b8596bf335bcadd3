"""Blocks of sound from a device's callback to the reader. The callback never waits: one writer, one reader, no lock."""

from collections import deque
from typing import NamedTuple

from pipeline.media.audio import Samples


class Block(NamedTuple):
    """``data (N, channels)`` of a device.

    ``start``: frames that the device delivered before, dropped ones included. ``arrived``: when the callback was
    called; ``captured``: when the last frame was captured; both in seconds on one clock. ``overflow``: the device
    reports a loss before this block.
    """

    data: Samples
    start: int
    arrived: float
    captured: float
    overflow: bool


class BlockQueue:
    """Up to ``max_frames`` frames. Blocks that find no room are dropped; the next block's ``start`` shows it."""

    def __init__(self, max_frames: int) -> None:
        self.max_frames = max_frames
        self.blocks = deque[Block]()  # append and popleft are atomic
        self.delivered = self.written = self.read = 0  # frames; the reader owns ``read``, the writer the others
        self.last_arrived = 0.0
        self.overflow = False

    def put(self, data: Samples, arrived: float, captured: float, overflow: bool) -> None:
        """For the callback: add a copy of a block ``(N, channels)``, if there is room."""
        start, count = self.delivered, len(data)
        self.delivered += count
        self.last_arrived = arrived
        self.overflow |= overflow
        if self.written - self.read + count <= self.max_frames:
            self.written += count
            self.blocks.append(Block(data.copy(), start, arrived, captured, self.overflow))
            self.overflow = False

    def take(self) -> Block | None:
        """For the reader: the oldest block; None if there is none."""
        if not self.blocks:
            return None
        block = self.blocks.popleft()
        self.read += len(block.data)
        return block
