"""Files to opened containers: what may be read at all, and by which demuxers.

FFmpeg is given the bytes of a file and no name. It tells the format by them, must take a demuxer of the list below, and
may open nothing else, so no file can make it follow a playlist, read another file or ask a device. Nothing in a file is
ever run or unpacked. Files of other kinds that people have beside recordings are refused with a hint.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av

from pipeline.core.errors import MediaError
from pipeline.media.formats import DEMUXERS
from pipeline.media.part import FileBytes, Part
from pipeline.media.structure import is_moving

HEAD_BYTES = 4096  # at the beginning of a file that tell its kind
MAX_DECODED_PIXELS = 1 << 25  # of one picture that is decoded, be it the cover of a sound file
MAX_BAD_PACKETS = 500  # in a row that cannot be decoded, until the rest is given up
BARE = {"aac", "loas", "ac3", "eac3", "dts"}  # frames and no more: one that is spoilt at the end has been cut
EQUAL = {"mp3", "ac3", "eac3", "dts"}  # so has one that is shorter than all others, which are as long as each other
HEADERLESS = {".pcm", ".raw"}
LIMITS = {"protocol_whitelist": "", "format_whitelist": DEMUXERS, "max_pixels": str(MAX_DECODED_PIXELS)}
PLAYLIST = (
    rb"(?i:(?:\xef\xbb\xbf)?\s*(?:#EXTM3U|ffconcat|\[playlist\]|\[reference\]|<asx|<smil|v=0\r?\no="
    rb"|(?:<\?xml[^>]*+>\s*+|<!--(?:(?!-->).)*+-->\s*+)*+<(?:MPD|playlist|SmoothStreamingMedia)\b))"
)
PICTURE = (
    rb"\x89PNG|\xff\xd8\xff|BM.{4}\0{4}|II\*\0|MM\0\*|RIFF.{4}WEBP|8BPS|\0\0\0\x0c(?:JXL |jP  .{8}ftypjp2 )"
    rb"|\x76\x2f\x31\x01|.{4}ftyp(?:hei[cxms]|mif1|avif)|P[1-6]\s+\d+\s+\d+\s"
)
ANIMATED_WEBP = rb"RIFF.{4}WEBPVP8X.{4}[" + re.escape(bytes(flags for flags in range(256) if flags & 2)) + rb"]"
OTHER_SOUND = rb"FRM8|\.SoX|XoS\.|.{4}\xf8\x72\x6f[\xba\xbb]"  # DSDIFF, SoX, TrueHD and MLP
OTHER_VIDEO = rb"\.RMF|\x06\x0e\x2b\x34|nut/multimedia|[FCZ]WS[\x03-\x40]|\xb7\xd8\x00\x20\x37|BBCD\0"
CODES = {PLAYLIST: "playlist", PICTURE: "picture"}  # of the errors; the others are "unreadable"
HINTS = {  # how files begin that are no recordings
    PLAYLIST: "a playlist; other files it names are never followed",
    ANIMATED_WEBP: "an animated WebP, which is not read; convert it to Matroska or GIF first",
    PICTURE: "a single picture; expected a recording",
    rb"\x80[\x02-\x05]|PK\x03\x04.*\.pkl": "a pickle, which is never loaded; a model is a model.safetensors",
    rb"PK[\x03\x05]|\x1f\x8b|BZh\d|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc|Rar!|.{257}ustar": "an archive; unpack it first",
    rb"\x93NUMPY|\x89HDF|ARROW1|SQLite format 3|MATLAB 5": "a file of arrays or tables; expected a recording",
    rb"PAR1": "a parquet table; a list of recordings is given as source.paths=TABLE.parquet",
    rb".{6}\0\0\{\"": "a safetensors file; a model is given as checkpoint=FILE",
    rb"%PDF": "a PDF document; expected a recording",
    rb"\x7fELF|MZ.{58}|\xcf\xfa\xed\xfe": "a program; expected a recording",
    rb"MThd": "MIDI, notes without sound; render it first",
    OTHER_SOUND: "sound of a kind that is not read; convert it first: ffmpeg -i FILE out.flac",
    OTHER_VIDEO: "video of a kind that is not read; convert it first: ffmpeg -i FILE out.mkv",
    rb"(?i:(?:\xef\xbb\xbf)?\s*<(?:!doctype )?html)": "a web page; expected a recording",
    rb"(?!#!AMR|NIST_1A)[^\0-\x08\x0e-\x1a\x1c-\x1f]+\Z": "a text; expected a recording, or a list named .csv",
}


def admit(name: str) -> bytes:
    """The first bytes of a file. MediaError, before any decoder sees it, if it is no regular file, empty, or of a kind
    that is no recording.
    """
    try:
        status = os.fstat(name.file) if isinstance(name, Part) else os.stat(name)
    except (OSError, ValueError):
        raise MediaError("not_found", f"{name}: no such file") from None
    if not stat.S_ISREG(status.st_mode):
        raise MediaError("not_a_file", f"{name}: not a regular file")
    if (name.size if isinstance(name, Part) else status.st_size) == 0:
        raise MediaError("empty_file", f"{name}: the file has 0 bytes")
    try:
        with FileBytes(name) as file:
            head = file.read(HEAD_BYTES) or b""
            moving = is_moving(file, head)
    except OSError as error:
        raise MediaError("unreadable", f"{name}: {error.strerror}") from None
    for pattern, hint in HINTS.items():
        if not moving and re.match(pattern, head, re.DOTALL):
            raise refusal(name, CODES.get(pattern, "unreadable"), hint)
    return head


def refusal(name: str, code: str, why: str) -> MediaError:
    """The error of a file that is no recording."""
    if code == "unreadable" and Path(name).suffix.lower() in HEADERLESS:
        code, why = "format_unknown", "samples without a header; say what they are with source=stdin source.rate"
    return MediaError(code, f"{name}: {why}")


def open_file(name: str, **options: str) -> av.container.InputContainer:
    """PyAV, bound to this file. MediaError if it cannot be read as a recording.

    ``options`` of FFmpeg add to the limits that hold for every file.
    """
    jpeg = admit(name).startswith(b"\xff\xd8\xff")  # or FFmpeg would take it for a single one
    try:
        form = "mjpeg" if jpeg else None
        return av.open(FileBytes(name), "r", form, options=LIMITS | options, metadata_errors="replace")
    except (av.FFmpegError, OSError, UnicodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise refusal(name, "unreadable", f"no recording of a known kind, or a damaged one ({why})") from None


def decoded_frames(container: av.container.InputContainer, track: Any, warn: Callable[[str], None]) -> Iterator[Any]:
    """Decoded frames of a track; packets that cannot be decoded are warned of and left out."""
    bad, spoilt, packets, sizes = 0, False, container.demux(track), [0, 0, 0]
    while bad <= MAX_BAD_PACKETS:
        try:
            packet = next(packets)
        except (StopIteration, IndexError):  # PyAV raises IndexError for tracks that began late, once ours has ended
            form, (least, most, last) = container.format.name, sizes  # the last packet, and those before it
            if (form in BARE and spoilt) or (form in EQUAL and last < least >= most - 4):
                warn("truncated")
            return
        except (av.FFmpegError, OSError, UnicodeDecodeError) as error:
            chained = isinstance(error, av.error.PatchWelcomeError)  # Ogg streams one after another, of other rates
            warn("rate_change" if chained else "decode_errors")
            return
        if packet.size:
            least, most, last = sizes
            sizes = [min(least or last, last or least), max(most, last), packet.size]
        if packet.is_corrupt and container.format.name not in ("mpegts", "wav"):  # the file ended within it
            warn("truncated")
        try:
            frames = packet.decode()
            bad = 0
        except (av.FFmpegError, UnicodeDecodeError):
            warn("decode_errors")
            bad, spoilt = bad + 1, True
            continue
        if packet.size:
            spoilt = any(frame.is_corrupt for frame in frames)
        yield from frames
