"""A folder of files that is kept to a size or an age."""

import errno
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from pipeline.core.atomic import atomic_write, part_path
from pipeline.core.errors import ConfigError
from pipeline.core.journal import Journal, open_locked
from pipeline.core.quantity import AGES, SIZES, read_quantity
from pipeline.sinks.items import Row

LIST = "clips.jsonl"


class ClipFolder:
    """Files that are written whole or not at all, and listed in ``clips.jsonl`` before; only what is in that list is
    ever removed, the oldest first. Of any thread.
    """

    def __init__(self, path: str, keep: str | list[str] | None, key: str) -> None:
        """``keep``: a size, an age, or both. ConfigError, which names the ``key``, for others; OSError if the folder
        cannot be written.
        """
        self.path = Path(path).expanduser()
        self.bytes, self.seconds = read_limits(keep, key)
        self.journal = Journal(str(self.path / LIST), None)
        self.found: dict[str, tuple[int, float]] = {}  # names, in the order of writing, with their bytes and times
        self.busy, self.closed = threading.Lock(), False

    def open(self) -> None:
        """Read the list, and forget what is gone. OSError if another run writes to the folder."""
        place = self.path / LIST
        file = open_locked(place, empty=False)
        text = place.read_bytes()
        lines = {name: line for line in text.splitlines(keepends=True) if (name := listed_name(line))}
        for name in lines:
            part_path(self.path / name).unlink(missing_ok=True)
            if (path := self.path / name).is_file() and not path.is_symlink():
                self.found[name] = (path.stat().st_size, path.stat().st_mtime)
        self.found = dict(sorted(self.found.items(), key=lambda pair: pair[1][1]))
        self.prune()
        kept = b"".join(lines[name] for name in self.found)
        with suppress(OSError):  # on a full disk the old list will do
            if kept != text:
                with atomic_write(place) as new:
                    new.write(kept)
                old, file, text = file, open_locked(place, empty=False), kept
                os.close(old)
        self.journal.adopt(file, text.rfind(b"\n") + 1)

    def write(self, row: Row, fill: Callable[[BinaryIO], None]) -> Path:
        """Write the file ``row["path"]`` by ``fill``, and list the row. OSError leaves nothing of it."""
        with self.busy:
            if self.closed:
                raise OSError(errno.ECANCELED, "the time was over", str(self.path))
            self.journal.write(json.dumps(row) + "\n")
            path = self.path / str(row["path"])
            with atomic_write(path) as file:
                fill(file)
            self.found.pop(path.name, None)
            self.found[path.name] = (path.stat().st_size, path.stat().st_mtime)
        self.prune()
        return path

    def prune(self) -> None:
        """Remove what is too old, and the oldest of what is too much; the last one stays, however large it is."""
        with self.busy:
            total, now = sum(size for size, _ in self.found.values()), time.time()
            for name, (size, written) in list(self.found.items()):
                too_much = self.bytes is not None and total > self.bytes and len(self.found) > 1
                if not too_much and (self.seconds is None or now - written <= self.seconds):
                    return
                with suppress(OSError):
                    (self.path / name).unlink(missing_ok=True)
                del self.found[name]
                total -= size

    def close(self) -> None:
        """Let another run have it, unless a thread still writes."""
        self.closed = True
        if self.busy.acquire(timeout=1.0):
            self.journal.close()
            self.busy.release()


def read_limits(keep: str | list[str] | None, key: str) -> tuple[float | None, float | None]:
    """Bytes and seconds of such settings as ``2GB``, ``30d`` or both; None: no limit."""
    size = age = None
    for text in [keep] if isinstance(keep, str) else keep or ():
        found = read_quantity(text, SIZES), read_quantity(text, AGES)
        if found == (None, None):
            raise ConfigError(f"{key}: got {text!r}; expected a size (500MB, 2GB), an age (12h, 30d), or [2GB,30d]")
        size, age = found[0] or size, found[1] or age
    return size, age


def listed_name(line: bytes) -> str:
    """The name in a line of the list; '' if it is torn, or no plain name."""
    try:
        name = str(json.loads(line)["path"])
    except (ValueError, KeyError, TypeError):
        return ""
    return name if name == Path(name).name and line.endswith(b"\n") and name != LIST else ""
