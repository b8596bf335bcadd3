"""A text file to which rows are added, each whole or not at all."""

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
    """A file, or standard output. The first ``open`` or ``write`` empties it.

    A row is one write to the file; a row that does not fit on the disk is removed again. Rows survive the end of the
    program; rows older than ``sync`` seconds also survive a power cut, after which a last line without its line break
    is incomplete: ignore it.

    With ``whole`` set before the first write, rows go to a temporary file, which ``finish`` moves into place: the old
    content stays until then.
    """

    def __init__(self, path: str | None, sync: float | None = 1.0) -> None:
        """``path`` of the file (None: standard output); ``sync`` None: never forced to the disk. OSError if it cannot
        be written. Nothing is changed yet.
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
            try:
                tempfile.TemporaryFile(dir=self.path.parent).close()  # not under its name: another run may take it
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.path)) from None

    def open(self) -> int | None:
        """Empty the file; its descriptor (None: standard output)."""
        if self.path and self.file is None:
            self.file = open_locked(part_path(self.path) if self.replaces else self.path)
        return self.file

    @property
    def replaces(self) -> bool:
        """Whether ``finish`` moves a temporary file into place; devices and pipes are written directly."""
        return self.whole and self.path is not None and (self.path.is_file() or not self.path.exists())

    def adopt(self, file: int, size: int) -> None:
        """Go on in an open file, after its first ``size`` bytes."""
        os.lseek(file, size, os.SEEK_SET)
        self.file, self.size = file, size

    def write(self, rows: str) -> None:
        """Add whole lines. OSError names the file."""
        file = self.open()
        try:
            if file is None:
                if getattr(sys.stdout, "name", "") == os.devnull:
                    raise OSError(errno.EBADF, "is closed")
                sys.stdout.write(rows)
                sys.stdout.flush()
                return
            data = rows.encode("utf-8", "surrogateescape")
            try:
                written = 0
                while written < len(data):
                    written += os.write(file, data[written:])
            except BaseException:
                self.cut(file)
                raise
            self.size, self.due = self.size + len(data), True
            self.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path or "standard output")) from None

    def cut(self, file: int) -> None:
        """Remove an incomplete row."""
        if stat.S_ISREG(os.fstat(file).st_mode):
            with suppress(OSError):
                os.ftruncate(file, self.size)
                os.lseek(file, self.size, os.SEEK_SET)

    def flush(self) -> None:
        """Force the rows to the disk, if ``sync`` seconds have passed. Call it now and then, also without new rows."""
        if self.file is None or self.sync is None or not self.due or time.monotonic() - self.synced < self.sync:
            return
        fsync(self.file)
        self.synced, self.due = time.monotonic(), False

    def finish(self) -> None:
        """All rows are written: move a temporary file into place."""
        if self.file is not None and self.path and self.replaces:
            fsync(self.file)
            part_path(self.path).replace(self.path)
            self.whole = False

    def close(self) -> None:
        """Close the file; remove a temporary one that is not finished."""
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


def open_locked(path: Path, empty: bool = True) -> int:
    """Open a file, which is made if it is not there, lock and empty it; its descriptor. OSError if another run has
    it.
    """
    while True:
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return file
            lock(file)
            if os.path.samestat(os.fstat(file), os.stat(path)):  # not one that was just renamed over it
                if empty:
                    os.ftruncate(file, 0)
                return file
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(file)
            raise OSError(error.errno, error.strerror, str(path)) from None
        os.close(file)


def lock(file: int) -> None:
    """Lock a file against other runs. OSError if one of them has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EBUSY, "is being written by another run") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):  # the file system has no locks
            raise
