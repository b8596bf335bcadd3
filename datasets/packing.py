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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from datasets.clips import SPLITS, Clip
from datasets.shard_contents import MAX_MEMBER_BYTES, parse_card
from datasets.shard_index import NAME, Index, Shard, SplitName, checksum, read_index
from pipeline.core.atomic import atomic_write
from pipeline.core.errors import ConfigError, MediaError
from pipeline.core.journal import lock
from pipeline.core.progress import bar
from pipeline.media.container import open_file
from pipeline.media.formats import AUDIO, VIDEO

JOURNAL = ".index.part"  # the shards that are done, one a line, below the plan they belong to
OURS = re.compile(r"(train|val|test)-\d{6}\.tar")


@dataclass(frozen=True)
class PackedFile:
    """A file with the clips that are parts of it; ``name`` tells where it came from."""

    path: Path
    size: int
    modified: int
    name: str
    clips: tuple[Clip, ...]

    def card(self) -> bytes:
        """The json beside it."""
        rows = [{"label": clip.label, "start": clip.start, "end": clip.end, "group": clip.group} for clip in self.clips]
        rows = [{key: value for key, value in row.items() if value not in ("", None, 0.0)} for row in rows]
        card = rows[0] | {"name": self.name} if len(rows) == 1 else {"clips": rows, "name": self.name}
        return json.dumps(card).encode()

    def ending(self) -> str:
        """Of its name in the shard: one that is looked for there. What it is, its bytes say."""
        ending = self.path.suffix.lower()
        return ending if ending in AUDIO | VIDEO else ".bin"

    def tar_bytes(self) -> int:
        """Bytes that it and its json take in a shard."""
        return sum(tarfile.BLOCKSIZE + size + -size % tarfile.BLOCKSIZE for size in (self.size, len(self.card())))


@dataclass(frozen=True)
class Planned:
    """A shard to be written; ``first`` is the number of its first recording."""

    split: SplitName
    file: str
    first: int
    recordings: tuple[PackedFile, ...]


def list_recordings(clips: Sequence[Clip], root: Path) -> tuple[list[PackedFile], int]:
    """Clips by file and split, in the order of their names; and how many files were left out, each with a warning."""
    by_file: dict[tuple[str, Path], list[Clip]] = defaultdict(list)
    for clip in clips:
        by_file[clip.split, clip.path].append(clip)
    found, lost = [], set()
    for (_, path), parts in sorted(by_file.items()):
        try:
            open_file(str(path)).close()
            status = os.stat(path)
            if status.st_size > MAX_MEMBER_BYTES:
                raise MediaError(
                    "limit_size", f"{status.st_size >> 20} MB; at most {MAX_MEMBER_BYTES >> 20} are allowed"
                )
        except MediaError as error:
            if path not in lost:
                why = str(error).replace(f"{path}: ", "")
                warnings.warn(f"left out {path}: {why}", stacklevel=2)
            lost.add(path)
            continue
        name = path.relative_to(root).as_posix().encode("utf-8", "replace").decode()
        parts.sort(key=lambda clip: (clip.start, clip.end or 0.0, clip.label))
        found.append(PackedFile(path, status.st_size, status.st_mtime_ns, name, tuple(parts)))
    return found, len(lost)


def check(recording: PackedFile) -> None:
    """ConfigError for what those who read shards would pass over."""
    try:
        parse_card(recording.card(), "json", tarfile.TarInfo())
    except ValueError as error:
        raise ConfigError(f"{recording.name}: {error}") from None


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
    """``order`` cut to fit."""
    part: list[PackedFile] = []
    taken, clips = 0, 0
    for recording in order:
        size = taken + recording.tar_bytes() + 2 * tarfile.BLOCKSIZE  # with the archive's end
        if part and (size + -size % tarfile.RECORDSIZE > most_bytes or clips + len(recording.clips) > most_clips):
            yield tuple(part)
            part, taken, clips = [], 0, 0
        part.append(recording)
        taken, clips = taken + recording.tar_bytes(), clips + len(recording.clips)
    if part:
        yield tuple(part)


def plan_digest(shards: Sequence[Planned]) -> str:
    """Tells one plan from another: of other clips, files or settings."""
    parts = hashlib.sha256()
    for shard in shards:
        rows = [[r.name, r.size, r.modified, r.card().decode()] for r in shard.recordings]
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
    for recording in found:
        check(recording)
    shards = plan_shards(found, megabytes, most, seed)
    plan = plan_digest(shards)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / JOURNAL, "a+", encoding="utf-8") as journal:
        lock(journal.fileno())
        done = finished_shards(out, journal, plan, overwrite)
        for shard in bar(shards, f"writing to {out.name}"):
            if shard.file not in done:
                done[shard.file] = write(out, shard)
                journal.write(done[shard.file].model_dump_json() + "\n")
                journal.flush()
        counts: dict[SplitName, dict[str, int]] = {}
        for shard in shards:
            counted = Counter(clip.label for recording in shard.recordings for clip in recording.clips)
            counts[shard.split] = dict(sorted((Counter(counts.get(shard.split, {})) + counted).items()))
        labels = sorted({label for by_label in counts.values() for label in by_label})
        index = Index(version=1, plan=plan, labels=labels, counts=counts, shards=[done[shard.file] for shard in shards])
        with atomic_write(out / NAME) as file:
            file.write(json.dumps(index.model_dump(), indent=1).encode() + b"\n")
        (out / JOURNAL).unlink()
    return index, lost


def finished_shards(out: Path, journal: Any, plan: str, overwrite: bool) -> dict[str, Shard]:
    """The shards of this plan that are whole already; what an earlier run left half-written is removed."""
    for path in out.glob("*.tar.part"):
        if OURS.fullmatch(path.name.removesuffix(".part")):
            path.unlink()
    journal.seek(0)
    lines = journal.read().splitlines()
    try:
        index = read_index(out)
        if index is not None:
            before, listed = index.plan, index.shards
        else:
            before = str(json.loads(lines[0])["plan"]) if lines else ""
            listed = [Shard.model_validate_json(line) for line in lines[1:] if line.endswith("}")]
    except (ConfigError, ValueError, LookupError, TypeError):
        before, listed = "?", []
    there = sorted(path.name for path in out.iterdir() if OURS.fullmatch(path.name))
    if before != plan and (there or before) and not overwrite:
        (out / JOURNAL).unlink() if not lines else None
        raise ConfigError(
            f"{out} holds {'shards' if there else 'the beginning of shards'} of other clips or settings; choose an "
            "empty folder, or --overwrite to replace them"
        )
    if before != plan:
        (out / NAME).unlink(missing_ok=True)
        for name in there:
            (out / name).unlink()
        journal.truncate(0)
        journal.write(json.dumps({"plan": plan}) + "\n")
        journal.flush()
        return {}
    whole = [shard for shard in listed if shard.file in there and (out / shard.file).stat().st_size == shard.bytes]
    return {shard.file: shard for shard in whole if not overwrite or checksum(out / shard.file) == shard.sha256}


def write(out: Path, shard: Planned) -> Shard:
    """One shard, whole or not at all. OSError if there is no room; MediaError if a recording changes meanwhile."""
    path = out / shard.file
    with atomic_write(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, recording in enumerate(shard.recordings, shard.first):
            copy(archive, f"{number:08}", recording)
    clips = sum(len(recording.clips) for recording in shard.recordings)
    return Shard(file=shard.file, split=shard.split, clips=clips, bytes=path.stat().st_size, sha256=checksum(path))


def copy(archive: tarfile.TarFile, key: str, recording: PackedFile) -> None:
    """A recording and its json. No times and no owners, so that the same clips are the same bytes."""
    with open(recording.path, "rb") as source:
        status = os.fstat(source.fileno())
        if (status.st_size, status.st_mtime_ns) != (recording.size, recording.modified):
            raise MediaError("unreadable", f"{recording.path}: was changed while shards were written; start again")
        add(archive, key + recording.ending(), recording.size, source)
    card = recording.card()
    add(archive, f"{key}.json", len(card), io.BytesIO(card))


def add(archive: tarfile.TarFile, name: str, size: int, file: BinaryIO) -> None:
    """A member."""
    member = tarfile.TarInfo(name)
    member.size = size
    archive.addfile(member, file)
