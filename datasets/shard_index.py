"""What a folder of shards says of itself: ``index.json``, with labels, counts and checksums."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from pipeline.core.errors import ConfigError

NAME = "index.json"
MAX_INDEX_BYTES = 1 << 26
MAX_CARD_BYTES = 1 << 20  # of a json or cls beside a recording: some twenty thousand clips
MAX_TEXT_LENGTH = 200  # of a label or a group
SplitName = Literal["train", "val", "test"]


class Shard(BaseModel):
    """One tar archive: of which split, how many clips and bytes, and its checksum."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\.tar$")]
    split: SplitName
    clips: NonNegativeInt
    bytes: NonNegativeInt
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Index(BaseModel):
    """All shards of a folder; ``counts`` of clips by split and label; ``plan`` tells shards of other settings apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1]
    plan: str
    labels: list[str]
    counts: dict[SplitName, dict[str, NonNegativeInt]]
    shards: list[Shard]


def read_index(folder: Path) -> Index | None:
    """A folder's index; None without one. ConfigError if it is none that can be used."""
    path = folder / NAME
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_INDEX_BYTES + 1)
        if len(data) > MAX_INDEX_BYTES:
            raise ConfigError(f"dataset.root: {path} has over {MAX_INDEX_BYTES >> 20} MB; expected an index of shards")
        return Index.model_validate_json(data)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        what = f"{path} is no index of shards ({at}{': ' * bool(at)}{first['msg']})"
        raise ConfigError(f"dataset.root: {what}; remove it to read the shards without") from None
