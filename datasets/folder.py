"""A folder per class: ``root/dog/a.wav``, or with the split above it: ``root/train/dog/a.wav``."""

import re
import warnings
from pathlib import Path

from pydantic import PositiveFloat

from datasets.clips import SPLITS, Clip, Corpus, Share, existing_root
from datasets.splits import draw_fold, fill_splits
from pipeline.core.errors import ConfigError
from pipeline.media.formats import VIDEO, media_files
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Split

CUT = re.compile(r"(.+)_\d+\.\d+")  # of a recording, and from which second on; as the sink hard_negatives names them


class Folder(Corpus):
    """Clips below ``root``; the label is the folder's name. Any audio format, rate and length.

    Files whose names differ only in a number with a point behind their last ``_`` (``street_00012.50.wav``) are cuts of
    one recording, and stand in one split.
    """

    def __init__(
        self,
        root: str | None = None,
        fold: str | None = None,
        val: Share = 0.15,
        test: Share = 0.15,
        seed: int = 0,
        crop: PositiveFloat | None = 10.0,
        cache: str | None = "default",
        background: str | None = None,
    ) -> None:
        """With ``root/train`` present the sub-folders ``train``, ``val`` and ``test`` are the splits (without ``val``,
        that share of train is held out); otherwise ``val`` and ``test`` are shares drawn at random with ``seed``.

        ``fold`` i/n, for cross-validation: the test split is one of n parts of all clips, and ``val`` is held out of
        the rest. ConfigError with ``root/train``.
        """
        folder = existing_root(root, "a folder with one sub-folder of recordings per class")
        own = (folder / "train").is_dir()
        if fold and own:
            hint = f"leave dataset.fold out, or set dataset.root={folder / 'train'} to fold these clips alone"
            raise ConfigError(f"dataset.fold: {str(folder)!r} has splits of its own, train and test; {hint}")
        clips = [clip for split in (SPLITS if own else [""]) for clip in list_clips(folder / split, split)]
        if not clips:
            raise ConfigError(f"dataset.root: no audio files in the sub-folders of {str(folder)!r}")
        if fold:
            clips = draw_fold(clips, fold, [clip.unit for clip in clips], seed, background)
        super().__init__(fill_splits(clips, val, test, seed, background), cache, crop, background)

    def split(self, name: str, spec: InputSpec) -> Split:
        """As any corpus; with a warning if videos are only heard."""
        videos = sum(clip.path.suffix.lower() in VIDEO for clip in self.clips)
        if name == "train" and videos and not spec.picture:
            warnings.warn(
                f"{videos} of {len(self.clips)} files have names of videos, and this model hears them, but does not "
                "see them; to see: extractor=optical_flow encoder=image_recurrent augment=pictures",
                stacklevel=2,
            )
        return super().split(name, spec)


def list_clips(folder: Path, split: str) -> list[Clip]:
    """The clips in the sub-folders of ``folder``."""
    if not folder.is_dir():
        return []
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [Clip(path, entry.name, split, group=recording_of(path)) for entry in classes for path in media_files(entry)]


def recording_of(path: Path) -> str:
    """The recording of which a file is a cut, by its name; '' for one that is none."""
    found = CUT.fullmatch(path.stem)
    return found[1] if found else ""
