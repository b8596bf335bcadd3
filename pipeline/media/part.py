"""A file within a file, such as a member of an archive, for functions that take the name of a file."""

import io
import os
from typing import TypeAlias

PathLike: TypeAlias = str | os.PathLike[str]


class Part(str):
    """``size`` bytes at ``offset`` of the open ``file``; as text, the name that errors call it by.

    ``error``: why the disk could not be read. Decoders in C see the end of the file instead, so ask here afterwards.
    """

    file: int
    offset: int
    size: int
    error: OSError | None

    def __new__(cls, name: str, file: int, offset: int, size: int) -> "Part":
        """``file`` is a descriptor that stays open as long as the part is used."""
        part = super().__new__(cls, name)
        part.file, part.offset, part.size, part.error = file, offset, size, None
        return part


class Bytes(io.RawIOBase):
    """Base: ``size`` bytes, wherever a subclass has them from, as a file. It has no ``name`` by which a decoder could
    guess a format.
    """

    size: int
    at = 0

    def bytes_at(self, at: int, size: int) -> bytes:
        """So many bytes from there; fewer where the file ends, and perhaps elsewhere."""
        raise NotImplementedError

    def tail(self, size: int) -> bytes:
        """The last bytes, at most so many."""
        return self.bytes_at(max(0, self.size - size), size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = max(0, {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence] + offset)
        return self.at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.bytes_at(self.at, len(buffer))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


class FileBytes(Bytes):
    """The bytes of a file or of a ``Part``."""

    def __init__(self, name: str) -> None:
        """OSError if there is no such file."""
        self.part = name if isinstance(name, Part) else None
        if self.part is not None:
            self.file, self.offset, self.size = os.dup(self.part.file), self.part.offset, self.part.size
        else:
            self.file, self.offset = os.open(name, os.O_RDONLY | os.O_CLOEXEC), 0
            self.size = os.fstat(self.file).st_size

    def bytes_at(self, at: int, size: int) -> bytes:
        """So many bytes from there, or fewer where the file ends."""
        count = min(size, self.size - at)
        try:
            return os.pread(self.file, count, self.offset + at) if count > 0 else b""
        except OSError as error:
            if self.part is None:
                raise
            self.part.error = error
            return b""

    def close(self) -> None:
        if not self.closed:
            os.close(self.file)
        super().close()
