"""What the sinks were told, so that they are told it once: events and gaps, by session, label and first tick.

A database beside the key, which outlives the program (``kill -9``), and which all servers of a machine with this key
share. What is as old as a seal can get is forgotten: no client can bring it back.
"""

import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.serving.seal import LIFETIME_SECONDS

TABLE = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS told (session TEXT, label TEXT, start INTEGER, time INTEGER,
    PRIMARY KEY (session, label, start)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS told_time ON told (time);
"""


class Once:
    """One thread at a time may use it. A disk that fails is told, and then memory has to do."""

    def __init__(self, path: Path | None = None) -> None:
        """``path`` of the database, which is made if it is not there; None: in memory."""
        self.path = path
        self.database: sqlite3.Connection | None = None
        self.forget(time.time())

    def close(self) -> None:
        """It is not used any more."""
        if self.database:
            self.database.close()

    __del__ = close  # newer Pythons warn of a database that is not closed

    def run(self, query: str, *values: Any) -> Any:
        """The first row of a query."""
        try:
            if self.database is None:
                self.database = sqlite3.connect(
                    self.path or ":memory:", timeout=1.0, isolation_level=None, check_same_thread=False
                )
                self.database.executescript(TABLE)
            return self.database.execute(query, values).fetchone()
        except sqlite3.Error as error:
            if self.path is None:
                raise
            print(f"note: {self.path}: {error}; sinks may be told an event twice", file=sys.stderr)
            self.close()
            self.path, self.database = None, None
            return self.run(query, *values)

    def knows(self, session: str, label: str, start: int) -> bool:
        """Whether the sinks do."""
        query = "SELECT 1 FROM told WHERE session = ? AND label = ? AND start = ?"
        return self.run(query, session, label, start) is not None

    def add(self, session: str, label: str, start: int, now: float) -> None:
        """The sinks know it, ``now`` seconds after 1970."""
        self.run("INSERT OR IGNORE INTO told VALUES (?, ?, ?, ?)", session, label, start, int(now))

    def forget(self, now: float) -> None:
        """What no seal can bring back."""
        self.run("DELETE FROM told WHERE time < ?", int(now) - LIFETIME_SECONDS)
