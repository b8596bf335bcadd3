"""Many recordings: which ones."""

import csv
import glob
from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from pipeline.errors import ConfigError
from pipeline.media import media_files


class Files:
    """The files to classify: a folder (with all below it), a glob, a list of any, or a csv with a column ``path``."""

    def __init__(
        self,
        paths: str | list[str],
        batch: PositiveInt = 32,
        workers: PositiveInt = 2,
        longest: PositiveFloat = 600.0,
    ) -> None:
        """``batch`` recordings are computed at a time, ``workers`` threads decode; ``longest`` in seconds."""
        self.given = [paths] if isinstance(paths, str) else paths
        self.batch, self.workers, self.longest = batch, workers, longest

    def paths(self) -> list[Path]:
        """All files in order, each once. ConfigError if there are none."""
        found = dict.fromkeys(path for given in self.given for path in expand(given))
        if not found:
            raise ConfigError(f"source.paths: {self.given} holds no audio or video file")
        return list(found)


def expand(given: str) -> list[Path]:
    """The files that one entry means; a name that is no folder, table or pattern stands for itself."""
    path = Path(given).expanduser()
    if path.is_dir():
        return media_files(path)
    if path.suffix.lower() == ".csv":
        return listed(path)
    if not path.exists() and glob.has_magic(given):
        matches = (Path(match) for match in sorted(glob.glob(str(path), recursive=True)))
        return [file for match in matches for file in (media_files(match) if match.is_dir() else [match])]
    return [path]


def listed(table: Path) -> list[Path]:
    """The column ``path`` of a csv; relative paths start at the table's folder."""
    try:
        with open(table, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            return [table.parent / row["path"] for row in csv.DictReader(file)]
    except OSError as error:
        raise ConfigError(f"source.paths: {table}: {error.strerror}") from None
    except KeyError:
        raise ConfigError(f"source.paths: {table} has no column 'path'") from None
