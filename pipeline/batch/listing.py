"""Which files: folders, globs, manifests and standard input, as entries in a stable order, each once.

A listing is text from end to end and is walked, not held: a million entries cost what their names cost. People who type
a path are trusted; a manifest is data, so its rows do not leave its folder.
"""

import csv
import fnmatch
import glob
import importlib
import json
import math
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any, NamedTuple, TypeAlias

from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.core.spreadsheet import unprotect
from pipeline.core.text import clean
from pipeline.media.formats import AUDIO, VIDEO

ENDINGS = tuple(AUDIO | VIDEO)
MANIFESTS = (".csv", ".jsonl", ".parquet")
COLUMNS = ("path", "start", "end", "label")  # of a manifest; others are only there to choose by
BATCH_ROWS = 1 << 14  # rows of a parquet file in memory
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


def mark(name: str, entry: Entry) -> int:
    """128 bits that stand for an entry on every machine: of its name within the listing, and of its times."""
    part = f"\0{entry.start!r}\0{entry.end!r}" if entry.start or entry.end is not None else ""
    return int.from_bytes(blake2b((name + part).encode("utf-8", "surrogatepass"), digest_size=16).digest())


def listing(given: str, root: str | None = None, only: Only | None = None) -> Iterator[Named]:
    """What one of ``source.paths`` means. ``root``: where the paths of manifests begin, which they may not leave (None:
    the manifest's folder).

    ConfigError if it does not exist, cannot be read or holds nothing (but that ``only`` leaves no row is for the caller
    to tell, who knows of all manifests).
    """
    path = normalize(os.path.expanduser(given))
    if given == "-":
        found = read_stdin()
    elif glob.has_magic(path) and not os.path.lexists(path):
        found = expand_glob(path, root, only or {})
    else:
        found = expand(path, path, root, only or {})
    first = next(found, None)
    if first is not None:
        yield first
        yield from found
    elif not only or os.path.isdir(path):
        raise ConfigError(f"source.paths: {given!r} holds no audio or video file")


def is_manifest(path: str) -> bool:
    """Whether a file lists others, by its ending."""
    return path.lower().endswith(MANIFESTS)


def expand(path: str, name: str, root: str | None, only: Only) -> Iterator[Named]:
    """A folder's files (named from there on), a manifest's rows (named as they name themselves), or the file."""
    if os.path.isdir(path):
        inside = prefix_of(path)
        names = (below.removesuffix("/") for below in walk(path))  # a folder can be named like a file: an error to tell
        return ((below, Entry(inside + below)) for below in names if below.lower().endswith(ENDINGS))
    if not os.path.lexists(path):
        raise ConfigError(f"source.paths: {path!r} does not exist; {QUOTE}")
    return manifest_entries(path, root, only) if is_manifest(path) else iter([(name, Entry(path))])


def normalize(path: str) -> str:
    """Without doubled slashes and single dots."""
    parts = "/".join(part for part in path.split("/") if part not in ("", "."))
    return f"/{parts}" if path.startswith("/") else parts or "."


def prefix_of(folder: str) -> str:
    """What the names in a folder are put behind."""
    return "" if folder in ("", ".") else os.path.join(folder, "")


def warn(text: str) -> None:
    """Something that a listing is not to pass over in silence."""
    print(f"warning: source.paths: {clean(text)}", file=sys.stderr)


# ---------------------------------------------------------------- folders and globs
def walk(top: str) -> Iterator[str]:
    """All names below ``top`` but hidden ones, sorted by their bytes, a folder (with a slash behind it) before what is
    in it.

    Links to folders are followed, but not to one that holds the link, and to each one only once: a tree ends whatever
    its links are. ConfigError if ``top`` cannot be read; what else cannot is told on standard error.
    """
    try:
        os.scandir(top or ".").close()
    except OSError as error:
        raise ConfigError(f"source.paths: {top!r} cannot be read: {error.strerror}") from None
    stack, inside = [""], prefix_of(top)
    ways: dict[str, tuple[str, ...]] = {"": (prefix_of(os.path.realpath(top)),)}  # to folders, without links
    entered, passed = set[str](), list[str]()
    while stack:
        here = stack.pop()
        if here:
            yield here
        if here not in ways:
            continue
        way, names = ways.pop(here), list[str]()
        for item in scan(inside + here):
            if item.name.startswith("."):
                continue
            place = inside + here + item.name
            if item.is_dir(follow_symlinks=False):
                target = f"{way[-1]}{item.name}/"
            elif item.is_symlink() and os.path.isdir(place):
                target = prefix_of(os.path.realpath(place))
                if target in entered or any(holder.startswith(target) for holder in way):
                    passed.append(place)
                    continue
                entered.add(target)
            else:
                names.append(item.name)
                continue
            names.append(f"{item.name}/")
            ways[f"{here}{item.name}/"] = (*way, target)
        names.sort(key=lambda name: os.fsencode(name.removesuffix("/")), reverse=True)
        stack += [here + name for name in names]
    if passed:
        warn(f"links to folders that are listed already are not followed: {len(passed)}, such as {passed[0]!r}")


def scan(folder: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder; nothing, if it is none. That it cannot be read is told."""
    try:
        with os.scandir(folder or ".") as found:
            yield from found
    except (NotADirectoryError, FileNotFoundError):
        pass
    except OSError as error:
        warn(f"{folder!r} cannot be read, and what is in it is left out: {error.strerror}")


def expand_glob(pattern: str, root: str | None, only: Only) -> Iterator[Named]:
    """Files, folders and manifests whose names match, with ``**`` for any folders between. ConfigError if none does."""
    parts = pattern.split("/")
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = prefix_of("/".join(parts[:fixed]) or ("/" if fixed else ""))
    found = sorted(set(matches(base, "", parts[fixed:])), key=os.fsencode)
    if not found:
        raise ConfigError(f"source.paths: {pattern!r} holds no audio or video file: there is no such name; {QUOTE}")
    for match in found:
        folder = f"{match}/" if match and os.path.isdir(base + match) else ""
        for name, entry in expand(base + match or ".", match, root, only):
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
            for deeper in walk(folder) if rest else ():
                if deeper.endswith("/"):
                    yield from matches(base, inside + deeper[:-1], rest)
    elif glob.has_magic(first):
        fits = re.compile(fnmatch.translate(first)).match
        for item in scan(folder):
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
    number = 0
    for number, row in read_table(manifest, only):
        name, start, end, label = map(row.get, COLUMNS)
        if not isinstance(name, (str, bytes)) or not name:
            raise ConfigError(f"source.paths: {manifest!r} row {number}: got the path {name!r}; expected text")
        if only and not all(to_text(row.get(column)) in wanted for column, wanted in only.items()):
            continue
        name = to_text(name)
        path, refused = folder.resolve(name)
        yield name, Entry(path, *parse_times(start, end, manifest, number), sys.intern(to_text(label)), refused)
    if not number:
        raise ConfigError(f"source.paths: {manifest!r} has no rows, so it holds no audio or video file")


def to_text(value: Any) -> str:
    """A value as a csv file would have it; half a surrogate pair, which JSON can write, as bytes that are no UTF-8."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        return "" if value is None else str(int(value) if isinstance(value, float) and value.is_integer() else value)
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    return value


def parse_times(start: Any, end: Any, manifest: str, number: int) -> tuple[float, float | None]:
    """A part of a file in seconds. ConfigError, which names the row, if it makes no sense."""
    try:
        first = float(start) if start else 0.0
        last = None if end in (None, "") else float(end)
    except (TypeError, ValueError):
        first, last = math.nan, None
    if not math.isfinite(first + (last or 0)) or first < 0 or (last is not None and last <= first):
        raise ConfigError(
            f"source.paths: {manifest!r} row {number}: got start {start!r} and end {end!r}; expected seconds, the end "
            "after the start"
        )
    return first, last


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


def read_table(manifest: str, only: Only) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a manifest, numbered from 1."""
    read = {".csv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}[os.path.splitext(manifest)[1].lower()]
    number = 0
    try:
        for number, row in enumerate(read(manifest, only), 1):
            yield number, row
    except OSError as error:
        raise ConfigError(f"source.paths: {manifest!r}: {error.strerror or error}") from None
    except ConfigError:
        raise
    except (ValueError, TypeError, LookupError, RuntimeError, csv.Error) as error:
        raise ConfigError(f"source.paths: {manifest!r} cannot be read after row {number}: {error}") from None


def check_columns(manifest: str, only: Only, there: Collection[str]) -> None:
    """ConfigError if a manifest lacks a column that it must have."""
    if "path" not in there:
        raise ConfigError(f"source.paths: {manifest!r} has no column 'path'; it has {', '.join(map(repr, there))}")
    for column in only:
        if column not in there:
            raise ConfigError(f"source.only: {manifest!r} has no column {column!r}{nearest(column, list(there))}")


def read_csv(manifest: str, only: Only) -> Iterator[Mapping[str, Any]]:
    """A table with a head; blank lines are none of its rows. Cells that sink=csv has protected are as they were."""
    with open(manifest, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        rows = csv.reader(file, strict=True)
        head = next(rows, ["path"])
        check_columns(manifest, only, head)
        columns = {name: head.index(name) for name in head}  # the first, where two have one name
        yield from ({name: unprotect(row[n]) for name, n in columns.items() if n < len(row)} for row in rows if row)


def read_jsonl(manifest: str, only: Only) -> Iterator[Mapping[str, Any]]:
    """An object a line; blank lines are none of its rows."""
    there: dict[str, None] = {}
    with open(manifest, newline="\n", encoding="utf-8-sig", errors="surrogateescape") as file:
        for line in file:
            if line.isspace():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f'got {line.strip()[:40]!r}; expected an object, such as {{"path": ...}}')
            if only:
                there |= dict.fromkeys(row)
            yield row
    if there:  # only now are all known
        check_columns(manifest, only, there)


def read_parquet(manifest: str, only: Only) -> Iterator[Mapping[str, Any]]:
    """A parquet file, a few rows at a time. ConfigError without pyarrow."""
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(f"source.paths: to read {manifest!r}: pip install pyarrow (or give a csv or jsonl)") from None
    with open(manifest, "rb") as file:
        source = parquet.ParquetFile(file)
        there = source.schema_arrow.names
        check_columns(manifest, only, there)
        wanted = [column for column in dict.fromkeys([*COLUMNS, *only]) if column in there]
        for batch in source.iter_batches(BATCH_ROWS, columns=wanted):
            yield from batch.to_pylist()
