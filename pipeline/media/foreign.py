"""What a file is that is no recording, and why it is refused: told by looking, never by loading.

Nothing of a file is run, unpacked or believed: some KiB of it are read, and of a tar archive the headers, so many at
most. The answer is a code and a sentence that helps, as most such files were given by mistake.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from io import StringIO
from itertools import islice
from math import prod
from os import SEEK_END
from posixpath import normpath
from typing import BinaryIO

from pipeline.core.errors import MediaError
from pipeline.media.sniff import LOOK, read_at

MEMBERS = 10_000  # of a tar archive that are looked at
FAR = 1 << 62  # bytes; no file is longer
LONGEST = 1 << 12  # bytes of a member's name, and of a line
VALUES = 100  # in a configuration that are looked at
LARGEST = 1 << 32  # bytes of an array
HEADER = 10_000  # bytes of an array's, as numpy takes them
PLAYLISTS = re.compile(
    rb"#EXTM3U|ffconcat|\[playlist\]|\[reference\]|<asx|<smil|v=0\r?\no="
    rb"|(?:<\?xml[^>]*+>\s*+|<!--(?:(?!-->).)*+-->\s*+)*+<(?:MPD|playlist|SmoothStreamingMedia)\b",
    re.DOTALL | re.IGNORECASE,
)
PICTURE = re.compile(
    rb"\x89PNG|\xff\xd8\xff|BM.{4}\0{4}|II\*\0|MM\0\*|RIFF.{4}WEBP|8BPS|\0\0\0\x0cJXL |\x76\x2f\x31\x01"
    rb"|.{4}ftyp(?:heic|heix|heim|heis|mif1|avif)|\0\0\0\x0cjP  .{8}ftypjp2 |P[1-6]\s+\d+\s+\d+\s",
    re.DOTALL,
)
KINDS = {  # how files begin that people have beside recordings
    rb"\x1f\x8b": "a gzip archive; unpack it first",
    rb"BZh[1-9]1AY&SY": "a bzip2 archive; unpack it first",
    rb"\xfd7zXZ\0": "an xz archive; unpack it first",
    rb"\x28\xb5\x2f\xfd": "a zstd archive; unpack it first",
    rb"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    rb"Rar!\x1a\x07": "a rar archive; unpack it first",
    rb"%PDF": "a PDF document",
    rb"\x7fELF|MZ.{58}|\xcf\xfa\xed\xfe": "a program",
    rb"\x89HDF\r\n\x1a\n": "an HDF5 file",
    rb"PAR1": "a parquet table; a list of recordings is given as source.paths=TABLE",
    rb"ARROW1\0\0": "an Arrow table",
    rb"SQLite format 3\0": "an SQLite database",
    rb"MATLAB 5\.0": "a MATLAB file",
    rb"GGUF|.{4}TFL3": "a model of another program",
    rb"MThd": "MIDI, notes without sound; render it first",
    rb"wvpk": "WavPack; convert it to FLAC first",
    rb"MAC ": "Monkey's Audio; convert it to FLAC first",
    rb"TTA[12]": "True Audio; convert it to FLAC first",
    rb"DSD |FRM8": "DSD; convert it to FLAC first",
    rb"\.RMF": "RealMedia; convert it to Matroska first",
    rb"\x06\x0e\x2b\x34": "MXF; convert it to Matroska first",
}
TARGET = re.compile(r"""(?:^|[\s{,\[(])['"]?_target_['"]?\s*:\s*['"]?([^\s'",}\]]*)|!!python/\S*""", re.MULTILINE)
VALUE = re.compile(r"""\w['"]?\s*:|^\s*-\s""")  # what stands before a value in a configuration
OLD_PICKLE = (
    rb"\([dl]p\d+\n|[\]}]q[\0-\x1f]"
    rb"|\(?c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n(?:p\d+\n|q[\0-\x1f]|\()"
    rb"|\([SV][^\n]*\n(?:p\d+\n)?i[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n"
)
PICKLE = re.compile(rb"\x80[\2-\5]|" + OLD_PICKLE, re.DOTALL)
OUTSIDE = re.compile(r"[\\/]|[A-Z]:[\\/]|[A-Z][\w+.-]*://|file:", re.IGNORECASE)
CONTROL = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")  # no text has them
TEXTS = {
    r"<!doctype html|<html": "a web page",
    r"WEBVTT|\d+\s+\d\d:\d\d:\d\d,": "subtitles",
    r"<": "XML",
    r"#!": "a script",
}
Told = tuple[str, str]  # code and sentence


def foreign(name: str, file: BinaryIO) -> MediaError | None:
    """Why a file is no recording; None if there is nothing that is known about it."""
    head = read_at(file, 0, LOOK)
    for look in (listing, picture, pickled, array, tar, safetensors, known, zeros, text):
        if told := look(head, file):
            return MediaError(told[0], f"{name}: {told[1]}")
    return None


def end_of(file: BinaryIO) -> bytes:
    """The last bytes of a file."""
    return read_at(file, max(0, file.seek(0, SEEK_END) - LOOK), LOOK)


def listing(head: bytes, file: BinaryIO) -> Told | None:
    """A playlist of whatever kind."""
    if PLAYLISTS.match(head.removeprefix(b"\xef\xbb\xbf").lstrip()):
        return "playlist", "a playlist; other files it names are never followed"
    return None


def picture(head: bytes, file: BinaryIO) -> Told | None:
    """A single picture."""
    return ("picture", "a single picture; expected a recording") if PICTURE.match(head) else None


def pickled(head: bytes, file: BinaryIO) -> Told | None:
    """A pickle, bare or in a zip as torch.save makes them, or any other zip."""
    if PICKLE.match(head):
        return "unsafe_checkpoint", "a pickle, which runs code when it is loaded; a model is a model.safetensors"
    if not head.startswith((b"PK\3\4", b"PK\5\6")):
        return None
    if b".pkl" in head or b".pkl" in end_of(file):  # where a zip has the names of its members
        return "unsafe_checkpoint", "a zip with a pickle, as torch.save writes, which runs code when it is loaded"
    return "unreadable", "a zip archive; unpack it first"


def array(head: bytes, file: BinaryIO) -> Told | None:
    """A numpy array: its header is text, of which only the type and the shape are looked at."""
    if not head.startswith(b"\x93NUMPY"):
        return None
    wide = 2 if head[6:7] == b"\1" else 4
    start = 8 + wide + int.from_bytes(head[8 : 8 + wide], "little")
    header = head[8 + wide : start][:HEADER].decode("latin-1")
    kind = re.search(r"'descr':\s*(\[.*\]|'[^']*')", header)
    shape = re.search(r"'shape':\s*\(([\d,\sL]*)\)", header)
    if not kind or not shape:
        return "unreadable", "a numpy array with a damaged header"
    types = re.findall(r"'[<>|=]?([a-zA-Z])(\d{0,9})", kind[1])
    if any(letter == "O" for letter, _ in types):
        return "unsafe_array", "a numpy array of objects, which runs code when it is loaded"
    size = int(types[0][1] or 1) if len(types) == 1 else 1
    claimed = min(10**30, prod(int(number) for number in re.findall(r"\d{1,99}", shape[1])[:32]) * size)
    held = file.seek(0, SEEK_END) - start
    if claimed > held or claimed > LARGEST:
        return "limit_size", f"a numpy array that claims ({shape[1][:80]}) values, {claimed:.3g} bytes; it holds {held}"
    return "unreadable", "a numpy array; expected a recording"


def tar(head: bytes, file: BinaryIO) -> Told | None:
    """A tar archive: unsafe if unpacking it could write elsewhere, or if readers could differ on what is in it."""
    if len(head) < 512 or header_sum(head[:512]) != number(head[148:156]):
        return None
    names: set[str] = set()
    for name, kind, link in members(file):
        if leaves(name):
            return "unsafe_path", f"a tar archive whose member {name[:200]!r} leads out of its folder"
        if kind in b"12":
            return "unsafe_path", f"a tar archive with a link, {name[:200]!r} to {link[:200]!r}"
        if kind in b"346":
            return "unsafe_path", f"a tar archive with a device, {name[:200]!r}"
        if kind != b"5" and normpath(name) in names:
            return "duplicate_member", f"a tar archive with two members {name[:200]!r}"
        names.add(normpath(name))
    return "unreadable", "a tar archive; unpack it first"


def number(field: bytes) -> int:
    """A number in a tar header: octal digits, or bytes if the first is 0x80; 0 if it is neither."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:])
    digits = field.strip(b" \0")
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else 0


def header_sum(block: bytes) -> int:
    """What a tar header's checksum must be."""
    return sum(block[:148]) + sum(block[156:]) + 8 * 32


def members(file: BinaryIO) -> Iterator[tuple[str, bytes, str]]:
    """Names, kinds and links of the members of a tar archive, from their headers alone."""
    at, told = 0, {"path": "", "linkpath": "", "size": ""}
    for _ in range(MEMBERS):
        block = read_at(file, at, 512)
        if len(block) < 512 or header_sum(block) != number(block[148:156]):
            return
        kind, size = block[156:157].replace(b"\0", b"0"), number(block[124:136])
        body = read_at(file, at + 512, min(size, LONGEST)) if kind in b"LKxg" else b""
        if kind == b"L":
            told["path"] = plain(body)
        elif kind == b"K":
            told["linkpath"] = plain(body)
        elif kind in b"xg":
            records = re.findall(rb"\d+ (path|linkpath|size)=([^\n]*)\n", body)
            told |= {key.decode(): plain(value) for key, value in records}
        else:
            prefix = plain(block[345:500]) if block[257:262] == b"ustar" and block[262:263] == b"\0" else ""
            short = f"{prefix}/{plain(block[:100])}" if prefix else plain(block[:100])
            yield told["path"] or short, kind, told["linkpath"] or plain(block[157:257])
            size = int(told["size"]) if re.fullmatch(r"\d{1,18}", told["size"]) else size
            told = {"path": "", "linkpath": "", "size": ""}
        at = min(at + 512 + size + -size % 512, FAR)


def plain(field: bytes) -> str:
    """A name up to its first zero byte."""
    return field.split(b"\0")[0].decode(errors="surrogateescape")


def leaves(path: str) -> bool:
    """Whether a path leads out of the folder it stands in, or is an address."""
    return OUTSIDE.match(path) is not None or normpath(path.replace("\\", "/")).split("/")[0] == ".."


def safetensors(head: bytes, file: BinaryIO) -> Told | None:
    """A model, or a snapshot."""
    size = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or not 0 < size < 100_000_000 or head[9:10] not in b'"} \n':
        return None
    return "unreadable", "a safetensors file; a model is given as checkpoint=FILE"


def known(head: bytes, file: BinaryIO) -> Told | None:
    """Another kind of file that is known by how it begins."""
    for magic, what in KINDS.items():
        if re.match(magic, head, re.DOTALL):
            return "unreadable", f"{what}; expected a recording" if ";" not in what else what
    return None


def zeros(head: bytes, file: BinaryIO) -> Told | None:
    """Space that was reserved and never written."""
    written = head.strip(b"\0") or end_of(file).strip(b"\0")
    return None if written else ("unreadable", "nothing but zero bytes; the recording was never written")


def text(head: bytes, file: BinaryIO) -> Told | None:
    """A configuration, a table of recordings, or another text."""
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not wide and CONTROL.search(head):
        return None
    words = head.decode("utf-16" if wide else "utf-8-sig", errors="replace")
    if found := TARGET.search(words):
        return "target_not_allowed", f"a configuration that names code to run: {(found[1] or found[0])[:80]!r}"
    if looked_up := resolver(words):
        return "resolver_not_allowed", f"a configuration with a value to be looked up: {looked_up!r}"
    for paths in TABLES:
        listed = paths(words)
        for path in listed:
            if leaves(path):
                return "unsafe_path", f"a table of recordings that leads out of its folder: {path[:200]!r}"
        if listed:
            return "unreadable", "a table of recordings; give it as source.paths=TABLE"
    for start, what in TEXTS.items():
        if re.match(start, words.lstrip(), re.IGNORECASE):
            return "unreadable", f"{what}; expected a recording"
    return "unreadable", "a text; expected a recording"


def resolver(words: str) -> str:
    """The first value of a configuration that stands for another one: ``${...}``; empty if there is none."""
    for found in islice(re.finditer(r"\$\{[^\n}]{0,80}", words), VALUES):
        line = words[max(words.rfind("\n", 0, found.start()) + 1, found.start() - LONGEST) : found.start()]
        if VALUE.search(line):
            return found[0] + "}"
    return ""


def json_paths(words: str) -> list[str]:
    """The paths in lines of JSON, as far as there are any; a last line may be cut."""
    found = []
    for line in filter(str.strip, words.splitlines()):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict) or not isinstance(row.get("path"), str):
            return []
        found.append(row["path"])
    return found


def csv_paths(words: str) -> list[str]:
    """The column ``path`` of a table."""
    try:
        return [row["path"] or "" for row in csv.DictReader(StringIO(words))]
    except (KeyError, csv.Error):
        return []


TABLES: tuple[Callable[[str], list[str]], ...] = (json_paths, csv_paths)
