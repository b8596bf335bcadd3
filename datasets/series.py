"""Series of numbers: a file for each, in a folder per class; or all of them in one table, each with an id."""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveFloat

from datasets.class_folders import ClassFolders
from datasets.clips import Clip, existing_root
from datasets.labels import unify
from datasets.splits import DrawnCorpus
from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.media.info import SeriesInfo
from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.media.sample import Derived, Sample, Split
from pipeline.media.series import ENDINGS, blocks, on_clock
from pipeline.media.tables import Row, read_table, to_label


class SeriesFiles(ClassFolders):
    """``root/walking/7.csv``, or ``root/train/walking/7.csv``, as ``ClassFolders`` has them; or ``root/file``, a table
    whose rows have an ``id`` and a label: the rows of one id are one series, in their order.
    """

    endings = ENDINGS

    def __init__(
        self,
        root: str | None = None,
        file: str | None = None,
        id: str = "id",
        group: str | None = None,
        splits: dict[str, list[str]] | None = None,
        crop: PositiveFloat | None = None,
        targets: list[str] | None = None,
        **options: Any,
    ) -> None:
        """Of a table, ``id`` and ``group`` name columns; ``splits`` is that of ``Manifest``. ``crop``: seconds that are
        cut at random from longer training series; None keeps them whole. ``targets``: columns whose numbers are to be
        told of each row, for task=values.

        ConfigError as of ``ClassFolders``, or for a table without ids, or without labels unless it has ``targets``.
        """
        self.quantities = targets
        if file is None:
            if group or splits:
                raise ConfigError("dataset.group, dataset.splits: are of a table with ids; set dataset.file")
            super().__init__(root, crop=crop, **options)
            return
        folder = existing_root(root, f"a folder with {file}")
        clips = unify(list_series(folder / file, id, group, not targets), "dataset.file")
        DrawnCorpus.__init__(self, clips, [clip.unit for clip in clips], splits, crop=crop, **options)

    def split(self, name: str, spec: InputSpec) -> Split:
        """As any corpus. ConfigError for a model of sound or pictures."""
        series = spec.require_series("dataset=series")
        given = super().split(name, spec)
        if not self.quantities:
            return given
        return WithTargets(given, super().split(name, InputSpec(series=replace(series, columns=(*self.quantities,)))))


class WithTargets(Derived):
    """A split whose samples have the rows of another one, cut alike, as their ``values``."""

    def __init__(self, given: Split, targets: Split) -> None:
        super().__init__(given)
        self.targets = targets

    def __getitem__(self, index: int) -> Sample | None:
        self.targets.epoch = self.epoch
        sample, other = self.split[index], self.targets[index]
        return None if sample is None or other is None else replace(sample, values=other.x[0])


@dataclass(frozen=True, slots=True)
class TableClip(Clip):
    """The rows of a table that have this ``id`` in a column."""

    column: str = "id"
    id: str = ""

    @property
    def name(self) -> str:
        """The table and the id."""
        return f"{self.path}#{self.id}"

    def fingerprint(self) -> str:
        """That of the table, and the id."""
        return f"{Clip.fingerprint(self)}#{self.column}={self.id}"

    def check(self, spec: InputSpec) -> None:
        """Reads it."""
        self.read(spec)

    def read(self, spec: InputSpec) -> Arrays:
        """Its rows ``(T, C)`` on the model's clock. ConfigError for a table without the columns."""
        series = spec.require_series("dataset=series")
        rows, info = read_by_id(Clip.fingerprint(self), self.path, self.column)[self.id], SeriesInfo(rate=series.rate)
        if missing := [column for column in series.columns if column not in rows[0]]:
            raise ConfigError(f"extractor.columns: {self.path} has no {missing[0]!r}{nearest(missing[0], [*rows[0]])}")
        return (
            np.concatenate([*blocks(on_clock(rows, series, info, self.name), len(series.columns), info, self.name)]),
        )


@lru_cache(maxsize=2)
def read_by_id(fingerprint: str, table: Path, column: str) -> dict[str, list[Row]]:
    """The rows of a table by their id. ConfigError if one has none."""
    found = defaultdict[str, list[Row]](list)
    for number, row in enumerate(read_table(str(table), "dataset.file", (column,), blank=True), 1):
        if not (name := to_label(row[column])):
            raise ConfigError(f"dataset.file: {table} row {number}: every row needs a {column!r}")
        found[name].append(row)
    return dict(found)


def list_series(table: Path, column: str, group: str | None, labelled: bool = True) -> list[Clip]:
    """A clip for each id of a table. ConfigError if an id has no label and should be ``labelled``, or has another
    in a later row.
    """
    clip = TableClip(table, "")
    if not table.is_file():
        raise ConfigError(
            f"dataset.file: {table} does not exist; expected a table {column},label and columns of numbers"
        )
    found = list[Clip]()
    for name, rows in read_by_id(clip.fingerprint().partition("#")[0], table, column).items():
        known = {}
        for key in ("label", "split", *([group] if group else [])):
            values = {to_label(row.get(key)) for row in rows}
            if len(values) > 1 or (values == {""} and (key == group or (key == "label" and labelled))):
                said = f"{column} {name!r} has the values {', '.join(map(repr, sorted(values)[:4]))} of {key!r}"
                raise ConfigError(f"dataset.file: {table}: {said}; expected one, the same in all of its rows")
            known[key] = values.pop()
        named = known[group] if group else ""
        found.append(TableClip(table, known["label"], known["split"], group=named, column=column, id=name))
    if not found:
        raise ConfigError(f"dataset.file: {table} has no rows")
    return found
