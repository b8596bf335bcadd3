"""A file within a file, such as a member of an archive, for those who take the name of a file."""

import io
import os
from typing import BinaryIO, cast


class Part(str):
    """``size`` bytes at ``offset`` of an open ``file``, as a name: what they are called. Whoever opens it, reads them
    where they are. An ``error`` of the disk is kept here, as C code between would not hand it on.
    """

    file: int
    offset: int
    size: int
    error: OSError | None

    def __new__(cls, name: str, file: int, offset: int, size: int) -> "Part":
        """The file stays open as long as the part is used."""
        part = super().__new__(cls, name)
        part.file, part.offset, part.size, part.error = file, offset, size, None
        return part


class View(io.RawIOBase):
    """The bytes of a part as a file that can be read."""

    def __init__(self, part: Part) -> None:
        """What is still open after the part's file was closed, reads no other's bytes."""
        self.part, self.file, self.at = part, os.dup(part.file), 0

    def readable(self) -> bool:
        """It can be."""
        return True

    def seekable(self) -> bool:
        """To anywhere."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte: the new place."""
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.part.size}[whence]
        self.at = max(0, begin + offset)
        return self.at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """The next bytes, as many as there are; how many."""
        count = max(0, min(len(buffer), self.part.size - self.at))
        try:
            data = os.pread(self.file, count, self.part.offset + self.at)
        except OSError as error:
            self.part.error, data = error, b""
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def close(self) -> None:
        """Let go of the file."""
        if not self.closed:
            os.close(self.file)
        super().close()


def bytes_of(name: str) -> BinaryIO:
    """A file, or a part of one, to be read without a buffer."""
    return cast(BinaryIO, View(name)) if isinstance(name, Part) else open(name, "rb", buffering=0)
