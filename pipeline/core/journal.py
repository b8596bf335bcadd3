"""A text file that rows are added to, whole or not at all, as long as the program lives and the disk has room."""

import errno
import fcntl
import os
import stat
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from pipeline.core.atomic import fsync, part_path


class Journal:
    """A file, or standard output. It is emptied by the first ``open`` or ``write``, not before.

    A row is one write to the file; of a row that the disk has no room for, nothing is left. What the program wrote
    survives its death; for that of the machine, rows are forced to the disk every ``sync`` seconds. After that a last
    line without its line break is torn: leave it out.

    With ``whole`` set before the first write, the rows go to a file beside it, which takes its place by ``finish``: so
    there is all of it or nothing, and what was there stays until then.
    """

    def __init__(self, path: str | None, sync: float | None = 1.0) -> None:
        """``path`` of the file (None: standard output); ``sync`` None: never forced to the disk. OSError if it could
        not be written; what is there is left as it is.
        """
        self.path = None if path is None else Path(path).expanduser()
        self.sync = sync
        self.whole = False
        self.file: int | None = None
        self.size = 0  # bytes of whole rows
        self.synced, self.due = time.monotonic(), False
        if self.path and self.path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self.path))
        if self.path and self.path.is_file():
            open(self.path, "ab").close()
        elif self.path and not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path.parent).close()  # not under its name, which another run may take now

    def open(self) -> int | None:
        """Begin with an empty file; its number (None: standard output)."""
        if self.path and self.file is None:
            self.file = emptied(part_path(self.path) if self.replaces else self.path)
        return self.file

    @property
    def replaces(self) -> bool:
        """Whether another file takes the place of ours in the end: devices and pipes are written to as they are."""
        return self.whole and self.path is not None and (self.path.is_file() or not self.path.exists())

    def adopt(self, file: int, size: int) -> None:
        """Go on in a file that is open already, behind its first ``size`` bytes."""
        os.lseek(file, size, os.SEEK_SET)
        self.file, self.size = file, size

    def write(self, rows: str) -> None:
        """Add whole lines. OSError names the file."""
        file = self.open()
        try:
            if file is None:
                sys.stdout.write(rows)
                sys.stdout.flush()
                return
            data = rows.encode("utf-8", "surrogateescape")
            try:
                self.put(file, data)
            except BaseException:
                self.cut(file)
                raise
            self.size, self.due = self.size + len(data), True
            self.settle()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path or "standard output")) from None

    def put(self, file: int, data: bytes) -> None:
        """All of these bytes, usually in one call."""
        while data:
            data = data[os.write(file, data) :]

    def cut(self, file: int) -> None:
        """Take back the beginning of a row that could not be ended."""
        if stat.S_ISREG(os.fstat(file).st_mode):
            with suppress(OSError):
                os.ftruncate(file, self.size)
                os.lseek(file, self.size, os.SEEK_SET)

    def settle(self) -> None:
        """Force what was written to the disk, if it is time. To be called now and then when there are no rows, too."""
        if self.file is None or self.sync is None or not self.due or time.monotonic() - self.synced < self.sync:
            return
        fsync(self.file)
        self.synced, self.due = time.monotonic(), False

    def finish(self) -> None:
        """All rows are written: a ``atomic_write`` file takes its place."""
        if self.file is not None and self.path and self.replaces:
            fsync(self.file)
            part_path(self.path).replace(self.path)
            self.whole = False

    def close(self) -> None:
        """End the file; a ``atomic_write`` one that is not finished has never been."""
        if self.file is not None:
            file, path, self.file = self.file, self.path, None
            try:
                if self.sync is not None:
                    fsync(file)
            finally:
                os.close(file)
                if path and self.replaces:
                    part_path(path).unlink(missing_ok=True)
                self.path = None


def emptied(path: Path) -> int:
    """An open file without anything in it, which no other run has meanwhile. OSError if one does."""
    while True:
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return file
            lock(file)
            if os.path.samestat(os.fstat(file), os.stat(path)):  # and not what has just taken another's place
                os.ftruncate(file, 0)
                return file
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(file)
            raise OSError(error.errno, error.strerror, str(path)) from None
        os.close(file)


def lock(file: int) -> None:
    """Keep other runs from a file. OSError if one of them has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EBUSY, "is being written by another run") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):  # of a disk that knows no locks
            raise
