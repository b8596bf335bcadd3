"""A folder per class: ``root/dog/a.wav``, or with the split above it: ``root/train/dog/a.wav``."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.clips import SPLITS, Clip, existing_root, named_group
from datasets.labels import unify
from datasets.splits import DrawnCorpus, name_splits
from pipeline.core.errors import ConfigError
from pipeline.media.walk import ENDINGS, list_files, media_names, scan, tell

KEY = "dataset.root"
CUT = re.compile(r"(.+)_\d+\.\d+")  # of a recording, and from which second on; as the sink hard_negatives names them


class ClassFolders(DrawnCorpus):
    """Base: files below ``root``; the label is the folder's name.

    Files whose names differ only in a number with a point behind their last ``_`` (``street_00012.50.wav``) are cuts of
    one recording, and stand in one split.
    """

    endings = ENDINGS  # of files that are clips

    def __init__(
        self,
        root: str | None = None,
        fold: str | None = None,
        negatives: str | list[str] | None = None,
        **options: Any,
    ) -> None:
        """With ``root/train`` present, and the classes in it, the sub-folders ``train``, ``val`` and ``test`` (or
        ``Training``, ``valid``, ``dev``, ...: see ``name_splits``) are the splits; ConfigError with a ``fold`` then.

        Files that ``negatives`` names are no clips, so a folder of them may stand among the classes.
        """
        folder = existing_root(root, "a folder with one sub-folder of recordings per class")
        splits = find_splits(folder, self.endings)
        if fold and splits:
            train = next(name for name, split in splits.items() if split == "train")
            hint = f"leave dataset.fold out, or set dataset.root={folder / train} to fold these clips alone"
            raise ConfigError(f"dataset.fold: {str(folder)!r} has splits of its own, {', '.join(splits)}; {hint}")
        silent = {path.resolve() for path in list_files(negatives, "dataset.negatives")} if negatives else set()
        clips = unify(list_clips(folder, splits, self.endings), KEY)
        clips = [clip for clip in clips if not silent or clip.path.resolve() not in silent]
        if not clips:
            kind = "audio files" if self.endings is ENDINGS else f"files {', '.join(self.endings)}"
            raise ConfigError(f"dataset.root: no {kind} in the sub-folders of {str(folder)!r}")
        super().__init__(clips, [clip.unit for clip in clips], fold=fold, negatives=negatives, **options)


def sub_folders(folder: Path) -> list[str]:
    """The names of the folders right in a folder, sorted, without hidden ones."""
    return sorted(entry.name for entry in scan(str(folder), KEY) if entry.is_dir() and not entry.name.startswith("."))


def find_splits(folder: Path, endings: tuple[str, ...] = ENDINGS) -> dict[str, str]:
    """Which sub-folders are which split; none if they are classes. One that is named ``train`` and holds recordings,
    not classes, is a class itself. ConfigError if all have names of splits, and none can be the train split.
    """
    names = sub_folders(folder)
    splits = name_splits(names)
    train = [folder / name for name, split in splits.items() if split == "train"]
    alone = len(splits) == len(names)
    if any(sub_folders(one) and (alone or not holds_files(one, endings)) for one in train):
        return splits
    if names and alone:
        there = f"the sub-folders {', '.join(names)} of {str(folder)!r} have names of splits"
        hint = "expected train/CLASS/*.wav; classes of such names can stand in a table (dataset=manifest)"
        raise ConfigError(f"dataset.root: {there}, but there is no train with a folder for each class in it; {hint}")
    return {}


def holds_files(folder: Path, endings: tuple[str, ...]) -> bool:
    """Whether recordings are right in a folder."""
    return any(entry.name.lower().endswith(endings) and entry.is_file() for entry in scan(str(folder), KEY))


def list_clips(folder: Path, splits: Mapping[str, str], endings: tuple[str, ...] = ENDINGS) -> list[Clip]:
    """The clips in the folders of the classes, of each split or right in ``folder``; what is none is told."""
    clips, there, outside, depth = list[Clip](), set[str](), Counter[str](), 2 if splits else 1
    for name in media_names(str(folder), KEY, endings):
        parts = name.split("/")
        if len(parts) <= depth or (splits and parts[0] not in splits):
            outside["/".join(parts[:-1][:depth]) or "."] += 1
            continue
        group = named_group(CUT, folder / name)
        clips.append(Clip(folder / name, parts[depth - 1], splits.get(parts[0], ""), group=group))
        there.add("/".join(parts[:depth]))
    if outside:
        places = ", ".join(f"{place} {count}" for place, count in outside.items())
        tell(KEY, f"recordings in no class's folder are left out: {outside.total()} ({places})")
    classes = [f"{top}/{name}" for top in splits for name in sub_folders(folder / top)] or sub_folders(folder)
    if empty := [name for name in classes if name not in there]:
        tell(KEY, f"folders without any audio or video file are no classes: {len(empty)} ({', '.join(empty[:8])})")
    return sorted(clips, key=lambda clip: ("", *SPLITS).index(clip.split))  # a stable sort
