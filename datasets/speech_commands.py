"""Google Speech Commands (Warden 2018): one-second words, with the official lists of validation and test clips."""

from pathlib import Path
from typing import Any

import numpy as np

from datasets.clips import Clip, Corpus, existing_root, required
from pipeline.media.audio import probe

WORDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
WHAT = (
    "an unpacked copy of speech_commands_v0.02.tar.gz (a folder per word, validation_list.txt, testing_list.txt); "
    "fetch that archive, unpack it, and point to the folder"
)


class SpeechCommands(Corpus):
    """The 12-class task (ten words, ``_unknown_``, ``_silence_``), or all 35 words with ``words=[]``."""

    def __init__(
        self,
        root: str | None = None,
        words: list[str] = WORDS,
        unknown: float = 0.1,
        seed: int = 0,
        **options: Any,
    ) -> None:
        """Other words become ``_unknown_`` and one-second cuts of the background noises ``_silence_``; of each there
        are ``unknown`` times as many as clips of wanted words in the same split. ``words=[]`` keeps every word.
        """
        folder = existing_root(root, WHAT)
        lists = {"val": folder / "validation_list.txt", "test": folder / "testing_list.txt"}
        listed = {line: split for split, path in lists.items() for line in required(path, WHAT).read_text().split()}
        clips = []
        for path in sorted(folder.glob("[!_.]*/*.wav")):
            split = listed.get(f"{path.parent.name}/{path.name}", "train")
            clips.append(Clip(path, path.parent.name, split, group=path.name.split("_nohash_")[0]))
        if words:
            clips = keep_words(clips, words, unknown, folder, np.random.default_rng(seed))
        super().__init__(clips, **options)


def keep_words(clips: list[Clip], words: list[str], share: float, folder: Path, rng: np.random.Generator) -> list[Clip]:
    """Keep the wanted words, a share of the others as ``_unknown_``, and cuts of noise as ``_silence_``."""
    result = [clip for clip in clips if clip.label in words]
    noises = [(path, probe(path)) for path in sorted((folder / "_background_noise_").glob("*.wav"))]
    for split in ("train", "val", "test"):
        count = round(share * sum(clip.split == split for clip in result if clip.label in words))
        others = [clip for clip in clips if clip.split == split and clip.label not in words]
        for index in rng.permutation(len(others))[:count]:
            clip = others[index]
            result.append(Clip(clip.path, "_unknown_", split, group=clip.group))
        for _ in range(count if noises else 0):
            path, facts = noises[rng.integers(len(noises))]
            start = round(float(rng.uniform(0, max(0.0, (facts.frames or 0) / facts.rate - 1))), 3)
            result.append(Clip(path, "_silence_", split, start, start + 1))
    return result
