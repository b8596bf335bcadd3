"""Clips in tar shards on local disks, in the layout of WebDataset: for data of more files than a disk likes to hold.

    python -m datasets.shards SOURCE FOLDER     write a manifest, or a folder per class, as shards (--help)
    python -m datasets.shards --check FOLDER    compare shards with their checksums

The headers of a shard are read once and kept; after that a clip is its place in a file. So the clips can be drawn in
any order, as from loose files: epochs are shuffled over all shards, and devices and workers share them by the clip.
"""

import argparse
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field, PositiveFloat

from datasets.clips import CACHE_FOLDER, SPLITS, Clip, Corpus, existing_root
from datasets.labels import unify
from datasets.packing import pack
from datasets.shard_contents import fingerprint, list_shard
from datasets.shard_index import NAME, Index, SplitName, read_index
from datasets.splits import hold_out
from pipeline.core.build import build, nearest
from pipeline.core.errors import FAILED, ConfigError, MediaError
from pipeline.core.interrupt import INTERRUPTED
from pipeline.core.package import hash_of
from pipeline.core.program import fail, guard, print_warnings
from pipeline.core.progress import bar
from pipeline.core.text import clean
from pipeline.media.chunks import read_chunk
from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.media.part import Part
from pipeline.media.tables import to_label

MAX_SHARDS = 100_000  # that one pattern can name
SOME_LEFT_OUT = 3  # exit code
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
Share = Annotated[float, Field(gt=0, lt=1)]


class Shards(Corpus):
    """The clips of the shards in ``root``. Nothing is ever unpacked, loaded as code, or fetched from elsewhere."""

    checks_files = False  # there may be millions

    def __init__(
        self,
        root: str | None = None,
        shards: dict[SplitName, str | None] | None = None,
        val: Share = 0.15,
        seed: int = 0,
        crop: PositiveFloat | None = 10.0,
        cache: str | None = None,
        index: str | None = "default",
        background: str | None = None,
        **options: Any,
    ) -> None:
        """``shards``: by split, which files are its shards: a pattern such as ``train-*.tar`` or
        ``train-{000000..000009}.tar``, below ``root``; None: none. Without shards for ``val``, that share of train is
        held out.
        ``index``: where what the headers said is kept: a folder, ``default`` (the user's cache folder) or None.

        If there is an index.json, it says which shards and labels there are; others are a ConfigError.
        """
        folder = existing_root(root, "a folder of shards, as `python -m datasets.shards` writes them")
        listed = read_index(folder)
        kept = None if index is None else CACHE_FOLDER.parent / "shards" if index == "default" else Path(index)
        files = {split: expand(folder, split, (shards or {}).get(split)) for split in get_args(SplitName)}
        check_files(files, (shards or {}).get("train"), folder)
        clips: list[Clip] = [clip for split in SPLITS for clip in list_clips(files[split], split, kept)]
        if listed:
            check_index(folder, files, shards or {}, clips, listed)
        clips, background = unify(clips, "dataset.root"), background and to_label(background)
        if not files["val"]:
            clips = hold_out(clips, val, seed, background)
        super().__init__(clips, cache, crop, background, **options)


@dataclass(frozen=True, slots=True)
class ShardClip(Clip):
    """A clip in a shard, ``path``: ``size`` bytes at ``offset``; ``shard`` is the fingerprint of the whole archive."""

    key: str = ""
    offset: int = 0
    size: int = 0
    shard: str = ""

    @property
    def name(self) -> str:
        """The shard, and the member in it."""
        return f"{self.path}/{self.key}"

    def fingerprint(self) -> str:
        """Which bytes they are."""
        return f"{self.shard}|{self.offset}|{self.size}"

    def read(self, spec: InputSpec) -> Arrays:
        """Decoded where it is, by the rules for any file. MediaError if it cannot be read."""
        try:
            archive = open(self.path, "rb", 0)  # noqa: SIM115
        except OSError as error:
            raise MediaError("not_found", f"no shard: {error.strerror}") from None
        with archive:
            if fingerprint(self.path, os.fstat(archive.fileno())) != self.shard:
                raise MediaError("unreadable", "the shard was changed since training began")
            part = Part(self.name, archive.fileno(), self.offset, self.size)
            try:
                return read_chunk(part, spec, self.start, self.end)[0]
            finally:
                if part.error:  # decoders took it for the end
                    raise MediaError("unreadable", f"the shard cannot be read: {part.error.strerror}") from None


def expand(folder: Path, split: str, pattern: str | None) -> list[Path]:
    """The shards that a pattern names, in order. ConfigError for addresses, commands, and names that are not there."""
    if pattern is None:
        return []
    key = f"dataset.shards.{split}"
    if re.match(r"[a-z0-9]+:", pattern) or "|" in pattern:
        raise ConfigError(f"{key}: got {pattern!r}; expected files on a local disk, such as 'train-*.tar'")
    names, found = [pattern], []
    while ranges := RANGE.search(names[0]):
        first, last = int(ranges[1]), int(ranges[2])
        if not 0 <= last - first < MAX_SHARDS or len(names) * (last - first + 1) > MAX_SHARDS:
            raise ConfigError(f"{key}: {ranges[0]} in {pattern!r}; expected a range of at most {MAX_SHARDS} shards")
        width = len(ranges[1])
        names = [RANGE.sub(f"{n:0{width}}", name, count=1) for name in names for n in range(first, last + 1)]
    for name in names:
        if any(mark in name for mark in "*?["):
            base = Path(name).anchor or folder
            found += sorted(path for path in Path(base).glob(str(Path(name).relative_to(Path(name).anchor))))
        elif not (folder / name).is_file():
            raise ConfigError(f"{key}: {folder / name} is not there; copy it, or name others")
        else:
            found.append(folder / name)
    return [path.resolve() for path in dict.fromkeys(found) if path.is_file()]


def check_files(files: Mapping[str, Sequence[Path]], pattern: str | None, folder: Path) -> None:
    """ConfigError for no shards, and for one in two splits."""
    if not files["train"]:
        raise ConfigError(f"dataset.shards.train: no file is {pattern!r} in {str(folder)!r}")
    for path, count in Counter(path for split in SPLITS for path in files[split]).items():
        if count > 1:
            raise ConfigError(f"dataset.shards: {path} stands in two splits")


def check_index(
    folder: Path, files: Mapping[str, Sequence[Path]], patterns: Mapping[SplitName, str | None], clips: Sequence[Clip],
    listed: Index,
) -> None:  # fmt: skip
    """ConfigError for other shards or labels than an index lists; a warning for other numbers of bytes or clips."""
    expected = {(folder / shard.file).resolve(): shard for shard in listed.shards}
    for path, shard in expected.items():
        if fnmatch(shard.file, patterns.get(shard.split) or "") and path not in files[shard.split]:
            raise ConfigError(f"dataset.shards.{shard.split}: {path} is in {NAME}, but not there; copy it")
    counts = Counter(clip.path for clip in clips)
    for split, path in ((name, path) for name in SPLITS for path in files[name]):
        if path not in expected or expected[path].split != split:
            raise ConfigError(f"dataset.shards.{split}: {path} is not one of its shards in {NAME}; remove either")
        if (size := path.stat().st_size) != expected[path].bytes:
            warnings.warn(f"{path}: {size} bytes, {NAME} says {expected[path].bytes}; copy it again", stacklevel=2)
        if counts[path] != expected[path].clips:
            warnings.warn(f"{path}: {counts[path]} clips were found, {NAME} says {expected[path].clips}", stacklevel=2)
    known = set(listed.labels)
    for clip in clips:
        if clip.label not in known:
            hint = nearest(clip.label, listed.labels)
            raise ConfigError(f"dataset.root: label {clip.label!r} of {clip.name} is not in {NAME}{hint}")


def list_clips(files: Sequence[Path], split: str, cache: Path | None) -> list[ShardClip]:
    """The clips of a split's shards; what is passed over in a shard is a warning."""
    clips: list[ShardClip] = []
    with ThreadPoolExecutor(4) as pool:
        contents = pool.map(partial(list_shard, cache=cache), files)
        for path, (shard, rows, odd) in zip(files, bar(contents, f"listing {split}", len(files)), strict=True):
            if odd:
                what = ", ".join(f"{reason} ({count})" for reason, count in odd.items())
                warnings.warn(f"{path}: passed over: {what}", stacklevel=2)
            clips += (ShardClip(path, split=split, shard=shard, **row._asdict()) for row in rows)
    return clips


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets.shards",
        description="Write clips as tar shards in the layout of WebDataset, or check some. Interrupted? The same "
        "command goes on. Then: python train.py dataset=shards dataset.root=FOLDER",
    )
    parser.add_argument("source", nargs="?", help="a manifest (csv or jsonl), or a folder with one per class")
    parser.add_argument("folder", help="of the shards")
    parser.add_argument("--check", action="store_true", help="compare the shards in FOLDER with their checksums")
    parser.add_argument("--megabytes", type=float, default=256.0, help="a shard has at most (%(default)s)")
    parser.add_argument("--clips", type=int, default=10_000, help="a shard has at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order, and of splits that are drawn (%(default)s)")
    parser.add_argument("--group", help="column of the manifest whose values stand in one split each")
    parser.add_argument("--split", action="append", default=[], metavar="NAME=A,B", help="of the manifest's: val=fold3")
    parser.add_argument("--background", help="the label of nothing; of few recordings, it is in train alone")
    parser.add_argument("--val", type=float, default=0.15, help="share, where there is no such split (%(default)s)")
    parser.add_argument("--test", type=float, default=0.15, help="likewise (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace other shards, write damaged ones again")
    asked = parser.parse_args(arguments)
    print_warnings()
    try:
        return guard(partial(run, asked, parser.get_default))
    except KeyboardInterrupt:
        return fail("interrupted; the same command goes on", INTERRUPTED)


def run(asked: argparse.Namespace, default: Callable[[str], Any]) -> int:
    """What the arguments ask for; the exit code. ConfigError for some that cannot be meant."""
    if asked.check == bool(asked.source) or asked.megabytes <= 0 or asked.clips < 1 or asked.seed < 0:
        raise ConfigError("expected SOURCE and FOLDER, or --check FOLDER; sizes above 0, a seed from 0")
    for key, given in vars(asked).items():
        if asked.check and key not in ("check", "source", "folder") and given != default(key):
            raise ConfigError(f"--{key}: means nothing to --check, which takes FOLDER alone")
        if key in ("split", "group") and given and Path(asked.source).expanduser().is_dir():
            raise ConfigError(f"--{key}: is of a manifest's columns, and {asked.source} is a folder")
    return check_shards(Path(asked.folder)) if asked.check else write(asked)


def read_splits(given: Sequence[str]) -> dict[str, list[str]] | None:
    """``train=a,b`` as ``{train: [a, b]}``; None without any."""
    found: dict[str, list[str]] = {}
    for text in given:
        split, _, names = text.partition("=")
        if split not in SPLITS or split in found or not all(names.split(",")):
            raise ConfigError(f"--split: got {text}; expected {', '.join(SPLITS)}, once each, such as val=fold3,fold4")
        found[split] = names.split(",")
    return found or None


def write(asked: argparse.Namespace) -> int:
    """Write the shards; 3 if some files had to be left out."""
    source = Path(asked.source).expanduser()
    shares = {"val": asked.val, "test": asked.test, "seed": asked.seed, "background": asked.background}
    settings: dict[str, Any]
    if source.is_dir():
        root, settings = source, {"_target_": "datasets.folder.Folder"}
    else:
        root, settings = source.parent, {"_target_": "datasets.manifest.Manifest", "file": source.name}
        settings |= {"group": asked.group, "splits": read_splits(asked.split)}
    corpus = build(settings | shares | {"root": str(root)}, Corpus, at="dataset")
    out, limits = Path(asked.folder).expanduser(), (asked.megabytes, asked.clips)
    index, lost = pack(corpus.clips, root, out, *limits, asked.seed, asked.overwrite)
    for split, counts in index.counts.items():
        files = [shard for shard in index.shards if shard.split == split]
        size = sum(shard.bytes for shard in files) / 1e6
        print(f"{split}: clips {sum(counts.values())}, labels {len(counts)}, shards {len(files)}, {size:.1f} MB")
    return SOME_LEFT_OUT if lost else 0


def check_shards(folder: Path) -> int:
    """Whether all shards are what the index says; 1 if not."""
    index = read_index(existing_root(str(folder), f"a folder of shards with {NAME}"))
    if index is None:
        raise ConfigError(f"{folder} has no {NAME}; expected what `python -m datasets.shards` writes")
    wrong = 0
    for shard in bar(index.shards, "checking"):
        path = folder / shard.file
        if not path.is_file() or hash_of(path) != shard.sha256:
            print(f"{clean(str(path))}: {'is not what was written' if path.is_file() else 'is not there'}")
            wrong += 1
    print(f"{len(index.shards) - wrong} of {len(index.shards)} shards are whole")
    if wrong:
        print("copy the others again; or write them again: the command that wrote them, with --overwrite")
    return FAILED if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
