"""Which files: folders, globs, manifests and standard input, as entries in a stable order, each once.

A listing is text from end to end and is walked, not held: a million entries cost what their names cost. People who type
a path are trusted; a manifest is data, so its rows do not leave its folder.
"""

import fnmatch
import glob
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from typing import NamedTuple, TypeAlias

from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.media.series import ENDINGS
from pipeline.media.tables import is_manifest, is_table, read_table, to_label, to_part, to_text
from pipeline.media.walk import ENDINGS as MEDIA
from pipeline.media.walk import media_names, prefix_of, scan, walk

KEY = "source.paths"
COLUMNS = ("path", "start", "end", "label")  # of a manifest; others are only there to choose by
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:/|(file|https?|ftp|data|pipe):", re.IGNORECASE)
QUOTE = (
    "a name with , : = [ ] { } ( ) or $ in it, or that looks like a number, is quoted twice: 'source.paths=\"NAME\"'"
)
PIPE = "find FOLDER -name '*.wav' -print0 | python infer.py ... source=files source.paths=-"


class Entry(NamedTuple):
    """A file, or a part of one, that is to have an answer.

    Attributes:
        path: as text; bytes that are no UTF-8 are surrogate escapes (``os.fsdecode``).
        start, end: the part in seconds; None: until the file ends.
        truth: the label that a manifest gives, '' if none.
        refused: an error code that is the answer, without the file ever being opened; '' if there is none.
    """

    path: str
    start: float = 0.0
    end: float | None = None
    truth: str = ""
    refused: str = ""


Named: TypeAlias = tuple[str, Entry]  # with its name within the listing, the same wherever the folder stands
Only: TypeAlias = Mapping[str, Collection[str]]  # values by column, one of which a manifest's row must have


def entry_digest(name: str, entry: Entry) -> int:
    """128 bits that stand for an entry on every machine: of its name within the listing, and of its times."""
    part = f"\0{entry.start!r}\0{entry.end!r}" if entry.start or entry.end is not None else ""
    return int.from_bytes(blake2b((name + part).encode("utf-8", "surrogatepass"), digest_size=16).digest())


def listing(given: str, root: str | None = None, only: Only | None = None, series: bool = False) -> Iterator[Named]:
    """What one of ``source.paths`` means. ``root``: where the paths of manifests begin, which they may not leave (None:
    the manifest's folder). ``series``: for a model of them, so tables in folders are, and those without ``path``.

    ConfigError if it does not exist, cannot be read or holds nothing (but that ``only`` leaves no row is for the caller
    to tell, who knows of all manifests).
    """
    path = normalize(os.path.expanduser(given))
    if given == "-":
        found = read_stdin()
    elif glob.has_magic(path) and not os.path.lexists(path):
        found = expand_glob(path, root, only or {}, series)
    else:
        found = expand(path, path, root, only or {}, series)
    first = next(found, None)
    if first is not None:
        yield first
        yield from found
    elif not only or os.path.isdir(path):
        raise ConfigError(f"source.paths: {given!r} holds no {'series' if series else 'audio or video file'}")


def expand(path: str, name: str, root: str | None, only: Only, series: bool) -> Iterator[Named]:
    """A folder's files (named from there on), a manifest's rows (named as they name themselves), or the file."""
    if os.path.isdir(path):
        inside = prefix_of(path)
        return ((below, Entry(inside + below)) for below in media_names(path, KEY, ENDINGS if series else MEDIA))
    if not os.path.lexists(path):
        raise ConfigError(f"source.paths: {path!r} does not exist; {QUOTE}")
    listed = is_table(path) and not (series and not is_manifest(path, KEY))
    return manifest_entries(path, root, only) if listed else iter([(name, Entry(path))])


def normalize(path: str) -> str:
    """Without doubled slashes and single dots."""
    parts = "/".join(part for part in path.split("/") if part not in ("", "."))
    return f"/{parts}" if path.startswith("/") else parts or "."


# ---------------------------------------------------------------- globs
def expand_glob(pattern: str, root: str | None, only: Only, series: bool) -> Iterator[Named]:
    """Files, folders and manifests whose names match, with ``**`` for any folders between. ConfigError if none does."""
    parts = pattern.split("/")
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = prefix_of("/".join(parts[:fixed]) or ("/" if fixed else ""))
    found = sorted(set(matches(base, "", parts[fixed:])), key=os.fsencode)
    if not found:
        raise ConfigError(f"source.paths: {pattern!r} holds no audio or video file: there is no such name; {QUOTE}")
    for match in found:
        folder = f"{match}/" if match and os.path.isdir(base + match) else ""
        for name, entry in expand(base + match or ".", match, root, only, series):
            yield folder + name, entry


def matches(base: str, name: str, parts: Sequence[str]) -> Iterator[str]:
    """The names below ``base`` that continue ``name`` by ``parts`` of a pattern."""
    if not parts:
        yield name
        return
    first, *rest = parts
    folder, inside = base + name, prefix_of(name)
    if first == "**":
        if os.path.isdir(folder or "."):
            yield from matches(base, name, rest)
            for deeper in walk(folder, KEY) if rest else ():
                if deeper.endswith("/"):
                    yield from matches(base, inside + deeper[:-1], rest)
    elif glob.has_magic(first):
        fits = re.compile(fnmatch.translate(first)).match
        for item in scan(folder, KEY):
            if fits(item.name) and first.startswith(".") >= item.name.startswith("."):
                yield from matches(base, inside + item.name, rest)
    elif os.path.lexists(base + inside + first):
        yield from matches(base, inside + first, rest)


# ---------------------------------------------------------------- standard input
def read_stdin() -> Iterator[Named]:
    """The paths on standard input, one a line, or with NUL between them, so that names with line breaks work. They are
    taken as they are, whatever their bytes.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError(f"source.paths: - takes paths from standard input; pipe some in, such as {PIPE}")
    data: bytes = sys.stdin.buffer.read()
    between = b"\0" if b"\0" in data else b"\n"
    if between == b"\n" and data.count(b"\r\n") == data.count(b"\n"):
        data = data.replace(b"\r\n", b"\n")  # a list that was made on Windows
    if not data.strip(between):
        raise ConfigError(f"source.paths: there are no paths on standard input; pipe some in, such as {PIPE}")
    return ((path, Entry(path)) for path in map(os.fsdecode, filter(None, data.split(between))))


# ---------------------------------------------------------------- manifests
def manifest_entries(manifest: str, root: str | None, only: Only) -> Iterator[Named]:
    """The rows of a csv, jsonl or parquet file that have one of the values of ``only``. ConfigError if it cannot be
    read, if there are no rows, or one has no path or times that make no sense.
    """
    folder = ManifestRoot(os.path.dirname(manifest) if root is None else root)
    number, there = 0, dict[str, None]()
    for number, row in enumerate(read_table(manifest, KEY, ["path"], [*COLUMNS, *only]), 1):
        where = f"{KEY}: {manifest!r} row {number}"
        name = row.get("path")
        if not isinstance(name, (str, bytes)) or not name:
            raise ConfigError(f"{where}: got the path {name!r}; expected text")
        if only:
            there |= dict.fromkeys(row)
            if not all(to_label(row.get(column)) in wanted for column, wanted in only.items()):
                continue
        name = to_text(name)
        path, refused = folder.resolve(name)
        yield name, Entry(path, *to_part(row, where), sys.intern(to_label(row.get("label"))), refused)
    if not number:
        raise ConfigError(f"{KEY}: {manifest!r} has no rows, so it holds no audio or video file")
    for column in only:
        if column not in there:  # only now are all known
            raise ConfigError(f"source.only: {manifest!r} has no column {column!r}{nearest(column, list(there))}")


class ManifestRoot:
    """The folder that the paths of a manifest begin at and may not leave, be it by links."""

    def __init__(self, folder: str) -> None:
        self.folder, self.inside = folder, prefix_of(os.path.realpath(folder))
        self.real = cache(os.path.realpath)  # of folders

    def resolve(self, name: str) -> tuple[str, str]:
        """The path of a row, and the code of its refusal or ''."""
        if ADDRESS.match(name):
            return name, "unsafe_path"
        path = normalize(os.path.join(self.folder, name))
        if "\0" in path:
            return path, "not_found"  # no file can be named so
        folder, last = os.path.split(path)
        linked = last == ".." or os.path.islink(path)
        real = os.path.realpath(path) if linked else os.path.join(self.real(folder), last)
        return path, "" if f"{real}/".startswith(self.inside) else "unsafe_path"
