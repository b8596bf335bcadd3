"""A table of recordings, with ``path`` and ``transcript``: what is said in each, word by word, without times."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets.clips import CACHE_FOLDER, Clip, Clips, Share, check_splits, existing_root
from datasets.labels import tell_alike
from datasets.rows import to_clip
from datasets.splits import choose_splits
from pipeline.core.errors import ConfigError
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Split
from pipeline.media.tables import read_table, to_label, to_text


class Spoken(Clips):
    """Clips whose label is a transcript: words, with blanks between them."""

    def numbers(self, clip: Clip) -> tuple[int, ...]:
        """The words of a clip, in their order."""
        return tuple(self.index[word] for word in clip.label.split())

    @property
    def classes(self) -> Sequence[tuple[int, ...]]:  # type: ignore[override]
        return [self.numbers(clip) for clip in self.clips]


class Transcripts:
    """The rows of ``root/file``. Paths are relative to ``root`` and may not leave it."""

    background = None

    def __init__(
        self,
        root: str | None = None,
        file: str = "manifest.csv",
        group: str | None = None,
        splits: dict[str, list[str]] | None = None,
        fold: str | None = None,
        val: Share = 0.15,
        test: Share = 0.15,
        seed: int = 0,
        cache: str | None = "default",
    ) -> None:
        """As ``Manifest``; splits are drawn word by word. ConfigError also for a table without ``transcript``."""
        folder = existing_root(root, f"a folder with {file}")
        rows = list(read_table(str(folder / file), "dataset.file", ("path", "transcript")))
        named = [row | {"label": " ".join(map(to_label, to_text(row.get("transcript")).split()))} for row in rows]
        clips = [to_clip(row, folder, f"{file} row {number}", group) for number, row in enumerate(named, 1)]
        words = [replace(clip, label=word) for clip in clips for word in clip.label.split() or ("",)]
        drawn = choose_splits(words, splits, fold, [word.unit for word in words], val, test, seed, background="")
        check_splits([word for word in drawn if word.label], fewest=1)
        places = {(one.path, one.start, one.end): one.split for one in drawn}
        self.clips = [
            replace(one, split=place) for one in clips if (place := places.get((one.path, one.start, one.end)))
        ]
        self.labels = sorted({word.label for word in drawn if word.label})
        tell_alike(self.labels, "dataset.file")
        self.cache = None if cache is None else CACHE_FOLDER if cache == "default" else Path(cache)

    def split(self, name: str, spec: InputSpec) -> Split:
        """The recordings of ``train``, ``val`` or ``test``; ConfigError if there are some and none can be read."""
        clips = [clip for clip in self.clips if clip.split == name]
        part = Spoken(clips, self.labels, spec, self.cache)
        part.drop_unreadable(name)
        if clips and not part.clips:
            raise ConfigError(f"dataset: none of the {len(clips)} {name} files can be read; see the warnings above")
        return part
