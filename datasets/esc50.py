"""ESC-50 (Piczak 2015): 2,000 environmental sounds of five seconds in five folds; ESC-10 is its subset."""

from typing import Any

from datasets.clips import Clip, Corpus, existing_root, required
from pipeline.core.errors import ConfigError
from pipeline.media.tables import read_table

WHAT = "a copy of the ESC-50 repository (meta/esc50.csv and audio/); fetch ESC-50-master.zip, unpack it, point to it"


class ESC50(Corpus):
    """The official folds: three (or more) to train, one to validate, one to test."""

    def __init__(
        self,
        root: str | None = None,
        test_fold: int = 5,
        val_fold: int = 4,
        esc10: bool = False,
        **options: Any,
    ) -> None:
        """``esc10`` keeps the ten classes of ESC-10. Takes of one source recording are one group."""
        folder = existing_root(root, WHAT)
        table = required(folder / "meta" / "esc50.csv", WHAT)
        if test_fold == val_fold:
            raise ConfigError(f"dataset.val_fold: {val_fold} is the test fold too; choose another")
        places = {test_fold: "test", val_fold: "val"}
        columns = ("filename", "fold", "category", "esc10", "src_file")
        rows = read_table(str(table), "dataset.root", columns)
        audio = folder / "audio"
        clips = [
            Clip(audio / row["filename"], row["category"], places.get(int(row["fold"]), "train"), group=row["src_file"])
            for row in rows
            if not esc10 or row["esc10"] == "True"
        ]
        super().__init__(clips, **options)
