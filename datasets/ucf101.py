"""UCF101 (Soomro et al. 2012): 13,320 videos of 101 actions, with the three official folds."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat

from datasets.clips import Clip, Corpus, existing_root
from datasets.splits import divide
from pipeline.core.errors import ConfigError

WHAT = (
    "a folder with UCF-101/ and ucfTrainTestlist/ in it; fetch UCF101.rar and "
    "UCF101TrainTestSplits-RecognitionTask.zip, unpack both there, and point to it"
)
GROUP = re.compile(r"_g\d+(?=_c\d+$)")  # v_Archery_g08_c01: the first cut of the eighth recording


class UCF101(Corpus):
    """``root/UCF-101/<class>/v_*.avi`` as ``trainlist0N.txt`` and ``testlist0N.txt`` divide them.

    The lists have no validation split: a share of train is held out. Cuts of one recording are one group.
    """

    # torchvision.datasets.UCF101 opens every video with TorchCodec before it reads a list, and leaves out what is
    # listed and missing without a word; so the lists are read here.

    def __init__(
        self,
        root: str | None = None,
        fold: Annotated[int, Field(ge=1, le=3)] = 1,
        val: Annotated[float, Field(gt=0, lt=1)] = 0.15,
        seed: int = 0,
        crop: PositiveFloat | None = 10.0,
        cache: str | None = "default",
    ) -> None:
        """``val``: share of each class's training recordings held out for validation, drawn with ``seed``."""
        folder = existing_root(root, WHAT)
        if not (folder / "UCF-101").is_dir():
            raise ConfigError(f"dataset.root: {folder / 'UCF-101'} is missing; expected {WHAT}")
        train, test = (listed(folder, split, fold) for split in ("train", "test"))
        super().__init__([*divide(train, {"train": 1 - val, "val": val}, seed), *test], cache, crop)


def listed(folder: Path, split: str, fold: int) -> list[Clip]:
    """The clips of ``<split>list0<fold>.txt``: a path on each line, in train with the class's number behind it."""
    table = folder / "ucfTrainTestlist" / f"{split}list{fold:02}.txt"
    if not table.is_file():
        raise ConfigError(f"dataset.root: {table} is missing; expected {WHAT}")
    paths = [Path(line.split()[0]) for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Clip(folder / "UCF-101" / path, path.parent.name, split, group=recording(path)) for path in paths]


def recording(path: Path) -> str:
    """The recording of which a video is a cut: its name without the number of the cut."""
    found = GROUP.search(path.stem)
    return path.stem[: found.end()] if found else ""
