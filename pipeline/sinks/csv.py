"""Tables for spreadsheets and pandas."""

import csv
import sys
from pathlib import Path
from typing import Any, TextIO

from pipeline.sink import Row, Sink, open_output

FORMULA = ("=", "+", "-", "@", "\t", "\r")


class CSV(Sink):
    """Events or files as rows; posteriors, if asked for, in a second table beside it. Gaps have no rows: they are where
    times are missing among the posteriors.
    """

    def __init__(self, path: str | None = None, posteriors: bool = False) -> None:
        """``path`` of the table (None: standard output, where posteriors stand instead of the events)."""
        super().__init__(posteriors)
        self.main = Table(open_output(path)) if path or not posteriors else None
        self.beside: Table | None = None
        if posteriors:
            beside = str(Path(path).with_suffix(".posteriors.csv")) if path else None
            self.beside = Table(open_output(beside))

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """Write the head of the table of events."""
        super().start(name, labels, rate, hop)
        if self.main:
            self.main.head(["start", "end", "label", "score"])

    def event(self, row: Row) -> None:
        """An event."""
        if self.main:
            self.main.write(row)

    def step(self, row: Row) -> None:
        """A step."""
        if self.beside:
            self.beside.write(row)

    def file(self, row: Row) -> None:
        """A file: its posteriors are in its row anyway."""
        table = self.main or self.beside
        assert table is not None
        table.write(row)

    def close(self) -> None:
        """Close the files."""
        for table in (self.main, self.beside):
            if table and table.out is not sys.stdout:
                table.out.close()


class Table:
    """A csv file whose columns are the keys of its first row."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.rows = out, csv.writer(out, lineterminator="\n")
        self.headed = False

    def head(self, columns: list[str]) -> None:
        """The first line."""
        self.rows.writerow([cell(column) for column in columns])
        self.headed = True

    def write(self, row: Row) -> None:
        """A line, written at once."""
        if not self.headed:
            self.head(list(row))
        self.rows.writerow([cell(value) for value in row.values()])
        self.out.flush()


def cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula is quoted with an apostrophe."""
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA) else value
