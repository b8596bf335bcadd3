"""Tables for pandas, DuckDB, Spark and all who read Parquet."""

import errno
import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.core.journal import Journal
from pipeline.core.text import clean
from pipeline.sinks.items import EVENT_COLUMNS, FileResult, Item, Row, TimedEvent
from pipeline.sinks.sink import Sink, regular_file

NUMBERS = {"start", "end", "part_start", "part_end", "peak", "score", "seconds"}  # columns, besides those with p_
GROUP_CELLS = 1 << 20  # of a row group: that many are held in memory
SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character, or a byte of a file name that is no UTF-8


class Parquet(Sink):
    r"""Files, or the events of a stream, as rows. Where there is no number there is null; text is never null. The
    posteriors are 32-bit columns, ``p_`` and the label; files with events have a row for each event instead, or one
    without any.

    Text in Parquet is UTF-8: bytes of file names that are not are spelt such as ``\xff``. (A name that has these four
    characters in it looks the same.)

    The table is written beside its place, some row groups at a time, and takes its place as a whole: for files by
    ``finish``, for a stream by ``close``. Otherwise there is nothing, and what was there stays.
    """

    files = True

    def __init__(self, path: str) -> None:
        """``path`` of the table. ConfigError without pyarrow, or if it is no regular file; OSError if it could not be
        written.
        """
        try:
            self.arrow: Any = importlib.import_module("pyarrow")
            self.parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise ConfigError("sink=parquet: needs pyarrow: pip install pyarrow (or choose sink=csv)") from None
        self.path = regular_file(path, "sink.parquet.path", "a table")
        self.outputs = (self.path,)
        self.journal = Journal(str(self.path), None)
        self.journal.whole = True
        self.part: Any = None  # what is written, as pyarrow sees it
        self.writer: Any = None
        self.schema: Any = None
        self.keys: list[str] = []  # of a row, one for each column
        self.rows: list[list[Any]] = []  # of the next row group
        self.broken = False

    def write(self, item: Item) -> None:
        """Keep the rows of an event or a file."""
        match item:
            case TimedEvent():
                self.add({key: getattr(item, key) for key in EVENT_COLUMNS})
            case FileResult():
                for row in item.table_rows():
                    self.add(row)

    def add(self, row: Row) -> None:
        """Keep a row; write a row group once there are enough. OSError names the file."""
        if self.broken:  # which was an error then
            return
        if self.writer is None:
            self.open(list(row))
        self.rows.append([to_cell(key, row.get(key, "")) for key in self.keys])
        if len(self.rows) == max(1, GROUP_CELLS // len(self.keys)):
            self.write_group()

    def open(self, keys: list[str]) -> None:
        """Begin a table with columns for these keys of a row."""
        self.keys, self.schema = keys, self.arrow.schema([(clean(key), self.kind(key)) for key in keys])
        with self.all_or_nothing():
            file = self.journal.open()
            assert file is not None
            self.part = os.fdopen(file, "wb", closefd=False)
            self.writer = self.parquet.ParquetWriter(self.part, self.schema, compression="zstd")

    def kind(self, key: str) -> Any:
        """The type of a column."""
        if key.startswith("p_"):
            return self.arrow.float32()
        return self.arrow.float64() if is_number(key) else self.arrow.string()

    def write_group(self) -> None:
        """A row group of what is kept."""
        with self.all_or_nothing():
            columns = zip(*self.rows, strict=True)
            arrays = [self.arrow.array(column, kind) for column, kind in zip(columns, self.schema.types, strict=True)]
            self.writer.write_table(self.arrow.Table.from_arrays(arrays, schema=self.schema))
        self.rows.clear()

    def finish(self) -> None:
        """All files are written: the table takes its place."""
        if self.writer is None:
            return
        if self.rows:
            self.write_group()
        with self.all_or_nothing():
            self.writer.close()
            self.part.close()
            self.journal.finish()
        self.writer = None

    def close(self) -> None:
        """The events of a stream are all written. A table of files that is not finished has never been."""
        if self.stream and not self.broken:
            if self.writer is None:
                self.open(list(EVENT_COLUMNS))
            self.finish()
        self.stream = None
        self.discard()

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """In here things succeed, or nothing is left of the table."""
        try:
            yield
        except BaseException as error:
            self.discard()
            self.broken = True
            if isinstance(error, OSError):
                raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(self.path)) from None
            raise

    def discard(self) -> None:
        """Leave nothing of a table that has not taken its place."""
        writer, self.writer = self.writer, None
        if writer is not None:
            with suppress(Exception):  # it writes its end, for which there may be no room
                writer.close()
            with suppress(OSError):
                self.part.close()
        self.journal.close()


def is_number(key: str) -> bool:
    """Whether a column has numbers."""
    return key in NUMBERS or key.startswith("p_")


def to_cell(key: str, value: Any) -> float | str | None:
    """A number, or null; or text as UTF-8 can have it. Labels are hostile, too."""
    if is_number(key):
        return None if value is None or value == "" else float(value)
    text = str(value)
    if key == "label":
        return clean(text)
    return text if text.isascii() else SURROGATE.sub(lambda found: clean(found[0]), text)
