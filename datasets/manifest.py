"""A table of clips, with ``path`` and ``label``, and optionally ``split``, ``start``, ``end``, a group."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.clips import existing_root
from datasets.labels import unify
from datasets.rows import to_clip
from datasets.splits import DrawnCorpus
from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.media.tables import Row, read_table, to_label


class Manifest(DrawnCorpus):
    """The rows of ``root/file``. Paths are relative to ``root`` and may not leave it."""

    def __init__(
        self,
        root: str | None = None,
        file: str = "manifest.csv",
        group: str | None = None,
        speaker: str | None = None,
        splits: dict[str, list[str]] | None = None,
        fold_by: str | None = None,
        values: list[str] | None = None,
        labelled: bool = True,
        **options: Any,
    ) -> None:
        """``group`` names a column (a speaker, a place): no group will stand in two splits. ``splits`` translates the
        names in the column ``split``, e.g. ``{train: [fold1, fold2], val: [fold3], test: [fold4]}``; rows whose name is
        not listed are left out. Without it, names such as ``Training``, ``valid`` and ``dev`` are known (see
        ``name_splits``). Without a ``group``, parts of one recording (rows of one path) are drawn into one split.

        ``values`` names columns of numbers, for task=values; a cell is empty where its number is not known. Then no row
        needs a label; nor does one that is not ``labelled``, for task=groups.

        ``fold_by`` names the column whose values a ``fold`` does not part; None: the group, or else the recording.

        ``speaker`` names a column: strings (``dataset.scene.strings``) are of clips of one of its values, which may
        stand in several splits; None: of one group.
        """
        folder = existing_root(root, f"a folder with {file}")
        self.quantities = values
        rows = read_rows(folder / file, ("path", *(values or ("label",) * labelled)))
        for key, column in (("group", group), ("speaker", speaker), ("fold_by", fold_by)):
            if column is not None and column not in rows[0]:
                raise ConfigError(f"dataset.{key}: {file} has no column {column!r}{nearest(column, list(rows[0]))}")
        clips = [to_clip(row, folder, f"{file} row {number}", group, values) for number, row in enumerate(rows, 1)]
        if speaker:
            clips = [replace(clip, speaker=to_label(row.get(speaker))) for row, clip in zip(rows, clips, strict=True)]
        clips = unify(clips, "dataset.file")
        column = fold_by or group or ""
        units = [to_label(row.get(column)) or clip.unit for row, clip in zip(rows, clips, strict=True)]
        super().__init__(clips, units, splits, **options)


def read_rows(path: Path, needed: tuple[str, ...] = ("path", "label")) -> list[Row]:
    """The rows of a table. ConfigError if it is missing, empty or without the needed columns."""
    rows = list(read_table(str(path), "dataset.file", needed))
    if not rows:
        raise ConfigError(f"dataset.file: {path} has no rows")
    for number, row in enumerate(rows, 1):
        for column in {"path", "label"} & {*needed}:
            if not to_label(row.get(column)):
                raise ConfigError(f"dataset.file: {path} row {number}: every row needs a {column!r}")
    return rows
