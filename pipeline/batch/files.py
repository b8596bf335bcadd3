"""Many recordings: which ones."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import PositiveFloat, PositiveInt

from pipeline.batch.listing import KEY, Entry, Named, entry_digest, listing
from pipeline.core.errors import ConfigError, FailOn
from pipeline.media.tables import is_table, name_columns, to_label
from pipeline.media.walk import tell

Scalar = str | bool | int | float | None
Resume = Literal["auto", "errors", "never"]
DEFAULT_WORKERS = min(8, os.cpu_count() or 1)  # processes that decode
GIB = 1 << 30


class Limits(NamedTuple):
    """What one file may cost.

    Attributes:
        longest: seconds of it.
        largest: bytes of its samples as float32 before they are mixed and resampled.
        memory: bytes, beyond what the process needs anyway.
        patience: seconds without a result.
    """

    longest: float = 86_400.0
    largest: int = 16 << 30
    memory: int = 1 << 30
    patience: float = 10.0


@dataclass(eq=False)
class Files:
    """The files to classify, each once and in a stable order: see ``conf/source/files.yaml``.

    ``root``: where the paths in manifests begin (None: the manifest's folder). ``only``: the values that rows of
    manifests must have, by column. ``shard`` i/n: one of n parts, chosen by a hash of each entry.

    ``batch`` recordings are computed at a time, ``workers`` processes decode (None:
    ``DEFAULT_WORKERS``). A file may last ``longest`` seconds, hold ``largest`` GiB of samples, take ``memory`` GiB to
    decode, and be silent for ``patience`` seconds.

    ``ledger``: the file in which rows are kept (auto: beside the first file that a sink writes; None: none).
    ``resume`` auto: keep its rows; errors: keep all but errors; never: classify all files again.
    ``fail_on``: which rows make the exit code 3.

    Attributes:
        listed: how many entries the whole listing has, before a shard is taken, and a hex digest of them, which does
            not depend on their order; known once ``entries`` has been called.
        timed, labelled: whether any entry of the whole listing is a part of a file, and whether any has a truth.
    """

    paths: str | list[str]
    root: str | None = None
    only: dict[str, Scalar | list[Scalar]] | None = None
    shard: str = "1/1"
    batch: PositiveInt = 32
    workers: PositiveInt | None = None
    longest: PositiveFloat = 24 * 3600.0
    largest: PositiveFloat = 16.0
    memory: PositiveFloat = 1.0
    patience: PositiveFloat = 10.0
    ledger: str | None = "auto"
    resume: Resume = "auto"
    fail_on: FailOn = "errors"

    listed = 0, ""
    timed = labelled = False

    def __post_init__(self) -> None:
        self.given = [self.paths] if isinstance(self.paths, str) else self.paths
        self.wanted = {name_columns(column)[0]: accepted(one) for column, one in (self.only or {}).items()}
        found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", self.shard)
        if not found or int(found[1]) > int(found[2]):
            raise ConfigError(f"source.shard: got {self.shard!r}; expected one such as 1/4, 2/4, 3/4 or 4/4")
        self.share, self.shares = int(found[1]) - 1, int(found[2])
        self.limits = Limits(self.longest, round(self.largest * GIB), round(self.memory * GIB), self.patience)
        if self.root is not None:
            self.root = str(Path(self.root).expanduser())
            if not Path(self.root).is_dir():
                expected = "expected the one where the manifest's paths begin"
                raise ConfigError(f"source.root: {self.root!r} is no folder; {expected}")

    def entries(self, series: bool = False) -> list[Entry]:
        """This shard's entries (there may be none), in the order given; ``series``: see ``listing``. ConfigError if the
        whole listing has none, or one of ``source.paths`` makes no sense.
        """
        seen: dict[object, str] = {}
        kept: list[Entry] = []
        total = doubts = 0
        for name, entry in self.found(series):
            count = len(seen)
            truth = seen.setdefault(entry[:3] if entry.start or entry.end is not None else entry.path, entry.truth)
            if len(seen) == count:
                doubts += truth != entry.truth
                continue
            number = entry_digest(name, entry)
            total += number
            self.timed = self.timed or entry.end is not None or entry.start > 0
            self.labelled = self.labelled or entry.truth != ""
            if number % self.shares == self.share:
                kept.append(entry)
        if doubts:
            tell(KEY, f"{doubts} entries are listed again with another label; the first one stands")
        self.listed = (len(seen), f"{total % (1 << 128):032x}")
        return kept

    def found(self, series: bool = False) -> Iterator[Named]:
        """What is given, one after another, with all that is in it twice."""
        if not self.given:
            raise ConfigError("source.paths: is empty; give a folder, a glob, a manifest or files")
        rows = 0
        for given in self.given:
            manifest = is_table(given)
            for named in listing(given, self.root, self.wanted, series):
                rows += manifest
                yield named
        if self.only and not rows:
            raise ConfigError(f"source.only: got {self.only}; no row of a manifest in source.paths has that")

    def ledger_beside(self, outputs: Sequence[Path]) -> Path | None:
        """Where the rows are kept while sinks write these files. ConfigError if they must be kept, and may not."""
        if self.ledger == "auto":
            return outputs[0].with_name(outputs[0].name + ".ledger") if outputs else None
        if self.ledger is None and outputs:
            raise ConfigError(f"source.ledger: is null, but {outputs[0]} is written from it; take source.ledger=auto")
        return None if self.ledger is None else Path(self.ledger).expanduser()


def accepted(wanted: Scalar | list[Scalar]) -> set[str]:
    """The texts that a row may have for it to be one of the values."""
    values = wanted if isinstance(wanted, list) else [wanted]
    spelt = {to_label(value) for value in values}
    return spelt | {form for value in spelt & {"True", "False"} for form in (value.lower(), value.upper())}
