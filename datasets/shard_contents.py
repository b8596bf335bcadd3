"""Which clips a shard holds: samples in the layout of WebDataset, by the headers of its members and their small cards.

A sample is a recording with a ``json`` (a label, and perhaps a group, start and end in seconds; or a list of such
``clips``) or a ``cls`` (the label alone). Both are read as data, up to a limit; what makes no sense is counted and
passed over.
"""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from datasets.shard_index import CARD, LONGEST
from datasets.tar import Member, members
from pipeline.core.atomic import atomic_write
from pipeline.core.text import clean
from pipeline.media.audio import AUDIO, VIDEO

MEDIA = AUDIO | VIDEO | {".bin"}
KEPT = 2  # version of what is kept of a shard


class Row(NamedTuple):
    """What is kept of a clip in a shard."""

    key: str
    offset: int
    size: int
    label: str
    start: float
    end: float | None
    group: str


def stamp_of(path: Path, status: os.stat_result) -> str:
    """Which archive it is: another one of that name, or one that was changed, has another."""
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"


def content(path: Path, kept: Path | None) -> tuple[str, list[Row], dict[str, int]]:
    """A shard's stamp, its clips and what is odd, from what is kept of it, or from its headers."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        return "", [], {f"the shard, which cannot be read: {error.strerror}": 1}
    try:
        shard = stamp_of(path, os.fstat(file))
        digest = hashlib.sha256(f"{KEPT}|{shard}".encode(errors="surrogateescape")).hexdigest()
        place = kept / f"{digest[:32]}.json" if kept else None
        if place and (found := recalled(place)):
            return shard, *found
        odd: Counter[str] = Counter()
        rows = list(rows_of(file, odd))
        if place:
            keep(place, rows, odd)
        return shard, rows, odd
    except OSError as error:
        return "", [], {f"the shard, which cannot be read: {error.strerror}": 1}
    finally:
        os.close(file)


def recalled(place: Path) -> tuple[list[Row], dict[str, int]] | None:
    """What was kept of a shard; None if there is nothing."""
    try:
        rows, odd = json.loads(place.read_bytes())
        return [Row(*row) for row in rows], dict(odd)
    except (OSError, ValueError, TypeError):
        return None


def keep(place: Path, rows: Sequence[Row], odd: Mapping[str, int]) -> None:
    """Keep a shard's clips for the next time; where that cannot be, the headers are read again."""
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(place, cache=True) as file:
            file.write(json.dumps([rows, odd]).encode())


def rows_of(file: int, odd: Counter[str]) -> Iterator[Row]:
    """The clips of an open shard. Members of a sample follow one another and share their name up to its first dot."""
    seen: set[str] = set()
    key, media, cards = "", list[Member](), list[Member]()

    def note(what: str) -> None:
        odd[what] += 1

    for member in chain(members(file, note), [None]):
        folder, _, base = member.name.rpartition("/") if member else ("", "", "")
        stem, _, ending = base.partition(".")
        now = f"{folder}/{stem}" if folder else stem
        if now != key:
            yield from sample(file, key, media, cards, seen, odd)
            key, media, cards = now, [], []
        if member and any(member.name == other.name for other in (*media, *cards)):
            note("a name that was there before")
        elif member and ending.lower() in ("json", "cls"):
            cards.append(member)
        elif member and f".{ending.lower().rpartition('.')[2]}" in MEDIA:
            media.append(member)


def sample(
    file: int, key: str, media: Sequence[Member], cards: Sequence[Member], seen: set[str], odd: Counter[str]
) -> Iterator[Row]:
    """The clips of one sample: none, if it is not one recording with one json or cls that makes sense."""
    if not media:
        if cards:
            odd["a json or cls without a recording of a known ending"] += 1
        return
    if key in seen:
        odd["a name that was there before"] += 1
        return
    seen.add(key)
    if len(media) > 1 or len(cards) != 1:
        odd["a sample that is not one recording and one json or cls"] += 1
        return
    member, card = media[0], cards[0]
    try:
        if card.size > CARD:
            raise ValueError("too long")
        data = os.pread(file, card.size, card.offset).decode("utf-8")
        said = json.loads(data) if card.name.lower().endswith("json") else {"label": data.strip()}
        rows = [row_of(part, member) for part in (said["clips"] if "clips" in said else [said])]  # noqa: SIM401
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        odd["a json or cls that makes no sense"] += 1
        return
    yield from rows


def row_of(said: Any, member: Member) -> Row:
    """A clip as its json tells it; ValueError, TypeError, LookupError or ArithmeticError if that makes no sense."""
    label, group, end = said["label"], said.get("group", ""), said.get("end")
    if isinstance(label, int) and not isinstance(label, bool):  # a class by its number
        label = str(label)
    start = float(said.get("start", 0.0))
    end = None if end is None else float(end)
    if not (isinstance(label, str) and isinstance(group, str) and 0 < len(label) <= LONGEST and len(group) <= LONGEST):
        raise ValueError("label and group")
    if label != clean(label) or group != clean(group):
        raise ValueError("characters that cannot be shown")
    if start < 0 or not math.isfinite(start + (end or 0.0)) or (end is not None and end <= start):
        raise ValueError("times")
    return Row(member.name, member.offset, member.size, label, start, end, group)
