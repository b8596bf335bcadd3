"""HMDB51 (Kuehne et al. 2011): 6,766 videos of 51 actions from films and the web, with the three official folds."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat

from datasets.clips import Clip, Corpus, existing_root
from datasets.splits import divide
from pipeline.core.errors import ConfigError

WHAT = (
    "a folder with one sub-folder of videos per class and testTrainMulti_7030_splits/; fetch hmdb51_org.rar and "
    "test_train_splits.rar, unpack both there (and the archive of each class), and point to it"
)
MARKS = {"1": "train", "2": "test"}  # 0: not in this fold


class HMDB51(Corpus):
    """``root/<class>/*.avi`` as the marks of ``<class>_test_split<N>.txt`` divide them.

    There is no validation split: a share of train is held out. Cuts of one film within a class stay together.
    """

    # torchvision.datasets.HMDB51 opens every video with TorchCodec first, and looks marks up by file name whatever the
    # class, though classes share names; so the tables are read here.

    def __init__(
        self,
        root: str | None = None,
        fold: Annotated[int, Field(ge=1, le=3)] = 1,
        val: Annotated[float, Field(gt=0, lt=1)] = 0.15,
        seed: int = 0,
        crop: PositiveFloat | None = 10.0,
        cache: str | None = "default",
    ) -> None:
        """``val``: share of each class's training films held out for validation, drawn with ``seed``."""
        folder = existing_root(root, WHAT)
        ending = f"_test_split{fold}.txt"
        tables = sorted((folder / "testTrainMulti_7030_splits").glob(f"*{ending}"))
        if not tables:
            missing = folder / "testTrainMulti_7030_splits" / f"<class>{ending}"
            raise ConfigError(f"dataset.root: {missing} is missing; expected {WHAT}")
        classes = {table.name.removesuffix(ending): table for table in tables}
        if not any((folder / label).is_dir() for label in classes):
            raise ConfigError(f"dataset.root: {folder / next(iter(classes))} is missing; expected {WHAT}")
        clips = [clip for label, table in classes.items() for clip in marked(table, folder / label)]
        held = divide([clip for clip in clips if clip.split == "train"], {"train": 1 - val, "val": val}, seed)
        super().__init__([*held, *(clip for clip in clips if clip.split == "test")], cache, crop)


def marked(table: Path, folder: Path) -> list[Clip]:
    """The clips of one class's table: on each line a file's name and its mark."""
    rows = [line.rsplit(maxsplit=1) for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        Clip(folder / row[0], folder.name, MARKS[row[-1]], group=film(row[0], folder.name))
        for row in rows
        if row[-1] in MARKS
    ]


def film(name: str, label: str) -> str:
    """The film a cut comes from: April_09_brush_hair_u_nm_np1_ba_goo_0.avi is of brush_hair/April_09."""
    return f"{label}/{name.rpartition(f'_{label}_')[0] or name}"
