"""One JSON object a line: for programs."""

import json
import sys

from pipeline.sink import Row, Sink, open_output


class JSONLines(Sink):
    """Each row with its ``type``: event, step, gap or file."""

    def __init__(self, path: str | None = None, posteriors: bool = False) -> None:
        """``path`` of the file to write (None: standard output)."""
        super().__init__(posteriors)
        self.out = open_output(path)

    def write(self, kind: str, row: Row) -> None:
        """A line, written at once."""
        self.out.write(json.dumps({"type": kind, "stream": getattr(self, "name", None)} | row) + "\n")
        self.out.flush()

    def event(self, row: Row) -> None:
        """An event."""
        self.write("event", row)

    def step(self, row: Row) -> None:
        """A step."""
        self.write("step", row)

    def gap(self, row: Row) -> None:
        """A stretch without input."""
        self.write("gap", row)

    def file(self, row: Row) -> None:
        """A file."""
        self.write("file", row)

    def close(self) -> None:
        """Close the file."""
        if self.out is not sys.stdout:
            self.out.close()
