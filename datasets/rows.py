"""A row of a table as a clip."""

from pathlib import Path

from datasets.clips import Clip
from pipeline.core.errors import ConfigError
from pipeline.media.tables import Row, to_label, to_part, to_text


def to_clip(row: Row, folder: Path, where: str, group: str | None) -> Clip:
    """A row as a clip; ConfigError if its path leaves the folder or its times make no sense."""
    path = path_inside(folder, to_text(row["path"]), where)
    named = to_label(row.get(group)) if group else ""
    split = to_label(row.get("split"))
    return Clip(path, to_text(row["label"]), split, *to_part(row, f"dataset.file: {where}"), named)


def path_inside(folder: Path, name: str, where: str) -> Path:
    """A path that a row names; ConfigError if it leaves the folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"dataset.file: {where}: path {name!r} leads out of {str(folder)!r}")
    return path
