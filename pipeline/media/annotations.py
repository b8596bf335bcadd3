"""Tables of what is really in a recording: ``start,end,label`` in seconds, a row for each event."""

import csv
import math
from pathlib import Path

from pipeline.core.errors import ConfigError

COLUMNS = ("start", "end", "label")
Times = tuple[float, float, str]  # start and end in seconds, label


def read_truth(path: str | Path, key: str) -> list[Times]:
    """The events of a table, as they stand; without rows, there are none. ConfigError, which names the ``key``, if it
    is missing, or a row makes no sense.
    """
    table = Path(path).expanduser()
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    except FileNotFoundError:
        raise ConfigError(
            f"{key}: {table} does not exist; expected a table start,end,label of what is in the recording (without "
            "rows, if there is nothing)"
        ) from None
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{key}: {table} cannot be read as a table: {error}") from None
    if missing:
        raise ConfigError(f"{key}: {table} has no column {missing[0]!r}; expected start,end,label")
    found = []
    for number, row in enumerate(rows, 1):
        try:
            start, end = float(row["start"]), float(row["end"])
        except (TypeError, ValueError):
            start, end = math.nan, math.nan
        if not (0 <= start < end < math.inf) or not row["label"]:
            raise ConfigError(f"{key}: {table} row {number}: expected 0 <= start < end in seconds and a label")
        found.append((start, end, str(row["label"])))
    return found
