"""What a tar archive holds and where: its headers are read, one after another, and nothing is ever unpacked.

Only regular files count. What a member is called says which members belong together, and never where anything is
written. Hostile archives cost no more than their bytes: names and extended headers are read up to a limit, sizes are
compared with the archive's, links and devices are passed over.
"""

# tarfile reads extended headers of any size into memory, believes negative sizes in older Python versions, and keeps an
# object for each member; so only its reading of a single header block is used.

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

BLOCK = tarfile.BLOCKSIZE
LARGEST = 1 << 30  # bytes of a member
LONGEST = 1 << 10  # characters of a name
EXTENDED = 1 << 16  # bytes of a header that extends another
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
BARE = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
EXTENSIONS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
RECORD = re.compile(rb"(\d{1,9}) ([^=]+)=", re.DOTALL)
Odd = Callable[[str], None]


class Member(NamedTuple):
    """A regular file in an archive: ``size`` bytes that begin at ``offset``."""

    name: str
    offset: int
    size: int


def members(file: int, odd: Odd) -> Iterator[Member]:
    """The regular files of the open archive ``file``, in order. ``odd`` is told what is passed over, and why.

    An archive that is cut short, or damaged, ends there: what stood whole before is given.
    """
    total, at, renamed = os.fstat(file).st_size, 0, dict[str, str]()
    while block := os.pread(file, BLOCK, at):
        if not any(block):
            return
        header = header_of(block)
        if header is None:
            odd("cut short" if len(block) < BLOCK else "damage, behind which all is lost")
            return
        begin = at + BLOCK
        size = number(renamed.get("size"), header.size) if header.type in REGULAR else header.size
        if header.type == tarfile.GNUTYPE_SPARSE:
            begin = behind_map(file, block, begin)
        end = begin if header.type in BARE else begin + size
        if size < 0 or end > total:
            odd("cut short" if size >= 0 else "damage, behind which all is lost")
            return
        at = end + -end % BLOCK
        if header.type in EXTENSIONS:
            if size > EXTENDED:
                odd("a header of absurd size")
                return
            renamed |= extension(header.type, os.pread(file, size, begin))
            continue
        name = renamed.get("path", header.name)
        why = refusal(header.type, name, size, renamed)
        if why:
            odd(why)
        elif header.type in REGULAR:
            yield Member(name, begin, size)
        if header.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            renamed = {}
    odd("cut short")  # an archive ends with blocks of zeros


def header_of(block: bytes) -> tarfile.TarInfo | None:
    """A header; None if the block is none."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None


def refusal(kind: bytes, name: str, size: int, extended: dict[str, str]) -> str | None:
    """Why a member is passed over with a word; None for one to be taken, or left in silence."""
    if kind in (tarfile.DIRTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
        return None
    if kind == tarfile.GNUTYPE_SPARSE or "sparse" in extended:
        return "a sparse file"
    if kind not in REGULAR:
        return "a link" if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else "no regular file"
    if size > LARGEST:
        return f"larger than {LARGEST >> 20} MB"
    parts = name.removeprefix("./").split("/")
    if len(name) > LONGEST or not name.isprintable() or name.startswith(("/", "~")) or ".." in parts or "\\" in name:
        return "a name that is unsafe"
    return None


def extension(kind: bytes, data: bytes) -> dict[str, str]:
    """What an extended header (pax, or GNU's long name) says of the next member: ``path``, ``size``, ``sparse``."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    found, at = {}, 0
    while record := RECORD.match(data, at):
        end = at + int(record[1])
        if end <= record.end():  # it would not go on
            break
        key = b"sparse" if record[2].startswith(b"GNU.sparse.") else record[2]
        if key in (b"path", b"size", b"sparse"):  # and nothing else, as there may be no end of them
            value = data[record.end() : end - 1]  # without its line break
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        at = end
    return found


def number(text: str | None, default: int) -> int:
    """A size as pax writes it; -1 if it is none."""
    if text is None:
        return default
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else -1


def behind_map(file: int, block: bytes, at: int) -> int:
    """Where the data of an old sparse file begin: behind the blocks that go on with its map."""
    more = block[482]
    while more:
        block = os.pread(file, BLOCK, at)
        at += BLOCK
        more = block[504] if len(block) == BLOCK else 0
    return at
