"""Where decoding may begin with the same samples as from the start of a file.

A trial of every format and codec of libsndfile said where its seek gives the same bits (``tests/test_seek.py`` repeats
it): plain samples and ADPCM anywhere; Vorbis where the pages are sound (see ``ogg.py``); FLAC as far as a file is not
damaged, which nothing short of decoding tells, so as far as this process has decoded it. Opus, ALAC, GSM and the other
ADPCMs differ by some bits, or cannot seek. So do many decoders of FFmpeg, which are all left to begin at the start.
"""

import os
import time
from dataclasses import dataclass
from functools import lru_cache

import soundfile

from pipeline.media import ogg
from pipeline.media.part import Part

EXACT = {"FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"}  # and PCM of any width
FILES = 1 << 12  # of which is known how far they are intact
YOUNG_SECONDS = 2.0  # a file written so recently may be written again without a later time stamp


@dataclass
class Intact:
    """How far a file is known to be intact."""

    until: int | None = None  # samples; None if nobody has looked


@lru_cache(FILES)
def cached(key: tuple[int, ...]) -> Intact:
    """What this process knows of a file; ``key`` is its fingerprint."""
    return Intact()


def look_up(name: str) -> Intact:
    """What this process knows of a file or a ``Part``; nothing if it is gone meanwhile."""
    try:
        status = os.fstat(name.file) if isinstance(name, Part) else os.stat(name)
    except OSError:
        return Intact()
    if time.time() - status.st_mtime < YOUNG_SECONDS:
        return Intact()
    place = (name.offset, name.size) if isinstance(name, Part) else (0, status.st_size)
    return cached((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, *place))


def decoded_so_far(name: str, sound: soundfile.SoundFile) -> Intact:
    """Where to note how far a file has been decoded without damage; of use for FLAC only."""
    return look_up(name) if sound.format == "FLAC" else Intact()


def exact_until(name: str, sound: soundfile.SoundFile) -> int:
    """The sample up to which a seek in this file is exact; 0 if decoding has to begin at the start."""
    if sound.format == "FLAC":
        return look_up(name).until or 0
    if sound.format == "OGG" and sound.subtype == "VORBIS":
        found = look_up(name)
        if found.until is None:
            found.until = ogg.exact_until(name)
        return found.until
    plain = sound.subtype in EXACT or sound.subtype.startswith("PCM_")
    return sound.frames if plain and sound.format != "OGG" else 0


def seeks_everywhere(name: str, sound: soundfile.SoundFile) -> bool:
    """Whether all of a file can be read by exact seeks, and is as long as it claims."""
    if sound.format == "FLAC" or not exact_until(name, sound):
        return False
    try:
        sound.seek(sound.frames - 1)
        return len(sound.read(1)) == 1
    except soundfile.LibsndfileError:
        return False


def seek(name: str, sound: soundfile.SoundFile, wanted: int, grid: int) -> int:
    """Go to the last multiple of ``grid`` samples up to ``wanted`` from where decoding is exact; the sample it is."""
    place = min(wanted, exact_until(name, sound), sound.frames - 1) // grid * grid if wanted >= grid else 0
    if place > 0:
        try:
            sound.seek(place)
            if len(sound.read(1)):  # the header may claim more than there is
                return int(sound.seek(place))
        except soundfile.LibsndfileError:  # damage on the way
            pass
        sound.seek(0)
    return 0
