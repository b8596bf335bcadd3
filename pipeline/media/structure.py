"""What the structure of a file says of its length: whether its end is missing, and whether more follows.

The sizes and marks that every container has for itself are compared with the file; nothing is decoded.
"""

import re
import struct
from collections.abc import Callable
from functools import partial

from pipeline.media.chunked import FORMS, MAX_CHUNKS, MAX_SIZE, NEAR, Structure, examine_samples
from pipeline.media.part import FileBytes

FLAC_START, OGG_START = b"fLaC\0\0\0\x22", b"OggS\0\2"  # the first bytes of what may come again
MAX_PAGE_BYTES = 1 << 16  # of Ogg
START_OF_SCAN, MAX_JPEG_BYTES, MAX_PADDING_BYTES = 0xDA, 1 << 23, 1 << 12
AMR_NB = (12, 13, 15, 17, 19, 20, 26, 31, 5, 0, 0, 0, 0, 0, 0, 0)  # bytes of a frame behind the one with its kind
AMR_WB = (17, 23, 32, 36, 40, 46, 50, 58, 60, 5, 0, 0, 0, 0, 0, 0)
FLV_TAGS = (8, 9, 18)  # sound, pictures, texts
MAX_AMR_BYTES = 1 << 23  # an hour and more
SCANNED_BYTES = 1 << 20  # at once
END_BYTES = 512  # in which a file's last mark stands, perhaps before zeros


def examine(name: str, head: bytes) -> Structure:
    """The structure of a file that begins with ``head``."""
    found = Structure()
    with FileBytes(name) as file:
        for pattern, form in FORMS.items():
            if re.match(pattern, head, re.DOTALL):
                found.chunked = True
                examine_samples(file, form, found)
        for pattern, look in ENDS.items():
            if re.match(pattern, head, re.DOTALL):
                found.warnings += look(file)
    return found


# ---------------------------------------------------------------- whether the end is there
def ends_of_riff(file: FileBytes) -> list[str]:
    """AVI: the size of all."""
    size = int.from_bytes(file.bytes_at(4, 4), "little")
    known = 0 < size < MAX_SIZE - NEAR and size != file.size
    return ["truncated"] if known and 8 + size > file.size + 1 else []  # a last byte of padding may be missing


def ends_of_mp4(file: FileBytes) -> list[str]:
    """A box that is longer than the file, or a second header."""
    at, headers = 0, 0
    for _ in range(MAX_CHUNKS):
        start = file.bytes_at(at, 16)
        size, name = struct.unpack(">I4s", start[:8].ljust(8, b"\0"))
        if not name.isalnum():
            break
        headers += name == b"moov"
        if size == 1:
            size = int.from_bytes(start[8:], "big")
        if size < 8:  # to the end
            break
        at += size
    return (["truncated"] if at > file.size else []) + (["joined"] if headers > 1 else [])


def ends_of_matroska(file: FileBytes) -> list[str]:
    """The size of the segment, which is behind a header."""
    start = file.bytes_at(0, 64)
    header, at = vint(start, 4)
    at += header
    if file.bytes_at(at, 4) != b"\x18\x53\x80\x67":
        return []
    size, length = vint(file.bytes_at(at, 12), 4)
    return ["truncated"] if size + 1 < 1 << 7 * (length - 4) and at + length + size > file.size else []


def vint(data: bytes, at: int) -> tuple[int, int]:
    """A number of EBML, whose first byte tells its length; and where it ends."""
    length = 9 - data[at].bit_length() if at < len(data) else 9
    return int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1), at + length


def ends_of_asf(file: FileBytes) -> list[str]:
    """An object that is longer than the file, or a second header; a pipe leaves the size of the packets unknown."""
    at, start = 0, file.bytes_at(0, 16)
    while len(header := file.bytes_at(at, 24)) == 24:
        size = int.from_bytes(header[16:], "little")
        if at and header[:16] == start:
            return ["joined"]
        if not 50 < size < 1 << 62:
            return []
        at += size
    return ["truncated"] if at > file.size else []


def ends_of_ogg(file: FileBytes) -> list[str]:
    """Whether the last page is whole and says that it is the last."""
    tail = file.tail(MAX_PAGE_BYTES)
    page = tail[tail.rfind(b"OggS") :]
    whole = len(page) > 26 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    return [] if whole and page[5] & 4 else ["truncated"]


def ends_of_amr(file: FileBytes) -> list[str]:
    """The last frame; and another header, which is read as if it were one."""
    data = file.bytes_at(0, MAX_AMR_BYTES)
    sizes, at, found = AMR_WB if data.startswith(b"#!AMR-WB") else AMR_NB, 0, set[str]()
    while at < len(data):
        if data.startswith(b"#!AMR", at):
            found |= {"joined"} if at else set()
            at = data.find(b"\n", at) + 1 or len(data)
        else:
            at += 1 + sizes[data[at] >> 3 & 15]
    return [*found, *(["truncated"] if at > file.size else [])]


def ends_by(mark: bytes, file: FileBytes) -> list[str]:
    """The mark at the very end, as of GIF, or of a JPEG's last picture."""
    return [] if file.tail(END_BYTES).rstrip(b"\0").endswith(mark) else ["truncated"]


def ends_of_png(file: FileBytes) -> list[str]:
    """Its last chunk, and a second first one."""
    missing = b"IEND" not in file.tail(END_BYTES)
    return (["truncated"] if missing else []) + (["joined"] if found_again(file, b"\x89PNG\r\n\x1a\n") else [])


def ends_of_flv(file: FileBytes) -> list[str]:
    """The last tag, whose size stands behind it if the writer likes; and another header."""
    at, found = 0, list[str]()
    for _ in range(MAX_CHUNKS):
        tag = file.bytes_at(at, 9)
        if len(tag) < 5:
            return [*found, *(["truncated"] if at > file.size + 4 else [])]
        if tag.startswith(b"FLV"):
            found = ["joined"] if at else []
            at += int.from_bytes(tag[5:], "big") + 4
        elif tag[0] & 31 in FLV_TAGS:
            at += 15 + int.from_bytes(tag[1:4], "big")
        else:
            break
    return found


def ends_of_voc(file: FileBytes) -> list[str]:
    """A block that is longer than the file, or a header behind the last block; of that, the writer may say nothing."""
    at = int.from_bytes(file.bytes_at(20, 2), "little")
    for _ in range(MAX_CHUNKS):
        block = file.bytes_at(at, 4)
        if len(block) < 4 or not block[0]:
            break
        at += 4 + int.from_bytes(block[1:], "little")
    again = file.bytes_at(at + 1, 8) == b"Creative"
    return (["truncated"] if at > file.size else []) + (["joined"] if again else [])


def ends_of_tta(file: FileBytes) -> list[str]:
    return ["joined"] if found_again(file, b"TTA1\1\0") else []


def ends_of_ps(file: FileBytes) -> list[str]:
    """The packets of the last pack."""
    tail = file.tail(SCANNED_BYTES)
    at = tail.rfind(b"\0\0\1\xba")
    second = tail[at + 4 : at + 5] > b"\x3f"  # MPEG-2, with stuffing bytes
    at += 14 + (tail[at + 13 : at + 14] or b"\0")[0] % 8 if second else 12
    while tail[at : at + 3] == b"\0\0\1" and tail[at + 3 : at + 4] != b"\xb9":
        at += 6 + int.from_bytes(tail[at + 4 : at + 6], "big")
    return ["truncated"] if at > len(tail) else []


def ends_of_ts(file: FileBytes) -> list[str]:
    """The last packet; in files that begin with one."""
    head = file.bytes_at(0, 2 * 204 + 5)
    for size, sync in ((188, 0), (192, 4), (204, 0)):
        if head[sync::size][:3] == b"GGG":
            return ["truncated"] if file.size % size else []
    return []


ENDS: dict[bytes, Callable[[FileBytes], list[str]]] = {
    rb"RIFF.{4}AVI": ends_of_riff,
    rb".{4}(?:ftyp|moov|mdat|wide|free|skip)": ends_of_mp4,
    rb"\x1a\x45\xdf\xa3": ends_of_matroska,
    rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11": ends_of_asf,
    rb"OggS": ends_of_ogg,
    rb"#!AMR": ends_of_amr,
    rb"GIF8": partial(ends_by, b";"),
    rb"\x89PNG": ends_of_png,
    rb"\xff\xd8\xff": partial(ends_by, b"\xff\xd9"),
    rb"FLV\x01": ends_of_flv,
    rb"TTA1": ends_of_tta,
    rb"Creative Voice File": ends_of_voc,
    rb"\0\0\x01\xba": ends_of_ps,
    rb"(?:.{4})?G": ends_of_ts,
}


# ---------------------------------------------------------------- pictures that move
def is_moving(file: FileBytes, head: bytes) -> bool:
    """Whether a file that begins like a single picture is an animation: a PNG that says so, or a JPEG behind a JPEG."""
    if head.startswith(b"\x89PNG"):
        at = 8
        while len(chunk := file.bytes_at(at, 12)) == 12 and chunk[4:8] not in (b"IDAT", b"acTL"):
            at += 12 + int.from_bytes(chunk[:4], "big")
        return chunk[4:8] == b"acTL" and chunk[8:12] > b"\0\0\0\1"
    if not head.startswith(b"\xff\xd8\xff"):
        return False
    at = 2
    while len(segment := file.bytes_at(at, 8)) == 8 and segment[0] == 0xFF and segment[1] != START_OF_SCAN:
        if segment[4:8] == b"MPF\0":  # a photograph with others of the same moment
            return False
        at += 2 + int.from_bytes(segment[2:4], "big")
    scan = file.bytes_at(at, MAX_JPEG_BYTES)
    end = scan.find(b"\xff\xd9") + 2
    return end > 1 and scan[end : end + MAX_PADDING_BYTES].lstrip(b"\0").startswith(b"\xff\xd8\xff")


# ---------------------------------------------------------------- bytes
def starts_again(name: str) -> bool:
    """Whether another FLAC, or another stream of Ogg, follows in a file of these."""
    with FileBytes(name) as file:
        head = file.bytes_at(0, MAX_PAGE_BYTES)
        if head.startswith(OGG_START):  # streams that are played at once begin with it, one after another
            first = re.search(rb"OggS\0[^\x02]", head)
            return first is not None and found_again(file, OGG_START, first.start())
        return head.startswith(FLAC_START) and found_again(file, FLAC_START)


def counts_frames(name: str) -> bool:
    """Whether the first frame of an MP3 tells how many there are; an encoder that writes to a pipe leaves that out."""
    with FileBytes(name) as file:
        at, tag = 0, file.bytes_at(0, 10)
        while tag.startswith(b"ID3") and len(tag) == 10:
            at += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
            tag = file.bytes_at(at, 10)
        return bool(re.search(rb"Xing|Info|VBRI", file.bytes_at(at, 256)))


def found_again(file: FileBytes, sign: bytes, start: int = 1) -> bool:
    """Whether these bytes, with which a file begins, come once more."""
    file.seek(start)
    last = b""
    while block := file.read(SCANNED_BYTES) or b"":
        if sign in last + block:
            return True
        last = block[-len(sign) :]
    return False
