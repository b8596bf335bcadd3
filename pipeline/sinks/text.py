"""Sinks that write lines of text to a file, or to standard output."""

from pydantic import PositiveFloat

from pipeline.core.journal import Journal
from pipeline.sinks.items import StreamInfo
from pipeline.sinks.sink import Sink


class TextSink(Sink):
    """Base of such sinks: a subclass writes whole lines to ``journal``."""

    def __init__(self, path: str | None = None, sync: PositiveFloat | None = 1.0) -> None:
        """``path`` of the file (None: standard output), forced to the disk every ``sync`` seconds (None: never)."""
        self.journal = Journal(path, sync)
        self.stdout, self.outputs = ("", (self.journal.path,)) if self.journal.path else ("rows", ())

    def start(self, stream: StreamInfo) -> None:
        """Empty the file."""
        super().start(stream)
        self.journal.open()

    def flush(self) -> None:
        """To the disk, if it is time."""
        self.journal.flush()

    def finish(self) -> None:
        """The rows of files take their place."""
        self.journal.finish()

    def close(self) -> None:
        """Close the file."""
        self.journal.close()
