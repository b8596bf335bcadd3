"""Files to opened containers: what may be read at all, and by which demuxer alone.

A file is looked at before any decoder sees it (``sniff``, ``foreign``), and read as what it is and as nothing else.
FFmpeg is bound to that demuxer, to local files, and to a size of pictures, so that no file can make it open another or
take all memory.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av

from pipeline.core.errors import MediaError
from pipeline.media.foreign import foreign
from pipeline.media.part import Part, bytes_of
from pipeline.media.sniff import Form, by_look, by_magic

HEADERLESS = {".pcm", ".raw"}
LARGEST = 1 << 25  # pixels of one picture that is decoded, be it the cover of a sound file
BROKEN = 500  # packets in a row that cannot be decoded, until the rest is given up


def admit(name: str) -> Form:
    """How a file may be read; MediaError, before any decoder sees it, for what is no regular, non-empty media file."""
    try:
        status = os.fstat(name.file) if isinstance(name, Part) else os.stat(name)
    except (OSError, ValueError):
        raise MediaError("not_found", f"{name}: no such file") from None
    if not stat.S_ISREG(status.st_mode):
        raise MediaError("not_a_file", f"{name}: not a regular file")
    if (name.size if isinstance(name, Part) else status.st_size) == 0:
        raise MediaError("empty_file", f"{name}: the file has 0 bytes")
    try:
        with bytes_of(name) as file:
            form = by_magic(file)
            refusal = None if form else foreign(name, file)
            form = form if form or refusal else by_look(file)
    except OSError as error:
        raise MediaError("unreadable", f"{name}: {error.strerror}") from None
    if form is None:
        raise refused(name, refusal)
    return form


def refused(name: str, refusal: MediaError | None) -> MediaError:
    """Why a file that is none of the known forms is refused."""
    if Path(name).suffix.lower() in HEADERLESS and (refusal is None or refusal.code == "unreadable"):
        plain = "samples without a header; say what they are with source=stdin source.rate"
        return MediaError("format_unknown", f"{name}: {plain}")
    return refusal or MediaError("unreadable", f"{name}: no kind of recording that is known")


def open_file(name: str, **options: str) -> av.container.InputContainer:
    """PyAV, bound to the local file and to the demuxer of what it is; MediaError if it cannot be read as that.

    ``options`` of FFmpeg add to the limits that hold for every file.
    """
    demuxer = admit(name).demuxer
    limits = {"protocol_whitelist": "file", "format_whitelist": demuxer, "max_pixels": str(LARGEST)}
    source = bytes_of(name) if isinstance(name, Part) else f"file:{name}"
    try:
        return av.open(source, "r", format=demuxer, options=limits | options, metadata_errors="replace")
    except (av.FFmpegError, OSError, UnicodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise MediaError("unreadable", f"{name}: begins as {demuxer}, but cannot be read ({why})") from None


def decoded_frames(container: av.container.InputContainer, track: Any, warn: Callable[[str], None]) -> Iterator[Any]:
    """Decoded frames of a track; packets that cannot be decoded are warned of and left out."""
    broken, packets = 0, container.demux(track)
    while broken <= BROKEN:
        try:
            packet = next(packets)
        except (StopIteration, IndexError):  # PyAV trips over tracks that began late, once ours is at its end
            return
        except (av.FFmpegError, UnicodeDecodeError) as error:
            chained = isinstance(error, av.error.PatchWelcomeError)  # Ogg streams one after another, of other rates
            warn("rate_change" if chained else "decode_errors")
            return
        try:
            frames = packet.decode()
            broken = 0
        except (av.FFmpegError, UnicodeDecodeError):
            warn("decode_errors")
            broken += 1
            continue
        yield from frames
