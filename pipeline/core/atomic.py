"""Files that are written whole or not at all: the old content stays until the new one is complete."""

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path, cache: bool = False) -> Iterator[BinaryIO]:
    """Write NAME.part, fsync it, and rename it to ``path`` when the block ends without an exception. After a crash,
    ``NAME.part`` may be left; the next write replaces it.

    ``cache``: for files that several processes may write at once and that are checked when read. Each writes to a name
    of its own, without fsync. OSError names ``path``.
    """
    place = path.resolve()  # a link is kept
    mark = f".{os.getpid()}-{threading.get_ident()}" if cache else ""
    part = part_path(place.with_name(place.name + mark))
    try:
        part.unlink(missing_ok=True)  # a link of that name is not followed
        with open(part, "xb") as file:
            yield file
            file.flush()
            if not cache:
                fsync(file.fileno())
        part.replace(place)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(part)):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode())


def digest(text: str) -> str:
    """64 hex digits that stand for a text, such as a path, which need not be UTF-8."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def cache_path(folder: Path, key: str, ending: str) -> Path:
    """The file of a cache that stands for ``key``."""
    name = digest(key)
    return folder / name[:2] / f"{name[2:34]}{ending}"


def part_path(path: Path) -> Path:
    """Where a file is written before it is renamed."""
    return path.with_name(path.name + ".part")


def fsync(file: int) -> None:
    """Force a file to the disk. OSError if that fails; pipes and devices, which have no fsync, are passed over."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
