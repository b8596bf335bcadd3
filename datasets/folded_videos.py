"""What corpora of videos with official folds share: there is no validation split, so a share of train is held out."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat

from datasets.clips import Clip, Corpus, existing_root
from datasets.splits import hold_out


class FoldedVideos(Corpus):
    """A subclass says ``what`` it expects in its folder, and lists the clips of a fold."""

    what = ""

    def __init__(
        self,
        root: str | None = None,
        fold: Annotated[int, Field(ge=1, le=3)] = 1,
        val: Annotated[float, Field(gt=0, lt=1)] = 0.15,
        seed: int = 0,
        crop: PositiveFloat | None = 10.0,
        **options: Any,
    ) -> None:
        """``val``: share of each class's training recordings held out for validation, drawn with ``seed``."""
        folder = existing_root(root, self.what)
        super().__init__(hold_out(self.list_clips(folder, fold), val, seed), crop=crop, **options)

    def list_clips(self, folder: Path, fold: int) -> list[Clip]:
        """The clips of train and test in a fold. ConfigError if something is missing."""
        raise NotImplementedError
