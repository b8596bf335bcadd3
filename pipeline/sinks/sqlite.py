"""Events, gaps, warnings and clips in one database."""

import os
import sqlite3
import time
from pathlib import Path
from typing import Self

from pydantic import PositiveFloat

import pipeline.sinks.items as items
from pipeline.core.errors import ConfigError
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

    def __init__(self, path: str | None = None, sync: PositiveFloat | None = 1.0) -> None:
        """``path`` of the database, which is made if it is not there. ``sync``: seconds after which rows also survive a
        power cut (None: when SQLite decides). ConfigError if it is no such database, or of a newer version; OSError if
        it could not be written.
        """
        if path is None:
            raise ConfigError("sink.sqlite.path: is not set; give the database: sink.sqlite.path=events.sqlite")
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
        with database_errors(self.path):
            self.database.execute("PRAGMA synchronous = NORMAL")
        self.add_stream(stream)

    def add_stream(self, stream: items.StreamInfo) -> None:
        """A row for the stream."""
        assert self.database is not None
        row = clean(stream.name), items.to_utc(time.time())
        with database_errors(self.path):
            self.number = self.database.execute("INSERT INTO streams (name, began) VALUES (?, ?)", row).lastrowid

    def beside(self, stream: items.StreamInfo) -> Self:
        """In the same database; under a name that is there already, if it is."""
        other = super().beside(stream)
        other.clock = items.Clock()
        assert self.database is not None
        with database_errors(self.path):
            query = "SELECT max(id) FROM streams WHERE name = ?"
            (other.number,) = self.database.execute(query, (clean(stream.name),)).fetchone()
        other.again = other.number is not None  # so its events may be told again
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
        assert self.database is not None
        query = "SELECT 1 FROM events WHERE stream = ? AND label = ? AND start = ?"
        with database_errors(self.path):
            found = self.database.execute(query, (self.number, clean(event.label), event.start)).fetchone()
        return found is not None

    def add(self, table: str, row: items.Row) -> None:
        """A row of the stream."""
        if self.database is None:
            return
        row = row | {"stream": self.number}
        values = [clean(value) if isinstance(value, str) else value for value in row.values()]
        with database_errors(self.path):
            self.database.execute(
                f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", values
            )
        self.due = True

    def flush(self) -> None:
        """To the disk, if it is time."""
        if self.database and self.sync and self.due and time.monotonic() - self.synced >= self.sync:
            with database_errors(self.path):
                self.database.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self.synced, self.due = time.monotonic(), False

    def close(self) -> None:
        """Close the database."""
        if self.database:
            database, self.database = self.database, None
            with database_errors(self.path):
                database.close()
