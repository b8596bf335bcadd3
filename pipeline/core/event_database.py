"""A database of what was heard and seen: one SQLite file, to which several programs may write at once.

Its tables are in ``event_tables.sql``, and ``docs/sinks.md`` describes them. Whoever changes them raises ``VERSION``.
"""

import errno
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import ConfigError

VERSION = 2  # of the tables: the file's user_version
APPLICATION = 0x52697675  # the file's application_id: "Rivu"
BUSY_SECONDS = 10.0  # for which another program may hold the file
TABLES = Path(__file__).with_name("event_tables.sql").read_text()


def open_database(path: Path, key: str, write: bool = False) -> sqlite3.Connection:
    """The database at ``path``, whose every statement is a transaction; with ``write`` it is made if it is not there.

    One thread at a time may use it. ConfigError, which names the ``key``, if it is no database, another program's, or
    of a newer version; OSError if it cannot be opened.
    """
    if not write and not path.is_file():
        raise ConfigError(f"{key}: {path} does not exist; expected a database of events")
    with database_errors(path):
        address = f"{path.resolve().as_uri()}?mode={'rwc' if write else 'rw'}"  # a mere reader would leave files behind
        database = sqlite3.connect(
            address, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True
        )
        try:
            if write:
                make_tables(database)
            check_version(database, path, key)
        except BaseException as error:
            database.close()
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
                raise ConfigError(f"{key}: {path} is no SQLite database; choose another file") from None
            raise
        return database


def make_tables(database: sqlite3.Connection) -> None:
    """Make the tables of a file that has none; readers and writers do not wait for each other (WAL)."""
    database.execute("BEGIN IMMEDIATE")  # so that two programs do not both make them
    empty = not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if empty:
        for statement in TABLES.strip().split(";\n"):
            database.execute(statement)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute(f"PRAGMA user_version = {VERSION}")
    elif number(database, "application_id") == APPLICATION and number(database, "user_version") == 1:
        database.execute("ALTER TABLE events ADD COLUMN details TEXT")
        database.execute("CREATE INDEX IF NOT EXISTS events_stream ON events (stream, label, start)")
        database.execute("PRAGMA user_version = 2")
    database.execute("COMMIT")
    until = time.monotonic() + BUSY_SECONDS
    while number(database, "application_id") == APPLICATION:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:  # SQLite does not wait here for another program
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def check_version(database: sqlite3.Connection, path: Path, key: str) -> None:
    """ConfigError if we do not know such tables."""
    if number(database, "application_id") != APPLICATION:
        raise ConfigError(f"{key}: {path} is a database, but none of sink=sqlite; choose another file")
    if (found := number(database, "user_version")) > VERSION:
        raise ConfigError(
            f"{key}: {path} is of version {found}, written by a newer Rivulet; this one knows version {VERSION}. "
            "Update Rivulet, or choose another file"
        )


def number(database: sqlite3.Connection, pragma: str) -> int:
    return int(database.execute(f"PRAGMA {pragma}").fetchone()[0])


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """In here an error of SQLite is an OSError that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from None
