"""A table of recordings, with ``path`` and ``transcript``: what is said in each, word by word, without times."""

from dataclasses import replace

from datasets.clips import Corpus, Share, existing_root
from datasets.labels import tell_alike
from datasets.rows import to_clip
from datasets.splits import choose_splits
from pipeline.media.tables import read_table, to_label, to_text


class Transcripts(Corpus):
    """The rows of ``root/file``. Paths are relative to ``root`` and may not leave it."""

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
        clips = [replace(clip, words=tuple(clip.label.split())) for clip in clips]
        drawn = choose_splits(clips, splits, fold, [clip.unit for clip in clips], val, test, seed, background="")
        super().__init__(drawn, cache)
        tell_alike(self.labels, "dataset.file")
