"""Rows of files on their way to the sinks that write files, and the sum of them."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal, TypeAlias

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core.text import clean
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.sink import Row

FailOn: TypeAlias = Literal["errors", "warnings", "never"]


class Tally:
    """Counts of rows."""

    def __init__(self) -> None:
        self.status, self.labels = Counter[str](), Counter[str]()
        self.codes = {"warning": Counter[str](), "error": Counter[str]()}
        self.seconds = 0.0

    def add(self, row: Row) -> None:
        """One more."""
        self.status[row["status"]] += 1
        self.seconds += row["seconds"] or 0.0
        if row["label"]:
            self.labels[row["label"]] += 1
        if row["status"] in self.codes:
            self.codes[row["status"]].update(row["code"].split())

    def show(self, note: str = "") -> None:
        """Tell people, on standard error."""
        console = Console(stderr=True)
        total = sum(self.status.values())
        counts = ", ".join(f"{count:,} {status}" for status, count in sorted(self.status.items(), reverse=True))
        files = "1 file" if total == 1 else f"{total:,} files"
        console.print(f"{files}, {self.seconds / 3600:.2f} h: {counts}", highlight=False, soft_wrap=True)
        if total:
            console.print(self.table())
        if note:
            console.print(note, highlight=False, soft_wrap=True, markup=False)

    def fails(self, on: FailOn) -> bool:
        """Whether some rows are what the user does not want to see."""
        return on != "never" and bool(self.status["error"] or (on == "warnings" and self.status["warning"]))

    def table(self) -> Table:
        """For people."""
        table = Table()
        for column in ("", "what", "files"):
            table.add_column(column, justify="right" if column == "files" else "left")
        kinds = (("label", self.labels), ("warning", self.codes["warning"]), ("error", self.codes["error"]))
        for kind, found in kinds:
            for number, (name, count) in enumerate(found.most_common()):
                table.add_row("" if number else kind, Text(clean(name)), f"{count:,}")
        return table


def record(rows: Iterable[Row], target: Fanout, timed: bool, labelled: bool) -> Tally:
    """Rows into the sinks that write files, and counted."""
    tally = Tally()
    for row in rows:
        tally.add(row)
        target.record(even(row, timed, labelled))
    target.finish()
    return tally


def even(row: Row, timed: bool, labelled: bool) -> Row:
    """A row with the columns that all rows have, in their order: start and end if any of them is a part of a file
    (``timed``), truth if any has one.
    """
    found: Row = {"path": row["path"]}
    if timed:
        found |= {"start": row.get("start", 0.0), "end": row.get("end", "")}
    found |= {key: row[key] for key in ("status", "code", "label", "score", "seconds")}
    if labelled:
        found["truth"] = row.get("truth", "")
    return found | {key: row[key] for key in ("reason", "posteriors", "events") if key in row}
