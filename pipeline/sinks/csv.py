"""Tables for spreadsheets and pandas."""

import csv
import io
import sys
from pathlib import Path
from typing import Any

from pydantic import PositiveFloat

from pipeline.core.journal import Journal
from pipeline.core.text import clean
from pipeline.sinks.sink import Row, Sink, expanded

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


class CSV(Sink):
    """Events or files as rows; posteriors, if asked for, in a second table beside it. A class's column is ``p_`` and
    its label, so that no label can be taken for another column. Gaps have no rows: they are where times are missing
    among the posteriors.
    """

    files = True

    def __init__(self, path: str | None = None, posteriors: bool = False, sync: PositiveFloat | None = 1.0) -> None:
        """``path`` of the table (None: standard output, where posteriors stand instead of the events), forced to the
        disk every ``sync`` seconds.
        """
        super().__init__(posteriors)
        self.stdout = "" if path else "rows"
        self.main = Table(Journal(path, sync)) if path or not posteriors else None
        self.beside: Table | None = None
        if posteriors:
            beside = str(Path(path).with_suffix(".posteriors.csv")) if path else None
            self.beside = Table(Journal(beside, sync))
        tables = (table.journal.path for table in (self.main, self.beside) if table)
        self.outputs = tuple(path for path in tables if path)

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """Write the head of the table of events."""
        super().start(name, labels, rate, hop)
        if self.main:
            self.main.head(["start", "end", "peak", "label", "score"])
        if self.beside:
            self.beside.journal.open()

    def settle(self) -> None:
        """To the disk, if it is time."""
        for table in (self.main, self.beside):
            if table:
                table.journal.settle()

    def event(self, row: Row) -> None:
        """An event."""
        if self.main:
            self.main.write(row)

    def step(self, row: Row) -> None:
        """A step."""
        if self.beside:
            self.beside.write(flat(row))

    def file(self, row: Row) -> None:
        """A file: its posteriors are in its row anyway."""
        table = self.main or self.beside
        assert table is not None
        table.journal.whole = True
        for part in expanded(row):
            table.write(flat(part))

    def finish(self) -> None:
        """The table of files takes its place."""
        table = self.main or self.beside
        assert table is not None
        table.journal.finish()

    def close(self) -> None:
        """Close the files."""
        try:
            if self.main:
                self.main.journal.close()
        finally:
            if self.beside:
                self.beside.journal.close()


class Table:
    """A csv file whose columns are the keys of its first row."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.headed = journal, False

    def head(self, columns: list[str]) -> None:
        """The first line."""
        self.journal.write(line(columns))
        self.headed = True

    def write(self, row: Row) -> None:
        """A line, written at once."""
        if not self.headed:
            self.head([clean(column) for column in row])
        shown = self.journal.path is None and sys.stdout.isatty()  # to people, whom names must not deceive
        cells = [
            clean(value) if key == "label" or (shown and isinstance(value, str)) else value
            for key, value in row.items()
        ]
        self.journal.write(line(cells))


def flat(row: Row) -> Row:
    """A row with a column for each class, behind the others (an age comes last)."""
    scores = {f"p_{label}": value for label, value in row["posteriors"].items()}
    late = {"age": row["age"]} if "age" in row else {}
    return {key: value for key, value in row.items() if key not in ("posteriors", "age")} | scores | late


def line(values: list[Any]) -> str:
    """One line of a table, cells quoted where they must be."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([cell(value) for value in values])  # so that both are quoted
    return text.getvalue()[:-2] + "\n"


def cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula is quoted with an apostrophe."""
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA) else value
