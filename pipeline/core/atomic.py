"""Files whole or not at all: what was there stays until all of what is new is written."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path, cache: bool = False) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when the block has ended without an exception: then, even if the machine
    ends next, there is all of it. Of one that never did, ``NAME.part`` may be left, for the next to write over.

    ``cache``: many may write the same at the same time, and what a power cut damages is found out when it is read; so
    each writes to a name of its own, and nobody waits for the disk. OSError names ``path``.
    """
    place = path.resolve()  # a link stays one
    mark = f".{os.getpid()}-{threading.get_ident()}" if cache else ""
    part = part_path(place.with_name(place.name + mark))
    try:
        part.unlink(missing_ok=True)  # nor is a link followed that somebody put there
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


def part_path(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(path.name + ".part")


def fsync(file: int) -> None:
    """To the disk. OSError if that fails; pipes and devices, which cannot, are left alone."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
