"""A table of clips: csv or jsonl with ``path`` and ``label``, and optionally ``split``, ``start``, ``end``, a group."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import PositiveFloat

from datasets.clips import Clip, Corpus, Share, existing_root
from datasets.scenes import SceneSettings
from datasets.splits import draw_fold, fill_splits
from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.core.spreadsheet import unprotect
from pipeline.media.annotations import read_rows


class Manifest(Corpus):
    """The rows of ``root/file``. Paths are relative to ``root`` and may not leave it."""

    def __init__(
        self,
        root: str | None = None,
        file: str = "manifest.csv",
        group: str | None = None,
        splits: dict[str, list[str]] | None = None,
        fold: str | None = None,
        fold_by: str | None = None,
        val: Share = 0.15,
        test: Share = 0.15,
        seed: int = 0,
        crop: PositiveFloat | None = 10.0,
        cache: str | None = "default",
        background: str | None = None,
        scene: SceneSettings | None = None,
    ) -> None:
        """``group`` names a column (a speaker, a place): no group will stand in two splits. ``splits`` translates the
        names in the column ``split``, e.g. ``{train: [fold1, fold2], val: [fold3], test: [fold4]}``; rows whose name is
        not listed are left out. Without that column, ``val`` and ``test`` are shares drawn at random with ``seed``; if
        only ``val`` is missing, that share of train is held out. Without a ``group``, parts of one recording (rows of
        one path) are drawn into one split.

        ``fold`` i/n, for cross-validation: the test split is one of n parts of all rows, whatever their split. Values
        of the column ``fold_by`` (None: the group, or else the recording) stay together, and labels are spread evenly;
        with as many values as parts, one is left out at a time. ``val`` is held out of the rest.
        """
        folder = existing_root(root, f"a folder with {file}")
        rows = read_table(folder / file)
        for key, column in (("group", group), ("fold_by", fold_by)):
            if column is not None and column not in rows[0]:
                raise ConfigError(f"dataset.{key}: {file} has no column {column!r}{nearest(column, list(rows[0]))}")
        clips = [to_clip(row, folder, f"{file} row {number}", group) for number, row in enumerate(rows, 1)]
        if fold and splits:
            raise ConfigError("dataset.splits: has no meaning with dataset.fold, which makes the splits")
        if fold:
            column = fold_by or group or ""
            units = [str(row.get(column) or clip.unit) for row, clip in zip(rows, clips, strict=True)]
            clips = draw_fold(clips, fold, units, seed, background)
        elif splits:
            names = {name: split for split, listed in splits.items() for name in listed}
            for split, listed in splits.items():
                if other := next((name for name in listed if names[name] != split), None):
                    raise ConfigError(f"dataset.splits: {other!r} is in {split} and {names[other]}")
            clips = [replace(clip, split=names[clip.split]) for clip in clips if clip.split in names]
        found = {clip.split for clip in clips}
        if "" in found and len(found) > 1:
            missing = sum(not clip.split for clip in clips)
            raise ConfigError(f"dataset.file: {missing} rows of {file} have no split, while others have one")
        super().__init__(fill_splits(clips, val, test, seed, background), cache, crop, background, scene)


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a csv or jsonl file; cells that sink=csv has protected are as they were. ConfigError if it is
    missing, empty or without the needed columns.
    """
    rows = read_rows(path, "dataset.file", ("path", "label"))
    if path.suffix != ".jsonl":
        rows = [{key: unprotect(row[key] or "") for key in row if key} for row in rows]
    if not rows:
        raise ConfigError(f"dataset.file: {path} has no rows")
    for column in ("path", "label"):
        if not all(row[column] not in (None, "") for row in rows):
            raise ConfigError(f"dataset.file: {path}: every row needs a {column!r}")
    return rows


def to_clip(row: Mapping[str, Any], folder: Path, where: str, group: str | None) -> Clip:
    """A row as a clip; ConfigError if its path leaves the folder or its times make no sense."""
    path = folder / str(row["path"])
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"dataset.file: {where}: path {row['path']!r} leads out of {str(folder)!r}")
    try:
        start = float(row.get("start") or 0)
        end = float(row["end"]) if row.get("end") not in (None, "") else None
    except (TypeError, ValueError):
        raise ConfigError(f"dataset.file: {where}: start and end must be seconds") from None
    if not math.isfinite(start + (end or 0)) or start < 0 or (end is not None and end <= start):
        raise ConfigError(f"dataset.file: {where}: end ({end} s) must be after start ({start} s)")
    named = str(row.get(group) or "") if group else ""
    return Clip(path, str(row["label"]), str(row.get("split") or ""), start, end, named)
