"""Events, gaps, warnings and clips in one database."""

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import PositiveFloat

import pipeline.sinks.items as items
from pipeline.core.event_database import database_errors, open_database
from pipeline.core.journal import Journal
from pipeline.core.text import clean
from pipeline.sinks.sink import Sink


class SQLite(Sink):
    """Rows are added to what other runs have written, or are writing. Each is there at once, whatever becomes of the
    program. Times are seconds of the stream, and beside them UTC, if it is live. Of several streams at a time, one of a
    known name goes on, and an event that is there is not added again.
    """

    several = True

    def __init__(self, path: str, sync: PositiveFloat | None = 1.0) -> None:
        """``path`` of the database, which is made if it is not there. ``sync``: seconds after which rows also survive a
        power cut (None: when SQLite decides). ConfigError if it is no such database, or of a newer version; OSError if
        it could not be written.
        """
        self.path, self.sync = Path(path).expanduser(), sync
        self.outputs = (self.path,)
        Journal(str(self.path), None)  # whether it could be written
        if self.path.is_file() and self.path.stat().st_size:
            open_database(self.path, "sink.sqlite.path").close()
        self.clock = items.Clock()
        self.database: sqlite3.Connection | None = None
        self.number: int | None = None  # of the stream
        self.again = False  # whether events may come again
        self.synced, self.due = time.monotonic(), False

    def start(self, stream: items.StreamInfo) -> None:
        """Open the database, and give the stream a row."""
        super().start(stream)
        self.database = open_database(self.path, "sink.sqlite.path", write=True)
        self.execute("PRAGMA synchronous = NORMAL")
        self.add_stream(stream)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement in the open database; text is made harmless. OSError names the file."""
        assert self.database is not None
        with database_errors(self.path):
            return self.database.execute(statement, [clean(one) if isinstance(one, str) else one for one in values])

    def add_stream(self, stream: items.StreamInfo) -> None:
        """A row for the stream."""
        row = stream.name, items.to_utc(time.time())
        self.number = self.execute("INSERT INTO streams (name, began) VALUES (?, ?)", row).lastrowid

    def beside(self, stream: items.StreamInfo) -> Self:
        """In the same database; under a name that is there already, if it is."""
        other = super().beside(stream)
        other.clock = items.Clock()
        (other.number,) = self.execute("SELECT max(id) FROM streams WHERE name = ?", [stream.name]).fetchone()
        other.again = other.number is not None  # so the stream may send events that it has sent before
        if other.number is None:
            other.add_stream(stream)
        return other

    def write(self, item: items.Item) -> None:
        """A row, which is there at once."""
        match item:
            case items.Clock():
                self.clock = item
            case items.TimedEvent() if not self.again or not self.has(item):
                self.add("events", item.row() | {"time": self.clock.utc(item.start)})
            case items.TimedGap():
                self.add("gaps", vars(item) | {"time": self.clock.utc(item.start)})
            case items.StreamWarning():
                row = {"start": item.time, "time": self.clock.utc(item.time), "code": item.code, "text": item.text}
                self.add("warnings", row)
            case items.Clip():
                self.add("clips", vars(item) | {"path": os.path.relpath(item.path, self.path.parent)})

    def has(self, event: items.TimedEvent) -> bool:
        """Whether an event is there."""
        query = "SELECT 1 FROM events WHERE stream = ? AND label = ? AND start = ?"
        return self.execute(query, (self.number, event.label, event.start)).fetchone() is not None

    def add(self, table: str, row: items.Row) -> None:
        """A row of the stream."""
        if self.database is None:
            return
        row = row | {"stream": self.number}
        places = ", ".join("?" * len(row))
        self.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", [*row.values()])
        self.due = True

    def flush(self) -> None:
        """To the disk, if it is time."""
        if self.database and self.sync and self.due and time.monotonic() - self.synced >= self.sync:
            self.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self.synced, self.due = time.monotonic(), False

    def close(self) -> None:
        """Close the database."""
        if self.database:
            database, self.database = self.database, None
            with database_errors(self.path):
                database.close()
