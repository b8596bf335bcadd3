"""Clips into tar shards, in the layout of WebDataset: ``00000017.flac`` with ``00000017.json`` beside it.

A recording is copied byte for byte, once, however many clips are parts of it; its json tells label, start, end and
group of each. What would not be read back is refused before anything is written. The order is drawn from a seed; the
same clips and settings give the same bytes. Shards take their place when they are whole, so an interrupted run goes on
behind the last of them.
"""

import hashlib
import io
import json
import os
import re
import tarfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

import numpy as np

from datasets.clips import SPLITS, Clip
from datasets.shard_contents import MAX_MEMBER_BYTES, parse_card
from datasets.shard_index import NAME, Index, Shard, SplitName, read_index
from pipeline.core.atomic import atomic_write
from pipeline.core.errors import ConfigError, MediaError
from pipeline.core.journal import lock
from pipeline.core.package import hash_of
from pipeline.core.progress import bar
from pipeline.media.container import open_file
from pipeline.media.formats import AUDIO, VIDEO

PLAN = ".index.part"  # of which plan the shards are, until there is an index
OURS = re.compile(r"(train|val|test)-\d{6}\.tar")


@dataclass(frozen=True)
class PackedFile:
    """A file with the clips that are parts of it, and the ``card`` beside it; ``name`` tells where it came from."""

    path: Path
    size: int
    modified: int
    name: str
    clips: tuple[Clip, ...]
    card: bytes


@dataclass(frozen=True)
class Planned:
    """A shard to be written; ``first`` is the number of its first recording."""

    split: SplitName
    file: str
    first: int
    recordings: tuple[PackedFile, ...]


def member_bytes(recording: PackedFile) -> int:
    """Bytes that a recording and its card take in a shard."""
    return sum(tarfile.BLOCKSIZE + n + -n % tarfile.BLOCKSIZE for n in (recording.size, len(recording.card)))


def list_recordings(clips: Sequence[Clip], root: Path) -> tuple[list[PackedFile], int]:
    """Clips by file and split, in the order of their names; and how many files were left out, each with a warning.

    ConfigError for what those who read shards would pass over.
    """
    by_file: dict[tuple[str, Path], list[Clip]] = defaultdict(list)
    for clip in clips:
        by_file[clip.split, clip.path].append(clip)
    found, lost = [], set()
    for (_, path), parts in sorted(by_file.items()):
        try:
            open_file(str(path)).close()
            status = os.stat(path)
            if (size := status.st_size) > MAX_MEMBER_BYTES:
                raise MediaError("limit_size", f"{size >> 20} MB; at most {MAX_MEMBER_BYTES >> 20} are allowed")
        except MediaError as error:
            if path not in lost:
                warnings.warn(f"left out {path}: {str(error).replace(f'{path}: ', '')}", stacklevel=2)
            lost.add(path)
            continue
        name = path.relative_to(root).as_posix().encode("utf-8", "replace").decode()
        parts.sort(key=lambda clip: (clip.start, clip.end or 0.0, clip.label))
        found.append(PackedFile(path, size, status.st_mtime_ns, name, tuple(parts), make_card(parts, name)))
    return found, len(lost)


def make_card(clips: Sequence[Clip], name: str) -> bytes:
    """The json beside a recording. ConfigError for one that would not be read back."""
    rows = [{"label": clip.label, "start": clip.start, "end": clip.end, "group": clip.group} for clip in clips]
    rows = [{key: value for key, value in row.items() if value not in ("", None, 0.0)} for row in rows]
    card = json.dumps(rows[0] | {"name": name} if len(rows) == 1 else {"clips": rows, "name": name}).encode()
    try:
        parse_card(card, "json", tarfile.TarInfo())
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    return card


def plan_shards(found: Sequence[PackedFile], megabytes: float, most: int, seed: int) -> list[Planned]:
    """Shards of at most so many MB and clips (but never less than one recording), in an order drawn from ``seed``."""
    shards = []
    for number, split in enumerate(SPLITS):
        mine = [recording for recording in found if recording.clips[0].split == split]
        order = [mine[index] for index in np.random.default_rng([seed, number]).permutation(len(mine))]
        first = 0
        for count, part in enumerate(cut_to_size(order, megabytes * 1e6, most)):
            shards.append(Planned(cast(SplitName, split), f"{split}-{count:06}.tar", first, part))
            first += len(part)
    return shards


def cut_to_size(order: Sequence[PackedFile], most_bytes: float, most_clips: int) -> Iterator[tuple[PackedFile, ...]]:
    """``order`` in parts of at most so many bytes and clips, but of one recording at least."""
    part: list[PackedFile] = []
    taken, clips = 0, 0
    for recording in order:
        size = taken + member_bytes(recording) + 2 * tarfile.BLOCKSIZE  # with the archive's end
        if part and (size + -size % tarfile.RECORDSIZE > most_bytes or clips + len(recording.clips) > most_clips):
            yield tuple(part)
            part, taken, clips = [], 0, 0
        part.append(recording)
        taken, clips = taken + member_bytes(recording), clips + len(recording.clips)
    if part:
        yield tuple(part)


def plan_digest(shards: Sequence[Planned]) -> str:
    """Tells one plan from another: of other clips, files or settings."""
    parts = hashlib.sha256()
    for shard in shards:
        rows = [[r.name, r.size, r.modified, r.card.decode()] for r in shard.recordings]
        parts.update(json.dumps([shard.file, shard.first, rows]).encode())
    return parts.hexdigest()


def pack(
    clips: Sequence[Clip], root: Path, out: Path, megabytes: float, most: int, seed: int, overwrite: bool
) -> tuple[Index, int]:
    """Write the shards that are not there yet, and their index; and how many files were left out.

    With ``overwrite``, shards of another plan are replaced, and damaged ones of this plan are written again.

    ConfigError if ``out`` holds shards of another plan and may not be overwritten, or if something could not be read
    back; OSError if there is no room.
    """
    found, lost = list_recordings(clips, root)
    shards = plan_shards(found, megabytes, most, seed)
    plan = plan_digest(shards)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / PLAN, "a+", encoding="utf-8") as begun:
        lock(begun.fileno())
        whole, rows = find_whole(out, begun, plan, overwrite), []
        for shard in bar(shards, f"writing to {out.name}"):
            if shard.file not in whole:
                write(out / shard.file, shard)
            rows.append(whole.get(shard.file) or describe(out / shard.file, shard))
        packed = [clip for recording in found for clip in recording.clips]
        counts = {
            split: dict(sorted(Counter(clip.label for clip in packed if clip.split == split).items()))
            for split in dict.fromkeys(shard.split for shard in shards)
        }
        labels = sorted({clip.label for clip in packed})
        index = Index(version=1, plan=plan, labels=labels, counts=counts, shards=rows)
        with atomic_write(out / NAME) as file:
            file.write(json.dumps(index.model_dump(), indent=1).encode() + b"\n")
        (out / PLAN).unlink()
    return index, lost


def find_whole(out: Path, begun: TextIO, plan: str, overwrite: bool) -> dict[str, Shard | None]:
    """The shards of this plan that are whole already, as far as an index describes them; what an earlier run left
    half-written is removed.
    """
    for path in out.glob("*.tar.part"):
        if OURS.fullmatch(path.name.removesuffix(".part")):
            path.unlink()
    begun.seek(0)
    before, known = begun.read(), dict[str, Shard]()
    with suppress(ConfigError):  # an index that cannot be read is of another plan
        if index := read_index(out):
            before, known = index.plan, {shard.file: shard for shard in index.shards}
    there = [path for path in out.iterdir() if OURS.fullmatch(path.name) or path.name == NAME]
    if before == plan:
        return {path.name: known.get(path.name) for path in there if is_whole(path, known.get(path.name), overwrite)}
    if (there or before) and not overwrite:
        if not os.fstat(begun.fileno()).st_size:
            (out / PLAN).unlink()
        raise ConfigError(f"{out} holds shards of other clips or settings; choose an empty folder, or --overwrite")
    for path in there:
        path.unlink()
    begun.truncate(0)
    begun.write(plan)
    begun.flush()
    return {}


def is_whole(path: Path, known: Shard | None, thorough: bool) -> bool:
    """Whether a shard that has taken its place is as an index says, by its size or its checksum. Without an index there
    is nothing that could say otherwise.
    """
    if known is None:
        return not thorough
    return path.stat().st_size == known.bytes and (not thorough or hash_of(path) == known.sha256)


def describe(path: Path, shard: Planned) -> Shard:
    """A shard that is written, for the index."""
    clips = sum(len(recording.clips) for recording in shard.recordings)
    return Shard(file=shard.file, split=shard.split, clips=clips, bytes=path.stat().st_size, sha256=hash_of(path))


def write(path: Path, shard: Planned) -> None:
    """One shard, whole or not at all. OSError if there is no room; MediaError if a recording changes meanwhile."""
    with atomic_write(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, recording in enumerate(shard.recordings, shard.first):
            copy(archive, f"{number:08}", recording)


def copy(archive: tarfile.TarFile, key: str, recording: PackedFile) -> None:
    """A recording and its json. No times and no owners, so that the same clips are the same bytes."""
    with open(recording.path, "rb") as source:
        status = os.fstat(source.fileno())
        if (status.st_size, status.st_mtime_ns) != (recording.size, recording.modified):
            raise MediaError("unreadable", f"{recording.path}: was changed while shards were written; start again")
        ending = recording.path.suffix.lower()  # one that is looked for in shards; what it is, its bytes say
        for name, size, data in (
            (key + (ending if ending in AUDIO | VIDEO else ".bin"), recording.size, source),
            (f"{key}.json", len(recording.card), io.BytesIO(recording.card)),
        ):
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, data)
