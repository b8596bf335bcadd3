"""A row of a table as a clip."""

from pathlib import Path

from datasets.clips import Clip
from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.series import to_number
from pipeline.media.tables import Row, to_label, to_part, to_text


def to_clip(row: Row, folder: Path, where: str, group: str | None, values: list[str] | None = None) -> Clip:
    """A row as a clip; ConfigError if its path leaves the folder, or its times or ``values`` make no sense."""
    path = path_inside(folder, to_text(row["path"]), where)
    named = to_label(row.get(group)) if group else ""
    split = to_label(row.get("split"))
    try:
        numbers = tuple(to_number(row[column], column, where) for column in values) if values else None
    except MediaError as error:
        raise ConfigError(f"dataset.file: {error.args[0]}") from None
    part = to_part(row, f"dataset.file: {where}")
    return Clip(path, to_text(row.get("label")), split, *part, named, values=numbers)


def path_inside(folder: Path, name: str, where: str) -> Path:
    """A path that a row names; ConfigError if it leaves the folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"dataset.file: {where}: path {name!r} leads out of {str(folder)!r}")
    return path
