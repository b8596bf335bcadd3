"""One JSON object a line: for programs."""

import json

from pydantic import PositiveFloat

from pipeline.sinks.items import FileResult, Item, Row, Steps, StreamWarning, TimedEvent, TimedGap
from pipeline.sinks.text import TextSink


class JSONLines(TextSink):
    """Each row with its ``type``: event, step, gap, warning or file. The posteriors are an object in the row, so that
    no label can be taken for something else. No beginning of a row is valid JSON: a torn line cannot be mistaken.
    """

    files = several = True

    def __init__(self, path: str | None = None, posteriors: bool = False, sync: PositiveFloat | None = 1.0) -> None:
        """``path``, ``sync``: as in ``TextSink``. ``posteriors``: a row for each step, too."""
        super().__init__(path, sync)
        self.posteriors = posteriors

    def write(self, item: Item) -> None:
        """A line for each row, written at once."""
        match item:
            case TimedEvent():
                self.line("event", item.row())
            case TimedGap():
                self.line("gap", vars(item))
            case StreamWarning():
                self.line("warning", vars(item))
            case Steps() if self.posteriors and self.stream:
                for row in item.rows(self.stream):
                    self.line("step", row)
            case FileResult():
                self.journal.whole = True
                self.line("file", item.row())

    def line(self, kind: str, row: Row) -> None:
        """Write a row with its ``type``."""
        name = self.stream.name if self.stream else None
        self.journal.write(json.dumps({"type": kind, "stream": name} | row) + "\n")
