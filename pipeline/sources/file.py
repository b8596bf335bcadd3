"""One recording as a stream."""

import sys
import time
from collections.abc import Iterator

from pydantic import PositiveFloat

from pipeline.ahead import ahead
from pipeline.intake import Arrays, Intake, recut
from pipeline.tracks import open_chunks


class File:
    """Any audio or video file, read block by block in flat memory, a little ahead of the model."""

    def __init__(self, path: str, chunk: PositiveFloat = 0.1, realtime: bool = False) -> None:
        """``chunk`` seconds are handed over at a time; ``realtime`` paces them as if they were heard and seen now."""
        self.path, self.name, self.chunk, self.realtime = path, path, chunk, realtime

    def chunks(self, intake: Intake) -> Iterator[Arrays]:
        """MediaError if the file cannot be read; doubts about it are printed at the end."""
        facts, blocks = open_chunks(self.path, intake)
        size = max(1, round(self.chunk * intake.rate / intake.grain)) * intake.grain
        started, sent = time.monotonic(), 0
        for chunk in recut(ahead(blocks), intake, size):
            sent += intake.ticks(chunk)
            if self.realtime:
                time.sleep(max(0.0, started + sent / intake.rate - time.monotonic()))
            yield chunk
        for code in facts.warnings:
            print(f"warning: {self.path}: {code}", file=sys.stderr)
