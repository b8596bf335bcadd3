"""The results of a long job, on disk as soon as they are known: whatever ends the program, the same command goes on.

A ledger is lines of text: the CRC-32 of what follows, a space, and one JSON object. The first says whose rows these are
(the model, the settings), then there is a line for each row, and the last one, when all is done, says so. A line is
one write. A line that does not agree with its checksum is not there: its file is classified again.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pipeline.batch.listing import Entry, entry_digest
from pipeline.core.atomic import atomic_write
from pipeline.core.errors import ConfigError
from pipeline.core.journal import Journal
from pipeline.sinks.items import FileResult

FORMAT = 1
TORN = re.compile(rb"[0-9a-f]{0,8}|[0-9a-f]{8} [^\n]*|\0[^\n]*\n?")  # what may be left of a first line
KEY = struct.Struct("<16sqq")  # who, its size and its time of change


class Ledger:
    """An open ledger, locked against other writers.

    Attributes:
        head: of the file that was there: model, settings, ...; None if there was none.
        complete: what its last line says of the whole job (``count`` and ``digest`` of the listing, ``rows``), or None.
        damaged: lines that do not agree with their checksum.
        known: where the newest row of each key was when it was opened; ``count`` rows are there in all.
        timed, labelled: whether any row is of a part of a file, and whether any has a truth.
    """

    def __init__(self, path: str | os.PathLike[str], reading: bool = False) -> None:
        """Read what is there; ``reading``: that is all. ConfigError if it is no ledger, or in use; OSError if it is not
        to be read or written.
        """
        self.path = Path(path).expanduser()
        self.head: dict[str, Any] | None = None
        self.complete: dict[str, Any] | None = None
        self.damaged = 0
        self.known: dict[int, int] = {}
        self.count = 0
        self.timed = self.labelled = False
        self.journal = Journal(None if reading else str(self.path))
        self.file = os.open(self.path, os.O_RDONLY if reading else os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self.file, (fcntl.LOCK_SH if reading else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            self.size = self.read()
        except BaseException as error:
            os.close(self.file)
            if isinstance(error, BlockingIOError):
                raise ConfigError(f"{self.path} is being written by another run") from None
            raise

    def read(self) -> int:
        """Look at every line; how many bytes the whole ones are."""
        end = at = 0
        with open(self.path, "rb") as file:
            for line in file:
                found = parsed(line)
                if at == 0 and (found is None or found.get("rivulet") != "ledger"):
                    if TORN.fullmatch(line):
                        break
                    raise ConfigError(f"{self.path} is there and is no ledger; choose another name")
                if found and at == 0 and found.get("format") != FORMAT:
                    raise ConfigError(
                        f"{self.path} is a ledger of another version (format {found.get('format')}; this one writes "
                        f"{FORMAT}); choose another name, or remove it to classify its files again"
                    )
                at += len(line)
                try:
                    self.index(found or {}, at - len(line))
                    end = at
                except (KeyError, TypeError, ValueError, OverflowError):  # not ours, whatever its checksum says
                    self.damaged += line.endswith(b"\n")
        return end

    def index(self, found: dict[str, Any], place: int) -> None:
        """Take in what the line at ``place`` says."""
        if "rivulet" in found:
            self.head = found
        elif "complete" in found:
            self.complete = found["complete"]
        else:
            result = FileResult.of(found["row"])
            self.known[found["key"]] = place
            self.count += 1
            self.timed = self.timed or result.start > 0 or result.end is not None
            self.labelled = self.labelled or bool(result.truth)
            self.complete = None

    def begin(self, head: dict[str, Any], anew: bool) -> None:
        """Go on behind what is there, or ``anew``: with nothing."""
        if anew:
            self.known, self.count, self.size, self.damaged = {}, 0, 0, 0
            self.head = self.complete = None
        os.ftruncate(self.file, self.size)
        self.journal.adopt(self.file, self.size)
        if self.head is None:
            self.head = {"rivulet": "ledger", "format": FORMAT, **head}
            self.write(self.head)

    def add(self, key: int, result: FileResult) -> int:
        """Add a result; the place of its line."""
        place, self.complete = self.journal.size, None
        self.write({"key": key, "row": result.row()})
        self.count += 1
        return place

    def finish(self, facts: dict[str, Any], places: Sequence[int]) -> None:
        """All rows are there, at these places. Those of files that have changed or gone since leave the ledger."""
        if self.count > len(places) or self.damaged:
            self.compact(places)
            self.complete = None
        if self.complete != facts:
            self.complete = facts
            self.write({"complete": facts})

    def compact(self, places: Sequence[int]) -> None:
        """A ledger of these rows alone takes the place of this one; ``places`` are those of the old."""
        lines = [formatted(self.head or {}).encode()]
        with atomic_write(self.path) as file:
            for place in places:
                lines.append(self.line_at(place))
                if len(lines) > 1000:
                    file.writelines(lines)
                    lines.clear()
            file.writelines(lines)
        old, self.file = self.file, os.open(self.path, os.O_RDWR)
        self.journal.adopt(self.file, os.fstat(self.file).st_size)
        os.close(old)

    def write(self, found: dict[str, Any]) -> None:
        self.journal.write(formatted(found))

    def result(self, place: int) -> FileResult:
        """The result at a place. OSError if it is not what was written."""
        found = parsed(self.line_at(place))
        if found is None or "row" not in found:
            raise OSError(errno.EIO, "a row is not what was written", str(self.path))
        return FileResult.of(found["row"])

    def line_at(self, place: int) -> bytes:
        """The line that begins at a place."""
        parts = b""
        while not parts.endswith(b"\n") and (more := os.pread(self.file, 4096, place + len(parts))):
            parts += more[: more.find(b"\n") + 1] or more
        return parts

    def close(self) -> None:
        """All that was written is on the disk."""
        if self.journal.file is None:
            os.close(self.file)
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def formatted(found: dict[str, Any]) -> str:
    """An object as a line with its checksum."""
    text = json.dumps(found, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def parsed(line: bytes) -> dict[str, Any] | None:
    """What a line says; None if it is not as it was written."""
    if line[8:9] != b" " or not line.endswith(b"\n"):
        return None
    try:
        if int(line[:8], 16) != zlib.crc32(line[9:-1]):
            return None
        found = json.loads(line[9:-1])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def key_of(entry: Entry) -> int:
    """A 64-bit digest of an entry and of its file's size and time of change."""
    try:
        status = os.stat(entry.path)
        facts = status.st_size, status.st_mtime_ns
    except (OSError, ValueError):
        facts = -1, -1
    who = entry_digest(entry.path, entry).to_bytes(16, "little")
    digest = hashlib.blake2b(KEY.pack(who, *facts) + entry.refused.encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
