"""What was heard and seen: a page of a database of events (``sink=sqlite``), or of its newest part.

By label and hour, with clips to be played where there are any (``sink=clips``). The page refers to the clips by their
places relative to its own.
"""

import os
import sqlite3
from bisect import bisect_right
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pipeline.report.page as page
from pipeline.core.atomic import write_text
from pipeline.core.errors import ConfigError
from pipeline.core.event_database import database_errors, open_database
from pipeline.core.quantity import AGES, read_quantity
from pipeline.core.text import clean
from pipeline.report.charts import Plot, plot_histogram

ENDINGS = (".sqlite", ".sqlite3", ".db")
MAX_LABELS, MAX_EVENTS = 24, 200  # that have a chart each; that are listed, the newest
MAX_HOURS = 72  # of more, days are counted
TICKS = 6  # of a chart
MOMENT = "coalesce({0}.time, streams.began)"  # of a row; of a recording's, when it was read
WITHIN = "{0} JOIN streams ON streams.id = {0}.stream WHERE " + MOMENT + " >= :since"


class Row(NamedTuple):
    """An event of the list; ``clips``: kinds (audio, video) and addresses, '' for one that is gone."""

    when: str
    stream: str
    label: str
    score: float
    seconds: float
    clips: list[tuple[str, str]]


def write_events(path: Path, age: str, out: Path) -> int:
    """Make the page ``out`` of the newest part of a database; 0. ConfigError and OSError say why there is none."""
    with closing(open_database(path, "python -m pipeline.report")) as database, database_errors(path):
        if out.exists() and out.samefile(path):
            raise ConfigError(f"--out: {out} is the database; choose another name")
        since = read_since(age, database)
        text = render_events(database, path, since, out)
        count = database.execute(f"SELECT count(*) FROM {WITHIN.format('events')}", {"since": since}).fetchone()[0]
    write_text(out, text)
    print(clean(f"{count:,} events since {local(since):%Y-%m-%d %H:%M}: {out}"))
    return 0


def read_since(text: str, database: sqlite3.Connection) -> str:
    """A moment in UTC, as it stands in the database: so long ago, or at a date here, but not before the oldest."""
    query = "SELECT min(began) FROM (SELECT began FROM streams UNION SELECT min(time) FROM events)"
    now, oldest = datetime.now(UTC), database.execute(query).fetchone()[0]
    if text == "all":
        return oldest or to_text(now)
    try:
        age = read_quantity(text, AGES)
        since = now - timedelta(seconds=age) if age else datetime.fromisoformat(text).astimezone(UTC)
        return max(to_text(since), oldest or "")
    except (ValueError, OverflowError):
        raise ConfigError(
            f"--since: got {text!r}; expected an age (12h, 7d), all, or a date (2026-11-29, 2026-11-29T18:30)"
        ) from None


def to_text(time: datetime) -> str:
    """A time as it stands in the database."""
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def local(text: str) -> datetime:
    """A time of the database in the local time zone."""
    return datetime.fromisoformat(text).astimezone()


def render_events(database: sqlite3.Connection, path: Path, since: str, out: Path) -> str:
    """The page."""
    database.row_factory = sqlite3.Row
    values = {"since": since}
    starts, hourly = list_bins(local(since), datetime.now().astimezone())
    edges = [to_text(start) for start in starts]
    counts: dict[str, list[int]] = {}
    totals: Counter[str] = Counter()
    for label, time in database.execute(f"SELECT label, events.time FROM {WITHIN.format('events')}", values):
        totals[label] += 1
        if time is not None:
            counts.setdefault(label, [0] * len(edges))[max(0, bisect_right(edges, time) - 1)] += 1
    gaps = database.execute(f"SELECT count(*), total(length) FROM {WITHIN.format('gaps')} AND length > 0", values)
    told = f"SELECT code, text, count(*) FROM {WITHIN.format('warnings')} GROUP BY code, text ORDER BY 3 DESC"
    warnings = database.execute(told, values).fetchall()
    newest = database.execute("SELECT max(coalesce(events.time, began)) FROM events, streams ON streams.id = stream")
    last = newest.fetchone()[0]
    return page.render(
        "events.html",
        name=path.name,
        since=f"{local(since):%Y-%m-%d %H:%M %z}",
        totals=[(label, count, f"{count:,}", "") for label, count in totals.most_common()],
        charts=[
            (label, totals[label], plot_bins(label, counts[label], starts, hourly))
            for label in sorted(counts, key=lambda label: (-sum(counts[label]), label))[:MAX_LABELS]
        ],
        gaps=tuple(gaps.fetchone()),
        warnings=[(code, text, f"{number:,}") for code, text, number in warnings],
        warned=sum(number for *_, number in warnings),
        rows=list_events(database, path, since, out),
        newest=f"{local(last):%Y-%m-%d %H:%M}" if last else "",
        unit="hour" if hourly else "day",
    )


def list_bins(first: datetime, last: datetime) -> tuple[list[datetime], bool]:
    """When hours begin, or days if there are too many hours, on a clock; and whether they are hours."""
    first, width = first.replace(minute=0, second=0, microsecond=0), timedelta(hours=1)
    if not (hourly := last - first <= MAX_HOURS * width):
        first, width = first.replace(hour=0), timedelta(days=1)
    return [first + number * width for number in range(max(1, ceil((last - first) / width)))], hourly


def plot_bins(label: str, counts: list[int], starts: list[datetime], hourly: bool) -> Plot:
    """How often a label was heard, by hour or day."""
    spans = [f"{start:%m-%d %H:%M}" if hourly else f"{start:%Y-%m-%d}" for start in starts]
    ticks = [(place, spans[place][6 if hourly else 5 :]) for place in range(0, len(spans), ceil(len(spans) / TICKS))]
    return plot_histogram({label: counts}, spans, ticks, "", f"{label}: events by time")


def list_events(database: sqlite3.Connection, path: Path, since: str, out: Path) -> list[Row]:
    """The newest events, with their clips."""
    query = (
        f"SELECT events.*, name FROM {WITHIN.format('events')} ORDER BY {MOMENT.format('events')} DESC, events.id DESC"
    )
    found = []
    for event in database.execute(f"{query} LIMIT {MAX_EVENTS}", {"since": since}).fetchall():
        key = event["stream"], event["label"], event["start"]
        clips = database.execute("SELECT path FROM clips WHERE (stream, label, start) = (?, ?, ?)", key)
        when = f"{local(event['time']):%m-%d %H:%M:%S}" if event["time"] else f"at {event['start']:.2f} s"
        length = event["end"] - event["start"]
        players = [player(path.parent / clip["path"], out) for clip in clips]
        details = event["details"] if "details" in event.keys() else None  # noqa: SIM118 (not a dict)
        label = f"{event['label']}: {details}" if details else event["label"]
        found.append(Row(when, event["name"], label, event["score"], length, players))
    return found


def player(clip: Path, out: Path) -> tuple[str, str]:
    """What plays a clip, and its address for a page."""
    kind = "video" if clip.suffix == ".mp4" else "audio"
    return kind, quote(os.path.relpath(clip, out.parent)) if clip.is_file() else ""


def is_database(argument: str) -> bool:
    """Whether an argument names a database rather than a run's folder."""
    return argument.lower().endswith(ENDINGS) and not Path(argument).is_dir()
