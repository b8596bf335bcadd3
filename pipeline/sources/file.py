"""One recording as a stream."""

import sys
import time
from collections.abc import Iterator

import numpy as np
from pydantic import PositiveFloat

from pipeline.media import Samples, open_blocks


class File:
    """Any audio file, or the sound of a video file, read block by block in flat memory."""

    def __init__(self, path: str, chunk: PositiveFloat = 0.1, realtime: bool = False) -> None:
        """``chunk`` seconds are handed over at a time; ``realtime`` paces them as if they were heard now."""
        self.path, self.name, self.chunk, self.realtime = path, path, chunk, realtime

    def chunks(self, rate: int) -> Iterator[Samples]:
        """MediaError if the file cannot be read; doubts about it are printed at the end."""
        facts, blocks = open_blocks(self.path, rate)
        started, sent = time.monotonic(), 0
        for chunk in cut(blocks, max(1, round(self.chunk * rate))):
            sent += len(chunk)
            if self.realtime:
                time.sleep(max(0.0, started + sent / rate - time.monotonic()))
            yield chunk
        for code in facts.warnings:
            print(f"warning: {self.path}: {code}", file=sys.stderr)


def cut(blocks: Iterator[Samples], size: int) -> Iterator[Samples]:
    """Blocks of any length as chunks of ``size`` samples; the last may be shorter."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if len(rest):
        yield rest
