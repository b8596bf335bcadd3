"""Which clips a shard holds: samples in the layout of WebDataset, by the headers of its members and their small cards.

A sample is a recording with a ``json`` (a label, and perhaps a group, start and end in seconds; or a list of such
``clips``) or a ``cls`` (the label alone). Both are read as data, up to a limit; what makes no sense is counted and
passed over. Nothing is ever unpacked: what a member is called says which members belong together, and never where
anything is written.
"""

import io
import json
import math
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from datasets.shard_index import MAX_CARD_BYTES, MAX_TEXT_LENGTH
from pipeline.core.atomic import atomic_write, cache_path
from pipeline.core.text import clean
from pipeline.media.formats import AUDIO, VIDEO
from pipeline.media.tables import to_text

MEDIA = AUDIO | VIDEO | {".bin"}
CACHE_VERSION = 3
MAX_MEMBER_BYTES = 1 << 30
MAX_NAME_LENGTH = 1 << 10
MAX_HEADER_BYTES = 1 << 14  # of one that extends another
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class Row(NamedTuple):
    """A clip in a shard: ``key`` is its member's name, whose ``size`` bytes stand at ``offset``."""

    key: str
    offset: int
    size: int
    label: str
    start: float
    end: float | None
    group: str


class Archive(io.FileIO):
    """An open archive. It gives no more than a header at once: tarfile would read those of any size into memory."""

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes. ReadError for an absurd size."""
        if size is None or not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header of absurd size")
        return super().read(size)

    def read_at(self, size: int, offset: int) -> bytes:
        """``size`` bytes at ``offset``. The next ``read`` goes on where it was."""
        return os.pread(self.fileno(), size, offset)


def members(file: Archive, odd: Counter[str]) -> Iterator[tarfile.TarInfo]:
    """The regular files of an archive, in order; ``odd`` counts what is passed over, and why.

    An archive that is cut short, or damaged, ends there: what is whole before is given.
    """
    total = os.fstat(file.fileno()).st_size
    try:
        archive = tarfile.TarFile(fileobj=cast(IO[bytes], file), encoding="utf-8", errors="surrogateescape")
        while member := archive.next():
            archive.members = []  # type: ignore[attr-defined]  # which would grow
            if member.size < 0:
                raise tarfile.ReadError("a negative size")
            if reason := refusal(member):
                odd[reason] += reason != "a folder"
            elif member.offset_data + member.size > total:
                odd["cut short"] += 1
                return
            else:
                yield member
        end = file.read_at(tarfile.BLOCKSIZE, archive.offset)  # an archive ends with blocks of zeros
        if len(end) < tarfile.BLOCKSIZE:
            odd["cut short"] += 1
        elif any(end):
            raise tarfile.ReadError("no header")
    except (tarfile.TarError, ValueError, ArithmeticError, RecursionError) as error:
        odd["cut short" if "end of data" in str(error) else "damage, behind which all is lost"] += 1


def refusal(member: tarfile.TarInfo) -> str:
    """Why a member is passed over; '' if it is not."""
    name = member.name
    if member.isdir():
        return "a folder"
    if member.issparse() or any(key.startswith("GNU.sparse.") for key in member.pax_headers):
        return "a sparse file"
    if member.type not in REGULAR:
        return "a link" if member.islnk() or member.issym() else "no regular file"
    unsafe = name.startswith(("/", "~")) or ".." in name.removeprefix("./").split("/") or "\\" in name
    if unsafe or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        return "a name that is unsafe"
    return f"larger than {MAX_MEMBER_BYTES >> 20} MB" if member.size > MAX_MEMBER_BYTES else ""


def fingerprint(path: Path, status: os.stat_result) -> str:
    """Which archive it is: another one of that name, or one that was changed, has another."""
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"


def list_shard(path: Path, cache: Path | None) -> tuple[str, list[Row], Mapping[str, int]]:
    """A shard's fingerprint, its clips, and how often what was odd: from the cache's folder, or from its headers."""
    try:
        with Archive(path) as archive:
            shard = fingerprint(path, os.fstat(archive.fileno()))
            place = cache_path(cache, f"{CACHE_VERSION}|{shard}", ".json") if cache else None
            if place:
                with suppress(OSError, ValueError, TypeError):  # not there, or broken
                    rows, odd = json.loads(place.read_bytes())
                    return shard, [Row(*row) for row in rows], dict(odd)
            counts: Counter[str] = Counter()
            rows = list(list_clips(archive, counts))
    except OSError as error:
        return "", [], {f"the shard, which cannot be read: {error.strerror}": 1}
    if place:
        with suppress(OSError):  # the headers are read again
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(place, cache=True) as out:
                out.write(json.dumps([rows, +counts]).encode())
    return shard, rows, +counts


def list_clips(file: Archive, odd: Counter[str]) -> Iterator[Row]:
    """The clips of an open shard. Members of a sample follow one another and share their name up to its first dot."""
    seen: set[str] = set()
    for key, sample in groupby(members(file, odd), lambda member: splitname(member.name)[0]):
        parts: dict[str, tarfile.TarInfo] = {}
        for member in sample:
            ending = splitname(member.name)[1]
            if ending not in ("json", "cls") and f".{ending.rpartition('.')[2]}" not in MEDIA:
                continue
            if member.name in parts:
                odd["a name that was there before"] += 1
            parts.setdefault(member.name, member)
        cards = [member for name, member in parts.items() if splitname(name)[1] in ("json", "cls")]
        media = [member for member in parts.values() if member not in cards]
        if not media:
            odd["a json or cls without a recording of a known ending"] += bool(cards)
        elif key in seen:
            odd["a name that was there before"] += 1
        elif len(media) > 1 or len(cards) != 1:
            odd["a sample that is not one recording and one json or cls"] += 1
        else:
            try:
                data = file.read_at(min(cards[0].size, MAX_CARD_BYTES + 1), cards[0].offset_data)
                yield from parse_card(data, splitname(cards[0].name)[1], media[0])
            except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
                odd["a json or cls that makes no sense"] += 1
        if media:
            seen.add(key)


def splitname(name: str) -> tuple[str, str]:
    """A member's name up to the first dot, and its ending in small letters."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending.lower()


def parse_card(data: bytes, ending: str, member: tarfile.TarInfo) -> list[Row]:
    """The clips of a recording, by its json or cls. ValueError, TypeError, LookupError, ... for nonsense."""
    if len(data) > MAX_CARD_BYTES:
        raise ValueError(f"what is said of the clips takes {len(data)} bytes; expected at most {MAX_CARD_BYTES}")
    text = data.decode("utf-8")
    card = json.loads(text) if ending == "json" else {"label": text.strip()}
    return [to_row(part, member) for part in (card["clips"] if "clips" in card else [card])]  # noqa: SIM401


def to_row(card: Any, member: tarfile.TarInfo) -> Row:
    """A clip as its json tells it; errors as of ``parse_card``."""
    label, group, end = card["label"], card.get("group", ""), card.get("end")
    if isinstance(label, (int, float)) and not isinstance(label, bool):  # a class by its number
        label = to_text(label)
    for what, text in (("label", label), ("group", group)):
        if not isinstance(text, str) or len(text) > MAX_TEXT_LENGTH or text != clean(text):
            size = f"{len(text)} characters; expected at most {MAX_TEXT_LENGTH} that can be shown"
            raise ValueError(f"{what} {text!r:.100} has {size}")
    if not label:
        raise ValueError("label is empty")
    start = float(card.get("start", 0.0))
    end = None if end is None else float(end)
    if start < 0 or not math.isfinite(start + (end or 0.0)) or (end is not None and end <= start):
        raise ValueError(f"from {start} to {end} s; expected 0 <= start < end")
    return Row(member.name, member.offset_data, member.size, label, start, end, group)
