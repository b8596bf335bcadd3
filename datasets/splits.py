"""How clips are drawn into splits and folds: at random, label by label, and no recording or group in two of them."""

import re
import warnings
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import PositiveFloat

from datasets.clips import Clip, Corpus, Share
from pipeline.core.errors import ConfigError
from pipeline.media.tables import to_label
from pipeline.media.walk import tell

NAME = re.compile(
    r"(train|val|valid|validation|dev|eval|evaluation|test)(ing)?([-_ ]?(set|split|data))?", re.IGNORECASE
)
MEANINGS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}


class DrawnCorpus(Corpus):
    """Base: a corpus whose splits are drawn at random, as far as nothing says what they are."""

    def __init__(
        self,
        clips: Sequence[Clip],
        units: Sequence[str],
        splits: Mapping[str, Sequence[str]] | None = None,
        /,
        fold: str | None = None,
        val: Share = 0.15,
        test: Share = 0.15,
        seed: int = 0,
        crop: PositiveFloat | None = 10.0,
        background: str | None = None,
        **options: Any,
    ) -> None:
        """``val`` and ``test`` are shares drawn at random with ``seed``, where clips have no splits; if only ``val`` is
        missing, that share of train is held out.

        ``fold`` i/n, for cross-validation: the test split is one of n parts of all clips, whatever their split. Clips
        of one of the ``units`` stay together, and labels are spread evenly; with as many units as parts, one is left
        out at a time. ``val`` is held out of the rest.
        """
        background = background and to_label(background)
        drawn = choose_splits(clips, splits, fold, units, val, test, seed, background)
        super().__init__(drawn, crop=crop, background=background, **options)


def name_splits(names: Collection[str]) -> dict[str, str]:
    """Which of the names (``Train``, ``validation``, ``dev``, ``testing``) mean which split. ``eval`` is the test where
    another name is that of the validation, or else the validation itself; which of them is told.
    """
    found = {name: match[1].lower() for name in names if (match := NAME.fullmatch(name.strip()))}
    rest = "test" if "val" in {MEANINGS.get(word) for word in found.values()} else "val"
    told = found.items() if len(found) == len(names) else ()  # else they may be classes
    for name in (name for name, word in told if word not in MEANINGS):
        tell("dataset", f"{name!r} is taken for the split {rest}; name it val or test to say which")
    return {name: MEANINGS.get(word, rest) for name, word in found.items()}


def divide(clips: Sequence[Clip], shares: dict[str, float], seed: int, background: str | None = None) -> list[Clip]:
    """Give clips without a split one at random: ``shares`` per split name, label by label. Clips of one group stay
    together, and so do those of one recording that have no group.

    ConfigError if a label has fewer recordings (or groups) than there are splits to fill; those of the ``background``
    are all in train then, with a warning, as there may be one long recording of nothing.
    """
    rng = np.random.default_rng(seed)
    by_label: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        for label in clip.labels or ("",):
            by_label[label].append(clip)
    wanted = [name for name, share in shares.items() if share > 0]
    drawn: list[list[str]] = []  # the groups of each label
    for label, members in sorted(by_label.items()):
        groups = sorted({clip.unit for clip in members})
        if len(groups) < len(wanted):
            there = f"label {label!r} has {len(groups)} recordings (or groups), too few to stand in {', '.join(wanted)}"
            if label != background:
                hint = "add some, remove the label, or name it by dataset.background if it means nothing"
                raise ConfigError(f"dataset: {there}; {hint}")
            warnings.warn(f"{there}: all its clips are in train", stacklevel=2)
        rng.shuffle(groups)
        drawn.append(groups)
    chosen: dict[str, str] = {}  # group -> split
    for groups in sorted(drawn, key=len):  # rare labels first: others have more groups to stand in each split with
        free = [group for group in groups if group not in chosen]
        chosen |= assign(free, {name: shares[name] for name in wanted})
    return [replace(clip, split=chosen[clip.unit]) for clip in clips]


def fill_splits(clips: Sequence[Clip], val: float, test: float, seed: int, background: str | None = None) -> list[Clip]:
    """Give clips the splits that they lack: all three if no clip has one, or ``val`` out of train. ConfigError if
    nothing is left to learn from, and as of ``divide``.
    """
    found = {clip.split for clip in clips}
    if found == {""}:
        if val + test >= 1:
            raise ConfigError(f"dataset.val, dataset.test: {val:g} and {test:g} leave nothing for train; lower them")
        return divide(clips, {"train": 1 - val - test, "val": val, "test": test}, seed, background)
    return list(clips) if "val" in found else hold_out(clips, val, seed, background)


def choose_splits(
    clips: Sequence[Clip],
    splits: Mapping[str, Sequence[str]] | None,
    fold: str | None,
    together: Sequence[str],
    val: float,
    test: float,
    seed: int,
    background: str | None,
) -> list[Clip]:
    """The clips of a table in the splits train, val and test: those of a ``fold`` (see ``draw_fold``), or what
    ``splits`` says that the names in its column ``split`` mean, without those of other names, or what they mean by
    themselves; what is missing is drawn (see ``fill_splits``). ConfigError if these contradict, or some clips alone
    have no split.
    """
    if fold and splits:
        raise ConfigError("dataset.splits: has no meaning with dataset.fold, which makes the splits")
    if fold:
        clips = draw_fold(clips, fold, together, seed, background)
    elif splits:
        names = {name: split for split, listed in splits.items() for name in listed}
        for split, listed in splits.items():
            if other := next((name for name in listed if names[name] != split), None):
                raise ConfigError(f"dataset.splits: {other!r} is in {split} and {names[other]}")
        clips = [replace(clip, split=names[clip.split]) for clip in clips if clip.split in names]
    else:
        names = name_splits({clip.split for clip in clips} - {""})
        clips = [replace(clip, split=names.get(clip.split, clip.split)) for clip in clips]
    found = {clip.split for clip in clips}
    if "" in found and len(found) > 1:
        missing = sum(not clip.split for clip in clips)
        raise ConfigError(f"dataset.file: {missing} clips have no split, while others have one")
    return fill_splits(clips, val, test, seed, background)


def assign(groups: list[str], shares: dict[str, float]) -> dict[str, str]:
    """Split names for ``groups`` by share, at least one each where there are enough; train takes the rest."""
    result: dict[str, str] = {}
    position = 0
    for name, share in shares.items():
        if name == "train":
            continue
        count = max(1, round(share * len(groups))) if len(groups) >= len(shares) else 0
        result |= dict.fromkeys(groups[position : position + count], name)
        position += count
    return result | dict.fromkeys(groups[position:], "train")


def hold_out(clips: Sequence[Clip], share: float, seed: int, background: str | None = None) -> list[Clip]:
    """The ``share`` of the training clips for validation; the others as they are. ConfigError as of ``divide``."""
    train = [clip for clip in clips if clip.split == "train"]
    drawn = divide(train, {"train": 1 - share, "val": share}, seed, background)
    return drawn + [clip for clip in clips if clip.split != "train"]


def draw_fold(
    clips: Sequence[Clip], fold: str, together: Sequence[str], seed: int, background: str | None = None
) -> list[Clip]:
    """Clips in the splits train and test. ``together``: for each clip what it must not be parted from.

    ConfigError if there are too few of these, in all or of a label; if there are too few of the ``background``, its
    clips are all in train, with a warning.
    """
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", fold)
    if not found or not 1 <= int(found[1]) <= int(found[2]) or int(found[2]) < 2:
        raise ConfigError(f"dataset.fold: got {fold!r}; expected one such as 1/5, 2/5, 3/5, 4/5 or 5/5")
    number, count = int(found[1]) - 1, int(found[2])
    units = "recordings (or groups, or values of dataset.fold_by)"
    owners: dict[str, set[str]] = defaultdict(set)
    pairs = [(place, label) for place, clip in enumerate(clips) for label in clip.labels or ("",)]
    for place, label in pairs:
        owners[label].add(together[place])
    fixed = background if background in owners and len(owners[background]) < count else None
    if fixed is not None:
        there = f"label {fixed!r} has {len(owners[fixed])} {units}"
        warnings.warn(f"{there}, fewer than folds: its clips are in train", stacklevel=2)
    for label, own in sorted(owners.items()):
        if len(own) < 2 and label != fixed:
            raise ConfigError(f"dataset.fold: label {label!r} has 1 of {units}; to test and to learn takes two")
    drawn = [(place, label) for place, label in pairs if label != fixed]
    labels, values = [label for _, label in drawn], [together[place] for place, _ in drawn]
    distinct = len(set(values))
    if distinct < count or len(labels) < count:
        raise ConfigError(f"dataset.fold: {fold} needs {count} {units} to leave out; there are {distinct}")
    from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold  # most of a second, for folds alone

    ways = LeaveOneGroupOut() if distinct == count else StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # not in every fold: its accuracy shows that
        try:
            parts = list(ways.split(drawn, labels, values))
        except ValueError:
            most = max(labels.count(label) for label in set(labels))
            raise ConfigError(f"dataset.fold: {fold}, but no label has more than {most} clips; take fewer") from None
    test = {drawn[pair][0] for pair in parts[number][1].tolist()}
    return [replace(clip, split="test" if place in test else "train") for place, clip in enumerate(clips)]
