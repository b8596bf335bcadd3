"""Kinetics-400, -600 and -700 (Kay et al. 2017): ten-second videos of actions, with their official splits."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat

from datasets.clips import SPLITS, Clip, Corpus, existing_root, named_group
from datasets.splits import hold_out
from pipeline.core.errors import ConfigError
from pipeline.media.formats import VIDEO
from pipeline.media.input_spec import InputSpec
from pipeline.media.tables import read_table

WHAT = (
    "a folder with train/<class>/*.mp4 and val/<class>/*.mp4 (and test/), or with the videos right in train/, val/ and "
    "test/, named <youtube_id>_<start>_<end>.mp4, and annotations/train.csv, val.csv and test.csv beside them"
)
COLUMNS = ("label", "youtube_id", "time_start", "time_end")
NAME = re.compile(r"(.+)_\d{6}_\d{6}")  # YouTube's name of the video, first and last second of the cut


class Kinetics(Corpus):
    """The folders of ``root/train``, ``root/val`` and ``root/test`` or, where a split has none, its table.

    Without a labelled test split the official val is tested on, and a share of train is held out for validation.
    """

    # torchvision.datasets.Kinetics opens every video with TorchCodec in its constructor, and reads a table only while
    # it downloads; so the folders and tables are read here. Labels are written as it writes them.

    def __init__(
        self,
        root: str | None = None,
        val: Annotated[float, Field(gt=0, lt=1)] = 0.05,
        seed: int = 0,
        crop: PositiveFloat | None = 10.0,
        cache: str | None = None,
        **options: Any,
    ) -> None:
        """``val``: share of each class's training videos to hold out, drawn with ``seed``, if that is necessary.
        ``cache``: see ``Corpus``; decoded, Kinetics-400 takes about a terabyte.
        """
        folder = existing_root(root, WHAT)
        found = {split: list_folders(folder / split, split) or list_table(folder, split) for split in SPLITS}
        if not found["train"]:
            missing = f"{folder / 'train'}/<class>/ and {folder / 'annotations' / 'train.csv'} are"
            raise ConfigError(f"dataset.root: {missing} both missing or empty; expected {WHAT}")
        if not found["test"]:
            found["test"], found["val"] = [replace(clip, split="test") for clip in found["val"]], []
        if not found["val"]:
            videos = [replace(clip, group=named_group(NAME, clip.path)) for clip in found["train"]]
            found["train"] = hold_out(videos, val, seed)
        super().__init__([clip for clips in found.values() for clip in clips], cache, crop, **options)


class Video(Clip):
    """A video that is only looked for before training, and not opened: with hundreds of thousands, that takes hours."""

    __slots__ = ()

    def check(self, spec: InputSpec) -> None:
        """MediaError if it is not there."""
        self.fingerprint()


def list_folders(folder: Path, split: str) -> list[Clip]:
    """The videos in the sub-folders of ``folder``, one for each class."""
    paths = sorted(path for path in folder.glob("[!.]*/[!.]*") if path.suffix.lower() in VIDEO)
    return [Video(path, folder_name(path.parent.name), split) for path in paths]


def list_table(folder: Path, split: str) -> list[Clip]:
    """The videos that ``annotations/<split>.csv`` lists with a label; ConfigError if it cannot be understood."""
    table = folder / "annotations" / f"{split}.csv"
    if not table.is_file():
        return []
    rows = list(read_table(str(table), "dataset.root", ()))
    for column in COLUMNS[1:] if split == "test" else COLUMNS:  # test tables were once published without labels
        if not all(row.get(column) for row in rows):
            raise ConfigError(f"dataset.root: {table}: every row needs {', '.join(COLUMNS)}; {column!r} is missing")
    try:
        return [
            Video(folder / split / f"{row['youtube_id']}_{int(row['time_start']):06}_{int(row['time_end']):06}.mp4",
                  folder_name(row["label"]), split)
            for row in rows
            if row.get("label")
        ]  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"dataset.root: {table}: time_start and time_end must be whole seconds: {error}") from None


def folder_name(label: str) -> str:
    """A class as torchvision names its folder: without blanks, brackets and apostrophes."""
    return re.sub(r"['()]", "", label).replace(" ", "_")
