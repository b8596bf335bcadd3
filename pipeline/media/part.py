"""A file within a file, such as a member of an archive, for functions that take the name of a file."""

import io
import os


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


class SizedBytes(io.RawIOBase):
    """Bytes whose number is known. Subclasses set ``size``, and read from the place ``at`` on."""

    size: int
    at: int = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = max(0, {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence] + offset)
        return self.at


class FileBytes(SizedBytes):
    """The bytes of a file or of a ``Part``. It has no ``name`` by which a decoder could guess a format."""

    def __init__(self, name: str) -> None:
        """OSError if there is no such file."""
        self.part = name if isinstance(name, Part) else None
        if self.part is not None:
            self.file, self.offset, self.size = os.dup(self.part.file), self.part.offset, self.part.size
        else:
            self.file, self.offset = os.open(name, os.O_RDONLY | os.O_CLOEXEC), 0
            self.size = os.fstat(self.file).st_size

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self.size - self.at))
        try:
            data = os.pread(self.file, count, self.offset + self.at)
        except OSError as error:
            if self.part is None:
                raise
            self.part.error, data = error, b""
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self.file)
        super().close()


def bytes_at(file: FileBytes, at: int, size: int) -> bytes:
    """So many bytes from there, or fewer where the file ends."""
    file.seek(at)
    return file.read(size) or b""
