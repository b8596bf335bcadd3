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
from hashlib import blake2b
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.core.spreadsheet import unprotect
from pipeline.core.text import clean
from pipeline.media.audio import AUDIO, VIDEO

ENDINGS = tuple(AUDIO | VIDEO)
MANIFESTS = (".csv", ".jsonl", ".parquet")
COLUMNS = ("path", "start", "end", "label")  # of a manifest; others are only there to choose by
WHOLE = (0.0, None)  # the part that is all of a file
BATCH = 1 << 14  # rows of a parquet file in memory
UNUSUAL = re.compile(r"^/|\.\.|//|\./|/\.?$|:|\0")  # in a row's path: to be looked at closely
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:/|(file|https?|ftp|data|pipe):", re.IGNORECASE)
QUOTE = (
    "a name with , : = [ ] { } ( ) or $ in it, or that looks like a number, is quoted twice: 'source.paths=\"NAME\"'"
)
PIPE = "find FOLDER -name '*.wav' -print0 | python infer.py ... source=files source.paths=-"

Values: TypeAlias = Sequence[Any]  # of a row: path, start, end, label, and those of the columns to choose by


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


def mark(name: str, entry: Entry) -> int:
    """128 bits that stand for an entry on every machine: of its name within the listing, and of its times."""
    part = f"\0{entry.start!r}\0{entry.end!r}" if entry.start or entry.end is not None else ""
    return int.from_bytes(blake2b((name + part).encode("utf-8", "surrogatepass"), digest_size=16).digest())


def listing(given: str, root: str | None = None, only: Mapping[str, Collection[str]] | None = None) -> Iterator[Named]:
    """What one of ``source.paths`` means. ``root``: where the paths of manifests begin, which they may not leave (None:
    the manifest's folder); ``only``: values by column, one of which a manifest's row must have.

    ConfigError if it does not exist, cannot be read or holds nothing (but that ``only`` leaves no row is for the caller
    to tell, who knows of all manifests).
    """
    if given == "-":
        return piped()
    path = plain(os.path.expanduser(given))
    pattern = glob.has_magic(path) and not os.path.lexists(path)
    found = globbed(path, root, only or {}) if pattern else expand(path, path, root, only or {})
    return found if only and not os.path.isdir(path) else some(found, given)


def some(found: Iterator[Named], given: str) -> Iterator[Named]:
    """The same; ConfigError if there is nothing."""
    first = next(found, None)
    if first is None:
        raise ConfigError(f"source.paths: {given!r} holds no audio or video file")
    yield first
    yield from found


def is_manifest(path: str) -> bool:
    """Whether a file lists others, by its ending."""
    return path.lower().endswith(MANIFESTS)


def expand(path: str, name: str, root: str | None, only: Mapping[str, Collection[str]]) -> Iterator[Named]:
    """A folder's files (named from there on), a manifest's rows (named as they name themselves), or the file."""
    if os.path.isdir(path):
        inside = within(path)
        return ((below, Entry(inside + below)) for below in media_below(path))
    if not os.path.lexists(path):
        raise ConfigError(f"source.paths: {path!r} does not exist; {QUOTE}")
    return rows(path, root, only) if is_manifest(path) else iter([(name, Entry(path))])


def plain(path: str) -> str:
    """Without doubled slashes and single dots."""
    return str(Path(path))


def within(folder: str) -> str:
    """What the names in a folder are put behind."""
    return "" if folder in ("", ".") else os.path.join(folder, "")


# ---------------------------------------------------------------- folders and globs
def media_below(folder: str) -> Iterator[str]:
    """Names of audio and video below ``folder`` by their endings, hidden ones left out, sorted by their bytes."""
    for name in tree(folder):
        name = name.removesuffix("/")  # a folder can be named like a file, which is an error to be told
        if name.lower().endswith(ENDINGS):
            yield name


def tree(top: str) -> Iterator[str]:
    """All names below ``top`` but hidden ones, a folder (with a slash behind it) before what is in it.

    Links to folders are followed, but not to one that holds the link, and to each one only once: a tree ends whatever
    its links are. ConfigError if ``top`` cannot be read; what else cannot is told on standard error.
    """
    stack, inside = [""], within(top)
    entered: set[str] = set()
    passed: list[str] = []
    while stack:
        here = stack.pop()
        if here:
            yield here
            if not here.endswith("/"):
                continue
        names, links = scan(inside + here, top)
        holders = above(inside, here) if links else []
        for link in links:
            target = os.path.realpath(inside + here + link)
            if target in entered or any(holder.startswith(os.path.join(target, "")) for holder in holders):
                passed.append(inside + here + link)
            else:
                entered.add(target)
                names.append(f"{link}/")
        names.sort(key=lambda name: os.fsencode(name.removesuffix("/")), reverse=True)
        stack += [here + name for name in names]
    if passed:
        warn(f"links to folders that are listed already are not followed: {len(passed)}, such as {passed[0]!r}")


def above(inside: str, here: str) -> list[str]:
    """The folder ``here`` and those on the way to it, as they are without links."""
    cuts = [cut for cut, char in enumerate(here, 1) if char == "/"]
    return [os.path.join(os.path.realpath(inside + here[:cut] or "."), "") for cut in (0, *cuts)]


def scan(folder: str, top: str) -> tuple[list[str], list[str]]:
    """The names in a folder, those of folders with a slash behind, and apart from them the links to folders."""
    names, links = list[str](), list[str]()
    try:
        with os.scandir(folder or ".") as found:
            for item in found:
                if item.name.startswith("."):
                    continue
                if item.is_dir(follow_symlinks=False):
                    names.append(f"{item.name}/")
                elif item.is_symlink() and os.path.isdir(item.path):
                    links.append(item.name)
                else:
                    names.append(item.name)
    except OSError as error:
        if folder == within(top):
            raise ConfigError(f"source.paths: {top!r} cannot be read: {error.strerror}") from None
        warn(f"{folder!r} cannot be read, and what is in it is left out: {error.strerror}")
    return names, links


def warn(text: str) -> None:
    """Something that a listing is not to pass over in silence."""
    print(f"warning: source.paths: {clean(text)}", file=sys.stderr)


def globbed(pattern: str, root: str | None, only: Mapping[str, Collection[str]]) -> Iterator[Named]:
    """Files, folders and manifests whose names match, with ``**`` for any folders between. ConfigError if none does."""
    parts = pattern.split("/")
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = within("/".join(parts[:fixed]) or ("/" if fixed else ""))
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
    folder, inside = base + name, within(name)
    if first == "**":
        if os.path.isdir(folder or "."):
            yield from matches(base, name, rest)
            for deeper in tree(folder) if rest else ():
                if deeper.endswith("/"):
                    yield from matches(base, inside + deeper[:-1], rest)
    elif glob.has_magic(first):
        fits = re.compile(fnmatch.translate(first)).match
        for item in names_in(folder):
            if fits(item) and first.startswith(".") >= item.startswith("."):
                yield from matches(base, inside + item, rest)
    elif os.path.lexists(base + inside + first):
        yield from matches(base, inside + first, rest)


def names_in(folder: str) -> list[str]:
    """The names in a folder; none if it is no folder."""
    try:
        return os.listdir(folder or ".")
    except (NotADirectoryError, FileNotFoundError):
        return []
    except OSError as error:
        warn(f"{folder!r} cannot be read, and what is in it is left out: {error.strerror}")
        return []


# ---------------------------------------------------------------- standard input
def piped() -> Iterator[Named]:
    """The paths on standard input, one a line, or with NUL between them, so that names with line breaks work. They are
    taken as they are, whatever their bytes.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError(f"source.paths: - takes paths from standard input; pipe some in, such as {PIPE}")
    data: bytes = sys.stdin.buffer.read()
    if b"\0" not in data and data.count(b"\r\n") == data.count(b"\n"):
        data = data.replace(b"\r\n", b"\n")  # a list that was made on Windows
    nothing = True
    for found in re.finditer(rb"[^\0]+" if b"\0" in data else rb"[^\n]+", data):
        nothing, path = False, os.fsdecode(found[0])
        yield path, Entry(path)
    if nothing:
        raise ConfigError(f"source.paths: there are no paths on standard input; pipe some in, such as {PIPE}")


# ---------------------------------------------------------------- manifests
def rows(manifest: str, root: str | None, only: Mapping[str, Collection[str]]) -> Iterator[Named]:
    """The rows of a csv, jsonl or parquet file that have one of the values of ``only``. ConfigError if it cannot be
    read, if there are no rows, or one has no path or times that make no sense.
    """
    fence = Fence(os.path.dirname(manifest) if root is None else root)
    number = 0
    for number, row in table(manifest, [*COLUMNS, *only]):
        name, start, end, label = row[:4]
        where = (manifest, number)
        if not isinstance(name, (str, bytes)) or not name:
            raise ConfigError(f"source.paths: {manifest!r} row {number}: got the path {name!r}; expected text")
        if only and not all(text(value) in wanted for value, wanted in zip(row[4:], only.values(), strict=True)):
            continue
        name = text(name)
        path, refused = fence.place(name)
        part = WHOLE if not start and (end is None or end == "") else times(start, end, where)
        yield name, Entry(path, *part, sys.intern(text(label)), refused)
    if not number:
        raise ConfigError(f"source.paths: {manifest!r} has no rows, so it holds no audio or video file")


def text(value: Any) -> str:
    """A value as a csv file would have it; half a surrogate pair, which JSON can write, as bytes that are no UTF-8."""
    if not isinstance(value, str):
        if isinstance(value, bytes):
            return value.decode("utf-8", "surrogateescape")
        value = "" if value is None else int(value) if isinstance(value, float) and value.is_integer() else value
        return str(value)
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    return value


def times(start: Any, end: Any, where: tuple[str, int]) -> tuple[float, float | None]:
    """A part of a file in seconds. ``where`` it stands: a manifest's name and a row's number."""
    try:
        first = 0.0 if start in (None, "") else float(start)
        last = None if end in (None, "") else float(end)
    except (TypeError, ValueError):
        first, last = math.nan, None
    if not math.isfinite(first + (last or 0)) or first < 0 or (last is not None and last <= first):
        raise ConfigError(
            f"source.paths: {where[0]!r} row {where[1]}: got start {start!r} and end {end!r}; expected seconds, "
            "the end after the start"
        )
    return first, last


class Fence:
    """The folder that the paths of a manifest begin at and may not leave, be it by links."""

    def __init__(self, folder: str) -> None:
        self.folder, self.prefix = folder, within(folder)
        self.real = os.path.realpath(folder or ".")
        self.inside = os.path.join(self.real, "")
        self.links: dict[str, frozenset[str] | None] = {}

    def place(self, name: str) -> tuple[str, str]:
        """The path of a row, and the code of its refusal or ''."""
        if UNUSUAL.search(name):
            if ADDRESS.match(name):
                return name, "unsafe_path"
            path = plain(os.path.join(self.folder, name))
            if "\0" in path:
                return path, "not_found"  # no file can be named so
            return path, "" if self.holds(path) else "unsafe_path"
        path = self.prefix + name
        folder, _, last = name.rpartition("/")
        links = self.links[folder] if folder in self.links else self.looked(folder)
        return path, "" if (links is not None and last not in links) or self.holds(path) else "unsafe_path"

    def holds(self, path: str) -> bool:
        """Whether a path stays inside once all its links are followed."""
        return self.inside == "/" or (os.path.realpath(path) + "/").startswith(self.inside)

    def looked(self, folder: str) -> frozenset[str] | None:
        """The links in a folder, so that not every file needs a look; None: each file there does."""
        path, self.links[folder] = self.prefix + folder, None
        if self.inside == "/":
            self.links[folder] = frozenset()
        elif self.holds(path):
            try:
                with os.scandir(path or ".") as found:
                    self.links[folder] = frozenset(item.name for item in found if item.is_symlink())
            except (FileNotFoundError, NotADirectoryError):
                self.links[folder] = frozenset()
            except OSError:  # not to be listed, which does not say that its files cannot be read
                pass
        return self.links[folder]


def table(manifest: str, columns: Sequence[str]) -> Iterator[tuple[int, Values]]:
    """The rows of a manifest, numbered from 1: their values in ``columns``, None where there is none."""
    read = {".csv": of_csv, ".jsonl": of_jsonl, ".parquet": of_parquet}[os.path.splitext(manifest)[1].lower()]
    number = 0
    try:
        for number, row in enumerate(read(manifest, columns), 1):
            yield number, row
    except OSError as error:
        raise ConfigError(f"source.paths: {manifest!r}: {error.strerror or error}") from None
    except ConfigError:
        raise
    except (ValueError, TypeError, LookupError, RuntimeError, csv.Error) as error:
        raise ConfigError(f"source.paths: {manifest!r} cannot be read after row {number}: {error}") from None


def demand(manifest: str, columns: Sequence[str], there: Collection[str]) -> None:
    """ConfigError if a manifest lacks a column that it must have."""
    if "path" not in there:
        raise ConfigError(f"source.paths: {manifest!r} has no column 'path'; it has {', '.join(map(repr, there))}")
    for column in columns[len(COLUMNS) :]:
        if column not in there:
            raise ConfigError(f"source.only: {manifest!r} has no column {column!r}{nearest(column, list(there))}")


def of_csv(manifest: str, columns: Sequence[str]) -> Iterator[Values]:
    """A table with a head; blank lines are none of its rows. Cells that sink=csv has protected are as they were."""
    with open(manifest, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = csv.reader(file, strict=True)
        head = next(lines, ["path"])
        demand(manifest, columns, head)
        width = len(head)
        chosen = itemgetter(*(head.index(column) if column in head else width for column in columns))
        for row in lines:
            if row:
                cells = row[:width]
                values = chosen(cells + [None] * (width + 1 - len(cells)))
                yield [value and unprotect(value) for value in values]


def of_jsonl(manifest: str, columns: Sequence[str]) -> Iterator[Values]:
    """An object a line; blank lines are none of its rows."""
    there: dict[str, None] = {}
    with open(manifest, newline="\n", encoding="utf-8-sig", errors="surrogateescape") as file:
        for line in file:
            if line.isspace():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f'got {line.strip()[:40]!r}; expected an object, such as {{"path": ...}}')
            if len(columns) > len(COLUMNS):
                there |= dict.fromkeys(row)
            yield [row.get(column) for column in columns]
    if there:  # only now are all known
        demand(manifest, columns, there)


def of_parquet(manifest: str, columns: Sequence[str]) -> Iterator[Values]:
    """A parquet file, a few rows at a time. ConfigError without pyarrow."""
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(f"source.paths: to read {manifest!r}: pip install pyarrow (or give a csv or jsonl)") from None
    with open(manifest, "rb") as file:
        source = parquet.ParquetFile(file)
        there = source.schema_arrow.names
        demand(manifest, columns, there)
        for batch in source.iter_batches(BATCH, columns=[column for column in columns if column in there]):
            held = {name: column.to_pylist() for name, column in zip(batch.schema.names, batch.columns, strict=True)}
            yield from zip(*(held.get(column, [None] * len(batch)) for column in columns), strict=True)
