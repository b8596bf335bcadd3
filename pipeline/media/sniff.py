"""What a recording really is, told by its bytes: the one demuxer of FFmpeg that may read it.

A file's name says nothing. A demuxer that is forced cannot turn into one that opens other files (playlists, lists of
pictures), asks a device or runs a script; so whatever has no known beginning is never shown to FFmpeg. Only streams
without a header (MP3, AAC, AC-3, MPEG) may begin anywhere in the first KiB, and must show several whole frames.
"""

import os
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

LOOK = 1 << 16  # bytes in which a stream without a header must begin; as far as FFmpeg looks for MP3
MAGIC = re.compile(
    rb"(?P<wav>(?:RIFF|RIFX|RF64|BW64).{4}WAVE)"
    rb"|(?P<ogg>OggS\0)"
    rb"|(?P<flac>fLaC)"
    rb"|(?P<matroska>\x1a\x45\xdf\xa3)"
    rb"|(?P<avi>RIFF.{4}AVI[ X\x19]|ON2 .{4}ON2f)"
    rb"|(?P<w64>riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0.{8}wave\xf3\xac\xd3\x11\x8c\xd1\0\xc0\x4f\x8e\xdb\x8a)"
    rb"|(?P<aiff>FORM.{4}AIF[FC])"
    rb"|(?P<caf>caff\0\x01)"
    rb"|(?P<asf>\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c)"
    rb"|(?P<flv>FLV\x01)"
    rb"|(?P<gif>GIF8[79]a)"
    rb"|(?P<amr>\#!AMR(?:-WB)?\n)"
    rb"|(?P<au>\.snd)"
    rb"|(?P<voc>Creative\ Voice\ File\x1a)"
    rb"|(?P<nistsphere>NIST_1A\n)"
    rb"|(?P<mpeg>\0\0\x01\xba|RIFF.{4}CDXA)"
    rb"|(?P<mpegvideo>\0\0\x01\xb3)",
    re.DOTALL,
)
PLAIN = {"wav", "ogg", "flac", "w64", "aiff", "caf", "au", "voc", "nistsphere", "mp3"}  # which libsndfile reads, too
BOXES = 16  # of an MP4 before the first that tells
MP4 = {b"ftyp", b"styp", b"moov", b"moof", b"mdat"}
STILLS = re.compile(rb"heic|heix|heim|heis|mif1|avif|jp2 ")  # brands of MP4s that are one picture
TAGS = 8  # ID3 tags one after another
FRAMES = 3  # of a stream in a row, so that bytes by chance are none
SYNCS = 8  # packets of MPEG-TS in a row
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version of MPEG
KILOBITS = {  # by whether it is MPEG-1, and the layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
AC3_KILOBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
Length = Callable[[bytes], tuple[int, int]]  # of a frame, by its header (0: it is none), and what all of them share


class Form(NamedTuple):
    """How a recording may be read."""

    demuxer: str  # of FFmpeg, the only one
    plain: bool  # whether libsndfile may read it, too


def by_magic(file: BinaryIO) -> Form | None:
    """The form of a file that begins as recordings with a header do; None for any other."""
    head = read_at(file, 0, 64)
    if found := MAGIC.match(head):
        return Form(str(found.lastgroup), found.lastgroup in PLAIN)
    if head.startswith(b"ID3"):
        return tagged(file)
    return Form("mov", False) if is_mp4(file) else None


def by_look(file: BinaryIO, start: int = 0) -> Form | None:
    """The form of a stream without a header that begins within ``LOOK`` bytes behind ``start``; None if none does."""
    head, rest = read_at(file, start, LOOK), file.seek(0, os.SEEK_END) - start
    if synced(head):
        return Form("mpegts", False)
    if packed(head):
        return Form("mpeg", False)
    found = [(at, name) for name, sync, length in STREAMS for at in first(head, rest, sync, length)]
    at, name = min(found, default=(0, ""))
    return Form(name, name in PLAIN and at == 0) if name else None


def read_at(file: BinaryIO, at: int, count: int) -> bytes:
    """So many bytes, or less at the file's end."""
    file.seek(at)
    return file.read(count)


def tagged(file: BinaryIO) -> Form:
    """The form of what stands behind ID3 tags: if nothing is recognised, MP3, which they were made for."""
    at = 0
    for _ in range(TAGS):
        head = read_at(file, at, 64)
        if not head.startswith(b"ID3") or len(head) < 10:
            break
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 0x7F
        at += 10 + size + (10 if head[5] & 0x10 else 0)
    else:
        head = b""
    if found := MAGIC.match(head):
        return Form(str(found.lastgroup), found.lastgroup in PLAIN)
    name = (by_look(file, at) or Form("mp3", True)).demuxer
    return Form(name, name in PLAIN)  # libsndfile passes over tags, too


def is_mp4(file: BinaryIO) -> bool:
    """Whether a file is made of boxes as MP4 and QuickTime are, and is more than one picture."""
    at = 0
    for _ in range(BOXES):
        head = read_at(file, at, 16)
        size, kind = int.from_bytes(head[:4]), head[4:8]
        if kind in MP4:
            return not (kind == b"ftyp" and STILLS.match(head, 8))
        if size == 1:
            size = int.from_bytes(head[8:16])
        if size < 8 or not re.fullmatch(rb"[ -~\xa9]{4}", kind):
            return False
        at += size
    return False


def synced(head: bytes) -> bool:
    """Whether packets of MPEG-TS follow one another somewhere, alone or with a time code or a checksum each."""
    at = head.find(b"G")
    while 0 <= at <= len(head) - 188:
        for size in (188, 192, 204):
            beats = head[at : at + SYNCS * size : size]
            if beats == b"G" * len(beats) and (len(beats) == SYNCS or (at < size and len(beats) > 2)):
                return True
        at = head.find(b"G", at + 1)
    return False


def packed(head: bytes) -> bool:
    """Whether a pack of an MPEG program stream stands somewhere, with what must follow it."""
    for found in re.finditer(rb"\0\0\x01\xba(?:[\x20-\x3f].{7}|[\x40-\x7f].{8}(.))", head, re.DOTALL):
        stuffing = found[1][0] & 7 if found[1] else 0
        if re.match(rb"\0\0\x01[\xba-\xef]", head[found.end() + stuffing :][:4]):
            return True
    return False


def first(head: bytes, rest: int, sync: bytes, length: Length) -> Iterator[int]:
    """Where the first frames in a row begin (one place or none): ``FRAMES`` of them, or what the whole file is."""
    for found in re.finditer(sync, head):
        at = found.start()
        size, kind = length(head[at : at + 8])
        count = 0
        while size and count < FRAMES:
            at, count = at + size, count + 1
            size, same = length(head[at : at + 8])
            size = size if same == kind else 0
        if count == FRAMES or (count and found.start() == 0 and at >= rest):
            yield found.start()
            return


def mpeg_audio(head: bytes) -> tuple[int, int]:
    """A frame of MP1, MP2 or MP3."""
    bits = int.from_bytes(head[:4]) if len(head) >= 4 else 0
    version, layer, kilobits, rate = bits >> 19 & 3, 4 - (bits >> 17 & 3), bits >> 12 & 15, bits >> 10 & 3
    if bits >> 21 != 0x7FF or version == 1 or layer == 4 or kilobits in (0, 15) or rate == 3:
        return 0, 0
    hertz, thousands = RATES[version][rate], KILOBITS[version == 3, layer][kilobits - 1]
    padding = bits >> 9 & 1
    if layer == 1:
        return (12_000 * thousands // hertz + padding) * 4, bits >> 17 << 2 | rate
    slots = 72_000 if layer == 3 and version != 3 else 144_000
    return slots * thousands // hertz + padding, bits >> 17 << 2 | rate


def adts(head: bytes) -> tuple[int, int]:
    """A frame of AAC."""
    bits = int.from_bytes(head[:7]) if len(head) >= 7 else 0
    size = bits >> 13 & 0x1FFF
    valid = bits >> 44 == 0xFFF and not bits >> 41 & 3 and bits >> 34 & 15 < 13 and size > 7
    return (size, bits >> 28) if valid else (0, 0)


def ac3(head: bytes) -> tuple[int, int]:
    """A frame of AC-3."""
    if len(head) < 6 or head[:2] != b"\x0b\x77" or head[4] >> 6 == 3 or (head[4] & 63) >> 1 > 18 or head[5] >> 3 > 10:
        return 0, 0
    kilobits, rate = AC3_KILOBITS[(head[4] & 63) >> 1], head[4] >> 6
    words = (2 * kilobits, 320 * kilobits // 147 + (head[4] & 1), 3 * kilobits)[rate]
    return 2 * words, head[4] >> 6


STREAMS: tuple[tuple[str, bytes, Length], ...] = (
    ("mp3", rb"\xff[\xe2-\xff]", mpeg_audio),
    ("aac", rb"\xff[\xf0\xf1\xf8\xf9]", adts),
    ("ac3", rb"\x0b\x77", ac3),
)
