"""What is in a folder: one walk for all that reads folders, so that all list the same files in the same order."""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.core.errors import ConfigError
from pipeline.core.text import clean
from pipeline.media.formats import AUDIO, VIDEO

ENDINGS = tuple(AUDIO | VIDEO)
MAX_KINDS = 8  # of other files, that are named


def tell(key: str, text: str) -> None:
    """Say on standard error what is not to be passed over in silence."""
    print(f"warning: {key}: {clean(text)}", file=sys.stderr)


def prefix_of(folder: str) -> str:
    """What the names in a folder are put behind."""
    return "" if folder in ("", ".") else os.path.join(folder, "")


def walk(top: str, key: str) -> Iterator[str]:
    """All names below ``top`` but hidden ones, sorted by their bytes, a folder (with a slash behind it) before what is
    in it.

    Links to folders are followed, but not to one that holds the link, and to each one only once: a tree ends whatever
    its links are. ConfigError, which names the ``key``, if ``top`` cannot be read; what else cannot is told.
    """
    try:
        os.scandir(top or ".").close()
    except OSError as error:
        raise ConfigError(f"{key}: {top!r} cannot be read: {error.strerror}") from None
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
        for item in scan(inside + here, key):
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
        tell(key, f"links to folders that are listed already are not followed: {len(passed)}, such as {passed[0]!r}")


def scan(folder: str, key: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder; nothing, if it is none. That it cannot be read is told."""
    try:
        with os.scandir(folder or ".") as found:
            yield from found
    except (NotADirectoryError, FileNotFoundError):
        pass
    except OSError as error:
        tell(key, f"{folder!r} cannot be read, and what is in it is left out: {error.strerror}")


def media_names(top: str, key: str, endings: tuple[str, ...] = ENDINGS) -> Iterator[str]:
    """The names of the recordings below a folder, by their endings; how many other files there are, and of which kinds,
    is told. (A folder can be named like a file: an error to be told by whoever opens it.)
    """
    others = Counter[str]()
    for name in walk(top, key):
        if name.removesuffix("/").lower().endswith(endings):
            yield name.removesuffix("/")
        elif not name.endswith("/"):
            others[os.path.splitext(name)[1].lower() or "without an ending"] += 1
    if others:
        kinds = ", ".join(f"{kind} {count}" for kind, count in others.most_common(MAX_KINDS))
        more = ", ..." if len(others) > MAX_KINDS else ""
        noun = "file of another kind is" if others.total() == 1 else "files of other kinds are"
        tell(key, f"{others.total()} {noun} passed over in {top!r}: {kinds}{more}")


def media_files(folder: Path, key: str) -> list[Path]:
    """``media_names`` as paths."""
    return [folder / name for name in media_names(str(folder), key)]


def list_files(given: str | Sequence[str], key: str) -> list[Path]:
    """Files as they are named, and all media files of folders, each once; ConfigError, which names the ``key``, if one
    is not there.
    """
    files: list[Path] = []
    for name in [given] if isinstance(given, str) else given:
        path = Path(name).expanduser()
        if not path.exists():
            raise ConfigError(f"{key}: there is no {name!r}; expected a folder with recordings, or a list of files")
        files += media_files(path, key) if path.is_dir() else [path]
    return list(dict.fromkeys(files))
