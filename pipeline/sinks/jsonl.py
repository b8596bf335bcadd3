"""One JSON object a line: for programs."""

import json

from pydantic import PositiveFloat

from pipeline.core.journal import Journal
from pipeline.sinks.sink import Row, Sink


class JSONLines(Sink):
    """Each row with its ``type``: event, step, gap, warning or file. The posteriors are an object in the row, so that
    no label can be taken for something else. No beginning of a row is valid JSON: a torn line cannot be mistaken.
    """

    files = True

    def __init__(self, path: str | None = None, posteriors: bool = False, sync: PositiveFloat | None = 1.0) -> None:
        """``path`` of the file to write (None: standard output), forced to the disk every ``sync`` seconds."""
        super().__init__(posteriors)
        self.journal = Journal(path, sync)
        self.stdout, self.outputs = ("", (self.journal.path,)) if self.journal.path else ("rows", ())

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """Empty the file."""
        super().start(name, labels, rate, hop)
        self.journal.open()

    def write(self, kind: str, row: Row) -> None:
        """A line, written at once."""
        self.journal.write(json.dumps({"type": kind, "stream": getattr(self, "name", None)} | row) + "\n")

    def event(self, row: Row) -> None:
        """An event."""
        self.write("event", row)

    def settle(self) -> None:
        """To the disk, if it is time."""
        self.journal.settle()

    def step(self, row: Row) -> None:
        """A step."""
        self.write("step", row)

    def gap(self, row: Row) -> None:
        """A stretch without input."""
        self.write("gap", row)

    def warning(self, row: Row) -> None:
        """A warning."""
        self.write("warning", row)

    def file(self, row: Row) -> None:
        """A file."""
        self.journal.whole = True
        self.write("file", row)

    def finish(self) -> None:
        """The rows of files take their place."""
        self.journal.finish()

    def close(self) -> None:
        """Close the file."""
        self.journal.close()
