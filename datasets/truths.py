"""What is in recordings: read from one table for all of them, or from a table beside each.

A truth is *strong* if the times of its events are known, and *weak* if it only says which labels are in the recording.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from datasets.rows import path_inside
from datasets.splits import name_splits
from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.core.text import clean
from pipeline.media.annotations import find_truth, read_truth
from pipeline.media.tables import Row, read_table, to_label, to_text, to_times
from pipeline.media.walk import media_names, tell

KNOWN = ("path", "start", "end", "label", "split")
NOTHING, WEAK, TIMED = range(3)  # what a row can say
GROUP = "group"  # the column, if another is not named
DESED = {"filename": "path", "onset": "start", "offset": "end", "event_label": "label", "event_labels": "label"}
LAYOUTS = ("path", "label"), ("filename", "event_label"), ("filename", "event_labels")  # what a table must have


class Event(NamedTuple):
    """``start`` and ``end`` in seconds, and the ``row`` of its table, from 1 on."""

    start: float
    end: float
    label: str
    row: int


@dataclass(frozen=True)
class Truth:
    """What is in a recording. ``labels``: all that is in it. ``events``: when, by start; None if that is not known.
    ``table`` says it.
    """

    path: Path
    labels: tuple[str, ...]
    events: tuple[Event, ...] | None
    table: Path
    split: str = ""
    group: str = ""


def read_beside(folder: Path, background: str | None) -> list[Truth]:
    """The truths of all recordings in a folder, each from NAME.csv or NAME.txt beside it (see ``find_truth``); those
    without one are left out, which is told. In folders named train, val and test, that is their split.

    ConfigError if there are none, or a row makes no sense.
    """
    names = list(media_names(str(folder), "dataset.root"))
    known = name_splits({name.partition("/")[0] for name in names if "/" in name})
    truths, without = list[Truth](), list[str]()
    for name in names:
        table = find_truth(folder / name)
        if not table.exists():
            without.append(name)
            continue
        rows = enumerate(read_truth(table, "dataset.root"), 1)
        events = [Event(*times, row) for row, times in rows if times[2] != background]
        for event in events:
            refuse_list(event.label, f"dataset.root: {table} row {event.row}")
        split = known.get(name.partition("/")[0], "") if "train" in known.values() else ""
        truths.append(strong(folder / name, events, table, split))
    there = f"{len(without)} of {len(names)} recordings in {str(folder)!r} have no NAME.csv or NAME.txt beside them"
    if not truths:
        hint = "expected recordings with such tables, start,end,label; or name one table of all, dataset.file=NAME"
        raise ConfigError(f"dataset.root: {there}; {hint}")
    if without:
        tell("dataset.root", f"{there}, and are left out, such as {without[0]}; nothing in it: an empty table")
    return merge_overlaps(truths, "dataset.root")


def read_all(table: Path, folder: Path, group: str, background: str | None) -> list[Truth]:
    """The truths of a table ``path,start,end,label[,split]``, whose paths are relative to ``folder``; or of DESED's
    (``filename``, ``onset``, ``offset``, ``event_label``). ``group``: the column that names groups. Recordings that
    are missing are told.

    ConfigError if it has no rows, or one makes no sense.
    """
    rows = read_rows(table)
    known = [*KNOWN, group]
    if group != GROUP and group not in rows[0]:
        raise ConfigError(f"dataset.group: {table} has no column {group!r}{nearest(group, list(rows[0]))}")
    absent = [column for column in known if column not in rows[0]]
    for column in rows[0]:
        if column not in known:
            hint = nearest(column, absent) if absent else ""
            tell("dataset.file", f"{table} has a column {column!r}, which is not used{hint}")
    by_path = defaultdict[str, list[tuple[int, Row]]](list)
    for number, row in enumerate(rows, 1):
        if not (name := to_text(row["path"]).strip()):
            raise ConfigError(f"dataset.file: {table} row {number}: every row needs a 'path'")
        by_path[name].append((number, row))
    truths, missing = list[Truth](), list[str]()
    for name, own in by_path.items():
        path = path_inside(folder, name, f"{table} row {own[0][0]}")
        if path.is_file():
            truths.append(to_truth(path, own, table, group, background))
        else:
            missing.append(f"{name} (row {own[0][0]})")
    if missing:
        text = (
            f"{len(missing)} of {len(by_path)} recordings of {table} are not in {str(folder)!r}, such as {missing[0]}"
        )
        if not truths:
            raise ConfigError(f"dataset.file: {text}; its paths are relative to dataset.root")
        tell("dataset.file", f"{text}; they are left out")
    return merge_overlaps(truths, "dataset.file")


def read_rows(table: Path) -> list[Row]:
    """The rows of a table in one of the ``LAYOUTS``, by our names of its columns."""
    refusal = None
    for layout in LAYOUTS:
        try:
            found = list(read_table(str(table), "dataset.file", layout))
        except ConfigError as error:
            refusal = refusal or error
            continue
        if not found:
            raise ConfigError(f"dataset.file: {table} has no rows; expected {','.join(KNOWN)}")
        return [{DESED.get(name, name): value for name, value in row.items()} for row in found]
    assert refusal is not None
    raise refusal


def to_truth(path: Path, rows: Sequence[tuple[int, Row]], table: Path, group: str, quiet: str | None) -> Truth:
    """The rows of one recording; ``quiet``: the label that means nothing. ConfigError if they contradict."""
    events, weak, kinds = list[Event](), list[str](), dict[int, int]()  # the first row of each kind
    for number, row in rows:
        where = f"dataset.file: {table} row {number}"
        times, text = read_times(row, where), to_label(row.get("label"))
        labels = [label for label in map(to_label, text.split(",")) if label and label != quiet]
        if text != clean(text):
            raise ConfigError(f"{where}: label {text!r}: expected characters of UTF-8 to be seen")
        kinds.setdefault(TIMED if times else WEAK if labels else NOTHING, number)
        if times:
            refuse_list(text, where)
            events += [Event(*times, label, number) for label in labels]
        else:
            weak += labels
    if len(kinds) > 1:
        least, most = min(kinds), max(kinds)
        what = "a label without times" if least == WEAK else "no label, so that nothing is in it"
        hint = "expected start and end in all rows of a recording, or in none; or one row without a label"
        there = f"{path.name} has {what} in row {kinds[least]}, but not in row {kinds[most]}"
        raise ConfigError(f"dataset.file: {table}: {there}; {hint}")
    split = one_value(rows, "split", path, table)
    named = one_value(rows, group, path, table)
    if weak:
        return Truth(path, tuple(dict.fromkeys(weak)), None, table, split, named)
    return strong(path, events, table, split, named)


def read_times(row: Mapping[str, object], where: str) -> tuple[float, float] | None:
    """Start and end in seconds; None if a row has neither. ConfigError if they make no sense."""
    start, end = row.get("start"), row.get("end")
    times = to_times(start, end)
    if times is None and any(to_text(value).strip() for value in (start, end)):
        expected = "expected 0 <= start < end in seconds, or neither"
        raise ConfigError(f"{where}: got start {start!r} and end {end!r}; {expected}")
    return times


def refuse_list(label: str, where: str) -> None:
    """ConfigError for a list of labels that has times."""
    if "," in label:
        raise ConfigError(f"{where}: got the labels {label!r} with times; expected a row for each label")


def one_value(rows: Sequence[tuple[int, Row]], column: str, path: Path, table: Path) -> str:
    """What all rows of a recording have in a column; '' if there is none. ConfigError if they differ."""
    (first, value), *others = [(number, to_label(row.get(column))) for number, row in rows]
    for number, other in others:
        if other != value:
            there = f"{path.name} has {column} {value!r} in row {first}, and {other!r} in row {number}"
            raise ConfigError(f"dataset.file: {table}: {there}; expected one for each recording")
    return value


def strong(path: Path, events: Sequence[Event], table: Path, split: str = "", group: str = "") -> Truth:
    """A truth whose times are known."""
    labels = tuple(sorted({event.label for event in events}))
    return Truth(path, labels, tuple(sorted(events)), table, split, group)


def merge_overlaps(truths: Sequence[Truth], key: str) -> list[Truth]:
    """The truths with events of one label that overlap as one event each, which is told with the ``key``."""
    merged, told = list[Truth](), list[str]()
    for truth in truths:
        found = list[Event]()
        for event in sorted(truth.events or (), key=lambda one: (one.label, one.start)):
            before = found[-1] if found else event
            if before is not event and event.label == before.label and event.start < before.end:
                found[-1] = before._replace(end=max(before.end, event.end))
                told.append(f"{event.label!r} in rows {before.row} and {event.row} of {truth.table}")
            else:
                found.append(event)
        merged.append(truth if truth.events is None else replace(truth, events=tuple(sorted(found))))
    if told:
        tell(key, f"{len(told)} events overlap another of the same label, and are one with it, such as {told[0]}")
    return merged
