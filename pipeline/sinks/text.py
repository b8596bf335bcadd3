"""Sinks that write lines of text to a file, or to standard output; and csv, which several of them write."""

import csv
import io
import sys
from collections.abc import Iterable
from typing import Any

from pydantic import PositiveFloat

from pipeline.core.journal import Journal
from pipeline.core.spreadsheet import protect
from pipeline.core.text import clean
from pipeline.sinks.items import Row, StreamInfo
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
        self.journal.close()


class Table:
    """A csv file whose columns are the keys of its first row."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.has_head = journal, False

    def head(self, columns: Iterable[str]) -> None:
        """Write the names of the columns."""
        self.journal.write(csv_line(columns))
        self.has_head = True

    def write(self, row: Row) -> None:
        """Write a row at once, and the head before the first."""
        if not self.has_head:
            self.head(clean(column) for column in row)
        for_people = self.journal.path is None and sys.stdout.isatty()  # whom names must not deceive
        shown = {key for key, value in row.items() if key == "label" or (for_people and isinstance(value, str))}
        self.journal.write(csv_line(clean(value) if key in shown else value for key, value in row.items()))


def csv_line(values: Iterable[Any]) -> str:
    """One line of a table, cells quoted where they must be."""
    text = io.StringIO()
    cells = [protect(value) if isinstance(value, str) else value for value in values]
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # so that both are quoted
    return text.getvalue()[:-2] + "\n"
