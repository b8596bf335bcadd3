"""What is really in a recording: a table ``start,end,label`` in seconds, or a label track of Audacity."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from pipeline.core.errors import ConfigError
from pipeline.core.text import clean
from pipeline.media.tables import is_label, is_table, open_text, read_table, to_label, to_times

COLUMNS = ("start", "end", "label")
SCORE = re.compile(r"(.+) [01]\.\d\d")  # behind a label, as sink=labels writes it
SLACK_SECONDS = 0.2  # by which an event may end behind its recording: that is rounding
Times = tuple[float, float, str]  # start and end in seconds, label
E = TypeVar("E", bound=tuple[Any, ...])


def read_truth(path: str | Path, key: str) -> list[Times]:
    """The events of a table, as they stand; without rows, there are none. ConfigError, which names the ``key``, if it
    is missing, or a row makes no sense.
    """
    table, found = Path(path).expanduser(), []
    track = table.suffix.lower() == ".txt"
    for number, row in enumerate(read_table(str(table), key, COLUMNS, headless=True), 1):
        label, times = to_label(row.get("label")), to_times(row.get("start"), row.get("end"))
        if times is None or not label:
            raise ConfigError(f"{key}: {table} row {number}: expected 0 <= start < end in seconds and a label")
        if label != clean(label):
            raise ConfigError(f"{key}: {table} row {number}: label {label!r}: expected characters of UTF-8 to be seen")
        found.append((*times, scored[1] if track and (scored := SCORE.fullmatch(label)) else label))
    return found


def find_truth(recording: Path) -> Path:
    """The table beside a recording: NAME.csv, or NAME.txt if that is a label track of Audacity; whether it is there or
    not, NAME.csv otherwise. Beside a series, which may be NAME.csv itself, it is NAME.txt.
    """
    table, track = recording.with_suffix(".csv"), recording.with_suffix(".txt")
    if is_table(str(recording)):
        return track
    if track.is_file() and not table.exists():
        with suppress(UnicodeError), open_text(str(track), "") as file:
            if not (first := file.readline()).strip() or is_label(first):
                return track
    return table


def beyond_end(events: Sequence[Times], seconds: float | None) -> str:
    """Which rows of a truth end behind a recording of so many seconds (None: unknown), in words; '' if none does."""
    late = [row for row, (_, end, _) in enumerate(events, 1) if seconds is not None and end > seconds + SLACK_SECONDS]
    if not late:
        return ""
    rows = f"{'row' if len(late) == 1 else 'rows'} {', '.join(map(str, late[:5]))}{' ...' if len(late) > 5 else ''}"
    start, end, _ = events[late[0] - 1]
    of = f"{len(late)} of {len(events)} true events end behind the recording's end ({seconds:.2f} s): {rows}"
    return f"{of} ({start:g} to {end:g}); expected seconds, not milliseconds or samples"


def own_overlaps(events: Sequence[Times]) -> str:
    """How many rows of a truth overlap the row before of their label, in words; '' if none does."""
    rows = sorted(enumerate(events, 1), key=lambda one: (one[1][2], one[1]))
    pairs = [(a, b, new[2]) for (a, old), (b, new) in pairwise(rows) if old[2] == new[2] and new[0] < old[1]]
    if not pairs:
        return ""
    one, other, label = pairs[0]
    return f"{len(pairs)} events overlap another of the same label, such as {label!r} in rows {one} and {other}"


def first_overlap(events: Iterable[E]) -> tuple[E, E] | None:
    """Two events of different labels that overlap, in the order of their starts; None if there are none. An event
    begins with start, end and label, in any unit.
    """
    now: E | None = None
    for event in sorted(events):
        if now is not None and event[0] < now[1] and event[2] != now[2]:
            return now, event
        if now is None or event[1] > now[1]:
            now = event
    return None
