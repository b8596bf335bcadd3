"""What is doubtful in a list of clips, and is told: labels of several spellings, and clips that are listed again."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from datasets.clips import Clip
from pipeline.media.tables import to_label
from pipeline.media.walk import tell


def unify(clips: Sequence[Clip], at: str) -> list[Clip]:
    """The clips with their labels as all readers spell them (``to_label``). Told, with the key ``at``: spellings that
    are taken for one label, labels that look alike, and clips that are listed again.
    """
    spelt = {raw: to_label(raw) or raw for raw in sorted({clip.label for clip in clips})}
    spellings = defaultdict[str, list[str]](list)
    for raw, label in spelt.items():
        spellings[label].append(raw)
    for label, found in spellings.items():
        if len(found) > 1:
            tell(at, f"{', '.join(map(ascii, found))} are taken for one label, {label!r}")
    tell_alike(spellings, at)
    clips = [clip if spelt[clip.label] == clip.label else replace(clip, label=spelt[clip.label]) for clip in clips]
    tell_repeated(clips, at)
    return clips


def tell_alike(labels: Iterable[str], at: str) -> None:
    """Say which labels differ only in their case, blanks and such."""
    alike = defaultdict[str, list[str]](list)
    for label in labels:
        plain = unicodedata.normalize("NFKC", label).casefold()
        alike[re.sub(r"[\s_-]+", " ", plain)].append(label)
    for found in alike.values():
        if len(found) > 1:
            named = " and ".join(map(repr, found))
            tell(at, f"the labels {named} look alike, and are classes of their own; if they are one, spell them alike")


def tell_repeated(clips: Sequence[Clip], at: str) -> None:
    """Say how many clips are listed again: as the same, as another label, in another split."""
    first: dict[tuple[str, float, float | None], Clip] = {}
    again = defaultdict[str, list[str]](list)
    for clip in clips:
        other = first.setdefault((os.path.normpath(clip.name), clip.start, clip.end), clip)
        if other.label != clip.label:
            again["listed again with another label"].append(f"{clip.name} ({other.label!r} and {clip.label!r})")
        elif other.split != clip.split:
            again["listed again in another split"].append(f"{clip.name} ({other.split} and {clip.split})")
        elif other is not clip:
            again["listed again"].append(clip.name)
    for what, names in again.items():
        tell(at, f"{len(names)} clip{'s are' if len(names) > 1 else ' is'} {what}, such as {names[0]}")
