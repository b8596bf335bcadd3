"""Tables that people and programs write: csv, jsonl or parquet, a row at a time, by the same rules for all readers.

A csv may be a spreadsheet's: with commas, semicolons or tabs, decimal commas, in UTF-8 or UTF-16. Names of columns
count without the blanks around them, and those that we know in any case (``Path``).
"""

import codecs
import csv
import importlib
import io
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.core.spreadsheet import unprotect

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
KNOWN = ("path", "label", "start", "end", "split", "time")
BATCH_ROWS = 1 << 14  # rows of a parquet file in memory
WHOLE = re.compile(r"-?\d+\.0+")  # a whole number, as pandas writes a column that has gaps
Row = dict[str, Any]


def is_table(path: str) -> bool:
    """Whether a file is a table, by its ending."""
    return path.lower().endswith(ENDINGS)


def read_table(
    table: str,
    key: str,
    needed: Sequence[str],
    wanted: Sequence[str] | None = None,
    headless: bool = False,
    blank: bool = False,
) -> Iterator[Row]:
    """Its rows by column, but empty ones, and only with ``wanted`` columns if that saves time. ``headless``: it may be
    a label track of Audacity, with the ``needed`` columns. ``blank``: rows with nothing but empty cells count.

    ConfigError, which names the ``key``, if it cannot be read or a needed column is missing.
    """
    ending, number = os.path.splitext(table)[1].lower(), 0
    try:
        if ending == ".jsonl":
            rows = read_jsonl(table, needed)
        elif ending == ".parquet":
            rows = read_parquet(table, needed, wanted)
        else:
            rows = read_csv(table, needed, headless, blank)
        for number, row in enumerate(rows, 1):  # noqa: B007
            yield row
    except FileNotFoundError:
        raise ConfigError(f"{key}: {table} does not exist; expected a table {','.join(needed)}") from None
    except OSError as error:
        raise ConfigError(f"{key}: {table} cannot be read as a table: {error.strerror or error}") from None
    except ImportError:
        raise ConfigError(f"{key}: to read {table}: pip install pyarrow (or give a csv or jsonl)") from None
    except ConfigError as error:
        raise ConfigError(f"{key}: {table} {error}") from None
    except (ValueError, TypeError, LookupError, RuntimeError, csv.Error) as error:
        raise ConfigError(f"{key}: {table} cannot be read after row {number}: {error}") from None


def is_manifest(table: str, key: str) -> bool:
    """Whether a table lists recordings, in a column ``path``; any other is a series."""
    try:
        next(read_table(table, key, ("path",), ("path",)), None)
    except ConfigError:
        return False
    return True


@lru_cache(64)
def name_columns(*given: str) -> list[str]:
    """Names of columns without blanks around them, in lower case if we know them."""
    plain = [name.strip("\ufeff \t\r\n\xa0") for name in given]
    return [low if (low := name.lower()) in KNOWN and low not in plain else name for name in plain]


def check_columns(there: Sequence[str], needed: Sequence[str], where: str = "") -> None:
    """ConfigError if a column is missing."""
    for column in needed:
        if column not in there:
            found = ", ".join(map(repr, there))
            raise ConfigError(f"{where}has no column {column!r}; it has {found}; expected {','.join(needed)}")


def open_text(table: str, newline: str) -> io.TextIOWrapper:
    """A table in UTF-8, or in UTF-16 if its first bytes say so. Bytes that are no UTF-8 are surrogate escapes."""
    raw = open(table, "rb")  # noqa: SIM115
    wide = raw.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    coding = ("utf-16", "strict") if wide else ("utf-8-sig", "surrogateescape")
    return io.TextIOWrapper(raw, *coding, newline=newline)


def read_csv(table: str, needed: Sequence[str], headless: bool, blank: bool) -> Iterator[Row]:
    """The table in a file."""
    with open_text(table, "") as file:
        yield from csv_rows(file, needed, headless, blank)


def csv_rows(file: Iterator[str], needed: Sequence[str], headless: bool = False, blank: bool = False) -> Iterator[Row]:
    """Lines of a table with a head. Cells that sink=csv has protected are as they were."""
    first = next((line for line in file if line.strip() and not line.lower().startswith("sep=")), "")
    if first.startswith("PK\x03\x04"):
        raise ValueError("it is an archive, such as .xlsx; expected text: save it as csv")
    if headless and is_label(first):
        plain = csv.reader(chain([first], file), delimiter="\t", quoting=csv.QUOTE_NONE)
        yield from (dict(zip(needed, row, strict=False)) for row in plain if row and row[0] != "\\")  # frequencies
        return
    heads = {mark: name_columns(*next(csv.reader([first], delimiter=mark))) for mark in ",;\t"} if first else {}
    fits = [mark for mark, head in heads.items() if set(needed) <= set(head)]
    mark = fits[0] if fits else max(heads, key=lambda mark: len(heads[mark]), default=",")
    rows = csv.reader(chain([first], file), delimiter=mark, strict=True)
    head = name_columns(*next(rows)) if first else list(needed)
    check_columns(head, needed)
    columns = {name: head.index(name) for name in head}  # the first, where two have one name
    yield from (
        {name: unprotect(row[n]) for name, n in columns.items() if n < len(row)}
        for row in rows
        if any(row) or (blank and row)
    )


def is_label(line: str) -> bool:
    """Whether a line is one of Audacity's label tracks: start, tab, end, tab, label."""
    with suppress(ValueError):
        start, end, *_ = map(to_seconds, line.split("\t")[:2])
        return math.isfinite(start + end)
    return False


def read_jsonl(table: str, needed: Sequence[str]) -> Iterator[Row]:
    """The objects of a file, one a line."""
    with open_text(table, "\n") as file:
        for number, line in enumerate((line for line in file if not line.isspace()), 1):
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f'got {line.strip()[:40]!r}; expected an object, such as {{"path": ...}}')
            names = name_columns(*row)
            check_columns(names, needed, f"row {number} ")
            yield dict(zip(names, row.values(), strict=True))


def read_parquet(table: str, needed: Sequence[str], wanted: Sequence[str] | None) -> Iterator[Row]:
    """A parquet file, a few rows at a time. ImportError without pyarrow."""
    parquet: Any = importlib.import_module("pyarrow.parquet")
    with open(table, "rb") as file:
        source = parquet.ParquetFile(file)
        there: list[str] = source.schema_arrow.names
        names = name_columns(*there)
        check_columns(names, needed)
        columns = {one: name for one, name in zip(there, names, strict=True) if wanted is None or name in wanted}
        unread = dict.fromkeys(names)
        for batch in source.iter_batches(BATCH_ROWS, columns=list(columns)):
            yield from (unread | {columns[one]: value for one, value in row.items()} for row in batch.to_pylist())


# ---------------------------------------------------------------- cells
def to_text(value: Any) -> str:
    """A value as a csv file would have it; half a surrogate pair, which JSON can write, as bytes that are no UTF-8."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        if value is None or value != value:  # pandas has NaN for nothing
            return ""
        return str(int(value) if isinstance(value, float) and value.is_integer() else value)
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    return value


def to_label(value: Any) -> str:
    """A label as all readers spell it: without blanks around it, a letter and its accent as one character (NFC), and a
    whole number without a point (``1.0`` is ``1``).
    """
    text = unicodedata.normalize("NFC", to_text(value)).strip()
    return text.partition(".")[0] if WHOLE.fullmatch(text) else text


def to_seconds(value: Any) -> float:
    """A time, also with a decimal comma. ValueError or TypeError if it is none."""
    try:
        return float(value.replace(",", ".") if isinstance(value, str) else value)
    except OverflowError:  # of whole numbers, which JSON has in any length
        raise ValueError("too large a number") from None


def to_times(start: Any, end: Any) -> tuple[float, float] | None:
    """When an event starts and ends, in seconds; None if that makes no sense."""
    with suppress(TypeError, ValueError):
        if 0 <= (first := to_seconds(start)) < (last := to_seconds(end)) < math.inf:
            return first, last
    return None


def to_part(row: Mapping[str, Any], where: str) -> tuple[float, float | None]:
    """The part of a recording that a row names, in seconds. ConfigError if it makes no sense."""
    start, end = row.get("start"), row.get("end")
    try:
        first = to_seconds(start) if start else 0.0
        last = None if end in (None, "") else to_seconds(end)
    except (TypeError, ValueError):
        first, last = math.nan, None
    if not math.isfinite(first + (last or 0)) or first < 0 or (last is not None and last <= first):
        raise ConfigError(f"{where}: got start {start!r} and end {end!r}; expected seconds, the end after the start")
    return first, last
