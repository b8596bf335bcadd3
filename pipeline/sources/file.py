"""One recording as a stream."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from pydantic import PositiveFloat

from pipeline.core.errors import ConfigError
from pipeline.core.text import clean
from pipeline.media.chunks import open_chunks
from pipeline.media.info import AVInfo
from pipeline.media.input_spec import InputSpec, rechunk
from pipeline.media.picture import Image
from pipeline.media.prefetch import prefetch
from pipeline.sources.source import Piece, Source


class File(Source):
    """Any audio or video file, read block by block in constant memory, a little ahead of the model."""

    def __init__(self, path: str, chunk: PositiveFloat = 0.1, realtime: bool = False) -> None:
        """``chunk``: seconds of each piece. ``realtime``: yield them at its own pace. ConfigError for a folder."""
        if Path(path).is_dir():
            raise ConfigError(f"source.path: {path} is a folder; for its files: source=files source.paths={path}")
        self.path, self.name, self.chunk, self.realtime = path, path, chunk, realtime
        self.reads = (Path(path),)

    def pieces(self, spec: InputSpec, seen: bool = False) -> Iterator[Piece]:
        """MediaError if the file cannot be read. Its warnings are printed at the end."""
        views: deque[tuple[float, Image]] = deque()
        view = (lambda seconds, image: views.append((seconds, image))) if seen else None
        facts, blocks = open_chunks(self.path, spec, view=view)
        size = max(1, round(self.chunk * spec.rate / spec.grain)) * spec.grain
        started, sent = time.monotonic(), 0
        for chunk in rechunk(prefetch(blocks, 2 if seen else 4), spec, size):
            sent += spec.ticks(chunk)
            now, shown = sent / spec.rate, list[tuple[float, Image]]()
            late = facts.late if isinstance(facts, AVInfo) else 0.0
            while views and views[0][0] + late < now:
                seconds, image = views.popleft()
                shown.append((seconds + late, image))
            if self.realtime:
                time.sleep(max(0.0, started + now - time.monotonic()))
            yield Piece(chunk, started + now if self.realtime else None, tuple(shown))
        for code in facts.warnings:
            print(f"warning: {clean(str(self.path))}: {code}", file=sys.stderr)
