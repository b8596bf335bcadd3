"""Ogg Vorbis: up to which sample a seek finds what decoding from the start finds.

libsndfile seeks by what each page claims: how many samples there are up to its end. That is right if no page is
missing, spoilt, or of another stream, and if each claim is the sum of its packets. Both are looked at here, without
decoding, at about a tenth of its cost. Within the last page, which may claim less than it holds, libsndfile misses the
place.

Sources: RFC 3533 for pages, the Vorbis I specification for packets, and FFmpeg's parser for how to find the modes.
"""

import io
import struct
import zlib
from collections.abc import Iterator

from pipeline.media.part import FileBytes

PAGE = struct.Struct("<5xBqII4xB")  # flags, samples up to its end, stream, number, pieces
FIRST, LAST = 2, 4  # of the flags
NONE_ENDS = -1  # instead of the samples, where no packet ends in the page
BUFFER_BYTES = 1 << 20
MAX_PACKET_BYTES = 1 << 20
MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
MODE_BITS, MAX_MODES = 41, 64
HEADERS = 3  # packets before the sound


def exact_until(name: str) -> int:
    """The sample at which the last page of an Ogg Vorbis file begins; 0 if any page of it is doubtful."""
    headers, sizes, mask = list[bytes](), list[int](), 0  # samples of the blocks of each mode
    begin, total, before = 0, 0, 0  # the page's first sample, samples so far, and of the last block
    try:
        for end, last, packets in pages(name):
            for packet in packets:
                if len(headers) < HEADERS:
                    headers.append(packet)
                    sizes = block_sizes(headers[0], packet) if len(headers) == HEADERS else []
                    mask = (1 << (len(sizes) - 1).bit_length()) - 1 if sizes else 0
                elif packet[0] & 1:
                    return 0  # no sound
                else:
                    size = sizes[packet[0] >> 1 & mask]
                    total += (before + size) // 4 if before else 0
                    before = size
            if last:
                return begin if begin <= end <= total else 0
            if end not in (NONE_ENDS, total):
                return 0
            begin = max(begin, end)
    except (ValueError, IndexError):
        pass
    return 0


def pages(name: str) -> Iterator[tuple[int, bool, list[bytes]]]:
    """Of each page the samples up to its end, whether it is the last, and the packets that end in it. ValueError if a
    page is spoilt, missing, or of a second stream.
    """
    stream, number, packet = 0, 0, bytearray()
    with io.BufferedReader(FileBytes(name), BUFFER_BYTES) as file:
        while head := file.read(PAGE.size):
            if len(head) < PAGE.size:
                raise ValueError("the end is missing")
            flags, end, serial, told, count = PAGE.unpack(head)
            lacing = file.read(count)
            body = file.read(sum(lacing))
            stream = stream if number else serial
            first, last = bool(flags & FIRST), bool(flags & LAST)
            if (head[:4], serial, told, first) != (b"OggS", stream, number, not number) or (last and file.peek(1)):
                raise ValueError("a page is missing, or of a second stream")
            if checksum(head[:22] + bytes(4) + head[26:] + lacing + body) != head[22:26]:
                raise ValueError("a page is spoilt")
            packets, begin, at = list[bytes](), 0, 0
            for size in lacing:
                at += size
                if size < 255:
                    packets.append(bytes(packet) + body[begin:at])
                    begin = at
                    packet.clear()
            packet += body[begin:]
            if len(packet) > MAX_PACKET_BYTES:
                raise ValueError("no packet is so long")
            yield end, last, packets
            number += 1


def checksum(page: bytes) -> bytes:
    """Of a page, as it stands in one; zlib's takes the bits of each byte from the other side."""
    mirrored = zlib.crc32(page.translate(MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return mirrored.to_bytes(4, "big").translate(MIRROR)


def block_sizes(identification: bytes, setup: bytes) -> list[int]:
    """Samples of a block of each mode. ValueError if the headers do not tell.

    The modes stand at the end of the setup, behind what only a decoder can measure, so they are read from behind: a 1
    at the very end, before it 41 bits for each mode, before them their number in 6 bits.
    """
    sizes = 1 << (identification[28] & 15), 1 << (identification[28] >> 4)
    bits = int.from_bytes(setup, "little")
    top, flags, found = bits.bit_length() - 1, list[int](), 0
    while len(flags) < MAX_MODES and top >= MODE_BITS + 6:
        top -= MODE_BITS
        if (bits >> top + 1) & 0xFFFFFFFF:  # types of the window and the transform, which are 0
            break
        flags.insert(0, bits >> top & 1)
        if (bits >> top - 6) & 63 == len(flags) - 1:
            found = len(flags)
    if not found:
        raise ValueError("no modes")
    return [sizes[flag] for flag in flags[-found:]]
