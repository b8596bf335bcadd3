"""Files of chunks, such as WAVE and AIFF: where their samples stand, and how many there are.

A pipe cannot go back to its header, so sizes stay 0 or as large as they can be; so they do if a recorder is killed.
Sizes of 32 bits wrap in files beyond 4 GiB. Recordings are joined with ``cat``. libsndfile is shown a file that says
what is there.
"""

import io
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from pipeline.media.part import Bytes, FileBytes

NEAR = 1 << 13  # a size so near to what 31, 32, 63 or 64 bits can hold is none
MAX_SIZE = 1 << 32  # of a field of 32 bits
MAX_CHUNKS = 1 << 20  # that are looked at; a hostile file could be nothing but headers
MAX_LAYOUT_BYTES = 1 << 12
OUTER = (b"RIFF", b"RF64", b"BW64", b"RIFX", b"FORM", b"caff", b"riff")  # how files of chunks begin
ADPCM = (b"\x02\0", b"\x11\0")  # codecs of WAVE with blocks of many samples
W64 = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # how its names end


@dataclass
class Structure:
    """What is known of a file before any decoder sees it."""

    warnings: list[str] = field(default_factory=list)  # truncated, unknown_length, joined, rate_change
    rate: int = 0  # and ``channels``, as a header of WAVE claims
    channels: int = 0
    chunked: bool = False  # its samples are counted in bytes, so what is missing is known
    several: bool = False  # recordings or chunks of samples
    view: "list[bytes | tuple[int, int]] | None" = None  # what libsndfile should see instead: bytes, or offset and size

    def open(self, name: str) -> io.BufferedReader:
        """The file, as libsndfile should see it."""
        return io.BufferedReader(View(name, self.view or []))


class Chunk(NamedTuple):
    """A named part of a file: the offset of its body, the size that is claimed, and whether in 64 bits."""

    name: bytes
    body: int
    size: int
    wide: bool = False


class Form(NamedTuple):
    """How a format of chunks is laid out."""

    head: int  # bytes before its first chunk
    chunk: str  # of struct: name and size of a chunk
    counted: int  # bytes of these two that the size counts
    align: int
    layout: bytes  # name of the chunk that describes the samples
    frames: slice  # of its body, where the number of samples stands
    samples: bytes  # name of the chunk that holds them
    skip: int  # bytes in it before them
    header: Callable[[bytes, int], bytes]  # a new one, for this layout and so many bytes of samples


def wave_header(layout: bytes, size: int, order: str = "<") -> bytes:
    """Of WAVE; of RF64 beyond 4 GiB."""
    wide = size >= MAX_SIZE - NEAR
    name = b"RF64" if wide else b"RIFX" if order == ">" else b"RIFF"
    long = b"ds64" + struct.pack("<IQQQI", 28, size + 80 + len(layout), size, 0, 0) if wide else b""
    body = b"WAVE" + long + b"fmt " + struct.pack(f"{order}I", len(layout)) + layout + bytes(len(layout) % 2) + b"data"
    whole = MAX_SIZE - 1 if wide else len(body) + 4 + size
    return name + struct.pack(f"{order}I", whole) + body + struct.pack(f"{order}I", MAX_SIZE - 1 if wide else size)


def aiff_header(layout: bytes, size: int) -> bytes:
    """Of AIFF, or of AIFF-C if the layout names a codec."""
    size = min(size, MAX_SIZE - NEAR)
    channels, bits = struct.unpack(">H4xH", layout[:8])
    width = max(1, channels * -(-bits // 8))
    layout = layout[:2] + struct.pack(">I", size // width) + layout[6:]
    kind = b"AIFC" if len(layout) > 18 else b"AIFF"
    body = kind + b"COMM" + struct.pack(">I", len(layout)) + layout + bytes(len(layout) % 2) + b"SSND"
    return b"FORM" + struct.pack(">I", len(body) + 12 + size) + body + struct.pack(">I", size + 8) + bytes(8)


def caf_header(layout: bytes, size: int) -> bytes:
    return b"caff\0\1\0\0desc" + struct.pack(">Q", len(layout)) + layout + b"data" + struct.pack(">Q4x", size + 4)


def au_header(layout: bytes, size: int) -> bytes:
    return struct.pack(">4sII", b".snd", 24, min(size, MAX_SIZE - 1)) + layout  # the largest one: to the end


WAVE = Form(12, "<4sI", 0, 2, b"fmt ", slice(0), b"data", 0, wave_header)
FORMS = {
    rb"(?:RIFF|RF64|BW64).{4}WAVE": WAVE,
    rb"RIFX.{4}WAVE": WAVE._replace(chunk=">4sI", header=lambda layout, size: wave_header(layout, size, ">")),
    rb"riff\x2e\x91\xcf\x11": Form(40, "<16sQ", 24, 8, b"fmt " + W64, slice(0), b"data" + W64, 0, wave_header),
    rb"FORM.{4}AIF[FC]": Form(12, ">4sI", 0, 2, b"COMM", slice(2, 6), b"SSND", 8, aiff_header),
    rb"caff\0\x01": Form(8, ">4sQ", 0, 1, b"desc", slice(0), b"data", 4, caf_header),
    rb"\.snd": Form(0, "", 0, 1, b"desc", slice(0), b".snd", 0, au_header),
}


def examine_samples(file: FileBytes, form: Form, found: Structure) -> None:
    """Find all samples, be they in several chunks, or in several files one after another."""
    layout, spans, claimed = b"", list[tuple[int, int]](), True
    for chunk in chunks(file, form) if form.chunk else au_chunks(file):
        if chunk.name == form.layout:
            other = file.bytes_at(chunk.body, min(chunk.size, MAX_LAYOUT_BYTES))
            if layout and alike(layout, form) != alike(other, form):
                found.warnings.append("rate_change")
                break
            layout = layout or other
            if form.layout == b"fmt " and len(layout) >= 16:
                found.channels, found.rate = struct.unpack_from(f"{form.chunk[0]}HI", layout, 2)
        elif chunk.name == form.samples:
            start = chunk.body + form.skip
            size = chunk.size - form.skip
            length, code = length_of(size, start, file.size - start, chunk.wide)
            if code and form.layout[:4] == b"fmt " and layout[:2] in ADPCM:
                length -= length % (int.from_bytes(layout[12:14], "little") or 1)  # a part of a block is none
            spans.append((start, length))
            claimed = claimed and length == size
            if code or length != size:
                found.warnings += [code] if code else []
                break
    found.several = len(spans) > 1
    if layout and spans and (found.several or not claimed):
        found.view = [form.header(layout, sum(size for _, size in spans)), *spans]


def alike(layout: bytes, form: Form) -> bytes:
    """A layout without the number of samples."""
    return layout[: form.frames.start or 0] + layout[form.frames.stop :]


def length_of(size: int, start: int, rest: int, wide: bool) -> tuple[int, str]:
    """How many bytes of samples there are where ``size`` are claimed and ``rest`` follow, and what is doubtful."""
    largest = 63 if wide else 31
    if size <= 0 or any(abs(size - (1 << bits)) <= NEAR for bits in (largest, largest + 1)):
        return rest, "unknown_length" if rest > 0 else ""
    if size > rest:
        counts_header = size - rest in (start, start - 8)
        return rest, "" if counts_header else "truncated"
    wrapped = not wide and rest - size >= MAX_SIZE - NEAR
    return (rest if wrapped else size), ""


def chunks(file: FileBytes, form: Form) -> Iterator[Chunk]:
    """The chunks of a file, and of others of its kind that follow."""
    at, length, long = form.head, struct.calcsize(form.chunk), 0
    for _ in range(MAX_CHUNKS):
        header = file.bytes_at(at, length)
        if len(header) < length:
            return
        name, size = struct.unpack(form.chunk, header)
        if name[:4] in OUTER:  # the next file
            at += form.head
            continue
        if not name[:4].isascii() or min(name[:4]) < 32:
            return
        size, wide = max(0, size - form.counted), form.chunk.endswith("Q")
        if name == b"ds64":  # of RF64: the size of the samples
            long = int.from_bytes(file.bytes_at(at + length + 8, 8), "little")
        if name == form.samples and size == MAX_SIZE - 1 and long:
            size, wide = long, True
        yield Chunk(name, at + length, size, wide)
        at += length + size + -(size + form.counted) % form.align


def au_chunks(file: FileBytes) -> Iterator[Chunk]:
    """The same of AU, which has a header before the samples, and no names."""
    at = 0
    for _ in range(MAX_CHUNKS):
        header = file.bytes_at(at, 12)
        if len(header) < 12 or not header.startswith(b".snd"):
            return
        offset, size = struct.unpack(">II", header[4:])
        yield Chunk(b"desc", at + 12, 12)
        yield Chunk(b".snd", at + offset, size)
        at += offset + size


class View(Bytes):
    """Pieces of a file, and bytes of ours among them, as one file."""

    def __init__(self, name: str, pieces: list[bytes | tuple[int, int]]) -> None:
        """``pieces``: bytes, or an offset and a size."""
        self.file, self.pieces = FileBytes(name), pieces
        sizes = (len(piece) if isinstance(piece, bytes) else piece[1] for piece in pieces)
        *self.starts, self.size = accumulate(sizes, initial=0)

    def bytes_at(self, at: int, size: int) -> bytes:
        """So many bytes from there, or fewer where a piece ends."""
        number = bisect_right(self.starts, at) - 1  # there can be a million
        piece, inside = self.pieces[number], at - self.starts[number]
        if isinstance(piece, bytes):
            return piece[inside : inside + size]
        offset, length = piece
        return self.file.bytes_at(offset + inside, min(size, length - inside))

    def close(self) -> None:
        self.file.close()
        super().close()
