"""Tables that people write: rows by column, such as what is really in a recording, ``start,end,label`` in seconds."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.errors import ConfigError

COLUMNS = ("start", "end", "label")
Times = tuple[float, float, str]  # start and end in seconds, label


def read_rows(table: Path, key: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a csv or jsonl file. ConfigError, which names the ``key``, if they lack a column or it is missing."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            lines = table.suffix == ".jsonl"
            rows = [json.loads(line) for line in file if line.strip()] if lines else list(csv.DictReader(file))
    except FileNotFoundError:
        raise ConfigError(f"{key}: {table} does not exist; expected a table {','.join(columns)}") from None
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{key}: {table} cannot be read as a table: {error}") from None
    for column in columns:
        if not all(isinstance(row, dict) and column in row for row in rows):
            raise ConfigError(f"{key}: {table} has no column {column!r}; expected {','.join(columns)}")
    return rows


def read_truth(path: str | Path, key: str) -> list[Times]:
    """The events of a table, as they stand; without rows, there are none. ConfigError, which names the ``key``, if it
    is missing, or a row makes no sense.
    """
    table, found = Path(path).expanduser(), []
    for number, row in enumerate(read_rows(table, key, COLUMNS), 1):
        try:
            start, end = float(row["start"]), float(row["end"])
        except (TypeError, ValueError):
            start, end = math.nan, math.nan
        if not (0 <= start < end < math.inf) or not row["label"]:
            raise ConfigError(f"{key}: {table} row {number}: expected 0 <= start < end in seconds and a label")
        found.append((start, end, str(row["label"])))
    return found
