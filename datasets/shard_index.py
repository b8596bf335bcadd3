"""What a folder of shards says of itself: ``index.json``, with labels, counts and checksums."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from pipeline.core.atomic import atomic_write
from pipeline.core.errors import ConfigError

NAME = "index.json"
LARGEST = 1 << 26  # bytes
CARD = 1 << 20  # bytes of a json or cls beside a recording: some twenty thousand clips
LONGEST = 200  # characters of a label or a group
Split = Literal["train", "val", "test"]


class Shard(BaseModel):
    """One tar archive: of which split, how many clips and bytes, and its checksum."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\.tar$")]
    split: Split
    clips: NonNegativeInt
    bytes: NonNegativeInt
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Index(BaseModel):
    """All shards of a folder; ``counts`` of clips by split and label; ``plan`` tells shards of other settings apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1]
    plan: str
    labels: list[str]
    counts: dict[Split, dict[str, NonNegativeInt]]
    shards: list[Shard]


def read_index(folder: Path) -> Index | None:
    """A folder's index; None without one. ConfigError if it is none that can be used."""
    path = folder / NAME
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ConfigError(f"dataset.root: {path} is larger than {LARGEST >> 20} MB, which no index of shards is")
        return Index.model_validate_json(data)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"dataset.root: {path} is no index of shards ({at}{': ' * bool(at)}{first['msg']}); expected what "
            "`python -m datasets.shards` writes. Remove it to read the shards without"
        ) from None


def write_index(folder: Path, index: Index) -> None:
    """Whole or not at all. OSError if there is no room."""
    with atomic_write(folder / NAME) as file:
        file.write(json.dumps(index.model_dump(), indent=1).encode() + b"\n")


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
